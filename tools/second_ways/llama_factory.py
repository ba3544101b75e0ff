"""LLaMA-Factory's own reading of YAML and JSON files and commands: its parser and its classes.

DISABLE_VERSION_CHECK=1 python tools/second_ways/llama_factory.py FILE ...
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("DISABLE_VERSION_CHECK", "1")
os.environ["ALLOW_EXTRA_ARGS"] = "1"  # keys of other transformers releases
sys.path.append(str(Path(__file__).parent))
from argv import arguments, calls
from llamafactory.hparams import parser as own


def _from_words(words: list[str]) -> dict[str, Any]:
    """What HfArgumentParser makes of a command's words: the values that are no defaults."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(own._TRAIN_ARGS)
    found, _ = parser.parse_known_args([*words, "--output_dir", "out"])
    plain = vars(parser.parse_known_args(["--output_dir", "out"])[0])
    return {k: v for k, v in vars(found).items() if v != plain[k] or k == "output_dir"}


def reading(path: str) -> dict[str, Any]:
    """What LLaMA-Factory's dataclasses hold after it has parsed a file."""
    sys.argv = ["train.py", path]
    try:
        command = path.endswith(".sh")
        given = _from_words(arguments(calls(path)[0])) if command else own.read_args()
        given |= {"output_dir": given.get("output_dir") or "out", "report_to": "none"}
        if given.get("export_dir") or not given.get("do_train", "dataset" in given):
            return {"skipped": True}
        given = {k: v for k, v in given.items() if k not in ("deepspeed", "bf16", "fp16")}
        model, data, training, tuning, _ = own._parse_train_args(given)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    kind = "none"
    if model.quantization_bit == 4:
        kind = model.quantization_type
    elif model.quantization_bit == 8:
        kind = "int8"
    targets = tuning.lora_target
    return {
        "base_model": model.model_name_or_path,
        "r": tuning.lora_rank,
        "lora_alpha": tuning.lora_alpha,
        "lora_dropout": tuning.lora_dropout,
        "target_modules": "all-linear" if targets == ["all"] else targets,
        "max_length": data.cutoff_len,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "quantization": kind,
    }


if __name__ == "__main__":
    answers: dict[str, Any] = {"version": f"llamafactory {version('llamafactory')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers))
    sys.stdout.flush()
