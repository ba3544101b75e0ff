"""Python source, read with ``ast`` only: nothing is ever executed or imported.

The tree
--------
The file's one part is a mapping of scopes: classes and functions by their names (a second one of
the same name is ``train@2``), and in each scope the calls that matter, named by the last name of
their callee and their number: ``["train", "LoraConfig#0", "target_modules", 0]``. Calls outside
functions have no scope before them.

A call is a mapping of style ``call``. Its ``note`` is the callee's dotted name (see ``callees``),
so ``peft.LoraConfig`` is PEFT's and ``LoraConfig`` or ``?LoraConfig`` is not. Its entries are its
keywords; positional arguments have their position as key, ``0``, and ``"*"`` from an unpacked one
on. ``**mapping`` is an entry with the key ``"**"``: if that node is ``unknown``, the call may have
any other keyword too (``calls.is_open``); if it is a mapping, its entries follow, marked as merged.

The dicts of a config for mmengine (``model = dict(type=SupervisedFinetune, ...)``) stand beside
the calls, under their own names: ``["model", "lora", "r"]``. The ``value`` of a ``type`` that is a
name is that name's dotted one (``peft.LoraConfig``), though its node is ``unknown``.

A value that is not certain is an ``unknown`` node whose ``note`` says why. The default of a
command-line argument, a dataclass field or a parameter has the origin ``default``.

A name that stands for a call (``get_peft_model(model, config)``) is a node with that call's entries
and the call itself as ``home``; an argument that is the call (``get_peft_model(model,
LoraConfig())``) is that very node. Where branches leave open which call it is, the node is
``unknown`` and its ``items`` are the calls that it may be. Module ``calls`` walks these links.

Edits
-----
A node is shown where it is used; edits go to its ``home``, which is the literal that the name was
given. It is locked where the name is used more than once, or the value is computed or a default.
"""

from __future__ import annotations

from functools import cached_property
from keyword import iskeyword
from typing import TYPE_CHECKING

from lora_lint.diagnostics import Edit, Span
from lora_lint.documents.document import BOM, Document, NotEditable, Part, Problem
from lora_lint.documents.program import SCOPE_LOCK, SyntaxProblem, build, syntax_tree
from lora_lint.documents.source import Source
from lora_lint.documents.tree import Entry, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.documents.document import Comment
    from lora_lint.documents.tree import Style


