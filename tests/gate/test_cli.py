"""The gate's own switches: exit codes, formats, what is required."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from lora_lint.cli import main

WARNS = "lora: {r: 8, lora_alpha: 512, target_modules: [c_attn], base_model_name_or_path: gpt2}\n"
FAILS = "lora: {r: 8, lora_alpha: 16, target_modules: [q_proj], base_model_name_or_path: gpt2}\n"
PRIVATE = (
    "lora: {r: 8, lora_alpha: 16, target_modules: [q_proj], base_model_name_or_path: me/own}\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for name, text in (("warns", WARNS), ("fails", FAILS), ("private", PRIVATE)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def lint(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["--isolated", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["fails.yaml"], 1),
        (["warns.yaml"], 0),
        (["warns.yaml", "--fail-on", "warning"], 1),
        (["fails.yaml", "--exit-zero"], 0),
        (["fails.yaml", "--ignore", "TM"], 0),
        (["fails.yaml", "--select", "SC"], 0),
        (["fails.yaml", "--select", "target-modules-not-found"], 1),
        (["fails.yaml", "nowhere.yaml"], 2),
        (["private.yaml"], 0),
        (["private.yaml", "--require", "model"], 1),
        (["private.yaml", "--require", "model", "--model", "facebook/opt-125m"], 0),
        (["warns.yaml", "--require", "versions"], 1),
        (["warns.yaml", "--require", "versions", "--peft-version", "0.21.2"], 0),
        (["warns.yaml", "--require", "modle"], 2),
        (["warns.yaml", "--peft-version", "banana"], 2),
    ],
)
def test_exit_status(folder: Path, arguments: list[str], status: int) -> None:
    result = lint(*arguments)
    assert result.exit_code == status, result.output


def test_what_is_required_and_lacking_is_said(folder: Path) -> None:
    result = lint("private.yaml", "--require", "model")
    assert "--require model: me/own is not in the catalogue" in result.stderr


def test_github_chooses_its_format_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = lint("fails.yaml")
    assert result.stdout.startswith(
        "::error file=fails.yaml,line=1,endLine=1,title=TM101 target-modules-not-found,col=47,"
    )
    assert "::" not in lint("fails.yaml", "--output-format", "concise").stdout


def test_github_escapes_what_it_must(folder: Path) -> None:
    name = "a,b:100%.yaml"
    Path(name).write_text(FAILS)
    (line, _) = lint(name, "--output-format", "github").stdout.splitlines()
    assert "file=a%2Cb%3A100%25.yaml," in line


def test_concise(folder: Path) -> None:
    result = lint("fails.yaml", "--output-format", "concise")
    first, summary = result.stdout.splitlines()
    assert first == "fails.yaml:1:47: error[TM101] none of [q_proj] exist in gpt2"
    assert summary.startswith("1 error")


def test_a_report_in_a_file(folder: Path) -> None:
    result = lint("fails.yaml", "--output-format", "json", "--output-file", "report.json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert '"code": "TM101"' in Path("report.json").read_text()


def test_a_path_needs_no_subcommand_and_folders_are_searched(folder: Path) -> None:
    assert "TM101" in lint("fails.yaml").stdout
    assert "TM101" in lint(".").stdout


def test_schema_of_a_framework() -> None:
    result = CliRunner().invoke(main, ["schema", "llama-factory"])
    schema = json.loads(result.output)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert not list(validator.iter_errors({"lora_rank": 8, "lora_target": "all"}))
    assert list(validator.iter_errors({"lora_rank": "eight"}))
    assert list(validator.iter_errors({"lora_r": 8}))


def test_schema_of_no_framework() -> None:
    result = CliRunner().invoke(main, ["schema", "nothing"])
    assert result.exit_code == 2
    assert "axolotl" in result.output
