"""Shell scripts (``.sh``, ``.bash``, a shell's ``#!``): every training command is a part.

What a dialect sees. ``document.format`` is ``"shell"``; in a notebook it is ``"notebook"``, and the
commands of ``!`` lines and ``%%bash`` cells are parts beside the Python cells, told by
``part.node.style == "command"``. A command is a part if one of its options speaks of LoRA
(``--lora_r``, ``--peft_type``, ``--target_modules``, ``--tuner_type lora``) or if what it runs is a
known training command (``trl sft``, ``axolotl train``, a script such as ``train_lora.py``)::

    R=8
    CUDA_VISIBLE_DEVICES=0 accelerate launch --num_processes 4 train.py base.yaml \\
        --lora_r $R --lora-alpha=16 --target_modules q_proj v_proj --use_peft ++data.size=3

``part.node``: kind ``"mapping"``, style ``"command"``; ``note`` is what is run in the end, here
``"train.py"``. A script is named as its path is written, a module (``python -m a.b``, also
behind a launcher) as ``"a.b"``, an entry point with its subcommand: ``"trl sft"``, ``"swift sft"``,
``"megatron sft"``, ``"llamafactory-cli train"``, ``"litgpt finetune_lora"``, ``"mlx_lm.lora"``,
``"mlx_lm lora"``, ``"axolotl train"``, ``"xtuner train"``, ``"oumi train"``, ``"autotrain llm"``,
``"tune run"`` (the recipe's name is its positional 0). A directory before an entry point is
dropped. It is ``""`` where what is run isn't known.

``part.node.entries``, in the order of the command:

    ============================  ========================  ======================================
    written                       key                       node
    ============================  ========================  ======================================
    base.yaml                     0 (then 1, 2, ...)        scalar ``"base.yaml"``
    --lora_r $R                   ``"lora_r"``              scalar ``"8"``, home at the assignment
    --lora-alpha=16               ``"lora-alpha"``          scalar ``"16"``
    --target_modules q_proj ...   ``"target_modules"``      sequence of ``"q_proj"``, ``"v_proj"``
    --use_peft                    ``"use_peft"``            scalar True, style ``"flag"``
    ++data.size=3                 ``"data.size"``           scalar ``"3"``
    ~data.size                    ``"~data.size"``          scalar True, style ``"flag"``
    $EXTRA, "$@"                  None                      unknown: words that aren't known
    ============================  ========================  ======================================

Values are the strings that the program receives, behind the shell's quotes and backslashes: never
numbers, and JSON stays a string. Keys are as written, without leading dashes and pluses;
``prefix(document.text, entry)`` gives those: ``"--"``, ``"-"``, ``"++"``, ``"+"``, or ``""`` for a
plain ``key=value``. The words behind an option are its values up to the next option, since only
the program's own parser knows how many it takes; so a positional argument stands before the
options or behind ``--``, and ``key=value`` behind an option's first value is an override again. A
negative number is a value. A repeated option has an entry each time, and ``get`` gives the last.

Where an entry's key is None (``holds_more(node)``), the command receives further words that can't
be known, an unquoted ``$CONFIG`` before the options included: any option may be among them, so that
an absent option is not certain to be absent nor a written one to be the last. Directly behind an
option an unquoted ``$R`` that isn't known is taken for its value, as it is meant.

A node of kind ``"unknown"`` says why in ``note``: ``$(...)``, backticks, ``$1``, a glob, a variable
that the script does not set exactly once, without condition and before its use; in a notebook also
``{name}`` and ``$name``. ``origin`` is ``"default"`` for ``${R:-8}`` where nothing sets R, and
``"computed"`` for a value put together (``out-$R``). An option out of ``ARGS=(--lora_r 8)`` or
``ARGS="--lora_r 8"`` has its spans at that assignment.

``part.launchers`` are the commands around it from the outside in, each a mapping of the same kind:
here ``note`` ``"env"`` with ``CUDA_VISIBLE_DEVICES: "0"``, then ``"accelerate launch"`` with
``num_processes: "4"``. Notes are ``"env"``, ``"accelerate launch"``, ``"torchrun"`` (for
``python -m torch.distributed.run`` and ``.launch`` and ``tune run`` as well), ``"deepspeed"``,
``"srun"``, ``"uv run"``, ``"python"`` and so on. A launcher's keys have underscores for dashes
(``--config-file`` is ``config_file``, as argparse has it) and short options their long name.
``launcher(part, "accelerate launch")`` gives one or None.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lora_lint.diagnostics import Span
from lora_lint.documents.bash import Raw, Script
from lora_lint.documents.command_edits import ShellDocument
from lora_lint.documents.commands import command_node, is_training
from lora_lint.documents.document import BOM, Comment, Part, Problem
from lora_lint.documents.launchers import unwrap
from lora_lint.documents.variables import Context, Variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node as Syntax

    from lora_lint.documents.commands import Command
    from lora_lint.documents.tree import Entry, Node

_PREFIX: Final = re.compile(r"(?:--?|\+{1,2})\Z")
# What `eval` does not take as it is.
_SIGNS: Final = re.compile(r"""[\\'"`$;&|<>(){}*?\[\]#~\s]""")
_ZSH: Final = re.compile(r"\ufeff?#!.*\bzsh\b")


def prefix(text: str, entry: Entry) -> str:
    """What stands before an entry's key: ``--``, ``-``, ``++``, ``+`` or nothing.

    ``text`` is that of the document.
    """
    start = entry.key_span.start
    match = _PREFIX.search(text, max(0, start - 2), start)
    return match.group() if match else ""


def holds_more(command: Node) -> bool:
    """Whether a command receives further words, which can't be known."""
    return any(entry.key is None for entry in command.entries)


def launcher(part: Part, name: str) -> Node | None:
    """The launcher of that name around a command, None where there is none."""
    return next((node for node in part.launchers if node.note == name), None)


def read(document: ShellDocument, start: int, end: int, *, filled: bool = False) -> None:
    """Read a stretch of the text as a script of its own.

    With ``filled`` IPython puts values into it before it is run. Raises ``ValueError`` where it is
    too long.
    """
    text = document.text
    script = Script(text, start, end, filled=filled)
    variables = Variables(script, zsh=_ZSH.match(text) is not None)
    found: list[tuple[Syntax, tuple[Syntax, ...]]] = []
    for node, above in script.walk():
        variables.note(node, above)
        if node.type == "command":
            found.append((node, above))
        elif node.type == "comment":
            span = script.span(node)
            if not text.startswith("#!", span.start) or span.start > 1:
                inside = text[span.start + 1 : span.end]
                document.found_comments.append(Comment(inside, span))
    if filled:
        document.filled.append(Span(start, end))
    for node, above in found:
        command = _command(script, variables, node, above)
        if command is not None:
            document.commands.append(command)


def _command(
    script: Script, variables: Variables, node: Syntax, above: tuple[Syntax, ...]
) -> Command | None:
    """A command of the tree, None where it starts no training or can't be read."""
    if node.has_error:
        return None
    span = script.span(node)
    raw = script.words(_words(node, above))
    if not raw or script.text[slice(*raw[0].span)].startswith("--"):
        return None  # a blank behind a line's backslash ended the command before its options
    evaluated = script.text[slice(*raw[0].span)] == "eval"
    if evaluated:
        raw = [raw[0], *map(_unquoted, raw[1:])]
    words = variables.words(raw, Context("command", span), span.start, above)
    if evaluated and any(_SIGNS.search(word.known) for word in words):
        return None
    program = unwrap(words)
    if program is None:
        return None
    behind = program.arguments[0].span.start if program.arguments else span.end
    inside = [word.end for word, *_ in raw if word.end <= behind]
    head = max(inside, default=span.end)
    found = command_node(script.text, program.note, program.arguments, span, program.around, head)
    return found if is_training(program.note, found.node) else None


def _unquoted(word: Raw) -> Raw:
    """`eval "$CMD"` splits its words once more."""
    solid = [piece for piece in word.pieces if piece.quote != "none"]
    if len(solid) == 1 and solid[0].name is not None:
        return Raw(word.span, (solid[0]._replace(quote="plain"),))
    return word


def _words(node: Syntax, above: tuple[Syntax, ...]) -> Iterator[Syntax]:
    """The nodes of a command's words, those behind a redirection included."""
    for child in node.children:
        if not child.type.endswith("_redirect"):
            yield child
    if above and above[-1].type == "redirected_statement":
        for redirect in above[-1].children:
            if redirect.type.endswith("_redirect"):
                yield from _behind_redirect(redirect)


def _behind_redirect(redirect: Syntax) -> Iterator[Syntax]:
    """`> log --x 8`: what stands behind the file of a redirection is a word of the command."""
    files = [c for c in redirect.children if c.is_named and c.type != "file_descriptor"]
    if redirect.type == "file_redirect":
        yield from files[1:]


def parse(path: str, text: str) -> ShellDocument:
    """Read a shell script; what can't be read of it is left out."""
    document = ShellDocument(path, text)
    try:
        read(document, int(text.startswith(BOM)), len(text))
    except ValueError as exc:
        document.problem = Problem(str(exc), Span(0, 0))
        return document
    for number, command in enumerate(document.commands):
        document.parts.append(Part(command.node, number, command.launchers))
    return document
