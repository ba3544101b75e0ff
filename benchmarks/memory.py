"""Memory estimates beside other tools on published measurements, and what an estimate costs.

    python benchmarks/memory.py FILE --fitcheck BIN/fitcheck > benchmarks/memory.md
    python benchmarks/memory.py --speed >> benchmarks/memory.md

FILE has the measurements (``tools/published_rows.py``); BIN is an environment with fitcheck-llm.
Needs torch, transformers and accelerate. Each tool gets what it can be told of a row; it refuses a
row where it has no figure for such a run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from published_rows import CONFIGS, Row, Setting, read_rows, tree  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HEAD = """
# Memory estimates, beside other tools

Made by `python benchmarks/memory.py FILE --fitcheck BIN/fitcheck`, with lora-lint of this commit,
fitcheck-llm {fitcheck}, accelerate {accelerate} and transformers {transformers}.

Rows are the published measurements that `docs/memory-published.md` lists. Each cell is a tool's
figure against the measured one, +: too much. The measured figures do not include the CUDA context,
so it is taken off where a tool counts it.

- **fitcheck-llm**: its command with the row's rank, targets, batch, length and quantization, and
  `--flash-attn`; config.json from a local cache without the hub, so that it counts parameters
  itself (it says that this is off for models unlike Llama: Falcon and StableLM here). Its total
  less the context of its own profile. It knows no fused modules and no adapter on the head: query
  and value are q_proj and v_proj for it.
- **accelerate estimate-memory**: its own `calculate_maximum_sizes` and `estimate_training_usage` on
  the model without weights, as its command calls them (the command asks the hub): training in
  float16; it gives no figure for training in 4 bit, nor knows LoRA, batch or length.
- **LLaMA-Factory's table**: the rule of thumb in the README of 0.9.5, marked as estimated there:
  2 GB for 10^9 parameters in 16 bit, 0.5 GB in 4 bit.

lora-lint is told that a row is LitGPT's, as it knows of a LitGPT file, that its release is before
0.5 with a bitsandbytes older than 0.43.2, which keeps more, and that the resource tables are of the
first step; the others have no such settings.
"""
SPEED = """
## What an estimate costs

Made by `python benchmarks/memory.py --speed`, Python {python}: medians of CPU time. A what-if is
one further estimate of a linted file with a setting changed, a new value each time; models are
those of examples, and of an Axolotl file with 4 bit and all linear maps. The lints take turns, and
their time is the user's CPU time.
"""
_EXAMPLES = ("axolotl-qlora.yaml", "trl.yaml", "llama-factory.yaml")
_MODELS = (
    "meta-llama/Llama-3.1-70B",
    "Qwen/Qwen3-30B-A3B",
    "mistralai/Mixtral-8x7B-v0.1",
    "google-t5/t5-base",
)
_AXOLOTL = """\
base_model: {}
adapter: qlora
load_in_4bit: true
sequence_len: 2048
micro_batch_size: 2
gradient_accumulation_steps: 4
lora_r: 16
lora_alpha: 32
lora_target_linear: true
"""
_NAMES = {
    "query": ["q_proj"],
    "key": ["k_proj"],
    "value": ["v_proj"],
    "projection": ["o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
    "head": [],
}
_GPUS = {"a10g": "a10", "a100-40gb": "a100-40", "l40s": "l40s"}
_MIB = 2**20


class Tool(NamedTuple):
    """A tool's name and what it says of a row, in bytes without the CUDA context; None where it has
    no figure.
    """

    name: str
    estimate: Callable[[Row, Setting], float | None]


def ours(_: Row, setting: Setting) -> float | None:
    """The closed form."""
    from lora_lint.memory import estimate_memory

    return estimate_memory(
        tree(setting.model, litgpt=setting.litgpt),
        setting.lora,
        **setting.settings,
        profile=setting.profile,
        gpu=setting.gpu,
    ).tensors


def fitcheck(command: Path, home: Path) -> Callable[[Row, Setting], float | None]:
    """fitcheck-llm, with config.json in a hub cache under ``home``."""
    for model, config in CONFIGS.items():
        folder = home / "hub" / f"models--{model.replace('/', '--')}"
        commit = "0" * 40
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(commit)
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").write_text(json.dumps(config))
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)

    @cache
    def context(gpu: str, quant: str) -> float:
        code = (
            "from fitcheck.overhead_db import get_overhead_profile as p;"
            f"print(p({gpu!r}, flash_attn=True, quantization={quant!r}).base_context_mib)"
        )
        python = str(command.parent / "python")
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        return float(done.stdout)

    def estimate(row: Row, setting: Setting) -> float | None:
        settings = setting.settings
        quant = settings["quantization"]
        targets = [name for said in row.said["target_modules"] for name in _NAMES.get(said, [said])]
        gpu = _GPUS[setting.gpu]
        asked = [
            *("--lora-r", str(setting.lora["r"]), "--lora-targets", ",".join(targets)),
            *("--batch-size", str(settings["per_device_train_batch_size"])),
            *("--seq-len", str(settings["max_length"]), "--quant", quant, "--gpu", gpu),
            *("--flash-attn", "--json"),
        ]
        if settings["double_quant"]:
            asked.append("--double-quant")
        done = subprocess.run(
            [str(command), setting.model, *asked],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode not in (0, 1):
            return None
        total = json.loads(done.stdout)["memory_mib"]["total"]
        return float(_MIB * (total - context(gpu, quant)))

    return estimate


@cache
def whole(model: str) -> Any:
    """The model without weights in float32, as accelerate's command builds it."""
    import torch
    import transformers

    config = CONFIGS[model]
    values = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    with torch.device("meta"):
        return transformers.AutoModel.from_config(values, dtype=torch.float32)


