"""JSON with exact places, as strict as Python's ``json`` module."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING

from lora_lint.diagnostics import Span
from lora_lint.documents.document import BOM, Document, Part, Problem
from lora_lint.documents.tree import Entry, Node

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH = 100
_BLANK = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {
    "null": None,
    "true": True,
    "false": False,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
_WORD = re.compile(r"-?[A-Za-z]+")


class JsonDocument(Document):
    """A JSON file; its one part is the file's value."""

    format = "json"
    trailing_comma = False

    def render(self, value: object, like: Node | None = None) -> str:  # noqa: ARG002
        """A value as JSON."""
        return json.dumps(value, ensure_ascii=False)

    def render_pair(self, holder: Node, key: str, value: object) -> str:  # noqa: ARG002
        """``"key": value``."""
        return f"{json.dumps(key, ensure_ascii=False)}: {self.render(value)}"

    def render_key(self, holder: Node, key: str, old: Entry) -> str:  # noqa: ARG002
        """A key in double quotes."""
        return json.dumps(key, ensure_ascii=False)


class _SyntaxProblem(Exception):  # noqa: N818
    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


class _Reader:
    """A recursive reader; the depth bound keeps its stack small."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = 0

    def read(self) -> Node:
        node, end = self._value(self._blank(int(self.text.startswith(BOM))))
        end = self._blank(end)
        if end != len(self.text):
            raise _SyntaxProblem("there is more text behind the JSON value", end)
        return node

    def _blank(self, at: int) -> int:
        match = _BLANK.match(self.text, at)
        return match.end() if match else at

    def _value(self, at: int) -> tuple[Node, int]:
        first = self.text[at : at + 1]
        if first == '"':
            value, end = self._string(at)
            return Node("scalar", Span(at, end), value, style="double"), end
        if first in ("{", "["):
            return self._collection(at, self._object if first == "{" else self._array)
        return self._plain(at)

    def _collection(self, at: int, read: Callable[[int], tuple[Node, int]]) -> tuple[Node, int]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _SyntaxProblem(f"nested deeper than {MAX_DEPTH} levels", at)
        result = read(at)
        self.depth -= 1
        return result

    def _string(self, at: int) -> tuple[str, int]:
        try:
            value, end = scanstring(self.text, at + 1, True)
        except json.JSONDecodeError as exc:
            raise _SyntaxProblem(exc.msg, exc.pos) from None
        return value, end

    def _plain(self, at: int) -> tuple[Node, int]:
        number = _NUMBER.match(self.text, at)
        if number:
            whole, fraction, exponent = number.groups()
            try:
                value = float(number.group()) if fraction or exponent else int(whole)
            except ValueError:
                raise _SyntaxProblem("the number has too many digits", at) from None
            return Node("scalar", Span(*number.span()), value), number.end()
        word = _WORD.match(self.text, at)
        if word and word.group() in _WORDS:
            return Node("scalar", Span(*word.span()), _WORDS[word.group()]), word.end()
        raise _SyntaxProblem(self._expected_value(at), at)

    def _expected_value(self, at: int) -> str:
        if at >= len(self.text):
            return "the file ends where a value is expected"
        if self.text[at] in "}]" and self.text[:at].rstrip(" \t\r\n").endswith(","):
            return "a comma stands before the closing bracket"
        if self.text.startswith(("//", "/*", "#"), at):
            return "JSON has no comments"
        if self.text[at] == "'":
            return "JSON strings take double quotes"
        return "a value is expected"

    def _object(self, at: int) -> tuple[Node, int]:
        node = Node("mapping", Span(at, at), style="flow")
        end = self._blank(at + 1)
        if self.text[end : end + 1] != "}":
            while True:
                if self.text[end : end + 1] != '"':
                    raise _SyntaxProblem(self._expected_key(end), end)
                key, after = self._string(end)
                colon = self._blank(after)
                if self.text[colon : colon + 1] != ":":
                    raise _SyntaxProblem("`:` is expected behind the key", colon)
                value, behind = self._value(self._blank(colon + 1))
                node.entries.append(Entry(key, Span(end, after), value))
                end, more = self._next(behind, "}")
                if not more:
                    break
        node.span = Span(at, end + 1)
        return node, end + 1

    def _expected_key(self, at: int) -> str:
        if self.text[at : at + 1] == "}":
            return "a comma stands before the closing bracket"
        if self.text.startswith(("//", "/*", "#"), at):
            return "JSON has no comments"
        return "a key in double quotes is expected"

    def _array(self, at: int) -> tuple[Node, int]:
        node = Node("sequence", Span(at, at), style="flow")
        end = self._blank(at + 1)
        if self.text[end : end + 1] != "]":
            while True:
                value, behind = self._value(end)
                node.items.append(value)
                end, more = self._next(behind, "]")
                if not more:
                    break
        node.span = Span(at, end + 1)
        return node, end + 1

    def _next(self, at: int, closing: str) -> tuple[int, bool]:
        """Where the next entry begins, or the closing bracket stands."""
        at = self._blank(at)
        mark = self.text[at : at + 1]
        if mark == closing:
            return at, False
        if mark != ",":
            raise _SyntaxProblem(f"`,` or `{closing}` is expected", at)
        return self._blank(at + 1), True


def parse(path: str, text: str) -> JsonDocument:
    """Read a JSON file; a file that does not parse has a ``problem`` and no parts."""
    document = JsonDocument(path, text)
    try:
        document.parts.append(Part(_Reader(text).read()))
    except _SyntaxProblem as exc:
        at = min(exc.at, len(text))
        document.problem = Problem(str(exc), Span(at, min(at + 1, len(text))))
    return document
