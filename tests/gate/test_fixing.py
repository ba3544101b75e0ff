"""--fix and --diff on real files: what is written, how, and what is left alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_lint import fixes
from lora_lint.cli import main

CONFIG = """\
# GPT-2, once more
model_name_or_path: gpt2   # small
trust_remote_code: true
lora:
  r: 8
  lora_alpha: 16\t# 2 * r
  target_modules: [q_proj, v_proj]  # attention
"""
FIXED = CONFIG.replace("[q_proj, v_proj]", "[c_attn]").replace(
    "trust_remote_code: true", "trust_remote_code: false"
)
SAFELY_FIXED = CONFIG.replace("trust_remote_code: true", "trust_remote_code: false")


def lint(*arguments: str, stdin: bytes | None = None) -> Result:
    command = ["lint", "--isolated", *arguments]
    return CliRunner().invoke(main, command, input=stdin, catch_exceptions=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_bytes(CONFIG.encode())
    return path


def test_safe_fixes_only(config: Path) -> None:
    assert lint(str(config), "--fix").exit_code == 1  # TM101 is left
    assert config.read_text() == SAFELY_FIXED


def test_unsafe_fixes_too(config: Path) -> None:
    result = lint(str(config), "--fix", "--unsafe-fixes")
    assert result.exit_code == 0
    assert "2 fixes applied" in result.output
    assert config.read_text() == FIXED
    assert lint(str(config), "--fix", "--unsafe-fixes").exit_code == 0
    assert config.read_text() == FIXED


def test_unsafe_fixes_need_fix(config: Path) -> None:
    lint(str(config), "--unsafe-fixes")
    assert config.read_bytes() == CONFIG.encode()


def test_diff_changes_nothing_and_fails(config: Path) -> None:
    result = lint(str(config), "--diff", "--unsafe-fixes", "--fail-on", "error")
    assert result.exit_code == 1
    assert config.read_bytes() == CONFIG.encode()
    assert "-  target_modules: [q_proj, v_proj]  # attention" in result.output
    assert "+  target_modules: [c_attn]  # attention" in result.output
    config.write_text(FIXED)
    clean = lint(str(config), "--diff", "--unsafe-fixes")
    assert clean.exit_code == 0
    assert "@@" not in clean.output


def test_diff_is_a_patch(config: Path, tmp_path: Path) -> None:
    text = CONFIG.replace("\n", "\r\n").rstrip() + "\x0c # \u2028 no end of line"
    after = text.replace("gpt2", "distilgpt2")
    change = fixes.diff("train.yaml", text, after)
    kept = [line for line in change.split("\n") if line.startswith(" ")]
    assert sum(line.startswith(("+", "-")) for line in change.split("\n")) == 4
    assert all("gpt2" not in line for line in kept)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: ("\ufeff" + text).encode("utf-8"),
        lambda text: text.replace("\n", "\r\n").encode("utf-8"),
        lambda text: ("\ufeff" + text).encode("utf-16-le"),
        lambda text: text.replace("small", "größer 🙂").encode("utf-8"),
        lambda text: text.rstrip("\n").encode("utf-8"),
    ],
    ids=["mark", "crlf", "utf-16", "non-ascii", "no-final-newline"],
)
def test_every_other_byte_is_kept(encode: object, config: Path) -> None:
    assert callable(encode)
    config.write_bytes(encode(CONFIG))
    assert lint(str(config), "--fix", "--unsafe-fixes").exit_code == 0
    assert config.read_bytes() == encode(FIXED)


def test_permissions_are_kept(config: Path) -> None:
    config.chmod(0o640)
    lint(str(config), "--fix")
    assert stat.S_IMODE(config.stat().st_mode) == 0o640


def test_a_link_stays_a_link(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = folder / "link.yaml"
    link.symlink_to("../train.yaml")
    lint(str(link), "--fix")
    assert str(link.readlink()) == "../train.yaml"
    assert config.read_text() == SAFELY_FIXED
    assert [path.name for path in folder.iterdir()] == ["link.yaml"]


def test_a_failed_write_leaves_the_file_as_it_was(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    result = lint(str(config), "--fix")
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    assert config.read_bytes() == CONFIG.encode()
    assert [path.name for path in config.parent.iterdir()] == ["train.yaml"]


def test_standard_input_to_standard_output() -> None:
    result = CliRunner().invoke(
        main,
        ["lint", "--isolated", "-", "--stdin-filename", "a.yaml", "--fix", "--unsafe-fixes"],
        input=CONFIG.encode(),
    )
    assert result.stdout_bytes.startswith(FIXED.encode())


def test_notebook_and_script(tmp_path: Path) -> None:
    code = (
        "from peft import LoraConfig, get_peft_model\n"
        "from transformers import AutoModelForCausalLM\n"
        'model = AutoModelForCausalLM.from_pretrained("gpt2")\n'
        "config = LoraConfig(\n    r=8, lora_alpha=16,  # twice\n"
        "    target_modules=['q_proj'],\n)\n"
        "model = get_peft_model(model, config)\n"
    )
    fixed = code.replace("['q_proj']", "['c_attn']")
    script = tmp_path / "train.py"
    script.write_text(code)
    assert lint(str(script), "--fix", "--unsafe-fixes").exit_code == 0
    assert script.read_text() == fixed
    notebook = tmp_path / "train.ipynb"
    cell = {
        "cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [],
        "source": code.splitlines(keepends=True),
    }  # fmt: skip
    text = json.dumps(
        {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )
    notebook.write_text(text)
    result = lint(str(notebook))
    assert result.exit_code == 1
    assert "cell 1" in result.output
    assert lint(str(notebook), "--fix", "--unsafe-fixes").exit_code == 0
    assert notebook.read_text() == text.replace("['q_proj']", "['c_attn']")


def test_names_that_one_layer_fuses_become_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "lora.yaml"
    path.write_text(
        "base_model_name_or_path: microsoft/Phi-3-mini-4k-instruct\nr: 16\nlora_alpha: 32\n"
        "target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]\n"
    )
    CliRunner().invoke(main, [str(path), "--isolated", "--fix", "--unsafe-fixes"])
    written = path.read_text().splitlines()[-1]
    assert written == "target_modules: [qkv_proj, o_proj, gate_up_proj, down_proj]"


def test_a_repository_with_code_of_its_own_makes_no_error(tmp_path: Path) -> None:
    path = tmp_path / "lora.yaml"
    path.write_text(
        "base_model_name_or_path: microsoft/Phi-3-mini-4k-instruct\nr: 16\nlora_alpha: 32\n"
        "target_modules: [q_proj, o_proj]\ntrust_remote_code: true\n"
    )
    result = CliRunner().invoke(main, [str(path), "--isolated"])
    assert "warning[TM102]" in result.output
    assert result.exit_code == 0
