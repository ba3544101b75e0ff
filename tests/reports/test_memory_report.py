"""``lora-lint memory``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from lora_lint.cli import main
from tests.checks.test_levers import BIG


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(BIG)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(main, ["memory", "--isolated", *arguments])


def test_parts_plan_and_levers_are_drawn(config):
    result = run(config, "--gpu", "rtx4090")
    assert result.exit_code == 0
    for part in ("activations", "weights", "does not fit", "to make it fit", "alone would save"):
        assert part in result.output
    assert "meta-llama/Llama-2-7b-hf · r 16 · batch 8 · 4096 tokens" in result.output


def test_what_ifs_are_a_table_of_all_combinations(config):
    result = run(config, "--gpu", "rtx4090,a100-80gb", "--batch", "1,2", "--length", "512,1024")
    rows = result.output.split("what if\n")[1].splitlines()
    assert rows[0].split() == ["batch", "length", "peak", "band", "rtx4090", "a100-80gb"]
    tried = [tuple(row.replace(",", "").split()[:2]) for row in rows[1:]]
    assert tried == [("1", "512"), ("1", "1024"), ("2", "512"), ("2", "1024")]


def test_an_option_may_be_repeated(config):
    once = run(config, "--gpu", "rtx4090,a100-80gb", "--batch", "1,2")
    twice = run(config, "--gpu", "rtx4090", "--gpu", "a100-80gb", "--batch", "1", "--batch", "2")
    assert twice.output == once.output


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_it_keeps_to_the_width_of_the_terminal(config, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    _path, *lines = run(config, "--gpu", "rtx4090", "--batch", "1,2").output.splitlines()
    assert max(map(len, lines)) <= columns
    assert any("little quality" in line for line in lines)


def test_json_holds_the_same(config):
    result = run(config, "--gpu", "rtx4090", "--r", "8,16", "--output-format", "json")
    (recipe,) = json.loads(result.output)["recipes"]
    assert recipe["memory"]["verdict"] == "oom"
    assert [row["r"] for row in recipe["what_if"]] == [8, 16]
    assert recipe["what_if"][1]["peak"] == recipe["memory"]["peak"]
    assert recipe["plan"][-1]["verdict"] == "fits"


@pytest.mark.parametrize("arguments", [["--batch", "x"], ["--length", "0"], ["--gpu", "rtx9"]])
def test_a_wrong_value_is_said(config, arguments):
    result = run(config, *arguments)
    assert result.exit_code == 2
    assert "Error:" in result.output


def test_why_there_is_no_estimate_is_said(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(BIG.replace("meta-llama/Llama-2-7b-hf", "nobody/knows-this"))
    assert "not estimated: nobody/knows-this is not in the catalogue" in run(str(path)).output


SHARED = """\
model_name_or_path: meta-llama/Llama-2-13b-hf
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_alpha: 32
lora_target: q_proj,v_proj
dataset: a
template: llama2
cutoff_len: 512
per_device_train_batch_size: 1
bf16: true
deepspeed: ds.json
"""


def verdicts(folder, gpus):
    """What each of some GPUs is said to do with a run whose weights ZeRO-3 divides."""
    (folder / "ds.json").write_text(
        '{"bf16": {"enabled": true}, "zero_optimization": {"stage": 3}}'
    )
    path = folder / "train.yaml"
    path.write_text(SHARED)
    result = run(str(path), "--gpu", gpus, "--output-format", "json")
    return json.loads(result.output)["recipes"][0]["what_if"][0]["verdicts"]


def test_fewer_gpus_do_not_share_as_many_do(tmp_path):
    """24.2 GiB of weights: an eighth on each of eight cards, half on each of two, which is 12.1 GiB
    of at most 15.8; of a single one it is not known how many it shares them with.
    """
    found = verdicts(tmp_path, "v100-16gb:8,v100-16gb:2,v100-16gb")
    assert found["v100-16gb:8"] == "fits"
    assert found["v100-16gb:2"] == "risk"
    assert found["v100-16gb"] == "unknown"


def test_it_is_said_whose_peak_a_row_is(tmp_path):
    verdicts(tmp_path, "v100-16gb:8,v100-16gb:2")
    result = run(str(tmp_path / "train.yaml"), "--gpu", "v100-16gb:8,v100-16gb:2")
    assert "peak and band are those of v100-16gb:8" in result.output
