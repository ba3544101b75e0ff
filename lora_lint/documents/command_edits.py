"""A shell script whose training commands can be edited: words are put in, changed and taken out.

Nothing else changes: quotes, continued lines and comments stay, and every other word keeps its
meaning.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final, cast

from lora_lint.diagnostics import Edit, Span
from lora_lint.documents.bash import Piece, blank_between
from lora_lint.documents.commands import options, source_of
from lora_lint.documents.document import Comment, Document, NotEditable
from lora_lint.documents.quoting import as_text, spell
from lora_lint.documents.variables import Context, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.documents.bash import Quote
    from lora_lint.documents.commands import Command, Option
    from lora_lint.documents.tree import Entry, Node, Style

_KEY: Final = re.compile(r"[A-Za-z_][\w.@/-]*")
_CONTINUED: Final = re.compile(r"\\\r?\n\Z")
_LINE_STOP: Final = re.compile(r"[ \t]*(?:\\?\r?\n|\\?\Z|\)[ \t]*\r?$|#)")
_ARRAY_STOP: Final = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?=\r?\n|\Z)")
_SPACES: Final = re.compile(r"[ \t]*")


def _require_editable(words: Sequence[Word]) -> None:
    """Refuse words that stand in two places, or where one of them can't be changed alone."""
    for word in words:
        if word.context.locked:
            raise NotEditable(word.context.locked)
        if word.context.span != words[0].context.span:
            msg = "its words stand in two places"
            raise NotEditable(msg)


def _words(texts: Sequence[str]) -> tuple[Word, ...]:
    """Words with these texts that stand nowhere yet."""
    nowhere = Context("command", Span(0, 0))
    return tuple(Word(Span(0, 0), (Piece(Span(0, 0), "plain", t),), nowhere) for t in texts)


def _with_value(command: Command, option: Option, node: Node, text: str) -> list[Word]:
    """The words of a command where one value is another text."""
    if option.form == "spaced":
        word = next(w for w in option.values if w.span == node.span)
        (new,) = _words([text])
    else:
        word = option.words[0]
        (new,) = _words([word.known[: option.at] + text])
    return [new if other is word else other for other in command.words]


def _require_meaning(command: Command, words: list[Word]) -> None:
    """Refuse words that would be read as other options than before."""
    before, after = options(command.words), options(words)
    if [(o.key, o.form, len(o.words)) for o in before] != [
        (o.key, o.form, len(o.words)) for o in after
    ]:
        msg = "the value would be taken for an option, or an option for a value"
        raise NotEditable(msg)


def _outline(found: list[Option]) -> list[tuple[object, ...]]:
    return [(option.key, option.form, *option.words) for option in found]


def _neighbour(command: Command, near: Sequence[str]) -> Option | None:
    """The option behind which a new one is put; None where it is to stand behind the program."""
    free = [
        option
        for entry, option in command.options.items()
        if entry in command.node.entries and not any(w.context.locked for w in option.words)
    ]
    for name in reversed(near):
        for option in free:
            if option.key == name:
                return option
    named = [option for option in free if isinstance(option.key, str)]
    own = [option for option in named if option.words[0].context.kind == "command"]
    ordered = own or named or free
    return ordered[-1] if ordered else None


