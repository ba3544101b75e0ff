"""What `accelerate launch --config_file` says of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_lint.api import Options, Report, lint_file

SCRIPT = """\
accelerate launch --config_file {file} trl/scripts/sft.py \\
    --model_name_or_path meta-llama/Llama-3.1-8B --dataset_name a --use_peft --load_in_4bit \\
    --lora_r 16 --lora_alpha 32 {more}
"""
FSDP = "distributed_type: FSDP\nfsdp_config:\n  fsdp_auto_wrap_policy: NO_WRAP\n{more}"


def report(folder: Path, settings: str, *, file: str = "fsdp.yaml", more: str = "") -> Report:
    (folder / "fsdp.yaml").write_text(settings)
    (folder / "run.sh").write_text(SCRIPT.format(file=file, more=more))
    return lint_file(folder / "run.sh", Options(isolated=True))


def codes(found: Report) -> set[str]:
    return {d.code for d in found.diagnostics if d.severity != "info"}


def test_fsdp_that_accelerate_turns_on_meets_4_bit_weights(tmp_path: Path) -> None:
    found = report(tmp_path, FSDP.format(more=""))
    (storage,) = [d for d in found.diagnostics if d.code == "QT507"]
    assert storage.severity == "error"
    assert [Path(r.path).name for r in storage.related] == ["fsdp.yaml"]


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        (FSDP.format(more="  fsdp_version: 2\n"), ""),
        (FSDP.format(more=""), "--bnb_4bit_quant_storage bfloat16"),
        ("distributed_type: MULTI_GPU\nnum_processes: 4\n", ""),
        ("distributed_type: FSDP\nfsdp_config: [no mapping\n", ""),
    ],
)
def test_where_it_does_not(tmp_path: Path, settings: str, more: str) -> None:
    assert codes(report(tmp_path, settings, more=more)) == set()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    found = report(tmp_path, FSDP.format(more=""), file="fsdpp.yaml")
    (missing,) = [d for d in found.diagnostics if d.code == "CF012"]
    assert missing.severity == "warning"
    assert "fsdp.yaml" in str(missing.label)


def test_a_path_that_only_the_shell_knows(tmp_path: Path) -> None:
    assert codes(report(tmp_path, FSDP.format(more=""), file='"$HOME/a.yaml"')) == set()
