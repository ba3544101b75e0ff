"""AutoTrain's own reading of YAML files: its config parser and LLMTrainingParams.

python tools/second_ways/autotrain.py FILE ...
"""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import version
from typing import Any

from autotrain.parser import AutoTrainConfigParser
from autotrain.trainers.clm import utils
from autotrain.trainers.clm.params import LLMTrainingParams


class Tokenizer:
    """A tokenizer that takes any length."""

    model_max_length = 10**9


def reading(path: str) -> dict[str, Any]:
    """What AutoTrain's parameters hold after it has parsed a file."""
    try:
        params = LLMTrainingParams(**AutoTrainConfigParser(path).parsed_config)
    except Exception as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    if not params.peft:
        return {"skipped": True}
    kinds = {"int4": "nf4", "int8": "int8"}
    return {
        "base_model": params.model,
        "r": params.lora_r,
        "lora_alpha": params.lora_alpha,
        "lora_dropout": params.lora_dropout,
        "target_modules": utils.get_target_modules(params),
        "max_length": utils.configure_block_size(params, Tokenizer()).block_size,
        "per_device_train_batch_size": params.batch_size,
        "quantization": kinds.get(params.quantization, "none"),
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers: dict[str, Any] = {"version": f"autotrain-advanced {version('autotrain-advanced')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers))
