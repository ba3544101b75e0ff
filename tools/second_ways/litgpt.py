"""What LitGPT itself makes of its config files: its command line reads them, and its LoRA model is
built on the meta device.

    python -P tools/second_ways/litgpt.py FILE ...

Run it with a Python that has litgpt, lightning and torch; nothing is downloaded. ``trainable`` is
the number of the adapters' parameters, for models that LitGPT has a config for.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import litgpt.finetune.lora as finetune
import torch
from litgpt.__main__ import main as command
from litgpt.config import name_to_config
from litgpt.lora import GPT, mark_only_lora_as_trainable

PARTS = ("query", "key", "value", "projection", "mlp", "head")
DTYPES = {
    "bf16-true": "bfloat16",
    "16-true": "float16",
    "32-true": "float32",
    "bf16-mixed": "float32",
    "16-mixed": "float32",
}


class Begun(BaseException):
    """``setup`` was called; its arguments."""


def begin(**_: Any) -> None:
    """The first thing that ``setup`` does."""
    raise Begun(dict(sys._getframe(1).f_locals))


def arguments(path: str) -> dict[str, Any]:
    """The arguments that ``litgpt finetune_lora --config FILE`` calls ``setup`` with."""
    finetune.auto_download_checkpoint = begin
    sys.argv = ["litgpt", "finetune_lora", "--config", path]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command()
    except Begun as begun:
        found: dict[str, Any] = begun.args[0]
        return found
    except SystemExit:
        pass
    raise ValueError(said.getvalue().strip().splitlines()[-1])


def read(path: str) -> dict[str, Any]:
    """The fields of a file."""
    given = arguments(path)
    on = [part for part in PARTS if given[f"lora_{part}"]]
    kind = (given["quantize"] or "none").removeprefix("bnb.")
    precision = given["precision"] or finetune.get_default_supported_precision(training=True)
    directory = Path(given["checkpoint_dir"])
    name = directory.name
    found = {
        "base_model": "/".join(directory.parts[-2:]),
        "r": given["lora_r"],
        "lora_alpha": given["lora_alpha"],
        "lora_dropout": given["lora_dropout"],
        "target_modules": on,
        "max_length": given["train"].max_seq_length,
        "per_device_train_batch_size": given["train"].micro_batch_size,
        "dtype": DTYPES[precision],
        "quantization": kind.removesuffix("-dq").removesuffix("-training"),
        "gradient_accumulation_steps": given["train"].gradient_accumulation_iters(given["devices"]),
    }
    if name in name_to_config:
        switches = {key: value for key, value in given.items() if key.startswith("lora_")}
        with torch.device("meta"):
            model = GPT.from_name(name, **switches)
        mark_only_lora_as_trainable(model)
        found["trainable"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return found


def main() -> None:
    """Read files and print what was found, as JSON."""
    found: dict[str, Any] = {}
    for path in list(sys.argv[1:]):
        try:
            found[path] = read(path)
        except Exception as exc:  # noqa: BLE001, PERF203 - what it says is the answer
            found[path] = {"error": f"{type(exc).__name__}: {exc}"}
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