def accelerate(_: Row, setting: Setting) -> float | None:
    """accelerate's estimate-memory: the largest of its sizes, as its table shows."""
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    total, _largest = calculate_maximum_sizes(whole(setting.model))
    dtype = "int4" if setting.settings["quantization"] == "nf4" else "float16"
    most = max(estimate_training_usage(total, dtype).values())
    return None if most == -1 else float(most)


def rule_of_thumb(_: Row, setting: Setting) -> float | None:
    """LLaMA-Factory's README: 2x GB, x/2 GB in 4 bit, for x billion parameters."""
    parameters = sum(parameter.numel() for parameter in with_head(setting.model).parameters())
    return float(parameters * (0.5 if setting.settings["quantization"] == "nf4" else 2))


@cache
def with_head(model: str) -> Any:
    """The model without weights, with its head."""
    import torch
    import transformers

    config = CONFIGS[model]
    values = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(values)


def table(rows: Sequence[Row], tools: Sequence[Tool]) -> Iterable[str]:
    """The errors, row by row, and their summary."""
    errors: dict[str, list[float | None]] = {tool.name: [] for tool in tools}
    alike, lines = [], []
    for row in rows:
        setting = row.setting
        if isinstance(setting, str) or setting.measured is None:
            continue
        cells = [str(row.number), row.label, f"{setting.measured / 1e9:.2f} GB"]
        alike.append(CONFIGS[setting.model]["model_type"] in ("llama", "phi3"))
        for tool in tools:
            size = tool.estimate(row, setting)
            error = None if size is None else size / setting.measured - 1
            errors[tool.name].append(error)
            cells.append("refused" if error is None else f"{error:+.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    for title, wanted in (("All rows", (True, False)), ("Llama and Phi-3 alone", (True,))):
        yield f"\n| {title} | rows | mean error | worst | bias | refused |"
        yield "|---|---|---|---|---|---|"
        for name, every in errors.items():
            yield _summary(
                name, [e for e, is_alike in zip(every, alike, strict=True) if is_alike in wanted]
            )
    yield f"\n| row | setting | measured | {' | '.join(errors)} |"
    yield "|---|---|---|" + "---|" * len(errors)
    yield from lines


def _summary(name: str, every: Sequence[float | None]) -> str:
    given = [error for error in every if error is not None]
    cells = [
        name,
        str(len(given)),
        f"{statistics.mean(map(abs, given)):.1%}",
        f"{max(given, key=abs):+.1%}",
        f"{statistics.mean(given):+.1%}",
        str(len(every) - len(given)),
    ]
    return f"| {' | '.join(cells)} |"


def milliseconds(call: Callable[[int], object], times: int = 201) -> float:
    """The median CPU time of a call."""
    found = []
    for number in range(times):
        start = time.process_time_ns()
        call(number)
        found.append(time.process_time_ns() - start)
    return statistics.median(found) / 1e6


def what_ifs() -> Iterable[str]:
    """What a further estimate costs, on the examples."""
    yield "\n| file or model | first estimate | another length | another batch | another r |"
    yield "|---|---|---|---|---|"
    texts = {name: (ROOT / "examples" / name).read_text() for name in _EXAMPLES}
    texts |= {model: _AXOLOTL.format(model) for model in _MODELS}
    for name, text in texts.items():
        first = milliseconds(lambda _, text=text: subject(text).memory, 5)
        bare = milliseconds(lambda _, text=text: subject(text), 5)
        one = subject(text)
        if one.memory is None or one.memory.peak is None:
            continue
        cells = [
            milliseconds(lambda n, one=one: one.estimate(max_length=256 + n)),
            milliseconds(lambda n, one=one: one.estimate(per_device_train_batch_size=1 + n)),
            milliseconds(lambda n, one=one: one.estimate(r=2 + n)),
        ]
        times = " | ".join(f"{cell:.2f} ms" for cell in (first - bare, *cells))
        yield f"| {name} | {times} |"


def subject(text: str) -> Any:
    """What the rules look at in a file, on an RTX 4090."""
    from lora_lint.checks.subject import Context, RecipeSubject
    from lora_lint.dialects import recipes
    from lora_lint.documents import parse
    from lora_lint.environment import Environment

    document = parse("config.yaml", text)
    (recipe,) = recipes(document)
    return RecipeSubject(document, recipe, Context(environment=Environment(gpu="rtx4090")))


def user_time(command: list[str]) -> float:
    """Seconds of user CPU time that a command takes."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, capture_output=True, check=False, cwd=ROOT)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def lints(runs: int) -> Iterable[str]:
    """A plain lint without and with a GPU, in turns."""
    yield "\n| example | lint, median | `--gpu rtx4090` | ratio | lint, least | with it | ratio |"
    yield "|---|---|---|---|---|---|---|"
    for name in _EXAMPLES:
        plain = [sys.executable, "-m", "lora_lint", "lint", "--isolated", f"examples/{name}"]
        commands = [plain, [*plain, "--gpu", "rtx4090"]]
        times: list[list[float]] = [[], []]
        for _ in range(runs):
            for found, command in zip(times, commands, strict=True):
                found.append(user_time(command))
        cells = []
        for of in (statistics.median, min):
            without, given = (1000 * of(found) for found in times)
            cells += [f"{without:.0f} ms", f"{given:.0f} ms", f"{given / without:.3f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the page or its part on speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--fitcheck", type=Path)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--runs", type=int, default=31)
    options = parser.parse_args()
    if options.speed:
        print(SPEED.format(python=sys.version.split()[0]).rstrip())
        print("\n".join([*what_ifs(), *lints(options.runs)]))
        return
    if options.file is None or options.fitcheck is None:
        parser.error("FILE and --fitcheck are needed")
    names = ("accelerate", "transformers")
    python = str(options.fitcheck.parent / "python")
    code = "from importlib.metadata import version; print(version('fitcheck-llm'))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    print(HEAD.format(fitcheck=said.stdout.strip(), **{n: version(n) for n in names}).strip())
    with tempfile.TemporaryDirectory() as home:
        tools = [
            Tool("lora-lint", ours),
            Tool("fitcheck-llm", fitcheck(options.fitcheck, Path(home))),
            Tool("accelerate", accelerate),
            Tool("LLaMA-Factory", rule_of_thumb),
        ]
        print("\n".join(table(list(read_rows(options.file)), tools)))


if __name__ == "__main__":
    main()
