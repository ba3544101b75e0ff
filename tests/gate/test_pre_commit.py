"""The hook, run by the real pre-commit on a scratch repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BAD = "base_model_name_or_path: gpt2\nr: 8\nlora_alpha: 16\ntarget_modules: [q_proj, v_proj]\n"
GOOD = BAD.replace("[q_proj, v_proj]", "[c_attn]")
UNRELATED = {
    "workflow.yaml": "on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n",
    "template.yaml": "{{- if .Values.peft }}\nkind: Service\n{{- end }}\n",
    "tsconfig.json": '{\n  // comments\n  "compilerOptions": {},\n}\n',
    "setup.py": "from setuptools import setup\n\nsetup()\n",
    "old.py": "print 'explore'\n",
    "notes.ipynb": '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n',
}


def run(*command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("GITHUB_ACTIONS", "FORCE_COLOR")
    }
    environment |= {
        "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "t@example.org",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }  # fmt: skip
    return subprocess.run(
        command,
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def repository(folder: Path) -> str:
    run("git", "init", "-q", folder=folder)
    run("git", "add", "-A", folder=folder)
    made = run("git", "commit", "-q", "-m", "all", folder=folder)
    assert made.returncode == 0, made.stderr
    return run("git", "rev-parse", "HEAD", folder=folder).stdout.strip()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that uses the hook of this working tree."""
    hooks = tmp_path_factory.mktemp("lora-lint")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, hooks)
    for name in ("lora_lint", "rules"):
        shutil.copytree(ROOT / name, hooks / name, ignore=shutil.ignore_patterns("__pycache__"))
    revision = repository(hooks)
    folder = tmp_path_factory.mktemp("scratch")
    (folder / ".pre-commit-config.yaml").write_text(
        f"repos:\n- repo: {hooks.as_uri()}\n  rev: {revision}\n  hooks:\n"
        "  - id: lora-lint\n  - id: lora-lint-versions\n"
    )
    for name, text in UNRELATED.items():
        (folder / name).write_text(text)
    repository(folder)
    return folder


def pre_commit(scratch: Path, *files: str) -> subprocess.CompletedProcess[str]:
    run("git", "add", "-A", folder=scratch)
    what = ("--files", *files) if files else ("--all-files",)
    cache = str(scratch.parent / "pre-commit")
    return run("pre-commit", "run", "--verbose", *what, folder=scratch, PRE_COMMIT_HOME=cache)


def test_unrelated_files_are_silent(scratch: Path) -> None:
    result = pre_commit(scratch)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Passed" in result.stdout
    assert not [line for line in result.stdout.splitlines() if ": CF" in line or "error" in line]


def test_a_bad_config_fails_and_its_mended_form_passes(scratch: Path) -> None:
    config = scratch / "train.yaml"
    config.write_text(BAD)
    result = pre_commit(scratch)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "train.yaml:4:18" in result.stdout
    assert "error[TM101]" in result.stdout
    config.write_text(GOOD)
    assert pre_commit(scratch).returncode == 0


def test_a_script_fails_too(scratch: Path) -> None:
    script = scratch / "train.py"
    script.write_text(
        "from peft import LoraConfig, get_peft_model\n"
        "from transformers import AutoModelForCausalLM\n\n"
        'model = AutoModelForCausalLM.from_pretrained("gpt2")\n'
        'model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj"]))\n'
    )
    result = pre_commit(scratch, "train.py")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "train.py:5:" in result.stdout
    script.unlink()


def test_a_lock_file_that_changes_checks_the_configs_again(scratch: Path) -> None:
    config, lock = scratch / "train.yaml", scratch / "uv.lock"
    config.write_text(GOOD.replace("[c_attn]", "all-linear"))
    lock.write_text('version = 1\n\n[[package]]\nname = "peft"\nversion = "0.8.2"\n')
    assert pre_commit(scratch, "uv.lock").returncode == 0
    lock.write_text(lock.read_text().replace("0.8.2", "0.7.1"))
    result = pre_commit(scratch, "uv.lock")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "train.yaml:4:17" in result.stdout
    assert "error[VR303]" in result.stdout
    assert "uv.lock has 0.7.1" in result.stdout
    lock.unlink()
    config.unlink()
