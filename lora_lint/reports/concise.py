"""One line per finding, for editors and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.reports.text import COLOURS, plain, summary_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.engine import FileResult, Unread
    from lora_lint.reports.digest import Digest, View


def findings(file: FileResult, view: View) -> Iterator[str]:
    """``path:line:column: severity[code] message`` for each finding."""
    style = view.style or plain
    for diagnostic in file.diagnostics:
        if file.document is None or (diagnostic.severity == "info" and not view.infos):
            continue
        line, column = file.document.location(diagnostic.span.start)
        cell = f":cell {diagnostic.cell + 1}" if diagnostic.cell is not None else ""
        code = style(f"{diagnostic.severity}[{diagnostic.code}]", fg=COLOURS[diagnostic.severity])
        yield f"{diagnostic.path}{cell}:{line}:{column}: {code} {diagnostic.message}"


def facts(_file: FileResult, _view: View) -> Iterator[str]:
    """Nothing."""
    yield from ()


def join(digests: Sequence[Digest], unread: Sequence[Unread], view: View) -> Iterator[str]:
    """The findings, what was not linted, the figures."""
    for file in digests:
        yield from file.findings
    for path, reason in unread:
        yield f"{path}: not linted: {reason}"
    yield summary_line(digests, view.style or plain, infos=view.infos)
