"""Whatever it is given: a clear message, the right exit status, bounded time, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LINT = [sys.executable, "-m", "lora_lint", "lint", "--isolated"]


def lint(
    *arguments: str, folder: Path, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("GITHUB_ACTIONS", "FORCE_COLOR")
    }
    result = subprocess.run(
        [*LINT, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment,
    )
    done = subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


BAD = {
    "empty.yaml": (b"", 0, "no LoRA configuration found"),
    "empty.json": (b"", 1, "CF001"),
    "binary.yaml": (bytes(range(256)) * 8, 1, "CF001"),
    "latin1.yaml": ("lora:\n  r: 8 # gr\xf6\xdfe\n".encode("latin-1"), 1, "CF001"),
    "tab.yaml": (b"lora:\n\tr: 8\n", 1, "CF001"),
    "open.yaml": (b"lora: {r: 8\n", 1, "CF001"),
    "comma.json": (b'{"lora": {"r": 8,}}', 1, "CF001"),
    "deep.yaml": (b"[" * 100_000, 1, "CF001"),
    "deep.json": (b"[" * 100_000, 1, "CF001"),
    "bomb.yaml": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 112)
        )
        + b"lora: {r: 8, lora_alpha: 16, target_modules: *o}\n",
        None,
        "",
    ),
    "self.yaml": (b"lora: &l {r: 8, lora_alpha: 16, target_modules: *l}\n", None, ""),
    "syntax.py": (b"from peft import LoraConfig\nLoraConfig(r=\n", 1, "CF001"),
    "broken.ipynb": (b'{"cells": [', 1, "CF001"),
    "regex.yaml": (
        b"""lora:
  base_model_name_or_path: gpt2
  target_modules: "(a+)+(.*)*(x|x)*transformer.*c_attnn"
  r: 8
""",
        None,
        "",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content(name: str, tmp_path: Path) -> None:
    data, status, said = BAD[name]
    (tmp_path / name).write_bytes(data)
    result = lint(name, folder=tmp_path)
    assert result.returncode in ((0, 1) if status is None else (status,)), result.stdout
    assert said in result.stdout


def test_paths_that_cannot_be_read_come_after_the_rest(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(
        "lora: {r: 8, lora_alpha: 512, target_modules: all-linear}\n"
    )
    (tmp_path / "link.yaml").symlink_to("nowhere.yaml")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(50 * 2**20)
    result = lint("missing.yaml", "link.yaml", "huge.yaml", "good.yaml", folder=tmp_path)
    assert result.returncode == 2
    assert "good.yaml:1:" in result.stdout
    assert "missing.yaml: not linted: no such file" in result.stdout
    assert (
        "link.yaml: not linted: it is a link to nowhere.yaml, which does not exist" in result.stdout
    )
    assert "huge.yaml: not linted: it has 50 MiB" in result.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("lora: {}\n")
    path.chmod(0)
    result = lint("secret.yaml", folder=tmp_path)
    assert result.returncode == 2
    assert "permission denied" in result.stdout


def test_what_a_folder_holds_is_read_only_if_it_speaks_of_lora(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("services: {web: [\n")
    (tmp_path / "link.yaml").symlink_to("nowhere.yaml")
    result = lint(".", folder=tmp_path)
    assert result.returncode == 0, result.stdout
    named = lint("broken.yaml", folder=tmp_path)
    assert named.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peft-version"], "requires an argument"),
        (["--gpu", "banana", "a.yaml"], "unknown GPU 'banana'"),
        (["--select", "TM999", "a.yaml"], "no rule is called 'TM999'"),
        (["--no-such-option", "a.yaml"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = lint(*arguments, folder=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    command = f"{sys.executable} -m lora_lint rules | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.stdout.startswith("CF001")
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_all_of_a_long_report_arrives(tmp_path: Path) -> None:
    line = "{{r: 8, lora_alpha: {}, target_modules: [q_proj]}}"
    parts = [f"lora: {line.format(1000 + n)}" for n in range(200)]
    (tmp_path / "many.yaml").write_text("\n---\n".join(parts))
    result = lint("many.yaml", "--output-format", "concise", folder=tmp_path)
    assert sum("SC207" in row for row in result.stdout.splitlines()) == 200
