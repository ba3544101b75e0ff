"""ai-toolkit's YAML: several processes, and an alpha that only counts for some models."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
job: extension
config:
  name: two
  process:
    - type: sd_trainer
      network:
        type: lora
        linear: 32  # rank
        linear_alpha: 16
      train:
        batch_size: 1
        lr: 1e-4
        dtype: bf16
        optimizer: adamw8bit
      model:
        name_or_path: stabilityai/stable-diffusion-xl-base-1.0
        is_xl: true
    - type: sd_trainer
      network:
        linear: 16
        linear_alpha: 16
      model:
        name_or_path: black-forest-labs/FLUX.1-dev
        is_flux: true
        quantize: true
    - type: sd_trainer
      network: {type: lokr, linear: 4}
      model: {name_or_path: other}
"""


def test_every_process_is_a_run() -> None:
    report = lint_text(FILE, "train.yaml")
    assert [r.recipe.path for r in report.recipes] == [
        ("config", "process", 0),
        ("config", "process", 1),
    ]
    assert not report.diagnostics or all(d.severity == "info" for d in report.diagnostics)


def test_what_a_process_says() -> None:
    recipe = recipe_of(FILE)
    said = {
        "base_model": "stabilityai/stable-diffusion-xl-base-1.0",
        "r": 32,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "dtype": "bfloat16",
        "optim": "adamw_8bit",
        "learning_rate": 1e-4,
        "gradient_checkpointing": True,
        "quantization": "none",
    }
    assert {name: recipe.value(name) for name in said} == said


def test_json() -> None:
    text = json.dumps(yaml.safe_load(FILE), indent=2)
    assert recipe_of(text, "train.json").value("r") == 32
    assert '"linear": 8' in roundtrip(text, "r", 8, "train.json")


def test_a_transformer_takes_no_alpha() -> None:
    recipe = recipe_of(FILE, at=1)
    assert recipe["lora_alpha"].origin == "unknown"
    assert recipe["quantization"].origin == "unknown"
    assert recipe.value("r") == 16


def test_rank_wins_over_linear_and_alpha_is_one() -> None:
    text = FILE.replace("        linear_alpha: 16\n      train", "        rank: 8\n      train")
    recipe = recipe_of(text)
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (8, 1.0)
    assert "rank: 4" in roundtrip(text, "r", 4)


@given(st.integers(1, 512), st.sampled_from(["r", "lora_alpha", "per_device_train_batch_size"]))
def test_numbers(value: int, field: str) -> None:
    assert "# rank" in roundtrip(FILE, field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lora_dropout", 0.1),
        ("dtype", "float16"),
        ("optim", "adamw_torch"),
        ("learning_rate", 0.5),
        ("gradient_checkpointing", False),
        ("gradient_accumulation_steps", 2),
        ("base_model", "other"),
    ],
)
def test_every_other_slot(field: str, value: object) -> None:
    roundtrip(FILE, field, value)
