"""Writes docs/transformers-5-names.md: the models whose module names differ in transformers 5.

    python tools/renamed_page.py [--check]

All of it comes from the trees of both releases (``lora_lint/data/models``).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from lora_lint.models import catalogue, lines
from lora_lint.models.renamed import LAST_4, Renamed, patterns, renames

PAGE = Path(__file__).parent.parent / "docs" / "transformers-5-names.md"
# What most people fine-tune a model type as; one class stands for the others.
USUAL = ("CausalLM", "ImageTextToText", "Seq2SeqLM", "MaskedLM", "ImageClassification", "")

HEAD = """# Module names that changed in transformers 5

What you write in `target_modules`, `modules_to_save` and patterns are names inside the model, and
transformers 5 gave many models other ones than {old} had. An old recipe then stops with "Target
modules not found", or, worse, trains a part of what it did, in silence. lora-lint decides each
config for the transformers you use; this page is made from its catalogue
(`python tools/renamed_page.py`), transformers {old} against {new}: {types} of {all} model types
that both have.

`lora-lint inspect MODEL` shows the names of one model, and what PEFT takes of them.
"""
FUSED = """## Experts that are parameters now

The experts were linear layers and are stacked in one parameter each. `target_modules` does not
reach a parameter; write it in `target_parameters` (PEFT 0.17 or newer, `lora_dropout: 0`), or see
what PEFT 0.19 and newer make of the old names with `lora-lint show`. Where an old name is also that
of a dense layer, it still matches there, and there alone.

| model type | 4 | 5 |
|---|---|---|"""
MOVED = """## Other paths

Lists of last names (`q_proj`) are not touched by these. Full names, regular expressions that begin
at the front and `exclude_modules` are.

| model type (class) | 4 | 5 |
|---|---|---|"""


class Row(NamedTuple):
    """A model type that changed: what became of which name, and where paths moved."""

    model_type: str
    cls: str
    change: Renamed
    moved: tuple[tuple[str, str], ...]


def rows() -> list[Row]:
    """All of them."""
    found = []
    for model_type in catalogue.model_types():
        own = lines.of_model_type(model_type)
        if own is None:
            continue
        change = renames(model_type)
        if change is None:
            continue
        cls = usual_class(model_type)
        found.append(Row(model_type, cls, change, moved(model_type, cls)))
    return found


def usual_class(model_type: str) -> str:
    """The class that stands for a model type: one that changed, of the most usual task."""
    known = catalogue.architecture(model_type)
    assert known is not None
    changed = [cls for cls in known.classes if renames(model_type, cls) is not None]
    for task in USUAL:
        for cls in changed:
            if task in known.tasks(cls):
                return cls
    return changed[0]


def moved(model_type: str, cls: str) -> tuple[tuple[str, str], ...]:
    """Prefixes that modules of the same last name and shape have before and after."""
    before = lines.template(model_type, cls, lines.line_of(LAST_4))
    after = lines.template(model_type, cls, lines.newest())
    if before is None or after is None:
        return ()
    old, new = patterns(before), patterns(after)
    gone, came = old - new, new - old
    pairs = {prefixes(name, came) for name in gone}
    return tuple(sorted(pair for pair in pairs if pair is not None and holds(*pair, gone, came)))


def holds(old: str, new: str, gone: set[str], came: set[str]) -> bool:
    """Whether all names that are gone from a path are found again under another, and no other."""
    there = {name.removeprefix(f"{old}.") for name in gone if name.startswith(f"{old}.")}
    begin = f"{new}." if new else ""
    return len(there) > 1 and all(f"{begin}{rest}" in came for rest in there)


def prefixes(name: str, names: set[str]) -> tuple[str, str] | None:
    """How the path to a name changed, where exactly one other path leads to the same end."""
    steps = name.split(".")
    for start in range(1, len(steps)):
        tail = ".".join(steps[start:])
        ends = [other for other in names if other == tail or other.endswith("." + tail)]
        if len(ends) == 1 and (start < len(steps) - 1 or len(steps) == 1):
            head = ends[0][: len(ends[0]) - len(tail)].rstrip(".")
            return ".".join(steps[:start]), head
        if ends:
            return None
    return None


def code(names: object) -> str:
    """Names for a table's cell."""
    return ", ".join(f"`{name}`" for name in names)  # type: ignore[attr-defined]


def page() -> str:
    """The page's text."""
    found = rows()
    both = sum(lines.has_model_type(t, lines.line_of(LAST_4)) for t in catalogue.model_types())
    new = lines.newest().release
    text = [HEAD.format(old=LAST_4, new=new, types=len(found), all=both)]
    text += _renamed([row for row in found if row.change.became])
    text += _fused([row for row in found if row.change.fused or row.change.fused_experts])
    text += _moved([row for row in found if row.moved])
    listed = {row.model_type for row in found if row.change.became or row.moved}
    listed |= {row.model_type for row in found if row.change.fused or row.change.fused_experts}
    text += _others([row for row in found if row.model_type not in listed])
    return "\n".join(text)


def _renamed(found: list[Row]) -> list[str]:
    text = ["## Other names", ""]
    text += ["| model type | 4 | 5 |", "|---|---|---|"]
    groups: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = defaultdict(list)
    for row in found:
        groups[tuple(sorted(row.change.became.items()))].append(row.model_type)
    for became, types in sorted(groups.items(), key=lambda item: item[1]):
        for index, (old, new) in enumerate(became):
            text.append(f"| {', '.join(types) if not index else ''} | `{old}` | {code(new)} |")
    return [*text, ""]


def _fused(found: list[Row]) -> list[str]:
    text = [FUSED]
    for row in found:
        known = row.change.fused
        old = code(sorted(known)) or "linear layers of the experts"
        new = code(sorted(set(known.values()))) or "parameters of the experts"
        text.append(f"| {row.model_type} | {old} | {new} |")
    return [*text, ""]


def _moved(found: list[Row]) -> list[str]:
    text = [MOVED]
    for row in found:
        for index, (old, new) in enumerate(row.moved):
            name = f"{row.model_type} ({row.cls})" if not index else ""
            text.append(f"| {name} | `{old}` | {f'`{new}`' if new else 'the top'} |")
    return [*text, ""]


def _others(found: list[Row]) -> list[str]:
    if not found:
        return []
    text = [
        "## Other modules",
        "",
        "Here modules came or went, and what became of an old one is not proven.",
        "",
        "| model type | gone | new |",
        "|---|---|---|",
    ]
    for row in found:
        gone, new = code(row.change.gone), code(row.change.new)
        text.append(f"| {row.model_type} | {gone or '-'} | {new or '-'} |")
    return [*text, ""]


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare with the file")
    text = page()
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE.name} is stale; run python tools/renamed_page.py")
        return
    PAGE.write_text(text, encoding="utf-8", newline="\n")
    print(f"{PAGE.name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
