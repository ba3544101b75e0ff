"""Annotations for GitHub Actions (workflow commands), and the summary as plain text.

Source of the format: GitHub's documentation of workflow commands; ``%``, line ends, and in
properties ``:`` and ``,`` are escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.reports.text import summary_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.diagnostics import Diagnostic
    from lora_lint.documents.document import Document
    from lora_lint.engine import FileResult, Unread
    from lora_lint.reports.digest import Digest, View

_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def findings(file: FileResult, _view: View) -> Iterator[str]:
    """One workflow command per finding."""
    for diagnostic in file.diagnostics:
        if file.document is not None:
            yield _annotation(diagnostic, file.document)


def facts(_file: FileResult, _view: View) -> Iterator[str]:
    """Nothing."""
    yield from ()


def join(digests: Sequence[Digest], unread: Sequence[Unread], _view: View) -> Iterator[str]:
    """The commands, also for what was not linted, and the figures."""
    for file in digests:
        yield from file.findings
    for path, reason in unread:
        yield f"::error file={_property(path)}::not linted: {_text(reason)}"
    yield summary_line(digests)


def _annotation(diagnostic: Diagnostic, document: Document) -> str:
    line, column = document.location_in_file(diagnostic.span.start)
    end_line, end_column = document.location_in_file(diagnostic.span.end)
    places = {
        "file": diagnostic.path,
        "line": str(line),
        "endLine": str(end_line),
        "title": f"{diagnostic.code} {diagnostic.name}",
    }
    if line == end_line:  # GitHub takes columns only within one line
        places |= {"col": str(column), "endColumn": str(end_column)}
    listed = ",".join(f"{name}={_property(value)}" for name, value in places.items())
    said = [diagnostic.message, diagnostic.label]
    for related in diagnostic.related:
        if related.document is not None:
            row, _ = related.document.location_in_file(related.span.start)
            said.append(f"{related.path}:{row}: {related.message}")
    said.append(diagnostic.help)
    said += [f"fix ({fix.applicability}): {fix.title}" for fix in diagnostic.fixes]
    message = "\n".join(part for part in said if part)
    return f"::{_COMMANDS[diagnostic.severity]} {listed}::{_text(message)}"


def _text(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _text(value).replace(":", "%3A").replace(",", "%2C")
