"""Axolotl's own reading of YAML files: AxolotlInputConfig, with all its validators.

python tools/second_ways/axolotl.py FILE ...
"""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import version
from typing import Any

import yaml
from axolotl.utils.schemas.config import AxolotlInputConfig


def reading(path: str) -> dict[str, Any]:
    """What the schema makes of a file; where LoRA's modules depend on the model they are left
    out.
    """
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        written = yaml.safe_load(file)
    try:
        cfg = AxolotlInputConfig(**written)
    except Exception as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    told = {
        "base_model": cfg.base_model,
        "r": cfg.lora_r,
        "lora_alpha": cfg.lora_alpha,
        "lora_dropout": cfg.lora_dropout,
        "max_length": cfg.sequence_len,
        "per_device_train_batch_size": cfg.micro_batch_size,
    }
    if not cfg.lora_target_linear:
        told["target_modules"] = cfg.lora_target_modules
    if cfg.adapter == "qlora":
        told["quantization"] = "nf4" if cfg.load_in_4bit else "none"
    elif cfg.adapter == "lora":
        told["quantization"] = "int8" if cfg.load_in_8bit else "gptq" if cfg.gptq else "none"
    return told


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers: dict[str, Any] = {"version": f"axolotl {version('axolotl')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers, default=str))
