"""Reads a folder of real Python files, notebooks and shell scripts, and prints what lora-lint makes
of them, by dialect.

    python tools/real_sources.py DIR [--calls] [--findings] [--unknown]

For each dialect: files and runs found, how often each field that decides most is static, a default
of an option, unset or unknown and for which reasons, findings by rule, and any traceback.
``--calls`` lists the calls that look like a LoRA config in the text and belong to no run that was
found, as an independent look; ``--findings`` and ``--unknown`` list what they name with its place.
Nothing of the files is executed.
"""

from __future__ import annotations

import argparse
import re
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lora_lint import lint_text
from lora_lint.dialects import recipes
from lora_lint.documents import parse

if TYPE_CHECKING:
    from lora_lint.recipe import Recipe

FIELDS = ("base_model", "r", "lora_alpha", "lora_dropout", "target_modules", "quantization")
SUFFIXES = (".py", ".ipynb", ".sh")
# What an independent look counts: calls at which a LoRA config is made. Definitions, comments and
# the docstrings' `>>>` lines are none.
_CALL = re.compile(
    r"^(?!\s*(?:def|class|#|>>>|\.\.\.|\"?\s*#))(?:[^#\n]*?)\b(LoraConfig|Fast\w+\.get_peft_model)\(",
    re.MULTILINE,
)
MAX_SHOWN = 12


class Read(NamedTuple):
    """What was read of one file; ``error`` is a traceback."""

    path: Path
    recipes: list[Recipe]
    findings: list[tuple[str, str, str]]
    calls: int
    problem: str | None = None
    error: str | None = None


def read(path: Path) -> Read:
    """One file through the parser, the dialects and the rules."""
    text = path.read_text(encoding="utf-8", errors="replace")
    calls = len(_CALL.findall(text.replace("\\n", "\n") if path.suffix == ".ipynb" else text))
    try:
        document = parse(str(path), text)
        found = recipes(document)
        report = lint_text(text, str(path))
        findings = [
            (d.code, d.severity, f"{path}:{d.key_path}: {d.message}") for d in report.diagnostics
        ]
    except Exception:  # noqa: BLE001 - a fault of ours is a figure here
        return Read(path, [], [], calls, error=traceback.format_exc())
    problem = document.problem.message if document.problem else None
    return Read(path, found, findings, calls, problem)


def dialects(files: list[Read]) -> dict[str, list[tuple[Read, Recipe]]]:
    """The runs by dialect."""
    made: dict[str, list[tuple[Read, Recipe]]] = defaultdict(list)
    for file in files:
        for recipe in file.recipes:
            made[recipe.dialect].append((file, recipe))
    return made


def reason(recipe: Recipe, name: str) -> str:
    """Why a field is unknown, with names of variables taken out."""
    return re.sub(r"`[^`]*`", "`...`", recipe[name].detail or "no reason given")


def print_dialect(name: str, runs: list[tuple[Read, Recipe]], *, unknown: bool) -> None:
    """The figures of one dialect."""
    print(f"\n{name}: {len({file.path for file, _ in runs})} files, {len(runs)} runs")
    for field in FIELDS:
        origins = Counter(
            "a default" if recipe[field].origin == "default" and recipe[field].path
            else recipe[field].origin
            for _, recipe in runs
        )  # fmt: skip
        print(
            f"  {field:16}", ", ".join(f"{count} {kind}" for kind, count in origins.most_common())
        )
        reasons = Counter(
            reason(recipe, field) for _, recipe in runs if recipe[field].origin == "unknown"
        )
        for text, count in reasons.most_common(MAX_SHOWN):
            print(f"    {count:4}  {text}")
    if unknown:
        for file, recipe in runs:
            for field in FIELDS[1:]:
                if recipe[field].origin == "unknown":
                    print(f"    {file.path}: {field}: {recipe[field].detail}")


def main() -> None:
    """Read the files and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--findings", action="store_true")
    parser.add_argument("--unknown", action="store_true")
    given = parser.parse_args()
    paths = sorted(p for p in given.folder.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    files = [read(path) for path in paths]
    with_runs = [file for file in files if file.recipes]
    print(f"{len(files)} files, {len(with_runs)} with runs, {sum(f.calls > 0 for f in files)} with")
    print(f"calls that look like a LoRA config; {sum(bool(f.problem) for f in files)} do not parse")
    for name, runs in sorted(dialects(files).items()):
        print_dialect(name, runs, unknown=given.unknown)
    codes = Counter((code, severity) for file in files for code, severity, _ in file.findings)
    print("\nfindings:", ", ".join(f"{n} {c} {s}" for (c, s), n in sorted(codes.items())) or "none")
    for file in files:
        if file.error:
            print(f"\n{file.path}\n{file.error}")
        if file.problem:
            print(f"{file.path}: does not parse: {file.problem}")
        if given.calls and file.calls != len(file.recipes):
            print(f"{file.path}: {file.calls} calls in the text, {len(file.recipes)} runs")
        if given.findings:
            for code, severity, text in file.findings:
                if severity != "info":
                    print(f"{severity} {code} {text}")
    print(f"\n{sum(bool(f.error) for f in files)} tracebacks")


if __name__ == "__main__":
    main()
