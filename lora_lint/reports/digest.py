"""What is kept of a linted file: all that a report, the statistics and the exit status say of it.

A result holds the document, its tree and all that was worked out about its recipes: too much to
keep for thousands of files, or to hand from one process to another. So each report format says of a
file what there is to say as soon as it is linted, in a few strings, and joins these at the end.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.reports.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.diagnostics import NotChecked
    from lora_lint.engine import FileResult, Unread
    from lora_lint.reports.text import Style

FORMATS: Final = ("text", "concise", "json", "github")


class View(NamedTuple):
    """How a run is reported. ``infos``: advice is printed, not only counted; ``quiet``: nothing but
    findings; ``style`` puts colour on text (None: plain).
    """

    output_format: str = "text"
    infos: bool = True
    quiet: bool = False
    style: Style | None = None


class Digest(NamedTuple):
    """A file in a report's words: its ``findings``, each in the report's format, and the ``facts``
    about its recipes. ``codes`` are the findings' rules with their names, ``missing`` says what
    --require asks for in vain.
    """

    path: str
    summary: Summary
    codes: tuple[tuple[str, str], ...] = ()
    findings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()
    missing: tuple[str, ...] = ()


def digest(file: FileResult, view: View) -> Digest:
    """What a report keeps of a file."""
    if file.document is None:  # dismissed
        return Digest(file.path, Summary.of(file))
    report = _report(view)
    return Digest(
        path=file.path,
        summary=Summary.of(file),
        codes=tuple((d.code, d.name) for d in file.diagnostics),
        findings=tuple(report.findings(file, view)),
        facts=tuple(report.facts(file, view)),
        not_checked=file.not_checked,
    )


def join(digests: Sequence[Digest], unread: Sequence[Unread], view: View) -> Iterator[str]:
    """The report's lines."""
    lines: Iterator[str] = _report(view).join(digests, unread, view)
    return lines


def _report(view: View) -> Any:
    """The module of a format: ``findings`` and ``facts`` of a file, ``join`` for the whole."""
    return import_module(f"lora_lint.reports.{view.output_format}")
