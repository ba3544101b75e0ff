"""AutoTrain's files and commands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import Options, dialects, lint_text
from lora_lint.dialects import LoraKwargs, Undecided, autotrain
from lora_lint.documents import parse
from lora_lint.recipe import UNKNOWN
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
task: llm-sft
base_model: acme/model
project_name: x
data: {path: a, train_split: train}
params:
  peft: true
  lora_r: 8
  target_modules: q_proj,v_proj  # two
  quantization: int4
  lr: 3e-5
"""
COMMAND = (
    "autotrain llm --train --model acme/model --peft --lora-r 8 --target_modules q_proj,v_proj"
)
NAMES = st.lists(st.sampled_from(["q_proj", "k_proj", "v_proj"]), min_size=2, unique=True)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "base_model": st.just("acme/other"),
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 512),
    "lora_dropout": st.sampled_from([0.0, 0.05]),
    "target_modules": NAMES | st.just("all-linear"),
    "max_length": st.integers(1, 9999),
    "per_device_train_batch_size": st.integers(1, 64),
    "learning_rate": st.sampled_from([1e-4, 3e-5]),
}


def codes(text: str, path: str = "train.yaml") -> set[str]:
    report = lint_text(text, path, Options(isolated=True))
    return {d.code for d in report.diagnostics if d.severity != "info"}


@pytest.mark.parametrize("path", ["train.yaml", "train.sh"])
def test_what_is_written_and_what_is_not(path: str) -> None:
    recipe = recipe_of(FILE if path.endswith("yaml") else COMMAND, path)
    assert (recipe.dialect, recipe.adapter) == ("autotrain", True)
    assert recipe.value("base_model") == "acme/model"
    assert recipe.value("r") == 8
    assert recipe.value("target_modules") == ["q_proj", "v_proj"]
    assert (recipe.value("lora_alpha"), recipe.value("lora_dropout")) == (32, 0.05)
    assert recipe.value("quantization") == "nf4"
    assert recipe.value("max_length") == 1024
    assert recipe.value("per_device_train_batch_size") == 2
    assert recipe.value("learning_rate") == 3e-5


@pytest.mark.parametrize("field", VALUES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_fixes(field: str, data: st.DataObject) -> None:
    assert "# two" in roundtrip(FILE, field, data.draw(VALUES[field]))


@pytest.mark.parametrize("field", ["base_model", "r", "target_modules"])
def test_fixes_of_commands(field: str) -> None:
    value = {"base_model": "acme/other", "r": 4}.get(field, ["q_proj", "k_proj"])
    roundtrip(COMMAND, field, value, "train.sh")


def test_peft_must_be_turned_on() -> None:
    assert "TR615" in codes(FILE.replace("  peft: true\n", ""))
    assert "TR615" in codes(COMMAND.replace("--peft ", ""), "train.sh")
    assert "TR615" not in codes(FILE) | codes(COMMAND, "train.sh")


def test_options_of_older_releases() -> None:
    text = (
        "autotrain llm --train --model acme/model --use_peft --use_int4 --learning_rate 2e-4 "
        "--train_batch_size 8 --lora_r 4 --trainer sft\n"
    )
    recipe = recipe_of(text, "a.sh")
    assert recipe.adapter
    assert (recipe.value("quantization"), recipe.value("learning_rate")) == ("nf4", 2e-4)
    assert recipe.value("per_device_train_batch_size") == 8
    assert recipe.value("target_modules") is UNKNOWN  # none in 0.6, all-linear since
    assert not codes(text, "a.sh")


def test_quantization_counts_only_with_peft() -> None:
    assert recipe_of(FILE.replace("int4", "int8")).value("quantization") == "int8"
    assert recipe_of(FILE.replace("int4", "null")).value("quantization") == "none"
    assert recipe_of(FILE.replace("peft: true", "peft: false")).value("quantization") == "none"


def test_blanks_behind_commas_stay() -> None:
    """trainers/clm/utils.py splits at commas and nothing more."""
    recipe = recipe_of(FILE.replace("q_proj,v_proj", "q_proj, v_proj"))
    assert recipe.value("target_modules") == ["q_proj", " v_proj"]
    assert recipe_of(FILE.replace("q_proj,v_proj", "' All-Linear'")).value("target_modules") == (
        "all-linear"
    )


def test_what_lora_config_receives() -> None:
    found = autotrain.lower(recipe_of(FILE), None)
    assert isinstance(found, LoraKwargs)
    assert found.values["target_modules"] == ["q_proj", "v_proj"]
    assert found.values["task_type"] == "CAUSAL_LM"
    reward = autotrain.lower(recipe_of(FILE.replace("llm-sft", "llm-reward")), None)
    assert isinstance(reward, LoraKwargs)
    assert reward.values["task_type"] == "SEQ_CLS"
    unsloth = autotrain.lower(recipe_of(FILE + "  unsloth: true\n"), None)
    assert isinstance(unsloth, Undecided)


def test_unknown_keys_give_only_a_warning() -> None:
    text = FILE + "  lora_alpa: 16\n"
    report = lint_text(text, "a.yaml", Options(isolated=True))
    found = next(d for d in report.diagnostics if d.code == "CF007")
    assert found.label == "AutoTrain only warns that it is not used"


def test_types_are_pydantics() -> None:
    assert not recipe_of(FILE.replace("lora_r: 8", 'lora_r: "8"')).misfits
    assert recipe_of(FILE.replace("lora_r: 8", "lora_r: 8.5")).misfits


def test_other_tasks_are_left_alone() -> None:
    text = FILE.replace("llm-sft", "text-classification")
    assert all(r.dialect != "autotrain" for r in dialects.recipes(parse("a.yaml", text)))
