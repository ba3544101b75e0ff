"""ms-swift's files for Megatron on Ray."""

from __future__ import annotations

from lora_lint.api import Options, lint_text
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
rlhf_type: grpo
model: acme/model
max_length: 4096
lora_alpha: 16
train:
  gpus: 4
  tuner_type: lora
  lora_rank: 8  # eight
  lora_alpha: 32
rollout:
  gpus: 4
"""


def test_the_role_wins_over_what_is_shared() -> None:
    recipe = recipe_of(FILE)
    assert recipe.dialect == "ms_swift_ray"
    assert [recipe.value(n) for n in ("base_model", "r", "lora_alpha", "max_length")] == [
        "acme/model",
        8,
        32,
        4096,
    ]
    assert recipe["lora_alpha"].path == ("train", "lora_alpha")


def test_a_shared_value_counts_where_the_role_has_none() -> None:
    recipe = recipe_of(FILE.replace("  lora_alpha: 32\n", ""))
    assert recipe.value("lora_alpha") == 16
    assert recipe["lora_alpha"].path == ("lora_alpha",)


def test_fixes() -> None:
    assert "# eight" in roundtrip(FILE, "r", 4)
    assert "max_length: 512\n" in roundtrip(FILE, "max_length", 512)


def test_lora_that_is_off() -> None:
    text = FILE.replace("tuner_type: lora", "tuner_type: full")
    found = lint_text(text, "train.yaml", Options(isolated=True)).diagnostics
    assert "TR615" in {d.code for d in found}
