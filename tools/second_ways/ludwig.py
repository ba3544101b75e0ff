"""Ludwig's own reading of YAML files: its schemas for adapters, quantization and trainers.

python tools/second_ways/ludwig.py FILE ...
"""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml
from ludwig.schema.llms.base_model import MODEL_PRESETS
from ludwig.schema.llms.peft import adapter_registry
from ludwig.schema.llms.quantization import QuantizationConfig


def reading(path: str) -> dict[str, Any]:
    """What the schemas make of a file; the base model is not fetched."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        written = yaml.safe_load(file)
    adapter = written.get("adapter")
    adapter = {"type": adapter} if isinstance(adapter, str) else adapter
    if not adapter or adapter["type"] != "lora":
        return {"skipped": f"the adapter is {adapter and adapter['type']}"}
    try:
        config = adapter_registry["lora"].from_dict(adapter)
        lora = config.to_config(task_type="CAUSAL_LM")
        told: dict[str, Any] = {
            "base_model": MODEL_PRESETS.get(written["base_model"], written["base_model"]),
            "r": lora.r,
            "lora_alpha": lora.lora_alpha,
            "lora_dropout": lora.lora_dropout,
            "quantization": "none",
            "dtype": "float32",
        }
        if lora.target_modules is not None:
            told["target_modules"] = sorted(lora.target_modules)
        if written.get("quantization") is not None:
            bits = QuantizationConfig.from_dict(written["quantization"]).to_bitsandbytes()
            told["quantization"] = bits.bnb_4bit_quant_type if bits.load_in_4bit else "int8"
            told["dtype"] = str(bits.bnb_4bit_compute_dtype).removeprefix("torch.")
    except Exception as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    length = written.get("preprocessing", {}).get("global_max_sequence_length")
    if length is not None:
        told["max_length"] = length
    batch = written.get("trainer", {}).get("batch_size")
    if isinstance(batch, int):
        told["per_device_train_batch_size"] = batch
    return told


def _version() -> str:
    try:
        return f"ludwig {version('ludwig')}"
    except PackageNotFoundError:  # an unpacked source archive on the path
        return "ludwig"


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers: dict[str, Any] = {"version": _version()}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers, default=str))
