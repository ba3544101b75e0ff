"""Bash text as a syntax tree (tree-sitter) and its words as pieces, with places in the text.

The grammar tells commands, quotes and expansions apart and goes on behind what it can't read. What
a piece stands for is worked out here; every character of a word is in one of its pieces.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from lora_lint.diagnostics import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tree_sitter import Node as Syntax
    from tree_sitter import Parser

# Where a text stands: ``raw`` is inside a string that is split into words later, ``none`` a quote
# itself, ``other`` in the value of a variable.
Quote = Literal["plain", "single", "double", "ansi", "raw", "none", "other"]
Origin = Literal["written", "computed", "default"]

# Scripts have kilobytes; the grammar is slow on a long text that is no shell script.
MAX_CHARACTERS: Final = 2**20
MAX_DEPTH: Final = 150
MAX_NESTED: Final = 20
_PLAIN_ESCAPE: Final = re.compile(r"\\(\r?\n|.)", re.DOTALL)
_DOUBLE_ESCAPE: Final = re.compile(r'\\(\r?\n|[$`"\\])')
_ANSI: Final = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "r": "\r"}
_BLANK: Final = re.compile(r"(?:[ \t]|\\\r?\n)*")
_FIELD: Final = re.compile(r"\{\{|\}\}|\{[^{}\r\n]*\}")
_NAME: Final = re.compile(r"[A-Za-z_]\w*")


class Written(NamedTuple):
    """A text that a variable stands for: its place, quotes included, and how it is quoted.

    ``split``: blanks and patterns in it would be split up where it is used. ``locked`` says why it
    can't be edited.
    """

    text: str
    span: Span
    quote: Quote
    split: bool = False
    locked: str | None = None


class Piece(NamedTuple):
    """A stretch of a word.

    A literal has ``text``; one of a variable (``$R``, ``${R:-8}``) its ``name``, ``spread`` where
    it is the whole array (``${A[@]}``), and the pieces of its ``default``; anything else is opaque
    and says in ``why`` what it is. ``exact``: the text stands there character by character. A
    variable that was replaced by its text has an ``origin``, and a ``home`` where that is written.
    """

    span: Span
    quote: Quote
    text: str | None = None
    exact: bool = True
    name: str | None = None
    spread: bool = False
    default: tuple[Piece, ...] | None = None
    why: str | None = None
    origin: Origin | None = None
    home: Written | None = None


class Raw(NamedTuple):
    """A word of a command before its variables are replaced."""

    span: Span
    pieces: tuple[Piece, ...]


class Places:
    """From the bytes of the encoded text, whose line ends are ``\\n``, to the characters of the
    text itself.
    """

    def __init__(self, text: str, start: int, end: int) -> None:
        self._bytes = [0]
        self._characters = [start]
        self.source = text[start:end].replace("\r\n", "\n").encode()
        at = 0
        previous = start
        for match in re.finditer(r"\r\n|[^\x00-\x7f]", text[start:end]):
            here = start + match.start()
            at += here - previous + (1 if match.group() == "\r\n" else len(match.group().encode()))
            previous = start + match.end()
            self._bytes.append(at)
            self._characters.append(previous)

    def __call__(self, offset: int) -> int:
        """The character at which a byte begins."""
        run = bisect_right(self._bytes, offset) - 1
        return self._characters[run] + offset - self._bytes[run]


@lru_cache(maxsize=1)
def _parser() -> Parser:
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language()))


class Script:
    """A stretch of a text that is read as a Bash script.

    With ``filled`` IPython puts values into it before: ``{name}`` and ``$name``.

    Raises ``ValueError`` where it is too long.
    """

    def __init__(
        self, text: str, start: int = 0, end: int | None = None, *, filled: bool = False
    ) -> None:
        self.filled: list[Span] = []
        self.ipython = filled
        if filled:
            end = len(text) if end is None else end
            text = self._without_fields(text, start, end)
        self.text = text
        self.end = len(text) if end is None else end
        if self.end - start > MAX_CHARACTERS:
            msg = f"scripts up to {MAX_CHARACTERS // 2**20} MiB are read"
            raise ValueError(msg)
        self.cut = False
        self._depth = 0
        self.place = Places(text, start, self.end)
        self.root = _parser().parse(self.place.source).root_node

    def _without_fields(self, text: str, start: int, end: int) -> str:
        """The text with variables of the same length in the place of IPython's fields."""
        out, at = [text[:start]], start
        for match in _FIELD.finditer(text, start, end):
            self.filled.append(Span(*match.span()))
            out += [text[at : match.start()], "$" + "_" * (len(match.group()) - 1)]
            at = match.end()
        return "".join(out) + text[at:]

    def span(self, node: Syntax) -> Span:
        """The place of a node of the tree."""
        return Span(self.place(node.start_byte), self.place(node.end_byte))

    def _own_span(self, node: Syntax) -> Span:
        """The place of a part of a word, without the blanks that the grammar adds to one between
        quotes (`"$A $B"`).
        """
        span = self.span(node)
        if not node.type.endswith(("expansion", "substitution")):
            return span
        text = self.text[span.start : span.end]
        return Span(span.end - len(text.lstrip()), span.end)

    def walk(self) -> Iterator[tuple[Syntax, tuple[Syntax, ...]]]:
        """The nodes of the tree in the order of the text, each with the nodes around it.

        What is nested too deeply is left out, and ``cut`` says so afterwards.
        """
        stack: list[tuple[Syntax, tuple[Syntax, ...]]] = [(self.root, ())]
        while stack:
            node, above = stack.pop()
            yield node, above
            if node.child_count:
                if len(above) >= MAX_DEPTH:
                    self.cut = True
                    continue
                inside = (*above, node)
                stack += [(child, inside) for child in reversed(node.children)]

    def words(self, nodes: Iterable[Syntax]) -> list[Raw] | None:
        """The words that neighbouring nodes make; None where text between them is lost."""
        words: list[Raw] = []
        for node in nodes:
            span = self.span(node)
            pieces = tuple(self.pieces(node))
            if words and span.start < words[-1].span.end:
                return None
            if words and span.start == words[-1].span.end:
                before = words.pop()
                words.append(Raw(Span(before.span.start, span.end), before.pieces + pieces))
                continue
            words.append(Raw(span, pieces))
        return [_without_patterns(self.text, word) for word in words]

    # Pieces --------------------------------------------------------------------------------------

    def pieces(self, node: Syntax, quote: Quote = "plain") -> Iterator[Piece]:
        """The pieces of a word's node; what is nested too deeply is opaque."""
        self._depth += 1
        if self._depth > MAX_NESTED:
            yield Piece(self.span(node), quote, why="it is nested too deeply")
        else:
            yield from self._pieces(node, self._own_span(node), quote)
        self._depth -= 1

    def _pieces(self, node: Syntax, span: Span, quote: Quote) -> Iterator[Piece]:
        kind = node.type
        if kind in ("word", "number", "variable_name", "test_operator") and not node.child_count:
            yield from self.literals(span, "plain")
        elif kind == "raw_string":
            yield Piece(Span(span.start, span.start + 1), "none", "", exact=False)
            yield from self._stretch(span.start + 1, span.end - 1, "single")
            yield Piece(Span(span.end - 1, span.end), "none", "", exact=False)
        elif kind == "ansi_c_string":
            yield self._ansi(span)
        elif kind == "string":
            yield from self._string(node, span)
        elif kind == "variable_assignment":  # before a command: NAME=value
            behind = [c for c in node.children if c.type not in ("variable_name", "=", "+=")]
            yield from self._joined(behind, span, quote)
        elif kind in ("concatenation", "command_name"):
            yield from self._joined(node.children, span, quote)
        elif kind == "simple_expansion":
            yield self._named(span, self.text[span.start + 1 : span.end], quote)
        elif kind == "expansion":
            yield self._braced(node, span, quote)
        else:
            yield Piece(span, quote, why=_WHY.get(kind, "the shell works it out"))

    def literals(self, span: Span, quote: Quote) -> Iterator[Piece]:
        """The pieces of a text without expansions; each escape is one of its own."""
        escape = _PLAIN_ESCAPE if quote == "plain" else _DOUBLE_ESCAPE
        at = span.start
        for match in escape.finditer(self.text, *span):
            yield from self._stretch(at, match.start(), quote)
            text = "" if match[1].endswith("\n") else match[1]
            yield Piece(Span(*match.span()), quote, text, exact=False)
            at = match.end()
        yield from self._stretch(at, span.end, quote)

    def _stretch(self, start: int, end: int, quote: Quote) -> Iterator[Piece]:
        if quote == "plain" and re.search(r"\s", self.text[start:end]):
            # The grammar takes two words for one; `[ [` is such a case.
            yield Piece(Span(start, end), quote, why="it can't be read")
            return
        for match in re.finditer(r"\r\n|(?:[^\r]|\r(?!\n))+", self.text[start:end]):
            span = Span(start + match.start(), start + match.end())
            if any(span.start < field.end and field.start < span.end for field in self.filled):
                yield Piece(span, quote, why="IPython fills it in")
                continue
            line_end = match.group() == "\r\n"
            yield Piece(span, quote, "\n" if line_end else match.group(), not line_end)

    def _joined(self, nodes: Sequence[Syntax], span: Span, quote: Quote) -> Iterator[Piece]:
        """The pieces of nodes that make one word; what no node covers stands for itself."""
        at = span.start
        for node in nodes:
            inner = self._own_span(node)
            yield from self.literals(Span(at, inner.start), quote)
            yield from self.pieces(node, quote)
            at = inner.end
        yield from self.literals(Span(at, span.end), quote)

    def _string(self, node: Syntax, span: Span) -> Iterator[Piece]:
        """Double quotes; an empty piece keeps the word of an empty string."""
        expansions = [c for c in node.children if c.type not in ('"', "string_content")]
        inside = Span(span.start + 1, span.end - 1)
        yield Piece(Span(span.start, span.start + 1), "none", "", exact=False)
        yield from self._joined(expansions, inside, "double")
        yield Piece(Span(span.end - 1, span.end), "none", "", exact=False)

    def _ansi(self, span: Span) -> Piece:
        inside = self.text[span.start + 2 : span.end - 1]
        if any(escape not in _ANSI for escape in re.findall(r"\\(.)", inside, re.DOTALL)):
            return Piece(span, "ansi", why="it holds an escape of `$'...'`")
        text = re.sub(r"\\(.)", lambda match: _ANSI[match[1]], inside, flags=re.DOTALL)
        return Piece(span, "ansi", text, exact=False)

    def _named(self, span: Span, name: str, quote: Quote) -> Piece:
        if name in ("@", "*"):
            return Piece(span, quote, spread=True, why="`$@` are the script's own arguments")
        if not _NAME.fullmatch(name):
            return Piece(span, quote, why=f"`${name}` is given to the script from outside")
        return Piece(span, quote, name=name)

    def _braced(self, node: Syntax, span: Span, quote: Quote) -> Piece:
        """``${R}``, ``${R:-8}``, ``${A[@]}``; other operators are opaque."""
        inside = self.text[span.start + 2 : span.end - 1]
        if _NAME.fullmatch(inside) or inside in ("@", "*") or inside.isdigit():
            return self._named(span, inside, quote)
        if (array := re.fullmatch(r"([A-Za-z_]\w*)\[([@*])\]", inside)) is not None:
            if array[2] == "*" and quote == "double":
                return Piece(span, quote, why="it joins an array")
            return Piece(span, quote, name=array[1], spread=True)
        operator = re.match(r"(\w+)(:?[-=])", inside)
        if operator is None:
            return Piece(span, quote, why="an operator of `${...}` changes it")
        start = span.start + 2 + operator.end()
        behind = [c for c in node.children[:-1] if self.place(c.start_byte) >= start]
        default = tuple(self._joined(behind, Span(start, span.end - 1), "plain"))
        name = operator[1] if _NAME.fullmatch(operator[1]) else ""
        return Piece(span, quote, name=name, default=default)


