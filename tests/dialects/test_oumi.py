"""Oumi's files and commands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import Options, dialects, lint_text
from lora_lint.dialects import LoraKwargs, Undecided, oumi
from lora_lint.documents import parse
from lora_lint.recipe import UNKNOWN
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
model:
  model_name: acme/model
  torch_dtype_str: bfloat16
training:
  use_peft: True
  trainer_type: TRL_SFT
  learning_rate: 2e-4
peft:
  lora_r: 8  # small
  lora_alpha: 16
  lora_target_modules:
    - q_proj
    - v_proj
"""
NAMES = st.lists(st.sampled_from(["q_proj", "k_proj", "v_proj"]), min_size=1, unique=True)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "base_model": st.just("acme/other"),
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 512),
    "lora_dropout": st.sampled_from([0.0, 0.05]),
    "target_modules": NAMES,
    "modules_to_save": NAMES,
    "init_lora_weights": st.sampled_from([True, False, "pissa", "gaussian"]),
    "bnb_4bit_quant_type": st.just("nf4"),
    "max_length": st.integers(1, 9999),
    "per_device_train_batch_size": st.integers(1, 64),
    "gradient_checkpointing": st.booleans(),
    "learning_rate": st.sampled_from([1e-4, 3e-5]),
}


def codes(text: str) -> set[str]:
    report = lint_text(text, "train.yaml", Options(isolated=True))
    return {d.code for d in report.diagnostics if d.severity != "info"}


def lowered(text: str) -> dict[str, Any]:
    found = oumi.lower(recipe_of(text), None)
    assert isinstance(found, LoraKwargs)
    return dict(found.values)


def test_what_is_written_and_what_is_not() -> None:
    recipe = recipe_of(FILE)
    assert recipe.dialect == "oumi"
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (8, 16)
    assert recipe.value("lora_dropout") == 0.0
    assert recipe.value("learning_rate") == 2e-4
    assert recipe.value("per_device_train_batch_size") == 8
    assert recipe.value("dtype") == "bfloat16"
    assert recipe.value("gradient_checkpointing") is False
    assert recipe_of(FILE.replace("  lora_alpha: 16\n", "")).value("lora_alpha") == 8


