"""What holds for the slots of every dialect: an edit gives a field its value, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint import dialects
from lora_lint.diagnostics import Set
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.fixes import apply_edits

if TYPE_CHECKING:
    from lora_lint.recipe import Recipe


def recipe_of(text: str, path: str = "train.yaml", at: int = 0) -> Recipe:
    """The recipe that a file holds."""
    return dialects.recipes(parse(path, text))[at]


def roundtrip(text: str, field: str, value: object, path: str = "train.yaml", at: int = 0) -> str:
    """Set a field, read the file again, and require that only this field changed.

    Returns the changed text. Fields that the framework works out of this one are no slots and not
    compared.
    """
    document = parse(path, text)
    before = dialects.recipes(document)[at]
    dialect = dialects.dialect(before.dialect)
    changed = apply_edits(text, plan(document, dialect, before, Set(field, value)))
    after = recipe_of(changed, path, at)
    assert after.value(field) == value
    assert after[field].origin in ("written", "computed")
    for name in {*before.fields, *after.fields} & set(dialect.slots) - {field}:
        assert after.value(name) == before.value(name), name
    return changed
