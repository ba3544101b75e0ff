"""CPU time of a whole cold run, beside peers, on one Axolotl config with a catalogue model.

    python -m venv bench && bench/bin/pip install . yamllint check-jsonschema
    python benchmarks/speed.py --python bench/bin/python --peft-python python > benchmarks/speed.md

``--python`` is an environment with lora-lint and the other linters, installed as a user would;
``--peft-python`` one with torch, transformers and peft. The commands take turns, so that all see
the same machine; the table gives the median and the least of user plus system time.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "examples" / "axolotl-qlora.yaml"
# What lora-lint says in its line of facts, asked of the real thing.
PEFT = """
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(LlamaConfig())
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
print(len(model.base_model.targeted_module_names), *model.get_nb_trainable_parameters())
"""


def cpu(command: list[str]) -> float:
    """Seconds of CPU that a command takes, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, capture_output=True, check=False, env=environment, cwd=CONFIG.parent
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{command}: {done.stderr.decode()[-400:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--peft-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--runs", type=int, default=21)
    options = parser.parse_args()
    # not resolve(): the interpreter of an environment is a link out of it
    python, tools = str(options.python.absolute()), options.python.absolute().parent
    schema = Path(tempfile.mkdtemp()) / "schema.json"
    schema.write_text('{"type": "object", "required": ["base_model"]}')
    commands = {
        "`python -c pass`": [python, "-c", "pass"],
        "`python -c 'import click, yaml'`": [python, "-c", "import click, yaml"],
        "lora-lint": [str(tools / "lora-lint"), CONFIG.name, "--isolated"],
        "yamllint": [str(tools / "yamllint"), CONFIG.name],
        "check-jsonschema": [
            str(tools / "check-jsonschema"), "--schemafile", str(schema), CONFIG.name,
        ],
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in commands}
    for name, command in commands.items():
        cpu(command)  # writes the bytecode
        assert name in times
    for _ in range(options.runs):
        for name, command in commands.items():
            times[name].append(cpu(command))
    peft = [str(options.peft_python.absolute()), "-c", PEFT]
    cpu(peft)
    times["real PEFT, meta device"] = [cpu(peft) for _ in range(3)]
    ours = statistics.median(times["lora-lint"])
    print(f"CPU of a cold run on `examples/{CONFIG.name}`, Python {platform.python_version()},")
    print(f"{options.runs} runs each in turns (PEFT: 3). Made by `benchmarks/speed.py`.\n")
    print("| | median ms | least ms | × lora-lint |")
    print("|---|---:|---:|---:|")
    for name, values in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        median, least = statistics.median(values), min(values)
        print(f"| {name} | {1000 * median:,.0f} | {1000 * least:,.0f} | {median / ours:.2g} |")


if __name__ == "__main__":
    main()
