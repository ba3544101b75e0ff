"""Rebuilds the catalogue for the installed release of transformers, and says what that changed.

    python tools/refresh_catalogue.py --configs DIR --releases DIR --dumps DIR

The arguments are those of ``tools/catalogue.py`` and ``tools/transformers_lines.py``, which it runs
one after the other, and ``tools/renamed_page.py`` after them. Then it prints, for each class, the
names that came and went (numbers as ``*``), and for each model a change of its grade. It exits with
1 where a model has another parameter count than before, or one that its evidence contradicts, or is
known no more: a catalogue with a wrong count is not to be committed. ``--only-compare REV`` builds
nothing and compares the files as they are with those of a git revision.

Afterwards ``tools/sweep_lines.py`` builds every class again, release by release.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DATA = Path("lora_lint") / "data" / "models"
_READ = """
import json, sys
from lora_lint.models import catalogue
from lora_lint.models.renamed import patterns
classes, models = {}, {}
for model_type in catalogue.model_types():
    known = catalogue.architecture(model_type)
    for cls in known.classes:
        classes[f"{model_type} {cls}"] = sorted(patterns(known.tree(cls)))
for entry in catalogue.models():
    models[entry.id] = [entry.grade, entry.load().parameter_count()]
evidence = json.loads(catalogue.packed.read("evidence.json"))
# What is published of another class of the same model, the catalogue's own command checks.
published = {n: k.get("published") for n, k in evidence.items() if "counted" not in k}
json.dump({"classes": classes, "models": models, "published": published}, sys.stdout)
"""


class State(NamedTuple):
    """A catalogue: names of each class, grade and count of each model, published counts."""

    classes: dict[str, list[str]]
    models: dict[str, tuple[str, int | None]]
    published: dict[str, int | None]


def state_of(root: Path) -> State:
    """The catalogue of a checkout, read by its own code."""
    done = subprocess.run(
        [sys.executable, "-c", _READ], cwd=root, capture_output=True, text=True, check=True
    )
    data: dict[str, Any] = json.loads(done.stdout)
    models = {name: (grade, count) for name, (grade, count) in data["models"].items()}
    return State(data["classes"], models, data["published"])


def state_at(revision: str) -> State:
    """The catalogue of a git revision."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", revision, "lora_lint"], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        return state_of(Path(folder))


def renamed(before: State, after: State) -> Iterator[str]:
    """The classes that came and went, and the names that did in the others."""
    for name in sorted({*before.classes, *after.classes}):
        if name not in after.classes:
            yield f"removed: {name}"
        elif name not in before.classes:
            yield f"added: {name}, {len(after.classes[name])} names"
        else:
            old, new = set(before.classes[name]), set(after.classes[name])
            yield from (f"{name}: - {gone}" for gone in sorted(old - new))
            yield from (f"{name}: + {came}" for came in sorted(new - old))


def regraded(before: State, after: State) -> Iterator[str]:
    """The models that came, and those whose grade changed."""
    for name, (grade, _) in sorted(after.models.items()):
        old = before.models.get(name)
        if old is None:
            yield f"added: {name}, {grade}"
        elif old[0] != grade:
            yield f"{name}: {old[0]} -> {grade}"


def wrong(before: State, after: State) -> Iterator[str]:
    """The counts that are off: other than before, other than published, or gone."""
    for name, (grade, count) in sorted(before.models.items()):
        new_grade, new_count = after.models.get(name, ("", None))
        if name not in after.models:
            yield f"{name} is known no more"
        elif count is not None and new_count is None:
            yield f"{name} has lost its sizes ({grade} -> {new_grade})"
        elif count is not None and new_count != count:
            yield f"{name} has {new_count:,} parameters, before {count:,}"
    for name, (grade, count) in sorted(after.models.items()):
        published = after.published.get(name)
        if grade == "exact" and published is not None and count != published:
            yield f"{name} has {count or 0:,} parameters, published {published:,}"


def main() -> None:
    """Rebuild, compare, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--releases", type=Path)
    parser.add_argument("--dumps", type=Path)
    parser.add_argument("--only-compare", metavar="REV", help="compare with a revision alone")
    given = parser.parse_args()
    if given.only_compare is None and not (given.configs and given.releases and given.dumps):
        parser.error("--configs, --releases and --dumps are needed")
    before = state_at(given.only_compare) if given.only_compare else state_of(ROOT)
    if given.only_compare is None:
        folders = ["--configs", str(given.configs)]
        steps = (
            ["catalogue.py", *folders],
            [
                "transformers_lines.py",
                *folders,
                *("--releases", str(given.releases), "--dumps", str(given.dumps)),
            ],
            ["renamed_page.py"],
        )
        for script, *arguments in steps:
            command = [sys.executable, str(ROOT / "tools" / script), *arguments]
            subprocess.run(command, cwd=ROOT, check=True)
    after = state_of(ROOT)
    for line in (*renamed(before, after), *regraded(before, after)):
        print(line)
    off = list(wrong(before, after))
    for line in off:
        print(f"wrong: {line}")
    exact = sum(grade == "exact" for grade, _ in after.models.values())
    print(
        f"{len(after.classes)} classes, {len(after.models)} models, {exact} exact, {len(off)} off"
    )
    sys.exit(1 if off else 0)


if __name__ == "__main__":
    main()