class ShellDocument(Document):
    """A shell script; every training command is a part."""

    format = "shell"
    document_parts = True

    def __init__(self, path: str, text: str) -> None:
        super().__init__(path, text)
        self.commands: list[Command] = []
        self.found_comments: list[Comment] = []
        self.filled: list[Span] = []

    def comments(self) -> list[Comment]:
        """The comments of the script, without its first line's ``#!``."""
        return self.found_comments

    # Edits ---------------------------------------------------------------------------------------

    def render(self, value: object, like: Node | None = None) -> str:
        """A value as a word, or a list as words."""
        style = like.style if like is not None else "plain"
        if isinstance(value, list | tuple):
            return " ".join(self.render(item, like) for item in value)
        return spell(as_text(value), "plain", style)

    def replace(self, node: Node, value: object) -> list[Edit]:
        """Edits after which the node has this value, made where the value is written."""
        home = node.home or node
        for reason in (node.locked, home.locked):
            if reason is not None:
                raise NotEditable(reason)
        if node.kind == "sequence":
            return self.set_items(node, list(value) if isinstance(value, list | tuple) else [value])
        if isinstance(value, list | tuple):
            return self._replace_by_list(node, list(value))
        if node.style == "flag":
            msg = "it is a flag, without a value"
            raise NotEditable(msg)
        owner = self._owner(node)
        place = owner.places[home]
        text = as_text(value)
        option = owner.option_of(node)
        if option is not None:
            _require_meaning(owner, _with_value(owner, option, node, text))
        new = spell(text, place.quote, home.style, split=place.split)
        return [self._checked(Edit(*place.span, new))]

    def _checked(self, edit: Edit) -> Edit:
        """Refuse to write what IPython would replace."""
        filled = any(span.start <= edit.start <= span.end for span in self.filled)
        if filled and re.search(r"[${}]", edit.text):
            msg = "IPython would fill in a part of the value"
            raise NotEditable(msg)
        return edit

    def _replace_by_list(self, node: Node, values: list[object]) -> list[Edit]:
        """One value, written behind its option, becomes several."""
        option = self._owner(node).option_of(node)
        if option is None or option.form != "spaced" or node.home is not None or not values:
            msg = "the option takes one value here"
            raise NotEditable(msg)
        return self.replace(node, values[0]) + self._more_values(option, 1, values[1:])

    def set_items(self, node: Node, values: list[object]) -> list[Edit]:
        """Edits after which the option has these values, word by word."""
        if not values:
            msg = "the option needs a value"
            raise NotEditable(msg)
        return super().set_items(node, values)

    def _remove_items(self, node: Node, first: int, last: int) -> list[Edit]:
        owner = self._owner(node)
        option = owner.option_of(node)
        assert option is not None  # noqa: S101 - sequences are values of options
        return [self._cut(option.words, first + 1, last + 1)]

    def _insert_items(self, node: Node, at: int, values: list[object]) -> list[Edit]:
        option = self._owner(node).option_of(node)
        assert option is not None  # noqa: S101
        return self._more_values(option, at, values)

    def _more_values(self, option: Option, at: int, values: list[object]) -> list[Edit]:
        """Words behind the first ``at`` values of an option."""
        _require_editable(option.words)
        word = option.words[at]
        texts = [as_text(value) for value in values]
        words = option.words[: at + 1] + _words(texts) + option.words[at + 1 :]
        if [(len(o.words), o.key) for o in options(words)] != [(len(words), option.key)]:
            msg = "a value would be taken for an option"
            raise NotEditable(msg)
        quote: Quote = "raw" if word.context.kind == "string" else "plain"
        style = "plain"
        if at and isinstance(option.values[at - 1].text, str):
            mark = self.text[word.span.start]
            style = {"'": "single", '"': "double"}.get(mark, "plain")
        new = "".join(" " + spell(text, quote, cast("Style", style)) for text in texts)
        return [self._checked(Edit(word.span.end, word.span.end, new))] if new else []

    def insert_key(
        self, holder: Node, key: str, value: object, near: Sequence[str] = ()
    ) -> list[Edit]:
        """Edits that add an option, behind the last of ``near`` that the command has.

        It is written as that one: on a line of its own, with ``=`` or without. The value None adds
        a flag, a list several words.
        """
        if not _KEY.fullmatch(key):
            msg = f"`{key}` can't be the name of an option"
            raise NotEditable(msg)
        command = next((c for c in self.commands if c.node is holder), None)
        if command is None:
            msg = "it is no command"
            raise NotEditable(msg)
        after = _neighbour(command, near)
        return [self._insertion(command, after, key, value)]

    def _insertion(self, command: Command, after: Option | None, key: str, value: object) -> Edit:
        words = command.words
        at = 0
        if after is not None:
            at = next(i for i, word in enumerate(words) if word is after.words[-1]) + 1
        context = after.words[-1].context if after is not None else None
        quote: Quote = "raw" if context is not None and context.kind == "string" else "plain"
        form = after.form if after is not None else "spaced"
        mark = self._dashes(after, key)
        values = list(value) if isinstance(value, list | tuple) else [value]
        if form == "override":
            if value is None or len(values) != 1:
                msg = "an override needs one value"
                raise NotEditable(msg)
            new = [f"{key}={spell(as_text(values[0]), quote)}"]
        elif value is None:
            new = [mark + key]
        elif form == "joined" and len(values) == 1:
            new = [f"{mark}{key}={spell(as_text(values[0]), quote)}"]
        else:
            new = [mark + key, *(spell(as_text(text), quote) for text in values)]
        if not self._fits(words, at, new):
            msg = "the words behind it would be taken for its values"
            raise NotEditable(msg)
        end = after.words[-1].span.end if after is not None else command.head
        return self._checked(Edit(end, end, self._gap(after) + " ".join(new)))

    def _dashes(self, after: Option | None, key: str) -> str:
        if after is None or after.form not in ("joined", "spaced", "flag"):
            return "--"
        start = source_of(after.words[0], 0, 1)
        single = start is not None and not self.text.startswith("--", start.start)
        return "-" if single and (len(key) == 1 or len(str(after.key)) > 1) else "--"

    def _fits(self, words: Sequence[Word], at: int, new: list[str]) -> bool:
        """Whether the other words keep their meaning with new ones before one of them."""
        added = list(_words(new))
        before = _outline(options(words))
        after = options([*words[:at], *added, *words[at:]])
        ours = [option for option in after if option.words[0] is added[0]]
        others = [option for option in after if option.words[0] is not added[0]]
        whole = len(ours) == 1 and len(ours[0].words) == len(added)
        return whole and _outline(others) == before

    def _gap(self, after: Option | None) -> str:
        """What stands between an option and the next: a blank, or a new line with its indent."""
        if after is None:
            return " "
        first, last = after.words[0], after.words[-1]
        start = self._line_start(first.span.start)
        indent = self.text[start : first.span.start]
        behind = self.text[last.span.end :]
        if indent.strip(" \t") or not start or not _LINE_STOP.match(behind):
            return " "
        if first.context.kind == "array":
            return self.newline + indent
        if not _CONTINUED.search(self.text, max(0, start - 3), start):
            return " "
        return f" \\{self.newline}{indent}"

    def remove_key(self, holder: Node, entry: Entry) -> list[Edit]:
        """Edits after which the command lacks this option, with its values."""
        command = next((c for c in self.commands if c.node is holder), None)
        option = command.options.get(entry) if command is not None else None
        if command is None or option is None or not isinstance(option.key, str):
            msg = "it is no option of a training command"
            raise NotEditable(msg)
        first = next(i for i, word in enumerate(command.words) if word is option.words[0])
        count = len(option.words)
        left = [*command.words[:first], *command.words[first + count :]]
        before = [o for o in options(command.words) if o.words[0] is not option.words[0]]
        if _outline(options(left)) != _outline(before):
            msg = "the words behind it would be taken for values of another option"
            raise NotEditable(msg)
        edit = self._cut(option.words, 0, count, self._before(command, first, option))
        return [edit]

    def _before(self, command: Command, first: int, option: Option) -> int | None:
        """Where the word before an option ends, if it stands in the same place."""
        context = option.words[0].context
        if first == 0:
            return command.head if context.kind == "command" else None
        before = command.words[first - 1]
        same = before.context.kind == context.kind and before.context.span == context.span
        return before.span.end if same and before.span.end <= option.words[0].span.start else None

    def _cut(
        self, words: tuple[Word, ...], first: int, last: int, before: int | None = None
    ) -> Edit:
        """Take out words ``first`` to ``last`` (exclusive) with what parts them from the word
        before.
        """
        _require_editable(words)
        if first > 0:
            before = words[first - 1].span.end
        start, end = words[first].span.start, words[last - 1].span.end
        for left, right in pairwise(words[first:last]):
            if not self._blank(left.span.end, right.span.start):
                msg = "something else stands between its words"
                raise NotEditable(msg)
        if before is not None and self._blank(before, start):
            return Edit(before, end, "")
        context = words[first].context
        if context.kind == "command":
            msg = "something else stands before it"
            raise NotEditable(msg)
        if context.kind == "array" and self._alone_in_lines(start, end):
            return Edit(self._line_start(start), self._line_end(Span(start, end)), "")
        return Edit(start, end + len(_SPACES.match(self.text[end:]).group()), "")  # type: ignore[union-attr]

    def _alone_in_lines(self, start: int, end: int) -> bool:
        before = self.text[self._line_start(start) : start]
        return not before.strip(" \t") and _ARRAY_STOP.match(self.text, end) is not None

    def _blank(self, start: int, end: int) -> bool:
        return blank_between(self.text, start, end)

    def rename_key(self, holder: Node, entry: Entry, name: str) -> list[Edit]:
        """Edits after which the option has this name."""
        command = next((c for c in self.commands if c.node is holder), None)
        option = command.options.get(entry) if command is not None else None
        if option is None or not isinstance(option.key, str) or not _KEY.fullmatch(name):
            msg = "it is no option that could have this name"
            raise NotEditable(msg)
        _require_editable(option.words[:1])
        if source_of(option.words[0], *option.name_at) is None:
            msg = "its name is not written as it is"
            raise NotEditable(msg)
        return [Edit(*entry.key_span, name)]

    def _owner(self, node: Node) -> Command:
        home = node.home or node
        for command in self.commands:
            if home in command.places or command.option_of(node) is not None:
                return command
        msg = "it is not written as a word of its own"
        raise NotEditable(msg)
