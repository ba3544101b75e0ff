"""ms-swift: the dataclasses of its arguments, and its tables of models and their parts."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from frameworks.common import (
    NOTHING,
    Release,
    Source,
    Table,
    class_keys,
    facts,
    literal,
    merged,
    releases,
    with_history,
)
from frameworks.transformers import training_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSIONS = ("2.0.0", "2.6.1", "3.0.2", "3.5.3", "3.9.3", "3.12.3", "4.0.0", "4.6.0")
PATTERN = (
    r"swift/(llm/)?(arguments?|utils|trainers|rlhf_trainers|ray_utils|ray|megatron)/.*arg.*\.py"
)
CLASSES = (
    "SftArguments",
    "PretrainArguments",
    "PtArguments",
    "RLHFArguments",
    "TrainArguments",
    "MegatronSftArguments",
    "MegatronPretrainArguments",
    "MegatronRLHFArguments",
    "MegatronTrainArguments",
)
# What becomes of a config file before its keys are arguments: cli/main.py ``parse_yaml_args``.
FILE_KEYS: Table = {"ENV": {}}
# What a multimodal model is made of, in the words of model/model_arch.py.
PARTS = ("language_model", "aligner", "vision_tower", "lm_head")


def _keys(release: Release) -> Table:
    source = Source.of(release, PATTERN)
    return merged(class_keys(source, name) for name in CLASSES if name in source.classes)


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    return {str(word.arg): word.value for word in call.keywords}


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
            yield node


def parts(release: Release) -> dict[str, dict[str, Any]]:
    """The names of the parts of models, by architecture (model/model_arch.py).

    Where that depends on the transformers release, the branch of transformers 4.52 and newer.
    """
    tree = release.tree("swift/model/model_arch.py")
    names: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("ModelArch"):
            for item in node.body:
                value = literal(item.value) if isinstance(item, ast.Assign) else NOTHING
                if value is not NOTHING and isinstance(item, ast.Assign):
                    names[ast.unparse(item.targets[0])] = str(value)
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    made: dict[str, dict[str, Any]] = {}
    newer = [
        statement
        for node in tree.body
        for statement in (
            node.body
            if isinstance(node, ast.If) and "transformers_ge" in ast.unparse(node.test)
            else [node]
        )
    ]
    for kind in ("ModelKeys", "MultiModelKeys"):
        for call in (c for node in newer for c in _calls(node, kind)):
            given = {
                "arch_name": call.args[0] if call.args else None,
                **_arguments(call),
            }
            arch = given["arch_name"]
            found = {
                part: value
                for part in PARTS
                if part in given and (value := _names(given[part], constants)) is not NOTHING
            }
            if isinstance(arch, ast.Attribute) and all(
                part in found for part in PARTS if part in given
            ):
                made[names.get(arch.attr, arch.attr)] = found
    return made


def _names(node: ast.expr | None, constants: dict[str, ast.expr]) -> Any:
    if isinstance(node, ast.Name):
        node = constants.get(node.id)
    if isinstance(node, ast.IfExp):
        node = node.body if "transformers_ge" in ast.unparse(node.test) else None
    value = literal(node)
    return [] if node is not None and value is None else value


def models(release: Release) -> dict[str, list[Any]]:
    """For each architecture of config.json: whether ms-swift takes its models for multimodal, and
    their table of parts. Architectures for which it has several answers are left out.
    """
    described = parts(release)
    made: dict[str, list[Any]] = {}
    several = set()
    for name in release.names(r"swift/model/models/.*\.py"):
        for call in _calls(release.tree(name), "ModelMeta"):
            given = _arguments(call)
            kind = call.args[0] if call.args else given.get("model_type")
            family = ast.unparse(kind).partition(".")[0] if kind is not None else ""
            sees = family == "MLLMModelType" or literal(given.get("is_multimodal")) is True
            arch = given.get("model_arch")
            key = arch.attr if isinstance(arch, ast.Attribute) else None
            listed = literal(given.get("architectures"))
            for architecture in listed if isinstance(listed, list) else []:
                there = made.setdefault(architecture, [sees, key])
                if there[0] != sees or _parts(described, there[1]) != _parts(described, key):
                    several.add(architecture)
    return {name: entry for name, entry in made.items() if name not in several}


def _parts(described: dict[str, dict[str, Any]], arch: str | None) -> dict[str, Any]:
    """A table of parts with what an absent part means."""
    found = described.get(arch or "", {"lm_head": "lm_head"})
    listed = {k: [v] if isinstance(v, str) else v for k, v in found.items()}
    return {"lm_head": ["lm_head"]} | listed


def read(wheels: Path) -> dict[str, Any]:
    """The keys of its releases, TrainingArguments' included."""
    found = releases(wheels / "ms_swift", "ms-swift", VERSIONS)
    tables = [_keys(release) for release in found]
    newest = merged([tables[-1] | FILE_KEYS, training_arguments(wheels)])
    return facts(
        found,
        with_history(newest, tables[:-1]),
        parts=parts(found[-1]),
        models=models(found[-1]),
    )
