"""One line per finding, for editors and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.reports.text import COLOURS, Style, plain, summary_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.engine import Report


def render(report: Report, style: Style = plain, *, infos: bool = True) -> Iterator[str]:
    """``path:line:column: severity[code] message`` for each finding, then the summary."""
    for file in report.files:
        for diagnostic in file.diagnostics:
            if file.document is None or (diagnostic.severity == "info" and not infos):
                continue
            line, column = file.document.location(diagnostic.span.start)
            cell = f":cell {diagnostic.cell + 1}" if diagnostic.cell is not None else ""
            code = style(
                f"{diagnostic.severity}[{diagnostic.code}]", fg=COLOURS[diagnostic.severity]
            )
            yield f"{diagnostic.path}{cell}:{line}:{column}: {code} {diagnostic.message}"
    for unread in report.unread:
        yield f"{unread.path}: not linted: {unread.reason}"
    yield summary_line(report, style, infos=infos)
