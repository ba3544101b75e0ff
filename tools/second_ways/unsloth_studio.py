"""Unsloth Studio's own reading of YAML and JSON files: ``load_config`` of its command line.

python tools/second_ways/unsloth_studio.py FILE ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from unsloth_cli.config import ConfigError, load_config


def reading(path: str) -> dict[str, Any]:
    """What the command line makes of a file, for a model of text."""
    try:
        config = load_config(Path(path))
    except ConfigError as exc:
        return {"error": str(exc)}
    if config.training.training_type != "lora":
        return {"skipped": "no LoRA"}
    told = config.model_kwargs(use_lora=True, is_vision=False)
    return {
        "base_model": config.model,
        "r": told["lora_r"],
        "lora_alpha": told["lora_alpha"],
        "lora_dropout": told["lora_dropout"],
        "target_modules": told["target_modules"],
        "max_length": config.training.max_seq_length,
        "per_device_train_batch_size": config.training.batch_size,
        "quantization": "nf4" if config.training.load_in_4bit else "none",
    }


if __name__ == "__main__":
    answers: dict[str, Any] = {"version": "unsloth_cli"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers))
