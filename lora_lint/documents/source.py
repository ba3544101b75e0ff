"""The text of a Python file and the places in it.

``ast`` counts lines as Python's tokenizer does (a line feed, a carriage return or both; a form feed
ends no line) and columns in bytes of UTF-8; here all of it becomes offsets in characters.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from lora_lint.diagnostics import Span
from lora_lint.documents.document import BOM, Comment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.documents.tree import Style

_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
# What may stand between two tokens inside brackets.
_BETWEEN: Final = re.compile(r"(?:[ \t\f\r\n]|\\\r?\n|#[^\r\n]*)*")
_QUOTE: Final = re.compile(r"(?P<prefix>[A-Za-z]{0,2})(?P<quote>'''|\"\"\"|'|\")")


class Source:
    """Python text as offsets in characters, its byte order mark included."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.shift = int(text.startswith(BOM))
        self.ascii = text.isascii()
        self.starts = [self.shift, *(m.end() for m in _LINE_END.finditer(text, self.shift))]
        self._encoded: dict[int, bytes | None] = {}

    def offset(self, line: int, column: int) -> int:
        """The offset of a line (from 1) and a column in bytes of UTF-8 (from 0)."""
        start = self.starts[line - 1]
        if self.ascii:
            return start + column
        if line not in self._encoded:
            content = self.line(line)
            self._encoded[line] = None if content.isascii() else content.encode()
        encoded = self._encoded[line]
        return start + (column if encoded is None else len(encoded[:column].decode()))

    def line(self, line: int) -> str:
        """The text of a line (from 1) with its line end."""
        start = self.starts[line - 1]
        end = self.starts[line] if line < len(self.starts) else len(self.text)
        return self.text[start:end]

    def span(self, node: Any) -> Span:
        """The place of a node of ``ast``."""
        return Span(
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno, node.end_col_offset),
        )

    def string_style(self, span: Span) -> Style:
        """How the string that begins there is quoted."""
        match = _QUOTE.match(self.text, span.start)
        if match is None:
            return "plain"
        if len(match["quote"]) == 3:
            return "literal"
        return "single" if match["quote"] == "'" else "double"

    def is_raw(self, span: Span) -> bool:
        """Whether a raw string begins there."""
        match = _QUOTE.match(self.text, span.start)
        return match is not None and "r" in match["prefix"].lower()

    def skip(self, at: int) -> int:
        """The offset of the next token inside brackets: behind blanks, line ends and comments."""
        match = _BETWEEN.match(self.text, at)
        return match.end() if match else at

    def skip_back(self, at: int) -> int:
        """The offset behind the token before, inside brackets."""
        while at > 0:
            if at in self._comment_starts:
                at = self._comment_starts[at]
            elif self.text[at - 1] in " \t\f\r\n" or (
                self.text[at - 1] == "\\" and self.text[at : at + 1] in ("\r", "\n")
            ):
                at -= 1
            else:
                break
        return at

    def with_brackets(self, span: Span, end: int) -> Span:
        """An expression with the redundant round brackets around it; they close before ``end``."""
        while True:
            after = self.skip(span.end)
            if after >= end or self.text[after] != ")":
                return span
            before = self.skip_back(span.start)
            if self.text[before - 1 : before] != "(":
                return span
            span = Span(before - 1, after + 1)

    @cached_property
    def comments(self) -> list[Comment]:
        """The comments; those behind a place that the tokenizer does not get over are missing."""
        return list(self._tokenized_comments())

    @cached_property
    def _comment_starts(self) -> dict[int, int]:
        return {comment.span.end: comment.span.start for comment in self.comments}

    def _tokenized_comments(self) -> Iterator[Comment]:
        import tokenize

        lines = (_LINE_END.sub("\n", match.group()) for match in self._lines())
        try:
            for token in tokenize.generate_tokens(lambda: next(lines, "")):
                if token.type == tokenize.COMMENT:
                    start = self.starts[token.start[0] - 1] + token.start[1]
                    yield Comment(token.string[1:], Span(start, start + len(token.string)))
        except (tokenize.TokenError, SyntaxError):
            return

    def _lines(self) -> Iterator[re.Match[str]]:
        return _LINE.finditer(self.text, self.shift)
