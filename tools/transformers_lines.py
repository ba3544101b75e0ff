"""Writes what older releases of transformers build otherwise than the catalogue's release.

    python tools/transformers_lines.py --releases DIR --dumps DIR --configs DIR

Run it with the catalogue's release installed. ``--releases`` holds one folder for each other
release, named by its version and filled by ``pip install --target DIR/4.57.6 transformers==4.57.6``
(torch is shared); the newest patch release of each minor stands for the minor. ``--dumps`` keeps
what was read of each release, so that a second run only reads what is new. ``--configs`` is the
folder that ``tools/catalogue.py`` takes.

Releases named by ``--whole`` are read whole. Of those between two of them, only the classes that
differ between the nearest releases already read, and so on until it is known at which minor each
class changed. A class that is the same in two releases is taken to be the same between them.

Files (``lora_lint/models/lines.py`` reads them):

``lines.json.z``          the releases read, and for each model type the ranges that have it
``lines/*.json.z``        one model type each: which tree each class has in which range, the trees
                          that are not the newest release's, and what became of their names
``lines/known/*.json.z``  one stored tree of ``trees/`` each: the same model in other releases

A known model of another parameter count than in the newest release is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packing

from lora_lint.facts import version_key
from lora_lint.models import catalogue, packed
from lora_lint.models.module_tree import ModuleTree
from lora_lint.models.storage import read_nodes, read_ties, write_nodes, write_ties

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
WHOLE = ("4.46", "4.57", "5.0", "5.23")
SAME, ABSENT = -1, -2
# A state of a class in a release: the text of its tree, or one of these.
NOT_THERE, NOT_BUILT = "not there", "not built"


# Dumps --------------------------------------------------------------------------------------------


@dataclass
class Dump:
    """What was read of one release; ``parts`` are its files, which add up."""

    version: str
    parts: list[dict[str, Any]] = field(default_factory=list)
    whole: bool = False
    types: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)

    @property
    def minor(self) -> str:
        """The minor release, as ranges name it."""
        return minor(self.version)

    @property
    def model_types(self) -> set[str]:
        """The model types that the release has a config for."""
        return set(self.parts[0]["model_types"])

    def section(self, model_type: str) -> dict[str, Any] | None:
        """What was read of a model type."""
        return next((p["types"][model_type] for p in self.parts if model_type in p["types"]), None)

    def tree(self, model_type: str, cls: str) -> ModuleTree | None:
        """The tree of a class under the default config, with sizes."""
        section = self.section(model_type)
        return read_tree(section, cls, self.version) if section else None

    def known_tree(self, name: str) -> ModuleTree | None:
        """The tree of a known model, by the name of its stored tree."""
        for part in self.parts:
            if name in part.get("known", {}).get("trees", {}):
                return read_tree(part["known"], name, self.version)
        return None

    def state(self, model_type: str, cls: str) -> str | None:
        """The class's tree as text, or why there is none; None where it was not read."""
        if model_type not in self.model_types:
            return NOT_THERE
        section = self.section(model_type)
        if section is None:
            return NOT_THERE if self.whole or model_type in self.types else None
        if cls in section["trees"]:
            return default_text(self, model_type, cls)
        return NOT_BUILT if cls in section["failures"] else NOT_THERE

    def known_state(self, name: str, model_type: str) -> str | None:
        """The known model's tree as text, or why there is none; None where it was not read."""
        if model_type not in self.model_types:
            return NOT_THERE
        tree = known_text(self, name, len(self.parts))
        if tree is not None:
            return tree
        return NOT_BUILT if name in self.known else None

    def __hash__(self) -> int:
        return hash(self.version)


def minor(version: str) -> str:
    """``4.57`` of ``4.57.6``."""
    return ".".join(map(str, version_key(version)[:2]))


def read_tree(section: dict[str, Any], name: str, version: str) -> ModuleTree | None:
    """A tree of a dump's table."""
    entry = section["trees"].get(name)
    if entry is None:
        return None
    if "nodes" not in section:
        section["nodes"] = read_nodes(section)
    return ModuleTree(
        root=section["nodes"][entry["root"]],
        cls=entry["class"],
        model_type=entry["model_type"],
        transformers=version,
        grade="live",
        facts=entry["facts"],
        shared=entry["shared"],
        tied=read_ties(entry["tied"]),
    )


@cache
def default_text(dump: Dump, model_type: str, cls: str) -> str:
    """What tells a class's default tree from another: all but sizes."""
    tree = dump.tree(model_type, cls)
    assert tree is not None
    return replace(template_form(tree), transformers=None).to_json()


