"""The tree that every format is read into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lora_lint.diagnostics import Span
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath

Kind = Literal["mapping", "sequence", "scalar", "unknown"]
# How a node is written. ``call``: a Python call, whose entries are its keywords; ``command``: a
# shell command, whose entries are its options; ``flag``: an option without a value.
Style = Literal[
    "block", "flow", "call", "command", "flag", "plain", "single", "double", "literal"
]  # fmt: skip


@dataclass(slots=True, eq=False)
class Node:
    """A value of a document, with its place and what may be done to it.

    ``value`` is a scalar's value. ``entries`` are a mapping's pairs in the order of the file,
    duplicates and merged ones included. ``locked`` says why the node can't be edited, None if it
    can. ``note`` says of an ``unknown`` node why it isn't static, and of a Python call what is
    called (``peft.LoraConfig``). ``origin``: the value stands there, follows from other values of
    the file, or is the default of something that a user may override.
    ``home`` is the node of the value itself, where this one only stands for it (a Python name):
    edits go there.
    """

    kind: Kind
    span: Span
    value: object = None
    entries: list[Entry] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)
    style: Style = "plain"
    locked: str | None = None
    note: str | None = None
    origin: Literal["written", "computed", "default"] = "written"
    home: Node | None = None

    def entry(self, key: object) -> Entry | None:
        """The pair that counts for a key: the last written one, else the last merged one."""
        found = None
        for entry in self.entries:
            if entry.key == key and (found is None or not entry.merged or found.merged):
                found = entry
        return found

    def get(self, key: object) -> Node | None:
        """The value that counts for a key of a mapping, None where there is none."""
        entry = self.entry(key)
        return entry.node if entry else None

    def child(self, step: str | int) -> Node | None:
        """The value one step of a key path further down."""
        if self.kind == "mapping":
            return self.get(step)
        if self.kind == "sequence" and isinstance(step, int) and 0 <= step < len(self.items):
            return self.items[step]
        return None

    def at(self, path: KeyPath) -> Node | None:
        """The value at a key path, None where the path leads nowhere."""
        node: Node | None = self
        for step in path:
            node = node.child(step) if node else None
        return node

    def keys(self) -> Iterator[str]:
        """The distinct string keys of a mapping, in order."""
        seen = set()
        for entry in self.entries:
            if isinstance(entry.key, str) and entry.key not in seen:
                seen.add(entry.key)
                yield entry.key

    def plain(self) -> object:
        """The value as Python objects; parts that are not static are ``UNKNOWN``.

        Shared nodes stay shared, so that an alias bomb costs nothing here.
        """
        return _plain(self, {}, set())


@dataclass(slots=True, eq=False)
class Entry:
    """A pair of a mapping. ``merged``: it came in through a YAML merge key."""

    key: object
    key_span: Span
    node: Node
    merged: bool = False

    @property
    def span(self) -> Span:
        """From the key's start to the value's end."""
        return Span(self.key_span.start, max(self.key_span.end, self.node.span.end))


def _plain(node: Node, done: dict[int, object], open_: set[int]) -> object:
    if node.kind == "scalar":
        return node.value
    if node.kind == "unknown":
        return UNKNOWN
    holder = id(node.items if node.kind == "sequence" else node.entries)
    if holder in open_:
        return UNKNOWN
    if holder in done:
        return done[holder]
    open_.add(holder)
    result: object
    if node.kind == "sequence":
        result = [_plain(item, done, open_) for item in node.items]
    else:
        pairs: dict[object, object] = {}
        for entry in node.entries:
            effective = node.entry(entry.key)
            if effective is entry:
                pairs[entry.key] = _plain(entry.node, done, open_)
        result = pairs
    open_.discard(holder)
    done[holder] = result
    return result
