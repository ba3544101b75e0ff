"""verl's files and overrides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import Options, dialects, lint_text
from lora_lint.dialects import LoraKwargs, Undecided, verl
from lora_lint.documents import parse
from lora_lint.recipe import UNKNOWN
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
actor_rollout_ref:
  model:
    path: acme/model
    use_remove_padding: true
    lora_rank: 32  # on
    lora_alpha: 16
    target_modules: all-linear
  actor:
    ppo_micro_batch_size_per_gpu: 4
    optim:
      lr: 1e-6
critic:
  model:
    path: acme/critic
    use_remove_padding: true
    lora_rank: 0
    lora_alpha: 16
"""
COMMAND = """\
python3 -m verl.trainer.main_ppo actor_rollout_ref.model.path=acme/model \\
    actor_rollout_ref.model.lora_rank=32 ++actor_rollout_ref.model.lora_alpha=64 \\
    'actor_rollout_ref.model.target_modules=[q_proj, v_proj]'
"""
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "base_model": st.just("acme/other"),
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 512),
    "target_modules": st.sampled_from(["all-linear", ["q_proj"], ["q_proj", "v_proj"]]),
    "gradient_checkpointing": st.booleans(),
}


def codes(text: str, path: str = "train.yaml") -> set[str]:
    report = lint_text(text, path, Options(isolated=True))
    return {d.code for d in report.diagnostics if d.severity != "info"}


def test_each_model_is_a_run_of_its_own() -> None:
    actor, critic = dialects.recipes(parse("a.yaml", FILE))
    assert (actor.dialect, critic.dialect) == ("verl", "verl")
    assert actor.value("base_model") == "acme/model"
    assert (actor.value("r"), actor.value("lora_alpha")) == (32, 16)
    assert actor.value("per_device_train_batch_size") == 4
    assert actor.value("learning_rate") == 1e-6
    assert actor.value("dtype") == "float32"
    assert (actor.adapter, critic.adapter) == (True, False)


def test_rank_0_of_a_template_is_no_mistake() -> None:
    assert not codes(FILE)


def test_a_part_of_a_config_is_read() -> None:
    text = "path: a/b\nuse_shm: false\nlora_rank: 8\nlora_alpha: 16\n"
    assert recipe_of(text).value("r") == 8
    sft = (
        "data: {micro_batch_size_per_gpu: 4, max_length: 1024}\noptim: {lr: 1e-5}\n"
        "model: {partial_pretrain: a/b, lora_rank: 8, use_shm: false}\n"
    )
    assert recipe_of(sft).value("base_model") == "a/b"
    assert recipe_of(sft).value("max_length") == 1024


def test_commands() -> None:
    recipe = recipe_of(COMMAND, "a.sh")
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (32, 64)
    assert recipe.value("target_modules") == ["q_proj", "v_proj"]
    found = verl.lower(recipe, None)
    assert isinstance(found, LoraKwargs)
    assert found.values["target_modules"] == ["q_proj", "v_proj"]
    assert found.values["exclude_modules"] is None


def test_supervised_training_has_a_section_of_its_own() -> None:
    command = "python -m verl.trainer.sft_trainer model.path=a/b model.lora_rank=8"
    recipe = recipe_of(command + " data.use_dynamic_bsz=False", "a.sh")
    assert recipe.value("base_model") == "a/b"
    assert (recipe.value("max_length"), recipe.value("per_device_train_batch_size")) == (1024, 4)
    other = parse("a.sh", "python train_lora.py model.lora_rank=8\n")
    assert all(r.dialect != "verl" for r in dialects.recipes(other))


@pytest.mark.parametrize(
    ("program", "dynamic", "batch"),
    [
        ("sft_trainer", "", UNKNOWN),
        ("sft_trainer", "data.use_dynamic_bsz=True", UNKNOWN),
        ("sft_trainer", "data.use_dynamic_bsz=False", 64),
        ("fsdp_sft_trainer", "", 64),  # before verl packed samples by itself
    ],
)
def test_packed_samples_leave_the_batch_open(program: str, dynamic: str, batch: object) -> None:
    options = f"model.path=a/b model.lora_rank=8 data.micro_batch_size_per_gpu=64 {dynamic}"
    recipe = recipe_of(f"python -m verl.trainer.{program} {options}", "a.sh")
    assert recipe.value("per_device_train_batch_size") == batch
    text = "model: {path: a/b, lora_rank: 8, use_shm: false}\ndata: {use_dynamic_bsz: true}\n"
    assert recipe_of(text).value("per_device_train_batch_size") is UNKNOWN


def test_rank_0_in_a_command_turns_lora_off() -> None:
    text = COMMAND.replace("lora_rank=32", "lora_rank=0")
    assert not recipe_of(text, "a.sh").adapter
    assert "TR615" in codes(text, "a.sh")


def test_variables_are_not_known() -> None:
    recipe = recipe_of(COMMAND.replace("=32", "=$RANK"), "a.sh")
    assert recipe.value("r") is UNKNOWN
    assert recipe.adapter


@pytest.mark.parametrize("field", VALUES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_fixes(field: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[field])
    changed = roundtrip(FILE, field, value, at=0)
    assert "# on" in changed or field == "r"


@pytest.mark.parametrize(("field", "value"), [("r", 8), ("lora_alpha", 32), ("base_model", "a/b")])
def test_fixes_of_commands(field: str, value: object) -> None:
    roundtrip(COMMAND, field, value, "a.sh")


def test_megatron_has_settings_of_its_own() -> None:
    text = (
        "model:\n  path: a/b\n  override_config: {}\n  lora:\n    type: lora\n    rank: 16\n"
        "    alpha: 32\n    lora_A_init_method: xavier\n    target_modules: [linear_qkv]\n"
    )
    recipe = recipe_of(text)
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (16, 32)
    assert isinstance(verl.lower(recipe, None), Undecided)
    assert not codes(text)


def test_a_loaded_adapter_brings_its_own_config() -> None:
    text = COMMAND.rstrip() + " actor_rollout_ref.model.lora_adapter_path=x\n"
    assert isinstance(verl.lower(recipe_of(text, "a.sh"), None), Undecided)
