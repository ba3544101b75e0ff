"""torchtune: the arguments of its LoRA model builders, and the keys that its LoRA recipes read.

A config's ``model`` is a builder's name with its arguments, which is called as it stands
(config/_instantiate.py). Everything else is read by recipes with ``cfg.key`` and ``cfg.get``, and
users copy recipes, so that other keys are no mistake there.
"""

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
    merged,
    releases,
    signature_keys,
    with_history,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSIONS = (
    *("0.1.0", "0.1.1", "0.2.0", "0.2.1", "0.3.0", "0.3.1"),
    *("0.4.0", "0.5.0", "0.6.0", "0.6.1"),
)
BUILDERS = r"torchtune/models/(\w+/)?_(model|component)_builders\.py"


def builders(release: Release) -> dict[str, Table]:
    """The arguments of every function that builds a model with LoRA, by its name.

    ``lora_x`` is a function, ``qlora_x`` a ``functools.partial`` of it.
    """
    source = Source.of(release, r"torchtune/modules/peft/.*\.py")
    found: dict[str, Table] = {}
    partials: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in release.names(BUILDERS):
        tree = release.tree(name)
        for key, function in functions(tree).items():
            if key.startswith("lora_") and "lora_attn_modules" in signature_keys(function):
                found[key] = signature_keys(function, source)
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                partials |= _partial(node.targets[0], node.value)
    for key, (base, given) in partials.items():
        if base in found:
            table = found[base]
            found[key] = {k: e | _default(given, k) for k, e in table.items()}
    for name in release.names(BUILDERS):
        found |= {key: found[other] for key, other in _same(release.tree(name)) if other in found}
    return found


def _same(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """``lora_x = lora_y``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            yield from ((t.id, node.value.id) for t in node.targets if isinstance(t, ast.Name))


def _partial(target: ast.expr, call: ast.Call) -> dict[str, tuple[str, dict[str, Any]]]:
    if not isinstance(target, ast.Name) or getattr(call.func, "id", "") != "partial":
        return {}
    given = {str(word.arg): literal(word.value) for word in call.keywords}
    return {target.id: (getattr(call.args[0], "id", ""), given)}


def _default(given: dict[str, Any], key: str) -> dict[str, Any]:
    return {"default": given[key]} if key in given else {}


def recipe_keys(release: Release) -> Table:
    """The top-level keys that LoRA recipes read: ``cfg.key``, ``cfg.get("key", default)``."""
    tables = [
        dict(_read_keys(release.tree(name)))
        for name in release.names(r"recipes/\w*(lora|distillation)\w*\.py")
    ]
    return merged(tables)


def _read_keys(tree: ast.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _of_config(node.func) == "get" and node.args:
            name = literal(node.args[0])
            default = literal(node.args[1]) if len(node.args) > 1 else None
            if isinstance(name, str):
                yield name, {} if default is NOTHING else {"default": default}
        elif (name := _of_config(node)) not in (None, "get", "pop"):
            yield str(name), {}


def _of_config(node: ast.AST) -> str | None:
    """The ``key`` of ``cfg.key``."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "cfg" else None
    return None


def read(wheels: Path) -> dict[str, Any]:
    """The builders' arguments, by builder and all together, and the recipes' keys."""
    found = releases(wheels / "torchtune", "torchtune", VERSIONS)
    by_release = [builders(release) for release in found]
    tables: dict[str, Table] = {}
    for name in {name for made in by_release for name in made}:
        history = [made[name] for made in by_release if name in made]
        tables[name] = with_history(history[-1], history[:-1])
    top = with_history(recipe_keys(found[-1]), [recipe_keys(r) for r in found[:-1]])
    model = merged(tables.values())
    model["_component_"] = {"type": ["string"]}
    keys = {**top, "model": {"type": ["object"], "keys": model}}
    return facts(found, keys, builders={name: {"keys": t} for name, t in tables.items()}, open=True)
