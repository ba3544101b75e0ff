"""What a transformers release calls otherwise than the one that the catalogue was built with.

The facts are in ``renamed.json`` (``tools/renamed_names.py``): for each older release the model
types it has, and the classes whose module names differ.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint.facts import version_key
from lora_lint.models.catalogue import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping


class Renamed(NamedTuple):
    """How the names of a model type changed after a release.

    ``gone`` and ``new`` are last parts of names (``query``, ``q_proj``), both empty where only the
    paths to them differ; ``fused_experts``: experts that were modules are parameters now.
    ``became`` says of a last part which ones the same weights have in the newer release, all of
    them (``dense`` of ViT -> ``fc1``, ``fc2``, ``o_proj``), and ``fused`` of an expert's module the
    parameter that it is a slice of (``w1`` of Mixtral -> ``experts.gate_up_proj``); what is not
    proven stands in neither.
    """

    since: str
    gone: tuple[str, ...]
    new: tuple[str, ...]
    fused_experts: bool
    became: Mapping[str, tuple[str, ...]] = {}
    fused: Mapping[str, str] = {}


@lru_cache(maxsize=1)
def _releases() -> dict[str, dict[str, Any]]:
    """Older releases, the newest first."""
    text = (MODELS / "renamed.json").read_text(encoding="utf-8")
    releases: dict[str, dict[str, Any]] = json.loads(text)["releases"]
    return releases


def always_built_in(model_type: str | None) -> bool:
    """Whether every release compared has a model type, so that any in use will have it."""
    return all(model_type in release["model_types"] for release in _releases().values())


def renamed_since_4(model_type: str | None, cls: str | None = None) -> bool:
    """Whether module names of a model type, or of one of its classes, changed between the last
    transformers 4 and the release of the catalogue, so that a name which is right for one is wrong
    for the other.
    """
    return renames(model_type, cls) is not None


def renames(
    model_type: str | None,
    cls: str | None = None,
    version: str | None = None,
    newer: str | None = None,
) -> Renamed | None:
    """How names differ between two releases of transformers, by default the last transformers 4
    and that of the catalogue; of all classes of a model type, or of one. None where they are the
    same.
    """
    for name, release in _releases().items():
        changes = [
            change
            for change in release["changed"].get(model_type, ())
            if cls is None or cls in change["classes"]
        ]
        if changes:
            return Renamed(
                name,
                tuple(sorted({part for change in changes for part in change["gone"]})),
                tuple(sorted({part for change in changes for part in change["new"]})),
                any(change.get("fused_experts", False) for change in changes),
            )
        if version is None or _line(version) >= _line(name):
            break
    return None


def not_the_same(model_type: str | None, cls: str, version: str | None) -> str | None:
    """Why the catalogue's tree does not hold for a transformers release, None if it does.

    Any release of transformers 5 counts as that of the catalogue; without a version nothing is
    known against it. Releases before the oldest one compared count as that.
    """
    if version is None or _line(version) >= (5,):
        return None
    releases = _releases()
    newest, oldest = next(iter(releases)), list(releases)[-1]
    at = next((name for name in releases if _line(version) >= _line(name)), oldest)
    if model_type not in releases[at]["model_types"]:
        if model_type in releases[newest]["model_types"]:
            return f"whether transformers {version} has {model_type} models is not known"
        return f"transformers {version} has no {model_type} models"
    if renames(model_type, cls, version) is not None:
        return f"the module names of {model_type} models differ between transformers 4 and 5"
    if cls in releases[at]["unknown"]:
        return f"which module names {cls} has in transformers {version} is not known"
    return None


def _line(version: str) -> tuple[int, ...]:
    return version_key(version)[:2]
