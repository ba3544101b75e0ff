"""What a dialect is: the spelling of one framework.

A dialect is data - where each field stands, how it is spelled, what the framework takes when it is
absent - with a ``find``, a ``read`` and a ``lower``. Checks see recipes and never a dialect's keys.
"""

from __future__ import annotations

import contextlib
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from lora_lint.facts import DATA
from lora_lint.recipe import NOTHING, UNKNOWN, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lora_lint.diagnostics import Edit, KeyPath, Span
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree
    from lora_lint.recipe import Recipe


class Codec(NamedTuple):
    """A lens between the value of a node and the value of a field.

    ``decode`` gives the field's value, or the node's own where it can't be read so (a check then
    says that its type is wrong); ``encode`` is its inverse. ``entries`` gives the places of a
    list's entries where they are packed into one scalar. ``within`` makes of a field's value, with
    the recipe's other fields, what ``encode`` gets: a ``scale`` is ``lora_alpha / r``.
    """

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any]
    entries: Callable[[Node, str], Sequence[Span]] | None = None
    within: Callable[[Any, Recipe], Any] | None = None


def _same(value: Any) -> Any:
    return value


AS_WRITTEN = Codec(_same, _same)


def _number(value: Any) -> Any:
    """Numbers as pydantic and dataclass parsers take them: also out of a string."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return int(value)
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _boolean(value: Any) -> Any:
    """Booleans as pydantic and argparse parsers take them: also out of a string."""
    if isinstance(value, str):
        return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(
            value.lower(), value
        )
    return value


_TRUE: Final = ("true", "t", "yes", "y", "on", "1")
_FALSE: Final = ("false", "f", "no", "n", "off", "0")
NUMBER = Codec(_number, _same)
BOOLEAN = Codec(_boolean, _same)


class Slot(NamedTuple):
    """Where a field stands in a dialect, relative to the recipe's mapping, and how it is
    spelled.

    ``switches`` are the keys of a list's possible entries, where each has a boolean of its own, and
    the value of an absent one; the path is then the first one's.
    """

    field: str
    path: KeyPath
    codec: Codec = AS_WRITTEN
    switches: Mapping[str, tuple[KeyPath, bool]] = NOTHING


class Default(NamedTuple):
    """The value a framework takes for an absent field, and where that is stated."""

    value: Any
    source: str


# What can be said of the settings of a home-made program.
UNCERTAIN: Final = "what its program makes of these settings is its own affair"


class LoraKwargs(NamedTuple):
    """What the framework passes to ``peft.LoraConfig``; parts may be ``UNKNOWN``.

    ``source`` is how PEFT gets it: as keywords, or as an adapter_config.json that is loaded.
    ``patches`` names what the framework changes in PEFT itself or goes round (``no-wrapper``: no
    PeftModel, so that the task type says nothing), ``unused`` the written targets that it drops
    because they match nothing.
    """

    values: Mapping[str, Any]
    source: Literal["kwargs", "adapter_config"] = "kwargs"
    patches: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()


class Undecided(NamedTuple):
    """What the framework passes can't be known; ``reason`` says why."""

    reason: str


def as_it_is(tree: ModuleTree) -> ModuleTree:
    """Hugging Face's model, which most frameworks train."""
    return tree


class Own(NamedTuple):
    """How a framework writes a field that is not one key's; ``fields`` are others that change."""

    write: Callable[[Document, Recipe, object], list[Edit]]
    fields: frozenset[str] = frozenset()


def keys_set(document: Document, root: Node, values: Mapping[str, object], near: str) -> list[Edit]:
    """Edits after which a mapping has these keys and values; new ones stand after ``near``."""
    edits: list[Edit] = []
    for key, value in values.items():
        node = root.get(key)
        if node is None:
            edits += document.insert_key(root, key, value, [near])
        elif node.value != value:
            edits += document.replace(node, value)
    return edits


