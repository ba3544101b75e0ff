"""ms-swift's files and commands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import Options, dialects, engine, lint_text, resolve_model
from lora_lint.dialects import LoraKwargs, Undecided, ms_swift
from lora_lint.documents import parse
from lora_lint.recipe import UNKNOWN, Recipe
from lora_lint.settings import Settings
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
model: Qwen/Qwen2.5-7B-Instruct
tuner_type: lora
lora_rank: 8
lora_alpha: 32  # the default
target_modules:
  - q_proj
  - v_proj
dataset: acme/data
learning_rate: 1e-4
"""
COMMAND = """\
NPROC_PER_NODE=2 swift sft --model Qwen/Qwen2.5-7B-Instruct --tuner_type lora \\
    --lora_rank 8 --target_modules q_proj v_proj --dataset 'acme/data#500'
"""
NAMES = st.lists(st.sampled_from(["q_proj", "k_proj", "v_proj", "o_proj"]), min_size=1, unique=True)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 512),
    "lora_dropout": st.sampled_from([0.0, 0.05, 0.5]),
    "target_modules": NAMES,
    "modules_to_save": NAMES,
    "use_rslora": st.booleans(),
    "use_dora": st.booleans(),
    "init_lora_weights": st.sampled_from([True, False, "pissa", "gaussian"]),
    "max_length": st.integers(1, 9999),
    "learning_rate": st.sampled_from([1e-4, 3e-5]),
}


def codes(text: str, path: str = "train.yaml") -> set[str]:
    report = lint_text(text, path, Options(isolated=True))
    return {d.code for d in report.diagnostics if d.severity != "info"}


def lowered(text: str, model: str, path: str = "train.yaml") -> LoraKwargs | Undecided:
    return ms_swift.lower(recipe_of(text, path), resolve_model(model))


@pytest.mark.parametrize("path", ["train.yaml", "train.sh"])
def test_what_is_written_and_what_is_not(path: str) -> None:
    recipe = recipe_of(FILE if path.endswith("yaml") else COMMAND, path)
    assert recipe.dialect == "ms_swift"
    assert recipe.value("r") == 8
    assert recipe.value("target_modules") == ["q_proj", "v_proj"]
    assert recipe.value("lora_alpha") == 32
    assert (recipe.value("lora_dropout"), recipe["lora_dropout"].origin) == (0.05, "default")
    assert recipe.value("per_device_train_batch_size") == 1
    assert recipe.value("learning_rate") == 1e-4
    assert recipe.value("quantization") == "none"


def test_json_is_read_like_yaml() -> None:
    text = '{"model": "a/b", "tuner_type": "lora", "lora_rank": 16, "dataset": ["x"]}'
    assert recipe_of(text, "train.json").value("r") == 16


