"""The tracer against measurements on GPUs that others published.

    python tools/trace_published.py FILE --litgpt-python PYTHON > docs/memory-tracer.md

FILE has the measurements; ``published_rows`` says how a row becomes a setting. PEFT's rows are
traced as ``lora-lint`` traces a run, LitGPT's in 16 bit by LitGPT's own model class, loss and loop:
PYTHON has torch, transformers and litgpt. Without it those rows are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from published_rows import CONFIGS, Row, Setting, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
HEAD = """
# The tracer against published measurements

Made by `python tools/trace_published.py FILE --litgpt-python PYTHON`, where FILE has the
measurements (`tools/published_rows.py` says how a row becomes a setting) and PYTHON has litgpt.
Traced is the peak of what PyTorch allocates in a training step on the meta device
(`lora_lint/memory/tracer`); nothing of it is fitted to a measurement. Error: traced against
measured, +: too much.

## PEFT's method comparison

Hugging Face's model and PEFT, in a loop that holds the outputs. Whether the batch of the peak had
padding, and so a mask, is not known: both were traced. The metric is reserved memory.

| row | setting | measured | without a mask | error | with a mask | error |
|---|---|---|---|---|---|---|
"""
LITGPT = """
## LitGPT, in 16 bit

LitGPT {version}'s own model class, with its chunked head and loss, in its loop, with Fabric's fp32
outputs; the resource tables were measured with the release of October 2023, config_hub with 0.3 to
0.4. config_hub states no longest sample: 512 tokens are where samples are cut.

| row | source | setting | measured | traced | error |
|---|---|---|---|---|---|
"""
# LitGPT's names of the models.
_LITGPT = {
    "meta-llama/Llama-2-7b-hf": "Llama-2-7b-hf",
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": "tiny-llama-1.1b",
    "microsoft/Phi-3-mini-4k-instruct": "Phi-3-mini-4k-instruct",
    "stabilityai/stablelm-base-alpha-3b": "stablelm-base-alpha-3b",
    "tiiuae/falcon-7b": "falcon-7b",
}


def trace_peft(setting: Setting, *, uniform: bool) -> int:
    """The traced peak of a row of PEFT's, in bytes.

    Raises ``lora_lint.memory.trace.NotTraced``.
    """
    from lora_lint.memory.trace import trace

    config = CONFIGS[setting.model]
    request = {
        "config": config,
        "cls": config["architectures"][0],
        "lora": setting.lora,
        "batch": setting.settings["per_device_train_batch_size"],
        "length": setting.settings["max_length"],
        "uniform": uniform,
        "outputs_kept": True,
    }
    return trace(request, 600).peak


def litgpt_request(row: Row, setting: Setting) -> dict[str, Any]:
    """What ``trace_litgpt`` needs of a row."""
    return {
        "name": _LITGPT[setting.model],
        "r": setting.lora["r"],
        "dropout": setting.lora["lora_dropout"],
        "targets": row.said["target_modules"],
        "batch": setting.settings["per_device_train_batch_size"],
        "length": setting.settings["max_length"],
    }


def trace_litgpt(request: Mapping[str, Any]) -> int:
    """The traced peak of LitGPT's step, in bytes: its model in bfloat16, its head in chunks of 128
    tokens (litgpt 0.4.0 finetune/lora.py ``fit``), whose outputs Fabric makes fp32 (lightning 2.6.6
    fabric/wrappers.py ``_FabricModule.forward``), gradients of an earlier micro-batch alive.
    """
    import torch
    from lightning.fabric.plugins import HalfPrecision
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from litgpt.utils import chunked_cross_entropy

    from lora_lint.memory.tracer.cuda import AsOnCuda
    from lora_lint.memory.tracer.step import _backward
    from lora_lint.memory.tracer.storages import Storages, rounded

    names = ("query", "key", "value", "projection", "mlp", "head")
    config = Config.from_name(
        request["name"],
        lora_r=request["r"],
        lora_alpha=16,
        lora_dropout=request["dropout"],
        **{f"lora_{name}": name in request["targets"] for name in names},
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = GPT(config)
        model.max_seq_length = request["length"]
    torch.set_default_dtype(torch.float32)
    mark_only_lora_as_trainable(model)
    model.train()
    known = [*model.parameters(), *model.buffers()]
    storages = Storages("meta", known)
    optimizer = torch.optim.AdamW([p for p in known if p.requires_grad], foreach=False)
    as_on_cuda, precision = AsOnCuda(), HalfPrecision("bf16-true")
    with storages, as_on_cuda:
        for step in range(2):
            if step:
                storages.peaks.clear()
            storages.phase = "forward"
            shape = request["batch"], request["length"]
            ids = torch.zeros(shape, dtype=torch.int64, device="meta")
            logits = precision.convert_output(model(ids, lm_head_chunk_size=128))
            logits[-1] = logits[-1][..., :-1, :]
            loss = chunked_cross_entropy(logits, ids[..., 1:])
            storages.phase = "backward"
            _backward(loss)
            if not step:
                optimizer.step()
    held = sum(rounded(tensor.untyped_storage().nbytes()) for tensor in known)
    return held + max(size for size, _ in storages.peaks.values())


def ask_litgpt(python: Path, requests: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
    """LitGPT's version and the traced peaks, by an environment that has it."""
    done = subprocess.run(
        [str(python), __file__, "--answer"],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    version, peaks = json.loads(done.stdout.splitlines()[-1])
    return version, peaks


def answer() -> None:
    """The other side of ``ask_litgpt``."""
    from importlib.metadata import version

    requests = json.load(sys.stdin)
    print(json.dumps([version("litgpt"), [trace_litgpt(request) for request in requests]]))


def page(rows: Iterable[Row], python: Path | None) -> Iterable[str]:
    """The page, line by line."""
    usable = [
        (row, row.setting, row.setting.measured)
        for row in rows
        if isinstance(row.setting, Setting) and row.setting.measured is not None
    ]
    yield HEAD.strip()
    known: dict[str, list[int]] = {}
    for row, setting, measured in usable:
        if setting.litgpt:
            continue
        key = json.dumps([setting.lora, setting.settings])
        if key not in known:
            known[key] = [trace_peft(setting, uniform=uniform) for uniform in (True, False)]
        cells = [_gb(measured)]
        for peak in known[key]:
            cells += [_gb(peak), f"{peak / measured - 1:+.1%}"]
        yield f"| {row.number} | {row.label} | {' | '.join(cells)} |"
    if python is None:
        return
    own = [one for one in usable if one[1].litgpt and one[1].settings["quantization"] == "none"]
    version, peaks = ask_litgpt(python, [litgpt_request(row, setting) for row, setting, _ in own])
    yield LITGPT.format(version=version).rstrip()
    for (row, _, measured), peak in zip(own, peaks, strict=True):
        cells = [row.said["source"], row.label, _gb(measured), _gb(peak)]
        yield f"| {row.number} | {' | '.join(cells)} | {peak / measured - 1:+.1%} |"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--litgpt-python", type=Path)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer()
    elif options.file is None:
        parser.error("FILE is missing")
    else:
        print("\n".join(page(read_rows(options.file), options.litgpt_python)))


if __name__ == "__main__":
    main()
