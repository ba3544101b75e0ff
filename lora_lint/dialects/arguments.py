"""Command lines of frameworks, and config files that become command lines.

argparse sees texts: an option has one, several or none. ``texts`` gives a mapping as argparse gets
it, so that a table's types and choices can be held against it. transformers' HfArgumentParser
(5.23.0, hf_argparser.py) takes ``--lora-rank`` for ``--lora_rank`` as well, and argparse any
beginning of an option's name that is no other option's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects import tables
from lora_lint.dialects.base import BOOLEAN, Codec
from lora_lint.documents.tree import Entry, Node
from lora_lint.recipe import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.dialects.base import Slot
    from lora_lint.dialects.tables import Table

# argparse behind texts: the type's own function reads each, other choices are refused.
ARGPARSE: Final = tables.Reader(texts=True, to_text=True, choices=True, types=True)
# HfArgumentParser's ``string_to_bool``.
_BOOLEANS: Final = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")
_CONFIGS: Final = (".yaml", ".yml", ".json")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# An option with ``nargs="+"``: one value is a list of one.
LIST: Final = Codec(_listed, lambda value: value)


def is_command(node: Node) -> bool:
    """Whether a mapping is a command with its options."""
    return node.style == "command"


def key_of(root: Node, key: str) -> str:
    """How a mapping spells a key: with dashes where a command does."""
    if root.get(key) is None and is_command(root):
        dashed = key.replace("_", "-")
        return dashed if root.get(dashed) is not None else key
    return key


def text(root: Node, *keys: str) -> str | None:
    """The text of the first of several keys that is written and static, None where there is
    none; ``True`` of a YAML file is ``"True"``.
    """
    for key in keys:
        node = root.get(key_of(root, key))
        if node is not None and node.kind == "scalar":
            return str(node.value)
    return None


def truth(root: Node, key: str, *, default: bool = False) -> bool | None:
    """A boolean option; None where what is written is not static or no boolean."""
    node = root.get(key_of(root, key))
    if node is None:
        return default
    value = BOOLEAN.decode(node.value) if node.kind == "scalar" else None
    return bool(value) if isinstance(value, bool | int) else None


def unknown(root: Node, *keys: str) -> bool:
    """Whether one of the keys is written with a value that is not static."""
    nodes = (root.get(key_of(root, key)) for key in keys)
    return any(node is not None and node.kind == "unknown" for node in nodes)


def config_file(root: Node) -> str | None:
    """The config file that a command names before its options, None where it names none."""
    node = root.get(0)
    value = node.value if node is not None and node.kind == "scalar" else None
    return value if isinstance(value, str) and value.endswith(_CONFIGS) else None


def spelled(
    slots: Mapping[str, Slot], root: Node, older: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, Slot]:
    """The slots under the names that a mapping uses: dashes, or ``older`` names by field."""
    made = {}
    for name, slot in slots.items():
        names = (str(slot.path[-1]), *(older or {}).get(name, ()))
        keys = [key for key in (key_of(root, n) for n in names) if root.get(key) is not None]
        made[name] = slot._replace(path=(keys[0],)) if keys else slot
    return made


def unsettled(root: Node, fields: dict[str, Field], source: str | None) -> dict[str, Field]:
    """The fields of a command that may receive more than is written: what is absent is unknown
    where a config file (``source``) may set it, and nothing is sure beside ``"$@"``.
    """
    if source is not None:
        reason = f"{source} may set it"
        fields = {
            name: field
            if field.origin not in ("default", "unset")
            else Field(None, "unknown", None, reason)
            for name, field in fields.items()
        }
    if is_command(root) and any(entry.key is None for entry in root.entries):
        fields = {name: field._replace(sure=False) for name, field in fields.items()}
    return fields


def texts(root: Node, keys: Table) -> Node:
    """A mapping as argparse gets it: keys with underscores, scalars as texts, lists where a list
    is taken; a text that spells one of the declared choices is that choice.
    """
    entries = []
    for entry in root.entries:
        if not isinstance(entry.key, str):
            continue
        key = entry.key.replace("-", "_") if is_command(root) else entry.key
        entries.append(Entry(key, entry.key_span, _text_node(entry.node, keys.get(key, {}))))
    return replace(root, entries=entries)


def _text_node(node: Node, known: Mapping[str, Any]) -> Node:
    if node.kind == "mapping":  # becomes JSON
        return replace(node, kind="scalar", value="{}", entries=[])
    if node.kind == "sequence":
        return replace(node, items=[_text_node(item, {}) for item in node.items])
    if node.kind != "scalar" or node.style == "flag":
        return node
    value: object = str(node.value)
    for choice in known.get("choices", ()):
        value = choice if str(choice) == value else value
    types = known.get("type", ())
    if "boolean" in types and str(value).lower() in _BOOLEANS:
        value = BOOLEAN.decode(value)
    made = replace(node, value=value)
    if "array" in types and not {"string", "object"} & set(types):
        return replace(node, kind="sequence", items=[made], value=None)
    return made


def judged(root: Node, path: KeyPath, keys: Table, *, shared: Iterable[str] = ()) -> dict[str, Any]:
    """The options and values that an argument parser does not take, as parts of a ``Recipe``.

    A beginning of an option's name is left alone, and ``shared`` are options of the program that
    the table lacks.
    """
    seen = texts(root, keys)
    written = [entry.key for entry in root.entries if isinstance(entry.key, str)]
    names = dict(zip((entry.key for entry in seen.entries), written, strict=True))
    strays = [
        found._replace(path=(*path, str(names[found.name])))
        for found in tables.stray(seen, (), keys, "rejected")
        if len(found.path) == 1
        and found.name not in shared
        and len(found.name) > 1
        and not (is_command(root) and any(key.startswith(found.name) for key in keys))
    ]
    misfits = []
    for found in tables.misfits(seen, (), keys, ARGPARSE):
        key = str(names[found.path[0]])
        node = root.get(key)
        if node is not None and len(found.path) == 1:
            misfits.append(found._replace(path=(*path, key), value=node.plain()))
    return {"stray": tuple(strays), "misfits": tuple(misfits)}
