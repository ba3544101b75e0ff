"""H2O LLM Studio's YAML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text, resolve_model
from lora_lint.dialects import LoraKwargs, Undecided, dialect
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
architecture:
    backbone_dtype: int4
    gradient_checkpointing: true
llm_backbone: openai-community/gpt2
problem_type: text_causal_language_modeling
tokenizer:
    max_length: 512
training:
    batch_size: 2
    learning_rate: 0.0001
    lora: true
    lora_alpha: 16
    lora_dropout: 0.05
    lora_r: 4  # rank
    lora_target_modules: ''
    optimizer: AdamW
"""


def lowered(text: str) -> LoraKwargs | Undecided:
    return dialect("h2o_llmstudio").lower(recipe_of(text), resolve_model("gpt2"))


def test_what_a_file_says() -> None:
    recipe = recipe_of(FILE)
    said = {
        "base_model": "openai-community/gpt2",
        "r": 4,
        "lora_alpha": 16,
        "quantization": "nf4",
        "double_quant": False,
        "dtype": "float16",
        "max_length": 512,
        "optim": "adamw_torch",
        "target_modules": "all-linear",
    }
    assert {name: recipe.value(name) for name in said} == said


def test_an_empty_string_is_every_layer_without_head_in_its_name() -> None:
    made = lowered(FILE)
    assert isinstance(made, LoraKwargs)
    assert made.values["target_modules"] == ["c_attn", "c_proj", "c_fc"]


def test_names_at_commas() -> None:
    made = lowered(FILE.replace("modules: ''", "modules: c_attn, c_fc"))
    assert isinstance(made, LoraKwargs)
    assert made.values["target_modules"] == ["c_attn", "c_fc"]


def test_layers_that_are_unfrozen_are_not_known() -> None:
    made = lowered(FILE + "    lora_unfreeze_layers: [wte]\n")
    assert isinstance(made, Undecided)


def test_lora_that_is_off_beside_its_settings_is_silent() -> None:
    report = lint_text(FILE.replace("lora: true", "lora: false"), "cfg.yaml")
    assert not report.diagnostics


@given(st.integers(1, 512), st.sampled_from(["r", "lora_alpha", "max_length"]))
def test_numbers(value: int, field: str) -> None:
    assert "# rank" in roundtrip(FILE, field, value)


@given(st.lists(st.sampled_from(["c_attn", "c_proj", "c_fc"]), min_size=1, unique=True))
def test_modules(value: list[str]) -> None:
    roundtrip(FILE.replace("modules: ''", "modules: wte"), "target_modules", value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_model", "x"),
        ("lora_dropout", 0.0),
        ("use_dora", True),
        ("use_rslora", True),
        ("gradient_checkpointing", False),
        ("gradient_accumulation_steps", 2),
        ("learning_rate", 0.5),
    ],
)
def test_every_other_slot(field: str, value: object) -> None:
    roundtrip(FILE, field, value)
