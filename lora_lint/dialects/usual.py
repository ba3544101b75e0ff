"""The names that people give LoRA settings in programs of their own.

Where only the names speak, what they do is the program's own affair: dialects made of this are not
``certain``, and their ``lower`` is undecided. Names in the order in which they count; those of the
second table mean LoRA only where something else says that this is about LoRA.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import UNCERTAIN, Codec, LoraKwargs, Undecided, read_node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree
    from lora_lint.recipe import Field, Recipe

PLAIN_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "r": ("lora_r", "lora_rank", "lora_dim"),
    "lora_alpha": ("lora_alpha",),
    "lora_dropout": ("lora_dropout",),
    "target_modules": ("lora_target_modules", "lora_targets", "lora_target"),
    "modules_to_save": ("lora_modules_to_save",),
}
SHORT_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "r": ("r", "rank"),
    "lora_alpha": ("alpha",),
    "lora_dropout": ("dropout",),
    "target_modules": ("target_modules", "targets", "modules"),
    "modules_to_save": ("modules_to_save",),
    "use_rslora": ("use_rslora", "rslora"),
    "use_dora": ("use_dora", "dora"),
    "bias": ("bias",),
    "task_type": ("task_type",),
}
SWITCHES: Final = (
    "enabled",
    "enable",
    "use_lora",
    "use_peft",
    "use_peft_lora",
    "enable_lora",
    "lora_enabled",
    "lora_enable",
    "lora",
)
# Keys that say which adapter is meant.
_KINDS: Final = ("peft_type", "peft_method", "method", "type", "adapter_type", "adapter")
_TEMPLATE: Final = re.compile(r"\$\{|\{\{|<\w|%\(|\$\w")
# LoRA itself and what is built on it; not AdaLoRA, LoHa, GraLoRA, whose settings are their own.
_LORA_WORD: Final = re.compile(
    r"(?:q|rs|full|peft|causal)?[-_ ]?(?:lora|dora|peft|pissa)(?:[-_+ .].*)?|true|auto",
    re.IGNORECASE,
)
# Switches such as `--use_adalora`, by the names of PEFT's tuners.
_OTHER_SWITCH: Final = re.compile(r"(?:use|enable)_(?:adalora|boft|ia3|loha|lokr|oft|vera)")


def lora_fields(
    mapping: Node, path: KeyPath, *, short: bool, codecs: Mapping[str, Codec]
) -> dict[str, Field]:
    """The LoRA settings of a mapping by its usual names. ``short``: ``alpha`` means lora_alpha."""
    fields: dict[str, Field] = {}
    for name in {**PLAIN_NAMES, **SHORT_NAMES}:
        known = PLAIN_NAMES.get(name, ()) + (SHORT_NAMES[name] if short else ())
        for key in known:
            node = mapping.get(key)
            if node is not None:
                codec = codecs.get(name)
                fields[name] = (
                    read_node(node, (*path, key), codec) if codec else read_node(node, (*path, key))
                )
                break
    return fields


def is_number(field: Field | None) -> bool:
    """Whether a field's value may be a number: it is one, or is not static."""
    if field is None:
        return False
    value = field.value
    if field.origin == "unknown" or isinstance(value, int | float):
        return not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    return _TEMPLATE.search(value) is not None or _is_numeral(value)


def _is_numeral(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def speaks_of_lora(fields: Mapping[str, Field]) -> bool:
    """Whether settings are surely a LoRA adapter's: a rank or an alpha, with another one beside."""
    sized = [name for name in ("r", "lora_alpha") if name in fields]
    if not sized or not all(is_number(fields[name]) for name in sized):
        return False
    dropout = fields.get("lora_dropout")
    others = {"target_modules", "modules_to_save"} & set(fields)
    return len(sized) == 2 or bool(others) or is_number(dropout)


def other_adapter(mapping: Node) -> bool:
    """Whether a mapping says that it is about another adapter than LoRA."""
    for key in _KINDS:
        node = mapping.get(key)
        if (
            node is not None
            and isinstance(node.value, str)
            and not _LORA_WORD.fullmatch(node.value)
        ):
            return not _TEMPLATE.search(node.value)
    return any(
        isinstance(entry.key, str)
        and _OTHER_SWITCH.fullmatch(entry.key)
        and str(entry.node.value).lower() == "true"
        for entry in mapping.entries
    )


def switched_off(mapping: Node, value_of: Any = lambda node: node.value) -> bool:
    """Whether a switch beside the settings is off."""
    found = (mapping.get(key) for key in SWITCHES)
    return any(node is not None and value_of(node) is False for node in found)


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """Undecided: nothing but the program says what reaches LoraConfig."""
    return Undecided(UNCERTAIN)
