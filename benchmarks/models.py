"""How long it takes to load a model's module tree, match targets and count parameters.

    python benchmarks/models.py > benchmarks/models.md

Every known model with sizes, each read anew from the package's files, with three lists of targets;
CPU time of one process, the median of five times per model.
"""

from __future__ import annotations

import statistics
import sys
import time
from importlib import import_module

from lora_lint import inject
from lora_lint.facts import newest_peft
from lora_lint.models import catalogue, resolve
from lora_lint.models.resolve import Resolution

TARGETS = {
    "seven names": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "all-linear": "all-linear",
    "a pattern": r".*\.(q_proj|v_proj|query|value|c_attn|query_key_value)",
}
TIMES = 5
LIMIT = 5.0


def forget() -> None:
    """Empty every cache of the rooms that a first config fills."""
    for name, module in list(sys.modules.items()):
        if name.startswith("lora_lint.models"):
            for value in vars(import_module(module.__name__)).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def milliseconds(name: str, targets: object) -> tuple[float, float]:
    """Loading, and loading with matching and counting, of one model."""
    loads, wholes = [], []
    for _ in range(TIMES):
        begin = time.process_time_ns()
        found = resolve(name)
        loaded = time.process_time_ns()
        assert isinstance(found, Resolution)
        inject(found.tree, {"r": 16, "target_modules": targets}, peft=newest_peft())
        end = time.process_time_ns()
        loads.append((loaded - begin) / 1e6)
        wholes.append((end - begin) / 1e6)
    return statistics.median(loads), statistics.median(wholes)


def main() -> None:
    """Print the table."""
    ids = [entry.id for entry in catalogue.models() if entry.grade != "named"]
    begin = time.process_time_ns()
    forget()
    resolve(ids[0])
    first = (time.process_time_ns() - begin) / 1e6
    print("# Loading a model, matching targets, counting parameters\n")
    print(f"`python benchmarks/models.py`: {len(ids)} models with sizes, CPU milliseconds each.")
    print(f"The first model of a process reads the index as well: {first:.1f} ms.\n")
    print("| targets | load, median | all, median | 95th percentile | worst | over 5 ms |")
    print("|---|---|---|---|---|---|")
    for title, targets in TARGETS.items():
        times = {name: milliseconds(name, targets) for name in ids}
        loads = sorted(load for load, _ in times.values())
        wholes = sorted((whole, name) for name, (_, whole) in times.items())
        worst, which = wholes[-1]
        over = sum(whole > LIMIT for whole, _ in wholes)
        print(
            f"| {title} | {statistics.median(loads):.2f} | "
            f"{statistics.median(whole for whole, _ in wholes):.2f} | "
            f"{wholes[len(wholes) * 95 // 100][0]:.2f} | {worst:.2f} ({which}) | {over} |"
        )


if __name__ == "__main__":
    main()
