"""YAML as PyYAML's safe loader reads it, with exact places.

The tree is built from libyaml's events rather than composed: events come one by one, so that deep
nesting can't exhaust the stack and an alias bomb stays as small as it is written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from lora_lint.diagnostics import Span
from lora_lint.documents.document import BOM, Comment, Document, Part, Problem
from lora_lint.documents.tree import Entry, Node

if TYPE_CHECKING:
    from lora_lint.documents.tree import Kind, Style

MAX_DEPTH = 100
# Values that aliases may multiply to before the file is refused; real configs hold some hundreds.
MAX_EXPANDED = 1_000_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE_TAG = "tag:yaml.org,2002:merge"
_STR_TAG = "tag:yaml.org,2002:str"
_STYLES: dict[str | None, Style] = {
    "'": "single",
    '"': "double",
    "|": "literal",
    ">": "literal",
}
# A scalar that may stand without quotes in block and flow context alike.
_PLAIN_SIGNS = r"-A-Za-z0-9_./\\^$*()+|<>=~"
_PLAIN = re.compile(rf"[-A-Za-z0-9_./\\^$(+<~=](?:[{_PLAIN_SIGNS} ]*[{_PLAIN_SIGNS}])?")


class YamlDocument(Document):
    """A YAML stream; every document of it is a part."""

    format = "yaml"
    document_parts = True

    def __init__(self, path: str, text: str) -> None:
        super().__init__(path, text)
        self.scalars: list[Span] = []

    def comments(self) -> list[Comment]:
        """The comments, found between scalars: a ``#`` inside quotes is none."""
        return _comments(self)

    def render(self, value: object, like: Node | None = None) -> str:
        """A value in YAML 1.1, such that PyYAML reads back the same value and type."""
        if isinstance(value, list | tuple):
            first = like.items[0] if like is not None and like.items else None
            return "[" + ", ".join(self.render(item, first) for item in value) + "]"
        if isinstance(value, dict):
            pairs = (f"{self.render(k)}: {self.render(v)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        return render_scalar(value, like.style if like is not None else "plain")

    def render_pair(self, holder: Node, key: str, value: object) -> str:
        """``key: value``, in quotes where the mapping is written like JSON."""
        quoted = bool(holder.entries) and self.text[holder.entries[0].key_span.start] == '"'
        style: Style = "double" if quoted else "plain"
        return f"{render_scalar(key, style)}: {self.render(value)}"

    def render_key(self, holder: Node, key: str, old: Entry) -> str:  # noqa: ARG002
        """A key, quoted as the old one was."""
        quote = self.text[old.key_span.start]
        return render_scalar(key, _STYLES.get(quote, "plain") if quote in "'\"" else "plain")


def render_scalar(value: object, style: Style) -> str:
    """A scalar in YAML 1.1; a string takes the quotes of ``style`` or those that it needs."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _render_float(value)
    text = str(value)
    if style == "single" and "\n" not in text:
        return "'" + text.replace("'", "''") + "'"
    if style != "double" and _is_plain(text):
        return text
    if "\\" in text and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return '"' + _escape(text) + '"'


def _escape(text: str) -> str:
    """A text for double quotes: what is not printable is written by its number."""
    return "".join(_ESCAPES.get(c) or (c if c.isprintable() else _by_number(c)) for c in text)


def _by_number(character: str) -> str:
    number = ord(character)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _is_plain(text: str) -> bool:
    if text == "-" or text.startswith(("- ", "---", "...")):
        return False
    return bool(_PLAIN.fullmatch(text)) and _resolve(text) == _STR_TAG


def _render_float(value: float) -> str:
    """A float with the dot that YAML 1.1 demands: ``1.0e-05``, not ``1e-05``."""
    if value != value:
        return ".nan"
    if value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    if mark and "." not in mantissa:
        mantissa += ".0"
    if mark and exponent[0] not in "+-":
        exponent = "+" + exponent
    return mantissa + mark + exponent


def _resolve(text: str) -> str:
    """The YAML 1.1 tag of a plain scalar."""
    for tag, pattern in Resolver.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return str(tag)
    return _STR_TAG


def scalar_value(text: str, tag: str) -> object:
    """The Python value that the safe loader gives a scalar.

    Raises ``ConstructorError`` for a tag that the safe loader refuses and ``ValueError`` for a
    value that its own constructor can't read (the date 2024-13-40).
    """
    if tag == _STR_TAG:
        return text
    # A constructor of its own: one keeps every node that it has ever seen.
    return SafeConstructor().construct_object(ScalarNode(tag, text))


class _StreamError(Exception):
    """The stream breaks a rule that libyaml does not know."""

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.span = span


_SHARED = "the value is shared through a YAML anchor"


class _Builder:
    """Builds the trees of a stream from events; aliases share their target's children."""

    def __init__(self, document: YamlDocument) -> None:
        self.document = document
        self.shift = int(document.text.startswith(BOM))
        self.anchors: dict[str, Node] = {}
        self.aliased: list[Node] = []
        self.open: list[tuple[Node, list[Node]]] = []
        self.take = {
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.SequenceStartEvent: self._start,
            yaml.MappingStartEvent: self._start,
            yaml.SequenceEndEvent: self._end,
            yaml.MappingEndEvent: self._end,
            yaml.DocumentStartEvent: self._document_start,
        }

    def build(self) -> None:
        """Read the whole stream into the document's parts."""
        take = self.take
        for event in yaml.parse(self.document.text[self.shift :], Loader=_Loader):
            handler = take.get(type(event))
            if handler is not None:
                handler(event)
        locked: set[int] = set()
        for node in self.aliased:
            _lock(node, locked)

    def _span(self, event: Any) -> Span:
        return Span(event.start_mark.index + self.shift, event.end_mark.index + self.shift)

    def _document_start(self, event: Any) -> None:  # noqa: ARG002
        self.anchors = {}

    def _scalar(self, event: Any) -> None:
        tag = event.tag
        if tag in (None, "!"):
            tag = _resolve(event.value) if event.implicit[0] and tag is None else _STR_TAG
        node = Node("scalar", self._span(event), style=_STYLES.get(event.style, "plain"))
        if event.tag not in (None, "!"):
            node.locked = "the value carries a YAML tag"
        try:
            node.value = event.value if tag == _MERGE_TAG else scalar_value(event.value, tag)
        except (ConstructorError, ValueError, TypeError, KeyError) as exc:
            why = getattr(exc, "problem", None)
            node.kind, node.note = "unknown", why or f"{event.value!r} is not a valid {tag[18:]}"
        if tag == _MERGE_TAG:
            node.note = "<<"
        self.document.scalars.append(node.span)
        self._place(node, event.anchor)

    def _alias(self, event: Any) -> None:
        target = self.anchors.get(event.anchor)
        if target is None:
            raise _StreamError(f"found undefined alias {event.anchor!r}", self._span(event))
        self.aliased.append(target)
        alias = Node(
            target.kind,
            self._span(event),
            target.value,
            target.entries,
            target.items,
            target.style,
            _SHARED,
            target.note,
        )
        self._place(alias, None)

    def _start(self, event: Any) -> None:
        if len(self.open) >= MAX_DEPTH:
            raise _StreamError(f"nested deeper than {MAX_DEPTH} levels", self._span(event))
        kind: Kind = "sequence" if isinstance(event, yaml.SequenceStartEvent) else "mapping"
        style: Style = "flow" if event.flow_style else "block"
        node = Node(kind, self._span(event), style=style)
        if event.tag not in (None, "!"):
            node.kind, node.note = "unknown", f"it carries the tag {event.tag}"
        if event.anchor:
            self.anchors[event.anchor] = node
            node.locked = _SHARED
        self.open.append((node, []))

    def _end(self, event: Any) -> None:
        node, children = self.open.pop()
        end = event.end_mark.index + self.shift
        if node.style == "block":  # libyaml's mark stands behind trailing comments
            end = max((child.span.end for child in children), default=node.span.start)
        node.span = Span(node.span.start, end)
        if node.kind == "sequence":
            node.items.extend(children)
        elif node.kind == "mapping":
            _pair(node, children)
        self._place(node, None)

    def _place(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
            node.locked = _SHARED
        if self.open:
            self.open[-1][1].append(node)
        else:
            self.document.parts.append(Part(node, len(self.document.parts)))


def _pair(mapping: Node, children: list[Node]) -> None:
    """Make entries of alternating keys and values; merge keys bring in their mappings' entries.

    As in PyYAML: written entries win over merged ones, in a list of mappings the first one wins,
    and of two merge keys the last.
    """
    merged: list[Entry] = []
    written: list[Entry] = []
    for key, value in zip(children[::2], children[1::2], strict=True):
        if key.note == "<<":
            merged += _merged_entries(value)
        elif key.kind != "scalar":
            raise _StreamError("a mapping can't have a list or a mapping as its key", key.span)
        else:
            written.append(Entry(key.value, key.span, value))
    mapping.entries.extend(merged + written)


def _merged_entries(value: Node) -> list[Entry]:
    if value.kind == "mapping":
        mappings = [value]
    elif value.kind == "sequence" and all(item.kind == "mapping" for item in value.items):
        mappings = value.items[::-1]
    else:
        message = "a merge key (<<) needs a mapping or a list of mappings"
        raise _StreamError(message, value.span)
    return [
        Entry(entry.key, entry.key_span, entry.node, merged=True)
        for mapping in mappings
        for entry in mapping.entries
    ]


def _lock(node: Node, done: set[int]) -> None:
    """Nothing inside a value that is used twice can be edited for one of its uses alone."""
    if id(node) in done:
        return
    done.add(id(node))
    node.locked = node.locked or _SHARED
    for child in [*node.items, *(entry.node for entry in node.entries)]:
        _lock(child, done)


def _expanded_size(node: Node, sizes: dict[int, int]) -> int:
    """How many values a loader makes of a node, aliases counted each time."""
    holder = node.items if node.kind == "sequence" else node.entries
    if not holder:
        return 1
    if id(holder) not in sizes:
        sizes[id(holder)] = 1  # a node that holds itself counts once
        children = node.items or [entry.node for entry in node.entries]
        sizes[id(holder)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(holder)]


def _explain(problem: str) -> str:
    if "'\\t'" in problem or "\t" in problem:
        return "a tab is used for indentation; YAML allows spaces only"
    if problem.startswith("mapping values are not allowed"):
        return "mapping values are not allowed here (quote a value that holds `: `)"
    return problem


def parse(path: str, text: str) -> YamlDocument:
    """Read a YAML stream; a stream that does not parse has a ``problem`` and no parts."""
    document = YamlDocument(path, text)
    try:
        _Builder(document).build()
        sizes: dict[int, int] = {}
        if sum(_expanded_size(part.node, sizes) for part in document.parts) > MAX_EXPANDED:
            message = f"its aliases multiply to more than {MAX_EXPANDED:,} values"
            raise _StreamError(message, document.parts[0].node.span)
    except _StreamError as exc:
        document.problem = Problem(str(exc), exc.span)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        at = min(mark.index + text.startswith(BOM), len(text)) if mark else 0
        document.problem = Problem(
            _explain(exc.problem or str(exc)), Span(at, min(at + 1, len(text)))
        )
    except yaml.YAMLError as exc:
        document.problem = _reader_problem(exc, text)
    if document.problem:
        document.parts = []
    return document


def _reader_problem(exc: yaml.YAMLError, text: str) -> Problem:
    """The place of a character that YAML does not allow, which libyaml tells in bytes or not at
    all.
    """
    at = next(
        (i for i, c in enumerate(text) if not c.isprintable() and c not in "\t\r\n\x85\ufeff"), 0
    )
    reason = getattr(exc, "reason", None) or "the text is not valid YAML"
    return Problem(str(reason), Span(at, min(at + 1, len(text))))


def _comments(document: YamlDocument) -> list[Comment]:
    found: list[Comment] = []
    scalars = sorted(document.scalars)
    number, at = 0, 0
    while match := _COMMENT_START.search(document.text, at):
        at = match.end()
        while number < len(scalars) and scalars[number].end <= match.start():
            number += 1
        if number < len(scalars) and scalars[number].start <= match.start():
            at = scalars[number].end  # a # inside a string
            continue
        line_end = _LINE_END.search(document.text, at)
        at = line_end.start() if line_end else len(document.text)
        found.append(Comment(document.text[match.end() : at], Span(match.start(), at)))
    return found


_COMMENT_START = re.compile(r"(?:^|(?<=[\s\ufeff]))#", re.MULTILINE)
_LINE_END = re.compile(r"[\r\n]")