@cache
def known_text(dump: Dump, name: str, parts: int) -> str | None:  # noqa: ARG001 - a part may add it
    """What tells a known model's tree from another; ``parts``: those that the dump has by now."""
    tree = dump.known_tree(name)
    if tree is None:
        return None
    return replace(known_form(tree, name), transformers=None).to_json()


def known_form(tree: ModuleTree, name: str) -> ModuleTree:
    """A known model's tree as it is stored: without sizes where the newest release's has none."""
    from catalogue import canonical
    from catalogue_templates import without_sizes

    return brief(canonical(tree if is_sized(name) else without_sizes(tree)))


def template_form(tree: ModuleTree) -> ModuleTree:
    """The tree of a default config as it is stored."""
    from catalogue_templates import without_sizes

    return brief(without_sizes(tree))


def brief(tree: ModuleTree) -> ModuleTree:
    """The tree without the fact ``encodes``, where it is what it is in nearly all classes."""
    facts = dict(tree.facts)
    if facts.get("encodes") == facts["generates"]:
        facts.pop("encodes")
    return replace(tree, facts=facts)


@cache
def is_sized(name: str) -> bool:
    """Whether a stored tree has sizes."""
    return catalogue.load_tree(name).sized


def load(folder: Path) -> dict[str, Dump]:
    """All dumps of a folder, by version; files are ``VERSION.json.z`` and ``VERSION+N.json.z``."""
    dumps: dict[str, Dump] = {}
    for path in sorted(folder.glob("*.json.z")):
        add(dumps, path)
    return dict(sorted(dumps.items(), key=lambda item: version_key(item[0])))


def add(dumps: dict[str, Dump], path: Path) -> None:
    """Add one file to the dump of its release."""
    data = json.loads(zlib.decompress(path.read_bytes()))
    dump = dumps.setdefault(data["transformers"], Dump(data["transformers"]))
    dump.parts.append(data)
    dump.whole |= data.get("wanted") is None
    dump.types |= set(data.get("wanted") or ())
    known = data.get("known", {})
    dump.known |= {*known.get("trees", ()), *known.get("failures", ())}


# Reading releases ---------------------------------------------------------------------------------


def known_jobs(configs: Path) -> dict[str, list[Any]]:
    """Stored tree -> class, model type and config of a model that has it."""
    from catalogue import entries

    found, _ = entries(configs)
    by_id = {entry.id: entry for entry in found}
    jobs: dict[str, list[Any]] = {}
    for model in catalogue.models():
        entry = by_id.get(model.id)
        if entry is None or not entry.values:
            continue
        jobs.setdefault(model.tree, [entry.cls, entry.model_type, entry.values])
        for cls, tree in model.others.items():
            jobs.setdefault(tree, [cls, entry.model_type, entry.values])
    return jobs


