"""Values as words of a shell, such that the program receives just them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lora_lint.documents.document import NotEditable

if TYPE_CHECKING:
    from lora_lint.documents.bash import Quote
    from lora_lint.documents.tree import Style

# What no shell splits, replaces or takes for a sign of its own, quoted or not.
_SAFE: Final = re.compile(r"[A-Za-z0-9_./:,@%+-][A-Za-z0-9_./:,@%+=-]*")


def as_text(value: object) -> str:
    """A value as the text that a command line has for it.

    Raises ``NotEditable`` for what has none.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str):
        msg = f"a command line has no word for {value!r}"
        raise NotEditable(msg)
    if re.search(r"[\r\n\0]", value):
        msg = "the value holds a line end"
        raise NotEditable(msg)
    return value


def spell(text: str, quote: Quote, style: Style = "plain", *, split: bool = False) -> str:
    """A text as it may stand inside these quotes: ``plain`` for outside of any.

    ``style`` are the quotes that the old value had. ``split``: the shell takes the text apart
    afterwards, so that no quotes can protect it. Raises ``NotEditable`` where it can't stand there.
    """
    if split or quote == "raw":
        if not _SAFE.fullmatch(text):
            msg = "the value would be split up by the shell where it stands"
            raise NotEditable(msg)
        return text if quote == "raw" else _quoted(text, style)
    if quote == "single":
        if "'" in text:
            msg = "the value can't stand between single quotes"
            raise NotEditable(msg)
        return text
    if quote == "double":
        return _escaped(text)
    return _quoted(text, style)


def _quoted(text: str, style: Style) -> str:
    if style == "plain" and _SAFE.fullmatch(text):
        return text
    if "'" in text or style == "double":
        return f'"{_escaped(text)}"'
    return f"'{text}'"


def _escaped(text: str) -> str:
    """A text between double quotes."""
    return re.sub(r'([\\"$`])', r"\\\1", text)
