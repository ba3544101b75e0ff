"""Writes ``lora_lint/data/transformers.json``: what the installed transformers release builds.

    python tools/transformers_facts.py

``expert_kinds``: the model types whose expert targets PEFT rewrites on transformers 5, as PEFT sees
them (peft utils/transformers_weight_conversion.py copies transformers' table and adds mixtral
itself).
``model_types``: those that need no remote code.
"""

from __future__ import annotations

import json
from pathlib import Path

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "transformers.json"


def expert_kinds() -> dict[str, str]:
    """Model type -> the naming scheme of its experts."""
    from peft.utils.transformers_weight_conversion import (
        _MODEL_TO_CONVERSION_PATTERN,
        _MOE_TARGET_MODULE_MAPPING,
    )
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    return {
        model_type: kind
        for model_type, kind in sorted(_MODEL_TO_CONVERSION_PATTERN.items())
        if kind in _MOE_TARGET_MODULE_MAPPING
        and get_checkpoint_conversion_mapping(model_type) is not None
    }


def main() -> None:
    """Write the file."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    facts = {
        "generated_by": "python tools/transformers_facts.py",
        "version": transformers.__version__,
        "expert_kinds": expert_kinds(),
        "model_types": sorted(CONFIG_MAPPING_NAMES),
    }
    DATA.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
