"""LitGPT: the arguments of ``litgpt finetune_lora`` and of the dataclasses among them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from frameworks.common import (
    NOTHING,
    Release,
    Source,
    Table,
    facts,
    functions,
    literal,
    releases,
    signature_keys,
    with_history,
)

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.2.0", "0.3.1", "0.4.0", "0.4.13", "0.5.0", "0.5.7", "0.5.12", "0.5.13")
# Arguments that name a class of any package with its own arguments.
OPEN = ("data", "optimizer")


def _keys(release: Release) -> Table:
    source = Source.of(release, r"litgpt/(args|types)\.py")
    setup = functions(release.tree("litgpt/finetune/lora.py"))["setup"]
    table = signature_keys(setup, source)
    for name, default in _defaults(setup).items():
        for key, value in default.items():
            if key in table.get(name, {}).get("keys", {}):
                table[name]["keys"][key]["default"] = value
    for name in OPEN:
        table.pop(name, None)
        table[name] = {}
    return _with_null(table)


def _defaults(setup: ast.FunctionDef) -> dict[str, dict[str, Any]]:
    """``train: TrainArgs = TrainArgs(epochs=5)``: defaults other than the dataclass's own."""
    given = setup.args
    named = given.args[len(given.args) - len(given.defaults) :]
    found: dict[str, dict[str, Any]] = {}
    for argument, default in zip(named, given.defaults, strict=True):
        if isinstance(default, ast.Call):
            words = {str(word.arg): literal(word.value) for word in default.keywords}
            found[argument.arg] = {k: v for k, v in words.items() if v is not NOTHING}
    return found


def _with_null(table: Table) -> Table:
    """jsonargparse takes an empty value for any type (jsonargparse 4.x, run)."""
    for entry in table.values():
        if "type" in entry:
            entry["type"] = [*(kind for kind in entry["type"] if kind != "null"), "null"]
        if "keys" in entry:
            _with_null(entry["keys"])
    return table


def read(wheels: Path) -> dict[str, Any]:
    """The keys of its releases."""
    found = releases(wheels / "litgpt", "litgpt", VERSIONS)
    tables = [_keys(release) for release in found]
    return facts(found, with_history(tables[-1], tables[:-1]))
