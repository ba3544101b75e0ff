"""The words of a command as options with values, and which commands start a training."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from lora_lint.diagnostics import Span
from lora_lint.documents.tree import Entry, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.documents.bash import Piece, Quote
    from lora_lint.documents.launchers import Around
    from lora_lint.documents.tree import Style
    from lora_lint.documents.variables import Context, Word

# ``spaced``: ``--key value``; ``joined``: ``--key=value``; ``override``: ``key=value``.
Form = Literal["spaced", "joined", "override", "flag", "positional", "more"]

_OPTION: Final = re.compile(r"--?(?=[A-Za-z_])([^\s=]+)(=)?")
_OVERRIDE: Final = re.compile(r"\+{0,2}(?=[A-Za-z_])([\w.@/\[\]:-]+)=")
_PLAINLY_OVERRIDE: Final = re.compile(r"\+{1,2}[A-Za-z_][^\s=]*=|[A-Za-z_]\w*(?:\.\w+)+=")
_DELETED: Final = re.compile(r"~[A-Za-z_][\w.@/]*")
_NEGATIVE: Final = re.compile(r"-\.?\d")

_LORA_KEY: Final = re.compile(r"lora|peft|target_modules|target-modules|dora\b", re.IGNORECASE)
_LORA_VALUE: Final = re.compile(
    r"(?:q|ada|long|rs|plus|v)?-?(?:lora|dora)(?:_plus|plus|-fa|_fa|_ga|-ga)?|peft", re.IGNORECASE
)
# Entry points whose run may train adapters by a config file that is named, and scripts that say it.
_TRAINING: Final = re.compile(
    r"""
    trl[ ](?:sft|dpo|grpo|kto|orpo|cpo|bco|reward|rloo|online_dpo|gkd|nash_md|xpo|ppo)
    | (?:swift|megatron)[ ](?:sft|pt|rlhf)
    | (?:llamafactory-cli|llamafactory|lmf|llamafactory\.cli)[ ]train
    | litgpt[ ]finetune(?:_lora|[ ]lora)? | mlx_lm\.lora | mlx_lm[ ]lora
    | axolotl[ ]train | axolotl\.cli\.train | xtuner[ ]train | oumi[ ]train | oumi\.train
    | autotrain(?:[ ][\w-]+)? | tune[ ]run
    | openrlhf\.cli\.train_\w+ | verl\.trainer\.\w+ | swift\.cli\.(?:sft|pt|rlhf)
    | trl\.scripts\.\w+
    | (?:.*/)?\w*(?:train|tune|sft|dpo|grpo)\w*(?:lora|dora|peft)\w*\.py
    | (?:.*/)?\w*(?:lora|dora|peft)\w*(?:train|tune|sft|dpo|grpo)\w*\.py
    """,
    re.VERBOSE,
)
# Commands that move, fetch or look at files, whatever these are called.
_OTHERS: Final = frozenset(
    {"awk", "aws", "az", "bash", "cat", "cd", "chmod", "cp", "curl", "docker", "du", "echo",
     "export", "find", "gcloud", "gh", "git", "grep", "gsutil", "head", "hf", "huggingface-cli",
     "jq", "kaggle", "kill", "kubectl", "ln", "ls", "make", "mkdir", "modelscope", "mv", "npm",
     "pip", "pip3", "podman", "printf", "read", "rg", "rm", "rsync", "scp", "sed", "set", "sh",
     "source", "ssh", "tail", "tar", "tee", "test", "touch", "unzip", "wandb", "wc", "wget", "zip"}
)  # fmt: skip


class Place(NamedTuple):
    """Where a value's text stands, and what may be written there.

    ``quote`` is the quotes around ``span``; ``split``: blanks and patterns would be split up.
    """

    span: Span
    quote: Quote
    context: Context
    split: bool = False


class Option(NamedTuple):
    """An option with its words: first the one with its name, then those of its values.

    ``at`` is where its value begins in the text of its one word, and ``name_at`` where its name
    stands there.
    """

    key: str | int | None
    form: Form
    words: tuple[Word, ...]
    at: int = 0
    name_at: tuple[int, int] = (0, 0)

    @property
    def values(self) -> tuple[Word, ...]:
        """The words of the values of a ``spaced`` option."""
        return self.words[1:]


class Command(NamedTuple):
    """A command's node with what is needed to edit it.

    ``words`` are those behind the program, ``head`` is where it ends. ``options`` are those of the
    node's entries, ``places`` those of its values that can be edited.
    """

    node: Node
    launchers: tuple[Node, ...]
    head: int
    words: tuple[Word, ...]
    options: dict[Entry, Option]
    places: dict[Node, Place]

    def option_of(self, node: Node) -> Option | None:
        """The option whose value, or one of whose values, a node is."""
        for entry, option in self.options.items():
            if entry.node is node or node in entry.node.items:
                return option
        return None


def options(words: Sequence[Word]) -> list[Option]:
    """The words of a command as options, overrides and positional arguments."""
    found: list[Option] = []
    positional, at, ended = 0, 0, False
    while at < len(words):
        word = words[at]
        at += 1
        if not ended and word.text == "--":
            ended = True
            continue
        if not ended and (option := _named(word)) is not None:
            if option.form == "flag":
                values = _values(words, at)
                at += len(values)
                if values:
                    option = option._replace(form="spaced", words=(word, *values))
            found.append(option)
            continue
        if word.many:
            found.append(Option(None, "more", (word,)))
            continue
        found.append(Option(positional, "positional", (word,)))
        positional += 1
    return found


def _named(word: Word) -> Option | None:
    """A word that begins an option or is an override, None for any other."""
    known = word.known
    if _NEGATIVE.match(known):
        return None
    match = _OPTION.match(known)
    if match is not None:
        if match[2]:
            return Option(match[1], "joined", (word,), match.end(), match.span(1))
        if word.text is None:
            return Option(None, "more", (word,))
        return Option(known.lstrip("-"), "flag", (word,), 0, (match.start(1), len(known)))
    match = _OVERRIDE.match(known)
    if match is not None:
        return Option(match[1], "override", (word,), match.end(), match.span(1))
    if word.text is not None and _DELETED.fullmatch(word.text):
        return Option(word.text, "flag", (word,), 0, (0, len(word.text)))
    return None


def _values(words: Sequence[Word], at: int) -> tuple[Word, ...]:
    """The words behind an option up to the next option."""
    start = at
    while at < len(words):
        word = words[at]
        known = word.known
        if known.startswith("-") and len(known) > 1 and not _NEGATIVE.match(known):
            break
        if any(piece.spread for piece in word.pieces):
            break
        if at > start and (word.many or _OVERRIDE.match(known)):
            break
        if _PLAINLY_OVERRIDE.match(known) or (
            word.text is not None and _DELETED.fullmatch(word.text)
        ):
            break
        at += 1
    return tuple(words[start:at])


# Nodes -------------------------------------------------------------------------------------------


def command_node(
    text: str, note: str, words: Sequence[Word], span: Span, around: Sequence[Around], head: int
) -> Command:
    """The node of a command that runs a program with these arguments."""
    node = Node("mapping", span, style="command", note=note)
    command = Command(node, (), head, tuple(words), {}, {})
    for option in options(words):
        _add(text, command, node, option)
    launchers: list[Node] = []
    for outer in around:
        if launchers and outer.note == "env" == launchers[-1].note:
            mapping = launchers[-1]
        else:
            mapping = Node("mapping", span, style="command", note=outer.note)
            launchers.append(mapping)
        _fill_launcher(text, command, mapping, outer)
    return command._replace(launchers=tuple(launchers))


def _fill_launcher(text: str, command: Command, mapping: Node, outer: Around) -> None:
    """The options of a launcher, under their long names."""
    launcher = outer.launcher
    words = outer.words
    if words:
        mapping.span = Span(words[0].span.start, max(word.span.end for word in words))
    at = 0
    while at < len(words):
        option = options(words[at : at + 1])
        at += 1
        if not option:
            continue
        first = option[0]
        if isinstance(first.key, str) and outer.note != "env":
            name = first.key.replace("-", "_")
            takes = name not in launcher.flags
            if launcher.values is not None:
                takes = name in launcher.values
            if first.form == "flag" and takes and at < len(words):
                first = first._replace(form="spaced", words=(words[at - 1], words[at]))
                at += 1
            first = first._replace(key=launcher.names.get(name, name))
        _add(text, command, mapping, first)


def _add(text: str, command: Command, mapping: Node, option: Option) -> None:
    word = option.words[0]
    key_span = word.span
    if option.form == "flag":
        key_span = source_of(word, *option.name_at) or word.span
        value = Node("scalar", key_span, True, style="flag")
    elif option.form == "spaced":
        key_span = source_of(word, *option.name_at) or word.span
        items = [_value(text, command, other, 0) for other in option.words[1:]]
        span = Span(items[0].span.start, max(items[0].span.start, items[-1].span.end))
        value = items[0] if len(items) == 1 else Node("sequence", span, items=items)
    elif option.form in ("joined", "override"):
        key_span = source_of(word, *option.name_at) or word.span
        value = _value(text, command, word, option.at)
    else:
        value = _value(text, command, word, 0)
    entry = Entry(option.key, key_span, value)
    mapping.entries.append(entry)
    command.options[entry] = option


def _value(text: str, command: Command, word: Word, start: int) -> Node:
    """The node of a word's text from an offset on."""
    full = word.text
    if full is None:
        place = _rest(word, start)
        span = place[0] if place is not None else word.span
        return Node("unknown", span, locked=word.why, note=word.why)
    value = full[start:]
    place = _rest(word, start)
    span = place[0] if place is not None else word.span
    rest = [piece for piece in _from(word, start) if piece.quote != "none"]
    node = Node("scalar", span, value, locked=word.context.locked)
    variables = [piece for piece in rest if piece.origin is not None]
    if variables:
        alone = variables[0] if len(rest) == 1 and rest[0].text == value else None
        node.origin = alone.origin or "computed" if alone is not None else "computed"
        if alone is not None and alone.home is not None:
            known = alone.home
            home = Node("scalar", known.span, known.text, style=_style(known.quote))
            home.locked = known.locked
            command.places[home] = Place(known.span, "plain", word.context, known.split)
            node.home = home
            node.locked = node.locked or known.locked
        else:
            node.locked = node.locked or "it is put together from variables"
        return node
    quotes = {piece.quote for piece in rest}
    if len(quotes) == 1 and text[span.start] in "'\"":
        node.style = _style(quotes.pop())
    if place is None:
        node.locked = node.locked or "it is quoted in several pieces"
    else:
        command.places[node] = Place(*place, word.context)
    return node


