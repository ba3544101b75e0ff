"""Counts which base models of a corpus have a module tree offline, and says why others have none.

    python tools/corpus_models.py DIR > docs/corpus-models.md

``DIR/index.jsonl`` has a line per config with ``base_model``, as found by reading the text; beside
it count the base models that lora-lint itself reads out of the files and records
(``tools/corpus_records.py``). Every name counts once. Apart from the rest stand names that are no
model's (a path on somebody's disk, a template, a placeholder, a builder of torchtune, which the
dialect reads as the model it builds) and models whose repositories bring their own code.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from corpus_records import program, script

from lora_lint import documents, engine
from lora_lint.models import Resolution, resolve
from lora_lint.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lora_lint.checks import RecipeSubject

Kind = Literal["path", "template", "builder", "placeholder", "own code", "sized", "named", "none"]

# Names that stand where a model's would.
PLACEHOLDERS = {
    "acme/model": "what tools/corpus_records.py writes for a model that a record does not name",
    "path-to-your-model": "says so",
    "peft-lora-with-custom-model": "the name under which an example of PEFT's saves its adapter",
    "peft-lora-with-timm-model": "the name under which an example of PEFT's saves its adapter",
}
# What is known of models that have no tree, beyond that.
LINEARIZED = "its experts are split into Linear layers, which no class of transformers has"
BECAUSE = {
    "BlackSamorez/Mixtral-8x7b-AQLM-2Bit-1x16-hf-test-dispatch": "AQLM's layers, with experts that "
    "are modules, which they are not in transformers 5",
    "LnL-AI/dbrx-base-converted-v2": LINEARIZED,
    "axolotl-quants/Llama-4-Maverick-17B-128E-Linearized-bnb-nf4-bf16": LINEARIZED,
    "axolotl-quants/Llama-4-Scout-17B-16E-Linearized-bnb-nf4-bf16": LINEARIZED,
    "google/diffusiongemma-26B-A4B-it": "the catalogue has no template of its class, whose default "
    "config does not build",
}
HEAD = """\
# The base models of real configs

Whether the {names} base models that {files} public configs and records name have a module tree
without a network, and of which grade. Made by `tools/corpus_models.py`.

| names | | |
|---|---:|---|
| no model's | {nothing} | {what} |
| of models with their own code | {own} | never run; `--model` takes a saved module tree |
| of models | {models} | |
| · with a tree | {resolved} | {resolved_share} % |
| · · with sizes (*exact* or *dims*) | {sized} | {sized_share} % |
| · · names only | {named} | targets are checked, counts and memory are not |
| · without | {none} | {none_share} % |
"""
NOTHING = {
    "path": "paths on somebody's disk",
    "template": "templates",
    "builder": "builders of torchtune, read as the models that they build",
    "placeholder": "placeholders",
}


class Model(NamedTuple):
    """A name of the corpus: what it is, its grade or the reason why there is no tree."""

    name: str
    kind: Kind
    detail: str


def named(folder: Path) -> dict[str, int]:
    """The base models of ``index.jsonl``, and how many of its lines name each."""
    found: Counter[str] = Counter()
    for line in (folder / "index.jsonl").read_text(encoding="utf-8").splitlines():
        value = json.loads(line).get("base_model")
        found.update(name for name in (value if isinstance(value, list) else [value]) if name)
    return found


def subjects(folder: Path) -> Iterator[RecipeSubject]:
    """The runs that lora-lint reads in the files and records of a corpus."""
    linter = engine.Linter(Settings(isolated=True))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name == "index.jsonl":
            continue
        name = str(path)
        if path.name.endswith((".calls.json", ".opts.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            calls = path.name.endswith(".calls.json")
            section = path.relative_to(folder).parts[0]
            text = program(record) if calls else script(record, section, path)
            name = "record.py" if calls else "record.sh"
        else:
            text, _ = documents.decode(path.read_bytes())
        yield from linter.lint(name, text).subjects


def judge(name: str) -> Model:
    """What a name is, and whether it leads to a tree."""
    if name.startswith("torchtune."):
        return Model(name, "builder", "")
    if name in PLACEHOLDERS:
        return Model(name, "placeholder", PLACEHOLDERS[name])
    if re.search(r"[${}<>]", name):
        return Model(name, "template", "")
    if name.startswith(("/", "~", ".")) or name.count("/") > 1:
        return Model(name, "path", "")
    found = resolve(name)
    if isinstance(found, Resolution):
        return Model(name, "sized" if found.tree.sized else "named", found.tree.grade)
    if found.remote_code:
        return Model(name, "own code", found.reason)
    return Model(name, "none", BECAUSE.get(name, "no source for its architecture was found"))


def page(models: list[Model], files: int) -> Iterator[str]:
    """The page's lines."""
    counts = Counter(model.kind for model in models)
    resolved = counts["sized"] + counts["named"]
    every = resolved + counts["none"]
    yield HEAD.format(
        names=len(models),
        files=files,
        nothing=sum(counts[kind] for kind in NOTHING),
        what=", ".join(f"{counts[kind]} {what}" for kind, what in NOTHING.items()),
        own=counts["own code"],
        models=every,
        resolved=resolved,
        resolved_share=_share(resolved, every),
        sized=counts["sized"],
        sized_share=_share(counts["sized"], every),
        named=counts["named"],
        none=counts["none"],
        none_share=_share(counts["none"], every),
    )
    yield "## Without a tree\n"
    yield from (f"- `{m.name}`: {m.detail}" for m in models if m.kind == "none")
    yield "\n## Names only\n"
    yield "One source for their dimensions or none, so that sizes are left out.\n"
    yield ", ".join(f"`{m.name}`" for m in models if m.kind == "named")
    yield "\n## With their own code\n"
    yield ", ".join(f"`{m.name}`" for m in models if m.kind == "own code")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f}"


def main() -> None:
    """Read the corpus and print the page."""
    from pathlib import Path

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    corpus = parser.parse_args().corpus
    names = set(named(corpus))
    for subject in subjects(corpus):
        value = subject.value("base_model")
        if isinstance(value, str) and value:
            names.add(value)
    lines = (corpus / "index.jsonl").read_text(encoding="utf-8").splitlines()
    for line in page([judge(name) for name in sorted(names, key=str.lower)], len(lines)):
        print(line)


if __name__ == "__main__":
    main()
