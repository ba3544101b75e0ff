"""What torchtune itself makes of its config files: its parser reads them, its builders build the
model on the meta device, and the layers say what they are.

    python -P tools/second_ways/torchtune.py FILE ...

Run it with a Python that has torchtune, torchao and torch; nothing is downloaded. ``trainable`` is
the number of the adapters' parameters, ``total`` that of the others, by which the base model is
known.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torchtune.modules.low_precision.nf4_linear as frozen
import torchtune.modules.peft.dora as dora
import torchtune.modules.peft.lora as lora
from omegaconf import OmegaConf
from torchtune import config, training
from torchtune.config._parse import TuneRecipeArgumentParser
from torchtune.config._utils import _merge_yaml_and_cli_args

quantized: list[Any] = []


def to_nf4(weight: torch.Tensor, **_: Any) -> torch.Tensor:
    """Note that a weight would be quantized; the meta device has no bits."""
    quantized.append(weight.shape)
    return weight


for module in (lora, dora, frozen):
    module.to_nf4 = to_nf4


def read(path: str) -> dict[str, Any]:
    """The fields that torchtune's own reading of a file shows."""
    parser = TuneRecipeArgumentParser()
    given, overrides = parser.parse_known_args(["--config", path])
    cfg = _merge_yaml_and_cli_args(given, overrides)
    quantized.clear()
    dtype = training.get_dtype(cfg.dtype, device=torch.device("cpu"))
    with training.set_default_dtype(dtype), torch.device("meta"):
        model = config.instantiate(cfg.model)
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, lora.LoRALinear | dora.DoRALinear)
    }
    first = next(iter(layers.values()))
    adapters = {f"{name}.{key}" for name, layer in layers.items() for key in layer.adapter_params()}
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    trainable = sum(size for name, size in sizes.items() if name in adapters)
    rank, use_dora = first.lora_a.out_features, isinstance(first, dora.DoRALinear)
    dropout = getattr(first.dropout, "p", 0.0)
    names = {name.rpartition(".")[2] for name in layers if ".attn." in name}
    length = OmegaConf.select(cfg, "tokenizer.max_seq_len")
    return {
        "r": rank,
        "lora_alpha": first.scaling * rank if use_dora else first.alpha,
        "lora_dropout": dropout,
        "target_modules": sorted(names),
        "max_length": length,
        "per_device_train_batch_size": cfg.batch_size,
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": "nf4" if quantized else "none",
        "trainable": trainable,
        "total": sum(sizes.values()) - trainable,
    }


def main() -> None:
    """Read files and print what was found, as JSON."""
    found: dict[str, Any] = {}
    for path in sys.argv[1:]:
        try:
            found[path] = read(path)
        except Exception as exc:  # noqa: BLE001, PERF203 - what it says is the answer
            found[path] = {"error": f"{type(exc).__name__}: {exc}"}
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