def _style(quote: Quote) -> Style:
    return quote if quote in ("single", "double") else "plain"


def source_of(word: Word, start: int, end: int) -> Span | None:
    """Where a stretch of a word's text stands; None where it does not stand there as it is."""
    at = 0
    for piece in word.pieces:
        length = len(piece.text or "")
        if at <= start and end <= at + length and piece.exact and piece.text is not None:
            first = piece.span.start + start - at
            return Span(first, first + end - start)
        at += length
    return None


def _from(word: Word, start: int) -> list[Piece]:
    """The pieces of a word's text from an offset on."""
    at, rest = 0, []
    for piece in word.pieces:
        at += len(piece.text or "")
        if at > start or (piece.text is None and at >= start):
            rest.append(piece)
    return rest


def _rest(word: Word, start: int) -> tuple[Span, Quote] | None:
    """Where a word's text stands from an offset on, and in which quotes."""
    raw = word.context.kind == "string"
    if start == 0:
        return word.span, "raw" if raw else "plain"
    equals = source_of(word, start - 1, start)
    if equals is None:
        return None
    behind = list(word.pieces)
    at = 0
    while at < start:
        piece = behind.pop(0)
        at += len(piece.text or "")
    if piece.quote in ("plain", "raw"):
        return Span(equals.end, word.span.end), piece.quote
    quote = piece.quote
    closed = bool(behind) and behind[-1].quote == "none"
    if closed and quote != "none" and all(other.quote == quote for other in behind[:-1]):
        return Span(equals.end, word.span.end - 1), quote
    return None


# Which commands matter ---------------------------------------------------------------------------


def is_training(note: str, node: Node) -> bool:
    """Whether a command speaks of LoRA in its options, or runs what trains by its name."""
    name = note.rpartition("/")[2].partition(" ")[0]
    if name in _OTHERS:
        return False
    if _TRAINING.fullmatch(note):
        return True
    for entry in node.entries:
        if isinstance(entry.key, str):
            if _LORA_KEY.search(entry.key):
                return True
            values = [entry.node, *entry.node.items]
            if any(isinstance(v.value, str) and _LORA_VALUE.fullmatch(v.value) for v in values):
                return True
    return False
