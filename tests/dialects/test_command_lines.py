"""LLaMA-Factory's and TRL's commands, and those of programs that are not known."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import lint_text
from lora_lint.diagnostics import Set, SetItem
from lora_lint.dialects import dialect, recipes
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.documents.document import NotEditable
from lora_lint.fixes import apply_edits
from lora_lint.recipe import UNKNOWN, Recipe

MODEL = "Qwen/Qwen2.5-7B-Instruct"
FACTORY = (
    f"llamafactory-cli train --stage sft --do_train --model_name_or_path {MODEL} --dataset d "
    "--template qwen --output_dir o"
)
TRL = f"trl sft --model_name_or_path {MODEL} --dataset_name d --use_peft"


def one(command: str, path: str = "train.sh") -> Recipe:
    (recipe,) = recipes(parse(path, command + "\n"))
    return recipe


def none(command: str) -> bool:
    return recipes(parse("train.sh", command + "\n")) == []


def codes(command: str, *severities: str) -> list[str]:
    report = lint_text(command + "\n", "train.sh")
    return [d.code for d in report.diagnostics if d.severity in (severities or ("error",))]


# LLaMA-Factory -----------------------------------------------------------------------------------


def test_llama_factory_reads_texts_by_their_types() -> None:
    recipe = one(
        f"{FACTORY} --finetuning_type lora --lora_rank 16 --lora-alpha=32 "
        "--lora_target q_proj,v_proj --quantization_bit 4 --bf16 --learning_rate 1e-4 "
        "--use_rslora false --additional_target embed_tokens,lm_head --cutoff_len 1024"
    )
    assert recipe.dialect == "llama_factory"
    assert recipe.adapter
    values = {
        "r": 16,
        "lora_alpha": 32,
        "target_modules": ["q_proj", "v_proj"],
        "modules_to_save": ["embed_tokens", "lm_head"],
        "quantization": "nf4",
        "dtype": "bfloat16",
        "learning_rate": 1e-4,
        "use_rslora": False,
        "max_length": 1024,
        "base_model": MODEL,
    }
    assert {name: recipe.value(name) for name in values} == values
    assert recipe["lora_alpha"].path == ("lora-alpha",)
    assert recipe["lora_dropout"].origin == "default"
    assert not recipe.stray
    assert not recipe.misfits


@pytest.mark.parametrize(
    "start",
    [
        "python src/train_bash.py",
        "torchrun --nproc_per_node 4 src/train.py",
        "deepspeed --num_gpus 2 src/train_bash.py --deepspeed ds.json",
        "CUDA_VISIBLE_DEVICES=0 accelerate launch --config_file a.yaml src/train.py",
        "FORCE_TORCHRUN=1 NNODES=2 llamafactory-cli train",
        "lmf train",
    ],
)
def test_the_ways_to_start_llama_factory(start: str) -> None:
    recipe = one(
        f"{start} --stage sft --do_train True --finetuning_type lora --lora_target all "
        f"--model_name_or_path {MODEL} --template qwen --dataset d"
    )
    assert recipe.dialect == "llama_factory"
    assert recipe.value("target_modules") == "all-linear"
    assert recipe.value("lora_alpha") == 16


@pytest.mark.parametrize(
    "command",
    [
        "llamafactory-cli export --model_name_or_path m --adapter_name_or_path a --export_dir o",
        "llamafactory-cli chat --model_name_or_path m --finetuning_type lora --lora_target all",
        (
            f"llamafactory-cli train --stage sft --do_predict --model_name_or_path {MODEL} "
            "--finetuning_type lora --lora_target all --dataset d"
        ),
        f"{FACTORY} --finetuning_type full",
        "llamafactory-cli train examples/train_lora/llama3_lora_sft.yaml",
        "llamafactory-cli train llama3_lora_sft.yaml learning_rate=1e-5",
        "USE_V1=1 llamafactory-cli train --lora_rank 8 --do_train",
    ],
)
def test_commands_without_a_run_of_their_own(command: str) -> None:
    assert none(command)


def test_overrides_of_a_file_leave_the_rest_unknown() -> None:
    recipe = one(
        "llamafactory-cli train base.yaml lora_rank=64 lora_target=q_proj,v_proj bf16=true"
    )
    assert recipe.value("r") == 64
    assert recipe.value("target_modules") == ["q_proj", "v_proj"]
    assert recipe.value("dtype") == "bfloat16"
    for name in ("lora_alpha", "base_model", "lora_dropout", "quantization", "max_length"):
        assert recipe.value(name) is UNKNOWN, name
    assert recipe["lora_alpha"].detail == "base.yaml may set it"
    assert codes("llamafactory-cli train base.yaml lora_rank=64", "error", "warning", "info") == []


def test_llama_factory_takes_one_string_for_its_targets() -> None:
    """argparse leaves the second word over, and LLaMA-Factory refuses what is left over."""
    assert codes(f"{FACTORY} --lora_target q_proj v_proj") == ["CF009"]


def test_an_option_that_llama_factory_does_not_know() -> None:
    report = lint_text(f"{FACTORY} --lora_alpa 16\n", "train.sh")
    (found,) = [d for d in report.diagnostics if d.severity == "error"]
    assert found.code == "CF007"
    assert "lora_alpha" in found.message
    assert "Some specified arguments are not used" in (found.label or "")


def test_a_shortened_option_is_no_typo() -> None:
    recipe = one(f"{FACTORY} --lora_ran 16 --lora_dro 0.1")
    assert recipe.value("r") == 16
    assert recipe.value("lora_dropout") == 0.1
    assert codes(f"{FACTORY} --lora_ran 16", "error", "warning") == []


def test_a_short_name_of_the_model() -> None:
    recipe = one(f"accelerate launch trl/scripts/sft.py --model_name {MODEL} --use_peft --lora_r 8")
    assert recipe.value("base_model") == MODEL
    assert recipe["base_model"].path == ("model_name",)


# TRL ---------------------------------------------------------------------------------------------


def test_trl_reads_words_as_argparse_does() -> None:
    recipe = one(
        f"{TRL} --lora_r 32 --lora_alpha 64 --lora_target_modules q_proj v_proj "
        "--lora_modules_to_save lm_head --load_in_4bit --dtype bfloat16 --learning_rate 2e-4"
    )
    assert recipe.dialect == "trl"
    assert recipe.objective == "sft"
    values = {
        "r": 32,
        "lora_alpha": 64,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "v_proj"],
        "modules_to_save": ["lm_head"],
        "quantization": "nf4",
        "learning_rate": 2e-4,
        "dtype": "bfloat16",
        "max_length": 1024,
    }
    assert {name: recipe.value(name) for name in values} == values


def test_trl_unwraps_a_single_target() -> None:
    recipe = one(f"{TRL} --lora_r 8 --lora_target_modules all-linear")
    assert recipe.value("target_modules") == "all-linear"


@pytest.mark.parametrize(
    ("start", "objective"),
    [
        ("trl dpo", "dpo"),
        ("trl reward", "rm"),
        ("accelerate launch --num_processes 4 trl/scripts/sft.py", "sft"),
        ("python -m trl.scripts.kto", "kto"),
        ("python examples/scripts/dpo.py", "dpo"),
        ("accelerate launch examples/scripts/sft_vlm.py", "sft"),
    ],
)
def test_the_ways_to_start_trl(start: str, objective: str) -> None:
    recipe = one(f"{start} --model_name_or_path {MODEL} --use_peft --lora_r 16")
    assert recipe.dialect == "trl"
    assert recipe.objective == objective
    assert recipe.adapter


def test_lora_without_its_switch() -> None:
    command = f"trl sft --model_name_or_path {MODEL} --dataset_name d --lora_r 16"
    assert not one(command).adapter
    assert codes(command) == ["TR615"]
    # a config file or further words may turn it on
    assert codes(f"{command} --config a.yaml") == []
    assert codes(f'{command} "$@"') == []
    assert not one(f"{command} --use_peft False --config a.yaml").adapter


def test_trl_with_a_config_file() -> None:
    recipe = one("trl sft --config sft.yaml --lora_r 8 --lora-alpha=16")
    assert recipe.value("r") == 8
    assert recipe.value("lora_alpha") == 16
    assert recipe.value("base_model") is UNKNOWN
    assert recipe.value("lora_dropout") is UNKNOWN
    handbook = one(
        "accelerate launch scripts/run_sft.py recipes/q.yaml --load_in_4bit=true --lora_r=4"
    )
    assert handbook.dialect == "trl"
    assert handbook.value("r") == 4
    assert handbook.value("quantization") == "nf4"
    assert handbook.value("lora_alpha") is UNKNOWN
    assert none("trl sft --config sft.yaml")
    assert none("accelerate launch scripts/run_sft.py recipes/q.yaml --load_in_4bit=true")


def test_accelerates_options_are_none_of_trls() -> None:
    flags = (
        "--num_processes 8 --num_machines 1 --mixed_precision bf16 --multi_gpu --machine_rank 0 "
        "--main_process_port 29500 --accelerate_config zero2 --use_deepspeed --config_file a.yaml"
    )
    found = codes(f"{TRL} --lora_target_modules all-linear {flags}", "error", "warning")
    assert not [code for code in found if code.startswith("CF")]


def test_a_wrong_type_stops_argparse() -> None:
    assert "CF009" in codes(f"{TRL} --lora_r 16.5")
    assert "CF009" in codes(f"{TRL} --lora_r sixteen")
    assert one(f"{TRL} --lora_target_modules none").misfits == ()


def test_words_that_are_not_known_leave_nothing_sure() -> None:
    recipe = one(f'{TRL} --lora_r 16 "$@"')
    assert recipe.value("r") == 16
    assert not recipe["r"].sure
    assert not recipe["lora_alpha"].sure
    command = f'{TRL} --lora_r 16 --lora_target_modules q_projj v_proj "$@"'
    report = lint_text(command + "\n", "train.sh")
    assert {d.severity for d in report.diagnostics if d.code == "TM102"} == {"warning"}


# Axolotl -----------------------------------------------------------------------------------------


def test_axolotls_options_change_its_file() -> None:
    recipe = one("axolotl train qlora.yaml --lora-r 8 --lora-alpha=16 --no-sample-packing")
    assert recipe.dialect == "axolotl"
    assert recipe.adapter
    assert recipe.value("r") == 8
    assert recipe["r"].path == ("lora-r",)
    assert recipe.value("lora_alpha") == 16
    assert recipe.value("lora_dropout") is UNKNOWN
    assert recipe.value("base_model") is UNKNOWN
    command = "accelerate launch -m axolotl.cli.train a.yaml --lora_r=64 --lora_alpha=64"
    assert codes(command, "error", "warning") == []
    assert none("axolotl train qlora.yaml --learning-rate 1e-4")
    assert none("axolotl train qlora.yaml")


# Other programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "values"),
    [
        (
            "python finetune.py --base_model b/m --lora_r 16 --lora_target_modules '[q_proj]'",
            {"r": 16, "target_modules": ["q_proj"], "base_model": "b/m"},
        ),
        (
            (
                "deepspeed examples/finetune.py --model_name_or_path gpt2 --use_lora 1 --lora_r 8 "
                "--lora_alpha 32 --learning_rate 1e-4 --lora_target_modules c_attn,c_proj"
            ),
            {
                "r": 8,
                "lora_alpha": 32,
                "learning_rate": 1e-4,
                "target_modules": ["c_attn", "c_proj"],
            },
        ),
        (
            (
                "accelerate launch train_dreambooth_lora_flux.py "
                "--pretrained_model_name_or_path=b/f --rank=4 --lora_dropout=0.1"
            ),
            {"r": 4, "lora_dropout": 0.1, "base_model": "b/f", "lora_alpha": None},
        ),
        ("python qlora.py --model_name_or_path m --lora-r 64 --bits 4", {"r": 64}),
    ],
)
def test_programs_of_peoples_own(command: str, values: dict[str, Any]) -> None:
    recipe = one(command)
    assert recipe.dialect == "commands"
    assert {name: recipe.value(name) for name in values} == values


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve m --enable-lora --max-lora-rank 64 --lora-modules a=b",
        "python -m vllm.entrypoints.openai.api_server --enable-lora --max-loras 4",
        "python merge_lora.py --base_model m --lora_r 8",
        "python -m torch.distributed.launch train.py --rank 0 --world_size 8 --use_lora",
        "python train_lora.py --epochs 3",
        "python generate.py --lora_weights tloen/alpaca-lora-7b",
        "swift sft --tuner_type adalora --lora_rank 8 --model m",
        "python train.py --peft_type adalora --lora_alpha 16 --lora_dropout 0.1",
        "python train.py --use_peft --use_adalora --init_r 12 --lora_alpha 16 --lora_dropout 0.1",
        'python train.py --lora_r "see the README"',
    ],
)
def test_commands_that_only_mention_lora(command: str) -> None:
    assert none(command)


def test_what_is_only_likely_is_said_mildly() -> None:
    command = "python finetune.py --base_model b/m --lora_r 16 --lora_alpha 512 --lora_dropout 2"
    report = lint_text(command + "\n", "train.sh")
    assert {d.code: d.severity for d in report.diagnostics} == {"SC207": "info"}
    assert any("its own affair" in missing.reason for missing in report.not_checked)


def test_a_home_made_switch_that_is_off() -> None:
    command = "python finetune.py --use_lora False --lora_r 16 --lora_alpha 16"
    assert not one(command).adapter
    assert codes(command, "error", "warning", "info") == []


# Edits and notebooks -----------------------------------------------------------------------------


def roundtrip(command: str, field: str, value: object) -> Recipe:
    text = command + "\n"
    document = parse("train.sh", text)
    (before,) = recipes(document)
    edits = plan(document, dialect(before.dialect), before, Set(field, value))
    (after,) = recipes(parse("train.sh", apply_edits(text, edits)))
    assert after.value(field) == value
    for name in {*before.fields, *after.fields} - {field}:
        follows = name == "lora_alpha" and not before.written("lora_alpha")
        follows = follows or (field, name) == ("bf16", "dtype")
        assert follows or after.value(name) == before.value(name), name
    return after


_NAMES = st.sampled_from(["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"])
_VALUES = {
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 1024),
    "lora_dropout": st.floats(0, 0.9).map(lambda x: round(x, 3)),
    "target_modules": st.lists(_NAMES, min_size=2, max_size=4, unique=True),
    "modules_to_save": st.lists(
        st.sampled_from(["lm_head", "embed_tokens"]), min_size=1, unique=True
    ),
    "use_rslora": st.booleans(),
    "use_dora": st.booleans(),
    "learning_rate": st.floats(1e-6, 1e-2).map(lambda x: float(f"{x:.3g}")),
    "per_device_train_batch_size": st.integers(1, 64),
    "max_length": st.integers(64, 8192),
    "gradient_accumulation_steps": st.integers(1, 64),
    "bf16": st.booleans(),
}
_STARTS = (
    f"{FACTORY} --lora_rank 8 --lora_target q_proj,v_proj",
    f"{FACTORY} --lora-rank=8 --lora-alpha=4 --lora_target=q_proj --use_dora --lora_dropout 0.1",
    f"{TRL} --lora_r 8 --lora_target_modules q_proj v_proj",
    f"{TRL} --lora_r=8 --lora-alpha 16 --lora_target_modules q_proj --bf16 False --use_rslora",
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), start=st.sampled_from(_STARTS), field=st.sampled_from(sorted(_VALUES)))
def test_a_field_is_set_in_a_command(data: st.DataObject, start: str, field: str) -> None:
    roundtrip(start, field, data.draw(_VALUES[field]))


def test_one_of_the_targets_is_replaced() -> None:
    for command in (
        f"{FACTORY} --lora_target q_proj,v_prj",
        f"{TRL} --lora_r 8 --lora_target_modules q_proj v_prj",
    ):
        document = parse("train.sh", command)
        (recipe,) = recipes(document)
        edits = plan(
            document, dialect(recipe.dialect), recipe, SetItem("target_modules", 1, "v_proj")
        )
        assert apply_edits(command, edits) == command.replace("v_prj", "v_proj")


def test_a_list_in_a_spelling_of_its_own_is_left_alone() -> None:
    command = "python finetune.py --lora_r 8 --lora_target_modules '[q_proj,v_proj]'"
    document = parse("train.sh", command)
    (recipe,) = recipes(document)
    with pytest.raises(NotEditable):
        plan(document, dialect("commands"), recipe, Set("target_modules", ["a", "b"]))


def notebook(*cells: str) -> str:
    made = [
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": cell,
        }
        for cell in cells
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_commands_in_notebook_cells() -> None:
    text = notebook(
        "!pip install trl",
        f"!{TRL} --lora_r 16 --lora_target_modules q_proj v_proj",
        f"%%bash\n{FACTORY} \\\n  --lora_rank 4 --lora_target all\n",
        "!python finetune.py --lora_r 2 --lora_alpha 4",
    )
    found = recipes(parse("a.ipynb", text))
    assert [(r.dialect, r.value("r")) for r in found] == [
        ("trl", 16),
        ("llama_factory", 4),
        ("commands", 2),
    ]
