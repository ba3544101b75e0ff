"""What the rule files say about real libraries, run with the real libraries."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from torch import nn

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}


def llama() -> nn.Module:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))


def adapted(**config: Any) -> Any:
    config = {"target_modules": ["q_proj", "v_proj"], **config}
    return peft.get_peft_model(llama(), peft.LoraConfig(**config))


def gradients(model: Any) -> dict[str, float]:
    """The largest gradient of each trained parameter after one step of training."""
    torch.manual_seed(1)
    batch = torch.randint(0, 64, (2, 8))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    model.train()
    model(input_ids=batch, labels=batch).loss.backward()
    return {
        name: parameter.grad.abs().max().item()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def test_cf002_loaders_keep_the_last_of_two_keys() -> None:
    assert yaml.safe_load("a: 1\na: 2") == {"a": 2}
    assert json.loads('{"a": 1, "a": 2}') == {"a": 2}


def test_cf003_a_number_without_a_dot_is_a_string_that_peft_refuses() -> None:
    dropout = yaml.safe_load("lora_dropout: 5e-2")["lora_dropout"]
    assert dropout == "5e-2"
    with pytest.raises(TypeError):
        adapted(r=8, lora_dropout=dropout)


def test_cf005_bias_must_be_a_text() -> None:
    for bias in (False, True, None):
        with pytest.raises(AttributeError, match="has no attribute 'endswith'"):
            adapted(r=8, bias=bias)


def test_cf006_numbers_in_base_8_and_60() -> None:
    read = yaml.safe_load("{a: 010, b: 08, c: 12:30, d: 07}")
    assert read == {"a": 8, "b": "08", "c": 750, "d": 7}


def test_cf004_none_as_text_is_no_bias() -> None:
    with pytest.raises(NotImplementedError, match="Requested bias: None"):
        adapted(r=8, bias="None")


def test_cf009_types_that_peft_cannot_use() -> None:
    with pytest.raises(TypeError):
        adapted(r="16")
    with pytest.raises(TypeError):
        adapted(r=8, lora_dropout=None)
    names = [name for name, _ in adapted(use_dora="false").named_parameters()]
    assert any("lora_magnitude_vector" in name for name in names)


def test_cf010_a_list_in_quotes_is_a_pattern() -> None:
    with pytest.raises(ValueError, match="not found in the base model"):
        adapted(target_modules="['q_proj', 'v_proj']")


def test_em801_a_string_unfreezes_nearly_the_whole_model() -> None:
    whole = sum(parameter.numel() for parameter in llama().parameters())
    assert adapted(modules_to_save=["lm_head"]).get_nb_trainable_parameters()[0] < 0.2 * whole
    assert adapted(modules_to_save="lm_head").get_nb_trainable_parameters()[0] > 0.9 * whole


def test_sc201_alpha_zero_has_no_gradient() -> None:
    assert set(gradients(adapted(r=8, lora_alpha=0)).values()) == {0.0}
    assert min(gradients(adapted(r=8, lora_alpha=16)).values()) > 0
    dora = gradients(adapted(r=8, lora_alpha=0, use_dora=True))
    assert max(value for name, value in dora.items() if "magnitude" in name) > 0
    assert max(gradients(adapted(r=8, lora_alpha=0, alpha_pattern={"q_proj": 8})).values()) > 0


def test_sc205_full_dropout_has_no_gradient() -> None:
    assert set(gradients(adapted(r=8, lora_alpha=16, lora_dropout=1.0)).values()) == {0.0}
    on_embedding = adapted(r=8, lora_dropout=1.0, target_modules=["embed_tokens"])
    assert max(gradients(on_embedding).values()) > 0


def test_tr611_biases_are_trained_all_the_same() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=64, n_head=2))
    for bias, trained in (("none", False), ("all", True)):
        config = peft.LoraConfig(inference_mode=True, bias=bias, target_modules=["c_attn"])
        count = peft.get_peft_model(copy.deepcopy(model), config).get_nb_trainable_parameters()[0]
        assert (count > 0) is trained


def test_sc206_dropout_is_a_share() -> None:
    with pytest.raises(ValueError, match="dropout probability"):
        adapted(r=8, lora_dropout=5)
    model = adapted(r=8, lora_dropout=-0.1)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert isinstance(layer.lora_dropout["default"], nn.Identity)


def test_tr601_one_mixed_precision() -> None:
    with pytest.raises(ValueError, match="At most one of fp16 and bf16"):
        transformers.TrainingArguments(output_dir="unused", fp16=True, bf16=True, use_cpu=True)


def test_tr611_inference_mode_trains_nothing() -> None:
    assert adapted(r=8, inference_mode=True).get_nb_trainable_parameters()[0] == 0


def test_tr614_without_the_task_type_the_head_is_frozen() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = transformers.BertConfig(**sizes, num_attention_heads=4, vocab_size=64)

    def trained(**more: Any) -> set[str]:
        model = transformers.BertForSequenceClassification(config)
        lora = peft.LoraConfig(target_modules=["query"], **more)
        found = peft.get_peft_model(model, lora).named_parameters()
        return {name for name, parameter in found if parameter.requires_grad}

    assert not any("classifier" in name for name in trained())
    assert any("classifier" in name for name in trained(task_type="SEQ_CLS"))
    with pytest.raises(AttributeError, match="prepare_inputs_for_generation"):
        trained(task_type="CAUSAL_LM")


def test_vr309_transformers_5_refuses_load_in_4bit(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="unexpected keyword argument 'load_in_4bit'"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path, load_in_4bit=True)