@pytest.mark.parametrize("field", VALUES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_fixes(field: str, data: st.DataObject) -> None:
    text = roundtrip(FILE, field, data.draw(VALUES[field]))
    assert "# small" in text or field == "r"


def test_peft_must_be_turned_on() -> None:
    off = FILE.replace("  use_peft: True\n", "")
    assert not recipe_of(off).adapter
    assert "TR615" in codes(off)
    said = lint_text(FILE.replace("True", "False"), "a.yaml", Options(isolated=True))
    found = next(d for d in said.diagnostics if d.code == "TR615")
    assert found.severity == "warning"  # somebody wrote it so
    assert "TR615" not in codes(FILE)


def test_a_run_without_settings_of_its_own() -> None:
    text = "model: {model_name: a/b}\ntraining: {use_peft: yes}\n"
    assert recipe_of(text).value("r") == 8


def test_quantization_is_fp4_unless_told_otherwise() -> None:
    text = FILE + "  q_lora: True\n"
    assert recipe_of(text).value("quantization") == "fp4"
    assert recipe_of(text).value("double_quant") is False
    assert recipe_of(text + "  bnb_4bit_quant_type: nf4\n").value("quantization") == "nf4"
    assert recipe_of(text + "  q_lora_bits: 8\n").value("quantization") == "int8"
    assert recipe_of(FILE + "  q_lora_bits: 8\n").value("quantization") == "none"


def test_what_lora_config_receives() -> None:
    assert lowered(FILE)["target_modules"] == ["q_proj", "v_proj"]
    listed = FILE.replace("    - q_proj\n    - v_proj\n", "    - all-linear\n")
    assert lowered(listed)["target_modules"] == "all-linear"
    assert "TM106" not in codes(listed)
    assert lowered(FILE)["init_lora_weights"] is True
    text = FILE + "  lora_init_weights: RANDOM\n  lora_exclude_modules: ['.*a.*', b]\n"
    assert lowered(text)["init_lora_weights"] is False
    assert lowered(text)["exclude_modules"] == "(.*a.*)|(b)"
    assert lowered(FILE + "  lora_exclude_modules: []\n")["exclude_modules"] is None


# What oumi 0.9 does with each, tried with its TrainingConfig.from_yaml_and_arg_list.
@pytest.mark.parametrize(
    "line",
    [
        "peft:\n  lora_r: null",
        "peft:\n  lora_r: eight",
        "peft:\n  lora_alpha: 16.5",
        "peft:\n  lora_target_modules: all-linear",
        "peft:\n  lora_target_modules: q_proj,v_proj",
        "peft:\n  lora_init_weights: Gauss",
        "peft:\n  lora_rank: 8",
        "training:\n  trainer_type: SFT",
    ],
)
def test_what_oumi_refuses(line: str) -> None:
    text = f"model:\n  model_name: a/b\n{line}\n"
    text += "" if "training:" in line else "training:\n  use_peft: true\n"
    text += "" if "peft:\n" in line else "peft:\n  lora_r: 8\n"
    recipe = recipe_of(text)
    assert recipe.misfits or recipe.stray


@pytest.mark.parametrize(
    "line",
    [
        'lora_r: "8"',
        "lora_r: 0x10",
        'lora_dropout: "0.1"',
        "lora_dropout: 5e-2",
        "lora_target_modules: [1, 2]",
        "lora_target_modules: null",
        "lora_init_weights: gaussian",
        "lora_init_weights: GAUSSIAN",
        "lora_init_weights: pissa",
        "q_lora: 1",
        'q_lora: "yes"',
        "lora_bias: none",
        "lora_task_type: CAUSAL_LM",
    ],
)
def test_what_oumi_takes(line: str) -> None:
    text = "model: {model_name: a/b}\ntraining: {use_peft: true, trainer_type: "
    recipe = recipe_of(f"{text}TrainerType.TRL_SFT}}\npeft:\n  {line}\n")
    assert not recipe.misfits
    assert not recipe.stray


def test_keyword_sections_are_open() -> None:
    text = FILE.replace("training:\n", "training:\n  trainer_kwargs: {anything: 1}\n")
    assert not recipe_of(text).stray


def test_a_key_set_twice_is_refused() -> None:
    assert "CF002" in codes(FILE + "  lora_r: 16\n")


def test_a_template_is_not_known() -> None:
    recipe = recipe_of(FILE.replace("lora_r: 8", "lora_r: ${RANK}"))
    assert recipe.value("r") is UNKNOWN
    assert not codes(FILE.replace("lora_r: 8", "lora_r: ${RANK}"))


def test_commands_override_a_file() -> None:
    recipe = recipe_of("oumi train -c base.yaml --peft.lora_r 16 --training.use_peft=true", "a.sh")
    assert recipe.value("r") == 16
    assert recipe.value("lora_alpha") is UNKNOWN
    assert not dialects.recipes(parse("a.sh", "oumi train -c base.yaml\n"))


@pytest.mark.parametrize(
    "text",
    [
        "model: {model_name: a/b}\npeft: {lora_r: 8}\n",  # no training: anybody's
        "model: {model_name: a/b}\ntraining: {max_steps: 1}\n",
        "model: {model_name: a/b}\ngeneration: {max_new_tokens: 5}\n",
    ],
)
def test_files_that_are_not_its_own(text: str) -> None:
    assert all(r.dialect != "oumi" for r in dialects.recipes(parse("a.yaml", text)))


@pytest.mark.parametrize(
    ("old", "new"),
    [("TRL_SFT", "VERL_GRPO"), ("model_name: acme/model", "model_name: a\n  adapter_model: x")],
)
def test_what_does_not_give_peft_this_config(old: str, new: str) -> None:
    assert isinstance(oumi.lower(recipe_of(FILE.replace(old, new)), None), Undecided)
