"""NeMo RL's YAML."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text, resolve_model
from lora_lint.dialects import LoraKwargs, dialect
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
sft:
  max_num_steps: 60
policy:
  model_name: meta-llama/Llama-3.2-1B
  train_micro_batch_size: 1
  max_total_sequence_length: 1024
  dtensor_cfg:
    enabled: true
    activation_checkpointing: false
    lora_cfg:
      enabled: true
      target_modules: []
      exclude_modules: []
      match_all_linear: true  # all
      dim: 8
      alpha: 32
      dropout: 0.0
  optimizer:
    name: torch.optim.AdamW
    kwargs:
      lr: 5.0e-6
  megatron_cfg:
    enabled: false
    peft:
      enabled: false
      target_modules: []
      dim: 8
      alpha: 32
"""


def lowered(text: str) -> Any:
    recipe = recipe_of(text)
    tree = resolve_model("meta-llama/Llama-3.2-1B")
    return dialect("nemo_rl").lower(recipe, tree)


def test_what_a_file_says() -> None:
    recipe = recipe_of(FILE)
    said = {
        "base_model": "meta-llama/Llama-3.2-1B",
        "r": 8,
        "lora_alpha": 32,
        "max_length": 1024,
        "per_device_train_batch_size": 1,
        "learning_rate": 5e-6,
        "target_modules": "all-linear",
    }
    assert {name: recipe.value(name) for name in said} == said
    assert (recipe.dialect, recipe.objective, recipe.adapter) == ("nemo_rl", "sft", True)


def test_every_linear_layer_is_adapted() -> None:
    made = lowered(FILE)
    assert isinstance(made, LoraKwargs)
    assert "lm_head" in made.values["target_modules"]


def test_patterns() -> None:
    made = lowered(
        FILE.replace("match_all_linear: true", "match_all_linear: false").replace(
            "target_modules: []\n      exclude", "target_modules: ['*q_proj']\n      exclude"
        )
    )
    assert isinstance(made, LoraKwargs)
    assert made.values["target_modules"] == ["q_proj"]


def test_a_section_that_is_turned_off_is_silent() -> None:
    off = FILE.replace("enabled: true\n      target", "enabled: false\n      target")
    assert not recipe_of(off).adapter
    assert not lint_text(off, "train.yaml").diagnostics


def test_megatron_has_names_of_its_own() -> None:
    other = FILE.replace("enabled: true\n    act", "enabled: false\n    act").replace(
        "megatron_cfg:\n    enabled: false", "megatron_cfg:\n    enabled: true"
    )
    recipe = recipe_of(other)
    assert recipe.path == ("policy", "megatron_cfg", "peft")
    assert "Megatron" in lowered(other).reason


def test_what_another_file_may_hold_is_unknown() -> None:
    recipe = recipe_of(
        "defaults: sft.yaml\n" + FILE.replace("      alpha: 32\n      drop", "      drop")
    )
    assert recipe["lora_alpha"].origin == "unknown"
    assert recipe.value("r") == 8


def test_a_reference_into_the_file_is_followed() -> None:
    value = FILE[FILE.index("policy:") :].replace("policy:", "value:")
    value = value.replace("meta-llama/Llama-3.2-1B", "${policy.model_name}")
    recipe = recipe_of(FILE + value.replace(": 1024", ": ${mul:8, 2}"), at=1)
    assert recipe.path == ("value", "dtensor_cfg", "lora_cfg")
    assert recipe.value("base_model") == "meta-llama/Llama-3.2-1B"
    assert recipe["max_length"].origin == "unknown"


@given(st.integers(1, 512), st.sampled_from(["r", "lora_alpha", "max_length"]))
def test_numbers(value: int, field: str) -> None:
    assert "# all" in roundtrip(FILE, field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lora_dropout", 0.1),
        ("use_dora", True),
        ("exclude_modules", ["*lm_head*"]),
        ("base_model", "gpt2"),
        ("learning_rate", 0.1),
        ("per_device_train_batch_size", 3),
    ],
)
def test_every_other_slot(field: str, value: object) -> None:
    roundtrip(FILE, field, value)
