"""A file as a tree, and how wishes about its nodes become edits of its text.

Edits touch nothing but what they are about: lists are edited entry by entry, never written anew, so
that comments, quotes, indentation and line ends stay as they are.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lora_lint.diagnostics import Edit, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.tree import Entry, Node

_LINE_END = re.compile(r"\r\n|\n|\r")
BOM = "\ufeff"


class NotEditable(Exception):  # noqa: N818 - it is an answer, not a fault
    """The text can't be edited there; the message says why, in words for people."""


class Problem(NamedTuple):
    """The file does not parse: what is wrong, and where."""

    message: str
    span: Span


class Comment(NamedTuple):
    """A comment's text without its marker, and its place with it."""

    text: str
    span: Span


@dataclass(slots=True)
class Part:
    """A document of a YAML stream, a cell of a notebook, a shell command, or the whole file.

    ``index`` is its number in the file, None where the format has no parts. ``launchers`` are what
    runs a shell command, from the outside in.
    """

    node: Node
    index: int | None = None
    launchers: tuple[Node, ...] = ()


class Document:
    """A file's text and the tree it holds.

    ``text`` is the decoded text with its byte order mark, if any; every offset counts its
    characters. ``problem`` is set, and ``parts`` is empty, where the file does not parse.
    """

    format: str
    trailing_comma = True
    document_parts = False
    cell_parts = False

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.parts: list[Part] = []
        self.problem: Problem | None = None
        self._starts: list[int] | None = None

    # Places ----------------------------------------------------------------------------------

    def location(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1; a byte order mark has no column."""
        if self._starts is None:
            self._starts = [0, *(match.end() for match in _LINE_END.finditer(self.text))]
        line = bisect_right(self._starts, offset)
        start = self._starts[line - 1]
        column = offset - start + 1
        if line == 1 and self.text.startswith(BOM) and offset > 0:
            column -= 1
        return line, column

    def location_in_file(self, offset: int) -> tuple[int, int]:
        """Line and column in the file itself, which differ from ``location`` in notebooks."""
        return Document.location(self, offset)

    def row(self, offset: int) -> int:
        """The line of an offset, counted so that no two lines of the file share a number.

        The same as the line of ``location``, except in notebooks, whose lines count by cell.
        """
        return self.location(offset)[0]

    def line_text(self, line: int) -> str:
        """The text of a line by its ``row``, without its line end."""
        self.location(0)
        starts = self._starts or [0]
        start = starts[line - 1]
        end = starts[line] if line < len(starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n").lstrip(BOM)

    def where(self, part: int, path: KeyPath) -> tuple[int, KeyPath]:
        """The part that a key path leads into, and the path in it.

        A run of a notebook has fields in several cells: a path into another cell than the run's
        own begins with that cell's part.
        """
        if self.cell_parts and path and isinstance(path[0], int):
            return path[0], path[1:]
        return part, path

    def node(self, part: int, path: KeyPath) -> Node | None:
        """The node at a key path of a part."""
        part, path = self.where(part, path)
        return self.parts[part].node.at(path) if part < len(self.parts) else None

    def entry(self, part: int, path: KeyPath) -> Entry | None:
        """The mapping entry whose value stands at a key path."""
        holder = self.node(part, path[:-1]) if path else None
        return holder.entry(path[-1]) if holder is not None and holder.kind == "mapping" else None

    def comments(self) -> list[Comment]:
        """The comments of the file, in order; none in formats without comments."""
        return []

    @property
    def newline(self) -> str:
        """The line end that the file uses."""
        match = _LINE_END.search(self.text)
        return match.group() if match else "\n"

    # Rendering, per format --------------------------------------------------------------------

    def render(self, value: object, like: Node | None = None) -> str:
        """A value in this format's spelling, quoted like a neighbour."""
        raise NotImplementedError

    def render_pair(self, holder: Node, key: str, value: object) -> str:
        """A key with its value as an entry of that mapping."""
        raise NotImplementedError

    def render_key(self, holder: Node, key: str, old: Entry) -> str:
        """A key in the place of another."""
        raise NotImplementedError

    # Edits ------------------------------------------------------------------------------------

    def replace(self, node: Node, value: object) -> list[Edit]:
        """Edits after which the node has this value."""
        _require_editable(node)
        if isinstance(value, list | tuple) and node.kind == "sequence":
            return self.set_items(node, list(value))
        if node.kind in ("mapping", "sequence") and self._has_comment(*node.span, node):
            msg = "a comment stands inside the value"
            raise NotEditable(msg)
        text = self.render(value, node)
        if node.style == "block" and not self._text_before(node.span.start):
            return self._replace_block(node, text)
        if node.span.start == node.span.end and not self._space_before(node.span.start):
            text = " " + text
        return [Edit(node.span.start, node.span.end, text)]

    def _replace_block(self, node: Node, text: str) -> list[Edit]:
        """Put a short value on the line of its key instead of the lines below it."""
        before = [c for c in self.comments() if c.span.end <= node.span.start]
        start = node.span.start
        while start and self.text[start - 1].isspace():
            start -= 1
        while before and before[-1].span.end == start:
            start = before.pop().span.start
            while start and self.text[start - 1].isspace():
                start -= 1
        if start == 0 or self.text[start - 1] != ":":
            msg = "the value does not stand under a key"
            raise NotEditable(msg)
        end = self._line_start(node.span.start)
        end -= len(self.newline) if end > start else 0
        return [Edit(start, start, " " + text), Edit(max(start, end), node.span.end, "")]

    def set_items(self, node: Node, values: list[object]) -> list[Edit]:
        """Edits after which the sequence holds these values, entry by entry."""
        _require_editable(node)
        old = [item.plain() for item in node.items]
        if not values:
            return [Edit(node.span.start, node.span.end, "[]")]
        if not old:
            return [Edit(node.span.start, node.span.end, self.render(values, node))]
        edits: list[Edit] = []
        keys_old, keys_new = [repr(v) for v in old], [repr(v) for v in values]
        matcher = difflib.SequenceMatcher(None, keys_old, keys_new, autojunk=False)
        for tag, i1, i2, j1, j2 in matcher.get_opcodes():
            if tag == "equal":
                continue
            pairs = min(i2 - i1, j2 - j1)
            for item, value in zip(
                node.items[i1 : i1 + pairs], values[j1 : j1 + pairs], strict=True
            ):
                edits += self.replace(item, value)
            if i2 - i1 > pairs:
                edits += self._remove_items(node, i1 + pairs, i2)
            if j2 - j1 > pairs:
                edits += self._insert_items(node, i1 + pairs, values[j1 + pairs : j2])
        return edits

    def insert_key(
        self, holder: Node, key: str, value: object, near: Sequence[str] = ()
    ) -> list[Edit]:
        """Edits that add a key to a mapping, after the last of ``near`` that it has."""
        _require_editable(holder)
        written = [entry for entry in holder.entries if not entry.merged]
        if not written:
            return self._fill_empty(holder, key, value)
        after = next((e for name in reversed(near) for e in written if e.key == name), written[-1])
        pair = self.render_pair(holder, key, value)
        if holder.style == "block":
            return [self._line_after(after.span, self._indent(written[0].key_span.start) + pair)]
        return [self._insert_after(after.span, written, pair)]

    def remove_key(self, holder: Node, entry: Entry) -> list[Edit]:
        """Edits after which the mapping lacks this entry."""
        _require_editable(holder)
        if entry.merged:
            msg = "the key comes in through a merge key (<<)"
            raise NotEditable(msg)
        written = [other for other in holder.entries if not other.merged]
        if holder.style != "block":
            spans = [other.span for other in written]
            position = written.index(entry)
            return self._remove_run(holder, spans, position, position + 1)
        if len(written) == 1:
            msg = "it is the mapping's only key"
            raise NotEditable(msg)
        start = self._line_start(entry.span.start)
        if self.text[start : entry.span.start].strip(" " + BOM):
            return self._remove_first_of_item(written, entry)
        self._refuse_comment_lines(entry.node)
        return [Edit(start + self.text.startswith(BOM, start), self._line_end(entry.span), "")]

    def rename_key(self, holder: Node, entry: Entry, name: str) -> list[Edit]:
        """Edits after which the entry has this key."""
        _require_editable(holder)
        if entry.merged:
            msg = "the key comes in through a merge key (<<)"
            raise NotEditable(msg)
        return [Edit(*entry.key_span, self.render_key(holder, name, entry))]

    # Sequences --------------------------------------------------------------------------------

    def _remove_items(self, node: Node, first: int, last: int) -> list[Edit]:
        for item in node.items[first:last]:
            _require_editable(item)
        if node.style == "block":
            return [
                Edit(self._line_start(item.span.start), self._line_end(item.span), "")
                for item in self._own_lines(node.items[first:last])
            ]
        return self._remove_run(node, [item.span for item in node.items], first, last)

    def _remove_run(self, node: Node, spans: list[Span], first: int, last: int) -> list[Edit]:
        """Remove entries ``first`` to ``last`` (exclusive) of a comma-separated list."""
        if all(self._alone(span) for span in spans[first:last]) and last - first < len(spans):
            edits = [
                Edit(self._line_start(span.start), self._line_end(span), "")
                for span in spans[first:last]
            ]
            comma = self._comma(spans[first - 1].end) if first and last == len(spans) else None
            if comma is not None and self._comma(spans[-1].end) is None:
                edits.insert(0, Edit(comma, comma + 1, ""))
            return edits
        if last < len(spans):
            start, end = spans[first].start, spans[last].start
        elif first:
            start, end = spans[first - 1].end, spans[last - 1].end
        else:
            start, end = spans[0].start, spans[-1].end
            comma = self._comma(end)
            end = end if comma is None else comma + 1
        if self._has_comment(start, end, node):
            msg = "a comment stands between the entries"
            raise NotEditable(msg)
        return [Edit(start, end, "")]

    def _insert_items(self, node: Node, at: int, values: list[object]) -> list[Edit]:
        """Add entries before position ``at`` of a sequence that has some."""
        after = at > 0
        neighbour = node.items[at - 1 if after else 0]
        texts = [self.render(value, neighbour) for value in values]
        if node.style == "block":
            self._own_lines([neighbour])
            dash = self.text[self._line_start(neighbour.span.start) : neighbour.span.start]
            lines = [dash + text for text in texts]
            if after:
                return [self._line_after(neighbour.span, self.newline.join(lines))]
            start = self._line_start(neighbour.span.start)
            return [Edit(start, start, "".join(line + self.newline for line in lines))]
        spans = [item.span for item in node.items]
        gap = ", "
        if len(spans) > 1 and all(self._alone(span) for span in spans):
            gap = "," + self.newline + self._indent(neighbour.span.start)
        if after:
            return [Edit(neighbour.span.end, neighbour.span.end, "".join(gap + t for t in texts))]
        return [Edit(neighbour.span.start, neighbour.span.start, "".join(t + gap for t in texts))]

    def _own_lines(self, items: list[Node]) -> list[Node]:
        for item in items:
            before = self.text[self._line_start(item.span.start) : item.span.start]
            if before.strip(" " + BOM) != "-":
                msg = "the entry does not begin a line of its own"
                raise NotEditable(msg)
            self._refuse_comment_lines(item)
        return items

    # Mappings ---------------------------------------------------------------------------------

    def _fill_empty(self, holder: Node, key: str, value: object) -> list[Edit]:
        inside = self.text[holder.span.start : holder.span.end]
        if holder.style == "block" or len(inside) < 2 or inside[1:-1].strip():
            msg = "the mapping is empty"
            raise NotEditable(msg)
        end = holder.span.end - 1
        return [Edit(end, end, self.render_pair(holder, key, value))]

    def _insert_after(self, span: Span, written: list[Entry], pair: str) -> Edit:
        gap = ", "
        if all(self._alone(entry.span) for entry in written):
            gap = "," + self.newline + self._indent(span.start)
        return Edit(span.end, span.end, gap + pair)

    def _remove_first_of_item(self, written: list[Entry], entry: Entry) -> list[Edit]:
        position = written.index(entry)
        if position + 1 >= len(written):
            msg = "the key does not begin a line of its own"
            raise NotEditable(msg)
        end = written[position + 1].key_span.start
        if "#" in self.text[entry.span.end : end]:
            msg = "a comment stands behind the key"
            raise NotEditable(msg)
        return [Edit(entry.key_span.start, end, "")]

    # Text -------------------------------------------------------------------------------------

    def _line_start(self, offset: int) -> int:
        return max(self.text.rfind("\n", 0, offset), self.text.rfind("\r", 0, offset)) + 1

    def _line_end(self, span: Span) -> int:
        """The offset behind the line end of the line in which a value ends."""
        end = span.end
        if end > span.start and self.text[end - 1] in "\r\n":
            return end  # a block scalar ends behind its line end
        match = _LINE_END.search(self.text, end)
        return match.end() if match else len(self.text)

    def _line_after(self, span: Span, line: str) -> Edit:
        end = self._line_end(span)
        if end and self.text[end - 1] in "\r\n":
            return Edit(end, end, line + self.newline)
        return Edit(end, end, self.newline + line)

    def _indent(self, offset: int) -> str:
        """Blanks that bring a new line to the column of an offset."""
        return " " * (
            offset
            - self._line_start(offset)
            - (self.location(offset)[0] == 1 and self.text.startswith(BOM))
        )

    def _space_before(self, offset: int) -> bool:
        return offset == 0 or self.text[offset - 1] in " \t\r\n"

    def _comma(self, offset: int) -> int | None:
        match = re.compile(r"[ \t]*,").match(self.text, offset)
        return match.end() - 1 if match else None

    def _alone(self, span: Span) -> bool:
        """Whether an entry, with its comma and comment, has its lines for itself."""
        before = self.text[self._line_start(span.start) : span.start]
        match = _LINE_END.search(self.text, span.end)
        after = self.text[span.end : match.start() if match else len(self.text)]
        rest = after.lstrip(" \t").removeprefix(",").lstrip(" \t")
        return not before.strip(" \t") and (not rest or rest.startswith("#"))

    def _text_before(self, offset: int) -> str:
        """What stands on the line before an offset."""
        return self.text[self._line_start(offset) : offset].strip(" " + BOM)

    def _has_comment(self, start: int, end: int, node: Node) -> bool:
        inside = [c for c in self.comments() if start <= c.span.start < end]
        return any(node.span.start <= c.span.start < node.span.end for c in inside)

    def _refuse_comment_lines(self, node: Node) -> None:
        """Refuse to remove a value whose lines hold comments of their own."""
        first = self.location(node.span.start)[0]
        last = self.location(max(node.span.start, node.span.end - 1))[0]
        for comment in self.comments():
            line = self.location(comment.span.start)[0]
            if first <= line < last and comment.span.start > node.span.start:
                msg = "a comment stands inside the value"
                raise NotEditable(msg)


def _require_editable(node: Node) -> None:
    if node.locked:
        raise NotEditable(node.locked)
