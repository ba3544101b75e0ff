"""What a framework's config files may hold: keys, types, values, defaults.

One table per framework in ``lora_lint/data/frameworks``, compiled by tools/framework_facts.py out
of the framework's own releases. A key's entry is a mapping, all of its parts optional:

``type``
    the types it takes, in JSON Schema's words; without it the key takes anything
``choices``
    the values it takes
``items``
    the types of a list's entries
``keys``
    the keys of the mapping that it holds, as a table of its own; without it any
``default``
    what an absent key means
``old``
    only releases before the newest one know it; nothing more is said of such a key
``alias``
    the key that the framework turns it into

Types are the framework's own annotations; what its reader makes of other values (``"8"`` for an
integer) is the business of the ``Reader``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from lora_lint.dialects.base import (
    AS_WRITTEN,
    BOOLEAN,
    NUMBER,
    Codec,
    framework_facts,
    is_template,
)
from lora_lint.recipe import Misfit, StrayKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.dialects.base import Dialect, Slot
    from lora_lint.documents.tree import Node

Table = dict[str, dict[str, Any]]
_KINDS: Final = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
_TRUTHS: Final = frozenset(
    {"true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "1", "0"}
)


class Reader(NamedTuple):
    """How a framework's loader takes values of another type than the declared one.

    ``texts``: strings become the declared number or boolean where they spell one. ``casts``: whole
    floats become integers, 0 and 1 booleans and booleans numbers. ``truths``: every integer becomes
    a boolean, and every text that spells one. ``to_text``: numbers become strings where a string is
    declared. ``choices``: other values than the declared ones are refused. ``types``: values that
    fit no declared type are refused; without it they are taken as they are.
    """

    texts: bool = False
    casts: bool = False
    truths: bool = False
    to_text: bool = False
    choices: bool = False
    types: bool = False


# Dataclasses filled from a mapping: nothing is looked at.
UNCHECKED: Final = Reader()
# argparse whose defaults come out of a file: texts go through the option's type, the rest through.
ARGPARSE_DEFAULTS: Final = Reader(texts=True)
# pydantic's lax mode.
PYDANTIC: Final = Reader(texts=True, casts=True, choices=True, types=True)
# OmegaConf with a structured config.
OMEGACONF: Final = Reader(texts=True, truths=True, to_text=True, choices=True, types=True)
# jsonargparse: texts are read once more as YAML.
JSONARGPARSE: Final = Reader(texts=True, choices=True, types=True)


def table(name: str) -> Table:
    """The keys of a framework's config files."""
    keys: Table = framework_facts(name)["keys"]
    return keys


def judged(
    root: Node,
    path: KeyPath,
    dialect: Dialect,
    reader: Reader,
    *,
    under: KeyPath = (),
    complete: bool = False,
) -> dict[str, Any]:
    """The keys and values of a mapping that a framework does not take, as parts of a ``Recipe``.

    ``under``: where in the table the mapping's own keys stand.
    """
    keys = table(dialect.name)
    keys = (entry(keys, under) or {}).get("keys", {}) if under else keys
    effect: Literal["rejected", "ignored"] = "rejected" if dialect.refusal else "ignored"
    return {
        "stray": tuple(stray(root, path, keys, effect, complete=complete)),
        "misfits": tuple(misfits(root, path, keys, reader)),
    }


def entry(keys: Table, path: KeyPath) -> dict[str, Any] | None:
    """The entry of a key, None where the table has none."""
    found: dict[str, Any] | None = None
    for step in path:
        found = keys.get(str(step))
        if found is None:
            return None
        keys = found.get("keys", {})
    return found


def codec(keys: Table, path: KeyPath) -> Codec:
    """How a framework that reads numbers and booleans out of texts reads a key."""
    types = set((entry(keys, path) or {}).get("type", ()))
    if "string" in types:
        return AS_WRITTEN
    if types & {"integer", "number"}:
        return NUMBER
    return BOOLEAN if "boolean" in types else AS_WRITTEN


def for_commands(slots: Mapping[str, Slot], keys: Table) -> dict[str, Slot]:
    """A dialect's slots for command lines, whose values are texts: read by their declared types."""
    return {
        name: slot._replace(codec=codec(keys, slot.path)) if slot.codec is AS_WRITTEN else slot
        for name, slot in slots.items()
    }


