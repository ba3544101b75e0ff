"""Oumi's own reading of YAML files: TrainingConfig, its LoraConfig and its BitsAndBytesConfig.

python tools/second_ways/oumi.py FILE ...
"""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import version
from typing import Any

from oumi.core.configs import TrainingConfig


def reading(path: str) -> dict[str, Any]:
    """What Oumi loads of a file and passes to PEFT."""
    try:
        config = TrainingConfig.from_yaml_and_arg_list(path, [])
        lora = config.peft.to_lora()
        bits = config.peft.to_bits_and_bytes() if config.peft.q_lora else None
    except Exception as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    if not config.training.use_peft:
        return {"skipped": True}
    kind = "none"
    if bits is not None:
        kind = bits.bnb_4bit_quant_type if bits.load_in_4bit else "int8"
    targets = lora.target_modules
    dtype = config.model.torch_dtype
    return {
        "base_model": config.model.model_name,
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": sorted(targets) if isinstance(targets, set) else targets,
        "max_length": config.model.model_max_length,
        "per_device_train_batch_size": config.training.per_device_train_batch_size,
        "dtype": str(dtype).removeprefix("torch.") if dtype is not None else None,
        "quantization": kind,
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers: dict[str, Any] = {"version": f"oumi {version('oumi')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers))
