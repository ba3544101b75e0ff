"""How far a long run has come, on a terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Item = TypeVar("Item")

# Seconds before the first word and between two; a run that is over by then says nothing.
DELAY: Final = 1.0
INTERVAL: Final = 0.1


def shown(items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, and beside them a line on the terminal's standard error that counts them.

    The line is cleared at the end, also if that is an exception.
    """
    stream = sys.stderr
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
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