def stray(
    node: Node,
    path: KeyPath,
    keys: Table,
    effect: Literal["rejected", "ignored", "unclear"],
    *,
    complete: bool = False,
) -> Iterator[StrayKey]:
    """The written keys, at any depth, that a table does not have.

    ``complete``: the table has all keys of all releases, so that an unknown one is surely wrong.
    """
    for key in node.keys():
        known = keys.get(key)
        if known is None:
            yield StrayKey((*path, key), key, effect, tuple(keys), complete)
            continue
        inner = node.get(key)
        if "keys" in known and inner is not None and inner.kind == "mapping":
            yield from stray(inner, (*path, key), known["keys"], effect, complete=complete)


def misfits(node: Node, path: KeyPath, keys: Table, reader: Reader) -> Iterator[Misfit]:
    """The written values that a framework's loader refuses."""
    for key in node.keys():
        known, inner = keys.get(key), node.get(key)
        if known is None or inner is None or known.get("old"):
            continue
        if "keys" in known and inner.kind == "mapping":
            yield from misfits(inner, (*path, key), known["keys"], reader)
        elif inner.kind != "unknown" and (found := _misfit(inner.plain(), known, reader)):
            yield Misfit((*path, key), key, inner.plain(), *found)


def _misfit(
    value: object, known: Mapping[str, Any], reader: Reader
) -> tuple[tuple[str, ...], tuple[Any, ...]] | None:
    types, choices = tuple(known.get("type", ())), tuple(known.get("choices", ()))
    if is_template(value):
        return None
    if reader.choices and choices and not _fits_choice(value, types, choices, reader):
        return types, choices
    if types and not choices and not fits(value, types, reader):
        return types, ()
    return None


def _fits_choice(
    value: object, types: tuple[str, ...], choices: tuple[Any, ...], reader: Reader
) -> bool:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return True
    other = tuple(t for t in types if t not in {_KINDS.get(type(c)) for c in choices})
    return bool(other) and fits(value, other, reader)


def fits(value: object, types: tuple[str, ...], reader: Reader) -> bool:
    """Whether a loader takes a value where these types are declared."""
    kind = _KINDS.get(type(value))
    if kind is None or kind in types or (kind == "integer" and "number" in types):
        return True
    if isinstance(value, str) and reader.texts:
        whole = reader.truths and "boolean" in types and _spells(value, ("integer",))
        return whole or _spells(value, types) or not (reader.types or _wants_scalar(types))
    if not reader.types:
        return True
    if reader.truths and kind == "integer" and "boolean" in types:
        return True
    if reader.casts and kind == "number" and "integer" in types:
        return float(value).is_integer()  # type: ignore[arg-type]
    if reader.casts and kind == "integer" and "boolean" in types:
        return value in (0, 1)
    if reader.casts and kind == "boolean" and {"integer", "number"} & set(types):
        return True
    return reader.to_text and "string" in types and kind in ("integer", "number", "boolean")


def _wants_scalar(types: tuple[str, ...]) -> bool:
    return set(types) <= {"integer", "number", "boolean", "null"}


def _spells(text: str, types: tuple[str, ...]) -> bool:
    """Whether a text spells a value of one of the types."""
    text = text.strip()
    if "boolean" in types and text.lower() in _TRUTHS:
        return True
    for kind, read in (("integer", int), ("number", float)):
        if kind in types:
            try:
                read(text)
            except ValueError:
                continue
            return True
    return False


def schema(name: str, title: str, *, closed: bool) -> dict[str, Any]:
    """A JSON Schema of a framework's config files, for editors.

    ``closed``: the framework refuses keys that it does not know.
    """
    facts = framework_facts(name)
    made = _object(facts["keys"], closed=closed)
    if facts.get("open"):  # only some of the sections are known
        made.pop("additionalProperties", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{title} {facts['releases'][-1]}" if facts.get("releases") else title,
        **made,
    }


def _object(keys: Table, *, closed: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "object",
        "properties": {key: _property(known, closed=closed) for key, known in keys.items()},
    }
    return made | ({"additionalProperties": False} if closed else {})


def _property(known: Mapping[str, Any], *, closed: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    types, choices = list(known.get("type", ())), list(known.get("choices", ()))
    if known.get("old"):
        return {"deprecated": True}
    if choices:
        other = [t for t in types if t not in {_KINDS.get(type(choice)) for choice in choices}]
        made = {"enum": choices}
        made = {"anyOf": [made, {"type": other}]} if other else made
    elif types:
        made = {"type": types[0] if len(types) == 1 else types}
    if "items" in known and "array" in types and not choices:
        made["items"] = {"type": known["items"]}
    if "keys" in known:
        made |= {k: v for k, v in _object(known["keys"], closed=closed).items() if k != "type"}
    if "default" in known:
        made["default"] = known["default"]
    return made
