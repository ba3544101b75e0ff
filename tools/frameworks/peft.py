"""PEFT's LoraConfig (dataclasses): what its YAML and JSON spelling may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import Source, Table, class_keys, facts, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

    from frameworks.common import Release

VERSIONS = ("0.4.0", "0.7.1", "0.10.0", "0.14.0", "0.17.1", "0.18.1", "0.21.2")


def _keys(release: Release) -> Table:
    pattern = r"peft/(config|utils/(config|peft_types)|tuners/lora(/config)?)\.py"
    return class_keys(Source.of(release, pattern), "LoraConfig")


def read(wheels: Path) -> dict[str, Any]:
    """LoraConfig's fields, of releases in which some changed."""
    found = releases(wheels / "peft", "peft", VERSIONS)
    tables = [_keys(release) for release in found]
    keys = with_history(tables[-1], tables[:-1])
    del keys["init_lora_weights"]["choices"]  # pissa_niter_16 is none of the listed
    keys["lora_alpha"]["type"] = ["number"]  # declared as an integer, used as any number
    return facts(found, keys)
