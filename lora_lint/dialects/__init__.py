"""Frameworks' spellings of a LoRA run, one module each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.dialects.base import Dialect, LoraKwargs, Slot, Undecided

if TYPE_CHECKING:
    from lora_lint.documents.document import Document
    from lora_lint.recipe import Recipe

__all__ = ["Dialect", "LoraKwargs", "Slot", "Undecided", "dialect", "recipes"]

# In the order in which they are tried; the first that finds recipes in a document has it.
_BY_FORMAT = {
    "yaml": ("axolotl", "llama_factory", "trl", "peft"),
    "json": ("peft", "llama_factory", "trl"),
    "python": ("peft_python",),
    "notebook": ("peft_python",),
}


def dialect(name: str) -> Dialect:
    """A dialect by its name; modules are imported when they are first needed."""
    from importlib import import_module

    found: Dialect = import_module(f"lora_lint.dialects.{name}").DIALECT
    return found


def recipes(document: Document) -> list[Recipe]:
    """The LoRA runs that a document describes, in the order in which they stand."""
    for name in _BY_FORMAT.get(document.format, ()):
        spelling = dialect(name)
        found = [spelling.read(document, part, path) for part, path in spelling.find(document)]
        if found:
            return found
    return []
