"""Shell scripts (``.sh``, ``.bash``, a shell's ``#!``): every training command is a part.

What a dialect sees. ``document.format`` is ``"shell"``; in a notebook it is ``"notebook"``, and the
commands of ``!`` lines and ``%%bash`` cells are parts beside the Python cells, told by
``part.node.style == "command"``. A command is a part if one of its options speaks of LoRA
(``--lora_r``, ``--peft_type``, ``--target_modules``, ``--tuner_type lora``) or if what it runs is a
known training command (``trl sft``, ``axolotl train``, a script such as ``train_lora.py``)::

    R=8
    CUDA_VISIBLE_DEVICES=0 accelerate launch --num_processes 4 train.py base.yaml \\
        --lora_r $R --lora-alpha=16 --target_modules q_proj v_proj --use_peft ++data.size=3

``part.node``: kind ``"mapping"``, style ``"command"``; ``note`` is what is run, launchers unwrapped,
here ``"train.py"``. A script is named as its path is written, a module (``python -m a.b``, also
behind a launcher) as ``"a.b"``, an entry point with its subcommand: ``"trl sft"``, ``"swift sft"``,
``"megatron sft"``, ``"llamafactory-cli train"``, ``"litgpt finetune_lora"``, ``"mlx_lm.lora"``,
``"mlx_lm lora"``, ``"axolotl train"``, ``"xtuner train"``, ``"oumi train"``, ``"autotrain llm"``,
``"tune run"`` (the recipe's name is its positional 0). A directory before an entry point is dropped.

``part.node.entries``, in the order of the command:

    ============================  ========================  ==========================================
    written                       key                       node
    ============================  ========================  ==========================================
    base.yaml                     0 (then 1, 2, ...)        scalar ``"base.yaml"``
    --lora_r $R                   ``"lora_r"``              scalar ``"8"``, home at the assignment
    --lora-alpha=16               ``"lora-alpha"``          scalar ``"16"``
    --target_modules q_proj ...   ``"target_modules"``      sequence of ``"q_proj"``, ``"v_proj"``
    --use_peft                    ``"use_peft"``            scalar True, style ``"flag"``
    ++data.size=3                 ``"data.size"``           scalar ``"3"``
    ~data.size                    ``"~data.size"``          scalar True, style ``"flag"``
    $EXTRA, "$@"                  None                      unknown: words that aren't known
    ============================  ========================  ==========================================

Values are the strings that the program receives, behind the shell's quotes and backslashes: never
numbers, and JSON stays a string. Keys are as written, without leading dashes and pluses;
``prefix(document.text, entry)`` gives those: ``"--"``, ``"-"``, ``"++"``, ``"+"``, or ``""`` for a
plain ``key=value``. The words behind an option are its values up to the next option, since only
the program's own parser knows how many it takes; so a positional argument stands before the
options or behind ``--``, and ``key=value`` behind an option's first value is an override again. A
negative number is a value. A repeated option has an entry each time, and ``get`` gives the last.

Where an entry's key is None (``holds_more(node)``), the command receives further words that can't
be known: any option may be among them, so that an absent option is not certain to be absent nor a
written one to be the last.

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

if TYPE_CHECKING:
    from lora_lint.documents.document import Part
    from lora_lint.documents.tree import Entry, Node

_PREFIX: Final = re.compile(r"(?:--?|\+{1,2})\Z")


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
