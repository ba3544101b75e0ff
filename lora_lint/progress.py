"""How far a long run has come, on a terminal."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

Item = TypeVar("Item")

# Seconds before the first word and between two; a run that is over by then says nothing.
DELAY: Final = 1.0
INTERVAL: Final = 0.1


def shown(items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, and beside them a line on the terminal's standard error that counts them.

    The line is cleared at the end, also if that is an exception.
    """
    stream = _terminal()
    if stream is None:
        yield from items
        return
    due = time.monotonic() + DELAY
    said = ""
    try:
        for count, item in enumerate(items, 1):
            yield item
            if time.monotonic() >= due:
                said = f"{count:,} of {total:,} files"
                stream.write(f"\r{said}")
                stream.flush()
                due = time.monotonic() + INTERVAL
    finally:
        if said:
            stream.write(f"\r{' ' * len(said)}\r")
            stream.flush()


@contextmanager
def saying(text: str) -> Iterator[None]:
    """Say on a terminal's standard error what a block does that takes seconds; cleared after it."""
    stream = _terminal()
    if stream is not None:
        stream.write(f"\r{text}")
        stream.flush()
    try:
        yield
    finally:
        if stream is not None:
            stream.write(f"\r{' ' * len(text)}\r")
            stream.flush()


def _terminal() -> TextIO | None:
    """Standard error, where that is a terminal on which a line can be overwritten."""
    stream = sys.stderr
    return stream if stream.isatty() and os.environ.get("TERM") != "dumb" else None
