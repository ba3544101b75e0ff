"""AutoTrain: the keys that its config parser reads, and LLMTrainingParams (pydantic)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import Source, Table, class_keys, facts, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.7.10", "0.7.129", "0.8.8", "0.8.24", "0.8.36")
PATTERN = r"autotrain/trainers/(common|clm/params)\.py"


def read(wheels: Path) -> dict[str, Any]:
    """The keys of its releases."""
    found = releases(wheels / "autotrain", "autotrain-advanced", VERSIONS)
    tables = [class_keys(Source.of(release, PATTERN), "LLMTrainingParams") for release in found]
    params = with_history(tables[-1], tables[:-1])
    # autotrain/parser.py ``_parse_config``: what it reads of a file by name
    keys: Table = {
        "task": {"type": ["string"]},
        "base_model": {"type": ["string"]},
        "project_name": {"type": ["string"]},
        "log": {"type": ["string"]},
        "backend": {"type": ["string"]},
        "data": {},
        "hub": {},
        "params": {"type": ["object"], "keys": params},
    }
    return facts(found, keys)
