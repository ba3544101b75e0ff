"""LLaMA-Factory: the dataclasses in llamafactory/hparams, and its table of models that see."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from frameworks.common import (
    Release,
    Source,
    Table,
    class_keys,
    facts,
    merged,
    releases,
    with_history,
)
from frameworks.transformers import training_arguments

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.7.1", "0.8.3", "0.9.0", "0.9.1", "0.9.2", "0.9.3", "0.9.4", "0.9.5")


def _keys(release: Release) -> Table:
    source = Source.of(release, r"llamafactory/hparams/.*\.py")
    return merged(class_keys(source, name) for name in source.classes)


def composite_models(release: Release) -> dict[str, dict[str, list[str]]]:
    """LLaMA-Factory's table of models that see: which of their modules are which."""
    tree = release.tree("llamafactory/model/model_utils/visual.py")
    register = next(
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "_register_composite_model"
    )
    made = next(node for node in ast.walk(register) if isinstance(node, ast.Call))
    defaults: dict[str, list[str]] = {}
    for word in made.keywords:
        if isinstance(word.value, ast.BoolOp):
            defaults[str(word.arg)] = ast.literal_eval(word.value.values[-1])
    models = {}
    for node in tree.body:
        call = node.value if isinstance(node, ast.Expr) else None
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != register.name:
            continue
        given: dict[str, Any] = {str(w.arg): ast.literal_eval(w.value) for w in call.keywords}
        models[str(given.pop("model_type"))] = defaults | given
    return models


def read(wheels: Path) -> dict[str, Any]:
    """The keys of all its releases, TrainingArguments' included."""
    found = releases(wheels / "llama_factory", "llamafactory", VERSIONS)
    tables = [_keys(release) for release in found]
    newest = merged([tables[-1], training_arguments(wheels)])
    return facts(
        found,
        with_history(newest, tables[:-1]),
        composite_models=composite_models(found[-1]),
    )
