"""What older releases of transformers build where the newest one builds something else.

``lines.json`` says which minor releases were measured and which model types each has; a file under
``lines/`` holds the trees of one model type's classes, and one under ``lines/known/`` those of one
known model, each with the range of minors that it holds for (``tools/transformers_lines.py``). None
is read while the user's release is the catalogue's own.

A minor stands for all its releases. What two measured minors have in common also holds between
them; where they differ, which one a release in between is like is not known. Releases before the
first one measured count as that one, those after the last as the last.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.facts import ENCODES_BEFORE, version_key
from lora_lint.models import catalogue, packed
from lora_lint.models.module_tree import ModuleTree
from lora_lint.models.storage import read_nodes, read_ties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# In place of a tree's number: it is that of the newest release; no auto class leads to the class.
SAME: Final = -1
ABSENT: Final = -2


class Line(NamedTuple):
    """A minor release of transformers: ``release`` is the one that was measured for it, or the
    user's own where none was; ``newest`` whether the catalogue was built with it.
    """

    key: tuple[int, ...]
    release: str
    newest: bool


class Lines(NamedTuple):
    """Trees by release, of the classes of a model type or of one known model."""

    data: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """The classes that any release has."""
        return list(self.data["names"])

    def number(self, name: str, line: Line) -> int | None:
        """Which tree a class has in a release: its number, ``SAME`` or ``ABSENT``; None where
        that is not known.
        """
        found: int | None = _in_range(self.data["names"].get(name, ()), line)
        return found

    def tree(self, number: int, cls: str, model_type: str | None, line: Line) -> ModuleTree:
        """A tree by its number."""
        entry = self.data["trees"][number]
        return ModuleTree(
            root=read_nodes(self.data)[entry["root"]],
            cls=cls,
            model_type=entry.get("model_type", model_type),
            transformers=line.release,
            grade="dims" if self.data.get("sized") else "named",
            facts=_with_encodes(entry["facts"], line),
            shared=entry.get("shared", {}),
            tied=read_ties(entry.get("tied", [])),
        )

    def became(self, number: int) -> Mapping[str, Sequence[str]]:
        """Last part of a name in a tree -> the last parts that the newest release has for it."""
        found: Mapping[str, Sequence[str]] = self.data["trees"][number].get("became", {})
        return found

    def fused(self, number: int) -> Mapping[str, str]:
        """Last part of an expert's module -> the parameter of the newest release that holds it."""
        found: Mapping[str, str] = self.data["trees"][number].get("fused", {})
        return found


# Releases -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads(packed.read("lines.json"))
    return index


@lru_cache(maxsize=1)
def _measured() -> list[Line]:
    releases = _index()["releases"]
    return [Line(_key(release), release, release == releases[-1]) for release in releases]


def measured() -> list[str]:
    """The releases that were measured, the oldest first, one of each minor."""
    return [line.release for line in _measured()]


def newest() -> Line:
    """The line that the catalogue was built with."""
    return _measured()[-1]


@lru_cache(maxsize=64)
def line_of(version: str) -> Line:
    """The line of a release; of one beyond the measured ones, the nearest."""
    lines = _measured()
    key = min(max(_key(version), lines[0].key), lines[-1].key)
    return next((line for line in lines if line.key == key), Line(key, version, newest=False))


def has_model_type(model_type: str | None, line: Line) -> bool | None:
    """Whether a release has a model type; None where that is not known."""
    known = _index()["model_types"].get(model_type, ())
    if _in_range([(first, last, True) for first, last in known], line):
        return True
    keys = [other.key for other in _measured()]
    if line.key in keys:
        return False
    around = max(k for k in keys if k < line.key), min(k for k in keys if k > line.key)
    there = [line._replace(key=key) for key in around]
    return None if any(has_model_type(model_type, other) for other in there) else False


def _in_range(rows: Sequence[Sequence[Any]], line: Line) -> Any:
    """What stands at the range that a line is in: [first minor, last minor, what]."""
    return next((what for a, b, what in rows if _key(a) <= line.key <= _key(b)), None)


@lru_cache(maxsize=256)
def _key(version: str) -> tuple[int, ...]:
    return version_key(version)[:2]


# Trees --------------------------------------------------------------------------------------------


def of_model_type(model_type: str | None) -> Lines | None:
    """The trees of a model type's classes in older releases; None where there are none."""
    if model_type is None or model_type not in _index()["model_types"]:
        return None
    return _read(f"lines/{model_type}.json", f"architectures/{model_type}.json")


def of_known(tree: str) -> Lines | None:
    """The trees in older releases of a known model, by the name of its stored tree."""
    return _read(f"lines/known/{tree}.json", f"trees/{tree}.json")