class PythonDocument(Document):
    """A Python file; its one part is the mapping of its scopes and calls."""

    format = "python"

    def __init__(self, path: str, text: str) -> None:
        super().__init__(path, text)
        self.source = Source(text)

    def comments(self) -> list[Comment]:
        """The comments, found by Python's own tokenizer."""
        return self.source.comments

    @cached_property
    def usual_quotes(self) -> Style:
        """The quotes that the file mostly has, for strings without a neighbour."""
        return "single" if self.text.count("'") > self.text.count('"') else "double"

    # Rendering -----------------------------------------------------------------------------------

    def render(self, value: object, like: Node | None = None) -> str:
        """A Python literal; strings take a neighbour's quotes, lists the old value's brackets."""
        if isinstance(value, str):
            return self._render_text(value, like)
        if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
            return f'float("{value}")'
        if isinstance(value, dict):
            pairs = (f"{self.render(k, like)}: {self.render(v, like)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        if not isinstance(value, list | tuple | set | frozenset):
            return repr(value)
        first = like.items[0] if like is not None and like.items else like
        items = [self.render(item, first) for item in value]
        opening = "{" if isinstance(value, set | frozenset) else "["
        if like is not None and like.kind == "sequence":
            opening = self.text[like.span.start]
        if opening == "{":
            return "{" + ", ".join(items) + "}" if items else "set()"
        if opening == "[":
            return "[" + ", ".join(items) + "]"
        return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"

    def _render_text(self, value: str, like: Node | None) -> str:
        if like is not None and isinstance(like.value, str) and like.style == "plain":
            prefix, dot, _ = self.text[like.span.start : like.span.end].rpartition(".")
            if dot and value.startswith("torch.") and like.value.startswith("torch."):
                return f"{prefix}.{value.removeprefix('torch.')}"
        quote = "'" if self._quote_style(like) == "single" else '"'
        raw = like is not None and isinstance(like.value, str) and self.source.is_raw(like.span)
        if raw and value.isprintable() and quote not in value and not value.endswith("\\"):
            return f"r{quote}{value}{quote}"
        return quote + "".join(_escaped(char, quote) for char in value) + quote

    def _quote_style(self, like: Node | None) -> Style:
        style = like.style if like is not None else "plain"
        if style in ("single", "double"):
            return style
        if style == "literal" and like is not None:
            return "single" if self.text[like.span.end - 1] == "'" else "double"
        return self.usual_quotes

    def render_pair(self, holder: Node, key: str, value: object) -> str:
        """``key=value`` for a call, ``"key": value`` for a dict."""
        like = _a_text(holder)
        if holder.style == "call":
            _require_identifier(key)
            return f"{key}={self.render(value, like)}"
        return f"{self._render_text(key, self._key_like(holder))}: {self.render(value, like)}"

    def render_key(self, holder: Node, key: str, old: Entry) -> str:
        """A keyword's name, or a dict's key in the quotes of the old one."""
        if holder.style == "call":
            _require_identifier(key)
            return key
        return self._render_text(key, self._as_node(old.key_span))

    def _key_like(self, holder: Node) -> Node | None:
        spans = [e.key_span for e in holder.entries if isinstance(e.key, str) and e.key != "**"]
        return self._as_node(spans[0]) if spans else None

    def _as_node(self, span: Span) -> Node:
        return Node("scalar", span, style=self.source.string_style(span))

    # Edits ---------------------------------------------------------------------------------------

    def replace(self, node: Node, value: object) -> list[Edit]:
        """Edits after which the node has this value, made where the value is written."""
        home = self._home(node)
        if home.style == "call":
            msg = "it is the result of a call"
            raise NotEditable(msg)
        if isinstance(value, list | tuple) and home.kind == "sequence":
            return self.set_items(home, list(value))
        self._refuse_comments(home.span)
        return [Edit(*home.span, self.render(value, home))]

    def set_items(self, node: Node, values: list[object]) -> list[Edit]:
        """Edits after which the sequence holds these values, entry by entry."""
        home = self._home(node)
        old = len(home.items)
        opening = self.text[home.span.start]
        if not values or not old or (len(values) == 1 and old != 1 and opening not in "[{"):
            self._refuse_comments(home.span)
            return [Edit(*home.span, self.render(values, home))]
        return super().set_items(home, values)

    def insert_key(
        self, holder: Node, key: str, value: object, near: Sequence[str] = ()
    ) -> list[Edit]:
        """Edits that add a keyword to a call or a key to a dict, after the last of ``near`` that
        it has.
        """
        home = self._home(holder)
        if home.entry(key) is not None:
            msg = f"{key} is given already"
            raise NotEditable(msg)
        pair = self.render_pair(home, key, value)
        written = [entry for entry in home.entries if not entry.merged]
        if not written:
            return [Edit(home.span.end - 1, home.span.end - 1, pair)]
        last = written[-1]
        if home.style == "call" and last.node.span.end == home.span.end:  # f(x for x in y)
            start, end = last.node.span
            return [Edit(start, start, "("), Edit(end, end, f", {pair})")]
        after = next((e for name in reversed(near) for e in written if e.key == name), None)
        if after is None:
            plain = [entry for entry in written if home.style != "call" or entry.key != "**"]
            if not plain:
                start = written[0].span.start
                return [Edit(start, start, f"{pair}, ")]
            after = plain[-1]
        return self._behind(after.span, [pair])

    def remove_key(self, holder: Node, entry: Entry) -> list[Edit]:
        """Edits after which the call lacks this keyword, or the dict this key."""
        home = self._home(holder)
        self._require_own(entry)
        written = [other for other in home.entries if not other.merged]
        position = written.index(entry)
        return self._remove_run(home, [other.span for other in written], position, position + 1)

    def rename_key(self, holder: Node, entry: Entry, name: str) -> list[Edit]:
        """Edits after which the keyword or key has this name."""
        home = self._home(holder)
        self._require_own(entry)
        return [Edit(*entry.key_span, self.render_key(home, name, entry))]

    def _home(self, node: Node) -> Node:
        """The node where a value is written. Raises ``NotEditable`` where it can't be edited."""
        home = node.home or node
        for reason in (node.locked, home.locked):
            if reason is not None:
                raise NotEditable(reason)
        return home

    def _require_own(self, entry: Entry) -> None:
        if entry.merged:
            msg = "the keyword comes in through ** or is set elsewhere"
            raise NotEditable(msg)
        if not isinstance(entry.key, str) or entry.key in ("*", "**"):
            msg = "it is a positional argument or an unpacked one"
            raise NotEditable(msg)

    def _refuse_comments(self, span: Span) -> None:
        if "#" in self.text[span.start : span.end] and any(
            span.start <= comment.span.start < span.end for comment in self.comments()
        ):
            msg = "a comment stands inside the value"
            raise NotEditable(msg)

    # Commas and lines ----------------------------------------------------------------------------

    def _insert_items(self, node: Node, at: int, values: list[object]) -> list[Edit]:
        neighbour = node.items[at - 1 if at else 0]
        texts = [self.render(value, _text_like(neighbour, node)) for value in values]
        if at:
            return self._behind(neighbour.span, texts)
        start = neighbour.span.start
        gap = ", "
        if self._alone(neighbour.span):
            gap = "," + self.newline + self._indent(start)
        return [Edit(start, start, "".join(text + gap for text in texts))]

    def _behind(self, span: Span, texts: list[str]) -> list[Edit]:
        """Edits that put entries behind one: on lines of their own where it has its own."""
        if not self._alone(span):
            return [Edit(span.end, span.end, "".join(", " + text for text in texts))]
        lines = [self.newline + self._indent(span.start) + text for text in texts]
        comma = self._comma(span.end)
        end = self._line_stop(span.end)
        if "#" not in self.text[span.end : end] or (comma is not None and comma > end):
            return [Edit(span.end, span.end, "".join("," + line for line in lines))]
        if comma is not None:
            return [Edit(end, end, "".join(line + "," for line in lines))]
        return [Edit(span.end, span.end, ","), Edit(end, end, ",".join(lines))]

    def _remove_run(self, node: Node, spans: list[Span], first: int, last: int) -> list[Edit]:
        for span in spans[first:last]:
            self._refuse_comments(span)
            comma = self._comma(span.end)
            if comma is not None and comma > self._line_stop(span.end):
                msg = "its comma stands on another line"
                raise NotEditable(msg)
        return super()._remove_run(node, spans, first, last)

    def _line_stop(self, offset: int) -> int:
        """The offset where the line of an offset ends, before its line end."""
        return min(
            (at for mark in "\r\n" if (at := self.text.find(mark, offset)) >= 0),
            default=len(self.text),
        )

    def _comma(self, offset: int) -> int | None:
        at = self.source.skip(offset)
        return at if self.text[at : at + 1] == "," else None

    def _indent(self, offset: int) -> str:
        """The blanks of the line, tabs included, up to an offset."""
        before = self.text[self._line_start(offset) : offset].removeprefix(BOM)
        return "".join(char if char in "\t\f" else " " for char in before)


def _escaped(char: str, quote: str) -> str:
    if char in (quote, "\\"):
        return "\\" + char
    return char if char.isprintable() else repr(char)[1:-1]


def _require_identifier(key: str) -> None:
    if not key.isidentifier() or iskeyword(key):
        msg = f"`{key}` can't be a keyword of a call"
        raise NotEditable(msg)


def _a_text(holder: Node) -> Node | None:
    """A string among the values of a call or dict, whose quotes a new value takes."""
    for entry in holder.entries:
        if not entry.merged and entry.node.home is None:
            for node in (entry.node, *entry.node.items):
                if isinstance(node.value, str) and node.style in ("single", "double"):
                    return node
    return None


def _text_like(neighbour: Node, sequence: Node) -> Node:
    """The neighbour of a new item, or a string of the list where the neighbour is none."""
    if isinstance(neighbour.value, str) and neighbour.home is None:
        return neighbour
    texts = (i for i in sequence.items if isinstance(i.value, str) and i.home is None)
    return next(texts, neighbour)


def parse(path: str, text: str) -> PythonDocument:
    """Read a Python file; one that does not parse has a ``problem`` and no parts."""
    document = PythonDocument(path, text)
    try:
        tree = syntax_tree(document.source)
        roots = build(document.source, tree, lambda _: 0, frozenset())
    except SyntaxProblem as exc:
        document.problem = Problem(str(exc), exc.span)
        return document
    except RecursionError:
        at = document.source.shift
        document.problem = Problem("it is nested too deeply to be read", Span(at, at))
        return document
    root = roots.get(0) or Node("mapping", Span(0, 0), style="block", locked=SCOPE_LOCK)
    root.span = Span(document.source.shift, len(text))
    document.parts.append(Part(root))
    return document
