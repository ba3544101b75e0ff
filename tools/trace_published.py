"""The tracer against measurements on GPUs that others published.

    python tools/trace_published.py FILE --litgpt-python PYTHON --torchtune-python PYTHON \
        > docs/memory-tracer.md

FILE has the measurements; ``published_rows`` says how a row becomes a setting. PEFT's rows are
traced as ``lora-lint`` traces a run, LitGPT's by LitGPT's own model class, loss and loop
(``litgpt_step``), and so are the settings of ``litgpt_settings``, with which the closed form is
compared: PYTHON has torch, transformers and litgpt. Without it those are left out. In the same way
the settings of ``torchtune_settings`` are traced (``torchtune_step``) by a PYTHON that has
torchtune.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import litgpt_settings
import torchtune_settings
from published_rows import CONFIGS, Row, Setting, is_first_step, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
HEAD = """
# The tracer against published measurements

Made by `python tools/trace_published.py FILE --litgpt-python PYTHON --torchtune-python PYTHON`,
where FILE has the measurements (`tools/published_rows.py` says how a row becomes a setting), the
one PYTHON has litgpt and the other torchtune.
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
## LitGPT

LitGPT {version}'s own model class, with its chunked head and loss, in its loop, with Fabric's fp32
outputs (`tools/litgpt_step.py`); in 4 bit with a stand-in for the linear maps. The resource tables
were measured with the release of October 2023, in which the longest sample comes in the first step,
config_hub with 0.3 to 0.4; their bitsandbytes kept the inputs of 4-bit products. config_hub states
no longest sample: 512 tokens are where samples are cut. LitGPT {version} gives Phi-3 a sliding
window, which the releases measured had not; attention's output is then not copied, which in row 25
would be kept.

| row | source | setting | measured | traced | error |
|---|---|---|---|---|---|
"""
FORM = """
## The closed form against LitGPT's class

Settings of `tools/litgpt_settings.py`, traced in the same way; in 4 bit with bitsandbytes'
StableEmbedding, as LitGPT has it since 0.5. The holdout was listed before the form was compared
with any trace. Error: the closed form against traced. Beyond this lie what no trace shows: the
allocator's gaps and kernels' workspaces.

| list | settings | mean error | worst | bias |
|---|---|---|---|---|
"""
TORCHTUNE = """
## The closed form against torchtune's model

torchtune publishes no measurement whose setting is stated in full, so that only the form
(`lora_lint/memory/torchtune.py`) is compared: settings of `tools/torchtune_settings.py`, traced by
the model that the builders of torchtune {version} make, with the loss in chunks and the step of
`lora_finetune_single_device` (`tools/torchtune_step.py`); in NF4 with a stand-in for the tensor,
whose values torchao's own code makes whole, and with a stand-in for LinearCrossEntropyLoss, which
torchtune has had since its last release. The holdout was listed before the form was compared with
any trace of it. Error: the closed form against traced. Beyond this lie what no trace shows: the
allocator's gaps and kernels' workspaces.

| list | settings | mean error | worst | bias |
|---|---|---|---|---|
"""
SETTINGS = """
| list | setting | traced | closed form | error |
|---|---|---|---|---|
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
    """What ``litgpt_step`` needs of a row."""
    return {
        "name": _LITGPT[setting.model],
        "r": setting.lora["r"],
        "dropout": setting.lora["lora_dropout"],
        "targets": row.said["target_modules"],
        "batch": setting.settings["per_device_train_batch_size"],
        "length": setting.settings["max_length"],
        "quantize": row.said["quant"],
        "old": True,
        "first": is_first_step(row.said),
    }


def ask(python: Path, tool: str, requests: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
    """A framework's version and what its tool traced, by an environment that has it."""
    done = subprocess.run(
        [str(python), str(ROOT / "tools" / tool)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    version, peaks = json.loads(done.stdout.splitlines()[-1])
    return version, peaks


def page(rows: Iterable[Row], python: Path | None, torchtune: Path | None = None) -> Iterable[str]:
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
    if python is not None:
        yield from litgpt(usable, python)
    if torchtune is not None:
        yield from form(torchtune_settings, torchtune, "torchtune_step.py", TORCHTUNE)


def litgpt(usable: Sequence[tuple[Row, Setting, int]], python: Path) -> Iterable[str]:
    """The part of LitGPT, line by line."""
    own = [one for one in usable if one[1].litgpt]
    requests = [litgpt_request(row, setting) for row, setting, _ in own]
    version, peaks = ask(python, "litgpt_step.py", requests)
    yield LITGPT.format(version=version).rstrip()
    for (row, _, measured), peak in zip(own, peaks, strict=True):
        cells = [row.said["source"], row.label, _gb(measured), _gb(peak)]
        yield f"| {row.number} | {' | '.join(cells)} | {peak / measured - 1:+.1%} |"
    yield from form(litgpt_settings, python, "litgpt_step.py", FORM)


def form(listed: ModuleType, python: Path, tool: str, text: str) -> Iterable[str]:
    """The closed form against a framework's own class, line by line."""
    both = list(listed.settings())
    version, peaks = ask(python, tool, [setting.request for _, setting in both])
    lines: list[str] = []
    errors: dict[str, list[float]] = {}
    for (kind, setting), peak in zip(both, peaks, strict=True):
        size = listed.estimated(setting).tensors or 0
        errors.setdefault(kind, []).append(size / peak - 1)
        cells = [kind, setting.label, _gb(peak), _gb(size), f"{size / peak - 1:+.2%}"]
        lines.append(f"| {' | '.join(cells)} |")
    yield text.format(version=version).rstrip()
    for kind, found in errors.items():
        mean = sum(map(abs, found)) / len(found)
        worst, bias = max(found, key=abs), sum(found) / len(found)
        yield f"| {kind} | {len(found)} | {mean:.2%} | {worst:+.2%} | {bias:+.2%} |"
    yield SETTINGS.rstrip()
    yield from lines


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--litgpt-python", type=Path)
    parser.add_argument("--torchtune-python", type=Path)
    options = parser.parse_args()
    print("\n".join(page(read_rows(options.file), options.litgpt_python, options.torchtune_python)))


if __name__ == "__main__":
    main()
