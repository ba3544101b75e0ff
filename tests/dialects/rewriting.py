"""A wish about a field is written into a text and read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_lint.diagnostics import Set
from lora_lint.dialects import dialect, recipes
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.fixes import apply_edits
from lora_lint.recipe import holds_unknown

if TYPE_CHECKING:
    from collections.abc import Container

    from lora_lint.recipe import Recipe


def recipe_of(text: str, path: str) -> Recipe:
    """The only recipe of a text."""
    (found,) = recipes(parse(path, text))
    return found


def roundtrip(
    text: str, path: str, field: str, value: Any, follow: Container[str] = ()
) -> tuple[str, Recipe]:
    """The text after ``Set(field, value)`` and its recipe.

    The field then has that value, and every other one what it had before, but for those that
    ``follow`` from it.
    """
    document = parse(path, text)
    (before,) = recipes(document)
    edits = plan(document, dialect(before.dialect), before, Set(field, value))
    written = apply_edits(text, edits)
    after = recipe_of(written, path)
    assert after.dialect == before.dialect
    got = after.value(field)
    assert (got, type(got)) == (value, type(value)), written
    for name in {*before.fields, *after.fields} - {field}:
        one, other = before.value(name), after.value(name)
        if name not in follow and not holds_unknown(one):
            assert one == other, (name, written)
    return written, after
