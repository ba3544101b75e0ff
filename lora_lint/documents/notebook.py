"""Jupyter notebooks (format 4): the code cells as one Python file, one part for each cell.

Names are resolved through all cells in the order in which they stand. Spans are offsets of the
.ipynb file, so that edits splice escaped text into its JSON strings and leave all else alone; lines
and columns are those within the cell. ``Part.index`` is the cell's number among all cells, from 0.

The training commands of ``!`` lines and ``%%bash`` cells are parts as well, as documents/shell.py
describes them; they follow the part of their cell.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from lora_lint.diagnostics import Edit, Span
from lora_lint.documents import json
from lora_lint.documents.cells import CellMap
from lora_lint.documents.document import Comment, Document, NotEditable, Part, Problem
from lora_lint.documents.program import SyntaxProblem, build, syntax_tree
from lora_lint.documents.python import PythonDocument
from lora_lint.documents.source import Source
from lora_lint.documents.tree import Entry, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.documents.command_edits import ShellDocument
    from lora_lint.documents.commands import Command

_WORD: Final = re.compile(r"[^\W\d]\w*")
# A cell that says this and does not parse is worth a word; others may be pseudo-code.
_LORA: Final = re.compile(r"\bLoraConfig\b|\bget_peft_model\b")


class NotebookDocument(Document):
    """A notebook; every code cell with a call that matters is a part."""

    format = "notebook"
    cell_parts = True

    def __init__(self, path: str, text: str, cells: CellMap | None = None) -> None:
        super().__init__(path, text)
        self.map = cells or CellMap(text, [])
        self.code = PythonDocument(path, self.map.code)
        # The tree is built with places of the joined text and copied with those of the file.
        self._copies: dict[Node, Node] = {}
        self._nodes: dict[Node, Node] = {}
        self._entries: dict[Entry, Entry] = {}
        self._lists: dict[int, list[Node]] = {}
        self._pairs: dict[int, list[Entry]] = {}
        self.shell: ShellDocument | None = None
        self._of_shell: set[Node] = set()

    # Places --------------------------------------------------------------------------------------

    def location(self, offset: int) -> tuple[int, int]:
        """Line and column within the cell; outside the cells' sources those of the file."""
        number = self.map.cell_in_file(offset)
        if number is None:
            return super().location(offset)
        ours = self.map.from_file(offset)
        starts = self.code.source.starts
        row = bisect_right(starts, ours)
        first = bisect_right(starts, self.map.cells[number].start)
        return row - first + 1, ours - starts[row - 1] + 1

    def row(self, offset: int) -> int:
        """The number of the line, counted through all code cells."""
        number = self.map.cell_in_file(offset)
        if number is not None:
            return bisect_right(self.code.source.starts, self.map.from_file(offset))
        before = [cell for cell in self.map.cells if cell.file_end < offset]
        ours = before[-1].end if before else 0
        return bisect_right(self.code.source.starts, ours)

    def line_text(self, line: int) -> str:
        """The text of a line by its ``row``, as written in the cell."""
        starts = self.code.source.starts
        end = starts[line] if line < len(starts) else len(self.map.shown)
        return self.map.shown[starts[line - 1] : end].rstrip("\r\n")

    def comments(self) -> list[Comment]:
        """The comments in the code cells, and those of shell commands in them."""
        found = self.code.comments()
        if self.shell is not None and self.shell.found_comments:
            found = sorted([*found, *self.shell.found_comments], key=lambda comment: comment.span)
        return [Comment(c.text, self._span(c.span)) for c in found]

    def _span(self, span: Span) -> Span:
        start = self.map.to_file(span.start)
        return Span(start, self.map.end_in_file(span.end) if span.end > span.start else start)

    # The tree ------------------------------------------------------------------------------------

    def add(self, cell: int, root: Node) -> None:
        """Add the tree of a code cell, whose places are those of the joined text."""
        code = self.map.cells[cell]
        root.span = Span(code.start, code.end)
        self.parts.append(Part(self._copy(root), code.index))

    def add_command(self, command: Command) -> None:
        """Add a shell command, whose places are those of the joined text."""
        cell = self.map.cells[self.map.cell_at(command.node.span.start) or 0]
        for tree in (command.node, *command.launchers):
            values = [entry.node for entry in tree.entries]
            parts = [item for value in values for item in (value, *value.items)]
            self._of_shell.update((tree, *parts))
        launchers = tuple(self._copy(launcher) for launcher in command.launchers)
        part = Part(self._copy(command.node), cell.index, launchers)
        before = [p for p in self.parts if p.index is not None and p.index <= cell.index]
        self.parts.insert(len(before), part)

    def _spelled(self, node: Node) -> tuple[Document, Node]:
        """The document in whose language a node is written, and the node there."""
        ours = self._nodes[node]
        if self.shell is not None and ours in self._of_shell:
            return self.shell, ours
        return self.code, ours

    def _copy(self, node: Node) -> Node:
        """The node with places in the file; what is shared stays shared."""
        if node in self._copies:
            return self._copies[node]
        copy = Node(
            node.kind,
            self._span(node.span),
            node.value,
            self._copy_entries(node.entries),
            self._copy_items(node.items),
            node.style,
            node.locked,
            node.note,
            node.origin,
            self._copy(node.home) if node.home is not None else None,
        )
        self._copies[node] = copy
        self._nodes[copy] = node
        return copy

    def _copy_items(self, items: list[Node]) -> list[Node]:
        if id(items) not in self._lists:
            self._lists[id(items)] = [self._copy(item) for item in items]
        return self._lists[id(items)]

    def _copy_entries(self, entries: list[Entry]) -> list[Entry]:
        if id(entries) not in self._pairs:
            copies = []
            for entry in entries:
                span = self._span(entry.key_span)
                copies.append(Entry(entry.key, span, self._copy(entry.node), entry.merged))
                self._entries[copies[-1]] = entry
            self._pairs[id(entries)] = copies
        return self._pairs[id(entries)]

    # Rendering and edits -------------------------------------------------------------------------

    def render(self, value: object, like: Node | None = None) -> str:
        """A Python literal, not yet escaped for JSON."""
        if like is None:
            return self.code.render(value)
        document, ours = self._spelled(like)
        return document.render(value, ours)

    def render_pair(self, holder: Node, key: str, value: object) -> str:
        """``key=value``, not yet escaped for JSON."""
        return self.code.render_pair(self._nodes[holder], key, value)

    def render_key(self, holder: Node, key: str, old: Entry) -> str:
        """A keyword's name."""
        return self.code.render_key(self._nodes[holder], key, self._entries[old])

    def replace(self, node: Node, value: object) -> list[Edit]:
        """Edits after which the node has this value."""
        document, ours = self._spelled(node)
        return self._in_file(document.replace(ours, value))

    def set_items(self, node: Node, values: list[object]) -> list[Edit]:
        """Edits after which the sequence holds these values, entry by entry."""
        document, ours = self._spelled(node)
        return self._in_file(document.set_items(ours, values))

    def insert_key(
        self, holder: Node, key: str, value: object, near: Sequence[str] = ()
    ) -> list[Edit]:
        """Edits that add a keyword to a call, a key to a dict or an option to a command."""
        document, ours = self._spelled(holder)
        return self._in_file(document.insert_key(ours, key, value, near))

    def remove_key(self, holder: Node, entry: Entry) -> list[Edit]:
        """Edits after which the call, dict or command lacks this entry."""
        document, ours = self._spelled(holder)
        return self._in_file(document.remove_key(ours, self._entries[entry]))

    def rename_key(self, holder: Node, entry: Entry, name: str) -> list[Edit]:
        """Edits after which the keyword, key or option has this name."""
        document, ours = self._spelled(holder)
        return self._in_file(document.rename_key(ours, self._entries[entry], name))

    def _in_file(self, edits: list[Edit]) -> list[Edit]:
        """Edits of the joined code as edits of the JSON strings in which it stands."""
        return [self._edit_in_file(edit) for edit in edits]

    def _edit_in_file(self, edit: Edit) -> Edit:
        number = self.map.cell_at(edit.start)
        if number is None:
            msg = "the place is in no cell"
            raise NotEditable(msg)
        cell = self.map.cells[number]
        end = min(edit.end, cell.end)
        start = self.map.to_file(edit.start)
        text = self.map.escaped(cell, edit.text)
        if end <= edit.start:
            return Edit(start, start, text)
        code = self.map.code
        whole_lines = code[end - 1] == "\n" and (
            edit.start == cell.start or code[edit.start - 1] == "\n"
        )
        # A line that goes takes its JSON string with it: up to where the next string begins.
        return Edit(
            start, self.map.to_file(end) if whole_lines else self.map.end_in_file(end), text
        )


