"""How a change in recipe words becomes edits in a framework's spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_lint.diagnostics import (
    DropItem,
    Remove,
    RenameKey,
    Replace,
    Rewrite,
    Set,
    SetItem,
    Unset,
)
from lora_lint.dialects.base import AS_WRITTEN
from lora_lint.documents.document import NotEditable

if TYPE_CHECKING:
    from lora_lint.diagnostics import Change, Edit, KeyPath
    from lora_lint.dialects.base import Codec, Dialect, Slot
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.recipe import Recipe


def plan(document: Document, dialect: Dialect, recipe: Recipe, change: Change) -> list[Edit]:
    """The edits of the document that make a change true.

    Raises ``NotEditable`` where the dialect can't express it or the text can't be edited there.
    """
    if isinstance(change, RenameKey | Replace | Remove | Rewrite):
        return plan_in_document(document, recipe.part, change)
    if isinstance(change, Set) and change.field in dialect.edits:
        return dialect.edits[change.field].write(document, recipe, change.value)
    slot = dialect.slots.get(change.field)
    if slot is not None and slot.switches:
        return _switch(document, dialect, recipe, slot, change)
    read_at = recipe[change.field].path
    if slot is None and read_at is None:
        msg = f"{dialect.title} has no key of its own for {change.field}"
        raise NotEditable(msg)
    path = recipe.path + slot.path if slot is not None else read_at or ()
    if read_at is not None and _is_option(read_at, path):
        path = read_at
    if read_at is not None and read_at != path:
        if slot is not None and recipe[change.field].origin == "computed":
            msg = f"{change.field} follows from {read_at[-1]}"
            raise NotEditable(msg)
        # the file has it elsewhere, such as above the LoRA section; its name says how it is spelled
        slot = slot if slot is not None and slot.path[-1] == read_at[-1] else None
        path = read_at
    codec = slot.codec if slot is not None else AS_WRITTEN
    node = document.node(recipe.part, path)
    if isinstance(change, Unset):
        return _remove(document, recipe.part, path)
    if isinstance(change, Set):
        return _set(document, dialect, recipe, change.field, path, node, codec, change.value)
    return _set_entry(document, recipe, node, codec, change)


def _is_option(read_at: KeyPath, path: KeyPath) -> bool:
    """Whether a key is another as a command spells it, with dashes."""
    return tuple(str(step).replace("-", "_") for step in read_at) == path


def plan_in_document(
    document: Document, part: int, change: RenameKey | Replace | Remove | Rewrite
) -> list[Edit]:
    """The edits for a change that names a path of the document.

    Raises ``NotEditable`` where the text can't be edited there.
    """
    if isinstance(change, Rewrite):
        return list(change.edits)
    holder = document.node(part, change.path[:-1])
    if holder is None or holder.kind != "mapping":
        msg = "there is no such key"
        raise NotEditable(msg)
    entries = [entry for entry in holder.entries if entry.key == change.path[-1]]
    if isinstance(change, Remove):
        return document.remove_key(holder, entries[change.occurrence])
    if isinstance(change, RenameKey):
        return document.rename_key(holder, entries[-1], change.name)
    return document.replace(entries[-1].node, change.value)


def _remove(document: Document, part: int, path: KeyPath) -> list[Edit]:
    holder = document.node(part, path[:-1])
    entry = document.entry(part, path)
    if holder is None or entry is None:
        msg = "the key is not written"
        raise NotEditable(msg)
    return document.remove_key(holder, entry)


def _switch(
    document: Document,
    dialect: Dialect,
    recipe: Recipe,
    slot: Slot,
    change: Set | SetItem | DropItem | Unset,
) -> list[Edit]:
    """Turn the switches so that the list of those that are on is the wished one."""
    wished = change.value if isinstance(change, Set) else recipe.value(slot.field)
    if not isinstance(wished, list) or isinstance(change, Unset):
        msg = f"{dialect.title} has a switch for each entry of {slot.field}"
        raise NotEditable(msg)
    wished = list(wished)
    if isinstance(change, SetItem):
        wished[change.item] = change.value
    elif isinstance(change, DropItem):
        del wished[change.item]
    if unknown := {*wished} - {*slot.switches}:
        msg = f"{dialect.title} has no switch for {', '.join(sorted(map(str, unknown)))}"
        raise NotEditable(msg)
    edits: list[Edit] = []
    for name, (path, absent) in slot.switches.items():
        at = recipe.path + path
        node = document.node(recipe.part, at)
        now = absent if node is None else slot.codec.decode(node.value)
        on = name in wished
        if now is not on:
            edits += _set(
                document, dialect, recipe, f"{slot.field} {name}", at, node, slot.codec, on
            )
    return edits


def _set(
    document: Document,
    dialect: Dialect,
    recipe: Recipe,
    field: str,
    path: KeyPath,
    node: Node | None,
    codec: Codec,
    value: Any,
) -> list[Edit]:
    if node is not None and node.style == "flag" and isinstance(value, bool):
        default = dialect.defaults.get(field)
        if value or default is None or default.value in (None, False):
            return [] if value else _remove(document, recipe.part, path)
    value = codec.within(value, recipe) if codec.within is not None else value
    if node is not None:
        _require_list(document, recipe, node, codec, value)
        packed = node.kind != "sequence" or not isinstance(value, list)
        return document.replace(node, codec.encode(value) if packed else value)
    holder = document.node(recipe.part, path[:-1])
    if holder is None or holder.kind != "mapping":
        msg = f"there is no place for {'.'.join(map(str, path))}"
        raise NotEditable(msg)
    near = [
        str(other.path[-1])
        for other in dialect.slots.values()
        if recipe.path + other.path[:-1] == path[:-1] and other.field in _NEIGHBOURS
    ]
    return document.insert_key(holder, str(path[-1]), codec.encode(value), near)


def _require_list(document: Document, recipe: Recipe, node: Node, codec: Codec, value: Any) -> None:
    """Refuse to write a list over an option's text that holds entries in the program's own way."""
    root = document.node(recipe.part, ())
    if root is None or root.style != "command" or codec is not AS_WRITTEN:
        return
    packed = node.kind == "scalar" and isinstance(node.value, str) and "," in node.value
    if packed and isinstance(value, list):
        msg = "several entries are written as one text"
        raise NotEditable(msg)


def _set_entry(
    document: Document,
    recipe: Recipe,
    node: Node | None,
    codec: Codec,
    change: SetItem | DropItem,
) -> list[Edit]:
    values = recipe.value(change.field)
    if node is None or not isinstance(values, list):
        msg = f"{change.field} is not written as a list"
        raise NotEditable(msg)
    _require_list(document, recipe, node, codec, values)
    wished = list(values)
    if isinstance(change, SetItem):
        if node.kind == "sequence" and len(node.items) == len(values):
            return document.replace(node.items[change.item], change.value)
        wished[change.item] = change.value
    else:
        del wished[change.item]
    return document.replace(node, codec.encode(wished) if node.kind != "sequence" else wished)


# Fields near which a new LoRA key is put, so that it does not land at the end of a long file.
_NEIGHBOURS = frozenset(
    {"r", "lora_alpha", "lora_dropout", "target_modules", "target_parameters", "modules_to_save"}
)
