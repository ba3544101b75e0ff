"""The versions that findings are decided for.

A config may be trained with more than one pair of PEFT and transformers: the requirements admit a
range, or nothing says which it is. Each pair is a *line*; a finding is certain only where all lines
agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.facts import (
    EXACT_SINCE,
    compatible_transformers,
    known_release,
    newest_peft,
    peft_facts,
    transformers_facts,
    unpredicted,
    version_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lora_lint.environment import Environment, Version


class Line(NamedTuple):
    """A release of PEFT and one of transformers.

    ``assumed`` is the user's own PEFT where that is none of the known releases; the line then
    stands for it.
    """

    peft: str
    transformers: str
    assumed: str | None = None


# Where nothing says which PEFT it is: the newest release, and one on the last transformers 4.
OLDER_LINE: Final = Line("0.18.1", "4.57.6")


def lines(environment: Environment) -> tuple[Line, ...]:
    """The lines to decide findings for, the newest first: the ends of what is possible."""
    peft, transformers = environment.peft, environment.transformers
    if peft is None:
        pefts = (newest_peft(), OLDER_LINE.peft)
        ends = _ends(transformers, OLDER_LINE.peft) if transformers else _newest_two()
        return _distinct(Line(p, t) for p, t in zip(pefts, ends, strict=True))
    first, last = peft.first, peft.last
    if transformers is not None:
        ends = _ends(transformers, first)
        return _distinct(_line(p, t) for p, t in zip((last, first), ends, strict=True))
    if first == last:
        return _distinct(_line(last, t) for t in _possible(last))
    return _distinct((_line(last, _possible(last)[0]), _line(first, _possible(first)[-1])))


def between(environment: Environment) -> tuple[Line, ...]:
    """One line for each known release that the user's requirement admits, oldest first."""
    peft = environment.peft
    if peft is None or peft.exact:
        return ()
    keys = version_key(peft.first), version_key(peft.last)
    admitted = (v for v in peft_facts()["versions"] if keys[0] <= version_key(v) <= keys[1])
    return tuple(_line(v, _within(environment.transformers, v)) for v in admitted)


def _line(peft: str, transformers: str) -> Line:
    """The line of a PEFT version, which a release that is known stands for where it is none."""
    stands_in = unpredicted(peft) is not None and version_key(peft) >= version_key(EXACT_SINCE)
    return Line(known_release(peft), transformers, peft if stands_in else None)


def _newest_two() -> tuple[str, str]:
    newest: str = transformers_facts()["version"]
    return newest, OLDER_LINE.transformers


def _possible(peft: str) -> tuple[str, ...]:
    """The transformers that a PEFT release is probably used with, newest first."""
    oldest, newest = compatible_transformers(peft)
    usual = [t for t in _newest_two() if version_key(oldest) <= version_key(t)]
    return tuple(t for t in usual if version_key(t) <= version_key(newest)) or (newest,)


def _ends(transformers: Version, peft: str) -> tuple[str, str]:
    """The newest and the oldest transformers that the user may have; who leaves the lower end open
    does not mean a release that the PEFT is too new for.
    """
    oldest, _ = compatible_transformers(peft)
    first = max(transformers.first, oldest, key=version_key)
    return transformers.last, min(first, transformers.last, key=version_key)


def _within(transformers: Version | None, peft: str) -> str:
    """The newest transformers that goes with a PEFT release and that the user may have."""
    newest = _possible(peft)[0]
    if transformers is None:
        return newest
    if version_key(newest) < version_key(transformers.first):
        return transformers.first
    return min(newest, transformers.last, key=version_key)


def _distinct(found: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(dict.fromkeys(found))
