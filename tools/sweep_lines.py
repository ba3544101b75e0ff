"""Builds classes of older transformers releases again and compares them with the catalogue.

    python tools/sweep_lines.py --releases DIR [--every N] [--configs DIR] [VERSION ...]

``DIR`` holds one folder for each release, as ``tools/transformers_lines.py`` describes; without
versions all of them are checked. Each release has a process of its own, which builds every class
of every N-th model type on the meta device, first values of the weights included, and compares
names, kinds, shapes, ties and facts with those that the catalogue gives for that release; with
``--configs`` also those of the known models. Prints figures; exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_lint.models.module_tree import ModuleTree

HERE = Path(__file__).parent


def check_release(every: int, jobs: dict[str, list[Any]]) -> dict[str, Any]:
    """Compare the installed release; what was counted, and what differs."""
    import meta_models
    from catalogue_templates import without_sizes
    from line_dump import read_or_say

    from lora_lint.models import lines

    version = meta_models.transformers.__version__
    line = lines.line_of(version)
    equal = not_built = 0
    different: list[str] = []
    unknown: list[str] = []
    for number, (model_type, classes) in enumerate(sorted(meta_models.auto_classes().items())):
        if number % every:
            continue
        for cls in classes:
            built = read_or_say(cls, model_type, None)
            if isinstance(built, str):
                not_built += 1
                continue
            stored = lines.template(model_type, cls, line)
            if stored is None:
                unknown.append(cls)
            elif text(without_sizes(built)) == text(stored):
                equal += 1
            else:
                different.append(f"{cls}: {difference(without_sizes(built), stored)}")
    known = 0
    for number, (name, (cls, model_type, values)) in enumerate(sorted(jobs.items())):
        stored = known_tree(name, version)
        if number % every or not isinstance(stored, lines.ModuleTree):
            continue
        built = read_or_say(cls, model_type, values)
        if isinstance(built, str):
            not_built += 1
        elif skeleton(built if stored.sized else without_sizes(built)) == skeleton(stored):
            known += 1
        else:
            different.append(f"{name}: {difference(built, stored)}")
    return {
        "release": version,
        "equal": equal,
        "known models equal": known,
        "not built": not_built,
        "unknown": unknown,
        "different": different,
    }


def known_tree(name: str, version: str) -> ModuleTree | None:
    """A known model's stored tree in a release, None where its sizes are not known there."""
    from lora_lint.models import catalogue, lines

    own = lines.of_known(name)
    number = own.number(name, lines.line_of(version)) if own is not None else None
    if own is None or number is None:
        return None
    found = lines.at(catalogue.load_tree(name), name, version)
    return None if isinstance(found, str) else found


def text(tree: ModuleTree) -> str:
    """All that a tree says, the order of its facts aside."""
    facts = dict(sorted(tree.facts.items()))
    return replace(tree, transformers=None, facts=facts).to_json()


def skeleton(tree: ModuleTree) -> tuple[Any, ...]:
    """Names, kinds, shapes and ties of a tree."""
    nodes = [(name, node.cls, node.kind, node.parameters) for name, node in tree.named_modules()]
    return nodes, tree.tied, dict(tree.shared)


def difference(built: ModuleTree, stored: ModuleTree) -> str:
    """The first thing in which two trees differ."""
    ours = {name: (n.cls, n.kind, dict(n.parameters)) for name, n in stored.named_modules()}
    theirs = {name: (n.cls, n.kind, dict(n.parameters)) for name, n in built.named_modules()}
    for name in [*theirs, *ours]:
        if ours.get(name) != theirs.get(name):
            return f"{name}: {theirs.get(name)} and not {ours.get(name)}"
    for fact in {*built.facts, *stored.facts}:
        if built.facts.get(fact) != stored.facts.get(fact):
            return f"{fact}: {built.facts.get(fact)} and not {stored.facts.get(fact)}"
    return f"ties: {built.tied} and not {stored.tied}"


def run(folder: Path, every: int, jobs: Path | None) -> dict[str, Any]:
    """Check one release in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--inside", "--every", str(every)]
    if jobs is not None:
        command += ["--jobs", str(jobs)]
    paths = os.pathsep.join((str(folder), str(HERE.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Check releases, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*")
    parser.add_argument("--releases", type=Path)
    parser.add_argument("--every", type=int, default=1, help="one of so many model types")
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--jobs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        jobs = json.loads(options.jobs.read_text(encoding="utf-8")) if options.jobs else {}
        print(json.dumps(check_release(options.every, jobs)))
        return
    if options.configs is not None:
        from transformers_lines import known_jobs

        options.jobs = Path(tempfile.mkdtemp()) / "jobs.json"
        options.jobs.write_text(json.dumps(known_jobs(options.configs)), encoding="utf-8")
    folders = [path for path in options.releases.iterdir() if path.is_dir()]
    failed = False
    for folder in sorted(folders):
        if options.versions and folder.name not in options.versions:
            continue
        result = run(folder, options.every, options.jobs)
        unknown, different = result.pop("unknown"), result.pop("different")
        print(result, f"{len(unknown)} unknown, {len(different)} different", flush=True)
        for line in different:
            print(f"    different: {line:.300}")
        failed = failed or bool(different)
    sys.exit(failed)


if __name__ == "__main__":
    main()
