"""Walking the calls of a Python file or notebook: which model belongs to which config.

For dialects. The tree itself is described in ``documents/python.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node

# How many hands a model may go through (`model = prepare(model)`) before we stop following it.
MAX_STEPS = 20


class Site(NamedTuple):
    """A call with its place in the document."""

    part: int
    path: KeyPath
    call: Node

    @property
    def scope(self) -> KeyPath:
        """The scope that the call stands in."""
        return self.path[:-1]

    @property
    def name(self) -> str:
        """The last name of what is called: ``LoraConfig``, ``from_pretrained``."""
        return (self.call.note or "").rpartition(".")[2].lstrip("?")


class _Index(NamedTuple):
    """The calls of a document, their places, and where their results are used."""

    sites: list[Site]
    places: dict[int, KeyPath]
    uses: dict[int, list[tuple[Site, str | int]]]


_INDEXES: WeakKeyDictionary[Document, _Index] = WeakKeyDictionary()


def _index(document: Document) -> _Index:
    found = _INDEXES.get(document)
    if found is None:
        found = _INDEXES[document] = _Index([], {}, {})
        for number, part in enumerate(document.parts):
            found.sites.extend(_below(number, (), part.node))
        for site in found.sites:
            first: KeyPath = (site.part,) if document.cell_parts else ()
            found.places.setdefault(id(site.call), (*first, *site.path))
            for entry in site.call.entries:
                if isinstance(entry.key, str | int):
                    for call in calls_behind(entry.node):
                        found.uses.setdefault(id(call), []).append((site, entry.key))
    return found


def sites(document: Document) -> list[Site]:
    """All calls of a document that matter, in the order in which they stand, scope by scope."""
    return _index(document).sites


def place(document: Document, call: Node) -> KeyPath:
    """The key path of a call, in a notebook with its part before it (``Document.where``); empty
    where it is not one of the document's.
    """
    return _index(document).places.get(id(call), ())


def _below(part: int, path: KeyPath, scope: Node) -> Iterator[Site]:
    for entry in scope.entries:
        inner = (*path, str(entry.key))
        if entry.node.style == "call":
            yield Site(part, inner, entry.node)
        else:
            yield from _below(part, inner, entry.node)


def is_from(call: Node, package: str) -> bool:
    """Whether what is called comes from a package, as far as the file's imports say."""
    return (call.note or "").startswith(f"{package}.")


def argument(call: Node, position: int | None, name: str) -> tuple[str | int, Node] | None:
    """An argument by its keyword, or by its position where the call passes it so: key and node."""
    for key in (name, position):
        node = call.get(key) if key is not None else None
        if node is not None and key is not None:
            return key, node
    return None


def is_open(call: Node) -> bool:
    """Whether the call may have arguments that are not known, through ``*`` or ``**``."""
    return any(
        entry.key == "*" or (entry.key == "**" and entry.node.kind != "mapping")
        for entry in call.entries
    )


def calls_behind(node: Node) -> list[Node]:
    """The calls that a value is the result of: none, one, or those that branches leave open."""
    if node.kind == "unknown":
        return list(node.items)
    if node.kind == "mapping" and node.style == "call":
        return [node.home or node]
    return []


def is_one_call(node: Node) -> bool:
    """Whether a model surely comes from one call: no branch on its way leaves another open."""
    for _ in range(MAX_STEPS):
        if node.kind == "unknown":
            return False
        behind = calls_behind(node)
        if not behind or (behind[0].note or "").endswith((".from_pretrained", ".from_config")):
            return True
        inner = argument(behind[0], 0, "model")
        if inner is None:
            return True
        node = inner[1]
    return False


def uses(document: Document, call: Node) -> list[tuple[Site, str | int]]:
    """The calls that take the result of a call as an argument, each with the argument's key."""
    return _index(document).uses.get(id(call), [])


def model_calls(node: Node) -> list[Node]:
    """The ``from_pretrained`` calls that a model comes from, through ``prepare_model_…`` and
    ``get_peft_model``; none where that is not known.
    """
    found: dict[int, Node] = {}
    open_ = [(call, 0) for call in calls_behind(node)]
    while open_:
        call, steps = open_.pop()
        if (call.note or "").endswith((".from_pretrained", ".from_config")):
            found[id(call)] = call
        elif steps < MAX_STEPS:
            inner = argument(call, 0, "model")
            if inner is not None:
                open_ += [(deeper, steps + 1) for deeper in calls_behind(inner[1])]
    return list(found.values())
