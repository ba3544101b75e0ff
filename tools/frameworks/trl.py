"""TRL: ModelConfig, ScriptArguments and the trainers' configs (dataclasses)."""

from __future__ import annotations

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

PATTERN = r"trl/(trainer|experimental|scripts|commands)/.*\.py"


def _keys(release: Release) -> Table:
    source = Source.of(release, PATTERN)
    return merged(class_keys(source, name) for name in source.classes)


def read(wheels: Path) -> dict[str, Any]:
    """The keys that any script of TRL takes; which one runs a file is not said in it."""
    found = releases(wheels / "trl", "trl", ("1.16.0",))
    tables = [_keys(release) for release in found]
    newest = merged([tables[-1], training_arguments(wheels)])
    return facts(found, with_history(newest, tables[:-1]))
