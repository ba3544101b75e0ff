"""Measures which transformers releases each PEFT release imports with, and writes
``lora_lint/data/compatibility.json``.

    python tools/compatible_versions.py [--build DIR] [--transformers 4.31.0 4.57.6 ...]

Each pair is tried by importing LoraConfig and get_peft_model. The releases that import with a PEFT
are taken to be neighbours, so that each end is found by bisection from the release of its age
(tests/oracle/pins.txt). An import that fails for another reason than a name that transformers
lacks ends the command with an error. Answers are kept in DIR/answers.json; a new release of either
is measured alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = ROOT / "lora_lint" / "data" / "compatibility.json"
PINS = ROOT / "tests" / "oracle" / "pins.txt"
# Releases to try, each the last or the first of a stretch in which names came or went.
_BEFORE_5 = "4.27.4 4.31.0 4.36.2 4.39.3 4.41.2 4.43.4 4.46.3 4.49.0 4.51.3 4.53.3 4.55.4 4.57.6"
TRIED = [*_BEFORE_5.split(), "5.0.0", "5.5.4", "5.12.1", "5.23.0"]
IMPORT = "import peft; from peft import LoraConfig, get_peft_model; print('imported')"
LACKS = re.compile(
    r"cannot import name '\w+' from '(transformers[\w.]*)'|No module named 'transformers[\w.]*'"
)


def key(version: str) -> tuple[int, ...]:
    """A release for comparing."""
    return tuple(int(part) for part in version.split("."))


def pip(*arguments: str) -> None:
    """Run pip, quietly."""
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, capture_output=True)


class Bench:
    """One environment for each transformers, one folder for each PEFT."""

    def __init__(self, build: Path, pins: dict[str, list[str]]) -> None:
        self.build, self.pins = build, pins
        self.file = build / "answers.json"
        build.mkdir(parents=True, exist_ok=True)
        self.answers: dict[str, str] = (
            json.loads(self.file.read_text()) if self.file.exists() else {}
        )

    def imports(self, peft: str, transformers: str) -> bool:
        """Whether a PEFT imports with a transformers."""
        pair = f"{peft} {transformers}"
        if pair not in self.answers:
            command = [str(self.environment(transformers)), "-W", "ignore", "-c", IMPORT]
            found = {**os.environ, "PYTHONPATH": str(self.package(peft))}
            done = subprocess.run(command, env=found, capture_output=True, text=True, check=False)
            answer = "" if "imported" in done.stdout else done.stderr.strip().splitlines()[-1]
            if answer and not LACKS.search(answer):
                raise SystemExit(f"peft {peft} with transformers {transformers}: {answer}")
            self.answers[pair] = LACKS.search(answer).group() if answer else "imports"
            self.file.write_text(json.dumps(self.answers, indent=1) + "\n")
            print(f"peft {peft} with transformers {transformers}: {self.answers[pair]}")
        return self.answers[pair] == "imports"

    def environment(self, transformers: str) -> Path:
        """A Python with a transformers; torch and the rest come from the running one."""
        home = self.build / f"transformers-{transformers}"
        python = home / "bin" / "python"
        if not (home / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
            site = next((home / "lib").glob("python*/site-packages"))
            (site / "zz_outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
            own = next((p for p in self.pins.values() if f"transformers=={transformers}" in p), ())
            extra = [r for r in own if r.startswith(("numpy", "huggingface_hub"))]
            pip("--python", str(python), "install", f"transformers=={transformers}", *extra)
            (home / "complete").touch()
        return python

    def package(self, peft: str) -> Path:
        """A folder with a PEFT alone."""
        folder = self.build / f"peft-{peft}"
        if not folder.exists():
            pip("install", "--no-deps", "--target", str(folder), f"peft=={peft}")
        return folder


def ends(bench: Bench, peft: str, tried: list[str], own: str) -> tuple[str, str]:
    """The oldest and the newest transformers that a PEFT imports with."""
    start = max(i for i, version in enumerate(tried) if key(version) <= key(own))

    def furthest(beyond: int) -> str:
        """The last release towards one that is out of the question, by bisection."""
        good, bad = start, beyond
        while abs(bad - good) > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if bench.imports(peft, tried[middle]) else (good, middle)
        return tried[good]

    return furthest(-1), furthest(len(tried))


def released(package: str) -> list[str]:
    """All final releases on the package index, oldest first."""
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    listed = next(line for line in lines if line.startswith("Available versions:"))
    versions = (version.strip() for version in listed.partition(":")[2].split(","))
    return sorted((v for v in versions if re.fullmatch(r"[\d.]+", v)), key=key)


def releases() -> dict[str, list[str]]:
    """The releases of packages that decide something beside PEFT, oldest first."""
    return {package: released(package) for package in ("transformers", "bitsandbytes", "trl")}


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=Path("build/compatible"))
    parser.add_argument("--transformers", nargs="+", default=TRIED)
    parser.add_argument("--releases", action="store_true", help="refresh the releases alone")
    options = parser.parse_args()
    if options.releases:
        facts = json.loads(DATA.read_text(encoding="utf-8")) | releases()
        DATA.write_text(json.dumps(facts, indent=1) + "\n")
        return
    pins = {}
    for line in PINS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            parts = line.split()
            pins[parts[0].partition("==")[2]] = parts[1:]
    bench = Bench(options.build.absolute(), pins)
    found = {}
    for peft in sorted(pins, key=key):
        own = next(p for p in pins[peft] if p.startswith("transformers==")).partition("==")[2]
        found[peft] = ends(bench, peft, sorted(options.transformers, key=key), own)
        print(f"peft {peft}: transformers {found[peft][0]} to {found[peft][1]}")
    facts = {
        "generated_by": "python tools/compatible_versions.py",
        "tried": options.transformers,
        "peft": found,
        "lacks": {
            pair: answer for pair, answer in sorted(bench.answers.items()) if answer != "imports"
        },
        **releases(),
    }
    DATA.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
