"""Writes the module names of every class of the installed transformers release, as JSON.

    python tools/name_patterns.py 4.57.6.json [MODEL_TYPE ...]

Run it in an environment of each release; of all model types where none are named. Names stand for
default configs, numbers are ``*``; a class that does not build has the error instead. They are read
from torch's own ``named_modules()``, so that they are a second source for the catalogue's trees:
``tests/models/older_names.json`` is made of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import meta_models  # first: it keeps transformers off the network
from catalogue_templates import MISSING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

ROPE = {"rope_type": "default", "mrope_section": [24, 20, 20]}
# What older releases need besides, to build these model types at all; it changes no names.
OLDER: dict[str, dict[str, Any]] = {
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 16, "num_hidden_layers": 32},
    "idefics3": {"text_config": {"model_type": "llama", "pad_token_id": 2}},
    "mllama": {"text_config": {"rope_scaling": {"rope_type": "default"}}},
    "qwen3_vl": {
        "text_config": {"rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]}}
    },
    "qwen3_vl_moe": {
        "text_config": {"rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]}}
    },
    "smolvlm": {"text_config": {"model_type": "llama", "pad_token_id": 2}},
}


def main() -> None:
    """Write the names."""
    found: dict[str, dict[str, list[str] | str]] = {}
    for number, (model_type, classes) in enumerate(sorted(meta_models.auto_classes().items())):
        if sys.argv[2:] and model_type not in sys.argv[2:]:
            continue
        print(f"\r{number} model types", end="", file=sys.stderr)
        for cls in classes:
            try:
                config = meta_models.config_of(model_type, {**MISSING, **OLDER}.get(model_type))
                model = meta_models.build(cls, config)
                names: list[str] | str = sorted(meta_models.patterns(model))
            except Exception as exc:  # noqa: BLE001 - whatever a class raises is listed
                names = f"{type(exc).__name__}: {exc}".splitlines()[0][:160]
            found.setdefault(model_type, {})[cls] = names
    known = sorted(CONFIG_MAPPING_NAMES)
    version = meta_models.transformers.__version__
    text = json.dumps({"transformers": version, "model_types": known, "names": found})
    Path(sys.argv[1]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
