from __future__ import annotations

import peft
import pytest
import torch
import transformers

from lora_lint.injection import inject
from lora_lint.memory.weights import Group, optimizer, optimizer_bytes, read_trained, read_weights
from lora_lint.models import ModuleTree
from tests.memory.models import config, tree

GIB = 2**30


def size(name, quantized=None, *, double_quant=False, weight_bytes=2, plain_bytes=2):
    return read_weights(tree(name)).size(
        weight_bytes=weight_bytes,
        plain_bytes=plain_bytes,
        quantized=quantized,
        double_quant=double_quant,
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as the models' pages on the hub count them (safetensors index)
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-3b", 3_212_749_824),
        ("qwen2.5-7b", 7_615_616_512),
        ("gpt2", 124_439_808),
    ],
)
def test_parameters_are_counted_once_when_tied(name, parameters):
    assert read_weights(tree(name)).parameters == parameters


def test_llama_2_13b_in_bf16_needs_more_than_24_gib():
    assert size("llama-2-13b") / GIB == pytest.approx(24.24, abs=0.005)


@pytest.mark.parametrize(("double_quant", "per_value"), [(False, 0.5625), (True, 0.5159)])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bit_weights_cost_scales_too(kind, double_quant, per_value):
    """The layers' matrices only: embeddings, head and norms stay in 16 bit."""
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    others = 6_738_415_616 - matrices
    expected = per_value * matrices + 2 * others
    assert size("llama-2-7b", kind, double_quant=double_quant) == pytest.approx(expected, rel=1e-4)


def test_preparation_for_kbit_training_doubles_what_is_not_quantized():
    others = 6_738_415_616 - 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    grown = size("llama-2-7b", "nf4", plain_bytes=4) - size("llama-2-7b", "nf4")
    assert grown == 2 * others


def test_eight_bit_weights_cost_a_byte_and_a_scale_a_row():
    rows = 32 * (4 * 4096 + 2 * 11008 + 4096)
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert size("llama-2-7b", "int8") == matrices + 4 * rows + 2 * (6_738_415_616 - matrices)


def test_gpt2s_conv1d_is_quantized_and_its_tied_head_is_not():
    matrices = 12 * (768 * 2304 + 768 * 768 + 2 * 768 * 3072)
    others = 124_439_808 - matrices
    assert size("gpt2", "nf4") == pytest.approx(0.5625 * matrices + 2 * others, rel=1e-4)


def test_a_linear_subclass_is_quantized_by_transformers_4_alone():
    """transformers 5.23 asks ``type(module) is nn.Linear``, 4.57 asked ``isinstance``."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.FalconConfig(num_hidden_layers=1)
        )
    new = ModuleTree.from_model(model)
    old = ModuleTree.from_json(
        new.to_json().replace(f'"transformers":"{new.transformers}"', '"transformers":"4.57.1"')
    )
    assert old.transformers == "4.57.1"
    assert sum(read_weights(new).matrices.values()) == 0
    assert sum(read_weights(old).matrices.values()) == 4


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 8, "target_modules": ["q_proj", "v_proj"]},
        {"r": 4, "target_modules": "all-linear", "use_dora": True},
        {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
        {"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": [1, 2, 3]},
        {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": "mica"},
    ],
)
def test_what_is_trained_is_what_peft_trains(lora):
    lora = {**lora, "task_type": "CAUSAL_LM"}
    with torch.device("meta"):
        base = transformers.AutoModelForCausalLM.from_config(config("llama-3.1-8b", layers=2))
        before = sum(p.numel() for p in base.parameters())
        model = peft.get_peft_model(base, peft.LoraConfig(**lora))
    shape = tree("llama-3.1-8b", 2)
    trained = read_trained(shape, inject(shape, lora, peft="0.21.2"))
    parameters = dict(model.named_parameters())
    saved = sum(p.numel() for n, p in parameters.items() if ".modules_to_save." in n)
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    assert trained.saved.parameters == saved
    assert trained.adapters.parameters == trainable - saved
    added = sum(p.numel() for p in parameters.values()) - before
    assert trained.adapters.parameters + trained.frozen + saved == added


@pytest.mark.parametrize(
    ("name", "per_parameter"),
    [
        (None, 8),
        ("adamw_torch", 8),
        ("adamw_torch_fused", 8),
        ("paged_adamw_32bit", 8),
        ("adamw_8bit", 2 + 2 * 4 / 256),
        ("adamw_bnb_8bit", 2 + 2 * 4 / 256),
        ("lion_32bit", 4),
        ("sgd", 0),
    ],
)
def test_optimizer_states_per_fp32_parameter(name, per_parameter):
    kind = optimizer(name)
    assert optimizer_bytes(kind, Group(1_000_000, 0), 4) == per_parameter * 1_000_000


def test_torchs_adamw_keeps_states_in_the_parameters_dtype():
    parameter = torch.nn.Parameter(torch.zeros(1000, dtype=torch.bfloat16))
    parameter.grad = torch.zeros_like(parameter)
    real = torch.optim.AdamW([parameter])
    real.step()
    states = [state for state in real.state[parameter].values() if state.ndim]
    kind = optimizer("adamw_torch")
    assert optimizer_bytes(kind, Group(1000, 0), 2) == sum(s.nbytes for s in states)


def test_adafactor_keeps_rows_and_columns():
    r, width = 8, 4096
    shape = tree("llama-2-7b")
    lora = {"r": r, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    trained = read_trained(shape, inject(shape, lora, peft="0.21.2"))
    each = (r + width) + (width + r)  # lora_A, lora_B
    assert optimizer_bytes(optimizer("adafactor"), trained.adapters, 4) == 32 * each * 4


def test_an_unknown_optimizer_is_not_guessed():
    assert optimizer("my_own") is None


def test_litgpt_quantizes_the_head_and_ties_nothing():
    """Llama-3.2-3B's linear maps have 2,818,572,288 values, its embeddings and its head 394,002,432
    each (hidden 3072, vocabulary 128256); norms have 57 x 3072.
    """
    weights = read_weights(tree("llama-3.2-3b"), every_linear=True)
    head, norms = 3072 * 128256, 57 * 3072
    assert weights.parameters == 3_212_749_824 + head
    nf4 = weights.size(weight_bytes=2, plain_bytes=2, quantized="nf4", double_quant=False)
    assert nf4 == (2_818_572_288 + head) * 9 // 16 + 2 * (head + norms)
