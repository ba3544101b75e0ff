"""Edits real files at random and checks that nothing else in them changes.

    python tools/corpus_edits.py CORPUS [--examples N]

CORPUS is a folder of YAML and JSON files as people wrote them. Hypothesis draws a file, a place in
it and an edit (another value, a shorter or longer list, a key that goes, comes or is renamed). The
reference loader must read the result as the old content with exactly that change, every character
outside the edits must be as before, and every comment must still be there but those of what was
removed. Then each file gets all its fixes, which must leave it readable.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lint import documents
from lora_lint.documents.document import Document, NotEditable
from lora_lint.engine import Linter
from lora_lint.fixes import apply_edits
from lora_lint.settings import Options, settle

VALUES = st.sampled_from(["q_proj", "all-linear", 8, 0.05, True, None, "a: b", "x # y", "'", "é"])
NAMES = st.lists(st.sampled_from(["q_proj", "k_proj", "v_proj", "o_proj"]), min_size=1, unique=True)
counts: Counter[str] = Counter()


def load(document: Document, text: str) -> Any:
    """What the reference loader makes of a text: the documents of a YAML stream, or JSON."""
    if document.format == "json":
        return [json.loads(text.removeprefix("\ufeff"))]
    return list(yaml.load_all(text.removeprefix("\ufeff"), yaml.CSafeLoader))


def mappings(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """The mappings below a node that have keys of text, with their paths."""
    found = [(path, node)] if node.kind == "mapping" and node.entries else []
    for entry in node.entries:
        if isinstance(entry.key, str) and node.entry(entry.key) is entry and not entry.merged:
            found += mappings(entry.node, (*path, entry.key))
    for index, item in enumerate(node.items):
        found += mappings(item, (*path, index))
    return found


def at(content: Any, path: tuple[Any, ...]) -> Any:
    """The part of loaded content that a path leads to."""
    for step in path:
        content = content[step]
    return content


def check(document: Document, data: st.DataObject) -> None:
    """Make one edit, and compare."""
    before = load(document, document.text)
    number = data.draw(st.integers(0, len(document.parts) - 1))
    places = mappings(document.parts[number].node)
    if not places or len(before) != len(document.parts):
        return
    path, holder = data.draw(st.sampled_from(places))
    keys = [e.key for e in holder.entries if isinstance(e.key, str) and not e.merged]
    if not keys or len(set(keys)) != len(keys):
        return
    key = data.draw(st.sampled_from(keys))
    kind = data.draw(st.sampled_from(["replace", "list", "remove", "insert", "rename"]))
    expected = copy.deepcopy(before)
    target = at(expected[number], path)
    entry = holder.entry(key)
    try:
        if kind == "replace":
            value = data.draw(VALUES)
            edits = document.replace(entry.node, value)
            target[key] = value
        elif kind == "list":
            if entry.node.kind != "sequence":
                return
            value = data.draw(NAMES)
            edits = document.replace(entry.node, value)
            target[key] = value
        elif kind == "remove":
            edits = document.remove_key(holder, entry)
            del target[key]
        elif kind == "insert":
            value = data.draw(VALUES | NAMES)
            if "lora_new" in target:
                return
            edits = document.insert_key(holder, "lora_new", value, [key])
            target["lora_new"] = value
        else:
            if "lora_new" in target:
                return
            edits = document.rename_key(holder, entry, "lora_new")
            target["lora_new"] = target.pop(key)
    except NotEditable:
        counts["refused"] += 1
        return
    after = apply_edits(document.text, edits)
    counts[kind] += 1
    assert load(document, after) == expected, (document.path, path, key, kind)
    removed = "".join(document.text[e.start : e.end] for e in edits)
    for comment in document.comments():
        text = document.text[comment.span.start : comment.span.end]
        assert text in after or text in removed, (document.path, path, key, kind, text)


def main() -> None:
    """Read the corpus, edit, and apply all fixes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--examples", type=int, default=5000)
    arguments = parser.parse_args()
    read = []
    for path in sorted(arguments.corpus.rglob("*")):
        if path.suffix in (".yaml", ".yml", ".json") and not path.name.endswith(".calls.json"):
            text, _ = documents.decode(path.read_bytes())
            document = documents.parse(str(path), text)
            if document.problem is None and document.parts:
                read.append(document)
    print(f"{len(read)} files")

    @settings(
        max_examples=arguments.examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(read), st.data())
    def edit(document: Document, data: st.DataObject) -> None:
        check(document, data)

    edit()
    print(", ".join(f"{count} {name}" for name, count in counts.most_common()))
    linter, fixed = Linter(settle(Options(isolated=True))), 0
    for document in read:
        text, applied = linter.fix(document.path, document.text, unsafe=True)
        if applied:
            fixed += applied
            assert len(load(document, text)) == len(load(document, document.text))
            kept = {c.text for c in documents.parse(document.path, text).comments()}
            lost = {c.text for c in document.comments()} - kept
            if lost:
                print(f"{document.path}: comments that went with what was removed: {lost}")
    print(f"{fixed} fixes applied")


if __name__ == "__main__":
    main()
