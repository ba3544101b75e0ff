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
from lora_lint.documents.document import NotEditable

if TYPE_CHECKING:
    from lora_lint.diagnostics import Change, Edit, KeyPath
    from lora_lint.dialects.base import Dialect, Slot
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.recipe import Recipe


def plan(document: Document, dialect: Dialect, recipe: Recipe, change: Change) -> list[Edit]:
    """The edits of the document that make a change true.

    Raises ``NotEditable`` where the dialect can't express it or the text can't be edited there.
    """
    if isinstance(change, RenameKey | Replace | Remove | Rewrite):
        return plan_in_document(document, recipe.part, change)
    slot = dialect.slots.get(change.field)
    path = recipe[change.field].path
    if slot is None or (path is not None and path[len(recipe.path) :] != slot.path):
        msg = f"{dialect.title} has no key of its own for {change.field}"
        if path is None or slot is not None:
            raise NotEditable(msg)
        slot = _slot_at(recipe, change.field, path)
    node = document.node(recipe.part, recipe.path + slot.path)
    if isinstance(change, Unset):
        return _remove(document, recipe.part, recipe.path + slot.path)
    if isinstance(change, Set):
        return _set(document, dialect, recipe, slot, node, change.value)
    return _set_entry(document, recipe, slot, node, change)


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


def _slot_at(recipe: Recipe, field: str, path: KeyPath) -> Slot:
    """A slot for a field that was read outside the dialect's own keys."""
    from lora_lint.dialects.base import Slot

    if path[: len(recipe.path)] != recipe.path:
        msg = f"{field} stands outside the LoRA section"
        raise NotEditable(msg)
    return Slot(field, path[len(recipe.path) :])


def _remove(document: Document, part: int, path: KeyPath) -> list[Edit]:
    holder = document.node(part, path[:-1])
    entry = document.entry(part, path)
    if holder is None or entry is None:
        msg = "the key is not written"
        raise NotEditable(msg)
    return document.remove_key(holder, entry)


def _set(
    document: Document,
    dialect: Dialect,
    recipe: Recipe,
    slot: Slot,
    node: Node | None,
    value: Any,
) -> list[Edit]:
    encoded = slot.codec.encode(value)
    if node is not None:
        return document.replace(node, encoded)
    holder = document.node(recipe.part, (*recipe.path, *slot.path[:-1]))
    if holder is None or holder.kind != "mapping":
        msg = f"there is no place for {'.'.join(map(str, slot.path))}"
        raise NotEditable(msg)
    near = [
        str(other.path[-1])
        for other in dialect.slots.values()
        if other.path[:-1] == slot.path[:-1] and other.field in _NEIGHBOURS
    ]
    return document.insert_key(holder, str(slot.path[-1]), encoded, near)


def _set_entry(
    document: Document,
    recipe: Recipe,
    slot: Slot,
    node: Node | None,
    change: SetItem | DropItem,
) -> list[Edit]:
    values = recipe.value(change.field)
    if node is None or not isinstance(values, list):
        msg = f"{change.field} is not written as a list"
        raise NotEditable(msg)
    wished = list(values)
    if isinstance(change, SetItem):
        if node.kind == "sequence" and len(node.items) == len(values):
            return document.replace(node.items[change.item], change.value)
        wished[change.item] = change.value
    else:
        del wished[change.item]
    return document.replace(node, slot.codec.encode(wished))


# Fields near which a new LoRA key is put, so that it does not land at the end of a long file.
_NEIGHBOURS = frozenset(
    {"r", "lora_alpha", "lora_dropout", "target_modules", "target_parameters", "modules_to_save"}
)