class Dialect(NamedTuple):
    """A framework's spelling.

    ``find`` gives the parts and paths where recipes stand in a document; ``read`` makes a recipe of
    one; ``lower`` gives the LoraConfig keywords that the framework makes of it, once the model is
    known. ``parses_numbers``: the framework takes a number out of a string (``1e-4``);
    ``checks_types``: it refuses values of a wrong type itself; ``refuses_duplicates``: and a key
    that is set twice. ``refusal`` is what it says to a key it does not know; where it is empty,
    such keys are ignored (``warns``: with a warning). ``applied_by`` names what puts LoRA's layers
    into the model: PEFT, or the framework itself; ``lower`` then gives the LoraConfig that would do
    the same. ``certain`` is False where the meaning of the keys is the file's own affair (home-made
    files). ``edits`` writes fields that are not one key's, or raises ``NotEditable``. ``model``
    gives the tree of the framework's own model class for Hugging Face's, where it has one.
    """

    name: str
    title: str
    find: Callable[[Document], Iterator[tuple[int, KeyPath]]]
    read: Callable[[Document, int, KeyPath], Recipe]
    lower: Callable[[Recipe, ModuleTree | None], LoraKwargs | Undecided]
    slots: Mapping[str, Slot]
    defaults: Mapping[str, Default] = NOTHING
    parses_numbers: bool = False
    checks_types: bool = False
    refuses_duplicates: bool = False
    refusal: str = ""
    warns: bool = False
    applied_by: str = "PEFT"
    certain: bool = True
    edits: Mapping[str, Own] = NOTHING
    model: Callable[[ModuleTree], ModuleTree] = as_it_is


def read_slots(
    mapping: Node,
    path: KeyPath,
    slots: Mapping[str, Slot],
    defaults: Mapping[str, Default],
    *,
    null_is_absent: bool,
) -> dict[str, Field]:
    """The fields of a mapping by its slots: written where a key is there, else the default."""
    fields = {}
    for name, slot in slots.items():
        node = mapping.at(slot.path)
        if node is None or (null_is_absent and node.kind == "scalar" and node.value is None):
            default = defaults.get(name)
            if default is not None:
                fields[name] = Field(default.value, "default", None, default.source)
            continue
        fields[name] = read_node(node, path + slot.path, slot.codec)
    for name, default in defaults.items():
        if name not in slots:
            fields[name] = Field(default.value, "default", None, default.source)
    return fields


_TEMPLATE: Final = re.compile(r"\$\{|\{\{|<[A-Za-z][\w .-]*>$")


def is_template(value: object) -> bool:
    """Whether a text is filled in before the run: ``${rank}``, ``{{ rank }}``, ``<rank>``."""
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def read_node(node: Node, path: KeyPath, codec: Codec = AS_WRITTEN) -> Field:
    """A field as a node states it."""
    if node.kind == "unknown":
        return Field(None, "unknown", path, node.note)
    value = node.plain()
    if value is UNKNOWN:
        return Field(None, "unknown", path, node.note)
    if is_template(value):
        return Field(None, "unknown", path, "a template fills it in")
    return Field(codec.decode(value), node.origin, path, node.note)


def without_template(field: Field) -> Field:
    """``${R}`` and ``{{ r }}`` are filled in before the file is used: what is there is unknown."""
    if field.path is None or field.origin not in ("written", "computed"):
        return field
    values = field.value if isinstance(field.value, list) else [field.value]
    if any(isinstance(v, str) and ("${" in v or "{{" in v) for v in values):
        return Field(None, "unknown", field.path, "a template")
    return field


def plain_float(value: Field, node: Node | None) -> Field:
    """``1e-4`` without quotes as the number that YAML 1.2 and OmegaConf see in it."""
    if node is None or node.style != "plain" or not isinstance(value.value, str):
        return value
    with contextlib.suppress(ValueError):
        return value._replace(value=float(value.value))
    return value


@lru_cache
def framework_facts(name: str) -> dict[str, Any]:
    """What the releases of a framework know; made by tools/framework_facts.py."""
    path = DATA / "frameworks" / f"{name}.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def lora_values(recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    """The values of fields that are not unset, by name; ``UNKNOWN`` where one is not static."""
    return {name: recipe.value(name) for name in names if recipe[name].origin != "unset"}


def split_commas(value: Any) -> Any:
    """``"a, b"`` as a list, as command lines and LLaMA-Factory read it."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def comma_spans(node: Node, text: str) -> list[Span]:
    """The places of the entries of a comma-separated string in the document's text."""
    from lora_lint.diagnostics import Span

    start = node.span.start + (text[node.span.start : node.span.start + 1] in ("'", '"'))
    spans = []
    for part in str(node.value).split(","):
        lead = len(part) - len(part.lstrip())
        if part.strip():
            spans.append(Span(start + lead, start + lead + len(part.strip())))
        start += len(part) + 1
    return spans
