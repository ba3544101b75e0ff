"""LLaMA-Factory's new engine (``USE_V1``): the dataclasses in llamafactory/v1/config, and its
plugin for LoRA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import Source, Table, class_keys, facts, merged, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

    from frameworks.common import Release

# The releases that have it.
VERSIONS = ("0.9.4", "0.9.5")
_ARGUMENTS = ("ModelArguments", "DataArguments", "TrainingArguments", "SampleArguments")


def _keys(release: Release) -> Table:
    source = Source.of(release, r"llamafactory/v1/(config|utils)/.*\.py")
    table = merged(class_keys(source, name) for name in _ARGUMENTS)
    plugin = Source.of(release, r"llamafactory/v1/plugins/model_plugins/peft\.py")
    lora = class_keys(plugin, "LoraConfigDict") | {"name": {"type": ["string"]}}
    table["peft_config"] = {"type": ["object", "string", "null"], "keys": lora}
    return table


def read(wheels: Path) -> dict[str, Any]:
    """The keys of its config files."""
    known = releases(wheels / "llama_factory", "llamafactory", VERSIONS)
    found = [release for release in known if release.version in VERSIONS]
    tables = [_keys(release) for release in found]
    return facts(found, with_history(tables[-1], tables[:-1]))
