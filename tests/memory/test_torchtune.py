"""torchtune's own layers, head and loss, against traces of the models that its builders make.

Bytes that PyTorch would have allocated at the peak of the second step of the recipe for one device,
by ``tools/torchtune_step.py`` with torchtune 0.6.1, torchao 0.10 and torch 2.13; gradients of the
first are alive.
"""

from __future__ import annotations

import pytest

from lora_lint.memory import estimate_memory, framework_profile
from lora_lint.memory.estimate import CONTEXT_HIGH
from lora_lint.memory.torchtune import buffers, has_buffers
from lora_lint.models.torchtune import torchtune_tree
from tests.memory.models import tree

QV = ("q_proj", "v_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
PARTS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MOST = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
ALL = (*MOST, "lm_head")
CHECKPOINTS = {"gradient_checkpointing": True}
NF4 = {"quantization": "nf4", "double_quant": True}
# Builder, model, its layers, rank, modules, dropout, batch, length, traced; other settings.
TRACED = {
    "all that is kept": (
        ("lora_llama2_7b", "llama-2-7b", 32, 8, QV, 0.05, 2, 1024, 24_231_934_976),
        {},
    ),
    "checkpoints": (
        ("lora_llama3_1_8b", "llama-3.1-8b", 32, 8, PARTS, 0.0, 2, 2048, 20_840_611_328),
        CHECKPOINTS,
    ),
    "an adapter on the head": (
        ("lora_llama3_1_8b", "llama-3.1-8b", 32, 64, ALL, 0.05, 1, 1000, 26_989_679_104),
        {},
    ),
    "tied embeddings": (
        ("lora_llama3_2_3b", "llama-3.2-3b", 28, 8, QV, 0.0, 2, 1024, 14_215_669_248),
        {},
    ),
    "fp32": (
        ("lora_llama3_2_3b", "llama-3.2-3b", 28, 8, PARTS, 0.05, 1, 800, 20_411_911_168),
        {"dtype": "float32"},
    ),
    "rotation in 16 bit": (
        ("lora_qwen2_5_7b_base", "qwen2.5-7b", 28, 8, PARTS, 0.0, 1, 2048, 21_608_226_816),
        CHECKPOINTS,
    ),
    "one head of keys": (
        ("lora_gemma_2b", "gemma-2b", 18, 8, PARTS, 0.0, 2, 512, 9_984_710_656),
        {},
    ),
    "all scores": (
        ("lora_gemma2_2b", "gemma-2-2b", 26, 8, PARTS, 0.0, 1, 1024, 12_603_568_640),
        {},
    ),
    "logits by the loss, in chunks": (
        ("lora_gemma2_2b", "gemma-2-2b", 26, 16, ATTENTION, 0.0, 2, 777, 14_081_672_192),
        {"linear_loss": True},
    ),
    "halves turned by fp32": (
        ("lora_phi3_mini", "phi-3-mini", 32, 8, PARTS, 0.05, 2, 1024, 19_352_318_976),
        {},
    ),
    "nf4": (
        ("lora_llama3_1_8b", "llama-3.1-8b", 32, 16, MOST, 0.05, 4, 777, 35_363_502_592),
        NF4,
    ),
    "nf4 and checkpoints": (
        ("lora_mistral_7b", "mistral-7b", 32, 8, QV, 0.05, 2, 2048, 7_560_261_120),
        {**NF4, **CHECKPOINTS},
    ),
}


def estimate(
    builder, name, layers, r, modules, dropout, batch, length, *, linear_loss=False, **settings
):
    model = torchtune_tree(tree(name, layers))
    quantized = "quantization" in settings
    profile = framework_profile("torchtune", quantized=quantized)
    profile = profile._replace(fused_loss=linear_loss)
    return estimate_memory(
        model,
        {"r": r, "target_modules": list(modules), "lora_dropout": dropout},
        **{
            "dtype": "bfloat16",
            "quantization": "none",
            "double_quant": False,
            "max_length": length,
            "per_device_train_batch_size": batch,
            "gradient_checkpointing": False,
            "gradient_accumulation_steps": 2,
            "optim": "adamw_torch_fused",
            "packing": False,
            **settings,
        },
        profile=profile._replace(buffers=buffers(builder, model)),
    )


@pytest.mark.parametrize("row", TRACED)
def test_steps_are_within_a_thousandth_of_torchtunes_model(row):
    (*setting, traced), settings = TRACED[row]
    assert estimate(*setting, **settings).tensors == pytest.approx(traced, rel=1e-3)


# Bytes of the buffers of models that torchtune's builders make.
BUFFERS = {
    ("lora_llama2_7b", "llama-2-7b", 32): 67_117_056,
    ("qlora_llama2_13b", "llama-2-13b", 40): 83_896_320,
    ("lora_code_llama2_7b", "llama-2-7b", 32): 268_443_648,
    ("lora_llama3_8b", "llama-3.1-8b", 32): 134_225_920,
    ("lora_llama3_1_8b", "llama-3.1-8b", 32): 67_109_120,
    ("lora_mistral_7b", "mistral-7b", 32): 536_879_104,
    ("lora_gemma_2b", "gemma-2b", 18): 151_004_160,
    ("lora_phi3_mini", "phi-3-mini", 32): 100_669_440,
    ("lora_qwen2_5_7b_base", "qwen2.5-7b", 28): 3_758_103_552,
    ("lora_qwen2_5_7b_instruct", "qwen2.5-7b", 28): 939_531_264,
}


@pytest.mark.parametrize(("builder", "name", "layers"), BUFFERS)
def test_each_layers_cosines_and_sines_are_counted(builder, name, layers):
    assert buffers(builder, tree(name, layers)) == BUFFERS[builder, name, layers]


def test_builders_that_are_not_described_have_no_buffers():
    others = ("llama3_2_vision_11b", "llama3", "llama2_reward_7b")
    for builder in (*(f"lora_{name}" for name in others), "llama2_7b", ""):
        assert not has_buffers(builder)
        assert buffers(builder, tree("llama-2-7b")) == 0


def test_the_band_is_5_percent_10_in_4_bit_and_15_for_layers_that_are_not_described():
    for name, settings, width in (
        ("llama-2-7b", {}, 0.05),
        ("llama-2-7b", NF4, 0.10),
        ("qwen3-8b", {}, 0.15),
    ):
        found = estimate("lora_llama2_7b", name, None, 8, QV, 0.05, 1, 512, **settings)
        assert found.high == pytest.approx(found.tensors * (1 + width) + CONTEXT_HIGH, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("qwen2.5-7b", NF4),
        ("llama-2-7b", {**NF4, "dtype": "float32"}),
        ("llama-2-7b", {"quantization": "int8"}),
    ],
)
def test_other_quantization_has_no_figure(name, settings):
    found = estimate("lora_llama2_7b", name, None, 8, QV, 0.05, 1, 512, **settings)
    assert found.peak is None
    assert "torchtune quantizes" in found.reason
