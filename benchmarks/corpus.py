"""A whole folder in one run: files per second, CPU per file, peak memory; alone and in parallel.

    python benchmarks/corpus.py DIR > benchmarks/corpus.md

Each run is a process of its own, as a user starts it; the runs with one job and with several take
turns, and the table gives the least of each, since other work on a machine only adds. The last line
lints the folder again and again in one process, through the API, and tells its memory after the
first round and after the last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from lora_lint.parallel import usable_cores

ROUNDS = 10
AGAIN = """
import sys
from lora_lint import Options, lint_file
from lora_lint.engine import listed
paths = list(listed([sys.argv[1]]))
for _ in range(int(sys.argv[2])):
    for path in paths:
        try:
            lint_file(path, Options(hook=True))
        except OSError:
            pass
    with open("/proc/self/statm") as file:
        print(int(file.read().split()[1]))
"""


class Run(NamedTuple):
    """A run: seconds on the clock, seconds of CPU in all processes, KiB of the largest process."""

    wall: float
    cpu: float
    peak: float
    report: str


def run(folder: str, *options: str) -> Run:
    """Lint a folder once. Its workers' CPU and memory count, since it waits for them."""
    command = [sys.executable, "-m", "lora_lint", folder, "--isolated", *options]
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        if os.waitstatus_to_exitcode(status) not in (0, 1):
            raise SystemExit(f"{command} ended with {status}")
        output.seek(0)
        return Run(
            wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, output.read().decode("utf-8")
        )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--jobs", type=int, default=usable_cores())
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    summary = json.loads(run(options.folder, "--output-format", "json").report)["summary"]
    files = summary["files"]
    jobs = dict.fromkeys((1, options.jobs))
    runs: dict[int, list[Run]] = {count: [] for count in jobs}
    for _ in range(options.runs):
        for count in jobs:
            runs[count].append(run(options.folder, "--jobs", str(count)))
    reports = {measured.report for several in runs.values() for measured in several}
    print(f"{files} config files, in which lora-lint reads {summary['recipes']} runs; Python")
    print(f"{platform.python_version()}, {os.cpu_count()} cores, the least of {options.runs} runs")
    print("each in turns. Made by `benchmarks/corpus.py`.\n")
    print("| jobs | files per second | CPU per file | peak memory of the largest process |")
    print("|---:|---:|---:|---:|")
    for count, several in runs.items():
        wall, cpu, peak = (
            min(getattr(measured, name) for measured in several) for name in ("wall", "cpu", "peak")
        )
        print(
            f"| {count} | {files / wall:,.0f} | {1000 * cpu / files:.1f} ms "
            f"| {peak / 1024:,.0f} MiB |"
        )
    same = "the same, byte for byte" if len(reports) == 1 else "NOT THE SAME"
    print(f"\nThe {sum(map(len, runs.values()))} reports are {same}.")
    again = [sys.executable, "-c", AGAIN, options.folder, str(ROUNDS)]
    done = subprocess.run(again, capture_output=True, text=True, check=True)
    sizes = [int(line) * resource.getpagesize() / 2**20 for line in done.stdout.split()]
    print(
        f"The folder {ROUNDS} times over in one process, through the API: {sizes[0]:.0f} MiB after "
        f"the first round,\n{sizes[-1]:.0f} MiB after the last ({min(sizes):.0f} to "
        f"{max(sizes):.0f} between)."
    )


if __name__ == "__main__":
    main()
