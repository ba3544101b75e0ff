"""unsloth: the keywords of its get_peft_model functions, and the models that it loads in a copy of
another layout.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from frameworks.common import Release, Table, facts, merged, releases, signature_keys, with_history
from lora_lint.facts import known_fields, newest_peft

if TYPE_CHECKING:
    from pathlib import Path

RELEASES = ("2024.8", "2024.12.12", "2025.6.12", "2026.1.4", "2026.10.9")
MODULES = ("llama", "vision", "sentence_transformer")
# Keywords that get_peft_model takes out of its ``**kwargs`` (models/_utils.py).
TAKEN = ("prefetch_depth", "block_swap_layers")
# Whose models unsloth publishes with the modules of Llama: Phi-3 and Phi-4 have fused projections.
REPACKED = "microsoft/phi-"


def _signatures(release: Release) -> Table:
    names = release.names(rf"unsloth/models/({'|'.join(MODULES)})\.py")
    found = [
        signature_keys(node)
        for name in names
        for node in ast.walk(release.tree(name))
        if isinstance(node, ast.FunctionDef) and node.name == "get_peft_model"
    ]
    return {key: entry for key, entry in merged(found).items() if key != "model"}


def _repacked(release: Release) -> dict[str, str]:
    """Original names of repacked models with the name of unsloth's unquantized copy."""
    found: dict[str, str] = {}
    for node in ast.walk(release.tree("unsloth/models/mapper.py")):
        if isinstance(node, ast.Tuple):
            names = [e.value for e in node.elts if isinstance(e, ast.Constant)]
            texts = [name for name in names if isinstance(name, str)]
            originals = [name for name in texts if name.lower().startswith(REPACKED)]
            own = [name for name in texts if name.lower().startswith("unsloth/phi-")]
            found |= {name.lower(): own[0] for name in originals if own}
    return found


def read(wheels: Path) -> dict[str, Any]:
    """The keywords of all releases, and LoraConfig's own, which come in through ``**kwargs``."""
    found = releases(wheels / "unsloth", "unsloth", RELEASES)
    tables = [_signatures(release) for release in found]
    through: Table = {key: {} for key in (*TAKEN, *known_fields(newest_peft()))}
    newest = through | tables[-1]
    return facts(found, with_history(newest, tables[:-1]), repacked=_repacked(found[-1]))
