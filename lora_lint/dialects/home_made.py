"""YAML and JSON files of people's own programs, by their usual key names.

A section named for LoRA whose keys are a rank, an alpha, targets (``lora: {rank: 8, alpha: 16}``),
or keys that name LoRA themselves anywhere (``lora_r`` beside ``lora_alpha``). Sections whose keys
are LoraConfig's own are the dialect ``peft``'s, files of known frameworks those frameworks'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.dialects.base import Dialect, without_template
from lora_lint.dialects.peft import surroundings
from lora_lint.dialects.usual import (
    lora_fields,
    lower,
    other_adapter,
    speaks_of_lora,
    switched_off,
)
from lora_lint.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.recipe import Field

SECTIONS: Final = frozenset(
    {
        "adapter",
        "adapter_config",
        "lora",
        "lora_args",
        "lora_cfg",
        "lora_config",
        "lora_parameters",
        "lora_params",
        "lora_settings",
        "loraconfig",
        "peft",
        "peft_args",
        "peft_config",
        "qlora",
        "qlora_config",
    }
)
# Keys by which the files of known frameworks and programs are told, of which not all are read.
_FOREIGN: Final = frozenset(
    {
        "_component_",
        "_target_",
        "actor_rollout_ref",
        "finetuning_type",
        "network_module",
        "rlhf_type",
        "sft_type",
        "train_type",
        "tuner_type",
    }
)
# How deep a section may stand (`train: {model: {lora: ...}}`), and how much is looked at.
_DEPTH: Final = 3
_MAPPINGS: Final = 500


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The mappings that are surely a LoRA adapter's settings."""
    if document.format not in ("yaml", "json"):
        return
    for part, root in enumerate(document.parts):
        if root.node.kind != "mapping" or _is_foreign(root.node):
            continue
        for path, node in _mappings(root.node):
            if not _is_foreign(node) and speaks_of_lora(_fields(node, path)):
                yield part, path


def _is_foreign(node: Node) -> bool:
    """Whether a mapping is a known framework's, or another adapter's. What Hydra makes a class of
    somebody's named LoraConfig of is theirs.
    """
    target = node.get("_target_")
    own = target is not None and str(target.value).lower().endswith("loraconfig")
    if any(entry.key in _FOREIGN for entry in node.entries) and not own:
        return True
    return other_adapter(node)


def _mappings(root: Node) -> Iterator[tuple[KeyPath, Node]]:
    """The mappings of a file down to some depth, the outer ones first."""
    level: list[tuple[KeyPath, Node]] = [((), root)]
    left = _MAPPINGS
    for _ in range(_DEPTH + 1):
        below: list[tuple[KeyPath, Node]] = []
        for path, node in level[:left]:
            yield path, node
            for key in node.keys():
                inner = node.get(key)
                if inner is not None and inner.kind == "mapping":
                    below.append(((*path, key), inner))
        left -= len(level)
        level = below
        if left <= 0:
            return


def _fields(node: Node, path: KeyPath) -> dict[str, Field]:
    short = "_target_" in node.keys() or (bool(path) and str(path[-1]).lower() in SECTIONS)
    return lora_fields(node, path, short=short, codecs={})


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of such a mapping, and of what stands beside and above it."""
    root = document.parts[part].node
    node = root.at(path)
    assert node is not None  # noqa: S101 - find() gave the path
    off = switched_off(node)
    holder = root.at(path[:-1]) if path else None
    if holder is not None and not off:
        off = switched_off(holder)
    fields = {**surroundings(root, path), **_fields(node, path)}
    fields = {name: without_template(field) for name, field in fields.items()}
    return Recipe(dialect="home_made", part=part, path=path, fields=fields, adapter=not off)


DIALECT: Final = Dialect(
    name="home_made",
    title="home-made",
    find=find,
    read=read,
    lower=lower,
    slots={},
    certain=False,
)
