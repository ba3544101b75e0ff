"""Axolotl's schema: AxolotlInputConfig in axolotl/utils/schemas (pydantic)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import Source, class_keys, facts, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.17.0", "0.18.0", "0.19.0")


def read(wheels: Path) -> dict[str, Any]:
    """The keys of the releases that have the schema in a wheel."""
    found = releases(wheels / "axolotl", "axolotl", VERSIONS)
    tables = [
        class_keys(Source.of(r, r"axolotl/utils/schemas/.*\.py"), "AxolotlInputConfig")
        for r in found
    ]
    keys = with_history(tables[-1], tables[:-1])
    section = keys["fsdp_config"]["keys"]
    # schemas/validation.py check_fsdp_config_kwargs_prefix, check_fsdp_version_in_fsdp_config
    section |= {f"fsdp_{key}": {"alias": key, **entry} for key, entry in section.items()}
    section["version"] = {"alias": "fsdp_version"}
    return facts(found, keys)
