"""From a wish to a fix: planned, written into the text, and applied."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lora_lint.dialects.plan import plan, plan_in_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lora_lint.diagnostics import Edit, Fix, Wish
    from lora_lint.dialects import Dialect
    from lora_lint.documents.document import Document
    from lora_lint.recipe import Recipe


def edits_for(
    document: Document, wish: Wish, recipe: Recipe | None, dialect: Dialect | None, part: int
) -> tuple[Edit, ...]:
    """The edits that make all changes of a wish true, in the order of the text.

    Raises ``NotEditable`` if one of them can't be made.
    """
    edits: list[Edit] = []
    for change in wish.changes:
        if recipe is not None and dialect is not None:
            edits += plan(document, dialect, recipe, change)
        else:
            edits += plan_in_document(document, part, change)  # type: ignore[arg-type]
    return tuple(sorted(set(edits)))


def write(path: str, text: str, encoding: str) -> None:
    """Replace a file's text in one step, keeping its permissions; a link keeps pointing at it.

    Raises ``OSError`` if that is not allowed; the file is then as it was.
    """
    import shutil
    import tempfile

    target = Path(path).resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode(encoding))
        shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def diff(path: str, before: str, after: str) -> str:
    """The change of a file as a unified diff."""
    import difflib

    # Not splitlines(): it would also split at form feeds and other separators.
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", text) for text in (before, after))
    lines = difflib.unified_diff(old, new, fromfile=path, tofile=path)
    marked = (
        line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines
    )
    return "".join(marked)


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """The text after its edits, which must not overlap."""
    result, at = [], 0
    for start, end, new in sorted(edits):
        if start < at:
            msg = "edits overlap"
            raise ValueError(msg)
        result += [text[at:start], new]
        at = end
    return "".join([*result, text[at:]])


def compatible(fixes: Sequence[Fix]) -> list[Fix]:
    """The fixes that can be applied together: the first of those that touch the same text."""
    chosen: list[Fix] = []
    taken: list[tuple[int, int]] = []
    for fix in fixes:
        spans = [(edit.start, edit.end) for edit in fix.edits]
        if spans and not any(_touch(a, b) for a in spans for b in taken):
            chosen.append(fix)
            taken += spans
    return chosen


def _touch(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