def parse(path: str, text: str) -> NotebookDocument:
    """Read a notebook; one that can't be read has a ``problem`` and no parts."""
    document = NotebookDocument(path, text)
    try:
        cells = CellMap(text, _cells(path, text))
        document = NotebookDocument(path, text, cells)
        tainted = _skip_broken_cells(document)
        tree = syntax_tree(document.code.source)
        roots = build(document.code.source, tree, lambda at: cells.cell_at(at) or 0, tainted)
        for number in sorted(roots):
            document.add(number, roots[number])
        _read_commands(document)
    except SyntaxProblem as exc:
        document.problem = Problem(str(exc), exc.span)
    except RecursionError:
        document.problem = Problem("it is nested too deeply to be read", Span(0, 0))
    if document.problem is not None:
        document.parts = []
    return document


def _read_commands(document: NotebookDocument) -> None:
    """Read the shell commands of the cells; one that can't be read is left out."""
    if not document.map.shell:
        return
    from lora_lint.documents import shell
    from lora_lint.documents.command_edits import ShellDocument

    document.shell = ShellDocument(document.path, document.map.shown)
    for start, end, filled in document.map.shell:
        with contextlib.suppress(ValueError):
            shell.read(document.shell, start, end, filled=filled)
    for command in document.shell.commands:
        document.add_command(command)


