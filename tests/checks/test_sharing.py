"""How processes share a run, as the files around it say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lora_lint.checks.subject import Context, RecipeSubject
from lora_lint.dialects import recipes
from lora_lint.documents import parse
from lora_lint.environment import Environment
from lora_lint.memory import Sharding

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
model_name_or_path: meta-llama/Llama-3.1-8B
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: q_proj,v_proj
dataset: a
template: llama3
cutoff_len: 1024
per_device_train_batch_size: 1
bf16: true
{more}
"""
SCRIPT = """\
accelerate launch --config_file accelerate.yaml {options} trl/scripts/sft.py \\
    --model_name_or_path meta-llama/Llama-3.1-8B --dataset_name a --use_peft --lora_r 16 {more}
"""
FSDP = (
    "distributed_type: FSDP\nnum_processes: {processes}\nfsdp_config:\n  fsdp_version: {version}\n"
    "  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP\n"
)


def subject(folder: Path, name: str, text: str, gpu: str | None = None) -> RecipeSubject:
    path = folder / name
    path.write_text(text)
    document = parse(str(path), text)
    (recipe,) = recipes(document)
    return RecipeSubject(document, recipe, Context(environment=Environment(gpu=gpu)))


def with_deepspeed(folder: Path, gpu: str | None = None, **zero: Any) -> RecipeSubject:
    settings = {"bf16": {"enabled": "auto"}, "zero_optimization": zero}
    (folder / "ds.json").write_text(json.dumps(settings))
    return subject(folder, "run.yaml", FILE.format(more="deepspeed: ds.json"), gpu)


def launched(
    folder: Path, settings: str, gpu: str | None = None, *, options: str = "", more: str = ""
) -> RecipeSubject:
    (folder / "accelerate.yaml").write_text(settings)
    return subject(folder, "run.sh", SCRIPT.format(options=options, more=more), gpu)


def test_nothing_around_it_is_one_process(tmp_path: Path) -> None:
    found = subject(tmp_path, "run.yaml", FILE.format(more=""))
    assert found.shared is None
    assert found.not_estimated is None


def test_stage_2_with_its_buckets(tmp_path: Path) -> None:
    found = with_deepspeed(tmp_path, stage=2, overlap_comm=True, reduce_bucket_size=2e8)
    assert found.shared == Sharding("zero2", bucket=200_000_000, buckets=2)
    assert found.memory is not None


def test_automatic_buckets_go_by_the_models_width(tmp_path: Path) -> None:
    found = with_deepspeed(tmp_path, stage=2, reduce_bucket_size="auto")
    assert isinstance(found.shared, Sharding)
    assert found.shared.bucket == 4096 * 4096


def test_stage_3_wants_the_number_of_gpus(tmp_path: Path) -> None:
    unknown = with_deepspeed(tmp_path, stage=3)
    assert "--gpu NAME:COUNT" in str(unknown.not_estimated)
    assert unknown.memory is None
    known = with_deepspeed(tmp_path, "24GB:4", stage=3, offload_param={"device": "cpu"})
    assert isinstance(known.shared, Sharding)
    assert (known.shared.kind, known.shared.processes) == ("zero3", 4)
    assert known.shared.weights_on_host
    assert not known.shared.states_on_host


def test_a_deepspeed_file_that_is_not_here(tmp_path: Path) -> None:
    found = subject(tmp_path, "run.yaml", FILE.format(more="deepspeed: examples/ds_z3.json"))
    assert "ds_z3.json" in str(found.not_estimated)


@pytest.mark.parametrize(
    ("settings", "kind", "processes"),
    [
        ("distributed_type: MULTI_GPU\nnum_processes: 4\n", "ddp", 4),
        ("distributed_type: DeepSpeed\n", None, None),
        (
            "distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config:\n  zero_stage: 3\n",
            "zero3",
            8,
        ),
        (
            FSDP.format(processes=2, version=2),
            "fsdp2",
            2,
        ),
        ("distributed_type: 'NO'\nnum_processes: 1\n", None, None),
    ],
)
def test_accelerates_file(
    tmp_path: Path, settings: str, kind: str | None, processes: int | None
) -> None:
    found = launched(tmp_path, settings).shared
    if kind is None:
        assert not isinstance(found, Sharding) or found.processes is None
    else:
        assert isinstance(found, Sharding)
        assert (found.kind, found.processes) == (kind, processes)


def test_fsdp_without_a_policy_is_one_unit(tmp_path: Path) -> None:
    whole = "distributed_type: FSDP\nnum_processes: 2\nfsdp_config:\n  fsdp_version: 2\n"
    found = launched(tmp_path, whole).shared
    assert isinstance(found, Sharding)
    assert not found.wraps


def test_4_bit_weights_that_fsdp_can_divide_or_not(tmp_path: Path) -> None:
    old, new = (FSDP.format(processes=2, version=version) for version in (1, 2))
    four = "--load_in_4bit true"
    first = launched(tmp_path, old, more=four)
    assert "uint8" in str(first.not_estimated)
    second = launched(tmp_path, new, more=four).shared
    assert isinstance(second, Sharding)
    assert second.splits is False
    more = f"{four} --bnb_4bit_quant_storage bfloat16"
    stored = launched(tmp_path, old, more=more).shared
    assert isinstance(stored, Sharding)
    assert stored.splits is True


def test_dividing_weights_lowers_the_estimate(tmp_path: Path) -> None:
    files = [FSDP.format(processes=count, version=2) for count in (2, 8)]
    two, eight = (launched(tmp_path, text, "24GB:8").memory for text in files)
    assert two is not None
    assert eight is not None
    assert (eight.high or 0) < (two.high or 0)


def test_a_framework_that_starts_a_process_on_each_gpu(tmp_path: Path) -> None:
    found = subject(tmp_path, "run.yaml", FILE.format(more=""), "24GB:2").shared
    assert isinstance(found, Sharding)
    assert (found.kind, found.processes) == ("ddp", 2)


@pytest.mark.parametrize("option", ["--use_fsdp", "--use_deepspeed --zero_stage 3"])
def test_options_of_accelerate_are_not_followed(tmp_path: Path, option: str) -> None:
    text = SCRIPT.replace("--config_file accelerate.yaml ", "").format(options=option, more="")
    assert "accelerate" in str(subject(tmp_path, "run.sh", text).not_estimated)


@pytest.mark.parametrize(("switch", "known"), [("true", False), ("false", True)])
def test_oumis_own_switch_of_fsdp(tmp_path: Path, switch: str, *, known: bool) -> None:
    text = (
        "model:\n  model_name: meta-llama/Llama-3.1-8B\n  model_max_length: 1024\n"
        "training:\n  trainer_type: TRL_SFT\n  use_peft: true\n"
        "peft:\n  lora_r: 16\n  lora_target_modules: [q_proj]\n"
        f"fsdp:\n  enable_fsdp: {switch}\n"
    )
    found = subject(tmp_path, "run.yaml", text)
    assert found.dialect.name == "oumi"
    assert (found.shared is None) is known
