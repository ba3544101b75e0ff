"""Unsloth Studio's command line: Config in unsloth_cli/config.py (pydantic)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import (
    Release,
    Source,
    Table,
    class_keys,
    facts,
    releases,
    with_history,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = r"unsloth_cli/config\.py"


def _keys(release: Release) -> Table:
    keys = class_keys(Source.of(release, CONFIG), "Config")
    training, data = keys["training"]["keys"], keys["data"]["keys"]
    training["gradient_checkpointing"] = {}  # a validator takes booleans and more spellings
    for entry in (training["training_type"], data["format_type"]):
        entry.pop("choices", None)  # which may be written in any case
    return keys


def read(wheels: Path) -> dict[str, Any]:
    """The keys of ``unsloth train --config`` of the releases that have it."""
    found = releases(wheels / "unsloth", "unsloth", ("2026.10.9",))
    found = [release for release in found if release.names(CONFIG)]
    tables = [_keys(release) for release in found]
    return facts(found, with_history(tables[-1], tables[:-1]))
