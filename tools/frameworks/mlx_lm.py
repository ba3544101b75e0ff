"""mlx-lm: the options and defaults of ``mlx_lm.lora``, the keys that its code reads out of them,
and the names of the linear layers in its models.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from frameworks.common import (
    NOTHING,
    Release,
    Table,
    argument_keys,
    facts,
    functions,
    literal,
    releases,
    with_history,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSIONS = (
    *("0.12.1", "0.14.3", "0.19.3", "0.21.5", "0.24.1", "0.28.4", "0.31.3"),
    *("0.32.0", "0.32.2"),
)
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
# Objects whose attributes are the settings, as the modules that read them call them.
SETTINGS = ("args", "config")


def _keys(release: Release) -> Table:
    """Options with their types; settings that have no option; the keys of nested mappings."""
    script = release.tree("mlx_lm/lora.py")
    table = argument_keys(script)
    for key in _attributes(script):
        table.setdefault(key, {})
    for name in release.names(r"mlx_lm/tuner/datasets\.py"):
        for key in _attributes(release.tree(name)):
            table.setdefault(key, {})
    for key, default in _defaults(script).items():
        entry = table.setdefault(key, {})
        kind = KINDS.get(type(default))
        if "type" not in entry and kind is not None:
            entry["type"] = [kind]
        entry["default"] = default
    for entry in table.values():
        if "type" in entry and entry.get("default") is not None:
            entry["type"] = [*(t for t in entry["type"] if t != "null"), "null"]
    utils = functions(release.tree("mlx_lm/tuner/utils.py"))
    table["lora_parameters"]["keys"] = _subscripts(utils["linear_to_lora_layers"], "config")
    schedule = _subscripts(utils["build_schedule"], "schedule_config")
    table.setdefault("lr_schedule", {})["keys"] = schedule
    return table


def _defaults(script: ast.Module) -> dict[str, Any]:
    for node in script.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CONFIG_DEFAULTS":
            found: dict[str, Any] = literal(node.value)
            return found
    return {}


def _attributes(tree: ast.Module) -> Iterator[str]:
    """``args.key`` and ``getattr(args, "key", ...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in SETTINGS:
            if node.attr not in dir(dict):
                yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            name = literal(node.args[1])
            if getattr(node.args[0], "id", "") in SETTINGS and isinstance(name, str):
                yield name


def _subscripts(function: ast.FunctionDef, variable: str) -> Table:
    """``variable["key"]`` and ``variable.get("key")``."""
    found: Table = {}
    for node in ast.walk(function):
        key: Any = NOTHING
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == variable:
            key = literal(node.slice)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == f"{variable}.get":
            key = literal(node.args[0])
        if isinstance(key, str):
            found[key] = {}
    return found


def linear_names(release: Release) -> dict[str, list[str]]:
    """The attributes that are ``nn.Linear``, by model type, for models that stand in one file and
    have no other layers that take LoRA.
    """
    found = {}
    for name in release.names(r"mlx_lm/models/\w+\.py"):
        source = release.wheel.read(name).decode()
        parts = re.findall(r"^from \.(\w+) import", source, re.MULTILINE)
        imported = [release.wheel.read(f"mlx_lm/models/{part}.py").decode() for part in parts]
        if "Switch" in source or any("nn.Linear" in other for other in imported):
            continue
        tree = release.tree(name)
        names = {
            target.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            if isinstance(node.value.func, ast.Attribute) and node.value.func.attr == "Linear"
            for target in node.targets
            if isinstance(target, ast.Attribute)
        }
        count = sum(
            isinstance(node, ast.Attribute) and node.attr == "Linear" for node in ast.walk(tree)
        )
        if names and count >= len(names) and "to_lora" not in source:
            found[name.rpartition("/")[2].removesuffix(".py")] = sorted(names)
    for node in release.tree("mlx_lm/utils.py").body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MODEL_REMAPPING":
            remapped: dict[str, str] = literal(node.value)
            found |= {new: found[old] for new, old in remapped.items() if old in found}
    return found


def read(wheels: Path) -> dict[str, Any]:
    """The keys of its releases, and the newest one's models."""
    found = releases(wheels / "mlx_lm", "mlx-lm", VERSIONS)
    tables = [_keys(release) for release in found]
    keys = with_history(tables[-1], tables[:-1])
    return facts(found, keys, linear_names=linear_names(found[-1]), open=True)
