"""Writes random config files for a framework, to be read in two ways by tools/compare_dialects.py.

    python tools/random_configs.py NAME DIR [--files 60] [--seed 1] [--commands]

A file sets some of the dialect's keys to values of the declared types, in the spellings that people
use: quoted and unquoted numbers, ``1e-4``, words for booleans, empty values, lists of one entry.
``--commands``: shell scripts instead, with options in argparse's spellings and the shell's.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lint.dialects import dialect, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    "ms_swift": {"model": "acme/model", "tuner_type": "lora", "dataset": "acme/data"},
    "oumi": {
        "model.model_name": "acme/model",
        "training.use_peft": True,
        "training.trainer_type": "TRL_SFT",
    },
    "autotrain": {
        "task": "llm-sft",
        "base_model": "acme/model",
        "project_name": "acme",
        "log": "none",
        "backend": "local",
        "data": "{path: a, train_split: train, valid_split: null, chat_template: null, "
        "column_mapping: {text_column: text}}",
        "params.peft": True,
    },
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
    "ms_swift": (
        {"quant_method": "bnb", "quant_bits": 4},
        {"quant_method": "bnb", "quant_bits": 8},
        {"quant_method": "bnb", "quant_bits": 4, "bnb_4bit_quant_type": "fp4"},
    ),
    "oumi": (
        {"peft.q_lora": True},
        {"peft.q_lora": "yes", "peft.q_lora_bits": 8},
        {"peft.q_lora": True, "peft.bnb_4bit_quant_type": "nf4"},
    ),
    "autotrain": ({"params.quantization": "int8"}, {"params.quantization": "null"}),
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
        if all(isinstance(step, str) for step in path) and rng.random() < 0.5:
            types = (tables.entry(keys, path) or {}).get("type", ["string"])
            written[".".join(map(str, path))] = value(types, field, rng)
    if rng.random() < 0.4:
        extra = rng.choice(QUANTIZED[name])
        written |= {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in extra.items()}
    return "".join(f"{line}\n" for line in nested(written))


def nested(written: dict[str, str]) -> Iterator[str]:
    """Lines of YAML for values by their keys' paths, ``peft.lora_r``, one level deep."""
    sections: dict[str, list[str]] = {}
    for key, v in written.items():
        section, dot, name = key.rpartition(".")
        if dot:
            sections.setdefault(section, []).append(f"  {name}: {v}")
        else:
            yield f"{key}: {v}"
    for section, lines in sections.items():
        yield f"{section}:"
        yield from lines


STARTS = {
    "llama_factory": ("llamafactory-cli train", "torchrun --nproc_per_node 2 src/train.py"),
    "trl": ("trl sft", "accelerate launch --num_processes 2 trl/scripts/sft.py"),
}


def command(name: str, rng: random.Random) -> str:
    """One shell script that runs the framework."""
    slots, keys = dialect(name).slots, tables.table(name)
    given = dict(BASES[name])
    if rng.random() < 0.4:
        given |= rng.choice(QUANTIZED[name])
    lines, words = ["#!/bin/bash", "set -e"], []
    for key, v in given.items():
        flag = v is True and rng.random() < 0.5
        words.append(f"--{key}" if flag else f"--{key} {v}")
    for field in FIELDS:
        key = str(slots[field].path[0])
        if rng.random() < 0.3:
            continue
        types = (tables.entry(keys, (key,)) or {}).get("type", ["string"])
        spelled, line = _option(key, types, field, rng)
        words.append(spelled)
        lines += [line] if line else []
    rng.shuffle(words)
    gap = rng.choice([" ", " \\\n    "])
    return "\n".join([*lines, gap.join([rng.choice(STARTS[name]), *words])]) + "\n"


def _option(key: str, types: list[str], field: str, rng: random.Random) -> tuple[str, str]:
    """An option in one of its spellings, and the assignment that it uses."""
    name = rng.choice([key, key, key.replace("_", "-")])
    if field == "target_modules":
        chosen = rng.choice([["q_proj", "v_proj"], ["q_proj"], ["q_proj", "k_proj", "o_proj"]])
        if "array" in types:
            return f"--{name} {' '.join(chosen)}", ""
        return f"--{name} {','.join(chosen)}", ""
    fitting = ["1", "8", "64"] if "integer" in types else ["0.05", "5e-2", ".1", "0"]
    text = rng.choice(fitting)
    if rng.random() < 0.3:
        variable = key.upper()
        return f"--{name} ${{{variable}}}", f"{variable}={text}"
    quote = rng.choice(["", "", '"', "'"])
    return f"--{name}{rng.choice([' ', '='])}{quote}{text}{quote}", ""


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(BASES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(given.seed)
    for number in range(given.files):
        make, ending = (command, "sh") if given.commands else (text, "yaml")
        path = given.folder / f"{number:03}.{ending}"
        path.write_text(make(given.name, rng), encoding="utf-8")


if __name__ == "__main__":
    main()
