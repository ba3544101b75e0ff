"""The sizes of a classifier of which only the number of labels is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lora_lint.models import catalogue, lines
from lora_lint.models.config_file import ConfigFile
from lora_lint.models.module_tree import ModuleTree
from lora_lint.models.names import find
from lora_lint.models.sizes import sized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.models.resolve import Resolution

# What transformers takes where nobody says how many (5.23.0 configuration_utils.py).
LABELS: Final = 2
_OWN: Final = ("checkpoint_dtype", "checkpoint_quantization")


def with_labels(found: Resolution, transformers: str) -> ModuleTree | None:
    """The tree of a classifier with ``LABELS`` labels, as a release of transformers builds it; None
    where that is not what hinders its sizes from being known.

    Its head is as small as the number of labels, so it serves where a head's size does not matter:
    for memory, not for counts.
    """
    tree = found.tree
    known = catalogue.architecture(tree.model_type or "")
    if tree.sized or known is None or "Classification" not in tree.cls:
        return None
    near, values = _values(found)
    if values is None:
        return None
    labels = {str(number): f"LABEL_{number}" for number in range(LABELS)}
    config = ConfigFile({**values, "architectures": [tree.cls], "id2label": labels})
    scaled = sized(known, tree.cls, config)
    if not isinstance(scaled, ModuleTree):
        return None
    at = lines.at(scaled, None, transformers)
    if not isinstance(at, ModuleTree) or not at.sized:
        return None
    facts = {**at.facts, **{name: near.facts[name] for name in _OWN if name in near.facts}}
    facts["config"] = {**near.facts.get("config", {}), **at.facts.get("config", {})}
    return replace(at, dtype=near.dtype, facts=facts)


def _values(found: Resolution) -> tuple[ModuleTree, Mapping[str, Any] | None]:
    """The config values that decide sizes, and a tree that has the model's own facts."""
    if found.config is not None:
        return found.tree, found.config.values
    named = find(found.known_as or found.id)
    entry = named.entry if named is not None else None
    shapes = catalogue.dimensions(entry.cls).get(entry.tree) if entry is not None else None
    if entry is None or shapes is None:
        return found.tree, None
    values: dict[str, Any] = {"model_type": found.tree.model_type}
    for path, value in shapes["values"].items():
        part = values
        *parents, last = path.split(".")
        for name in parents:
            part = part.setdefault(name, {})
        part[last] = value
    return entry.load(), values
