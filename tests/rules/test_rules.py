"""Every rule file has its form, its check, and examples that do what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lora_lint.checks import CHECKS
from lora_lint.cli import main
from lora_lint.engine import Linter
from lora_lint.rulebook import rules
from tests.gate.repository import commit
from tests.rules.examples import RULES, SECTIONS, Example, examples, front_matter, sections
from tools.rules_index import INDEX, compile_index

FILES = sorted(RULES.glob("*.md"))
EXAMPLES = [example for path in FILES for example in examples(path)]


def test_every_rule_has_a_check_and_every_check_a_rule() -> None:
    assert Linter  # the engine brings the checks of comments
    assert set(CHECKS) == {path.name.split("-")[0] for path in FILES} == set(rules())


def test_the_index_is_fresh() -> None:
    assert INDEX.read_text(encoding="utf-8") == compile_index()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_form(path: Path) -> None:
    meta = front_matter(path)
    assert path.name == f"{meta['code']}-{meta['name']}.md"
    assert tuple(sections(path)) == SECTIONS
    assert meta["severity"] in ("error", "warning", "info")
    assert meta["fix"] in ("safe", "unsafe", "none")
    known = {
        "config",
        "lora-off",
        "peft",
        "memory",
        "model",
        "injection",
        "versions",
        "gpu",
        "earlier",
    }
    assert set(meta["needs"]) <= known
    assert set(meta.get("supersedes", ())) <= set(rules())
    kinds = [example.kind for example in examples(path)]
    assert "bad" in kinds
    assert "good" in kinds
    silent = sections(path)["When it stays silent"]
    clauses = re.findall(r"^### (.+)$", silent, flags=re.MULTILINE)
    covered = {example.clause for example in examples(path) if example.kind == "silent"}
    assert set(clauses) == covered, "each clause of silence is an example"


def run(example: Example, folder: Path) -> list[dict[str, Any]]:
    """Lint an example as a user would, in a folder of its own."""
    path = folder / example.title
    path.parent.mkdir(parents=True, exist_ok=True)
    if example.before:
        commit(folder, dict(example.before))
    path.write_text(example.text, encoding="utf-8")
    for name, text in example.beside:
        other = folder / name
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text(text, encoding="utf-8")
    arguments = ["lint", str(path), "--isolated", "--output-format", "json", *example.options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    diagnostics: list[dict[str, Any]] = json.loads(result.stdout)["diagnostics"]
    return diagnostics


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_example(example: Example, tmp_path: Path) -> None:
    """The bad example raises its rule alone, the others nothing; infos in `also` excepted."""
    path = next(path for path in FILES if path.name.startswith(example.code + "-"))
    also = set(front_matter(path).get("also", ()))
    diagnostics = run(example, tmp_path)
    raised = {d["code"] for d in diagnostics} - also
    assert raised == ({example.code} if example.kind == "bad" else set()), diagnostics


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.kind == "bad"], ids=lambda e: e.code)
def test_the_fix_is_what_the_rule_promises(example: Example, tmp_path: Path) -> None:
    """A rule that promises a fix gives a verified one on its own example; none promises less."""
    diagnostics = [d for d in run(example, tmp_path) if d["code"] == example.code]
    offered = {f["applicability"] for d in diagnostics for f in d["fixes"]} - {"display"}
    promised = rules()[example.code].fix
    assert offered == ({promised} if promised != "none" else set())
