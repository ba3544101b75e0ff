"""NeMo AutoModel's own reading of YAML files: its ConfigNode, PeftConfig and ModuleMatcher.

python tools/second_ways/nemo_automodel.py FILE ...
"""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nemo_automodel.components._peft.lora import PeftConfig
from nemo_automodel.components._peft.module_matcher import ModuleMatcher
from nemo_automodel.components.config import loader
from nemo_automodel.recipes._typed_config import _model_name_from_cfg
from nemo_automodel.shared.utils import dtype_from_str


def reading(path: str) -> dict[str, Any]:
    """What the loader makes of a file; of its targets only PeftConfig is imported."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        written = loader.yaml.safe_load(file)
    loader._resolve_target = _target
    try:
        config = loader.ConfigNode(written)
        peft = config.peft.instantiate()
        matcher = ModuleMatcher(peft.target_modules, peft.exclude_modules, peft.match_all_linear)
    except Exception as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    told: dict[str, Any] = {
        "r": peft.dim,
        "lora_alpha": peft.alpha,
        "lora_dropout": peft.dropout,
        "per_device_train_batch_size": config.get("step_scheduler.local_batch_size", 1),
        "quantization": "none",
        "target_modules": matcher.target_modules or "all-linear",
    }
    name = _model_name_from_cfg(config.model)
    if name is not None:
        told["base_model"] = name
    dtype = config.get("model.dtype", config.get("model.torch_dtype", None))
    if dtype not in (None, "auto"):
        told["dtype"] = str(dtype_from_str(dtype)).removeprefix("torch.")
    quantization = config.get("quantization", None)
    if quantization is not None and quantization.get("load_in_4bit", False):
        told["quantization"] = quantization.get("bnb_4bit_quant_type", "nf4")
    length = config.get("packed_sequence.packed_sequence_size", 0) or config.get(
        "dataset.seq_length", config.get("dataset.seq_len", None)
    )
    if length:
        told["max_length"] = length
    return told


def _target(name: Any) -> Any:
    """PeftConfig for its own name, any other name as it is written."""
    return PeftConfig if str(name).endswith(".PeftConfig") else name


def _version() -> str:
    try:
        return f"nemo_automodel {version('nemo_automodel')}"
    except PackageNotFoundError:
        return "nemo_automodel"


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers: dict[str, Any] = {"version": _version()}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers, default=str))
