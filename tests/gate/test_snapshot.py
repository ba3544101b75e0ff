"""snapshot: a live build by the installed transformers, written to a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import GPT2Config, GPT2LMHeadModel

from lora_lint import ModuleTree
from lora_lint.cli import main

TINY = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 100}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    values = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **TINY}
    path.write_text(json.dumps(values))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["snapshot", *map(str, arguments)], catch_exceptions=False)


def test_the_file_holds_what_transformers_builds(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "tree.json"
    result = run(config, "-o", out)
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(**TINY))
    tree = ModuleTree.from_json(out.read_text())
    assert [name for name, _ in tree.named_modules()] == [name for name, _ in model.named_modules()]
    assert tree.parameter_count() == sum(p.numel() for p in model.parameters())
    assert f"{tree.parameter_count():,} parameters" in result.stdout
    seen = CliRunner().invoke(main, ["inspect", str(out)], catch_exceptions=False)
    assert f"{tree.parameter_count():,} parameters" in seen.stdout


def test_without_a_file_the_tree_goes_to_standard_output(config: Path) -> None:
    tree = ModuleTree.from_json(run(config, "--cls", "GPT2Model").stdout)
    assert tree.cls == "GPT2Model"


def test_code_of_the_repository_is_not_run(config: Path, tmp_path: Path) -> None:
    values = {**json.loads(config.read_text()), "auto_map": {"AutoModel": "modeling.Own"}}
    config.write_text(json.dumps(values))
    proof = tmp_path / "ran"
    (tmp_path / "modeling.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    result = run(config)
    assert result.exit_code == 2
    assert "own code" in result.stderr
    assert "ModuleTree.from_model(model).to_json()" in result.stderr
    assert not proof.exists()


def test_what_cannot_be_written_is_said(config: Path, tmp_path: Path) -> None:
    result = run(config, "-o", tmp_path / "no" / "such" / "folder.json")
    assert result.exit_code == 2
    assert "can't be written" in result.stderr


def test_inspect_builds_where_it_is_told_to(config: Path) -> None:
    """No known model has these sizes, and there are no formulas for the class."""
    values = {"model_type": "openai-gpt", "architectures": ["OpenAIGPTLMHeadModel"], **TINY}
    config.write_text(json.dumps(values))

    def said(*options: str) -> str:
        command = ["inspect", str(config), *options]
        return CliRunner().invoke(main, command, catch_exceptions=False).stdout

    assert "sizes unknown" in said()
    assert "Conv1D 32→96" not in said()
    assert "Conv1D 32→96" in said("--live")
