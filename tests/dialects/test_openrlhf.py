"""OpenRLHF's commands."""

from __future__ import annotations

import pytest

from lora_lint import Options, dialects, lint_text
from lora_lint.dialects import LoraKwargs, Undecided, openrlhf
from lora_lint.documents import parse
from tests.dialects.roundtrip import recipe_of, roundtrip

NEW = """\
deepspeed --module openrlhf.cli.train_sft --model.model_name_or_path acme/model \\
    --ds.lora.rank 8 --ds.lora.alpha=32 --ds.lora.target_modules q_proj v_proj
"""
OLD = """\
deepspeed --module openrlhf.cli.train_sft --pretrain acme/model --bf16 --max_len 4096 \\
    --micro_train_batch_size 2 --lora_rank 8 --load_in_4bit
"""


def codes(text: str) -> set[str]:
    report = lint_text(text, "a.sh", Options(isolated=True))
    return {d.code for d in report.diagnostics if d.severity != "info"}


def test_options_in_sections() -> None:
    recipe = recipe_of(NEW, "a.sh")
    assert (recipe.dialect, recipe.objective) == ("openrlhf", "sft")
    assert recipe.value("base_model") == "acme/model"
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (8, 32)
    assert recipe.value("target_modules") == ["q_proj", "v_proj"]
    assert (recipe.value("lora_dropout"), recipe.value("dtype")) == (0, "bfloat16")
    assert (recipe.value("max_length"), recipe.value("per_device_train_batch_size")) == (2048, 8)
    assert recipe.value("quantization") == "none"
    assert not codes(NEW)


def test_options_of_older_releases() -> None:
    recipe = recipe_of(OLD, "a.sh")
    assert recipe.value("base_model") == "acme/model"
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (8, 16)
    assert recipe.value("target_modules") == "all-linear"
    assert (recipe.value("max_length"), recipe.value("per_device_train_batch_size")) == (4096, 2)
    assert (recipe.value("quantization"), recipe.value("dtype")) == ("nf4", "bfloat16")
    assert not codes(OLD)


def test_without_a_rank_there_is_no_lora() -> None:
    assert "TR615" in codes(NEW.replace("--ds.lora.rank 8 ", ""))
    assert not dialects.recipes(parse("a.sh", "python -m openrlhf.cli.train_sft --max_len 8\n"))


def test_all_linear_behind_the_option_is_a_list() -> None:
    """argparse's ``nargs="*"`` makes a list of one name, which PEFT does not expand."""
    text = NEW.replace("acme/model", "Qwen/Qwen2.5-7B-Instruct")
    assert "TM106" in codes(text.replace("q_proj v_proj", "all-linear"))


def test_what_argparse_refuses() -> None:
    assert "CF009" in codes(NEW.replace("--ds.lora.rank 8", "--ds.lora.rank 8.5"))
    assert "CF011" in codes(NEW.rstrip() + " --ds.param_dtype fp32\n")
    assert "CF007" in codes(NEW.rstrip() + " --ds.lora.droput 0.1\n")
    assert not recipe_of(NEW.rstrip() + " --ds.lora.drop 0.1\n", "a.sh").stray  # shortened


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 16),
        ("lora_alpha", 16),
        ("lora_dropout", 0.1),
        ("target_modules", ["q_proj", "k_proj"]),
        ("base_model", "acme/other"),
        ("max_length", 1024),
    ],
)
def test_fixes(field: str, value: object) -> None:
    roundtrip(NEW, field, value, "a.sh")


def test_what_lora_config_receives() -> None:
    found = openrlhf.lower(recipe_of(NEW, "a.sh"), None)
    assert isinstance(found, LoraKwargs)
    assert found.values["task_type"] == "CAUSAL_LM"
    reward = NEW.replace("train_sft", "train_rm")
    assert isinstance(openrlhf.lower(recipe_of(reward, "a.sh"), None), Undecided)


def test_scripts_of_the_same_name_are_not_its_own() -> None:
    text = NEW.replace("--module openrlhf.cli.train_sft", "train_sft.py")
    assert all(r.dialect != "openrlhf" for r in dialects.recipes(parse("a.sh", text)))
