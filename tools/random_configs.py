"""Writes random config files for a framework, to be read in two ways by tools/compare_dialects.py.

    python tools/random_configs.py NAME DIR [--files 60] [--seed 1]

A file sets some of the dialect's keys to values of the declared types, in the spellings that people
use: quoted and unquoted numbers, ``1e-4``, words for booleans, empty values, lists of one entry.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from lora_lint.dialects import dialect, tables

# What makes a file the framework's own.
BASES: dict[str, dict[str, Any]] = {
    "axolotl": {
        "base_model": "acme/model",
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.0001,
        "datasets": "[{path: a, type: alpaca}]",
    },
    "llama_factory": {
        "model_name_or_path": "acme/model",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset": "identity",
        "template": "llama3",
        "output_dir": "out",
    },
    "trl": {"model_name_or_path": "acme/model", "use_peft": True, "dataset_name": "acme/data"},
}
FIELDS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "max_length",
    "per_device_train_batch_size",
)
QUANTIZED = {
    "axolotl": ({"load_in_8bit": True}, {"adapter": "qlora", "load_in_4bit": True}),
    "llama_factory": ({"quantization_bit": 4}, {"quantization_bit": 8}),
    "trl": (
        {"load_in_4bit": True},
        {"load_in_8bit": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    ),
}
LISTS = (["q_proj", "v_proj"], ["all-linear"], ["q_proj"], [])


def value(types: list[str], name: str, rng: random.Random) -> str:
    """A value in one of its spellings, as YAML text."""
    if name == "target_modules":
        chosen = rng.choice(LISTS)
        if "array" in types and rng.random() < 0.7:
            return "[" + ", ".join(chosen) + "]"
        return ",".join(chosen) or "all"
    if "integer" in types:
        number = rng.choice([1, 4, 8, 16, 64, 512])
        return rng.choice([str(number), str(number), f'"{number}"'])
    return rng.choice(["0.05", "0.1", '"0.05"', "5e-2", "0", ".1"])


def text(name: str, rng: random.Random) -> str:
    """One config file."""
    slots, keys = dialect(name).slots, tables.table(name)
    written: dict[str, str] = {
        key: str(v).lower() if isinstance(v, bool) else str(v) for key, v in BASES[name].items()
    }
    for field in FIELDS:
        path = slots[field].path
        if len(path) == 1 and rng.random() < 0.5:
            types = (tables.entry(keys, path) or {}).get("type", ["string"])
            written[str(path[0])] = value(types, field, rng)
    if rng.random() < 0.4:
        extra = rng.choice(QUANTIZED[name])
        written |= {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in extra.items()}
    return "".join(f"{key}: {v}\n" for key, v in written.items())


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(BASES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(given.seed)
    for number in range(given.files):
        path = given.folder / f"{number:03}.yaml"
        path.write_text(text(given.name, rng), encoding="utf-8")


if __name__ == "__main__":
    main()
