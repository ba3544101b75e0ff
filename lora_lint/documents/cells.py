"""The code cells of a notebook: their Python, and where each character stands in the JSON file."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.documents.tree import Node

# Cell magics after which the cell is still Python in the notebook's own namespace.
_PYTHON_CELLS: Final = frozenset({"capture", "debug", "prun", "time", "timeit"})
_CELL_MAGIC: Final = re.compile(r"\s*%%(\w+)")
_SHELL_CELL: Final = re.compile(r"\s*%%(?:bash|sh|script[ \t]+(?:\S*/)?(?:ba|z)?sh)\b[^\r\n]*")
# Commands that train nothing, and words without which none does.
_IDLE: Final = re.compile(r"[ \t]*(?:pip3?|uv[ ]pip|apt|apt-get|git|wget|ls|cd)\b[^&;|\r\n]*\Z")
_TRAINS: Final = re.compile(r"lora|peft|dora|target.modules|train|tune|sft|dpo|grpo", re.IGNORECASE)
_MAGIC: Final = re.compile(r"[ \t]*(?:[%!?,;/]|[\w.*]+\?{1,2}[ \t]*(?:#[^\r\n]*)?(?=[\r\n]|\Z))")
_BANG: Final = re.compile(
    r"[ \t]*!!?|[ \t]*%%?s[xy](?:stem)?[ \t]|[ \t]*[A-Za-z_]\w*[ \t]*=[ \t]*!"
)
_TIMED: Final = re.compile(r"([ \t]*)(%time[ \t]+)")
_MAGIC_VALUE: Final = re.compile(r"[^=!%#'\"\r\n]*[^=!%#'\"<>\r\n]=[ \t]*(?=[!%])")
_PHYSICAL_LINES: Final = re.compile(r"(?:[^\r\n]*\\(?:\r\n|\n|\r))*[^\r\n]*")
# Enough of Python's tokens to tell where a statement ends.
_TOKEN: Final = re.compile(
    r"""
    (?P<string>
        '{3}(?:[^\\]|\\.)*?(?:'{3}|\Z) | "{3}(?:[^\\]|\\.)*?(?:"{3}|\Z)
      | '(?:[^\\\r\n']|\\.)*'? | "(?:[^\\\r\n"]|\\.)*"?
    )
    | (?P<comment>\#[^\r\n]*)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<joined>\\(?:\r\n|\n|\r))
    | (?P<end>\r\n|\n|\r)
    | (?P<other>[^#'"()\[\]{}\\\r\n]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\."
)


def plain_python(text: str) -> str | None:
    """A cell's text with IPython's own syntax blanked out, of the same length.

    ``!pip install`` and ``%matplotlib`` become ``pass``, ``x = !ls`` becomes ``x = _``, and
    ``%time f()`` becomes ``pass ; f()``. None for a cell in another language (``%%bash``).
    """
    out: list[str] = []
    at = 0
    cell_magic = _CELL_MAGIC.match(text)
    if cell_magic is not None:
        if cell_magic[1] not in _PYTHON_CELLS:
            return None
        first = re.compile(r"\s*[^\r\n]*").match(text)
        at = first.end() if first else 0
        out.append(_blank(text[:at]))
    while at < len(text):
        end = at
        if (timed := _TIMED.match(text, at)) is not None:
            out.append(timed[1] + "pass" + " " * (len(timed[2]) - 5) + ";")
            at = end = timed.end()
        elif _MAGIC.match(text, at) is not None:
            end = _magic_end(text, at)
            out.append(_command(text[at:end]))
            at = end
        elif (value := _MAGIC_VALUE.match(text, at)) is not None:
            end = _magic_end(text, value.end())
            out.append(text[at : value.end()] + "_" + _blank(text[value.end() + 1 : end]))
            at = end
        end = _statement_end(text, at)
        out.append(text[at:end])
        at = end
    return "".join(out)


class Shell(NamedTuple):
    """A stretch of a cell that a shell runs. ``filled``: IPython puts values into it before."""

    start: int
    end: int
    filled: bool


def shell_stretches(text: str) -> Iterator[Shell]:
    """The commands of a cell that may start a training: `!` lines, or the whole of a `%%bash`
    cell.
    """
    cell = _SHELL_CELL.match(text)
    if cell is not None:
        if _TRAINS.search(text, cell.end()):
            yield Shell(cell.end(), len(text), filled=False)
        return
    magic = _CELL_MAGIC.match(text)
    if magic is not None and magic[1] not in _PYTHON_CELLS:
        return
    at = 0
    while at < len(text):
        bang = _BANG.match(text, at)
        if bang is not None:
            end = _magic_end(text, bang.end())
            command = text[bang.end() : end]
            if _TRAINS.search(command) and not _IDLE.match(command):
                yield Shell(bang.end(), end, filled=True)
            at = end
        elif _MAGIC.match(text, at) is not None or (magic is not None and at == 0):
            at = _magic_end(text, at)
        at = _statement_end(text, at)


def _blank(text: str) -> str:
    return re.sub(r"[^\r\n]", " ", text)


def _command(text: str) -> str:
    """A magic command as a statement that does nothing."""
    indent = len(text) - len(text.lstrip(" \t"))
    word = "pass" if re.match(r"[^\r\n]{4}", text[indent:]) else "0"
    return text[:indent] + word + _blank(text[indent + len(word) :])


def _magic_end(text: str, at: int) -> int:
    match = _PHYSICAL_LINES.match(text, at)
    return match.end() if match else len(text)


def _statement_end(text: str, at: int) -> int:
    """The offset behind the line end that ends a statement."""
    depth = 0
    for match in _TOKEN.finditer(text, at):
        kind = match.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth = max(0, depth - 1)
        elif kind == "end" and depth == 0:
            return match.end()
    return len(text)


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell. ``index`` is its number among all cells; ``start`` and ``end`` are its place in
    the joined text of all code cells; ``separator`` stands between the strings of its source in the
    file, None where the source is one string.
    """

    index: int
    start: int
    end: int
    file_start: int
    file_end: int
    separator: str | None


class CellMap:
    """The code cells of a notebook as one text, and the way from its offsets to the file's.

    ``shown`` is the text as written, ``code`` the same with IPython's syntax blanked out; both have
    a line end more behind each cell.
    """

    def __init__(self, text: str, cells: list[Node]) -> None:
        self.text = text
        self.cells: list[Cell] = []
        self._ours: list[int] = []
        self._theirs: list[int] = []
        self.shell: list[Shell] = []
        shown: list[str] = []
        code: list[str] = []
        at = 0
        for index, node in enumerate(cells):
            strings = list(_strings(node))
            if not strings:
                continue
            first = at
            for string in strings:
                self._add(at, string)
                at += len(str(string.value))
            source = "".join(str(string.value) for string in strings)
            shown += [source, "\n"]
            code += [plain_python(source) or _blank(source), "\n"]
            spans = (strings[0].span.start + 1, strings[-1].span.end - 1)
            self.shell += [
                Shell(first + start, first + end, filled)
                for start, end, filled in shell_stretches(source)
            ]
            self.cells.append(Cell(index, first, at, *spans, _separator(text, node, strings)))
            at += 1
        self.shown = "".join(shown)
        self.code = "".join(code)
        self._starts = [cell.start for cell in self.cells]
        self._file_starts = [cell.file_start for cell in self.cells]

    def _add(self, at: int, string: Node) -> None:
        """Note where the characters of one JSON string stand."""
        start, end = string.span.start + 1, string.span.end - 1
        self._ours.append(at)
        self._theirs.append(start)
        read = start
        for escape in _ESCAPE.finditer(self.text, start, end):
            at += escape.start() - read + 1
            read = escape.end()
            self._ours.append(at)
            self._theirs.append(read)

    def cell_at(self, offset: int) -> int | None:
        """The number, among the code cells, of the cell with an offset of the joined text."""
        number = bisect_right(self._starts, offset) - 1
        return number if number >= 0 and offset <= self.cells[number].end else None

    def cell_in_file(self, offset: int) -> int | None:
        """The number of the code cell in whose source an offset of the file stands."""
        number = bisect_right(self._file_starts, offset) - 1
        return number if number >= 0 and offset <= self.cells[number].file_end else None

    def to_file(self, offset: int) -> int:
        """The offset in the file at which a character of the joined text begins."""
        run = bisect_right(self._ours, offset) - 1
        return self._theirs[run] + offset - self._ours[run]

    def end_in_file(self, offset: int) -> int:
        """The offset in the file behind the character before an offset of the joined text."""
        start = self.to_file(offset - 1)
        escape = _ESCAPE.match(self.text, start)
        return escape.end() if escape else start + 1

    def from_file(self, offset: int) -> int:
        """The offset in the joined text of a place in the file, which stands in a cell."""
        run = bisect_right(self._theirs, offset) - 1
        ours = self._ours[run] + offset - self._theirs[run]
        return min(ours, self._ours[run + 1]) if run + 1 < len(self._ours) else ours

    def escaped(self, cell: Cell, text: str) -> str:
        """Text as it stands inside the JSON strings of a cell, a string for each line where the
        cell is written so.
        """
        pieces = re.split(r"(?<=\n)", text)
        encoded = [json.dumps(piece, ensure_ascii=False)[1:-1] for piece in pieces]
        between = "" if cell.separator is None else f'"{cell.separator}"'
        return between.join(encoded) if encoded[-1] else "".join(encoded)


def _strings(node: Node) -> Iterator[Node]:
    """The nodes of the strings that a code cell's source consists of."""
    kind = node.get("cell_type") if node.kind == "mapping" else None
    source = node.get("source") if kind is not None and kind.value == "code" else None
    if source is None:
        return
    parts = source.items if source.kind == "sequence" else [source]
    if all(isinstance(part.value, str) for part in parts):
        yield from parts


def _separator(text: str, cell: Node, strings: list[Node]) -> str | None:
    source = cell.get("source")
    if source is None or source.kind != "sequence":
        return None
    if len(strings) > 1:
        return text[strings[0].span.end : strings[1].span.start]
    before = text[source.span.start + 1 : strings[0].span.start]
    return "," + (before if "\n" in before else " ")
