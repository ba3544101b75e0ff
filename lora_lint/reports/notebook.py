"""The text report where there is no command line: of objects in a program, and as HTML."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final

from lora_lint.reports.digest import Digest, View, digest
from lora_lint.reports.text import join
from lora_lint.rulebook import rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lora_lint.engine import Report
    from lora_lint.reports.text import Style

_COLOURS: Final = {
    "red": "#c0262d",
    "yellow": "#9a6700",
    "blue": "#0550ae",
    "green": "#1a7f37",
    "cyan": "#0a7083",
}
# Colours on their way through the report: code points that no text of a report holds.
_OPEN, _MIDDLE, _CLOSE = "\ue000", "\ue001", "\ue002"


def of_objects(report: Report, style: Style | None = None) -> Iterator[str]:
    """The report's lines on objects: there is no file to fix, and no option to pass."""
    view = View(style=style)
    yield from join([_without_options(digest(file, view)) for file in report.files], (), view)


def _without_options(file: Digest) -> Digest:
    """Without what only an option of the command line could change."""
    known = rules()
    kept = (
        entry._replace(codes=codes)
        for entry in file.not_checked
        if (codes := tuple(code for code in entry.codes if "gpu" not in known[code].needs))
        or not entry.codes
    )
    summary = file.summary._replace(fixable=0, unsafely_fixable=0)
    return file._replace(summary=summary, not_checked=tuple(kept))


def html(lines: Callable[[Style], Iterator[str]]) -> str:
    """A report as HTML with its colours; ``lines`` makes it with a style."""
    text = escape("\n".join(lines(_marked)))
    text = re.sub(f"{_OPEN}([^{_MIDDLE}]*){_MIDDLE}", r'<span style="\1">', text)
    return f"<pre>{text.replace(_CLOSE, '</span>')}</pre>"


def _marked(text: str, *, fg: str | None = None, bold: bool = False) -> str:
    css = [f"color: {_COLOURS[fg]}" if fg else "", "font-weight: bold" if bold else ""]
    return f"{_OPEN}{'; '.join(filter(None, css))}{_MIDDLE}{text}{_CLOSE}"
