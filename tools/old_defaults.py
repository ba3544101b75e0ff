"""Defaults of config fields in releases before the newest, read from their source.

Needs the configuration files of those releases unpacked, as ``DIR/4.57.6/transformers/...``; the
folder is ``OLD_TRANSFORMERS`` in the environment. They are parsed, never imported.
"""

from __future__ import annotations

import ast
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

UNKNOWN = object()
# What PreTrainedConfig gives a class that does not say it: transformers 4.46 to 5.23
# configuration_utils.py.
COMMON = {"tie_word_embeddings": True, "add_cross_attention": False, "is_decoder": False}


def differing_defaults(model_type: str, path: str, value: Any) -> list[str]:
    """The releases in which a field's default is another, where it can be read.

    ``value`` is what the newest release takes; None where that is computed from other fields. Only
    a plain number, text or truth value in an older release that is another counts.
    """
    folder = os.environ.get("OLD_TRANSFORMERS")
    if not folder:
        return []
    differing = []
    for release in sorted(Path(folder).iterdir()):
        known = _defaults(release, model_type)
        if known is None:
            continue
        prefix, _, name = path.rpartition(".")
        if prefix:  # a part has a class of its own, which shares the file
            values = [v for table in known.values() for n, v in table.items() if n == name]
        else:
            values = [
                table[name]
                for table in known.values()
                if table.get("model_type") == model_type and name in table
            ]
            if not values and name in COMMON and release.name < "5":
                values = [COMMON[name]]
        computed = value is None
        for old in values:
            if old is UNKNOWN or old is None or isinstance(old, list | dict | tuple):
                continue
            if computed or (old != value and not prefix):
                differing.append(release.name)
        if prefix and values and value not in values and UNKNOWN not in values and not computed:
            differing.append(release.name)
    return differing


@lru_cache(maxsize=64)
def _defaults(release: Path, model_type: str) -> dict[str, dict[str, Any]] | None:
    """Class -> field -> default, of the file in which a model type's config is."""
    for path in _files(release).get(model_type, ()):
        return _classes(path)
    return None


@lru_cache(maxsize=8)
def _files(release: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in release.glob("transformers/models/*/configuration_*.py"):
        for table in _classes(path).values():
            if isinstance(table.get("model_type"), str):
                found.setdefault(table["model_type"], []).append(path)
    return found


@lru_cache(maxsize=4096)
def _classes(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        table: dict[str, Any] = {}
        for item in node.body:
            if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                table[item.targets[0].id] = _literal(item.value)
            elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                table[item.target.id] = _literal(item.value)
            elif isinstance(item, ast.FunctionDef) and item.name == "__init__":
                names = [a.arg for a in item.args.args]
                values = item.args.defaults
                table |= {
                    n: _literal(v)
                    for n, v in zip(names[len(names) - len(values) :], values, strict=True)
                }
        found[node.name] = table
    return found


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else UNKNOWN
    except ValueError:
        return UNKNOWN
