"""Compares what lora-lint reads in config files with what the framework itself makes of them.

    python tools/compare_dialects.py NAME DIR [--python PYTHON | --by-eye FILE] [--page PAGE]

The second way is tools/second_ways/NAME.py, run by a Python in which the framework is installed: it
loads every file with the framework's own parser and prints ``{file: {field: value}}``. ``--by-eye``
takes such a reading from a file instead, made by a person. DIR holds config files; nothing of it is
kept. Differences are listed; with ``--page docs/dialects.md`` the framework's row is written there.
What lora-lint says it does not know is counted apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lora_lint import documents, engine
from lora_lint.recipe import UNKNOWN
from lora_lint.settings import Settings

HERE = Path(__file__).parent
FIELDS = (
    "base_model",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "max_length",
    "per_device_train_batch_size",
    "dtype",
    "quantization",
)
HEAD = (
    "| framework | read by | files | refused by it | values compared | different | "
    "not known | fields |\n|---|---|---|---|---|---|---|---|\n"
)


def ours(path: Path, name: str) -> list[dict[str, Any]]:
    """What lora-lint takes the runs of a file for: fields, and keywords for LoraConfig."""
    linter = engine.Linter(Settings(isolated=True))
    text, _ = documents.decode(path.read_bytes())
    found = []
    for subject in linter.lint(str(path), text).subjects:
        if subject.recipe.dialect == name:
            fields = {
                field: (
                    UNKNOWN if subject.recipe[field].origin == "unset" else subject.value(field),
                    subject.kwargs.get(field),
                )
                for field in FIELDS
            }
            found.append({**fields, "adapter": subject.recipe.adapter})
    return found


def same(theirs: Any, mine: Any) -> bool:
    """Whether two values mean the same; lists of names have no order."""
    if mine is UNKNOWN:
        return False
    if isinstance(theirs, list) and isinstance(mine, list | tuple | set):
        return sorted(map(str, theirs)) == sorted(map(str, mine))
    if isinstance(theirs, bool) or isinstance(mine, bool):
        return theirs is mine
    if isinstance(theirs, int | float) and isinstance(mine, int | float):
        return abs(theirs - mine) <= 1e-9 * max(1.0, abs(theirs))
    return bool(theirs == mine)


def compare(
    readings: dict[str, dict[str, Any]], folder: Path, name: str
) -> tuple[dict[str, int], list[str], set[str]]:
    """Counts, differences in words, and the fields that were compared."""
    counts = {"files": 0, "refused": 0, "values": 0, "different": 0, "unknown": 0}
    differences, fields = [], set()
    for file, theirs in sorted(readings.items()):
        path = folder / file
        if "skipped" in theirs:
            continue  # it describes no training run
        if "error" in theirs:
            counts["refused"] += 1
            print(f"refused: {file}: {str(theirs['error'])[:160]}")
            continue
        runs = ours(path, name)
        if not runs:
            differences.append(f"{file}: no recipe")
            continue
        counts["files"] += 1
        run = runs[int(theirs.pop("run", 0))]
        for field in FIELDS:
            if field not in theirs:
                continue
            fields.add(field)
            counts["values"] += 1
            if theirs[field] is None and run[field][0] in (None, UNKNOWN):
                continue  # it is not set
            if all(mine is UNKNOWN or mine is None for mine in run[field]) and (
                UNKNOWN in run[field]
            ):
                counts["unknown"] += 1
                print(f"not known: {file}: {field} is {theirs[field]!r}")
            elif not any(same(theirs[field], mine) for mine in run[field]):
                differences.append(
                    f"{file}: {field} is {theirs[field]!r}, not {run[field][0]!r}"
                    + (f" (lowered {run[field][1]!r})" if run[field][1] != run[field][0] else "")
                )
    counts["different"] = len(differences)
    return counts, differences, fields


def row(name: str, how: str, counts: dict[str, int], fields: set[str]) -> str:
    """The framework's row of the page."""
    told = ", ".join(field for field in FIELDS if field in fields)
    return (
        f"| {name} | {how} | {counts['files']} | {counts['refused']} | {counts['values']} | "
        f"{counts['different']} | {counts['unknown']} | {told} |\n"
    )


def write_row(page: Path, name: str, new: str) -> None:
    """Put a row into the page's table, in the place of the one that is there."""
    before, _, rest = page.read_text(encoding="utf-8").partition(HEAD)
    rows, _, after = rest.partition("\n\n")
    kept = [line for line in rows.splitlines() if line and not line.startswith(f"| {name} |")]
    table = "\n".join(sorted([*kept, new.rstrip("\n")]))
    page.write_text(before + HEAD + table + "\n\n" + after.lstrip("\n"), encoding="utf-8")


def main() -> None:
    """Run the second way, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--by-eye", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--label", help="what the page calls these files, beside the framework")
    given = parser.parse_args()
    if given.by_eye:
        readings, how = json.loads(given.by_eye.read_text(encoding="utf-8")), "eye"
        for told in readings.values():
            if told.get("target_modules") == "all":
                told["target_modules"] = "all-linear"  # as lora-lint calls it
    else:
        script = HERE / "second_ways" / f"{given.name}.py"
        suffixes = (".yaml", ".yml", ".json", ".sh", ".py")
        files = sorted(
            str(path.relative_to(given.folder))
            for path in given.folder.rglob("*")
            if path.suffix in suffixes and not path.name.endswith(".calls.json")
        )
        # relative names and no PYTHONPATH: the framework's Python must not find lora_lint
        found = subprocess.run(
            [given.python, "-P", str(script.resolve()), *files],
            cwd=given.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode:
            sys.exit(found.stderr[-3000:])
        reply = json.loads(found.stdout[found.stdout.index("{") :])
        how = reply.pop("version", given.name)
        readings = reply
    counts, differences, fields = compare(readings, given.folder, given.name)
    print("\n".join(differences))
    label = f"{given.name}, {given.label}" if given.label else given.name
    new = row(label, how, counts, fields)
    print(new, end="")
    if given.page:
        write_row(given.page, label, new)


if __name__ == "__main__":
    main()