_WHY: Final = {
    "command_substitution": "a command's output decides it",
    "arithmetic_expansion": "the shell computes it",
    "process_substitution": "it is a pipe to another command",
    "brace_expression": "braces stand for several words",
    "extglob_pattern": "it is a pattern of file names",
}


def _without_patterns(text: str, word: Raw) -> Raw:
    """A word whose unquoted part is a pattern, which the shell replaces, becomes opaque.

    A file whose name begins like an option with its ``=`` is not reckoned with.
    """
    plain = "".join(
        piece.text or "" for piece in word.pieces if piece.quote == "plain" and piece.exact
    )
    why = None
    if "{" in plain and re.search(r"\{.*(?:,|\.\.).*\}", _outline(word), re.DOTALL):
        why = "braces stand for several words"
    elif "=" not in plain and re.search(r"[*?]|\[.*\]", plain):
        why = "it is a pattern of file names"
    elif plain.startswith("~") and text[word.span.start] == "~" and "=" not in plain:
        if re.fullmatch(r"~(?:/.*)?", plain):
            why = "`~` is the home directory"
    elif re.match(r"[A-Za-z_]\w*=~", plain):
        why = "`~` is the home directory"
    if why is None:
        return word
    return Raw(word.span, (Piece(word.span, "plain", why=why),))


def _outline(word: Raw) -> str:
    """The unquoted text of a word; a space for each other piece."""
    return "".join(
        piece.text or "" if piece.quote == "plain" and piece.exact else " " for piece in word.pieces
    )


def blank_between(text: str, start: int, end: int) -> bool:
    """Whether only blanks and continued line ends stand between two offsets."""
    match = _BLANK.match(text, start, end)
    return match is not None and match.end() == end
