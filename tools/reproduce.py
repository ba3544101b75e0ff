"""Asks real PEFT, on the real class of transformers, without lora-lint.

    python tools/reproduce.py Glm4ForCausalLM '{"target_modules": ["q_proj", "gate_proj"]}'

The class is built on the meta device, with two layers and otherwise its default config;
``--config`` gives other values, such as the published ones that decide its modules. Prints the
exception that PEFT raises, or how many modules each entry of ``target_modules`` reaches.
"""

from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model


def build(cls: str, values: dict[str, Any]) -> torch.nn.Module:
    """The class on the meta device."""
    model_class = getattr(transformers, cls)
    config = model_class.config_class(**values)
    if "num_hidden_layers" not in values:
        config.num_hidden_layers = 2
        for name in ("layer_types", "mlp_layer_types"):
            if isinstance(getattr(config, name, None), list):
                setattr(config, name, getattr(config, name)[:2])
    with torch.device("meta"):
        return model_class(config)


def hits(names: list[str], entry: str) -> int:
    """How many of PEFT's own target names an entry stands for, by PEFT's rule for lists."""
    return sum(name == entry or name.endswith(f".{entry}") for name in names)


def main() -> None:
    """Build, adapt, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cls", metavar="CLASS")
    parser.add_argument("lora", type=json.loads, help="LoraConfig keywords as JSON")
    parser.add_argument("--config", type=json.loads, default={}, help="config values as JSON")
    options = parser.parse_args()
    model = build(options.cls, options.config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.device("meta"):
                adapted = get_peft_model(model, LoraConfig(**options.lora))
        except Exception as exc:  # noqa: BLE001 - whatever PEFT raises is the answer
            print(f"{type(exc).__name__}: {str(exc).splitlines()[0]}")
            return
    names = adapted.base_model.targeted_module_names
    print(f"{len(names)} modules adapted")
    targets = options.lora.get("target_modules")
    for entry in targets if isinstance(targets, list) else []:
        print(f"{entry}: {hits(names, entry)}")
    spoken = [str(w.message) for w in caught if "target" in str(w.message).lower()]
    print("PEFT's warnings about targets:", *(spoken or ["none"]))


if __name__ == "__main__":
    main()