def _cells(path: str, text: str) -> list[Node]:
    """The cells of a notebook in Python, none for another language. Raises ``SyntaxProblem``."""
    file = json.parse(path, text)
    if file.problem is not None:
        raise SyntaxProblem(f"it is not valid JSON: {file.problem.message}", file.problem.span)
    root = file.parts[0].node
    version = root.at(("nbformat",))
    if root.at(("worksheets",)) is not None or (version is not None and version.value in (1, 2, 3)):
        span = version.span if version is not None else Span(0, 0)
        message = "it is a notebook in an old format; format 4 is read (jupyter nbconvert makes it)"
        raise SyntaxProblem(message, span)
    cells = root.at(("cells",))
    if cells is None or cells.kind != "sequence":
        raise SyntaxProblem("it is no notebook: it has no list of cells", Span(0, 0))
    for path_ in (("metadata", "language_info", "name"), ("metadata", "kernelspec", "language")):
        language = root.at(path_)
        if language is not None and isinstance(language.value, str):
            return cells.items if "python" in language.value.lower() else []
    return cells.items


def _skip_broken_cells(document: NotebookDocument) -> frozenset[str]:
    """Blank out the cells that do not parse, as they would stop alone; the names in them.

    Raises ``SyntaxProblem`` for a cell that makes a LoRA config and does not parse.
    """
    cells = document.map
    try:
        syntax_tree(document.code.source)
    except SyntaxProblem:
        pass
    else:
        return frozenset()
    code = cells.code
    words: set[str] = set()
    for cell in cells.cells:
        part = code[cell.start : cell.end]
        try:
            syntax_tree(Source(part))
        except SyntaxProblem as exc:
            if _LORA.search(part):
                start = cells.to_file(min(cell.start + exc.span.start, cell.end))
                raise SyntaxProblem(str(exc), Span(start, start)) from None
            words.update(_WORD.findall(part))
            code = code[: cell.start] + re.sub(r"[^\r\n]", " ", part) + code[cell.end :]
    cells.code = code
    document.code = PythonDocument(document.path, code)
    return frozenset(words)
