"""XTuner's own reading of its Python configs: mmengine's Config, which imports nothing lazily.

python tools/second_ways/xtuner.py FILE ...
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

from mmengine.config import Config, ConfigDict

SECTIONS = {"lora": "llm", "llm_lora": "llm", "visual_encoder_lora": "visual_encoder"}


def reading(path: str) -> dict[str, Any]:
    """The dict of the first LoraConfig, and that of the model it goes into."""
    try:
        config = Config.fromfile(path, lazy_import=True)
    except Exception as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    model = config.get("model") or {}
    found = [key for key in SECTIONS if model.get(key) is not None]
    if found:
        lora, loaded = model[found[0]], model.get(SECTIONS[found[0]])
    elif config.get("lora") is not None:
        lora, loaded = config["lora"], model
    else:
        return {"skipped": "no LoRA"}
    told: dict[str, Any] = {"r": lora.get("r", 8), "lora_alpha": lora.get("lora_alpha", 8)}
    told["lora_dropout"] = lora.get("lora_dropout", 0.0)
    if lora.get("target_modules") is not None:
        told["target_modules"] = list(lora["target_modules"])
    if loaded is not None:
        told |= _loaded(loaded)
    told |= _data(config)
    return told


def _loaded(loaded: ConfigDict) -> dict[str, Any]:
    told = {"base_model": loaded.get("pretrained_model_name_or_path"), "quantization": "none"}
    if loaded.get("torch_dtype") is not None:
        told["dtype"] = str(loaded["torch_dtype"]).rpartition(".")[2].strip("'>")
    bits = loaded.get("quantization_config")
    if bits is not None and bits.get("load_in_4bit"):
        told["quantization"] = bits.get("bnb_4bit_quant_type", "fp4")
    elif bits is not None and bits.get("load_in_8bit"):
        told["quantization"] = "int8"
    return told


def _data(config: Config) -> dict[str, Any]:
    loader = config.get("train_dataloader") or {}
    dataset = loader.get("dataset") or config.get("train_dataset") or {}
    arguments = config.get("training_args") or {}
    told = {}
    batch = loader.get("batch_size", arguments.get("per_device_train_batch_size"))
    if batch is not None:
        told["per_device_train_batch_size"] = batch
    if dataset.get("max_length") is not None:
        told["max_length"] = dataset["max_length"]
    return told


if __name__ == "__main__":
    answers: dict[str, Any] = {"version": f"mmengine {version('mmengine')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers, default=str))
