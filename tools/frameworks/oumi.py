"""Oumi: TrainingConfig and the parameter classes in oumi/core/configs (dataclasses)."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from frameworks.common import Source, class_keys, facts, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = (
    "0.1.3",
    "0.1.8",
    "0.1.14",
    "0.2.1",
    "0.3.0",
    "0.4.2",
    "0.5.0",
    "0.6.0",
    "0.7",
    "0.8",
    "0.9",
)
PATTERN = r"oumi/core/configs/(training_config|params/(?!judge|synthesis|rubric).*)\.py"


class Named(Source):
    """Sources whose enums stand for their members' names as well, as OmegaConf takes them."""

    __slots__ = ()

    def members(self, name: str) -> list[Any]:
        """The names of an enum's members, then their values."""
        names = [
            item.targets[0].id
            for item in self.classes[name].body
            if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)
        ]
        return list(dict.fromkeys([*names, *super().members(name)]))


def read(wheels: Path) -> dict[str, Any]:
    """The keys of its releases."""
    found = releases(wheels / "oumi", "oumi", VERSIONS)
    tables = [class_keys(Named.of(r, PATTERN), "TrainingConfig") for r in found]
    return facts(found, with_history(tables[-1], tables[:-1]))