@lru_cache(maxsize=8)
def _read(name: str, like: str) -> Lines | None:
    """A file, compressed against the one of the newest release that it resembles."""
    try:
        resembled = packed.read(like)
    except OSError:  # a model type that the newest release has no more
        resembled = b""
    try:
        return Lines(json.loads(packed.read(name, resembled)))
    except (OSError, zlib.error):  # the latter where the other file is no more what it was
        return None


def template(model_type: str, cls: str, line: Line) -> ModuleTree | None:
    """The tree of a class's default config in a release, None where it is not known."""
    own = of_model_type(model_type)
    number = SAME if line.newest else own.number(cls, line) if own is not None else None
    if number is None or number == ABSENT:
        return None
    if number == SAME or own is None:
        known = catalogue.architecture(model_type)
        return _as_of(known.tree(cls), line) if known and cls in known.classes else None
    return own.tree(number, cls, model_type, line)


def at(tree: ModuleTree, stored: str | None, version: str) -> ModuleTree | str:
    """What a release builds where the newest one builds ``tree``; or why that is not known.

    ``stored`` is the name under which the catalogue has the tree, None for one that it has not.
    Where the sizes are not known the tree is the class's template.
    """
    line = line_of(version)
    if line.newest or tree.model_type not in _index()["model_types"]:  # not of transformers
        return tree
    model_type = _owner(tree.model_type, tree.cls)
    known = of_known(stored) if stored is not None else None
    if known is not None and stored is not None:
        number = known.number(stored, line)
        if number == SAME:
            return _as_of(tree, line)
        if number is not None:
            return _with_own_facts(known.tree(number, tree.cls, tree.model_type, line), tree)
    reason = why_none(tree.model_type, tree.cls, version)
    own = of_model_type(model_type)
    if reason is not None or own is None or model_type is None:
        return reason or _not_known(tree.cls, version)
    number = own.number(tree.cls, line)
    if number == SAME and known is None:
        return _as_of(tree, line)
    found = template(model_type, tree.cls, line)
    if found is None or number is None:
        return _not_known(tree.cls, version)
    return _with_switches(found, tree, {} if number == SAME else own.became(number))


def why_none(model_type: str | None, cls: str, version: str) -> str | None:
    """Why nothing is known of a class in a release; None where it is."""
    line = line_of(version)
    there = has_model_type(model_type, line)
    if there is None:
        return f"whether transformers {version} has {model_type} models is not known"
    if not there:
        return f"transformers {version} has no {model_type} models"
    own = of_model_type(_owner(model_type, cls))
    number = own.number(cls, line) if own is not None else None
    if number == ABSENT:
        return f"no auto class of transformers {version} leads to {cls}"
    return _not_known(cls, version) if number is None else None


def _not_known(cls: str, version: str) -> str:
    return f"which module names {cls} has in transformers {version} is not known"


def _owner(model_type: str | None, cls: str) -> str | None:
    """The model type whose file has the class: a part of a config has a type of its own."""
    for name in (model_type, catalogue.model_type_of(cls)):
        own = of_model_type(name)
        if own is not None and cls in own.classes:
            return name
    return None


def _as_of(tree: ModuleTree, line: Line) -> ModuleTree:
    return replace(tree, transformers=line.release, facts=_with_encodes(tree.facts, line))


def _with_encodes(facts: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """The facts, with the one that is only stored where it is not that of most classes."""
    found = dict(facts)
    if line.key < ENCODES_BEFORE:
        found.setdefault("encodes", found.get("generates", False))
    return found


def _with_own_facts(found: ModuleTree, tree: ModuleTree) -> ModuleTree:
    """A known model's tree in another release, with the facts that decide no shape."""
    facts = dict(found.facts)
    if tree.facts.get("config") and found.sized:
        facts["config"] = {**facts.get("config", {}), **tree.facts["config"]}
    for fact in ("checkpoint_dtype", "checkpoint_quantization"):
        if fact in tree.facts:
            facts[fact] = tree.facts[fact]
    return replace(found, grade=tree.grade, dtype=tree.dtype, facts=facts)


def _with_switches(
    found: ModuleTree, tree: ModuleTree, became: Mapping[str, Sequence[str]]
) -> ModuleTree:
    """A template with what other configs may change, in the release's own names as far as known."""
    facts: dict[str, Any] = {**found.facts, "template": True}
    for fact in ("also", "maybe"):
        names = set(tree.facts.get(fact, ()))
        if names:
            names |= {old for old, leaves in became.items() if names & set(leaves)}
            facts[fact] = sorted(names)
    for fact in ("open", "checkpoint_dtype", "checkpoint_quantization"):
        if fact in tree.facts:
            facts[fact] = tree.facts[fact]
    return replace(found, facts=facts, dtype=tree.dtype)
