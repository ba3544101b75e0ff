"""Comments that silence a rule at a place: ``# lora-lint: ignore[TM102] reason``.

At the end of a line they hold for what begins there, and for everything inside the value of the key
on that line; on a line of their own for the next line. ``ignore-file[...]`` holds for the whole
file. Before or behind a shell command, whose lines no comment can part, they hold for all of it. A
comment that silences nothing is reported (DX001), and so is a code that no rule has (DX002).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.checks.names import nearest
from lora_lint.checks.registry import check
from lora_lint.diagnostics import Edit, Finding, Rewrite, Wish
from lora_lint.rulebook import rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.diagnostics import Diagnostic
    from lora_lint.documents.document import Comment, Document
    from lora_lint.documents.tree import Node

_COMMENT: Final = re.compile(r"\s*lora-lint:\s*ignore(?P<file>-file)?\s*\[(?P<codes>[^\]]*)\]")
_MENTION: Final = "lora-lint:"
# What can't be silenced: without a tree there are no places, and the rules about suppressions.
NEVER: Final = frozenset({"CF001", "DX001", "DX002"})


@dataclass(slots=True, eq=False)
class Suppression:
    """One comment: the codes it names, the line it holds for (None: the file), and what it did."""

    comment: Comment
    codes: tuple[str, ...]
    line: int | None
    used: set[str] = field(default_factory=set)


def find(document: Document) -> list[Suppression]:
    """The suppressions of a document."""
    if _MENTION not in document.text:
        return []
    found = []
    for comment in document.comments():
        match = _COMMENT.match(comment.text)
        if match is None:
            continue
        codes = tuple(code.strip() for code in match["codes"].split(",") if code.strip())
        line, column = document.row(comment.span.start), document.location(comment.span.start)[1]
        if not document.line_text(line)[: column - 1].strip():
            line = _next_line(document, line)
        found.append(Suppression(comment, codes, None if match["file"] else line))
    return found


def _next_line(document: Document, line: int) -> int:
    """The next line that holds more than a comment."""
    last = document.row(len(document.text))
    for number in range(line + 1, last + 1):
        text = document.line_text(number).strip()
        if text and not text.startswith("#"):
            return number
    return line


def silenced(document: Document, diagnostic: Diagnostic, suppressions: list[Suppression]) -> bool:
    """Whether a comment silences a diagnostic; the comments remember what they silenced."""
    if not suppressions or diagnostic.code in NEVER:
        return False
    lines = _lines(document, diagnostic)
    holding = [
        suppression
        for suppression in suppressions
        if diagnostic.code in suppression.codes
        and (suppression.line is None or suppression.line in lines)
    ]
    for suppression in holding:
        suppression.used.add(diagnostic.code)
    return bool(holding)


def _lines(document: Document, diagnostic: Diagnostic) -> set[int]:
    """The lines at which a comment silences a diagnostic: its own, and those of the keys above
    it.
    """
    lines = {document.row(diagnostic.span.start)}
    numbered: list[tuple[int, Node | None]] = [
        (i, p.node)
        for i, p in enumerate(document.parts)
        if p.index in (diagnostic.document, diagnostic.cell) and p.index is not None
    ]
    at = diagnostic.span.start
    around = [(i, n) for i, n in numbered if n is not None and n.span.start <= at < n.span.end]
    part, root = (around or numbered[:1] or [(0, None)])[-1]
    if root is not None and root.style == "command":
        # No comment can stand between the lines of a command: it holds for all of them.
        lines |= {document.row(root.span.start), document.row(root.span.end)}
    for depth in range(1, len(diagnostic.key_path) + 1):
        entry = document.entry(part, diagnostic.key_path[:depth])
        if entry is not None:
            lines.add(document.row(entry.key_span.start))
    return lines


class SuppressionSubject(NamedTuple):
    """A file's suppressions, after everything else has been checked."""

    document: Document
    suppressions: list[Suppression]
    selected: frozenset[str]


@check("DX001", scope="suppressions")
def unused_suppression(subject: SuppressionSubject) -> Iterator[Finding]:
    """A comment that silences nothing."""
    for suppression in subject.suppressions:
        for code in suppression.codes:
            if code in subject.selected and code not in suppression.used:
                edits = removal(subject.document, suppression, [code])
                yield Finding(
                    f"this comment silences nothing: {code} does not speak here",
                    span=suppression.comment.span,
                    wishes=(Wish(f"delete ignore[{code}]", (Rewrite(tuple(edits)),), "safe"),),
                )


@check("DX002", scope="suppressions")
def unknown_rule_code(subject: SuppressionSubject) -> Iterator[Finding]:
    """A code that no rule has."""
    for suppression in subject.suppressions:
        for code in suppression.codes:
            if code not in rules():
                digits = code[:2] + code[2:].replace("O", "0").replace("I", "1")
                near = digits if digits in rules() else nearest(code, rules())
                yield Finding(
                    f"there is no rule {code!r}" + (f"; did you mean {near}?" if near else ""),
                    span=suppression.comment.span,
                )


def removal(document: Document, suppression: Suppression, codes: Iterable[str]) -> list[Edit]:
    """The edits that take codes out of a comment, or the whole comment if none is left."""
    left = [code for code in suppression.codes if code not in set(codes)]
    span = suppression.comment.span
    if left:
        text = document.text[span.start : span.end]
        opening, closing = text.index("["), text.index("]")
        return [Edit(span.start + opening + 1, span.start + closing, ", ".join(left))]
    line = document.row(span.start)
    start = span.start
    while start and document.text[start - 1] in " \t":
        start -= 1
    if not document.line_text(line)[: document.location(start)[1] - 1].strip():
        end = span.end
        match = re.compile(r"\r\n|\n|\r").match(document.text, end)
        return [Edit(start, match.end() if match else end, "")]
    return [Edit(start, span.end, "")]
