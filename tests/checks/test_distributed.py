"""DeepSpeed's settings against the training arguments, as transformers compares them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lint import Options, lint_text
from lora_lint.cli import main

# What TrainingArguments takes where LLaMA-Factory's file says nothing.
DEFAULTS = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "learning_rate": 5e-5,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "fp16": False,
    "bf16": False,
}
CHOICES: dict[str, list[Any]] = {
    "per_device_train_batch_size": [1, 2, 8],
    "gradient_accumulation_steps": [1, 4],
    "max_grad_norm": [1, 1.0, 0.3],
    "learning_rate": [5.0e-5, 0.0001],
    "adam_beta1": [0.9, 0.8],
    "adam_beta2": [0.999, 0.95],
    "adam_epsilon": [1.0e-8, 1.0e-6],
    "weight_decay": [0, 0.0, 0.01],
    "warmup_steps": [10, 100],
    "fp16": [True, False],
    "bf16": [True, False],
}
KEYS: dict[str, list[Any]] = {
    "train_micro_batch_size_per_gpu": [1, 2, 8, 8.0],
    "gradient_accumulation_steps": [1, 4, True],
    "gradient_clipping": [1, 1.0, 0.3],
    "optimizer.params.lr": [5e-5, 1e-4, "5e-5"],
    "optimizer.params.betas": [[0.9, 0.999], [0.8, 0.95]],
    "optimizer.params.eps": [1e-8, 1e-6],
    "optimizer.params.weight_decay": [0, 0.01],
    "scheduler.params.warmup_max_lr": [5e-5, 1e-4],
    "scheduler.params.warmup_num_steps": [10, 100],
    "fp16.enabled": [True, False],
    "bf16.enabled": [True, False],
}


def oracle(config: dict[str, Any], written: dict[str, Any]) -> set[str]:
    """The keys that transformers' own comparison names."""
    accelerate = pytest.importorskip("accelerate.utils.deepspeed")
    transformers = pytest.importorskip("transformers.integrations.deepspeed")
    own = transformers.HfTrainerDeepSpeedConfig  # its base class needs DeepSpeed to be installed
    methods = {
        name: vars(own)[name]
        for name in (
            "is_auto",
            "fill_match",
            "fill_only",
            "trainer_config_process",
            "trainer_config_finalize",
        )
    }
    real = type("Real", (accelerate.HfDeepSpeedConfig,), methods)(json.loads(json.dumps(config)))
    real.mismatches = []
    arguments = SimpleNamespace(
        **{**DEFAULTS, **written},
        world_size=1,
        fp16_full_eval=False,
        bf16_full_eval=False,
        save_on_each_node=False,
    )
    arguments.get_warmup_steps = lambda _steps: arguments.warmup_steps
    real.trainer_config_process(arguments)
    with contextlib.suppress(ValueError):  # it raises where there are any
        real.trainer_config_finalize(arguments, None, 1000)
    return {line.split()[2].partition("=")[0] for line in real.mismatches}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"zero_optimization": {"stage": 2}}
    for key, value in flat.items():
        holder = config
        *path, last = key.split(".")
        for step in path:
            holder = holder.setdefault(step, {})
        holder[last] = value
    return config


def written_as(value: Any) -> str:
    """A value in YAML 1.1, where 1e-08 is a text."""
    return f"{value:.6e}" if isinstance(value, float) and value else json.dumps(value)


def said(config: dict[str, Any], written: dict[str, Any], folder: Path) -> set[str]:
    (folder / "ds.json").write_text(json.dumps(config))
    text = "model_name_or_path: meta-llama/Llama-3.1-8B\nfinetuning_type: lora\nlora_rank: 8\n"
    text += "dataset: alpaca_en\nstage: sft\ndo_train: true\n"
    text += "".join(f"{key}: {written_as(value)}\n" for key, value in written.items())
    text += "deepspeed: ds.json\n"
    report = lint_text(text, str(folder / "train.yaml"), Options(select=("TR610",), isolated=True))
    return {d.message.partition(":")[0] for d in report.diagnostics if d.code == "TR610"}


@given(
    flat=st.fixed_dictionaries(
        {}, optional={k: st.sampled_from([*v, "auto"]) for k, v in KEYS.items()}
    ),
    written=st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in CHOICES.items()}),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_names_what_transformers_names(
    tmp_path_factory: pytest.TempPathFactory, flat: dict[str, Any], written: dict[str, Any]
) -> None:
    """Over LLaMA-Factory's files, which are TrainingArguments themselves.

    What transformers compares with an argument that the file leaves out may stay unsaid (warm-up
    and betas); nothing else may, and nothing is said that transformers does not say.
    """
    if "fp16" in written and "bf16" in written and written["fp16"] and written["bf16"]:
        del written["fp16"]  # not both (TR601)
    config = nested(flat)
    expected, found = oracle(config, written), said(config, written, tmp_path_factory.getbasetemp())
    assert found <= expected
    unsaid = expected - found
    if {"adam_beta1", "adam_beta2"} <= set(written):
        assert "optimizer.params.betas" not in unsaid
    if "warmup_steps" in written:
        assert "scheduler.params.warmup_num_steps" not in unsaid
    assert unsaid <= {"optimizer.params.betas", "scheduler.params.warmup_num_steps"}


@pytest.mark.parametrize(("whole", "told"), [(16, False), (32, False), (24, True), (8, True)])
def test_a_whole_batch_is_a_multiple(whole: int, told: bool, tmp_path: Path) -> None:
    written = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    assert bool(said({"train_batch_size": whole}, written, tmp_path)) is told


DS = '{\n  "gradient_accumulation_steps": 4,\n  "zero_optimization": {"stage": 2}\n}\n'
TRAIN = """model_name_or_path: meta-llama/Llama-3.1-8B
use_peft: true
lora_r: 16
lora_alpha: 32
lora_target_modules: all-linear
gradient_accumulation_steps: 8
deepspeed: ds.json
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    Path("ds.json").write_text(DS)
    Path("train.yaml").write_text(TRAIN)

    def lint(*options: str) -> str:
        arguments = ["train.yaml", "--isolated", "--select", "TR610", *options]
        return CliRunner().invoke(main, arguments, catch_exceptions=False).stdout

    return lint


def test_text_shows_both_files(run: Any) -> None:
    expected = """\
train.yaml:6:30 error[TR610] gradient_accumulation_steps: 4 in ds.json contradicts \
gradient_accumulation_steps: 8
  |
6 | gradient_accumulation_steps: 8
  |                              ^
  |
 --> ds.json:2:34
  |
2 |   "gradient_accumulation_steps": 4,
  |                                  ^ gradient_accumulation_steps here
  |
"""
    assert run().startswith(expected)


def test_json_places_the_other_file(run: Any) -> None:
    (found,) = json.loads(run("--output-format", "json"))["diagnostics"]
    (related,) = found["related"]
    assert related["path"] == "ds.json"
    start = related["span"]["start"]
    assert (start["line"], start["column"], DS[start["offset"]]) == (2, 34, "4")


def test_github_names_the_other_file(run: Any) -> None:
    assert "%0Ads.json:2: gradient_accumulation_steps here" in run("--output-format", "github")


def test_a_home_made_file_gets_a_warning(tmp_path: Path) -> None:
    text = "lora: {r: 8, lora_alpha: 16, target_modules: [q_proj, up_proj]}\n"
    text += "gradient_accumulation_steps: 8\ndeepspeed: {gradient_accumulation_steps: 4}\n"
    (found,) = lint_text(text, "a.yaml", Options(select=("TR610",), isolated=True)).diagnostics
    assert found.severity == "warning"
