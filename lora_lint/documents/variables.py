"""The variables of a shell script: where each is set, and what a use of it certainly gives.

A variable is known where the script sets it once, in a place that is always passed before the use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from lora_lint.diagnostics import Span
from lora_lint.documents.bash import Piece, Raw, Written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tree_sitter import Node as Syntax

    from lora_lint.documents.bash import Origin, Quote, Script

MAX_STEPS: Final = 20
MAX_WORDS: Final = 5000
# What a shell changes by itself.
_SPECIAL: Final = frozenset(
    {"BASHPID", "EUID", "FUNCNAME", "HOSTNAME", "IFS", "LINENO", "OLDPWD", "OPTARG", "OPTIND",
     "PPID", "PWD", "RANDOM", "REPLY", "SECONDS", "UID", "_"}
)  # fmt: skip
_SETTERS: Final = frozenset(
    {"declare", "eval", "getopts", "let", "local", "mapfile", "printf", "read", "readarray",
     "typeset", "unset"}
)  # fmt: skip
# Scripts that are sourced for an environment, and what `eval` is used for with conda.
_HARMLESS: Final = re.compile(
    r"activate|bashrc|profile|conda|mamba|modules?\b|setvars|set_env|ssh-agent|venv", re.IGNORECASE
)
_EVALUATED: Final = re.compile(r"""eval\s+["']?\$\{?(\w+)\}?["']?(?:\s+[\w./=-]+)*""")
_BODIES: Final = frozenset(
    {"program", "compound_statement", "do_group", "subshell", "case_item", "command_substitution",
     "if_statement", "elif_clause", "else_clause"}
)  # fmt: skip
# What changes a variable in `$((...))`; `==`, `!=`, `<=` and `>=` only compare.
_COUNTS: Final = re.compile(r"\+\+|--|(?:<<|>>|(?<![=!<>]))=(?!=)")
_REPEATED: Final = frozenset({"do_group", "function_definition"})
_BRANCHES: Final = frozenset({"elif_clause", "else_clause"})


class Context(NamedTuple):
    """How words stand where they are written.

    ``command``: between blanks and continued lines. ``array``: also on lines of their own.
    ``string``: in a string that is split into words. ``locked`` says why none of them can be
    edited.
    """

    kind: Literal["command", "array", "string"]
    span: Span
    locked: str | None = None


class Word(NamedTuple):
    """A word that a command receives.

    ``pieces`` are its text with places, variables replaced. A piece that isn't known has no text
    and says why. ``many``: it is an unknown number of words.
    """

    span: Span
    pieces: tuple[Piece, ...]
    context: Context
    many: bool = False

    @property
    def text(self) -> str | None:
        """What the command receives, None where it isn't known."""
        texts = [piece.text for piece in self.pieces]
        return None if None in texts else "".join(text or "" for text in texts)

    @property
    def why(self) -> str:
        """Why it isn't known."""
        return next((piece.why or "" for piece in self.pieces if piece.text is None), "")

    @property
    def known(self) -> str:
        """The text up to the first piece that isn't known."""
        out = []
        for piece in self.pieces:
            if piece.text is None:
                break
            out.append(piece.text)
        return "".join(out)


@dataclass(slots=True)
class _Setter:
    """An assignment: ``value`` for a text, ``items`` for an array, neither where it is unclear."""

    start: int
    end: int
    above: tuple[Syntax, ...]
    value: Raw | None = None
    items: list[Raw] | None = None
    array: Span | None = None
    appends: bool = False
    certain: bool = False


@dataclass(slots=True)
class Variables:
    """All assignments and uses of a script's variables."""

    script: Script
    zsh: bool = False
    setters: dict[str, list[_Setter]] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    prefixed: set[str] = field(default_factory=set)
    barriers: list[tuple[int, str]] = field(default_factory=list)

    # Collecting ----------------------------------------------------------------------------------

    def note(self, node: Syntax, above: tuple[Syntax, ...]) -> None:
        """Take notice of a node of the tree."""
        kind = node.type
        if kind == "variable_assignment":
            self._assignment(node, above)
        elif kind == "variable_name":
            self._name(node, above)
        elif kind in ("command", "unset_command", "declaration_command"):
            self._command(node, above)

    def _text(self, node: Syntax) -> str:
        return self.script.text[slice(*self.script.span(node))]

    def _other(self, name: str, node: Syntax, above: tuple[Syntax, ...]) -> None:
        span = self.script.span(node)
        self.setters.setdefault(name, []).append(_Setter(span.start, span.end, above))

    def _name(self, node: Syntax, above: tuple[Syntax, ...]) -> None:
        name, parent = self._text(node), above[-1]
        while parent.type == "subscript" and len(above) > 1:
            above = above[:-1]
            parent = above[-1]
        if parent.type in ("simple_expansion", "expansion") or self._is_computed_with(above):
            if not any(self._is_idle(outer, name) for outer in above):
                self.uses[name] = self.uses.get(name, 0) + 1
            if parent.type == "expansion" and re.match(r"\$\{\w+:?=", self._text(parent)):
                self._other(name, parent, above)
        elif parent.type != "variable_assignment":
            self._other(name, node, above)

    def _is_computed_with(self, above: tuple[Syntax, ...]) -> bool:
        """Whether a name without its dollar is only read, as in ``$((n * 2))``."""
        sums = (outer for outer in reversed(above) if outer.type == "arithmetic_expansion")
        outer = next(sums, None)
        return outer is not None and not outer.has_error and not _COUNTS.search(self._text(outer))

    def _is_idle(self, outer: Syntax, name: str) -> bool:
        """Whether a use inside a node changes no other command: it is printed, or `R=${R:-8}`."""
        if outer.type == "variable_assignment":
            return self._text(outer.children[0]) == name
        return outer.type == "command" and self._text(outer.children[0]) in ("echo", "printf", ":")

    def _command(self, node: Syntax, above: tuple[Syntax, ...]) -> None:
        text = self._text(node)
        match = re.match(r"(?:builtin\s+)?(\.|[\w]+)(?=\s|$)", text)
        name = match[1] if match else ""
        foreign = name in ("source", ".") or (name == "eval" and "$" in text)
        if foreign and not _HARMLESS.search(text):
            evaluated = _EVALUATED.fullmatch(text)
            start = self.script.span(node).start
            self.barriers.append((start, evaluated[1] if evaluated else ""))
        if name in _SETTERS and node.type != "declaration_command":
            for word in re.findall(r"(?<![\w${])[A-Za-z_]\w*", text):
                self._other(word, node, above)

    def _assignment(self, node: Syntax, above: tuple[Syntax, ...]) -> None:
        parent = above[-1]
        name = self._text(node.children[0]) if node.children else ""
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            self._other(name.partition("[")[0], node, above)
            return
        if parent.type == "command":
            self.prefixed.add(name)
            return
        span = self.script.span(node)
        setter = _Setter(span.start, span.end, above)
        self.setters.setdefault(name, []).append(setter)
        if node.has_error:
            return
        setter.appends = any(child.type == "+=" for child in node.children)
        behind = [c for c in node.children[1:] if c.type not in ("=", "+=")]
        equals = next((c for c in node.children if c.type in ("=", "+=")), None)
        if len(behind) == 1 and behind[0].type == "array":
            inside = [c for c in behind[0].children[1:-1] if c.type != "comment"]
            setter.items = self.script.words(inside)
            setter.array = self.script.span(behind[0])
        elif equals is not None:
            words = self.script.words(behind)
            if words is not None and len(words) <= 1:
                end = self.script.span(equals).end
                setter.value = words[0] if words else Raw(Span(end, end), ())
        setter.certain, setter.above = _always(node, above)

    # Resolving -----------------------------------------------------------------------------------

    def words(
        self, raw: Sequence[Raw], context: Context, at: int, above: tuple[Syntax, ...]
    ) -> list[Word]:
        """The words that a command at this place receives."""
        use = _Use(at, above, 0)
        return list(self._words(raw, context, use))[:MAX_WORDS]

    def _words(self, raw: Sequence[Raw], context: Context, use: _Use) -> Iterator[Word]:
        for word in raw:
            yield from self._word(word, context, use)

    def _word(self, word: Raw, context: Context, use: _Use) -> Iterator[Word]:
        solid = [p for p in word.pieces if p.quote != "none"]
        alone = solid[0] if len(solid) == 1 else None
        if alone is not None and alone.spread:
            yield from self._array(word, alone, context, use)
            return
        if len(word.pieces) == 1 and alone is not None and alone.name is not None:
            yield from self._bare(word, alone, context, use)
            return
        pieces: list[Piece] = []
        many = False
        for piece in word.pieces:
            if piece.name is None:
                pieces.append(piece)
                many |= piece.why is not None and piece.quote == "plain"
                continue
            found = self._value(piece, use)
            if piece.quote == "plain" and found.text is not None and _SPLITS.search(found.text):
                found = _Value(None, "it is split into words")
            many |= found.text is None and piece.quote == "plain"
            pieces.append(_replaced(piece, found))
        spread = any(piece.spread for piece in pieces)
        yield Word(word.span, tuple(pieces), context, many or spread)

    def _bare(self, word: Raw, piece: Piece, context: Context, use: _Use) -> Iterator[Word]:
        """An unquoted variable: split into words."""
        found = self._value(piece, use)
        text = found.text
        blank = any(_BLANKS.search(part.text or "") for part in found.pieces)
        if blank and "IFS" in self.setters:
            found = _Value(None, "`IFS` is set")
        elif blank and not self.zsh:
            inside = Context("string", found.span or word.span, found.locked)
            if found.span is None:
                inside = context._replace(locked="it comes out of a variable that is split up")
            yield from _split(found, inside)
            return
        elif text is not None and _PATTERN.search(text) and not self.zsh:
            found = _Value(None, "it is a pattern of file names")
        if found.text or found.text is None or self.zsh:
            many = found.text is None
            yield Word(word.span, (_replaced(piece, found),), context, many)

    def _array(self, word: Raw, piece: Piece, context: Context, use: _Use) -> Iterator[Word]:
        """``"${ARGS[@]}"``: the words of the array."""
        unknown = piece._replace(name=None, why=piece.why or f"`{piece.name}` isn't known here")
        if piece.name is None:
            yield Word(word.span, (unknown,), context, many=True)
            return
        setters, reason = self._certain(piece.name, use, arrays=True)
        shared = self.uses.get(piece.name, 0) != 1
        locked = f"`{piece.name}` is used more than once" if shared else None
        for setter in setters:
            if setter.items is None or setter.array is None:
                yield Word(word.span, (unknown,), context, many=True)
                continue
            inside = Context("array", setter.array, locked)
            inner = _Use(setter.start, setter.above, use.steps + 1)
            for found in self._words(setter.items, inside, inner):
                if piece.quote == "plain" and _SPLITS.search(found.text or ""):
                    yield Word(word.span, (unknown,), context, many=True)
                else:
                    yield found
        if reason is not None:
            yield Word(word.span, (unknown._replace(why=reason),), context, many=True)

    def _value(self, piece: Piece, use: _Use) -> _Value:
        """What a variable gives at a place, with its default where it has one."""
        name = piece.name or ""
        if use.steps > MAX_STEPS:
            return _Value(None, f"`{name}` goes through too many variables")
        if piece.default is not None and self._unset(name, use):
            return self._default(piece, use)
        setters, reason = self._certain(name, use, arrays=False)
        if reason is not None or not setters or setters[0].value is None:
            return _Value(None, reason or f"`{name}` isn't a plain text")
        setter = setters[0]
        raw = setter.value
        assert raw is not None  # noqa: S101
        found = self._joined(raw, _Use(setter.start, setter.above, use.steps + 1))
        if found.text == "" and piece.default is not None:
            return self._default(piece, use)
        if self.uses.get(name, 0) != 1:
            locked = f"`{name}` is used more than once"
            home = found.home._replace(locked=locked) if found.home else None
            return found._replace(home=home, locked=locked)
        return found

    def _unset(self, name: str, use: _Use) -> bool:
        """Whether nothing in the script can have set a variable before a place."""
        if name in _SPECIAL or self.script.cut:
            return False
        again = any(node.type in _REPEATED for node in use.above)
        return all(not again and s.start >= use.at for s in self.setters.get(name, ()))

    def _default(self, piece: Piece, use: _Use) -> _Value:
        span = Span(
            piece.default[0].span.start if piece.default else piece.span.end - 1,
            piece.span.end - 1,
        )
        found = self._joined(Raw(span, piece.default or ()), use._replace(steps=use.steps + 1))
        locked = found.locked
        if piece.quote != "plain":
            locked = "it is a default between quotes"
        home = found.home
        if home is not None:  # only what needs no quotes may stand in `${R:-8}`
            home = home._replace(locked=home.locked or locked, split=True)
        return found._replace(origin="default", home=home, locked=locked)

    def _joined(self, raw: Raw, use: _Use) -> _Value:
        """The text of an assignment's value."""
        solid = [piece for piece in raw.pieces if piece.quote != "none"]
        if not solid:
            quote: Quote = "double" if raw.pieces else "plain"
            return _Value("", home=Written("", raw.span, quote))
        if len(solid) == 1 and solid[0].name is not None and not solid[0].spread:
            return self._value(solid[0], use)
        pieces = []
        for piece in solid:
            if piece.name is not None and not piece.spread:
                found = self._value(piece, use)
                text, why = found.text, found.why
                resolved = Piece(piece.span, "other", text, exact=False, why=why)
                resolved = resolved._replace(origin=found.origin)
                pieces.append(resolved)
            else:
                pieces.append(piece._replace(name=None))
        parts = [piece.text for piece in pieces]
        if None in parts:
            why = next(piece.why for piece in pieces if piece.text is None)
            return _Value(None, why, pieces=tuple(pieces), span=raw.span)
        text = "".join(part or "" for part in parts)
        if all(piece.name is None for piece in solid):
            quotes = {piece.quote for piece in solid}
            home = Written(text, raw.span, solid[0].quote) if len(quotes) == 1 else None
            return _Value(text, None, "written", home, tuple(pieces), raw.span)
        return _Value(text, None, "computed", None, tuple(pieces), raw.span)

    def _certain(self, name: str, use: _Use, *, arrays: bool) -> tuple[list[_Setter], str | None]:
        """The assignments that have certainly happened at a place, and why others might have.

        Only an array can have several: those that append to it.
        """
        setters = self.setters.get(name, [])
        if self.script.ipython:
            return [], "IPython or the shell fills it in"
        if self.script.cut:
            return [], "the script is nested too deeply"
        if name in _SPECIAL:
            return [], f"the shell itself sets `{name}`"
        if not setters:
            return [], f"nothing in the script sets `{name}`"
        first = setters[0]
        if first.appends or not _passed(first, use):
            if len(setters) == 1 and first.certain and first.start >= use.at:
                return [], f"`{name}` is set only below"
            if any(setter.above[-1].type == "for_statement" for setter in setters):
                return [], f"`{name}` takes several values in a loop"
            return [], f"`{name}` is set under a condition"
        if any(
            first.start < start < use.at and not self._leaves(evaluated, name)
            for start, evaluated in self.barriers
        ):
            return [], f"another script may set `{name}`"
        if name in self.prefixed and any(a.type == "function_definition" for a in use.above):
            return [], f"`{name}` may be set where the function is called"
        if len(setters) > 1:
            if arrays and all(s.appends and s.items is not None for s in setters[1:]):
                certain = [s for s in setters if _passed(s, use)]
                reason = f"`{name}` gets more under a condition"
                return certain, reason if len(certain) < len(setters) else None
            return [], f"`{name}` is set more than once"
        return [first], None

    def _leaves(self, evaluated: str, name: str) -> bool:
        """Whether `eval "$CMD"` leaves a variable alone: it runs a command that is written."""
        setters = self.setters.get(evaluated, [])
        if len(setters) != 1 or setters[0].value is None:
            return False
        text = self.script.text[slice(*setters[0].value.span)]
        return re.search(rf"\b{name}\b\+?=|\b(?:read|eval|source|\.)\b|`|\$\(", text) is None


class _Use(NamedTuple):
    """Where a variable is used: the offset, the nodes around it, and how many variables led
    there.
    """

    at: int
    above: tuple[Syntax, ...]
    steps: int


class _Value(NamedTuple):
    """A variable's text, or why it isn't known; ``home`` is the literal that it is.

    ``pieces`` are those of the text at ``span``, as far as they are known; ``locked`` says why they
    can't be edited.
    """

    text: str | None
    why: str | None = None
    origin: Origin = "written"
    home: Written | None = None
    pieces: tuple[Piece, ...] = ()
    span: Span | None = None
    locked: str | None = None


def _replaced(piece: Piece, found: _Value) -> Piece:
    """A variable with its text in its place."""
    home = found.home
    if home is not None:
        home = home._replace(split=home.split or piece.quote == "plain")
    return Piece(
        piece.span,
        piece.quote,
        found.text,
        exact=False,
        why=found.why,
        origin=found.origin,
        home=home,
    )


def _split(found: _Value, context: Context) -> Iterator[Word]:
    """The words of an unquoted string, at their places in it."""
    current: list[Piece] = []
    origin: Origin | None = "default" if found.origin == "default" else None

    def word() -> Word:
        pieces, many = tuple(current), any(piece.text is None for piece in current)
        text = "".join(piece.text or "" for piece in pieces)
        if "=" not in text and _PATTERN.search(text):
            why = "it is a pattern of file names"
            pieces, many = (pieces[0]._replace(text=None, why=why),), True
        span = Span(current[0].span.start, current[-1].span.end)
        return Word(span, pieces, context, many)

    for piece in found.pieces:
        if piece.text is None:
            current.append(piece._replace(quote="raw"))
            continue
        for match in re.finditer(r"[ \t\n]+|[^ \t\n]+", piece.text):
            if match.group()[0] in " \t\n":
                if current:
                    yield word()
                    current = []
                continue
            span = piece.span
            if piece.exact:
                span = Span(*(piece.span.start + at for at in match.span()))
            part = Piece(span, "raw", match.group(), piece.exact, origin=piece.origin or origin)
            current.append(part)
    if current:
        yield word()


_BLANKS: Final = re.compile(r"[ \t\n]")
# What the shell splits or replaces in an unquoted variable.
_SPLITS: Final = re.compile(r"[ \t\n*?]|\[.*\]")
_PATTERN: Final = re.compile(r"[*?]|\[.*\]")


def _passed(setter: _Setter, use: _Use) -> bool:
    """Whether a use is reached only through an assignment."""
    if not setter.certain or setter.start >= use.at:
        return False
    body = setter.above[-1]
    for number, node in enumerate(use.above):
        if node.id == body.id:
            inside = use.above[number + 1 : number + 2]
            return not (inside and inside[0].type in _BRANCHES and node.type == "if_statement")
    return False


def _always(node: Syntax, above: tuple[Syntax, ...]) -> tuple[bool, tuple[Syntax, ...]]:
    """Whether an assignment happens whenever the body it stands in runs, and the nodes down to
    that body.
    """
    at = len(above) - 1
    while at >= 0:
        parent = above[at]
        if parent.type == "declaration_command":
            options = [c for c in parent.children if c.type == "word"]
            plain = all(
                (option.text or b"").decode() in ("-x", "-r", "-g", "-a", "-rx", "-gx")
                for option in options
            )
            if not plain:
                return False, above
        elif parent.type == "list":
            if parent.children[0].id != node.id:
                return False, above
        elif parent.type != "variable_assignments":
            break
        node = parent
        at -= 1
    if at < 0 or above[at].type not in _BODIES:
        return False, above
    behind = node.next_sibling
    if behind is not None and behind.type == "&":
        return False, above
    return True, above[: at + 1]
