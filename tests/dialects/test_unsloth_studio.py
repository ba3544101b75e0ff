"""Unsloth Studio's files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text
from lora_lint.dialects import LoraKwargs, Undecided, dialect
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
model: unsloth/Qwen2.5-0.5B
data:
  dataset: tatsu-lab/alpaca
training:
  training_type: lora
  max_seq_length: 2048
  load_in_4bit: true
  learning_rate: 2e-4
  batch_size: 2
lora:
  lora_r: 64  # rank
  lora_alpha: 16
  target_modules: "q_proj, v_proj"
"""


def test_what_a_file_says() -> None:
    recipe = recipe_of(FILE)
    said = {
        "base_model": "unsloth/Qwen2.5-0.5B",
        "r": 64,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "quantization": "nf4",
        "max_length": 2048,
        "learning_rate": 2e-4,
        "gradient_accumulation_steps": 4,
    }
    assert {name: recipe.value(name) for name in said} == said


def test_what_peft_receives() -> None:
    made = dialect("unsloth_studio").lower(recipe_of(FILE), None)
    assert isinstance(made, LoraKwargs)
    assert made.values["target_modules"] == ["q_proj", "v_proj"]
    assert made.values["task_type"] == "CAUSAL_LM"


def test_no_modules_leave_the_choice_to_unsloth() -> None:
    made = dialect("unsloth_studio").lower(recipe_of(FILE.replace("q_proj, v_proj", "")), None)
    assert isinstance(made, Undecided)


def test_a_full_fine_tune_with_the_template_is_silent() -> None:
    report = lint_text(FILE.replace("type: lora", "type: full"), "full.yaml")
    assert not report.diagnostics


def test_other_keys_are_refused() -> None:
    report = lint_text(FILE.replace("lora_alpha", "lora_aplha"), "train.yaml")
    assert [d.severity for d in report.diagnostics if "lora_aplha" in d.message] == ["error"]


def test_model_defaults_hold_more_keys() -> None:
    text = FILE[FILE.index("training:") :].replace(
        "  batch_size", "  optim: adamw_torch\n  batch_size"
    )
    report = lint_text(text.replace('"q_proj, v_proj"', '["all-linear"]'), "m.yaml")
    assert not [d for d in report.diagnostics if d.severity == "error"]
    assert report.recipes[0].recipe.value("target_modules") == "all-linear"


@given(st.integers(1, 512), st.sampled_from(["r", "lora_alpha", "max_length"]))
def test_numbers(value: int, field: str) -> None:
    assert "# rank" in roundtrip(FILE, field, value)


@given(st.lists(st.sampled_from(["k_proj", "o_proj", "up_proj"]), min_size=1, unique=True))
def test_modules(value: list[str]) -> None:
    roundtrip(FILE, "target_modules", value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_model", "x"),
        ("lora_dropout", 0.1),
        ("use_dora", True),
        ("use_rslora", True),
        ("packing", True),
        ("gradient_checkpointing", "none"),
        ("gradient_accumulation_steps", 2),
        ("learning_rate", 0.5),
        ("weight_decay", 0.1),
    ],
)
def test_every_other_slot(field: str, value: object) -> None:
    roundtrip(FILE, field, value)