def read_release(
    folder: Path, out: Path, types: Iterable[str] | None, jobs: dict[str, list[Any]]
) -> None:
    """Dump a release in a process of its own; all model types where none are given."""
    wanted = out.with_suffix(".types")
    known = out.with_suffix(".jobs")
    known.write_text(json.dumps(jobs), encoding="utf-8")
    command = [sys.executable, str(HERE / "line_dump.py"), str(out), "--jobs", str(known)]
    if types is not None:
        wanted.write_text(json.dumps(sorted(types)), encoding="utf-8")
        command += ["--types", str(wanted)]
    paths = os.pathsep.join((str(folder), str(HERE.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "0"}
    subprocess.run(command, env=environment, check=True)
    known.unlink()
    wanted.unlink(missing_ok=True)


def all_classes(dumps: dict[str, Dump]) -> set[tuple[str, str]]:
    """Every model type and class that any release has."""
    return {
        (model_type, cls)
        for dump in dumps.values()
        for part in dump.parts
        for model_type, section in part["types"].items()
        for cls in section["tasks"]
    }


def needed(
    dumps: dict[str, Dump], version: str, jobs: dict[str, list[Any]]
) -> tuple[set[str], dict[str, list[Any]]]:
    """The model types and known models that differ between the releases around one."""
    types = {
        model_type
        for model_type, cls in all_classes(dumps)
        if model_type not in getattr(dumps.get(version), "types", ())
        and differs(dumps, version, lambda dump, m=model_type, c=cls: dump.state(m, c))
    }
    known = {
        name: job
        for name, job in jobs.items()
        if name not in getattr(dumps.get(version), "known", ())
        and differs(dumps, version, lambda dump, n=name, m=job[1]: dump.known_state(n, m))
    }
    return types, known


def differs(dumps: dict[str, Dump], version: str, state: Any) -> bool:
    """Whether the nearest releases on both sides of one that were read are not alike."""
    key = version_key(version)
    states = {v: s for v, d in dumps.items() if v != version and (s := state(d)) is not None}
    before = [v for v in states if version_key(v) < key]
    after = [v for v in states if version_key(v) > key]
    return not before or not after or states[before[-1]] != states[after[0]]


def order(versions: list[str], whole: Iterable[str]) -> Iterator[str]:
    """The releases to read whole, then halves of what lies between, halves of these, ..."""
    first = [v for v in versions if minor(v) in whole]
    yield from first
    spans = [(versions.index(a), versions.index(b)) for a, b in pairwise(first)]
    while spans:
        halves = []
        for low, high in spans:
            if high - low > 1:
                middle = (low + high) // 2
                yield versions[middle]
                halves += [(low, middle), (middle, high)]
        spans = halves


def read_all(releases: Path, folder: Path, jobs: dict[str, list[Any]]) -> dict[str, Dump]:
    """The dumps of all releases; what is in the folder already is not read again."""
    folders = (path.name for path in releases.iterdir() if path.is_dir())
    versions = sorted(folders, key=version_key)
    for version in order(versions, WHOLE):
        dumps = load_cached(folder)
        if minor(version) not in WHOLE:
            types, known = needed(dumps, version, jobs)
        elif version in dumps:
            types = set()
            known = {name: job for name, job in jobs.items() if name not in dumps[version].known}
        else:
            read_release(releases / version, folder / f"{version}.json.z", None, jobs)
            continue
        if types or known or version not in dumps:
            number = len(dumps[version].parts) if version in dumps else 0
            out = folder / f"{version}+{number}.json.z"
            print(f"{version}: {len(types)} model types, {len(known)} known models", flush=True)
            read_release(releases / version, out, types, known)
    return load_cached(folder)


_LOADED: dict[str, Dump] = {}
_FILES: set[Path] = set()


def load_cached(folder: Path) -> dict[str, Dump]:
    """``load``, without reading a file twice."""
    for path in sorted(folder.glob("*.json.z")):
        if path not in _FILES:
            _FILES.add(path)
            add(_LOADED, path)
    return dict(sorted(_LOADED.items(), key=lambda item: version_key(item[0])))


# Ranges -------------------------------------------------------------------------------------------


def ranges(dumps: dict[str, Dump], state: Any, newest: str | None) -> list[list[Any]]:
    """[first minor, last minor, state] for each run of releases in which a thing is the same."""
    found: list[list[Any]] = []
    for dump in dumps.values():
        value = state(dump)
        if value is None:
            continue  # not read, since both sides are alike
        value = "same" if value == newest else value
        if found and found[-1][2] == value:
            found[-1][1] = dump.minor
        else:
            found.append([dump.minor, dump.minor, value])
    return [row for row in found if row[2] != NOT_BUILT]


class Store:
    """The distinct trees of one file."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.trees: list[ModuleTree] = []
        self.more: list[dict[str, Any]] = []

    def number(self, text: str, tree: ModuleTree, more: dict[str, Any]) -> int:
        """The number of a tree, stored now if need be."""
        key = text + json.dumps(more, sort_keys=True)
        if key not in self.numbers:
            self.numbers[key] = len(self.trees)
            self.trees.append(tree)
            self.more.append(more)
        return self.numbers[key]

    def tables(self, model_type: str | None) -> dict[str, Any]:
        """The trees as JSON."""
        nodes, roots = write_nodes(tree.root for tree in self.trees)
        rows = []
        for tree, root, more in zip(self.trees, roots, self.more, strict=True):
            row: dict[str, Any] = {"root": root}
            if tree.model_type != model_type:
                row["model_type"] = tree.model_type
            row["facts"] = dict(tree.facts)
            if tree.shared:
                row["shared"] = dict(tree.shared)
            if tree.tied:
                row["tied"] = write_ties(tree.tied)
            rows.append({**row, **more})
        return {"trees": rows, **nodes}


def of_model_type(dumps: dict[str, Dump], model_type: str, proofs: Any) -> dict[str, Any]:
    """The file of a model type."""
    *_, last = dumps.values()
    store = Store()
    names: dict[str, list[list[Any]]] = {}
    for cls in sorted(c for m, c in all_classes(dumps) if m == model_type):
        newest = last.state(model_type, cls)
        own = newest if newest not in (NOT_BUILT, NOT_THERE) else None
        rows = ranges(dumps, lambda d, c=cls: d.state(model_type, c), own)
        for row in rows:
            if row[2] == "same":
                row[2] = SAME
            elif row[2] == NOT_THERE:
                row[2] = ABSENT
            else:
                dump = next(d for d in dumps.values() if d.minor == row[0])
                tree = dump.tree(model_type, cls)
                assert tree is not None
                more = proofs(model_type, cls, tree) if own is not None else {}
                row[2] = store.number(row[2], template_form(tree), more)
        names[cls] = rows
    return {"names": names, **store.tables(model_type)}


def of_known(dumps: dict[str, Dump], name: str, job: list[Any]) -> tuple[dict[str, Any], list[str]]:
    """The file of a known model's stored tree, and the releases left out for their count."""
    stored = catalogue.load_tree(name)
    newest = replace(stored, transformers=None).to_json()
    count = stored.parameter_count()
    store = Store()
    left_out = []
    rows = ranges(dumps, lambda dump: dump.known_state(name, job[1]), newest)
    kept = []
    for row in rows:
        if row[2] == "same":
            kept.append([*row[:2], SAME])
            continue
        if row[2] == NOT_THERE:
            continue
        dump = next(d for d in dumps.values() if d.minor == row[0])
        tree = dump.known_tree(name)
        assert tree is not None
        form = known_form(tree, name)
        if form.parameter_count() != count:
            left_out.append(f"{row[0]} to {row[1]}: {form.parameter_count()} and not {count}")
            continue
        kept.append([*row[:2], store.number(row[2], form, {})])
    data: dict[str, Any] = {"names": {name: kept}, **store.tables(stored.model_type)}
    if stored.sized:
        data["sized"] = True
    return data, left_out


# Writing ------------------------------------------------------------------------------------------


def write(name: str, data: dict[str, Any], like: str) -> int:
    """Write a file, compressed against the newest release's; its size in bytes."""
    text = json.dumps(data, separators=(",", ":")).encode()
    try:
        resembled = packed.read(like)
    except OSError:
        resembled = b""
    packing.write(f"lines/{name}.json", text, resembled)
    return (packed.MODELS / f"lines/{name}.json.z").stat().st_size


def prove(dumps: dict[str, Dump]) -> Any:
    """A function that says what became of the names of an older tree."""
    from line_dump import config_for, leave_weights_as_they_are
    from line_renames import became
    from meta_models import build

    *_, last = dumps.values()
    leave_weights_as_they_are()
    models: dict[tuple[str, str], Any] = {}

    def proofs(model_type: str, cls: str, old: ModuleTree) -> dict[str, Any]:
        new = last.tree(model_type, cls)
        if new is None:
            return {}
        if (model_type, cls) not in models:
            models.clear()
            models[model_type, cls] = build(cls, config_for(model_type))
        leaves, fused = became(old, new, models[model_type, cls])
        return {k: v for k, v in (("became", leaves), ("fused", fused)) if v}

    return proofs


def write_all(dumps: dict[str, Dump], jobs: dict[str, list[Any]]) -> None:
    """Write all files and print what they hold."""
    proofs = prove(dumps)
    for old in (packed.MODELS / "lines").rglob("*.json*"):
        old.unlink()
    sizes: Counter[str] = Counter()
    types = sorted({model_type for model_type, _ in all_classes(dumps)})
    for model_type in types:
        data = of_model_type(dumps, model_type, proofs)
        sizes["types"] += write(model_type, data, f"architectures/{model_type}.json")
        sizes["trees of classes"] += len(data["trees"])
    for name, job in sorted(jobs.items()):
        data, left_out = of_known(dumps, name, job)
        for why in left_out:
            print(f"left out: {name}: {why}")
        sizes["known"] += write(f"known/{name}", data, f"trees/{name}.json")
        sizes["trees of known models"] += len(data["trees"])
    there: dict[str, list[list[str]]] = defaultdict(list)
    for model_type in sorted({t for dump in dumps.values() for t in dump.model_types}):
        rows = ranges(dumps, lambda d, m=model_type: str(m in d.model_types), None)
        there[model_type] = [row[:2] for row in rows if row[2] == "True"]
    index = {"releases": list(dumps), "model_types": there}
    packing.write("lines.json", json.dumps(index, separators=(",", ":")).encode())
    print(dict(sizes))


def main() -> None:
    """Read what is not read yet, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--dumps", type=Path, required=True)
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--only-write", action="store_true", help="from the dumps that are there")
    options = parser.parse_args()
    jobs = known_jobs(options.configs)
    dumps = load_cached(options.dumps)
    if not options.only_write:
        dumps = read_all(options.releases, options.dumps, jobs)
    write_all(dumps, jobs)


if __name__ == "__main__":
    main()
