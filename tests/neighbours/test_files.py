"""Files that a config names are looked for where a run may be started, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_lint import Options, lint_file
from lora_lint.dialects import recipes
from lora_lint.documents import parse
from lora_lint.neighbours import Missing, Section, deepspeed, zero_stage
from lora_lint.neighbours.files import find, is_path, names_file, read

TRL = "model_name_or_path: meta-llama/Llama-3.1-8B\nuse_peft: true\nlora_r: 8\nlora_alpha: 16\n"
TRL += "lora_target_modules: all-linear\n"
STAGE = '{"zero_optimization": {"stage": %d}}'


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def settings(path: Path, text: str) -> Section | Missing | None:
    document = parse(str(path), text)
    (recipe,) = recipes(document)
    return deepspeed(document, recipe)


@pytest.mark.parametrize("text", ["ds.json", "./a/ds.json", "../ds.json", "/x/ds.yaml", "a b.json"])
def test_paths(text: str) -> None:
    assert names_file(text)


@pytest.mark.parametrize(
    "text",
    ["${HOME}/ds.json", "<path>/ds.json", "~/ds.json", "https://x.org/ds.json", "s3://b/ds.json"],
)
def test_what_is_filled_in_elsewhere_is_no_path(text: str) -> None:
    assert not is_path(text)


@pytest.mark.parametrize("text", ["zero3", "", "org/model", "auto", "ds.txt"])
def test_names_are_no_files(text: str) -> None:
    assert not names_file(text)


def test_beside_above_and_no_further_than_the_repository(tmp_path: Path) -> None:
    config = tmp_path / "repo" / "configs" / "a" / "train.yaml"
    put(tmp_path / "outside.json", "{}")
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    put(config, TRL)
    assert isinstance(find("outside.json", str(config)), Missing)
    root = put(tmp_path / "repo" / "ds" / "z.json", "{}")
    found = find("ds/z.json", str(config))
    assert not isinstance(found, Missing)
    assert found[0].samefile(root)
    assert found[1]
    beside = put(config.parent / "ds" / "z.json", '{"a": 1}')
    found = find("ds/z.json", str(config))
    assert not isinstance(found, Missing)
    assert found[0].samefile(beside)
    assert not found[1], "two files of that name say different things"


def test_the_current_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = put(tmp_path / "configs" / "train.yaml", TRL)
    put(tmp_path / "run" / "z.json", "{}")
    monkeypatch.chdir(tmp_path / "run")
    assert not isinstance(find("z.json", str(config)), Missing)


def test_a_file_of_nearly_that_name_is_told(tmp_path: Path) -> None:
    put(tmp_path / "ds" / "zero3.json", "{}")
    missing = find("ds/zreo3.json", str(tmp_path / "train.yaml"))
    assert missing == Missing("ds/zreo3.json", "zero3.json", folder=True)
    assert find("no/zero3.json", str(tmp_path / "train.yaml")) == Missing("no/zero3.json")


@pytest.mark.parametrize("text", ["[1, 2]", "{", "{} {}", "\0", ""])
def test_what_is_no_mapping_is_not_read(tmp_path: Path, text: str) -> None:
    put(tmp_path / "ds.json", text)
    assert settings(tmp_path / "train.yaml", TRL + "deepspeed: ds.json\n") is None


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "ds.json").mkdir()
    assert isinstance(find("ds.json", str(tmp_path / "train.yaml")), Missing)
    assert read(tmp_path / "ds.json") is None


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = put(tmp_path / "ds.json", STAGE % 2)
    config = tmp_path / "train.yaml"
    assert zero_stage(settings(config, TRL + "deepspeed: ds.json\n")) == 2
    put(path, '{"zero_optimization":  {"stage": 3}}')
    assert zero_stage(settings(config, TRL + "deepspeed: ds.json\n")) == 3


def test_inline_settings_stand_in_the_config(tmp_path: Path) -> None:
    text = TRL + "deepspeed: {zero_optimization: {stage: 3}}\n"
    found = settings(tmp_path / "train.yaml", text)
    assert isinstance(found, Section)
    assert found.inline
    assert zero_stage(found) == 3
    note = found.note("here", "zero_optimization", "stage")
    assert note.document is None
    assert note.span is not None
    assert text[slice(*note.span)] == "3"


def test_settings_of_a_python_file(tmp_path: Path) -> None:
    """A dict under a name, passed to TrainingArguments."""
    text = (
        "from peft import LoraConfig\nfrom transformers import TrainingArguments\n"
        'ds = {"zero_optimization": {"stage": 3}}\n'
        'args = TrainingArguments("out", deepspeed=ds)\nconfig = LoraConfig(r=8)\n'
    )
    assert zero_stage(settings(tmp_path / "train.py", text)) == 3


def test_an_accelerate_config_is_no_recipe(tmp_path: Path) -> None:
    text = "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nfsdp_config:\n"
    text += "  fsdp_version: 1\n  fsdp_use_orig_params: false\nnum_processes: 8\n"
    path = put(tmp_path / "lora_accelerate.yaml", text)
    report = lint_file(str(path), Options(isolated=True))
    assert not report.recipes
    assert not report.diagnostics
