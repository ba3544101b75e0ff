"""Whether a run evaluates while it trains, as transformers' arguments say it.

Source: transformers 5.23.0 training_args.py, ``eval_strategy``, which is ``no`` by default; up to
4.45 it could be written ``evaluation_strategy``. ``do_eval`` alone starts no evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.dialects.arguments import key_of
from lora_lint.dialects.base import read_node

if TYPE_CHECKING:
    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.tree import Node
    from lora_lint.recipe import Field

STRATEGY: Final = "eval_strategy"
STRATEGY_KEYS: Final = ("eval_strategy", "evaluation_strategy")


def trainer_evaluation(root: Node, path: KeyPath) -> dict[str, Field]:
    """The field ``eval_strategy`` of a mapping or call that holds transformers' arguments: ``no``,
    ``steps`` or ``epoch``; none where it is not written.
    """
    for name in STRATEGY_KEYS:
        key = key_of(root, name)
        node = root.get(key)
        if node is not None:
            return {STRATEGY: _strategy(read_node(node, (*path, key)))}
    return {}


def _strategy(written: Field) -> Field:
    """``no`` without quotes is False in YAML, which transformers is told then, and reads as no."""
    if written.origin == "unknown":
        return written
    value = written.value
    text = "no" if value in (False, None) else str(value).lower().rpartition(".")[2]
    return written._replace(value=text)
