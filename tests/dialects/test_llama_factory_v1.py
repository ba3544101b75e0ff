"""The files of LLaMA-Factory's new engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import lint_text, resolve_model
from lora_lint.diagnostics import Set
from lora_lint.dialects import LoraKwargs, Undecided, dialect, recipes
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.fixes import apply_edits
from lora_lint.recipe import Recipe

TEXT = """\
model: Qwen/Qwen3-4B
model_class: llm
peft_config:
  name: lora
  r: 16  # rank
  lora_alpha: 32
  lora_dropout: 0.05
  target_modules: all
  use_rslora: "false"
  modules_to_save: [lm_head]
kernel_config: {name: auto}
quant_config: {name: bnb, quantization_bit: 4}
train_dataset: data.yaml
micro_batch_size: 1
cutoff_len: 1024
learning_rate: 1e-4
bf16: true
enable_activation_checkpointing: false
flash_attn: sdpa
trust_remote_code: false
max_grad_norm: 1.0
"""


def one(text: str, path: str = "train.yaml") -> Recipe:
    (recipe,) = recipes(parse(path, text))
    return recipe


def kwargs(text: str) -> dict[str, Any]:
    lowered = dialect("llama_factory_v1").lower(one(text), resolve_model("Qwen/Qwen3-4B"))
    assert isinstance(lowered, LoraKwargs)
    return dict(lowered.values)


def test_what_it_says() -> None:
    recipe = one(TEXT)
    assert recipe.dialect == "llama_factory_v1"
    values = {
        "base_model": "Qwen/Qwen3-4B",
        "r": 16,
        "lora_alpha": 32,
        "use_rslora": False,
        "target_modules": "all-linear",
        "quantization": "nf4",
        "double_quant": True,
        "max_length": 1024,
        "learning_rate": 1e-4,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 1,
    }
    assert {name: recipe.value(name) for name in values} == values
    assert lint_text(TEXT.replace("  modules_to_save: [lm_head]\n", ""), "a.yaml").diagnostics == ()


def test_its_own_defaults() -> None:
    recipe = one("model: m\npeft_config: {name: lora}\ntrain_dataset: d\ncutoff_len: 512\n")
    values = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": "all-linear"}
    assert {name: recipe.value(name) for name in values} == values
    assert recipe["lora_alpha"].origin == "default"


def test_all_is_every_linear_layer_by_its_last_name() -> None:
    names = kwargs(TEXT)["target_modules"]
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert sorted(names) == sorted([*attention, "gate_proj", "up_proj", "down_proj"])
    assert kwargs(TEXT.replace("modules: all", "modules: q_proj"))["target_modules"] == ["q_proj"]


def test_an_adapter_that_is_trained_further() -> None:
    text = TEXT.replace("name: lora\n", "name: lora\n  adapter_name_or_path: saves/a\n")
    assert isinstance(dialect("llama_factory_v1").lower(one(text), None), Undecided)


@pytest.mark.parametrize(
    ("old", "new", "severity", "words"),
    [
        ("  r: 16", "  lora_rank: 16", "warning", "ignores it"),
        ("lora_dropout:", "lora_dropuot:", "warning", "ignores it"),
        ("cutoff_len:", "cutof_len:", "error", "not used by the HfArgumentParser"),
    ],
)
def test_keys_it_does_not_know(old: str, new: str, severity: str, words: str) -> None:
    report = lint_text(TEXT.replace(old, new), "train.yaml")
    found = [d for d in report.diagnostics if d.code in ("CF007", "CF008")]
    assert [d.severity for d in found] == [severity]
    assert words in (found[0].label or "")


@pytest.mark.parametrize(
    ("old", "new"),
    [("name: lora", "name: freeze"), ("  r: 16", "  export_dir: out\n  r: 16")],
)
def test_other_plugins_and_merging_are_no_run(old: str, new: str) -> None:
    found = recipes(parse("train.yaml", TEXT.replace(old, new)))
    assert [r.dialect for r in found if r.dialect == "llama_factory_v1"] == []


_VALUES = {
    "r": st.integers(1, 256),
    "lora_alpha": st.integers(1, 512),
    "lora_dropout": st.floats(0, 0.9).map(lambda x: round(x, 3)),
    "use_rslora": st.booleans(),
    "use_dora": st.booleans(),
    "target_modules": st.lists(st.sampled_from(["q_proj", "v_proj", "up_proj"]), min_size=1),
    "modules_to_save": st.lists(st.sampled_from(["lm_head", "embed_tokens"]), min_size=1),
    "base_model": st.sampled_from(["a/b", "gpt2"]),
    "max_length": st.integers(16, 8192),
    "per_device_train_batch_size": st.integers(1, 64),
    "gradient_checkpointing": st.booleans(),
    "learning_rate": st.floats(1e-6, 1e-2).map(lambda x: float(f"{x:.3g}")),
    "attn_implementation": st.sampled_from(["eager", "flash_attention_2"]),
    "trust_remote_code": st.booleans(),
    "bf16": st.booleans(),
    "max_grad_norm": st.integers(1, 5).map(float),
}


def test_every_slot_is_tried() -> None:
    assert set(_VALUES) == set(dialect("llama_factory_v1").slots)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), field=st.sampled_from(sorted(_VALUES)))
def test_an_edit_gives_a_field_its_value(data: st.DataObject, field: str) -> None:
    value = data.draw(_VALUES[field])
    document = parse("train.yaml", TEXT)
    (before,) = recipes(document)
    edits = plan(document, dialect(before.dialect), before, Set(field, value))
    after = one(apply_edits(TEXT, edits))
    assert after.value(field) == value
    for name in {*before.fields, *after.fields} - {field}:
        assert after.value(name) == before.value(name), name
