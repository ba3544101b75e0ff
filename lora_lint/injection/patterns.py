"""A user's regular expressions, compiled once and never allowed to hang.

Python's matcher can take exponential time on a hostile or clumsy pattern. Patterns whose shape
allows that are tried first in a process that can be killed; one that does not come back leaves the
answer undecided.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lora_lint.injection.simulation import Raised, Undecided

if TYPE_CHECKING:
    from collections.abc import Sequence

TIME_LIMIT = 2.0
# Unbounded repeats that may follow one another before a name of 100 characters takes too long.
MAX_REPEATS = 4
_TRY = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    compiled = re.compile(pattern)
    for name in names:
        compiled.match(name)
        compiled.fullmatch(name)
"""


@lru_cache(maxsize=512)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled pattern.

    Raises ``Raised("error")`` for a pattern that is not valid, as PEFT would.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(pattern)
    except re.error as exc:
        raise Raised("error", str(exc)) from None
    except (OverflowError, RecursionError) as exc:
        raise Raised(type(exc).__name__, str(exc)) from None


def refuse_slow_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Make sure that matching these patterns against these names comes to an end.

    Raises ``Undecided`` if it does not within ``TIME_LIMIT`` seconds.
    """
    doubtful = [pattern for pattern in patterns if _may_explode(pattern)]
    if not doubtful:
        return
    import subprocess

    command = [sys.executable, "-I", "-S", "-c", _TRY]
    work = json.dumps([doubtful, list(names)])
    try:
        subprocess.run(
            command, input=work, text=True, timeout=TIME_LIMIT, check=False, capture_output=True
        )
    except subprocess.TimeoutExpired:
        reason = "its patterns take too long to match the model's names"
        raise Undecided(reason) from None


def pattern_problem(pattern: str) -> str | None:
    """Why a pattern is not a valid regular expression, None where it is."""
    try:
        compile_pattern(pattern)
    except Raised as exc:
        return str(exc)
    return None


def _may_explode(pattern: str) -> bool:
    """Whether the pattern repeats a repeat, or has many repeats one after another."""
    if sum(pattern.count(mark) for mark in "*+{") <= 1:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parser().parse(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    nested, total = _repeats(tree, inside=False)
    return nested or total > MAX_REPEATS


def _parser() -> Any:
    if sys.version_info >= (3, 11):
        return re._parser  # type: ignore[attr-defined]  # noqa: SLF001
    import sre_parse

    return sre_parse


def _repeats(tree: Any, *, inside: bool) -> tuple[bool, int]:
    """Whether an unbounded repeat holds a repeat or a choice, and how many unbounded ones there
    are.
    """
    nested, total = False, 0
    for operator, argument in tree:
        name = str(operator)
        below: list[tuple[Any, bool]] = []
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            unbounded = argument[1] > 8
            nested = nested or (inside and unbounded)
            total += unbounded
            below = [(argument[2], inside or unbounded)]
        elif name == "SUBPATTERN":
            below = [(argument[3], inside)]
        elif name == "BRANCH":
            nested = nested or inside
            below = [(branch, inside) for branch in argument[1]]
        elif name in ("ASSERT", "ASSERT_NOT"):
            below = [(argument[1], inside)]
        elif name == "ATOMIC_GROUP":
            below = [(argument, inside)]
        elif name == "GROUPREF_EXISTS":
            below = [(part, inside) for part in argument[1:] if part]
        for part, flag in below:
            more_nested, more = _repeats(part, inside=flag)
            nested, total = nested or more_nested, total + more
    return nested, total
