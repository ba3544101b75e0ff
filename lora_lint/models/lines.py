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
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.facts import version_key
from lora_lint.models.catalogue import MODELS, plain_text
from lora_lint.models.module_tree import ModuleTree
from lora_lint.models.storage import read_nodes, read_ties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LINES: Final = MODELS / "lines"
# In place of a tree's number: it is that of the newest release; the release has no such class.
SAME: Final = -1
ABSENT: Final = -2


class Line(NamedTuple):
    """A minor release of transformers, as one that was measured or as one in between.

    ``newest``: it is the one that the catalogue was built with.
    """

    key: tuple[int, ...]
    newest: bool


class Lines(NamedTuple):
    """Trees by release, of the classes of a model type or of one known model."""

    data: Mapping[str, Any]

    def number(self, name: str, line: Line) -> int | None:
        """Which tree a class has in a release: its number, ``SAME`` or ``ABSENT``; None where
        that is not known.
        """
        for first, last, number in self.data["names"].get(name, ()):
            if _key(first) <= line.key <= _key(last):
                found: int = number
                return found
        return None

    def tree(self, number: int, cls: str, model_type: str | None, version: str) -> ModuleTree:
        """A tree by its number."""
        entry = self.data["trees"][number]
        sized = bool(self.data.get("sized"))
        return ModuleTree(
            root=read_nodes(self.data)[entry["root"]],
            cls=cls,
            model_type=entry.get("model_type", model_type),
            transformers=version,
            grade="dims" if sized else "named",
            facts=entry["facts"],
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

    def tasks(self, cls: str, line: Line) -> list[str] | None:
        """The auto classes that led to a class, None where they are those of the newest release."""
        for first, last, tasks in self.data.get("tasks", {}).get(cls, ()):
            if _key(first) <= line.key <= _key(last):
                found: list[str] = tasks
                return found
        return None


@lru_cache(maxsize=1)
def _index() -> dict[str, Any]:
    text = (MODELS / "lines.json").read_text(encoding="utf-8")
    index: dict[str, Any] = json.loads(text)
    return index


def measured() -> list[str]:
    """The releases that were measured, the oldest first, one of each minor."""
    return list(_index()["releases"])


def line_of(version: str) -> Line:
    """The line of a release; of one beyond the measured ones, the nearest."""
    releases = measured()
    oldest, newest = _key(releases[0]), _key(releases[-1])
    key = min(max(_key(version), oldest), newest)
    return Line(key, key == newest)


def has_model_type(model_type: str | None, line: Line) -> bool | None:
    """Whether a release has a model type; None where that is not known."""
    known = _index()["model_types"].get(model_type, ())
    answers = {_key(first) <= line.key <= _key(last) for first, last in known}
    if True in answers:
        return True
    near = [_key(release) for release in measured()]
    if line.key in near or not known:
        return False
    before = max(key for key in near if key < line.key)
    after = min(key for key in near if key > line.key)
    there = [any(_key(f) <= key <= _key(last) for f, last in known) for key in (before, after)]
    return None if any(there) else False


def of_model_type(model_type: str | None) -> Lines | None:
    """The trees of a model type's classes in older releases; None where there are none."""
    if model_type is None or model_type not in _index()["model_types"]:
        return None
    return _read(f"{model_type}.json.z", f"architectures/{model_type}.json.z")


def of_known(tree: str) -> Lines | None:
    """The trees in older releases of a known model, by the name of its stored tree."""
    return _read(f"known/{tree}.json.z", f"trees/{tree}.json.z")


@lru_cache(maxsize=8)
def _read(name: str, like: str) -> Lines | None:
    """A file, compressed against the one of the newest release that it resembles."""
    try:
        packed = (LINES / name).read_bytes()
    except OSError:
        return None
    unpack = zlib.decompressobj(zdict=plain_text(like))
    return Lines(json.loads(unpack.decompress(packed)))


@lru_cache(maxsize=256)
def _key(version: str) -> tuple[int, ...]:
    return version_key(version)[:2]
