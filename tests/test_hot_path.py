"""A plain run imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "jsonschema",
    "numpy",
    "tomllib",
    "asyncio",
    "multiprocessing",
    "tree_sitter",
    "lora_lint.documents.shell",
    "yaml",
)
CONFIG = """\
base_model: NousResearch/Llama-3.2-1B
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
"""
CODE = """
import sys
from lora_lint.cli import main
sys.argv = ["lora-lint", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print("LOADED", *sorted(sys.modules))
"""


def loaded(path: Path, *options: str) -> set[str]:
    command = [sys.executable, "-c", CODE, str(path), *(options or ("--isolated",))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in result.stdout.splitlines() if line.startswith("LOADED"))
    return {name.partition(".")[0] for name in line.split()[1:]}


def test_a_plain_run_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    modules = loaded(path)
    assert "lora_lint" in modules
    assert not modules & set(HEAVY) - {"yaml"}


def test_a_model_that_is_not_known_asks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("NousResearch/Llama-3.2-1B", "acme/unknown"))
    heavy = {"torch", "transformers", "http", "ssl", "socket", "hashlib", "subprocess", "tempfile"}
    assert not loaded(path) & heavy


def test_json_needs_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text('{"peft_type": "LORA", "base_model_name_or_path": "gpt2", "r": 8}')
    assert "yaml" not in loaded(path)


def test_a_lock_file_is_read_without_the_requirement_parser(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    lock = '[[package]]\nname = "{}"\nversion = "{}"\n'
    pins = (("peft", "0.21.2"), ("transformers", "5.23.0"))
    (tmp_path / "uv.lock").write_text("\n".join(lock.format(*pin) for pin in pins))
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    modules = loaded(path, "--quiet")
    assert not modules & {*HEAVY, "packaging"} - {"yaml", "tomllib"}


def test_inspect_imports_nothing_heavy() -> None:
    assert not loaded(Path("inspect"), "gpt2") & set(HEAVY)
