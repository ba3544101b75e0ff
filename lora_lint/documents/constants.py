"""Constants: arithmetic on them with bounds, and attributes that stand for a string."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT: Final = 100_000
MAX_BITS: Final = 2_000

_DTYPE: Final = re.compile(
    r"torch\.(?:b?float\d+(?:_\w+)?|half|float|double|u?int\d+|long|short|int|bool)"
)
# Enums whose members are worth their own name (peft/utils/peft_types.py, 0.21.2) ...
_ENUMS: Final = ("TaskType", "PeftType")
# ... or their name in small letters (transformers/trainer_utils.py, 5.23).
_SMALL_ENUMS: Final = ("IntervalStrategy", "SchedulerType", "SaveStrategy")
_RENAMED: Final = {"SchedulerType.REDUCE_ON_PLATEAU": "reduce_lr_on_plateau"}

_ARITHMETIC: Final[dict[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
UNARY: Final[dict[type, Callable[[Any], Any]]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}


def is_enum(dotted: str) -> bool:
    """Whether a dotted name is a member of an enum whose values we know."""
    parts = dotted.split(".")
    if parts[0] == "peft":
        return len(parts) > 2 and parts[-2] in _ENUMS
    return parts[0] == "transformers" and len(parts) > 2 and parts[-2] in _SMALL_ENUMS


def constant_of(dotted: str) -> str | None:
    """The string that stands for a dtype or an enum's member, None for other names."""
    if _DTYPE.fullmatch(dotted):
        return dotted
    if not is_enum(dotted):
        return None
    kind, member = dotted.split(".")[-2:]
    if not member.isupper():
        return None
    if dotted.startswith("peft."):
        return member
    return _RENAMED.get(f"{kind}.{member}", member.lower())


def operate(kind: ast.operator, left: Any, right: Any) -> object:
    """The result of an operator on constants.

    Raises ``TypeError`` or ``ArithmeticError`` as Python would, and ``ValueError`` for results
    that are too big to be meant.
    """
    function = _ARITHMETIC.get(type(kind))
    texts = [side for side in (left, right) if isinstance(side, str)]
    numbers = [side for side in (left, right) if isinstance(side, int | float)]
    if function is None or len(texts) + len(numbers) != 2:
        msg = "no operation on numbers or texts"
        raise TypeError(msg)
    if texts:
        if len(texts) == 1 and (kind.__class__ is not ast.Mult or isinstance(numbers[0], float)):
            msg = "an operation on a text"
            raise TypeError(msg)
        if len(texts) == 2 and not isinstance(kind, ast.Add):
            msg = "an operation on texts"
            raise TypeError(msg)
        size = len(left) + len(right) if len(texts) == 2 else len(texts[0]) * numbers[0]
        if size > MAX_TEXT:
            msg = "a very long text"
            raise ValueError(msg)
    elif all(isinstance(side, int) for side in numbers):
        _bound_integers(kind, left, right)
    result = function(left, right)
    if isinstance(result, complex) or (isinstance(result, int) and result.bit_length() > MAX_BITS):
        msg = "a result that is no plain number"
        raise ValueError(msg)
    return result


def _bound_integers(kind: ast.operator, left: int, right: int) -> None:
    bits = 0
    if isinstance(kind, ast.Pow) and right > 0:
        bits = left.bit_length() * right
    elif isinstance(kind, ast.LShift) and right > 0:
        bits = left.bit_length() + right
    if bits > MAX_BITS:
        msg = "a very large number"
        raise ValueError(msg)