@pytest.mark.parametrize("field", VALUES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_fixes_of_files(field: str, data: st.DataObject) -> None:
    text = roundtrip(FILE, field, data.draw(VALUES[field]))
    assert "# the default" in text or field == "lora_alpha"


@pytest.mark.parametrize("field", VALUES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_fixes_of_commands(field: str, data: st.DataObject) -> None:
    roundtrip(COMMAND, field, data.draw(VALUES[field]), "train.sh")


def test_dashes_stand_for_underscores() -> None:
    recipe = recipe_of("swift sft --model a/b --lora-rank 4 --lora-alpha=8", "train.sh")
    assert (recipe.value("r"), recipe.value("lora_alpha")) == (4, 8)
    assert not recipe.stray


@pytest.mark.parametrize(
    ("program", "task"),
    [
        ("swift pt", "pt"),
        ("python swift/cli/sft.py", "sft"),
        ("torchrun --nproc_per_node 2 ms-swift/swift/cli/sft.py", "sft"),
        ("python -m swift.cli.rlhf", "rlhf"),
    ],
)
def test_programs(program: str, task: str) -> None:
    found = dialects.recipes(parse("a.sh", f"{program} --model a/b --lora_rank 4\n"))
    assert [recipe.objective for recipe in found] == [task]


def test_other_commands_of_ms_swift_train_nothing() -> None:
    for command in (
        "swift export --adapters a --lora_rank 8",
        "swift infer --model a --lora_rank 8",
    ):
        assert not dialects.recipes(parse("a.sh", command))


def test_lora_is_on_without_a_word_but_not_with_megatron() -> None:
    assert recipe_of("swift sft --model a/b --dataset c", "a.sh").adapter
    off = recipe_of("megatron sft --model a/b --lora_rank 8 --dataset c", "a.sh")
    assert not off.adapter
    assert "TR615" in codes("megatron sft --model a/b --lora_rank 8 --dataset c", "a.sh")


def test_full_training_with_lora_settings_is_said() -> None:
    assert "TR615" in codes(FILE.replace("tuner_type: lora", "tuner_type: full"))


def test_older_names() -> None:
    text = (
        "model_id_or_path: a/b\nsft_type: lora\nlora_target_modules: [q_proj]\n"
        "lora_dropout_p: 0.1\nbatch_size: 3\nquantization_bit: 4\ndtype: bf16\n"
        "init_lora_weights: pissa\n"
    )
    recipe = recipe_of(text)
    assert recipe.value("base_model") == "a/b"
    assert recipe.value("target_modules") == ["q_proj"]
    assert recipe.value("lora_dropout") == 0.1
    assert recipe.value("per_device_train_batch_size") == 3
    assert (recipe.value("quantization"), recipe.value("dtype")) == ("nf4", "bfloat16")
    assert recipe.value("max_length") == 2048
    assert recipe.value("init_lora_weights") == "pissa"
    assert not recipe.stray


def test_older_defaults_of_targets_are_not_known() -> None:
    recipe = recipe_of("model_type: qwen\nmodel_id_or_path: a/b\nsft_type: lora\n")
    assert recipe.value("target_modules") is UNKNOWN


@pytest.mark.parametrize("word", ["ALL", "DEFAULT", "EMBEDDING"])
def test_older_words_for_targets(word: str) -> None:
    text = (
        "swift sft --model_id_or_path Qwen/Qwen2.5-7B-Instruct --sft_type lora --dtype AUTO "
        f"--lora_target_modules {word} --lora_dropout_p 0.05 --self_cognition_sample 3000\n"
    )
    recipe = recipe_of(text, "a.sh")
    assert recipe.value("target_modules") is UNKNOWN
    assert recipe.value("dtype") is None
    assert not codes(text, "a.sh")


def test_bits_count_only_beside_a_method() -> None:
    assert recipe_of(FILE + "quant_bits: 4\n").value("quantization") == "none"
    text = FILE + "quant_bits: 4\nquant_method: bnb\n"
    assert recipe_of(text).value("quantization") == "nf4"
    assert recipe_of(text).value("double_quant") is True
    assert recipe_of(text.replace(": 4\n", ": 8\n")).value("quantization") == "int8"


def test_a_file_becomes_a_command_line() -> None:
    """Every value goes through argparse as a text: 8.0 is no integer, "8" is one."""
    assert not recipe_of(FILE.replace("lora_rank: 8", 'lora_rank: "8"')).misfits
    assert "CF009" in codes(FILE.replace("lora_rank: 8", "lora_rank: 8.0"))
    assert not recipe_of(FILE + "packing: yes\nbf16: 1\nquant_bits: '4'\n").misfits
    assert not recipe_of(FILE + "ENV: {A: b}\nmodel_kwargs: {a: 1}\nlora_bias: all\n").misfits
    assert "CF011" in codes(FILE + "quant_method: awq4\n")
    assert "CF007" in codes(FILE + "lora_droput: 0.1\n")


def test_commands_may_shorten_options() -> None:
    recipe = recipe_of("swift sft --model a/b --lora_rank 4 --lora_drop 0.1", "a.sh")
    assert not recipe.stray


def test_a_config_file_may_say_what_the_command_does_not() -> None:
    assert not dialects.recipes(parse("a.sh", "swift sft config.yaml --output_dir x"))
    recipe = recipe_of("swift sft config.yaml --lora_rank 4", "a.sh")
    assert recipe.value("r") == 4
    assert recipe.value("lora_alpha") is UNKNOWN


def test_more_words_make_nothing_sure() -> None:
    recipe = recipe_of('swift sft --model a/b --lora_rank 4 "$@"', "a.sh")
    assert not recipe["r"].sure


@pytest.mark.parametrize(
    "text",
    [
        "model: a/b\nlora_rank: 8\n",  # anybody's
        "model:\n  name: a\ntuner_type: lora\n",
        "model: a/b\ntuner_type: adalora\nlora_rank: 8\n",
        "model: a/b\ntuner_type: lora\nswift_version: 4.6.0\n",  # args.json of a finished run
    ],
)
def test_files_that_are_not_its_own(text: str) -> None:
    assert all(r.dialect != "ms_swift" for r in dialects.recipes(parse("a.yaml", text)))


def test_all_linear_of_a_text_model() -> None:
    text = FILE.replace("  - q_proj\n  - v_proj\n", "  - all-linear\n")
    found = lowered(text, "Qwen/Qwen2.5-7B-Instruct")
    assert isinstance(found, LoraKwargs)
    # ms-swift 4.6.0's own find_all_linears on that model
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert sorted(found.values["target_modules"]) == sorted(names)
    assert found.values["lora_dropout"] == 0.05


def test_all_linear_of_a_model_that_sees() -> None:
    """The pattern of get_multimodal_target_regex: of its parts, the ones that are not frozen."""
    text = "model: Qwen/Qwen2.5-VL-7B-Instruct\ntuner_type: lora\ndataset: x\n"
    model = "Qwen/Qwen2.5-VL-7B-Instruct"
    found = lowered(text, model)
    assert isinstance(found, LoraKwargs)
    assert found.values["target_modules"].startswith(r"^(model\.language_model(?=\.).*\.(")
    both = lowered(text + "freeze_vit: false\n", model)
    assert isinstance(both, LoraKwargs)
    assert r"(?!(model.visual.merger))model\.visual(?=\.)" in both.values["target_modules"]


def test_a_pattern_wins_over_names() -> None:
    recipe = recipe_of(FILE + "target_regex: .*q_proj\n")
    found = ms_swift.lower(recipe, None)
    assert isinstance(found, LoraKwargs)
    assert found.values["target_modules"] == ".*q_proj"


@pytest.mark.parametrize(
    "line",
    [
        "adapters: ckpt",
        "use_swift_lora: true",
        "tuner_backend: unsloth",
        "init_weights: lora-ga",
        "resume_from_checkpoint: x",
    ],
)
def test_what_does_not_give_peft_a_config(line: str) -> None:
    recipe = recipe_of(f"{FILE}{line}\n")
    assert isinstance(ms_swift.lower(recipe, None), Undecided)
    assert not codes(f"{FILE}{line}\n")


def test_megatron_names_are_no_mistake() -> None:
    text = (
        "megatron sft --model Qwen/Qwen2.5-7B-Instruct --tuner_type lora --global_batch_size 8 "
        "--target_modules linear_qkv linear_proj all-router --micro_batch_size 2 --lr 1e-4\n"
    )
    recipe = recipe_of(text, "a.sh")
    assert recipe.value("per_device_train_batch_size") == 2
    assert not codes(text, "a.sh")


def test_reward_models_are_classifiers() -> None:
    recipe: Recipe = recipe_of("swift rlhf --rlhf_type rm --model a/b --lora_rank 8", "a.sh")
    assert recipe.value("task_type") == "SEQ_CLS"
    assert recipe.objective == "rm"


@pytest.mark.parametrize("task", ["sft", "rlhf --rlhf_type ppo", "rlhf --rlhf_type gkd"])
def test_models_beside_the_trained_one_leave_its_memory_unknown(task: str) -> None:
    text = (
        f"swift {task} --model Qwen/Qwen2.5-7B-Instruct --tuner_type lora "
        "--max_length 64 --torch_dtype bfloat16\n"
    )
    (run,) = engine.Linter(Settings(isolated=True)).lint("a.sh", text).subjects
    assert (run.memory is not None) == (task == "sft")


@pytest.mark.parametrize("option", ["--multi_gpu", "--use_fsdp", "--config_file fsdp.json"])
def test_a_launcher_that_may_divide_the_model_leaves_its_memory_unknown(option: str) -> None:
    text = (
        f"accelerate launch {option} swift/cli/sft.py --model Qwen/Qwen2.5-7B-Instruct "
        "--tuner_type lora --max_length 64 --torch_dtype bfloat16\n"
    )
    (run,) = engine.Linter(Settings(isolated=True)).lint("a.sh", text).subjects
    assert (run.memory is not None) == (option == "--multi_gpu")
