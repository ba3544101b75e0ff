"""Ludwig's YAML for language models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text
from lora_lint.dialects import LoraKwargs, dialect
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
model_type: llm
base_model: llama-2-7b
input_features:
  - {name: instruction, type: text}
output_features:
  - {name: output, type: text}
adapter:
  type: lora
  r: 16  # rank
  target_modules: [q_proj, v_proj]
quantization:
  bits: 4
preprocessing:
  global_max_sequence_length: 512
trainer:
  type: finetune
  batch_size: auto
"""


def test_what_a_file_says() -> None:
    recipe = recipe_of(FILE)
    said = {
        "base_model": "meta-llama/Llama-2-7b-hf",
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "max_length": 512,
        "quantization": "nf4",
        "double_quant": True,
        "dtype": "float16",
        "learning_rate": 0.0002,
    }
    assert {name: recipe.value(name) for name in said} == said
    assert recipe["lora_alpha"].origin == "computed"
    assert recipe["per_device_train_batch_size"].origin == "unknown"
    assert (recipe.dialect, recipe.objective) == ("ludwig", "sft")


def test_what_peft_receives() -> None:
    made = dialect("ludwig").lower(recipe_of(FILE), None)
    assert isinstance(made, LoraKwargs)
    assert made.values == {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
        "use_dora": False,
    }


def test_an_adapter_of_one_word_has_the_defaults() -> None:
    recipe = recipe_of("model_type: llm\nbase_model: gpt2\nadapter: lora\n")
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (8, 16)
    assert recipe.value("dtype") == "float32"


@pytest.mark.parametrize("adapter", ["{type: adalora, r: 8}", "null", "{type: ia3}"])
def test_other_adapters_are_no_lora(adapter: str) -> None:
    report = lint_text(f"model_type: llm\nbase_model: gpt2\nadapter: {adapter}\n", "train.yaml")
    assert not report.recipes


def test_a_number_must_be_one() -> None:
    report = lint_text(FILE.replace("r: 16", 'r: "16"'), "train.yaml")
    assert [d.code for d in report.diagnostics if d.severity == "error"]


def test_an_init_of_a_newer_version() -> None:
    recipe = recipe_of(FILE.replace("  r: 16", "  init_lora_weights: pissa\n  r: 16"))
    made = dialect("ludwig").lower(recipe, None)
    assert isinstance(made, LoraKwargs)
    assert made.values["init_lora_weights"] == "pissa"
    assert not recipe.stray


@given(st.integers(1, 512), st.sampled_from(["r", "max_length", "per_device_train_batch_size"]))
def test_numbers(value: int, field: str) -> None:
    text = FILE.replace("  r: 16", "  alpha: 32\n  r: 16")
    assert "# rank" in roundtrip(text, field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_model", "gpt2"),
        ("lora_alpha", 7),
        ("lora_dropout", 0.2),
        ("bias", "all"),
        ("target_modules", ["k_proj"]),
        ("use_rslora", True),
        ("use_dora", True),
        ("init_lora_weights", "eva"),
        ("gradient_accumulation_steps", 4),
        ("gradient_checkpointing", True),
        ("learning_rate", 0.001),
        ("trust_remote_code", True),
    ],
)
def test_every_other_slot(field: str, value: object) -> None:
    roundtrip(FILE, field, value)
