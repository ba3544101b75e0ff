"""NeMo AutoModel: PeftConfig (a dataclass), and the models it builds with code of its own."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from frameworks.common import Release, Source, Table, class_keys, facts, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.1.0", "0.1.2", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0")
# Sections that are passed on to classes of their own, whose keys are not looked at.
SECTIONS = ("model", "dataset", "step_scheduler", "distributed", "optimizer", "quantization")
PEFT = r"nemo_automodel/components/_peft/.*\.py"
REGISTRY = "nemo_automodel/_transformers/registry.py"


def _keys(release: Release) -> Table:
    table = class_keys(Source.of(release, PEFT), "PeftConfig")
    # numbers are read out of texts by any loader; what a dtype is called is torch's affair
    return {"_target_": {"type": ["string"]}, **table, "lora_dtype": {}}


def _architectures(release: Release) -> list[str]:
    """The architectures of which the release has an implementation of its own."""
    for node in ast.walk(release.tree(REGISTRY)):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if [t.id for t in targets if isinstance(t, ast.Name)] == ["MODEL_ARCH_MAPPING"]:
            pairs = [n for n in ast.walk(node.value) if isinstance(n, ast.Tuple)]
            return sorted(
                str(pair.elts[0].value)
                for pair in pairs
                if isinstance(pair.elts[0], ast.Constant) and isinstance(pair.elts[1], ast.Tuple)
            )
    raise ValueError(f"{release.version}: no MODEL_ARCH_MAPPING")


def read(wheels: Path) -> dict[str, Any]:
    """The keys of the section ``peft``, and the newest release's own architectures."""
    found = releases(wheels / "nemo_automodel", "nemo-automodel", VERSIONS)
    tables = [_keys(release) for release in found]
    keys: Table = {name: {"type": ["object"]} for name in SECTIONS}
    keys["peft"] = {"type": ["object"], "keys": with_history(tables[-1], tables[:-1])}
    return facts(found, keys, open=True, architectures=_architectures(found[-1]))
