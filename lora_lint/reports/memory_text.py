"""The memory estimate for people: its parts as bars, and the verdict."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from lora_lint.reports.text import Style, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.memory import MemoryEstimate

# Columns of a line, and of the longest bar.
COLUMNS = 100
WIDTH = 40
_VERDICTS = {
    "fits": ("fits", "green"),
    "risk": ("may not fit", "yellow"),
    "oom": ("does not fit", "red"),
    "unknown": ("not decided", "yellow"),
}


def gib(size: float) -> str:
    """Bytes as GiB, with as many digits as people compare; as MiB where that would be nothing."""
    if 0 < size < 2**30 / 100:
        return f"{size / 2**20:.1f} MiB"
    return f"{size / 2**30:.2f} GiB"


def verdict(word: str, style: Style = plain, width: int = 0) -> str:
    """A verdict in words, coloured, right-aligned to a width."""
    text, colour = _VERDICTS[word]
    return style(f"{text:>{width}}", fg=colour)


def summary(memory: MemoryEstimate, style: Style = plain) -> str | None:
    """The peak and the verdict in a few words; None where there is no peak."""
    if memory.peak is None or memory.low is None or memory.high is None:
        return None
    text = f"about {gib(memory.peak)} ({memory.low / 2**30:.1f} to {memory.high / 2**30:.1f})"
    if memory.gpu is None:
        return text
    return f"{text} of {gib(memory.gpu.usable_bytes)}: {verdict(memory.verdict, style)}"


def bars(memory: MemoryEstimate, style: Style = plain, columns: int = COLUMNS) -> Iterator[str]:
    """The parts, the largest first, each drawn against the GPU or against the peak, in so many
    columns.
    """
    known = {name: size for name, size in memory.bytes.items() if size}
    if not known:
        yield f"not estimated: {memory.reason}"
        return
    whole = memory.gpu.usable_bytes if memory.gpu else sum(known.values())
    width = max(10, min(WIDTH, columns - 27))
    scale = width / max(whole, *known.values())
    for name, size in sorted(known.items(), key=lambda part: -part[1]):
        bar = "█" * max(1, round(size * scale))
        yield f"{name.replace('_', ' '):<14} {gib(size):>10}  {bar}"
    total = summary(memory, style)
    if total is not None:
        where = f"at the {memory.site}" if memory.site else ""
        room = columns - 16 - len(summary(memory) or "")
        yield f"{'peak':<14} {total}{f' {where}' if where and len(where) <= room else ''}"
        if len(where) > room:
            yield f"{'':<14} {where}"
    if memory.gpu is not None and total is None and memory.verdict == "oom":
        yield f"at least {gib(memory.low or 0)}: {verdict('oom', style)} {memory.gpu.name}"
    if memory.reason is not None:
        yield f"not estimated: {memory.reason}"
    if memory.assumed:
        listed = ", ".join(f"{name} {value}" for name, value in memory.assumed.items())
        yield from _wrapped("assumed", listed, columns)


def _wrapped(name: str, text: str, columns: int) -> Iterator[str]:
    """A named line, in as many lines as it needs."""
    parts = wrap(text, max(40, columns - 15), break_long_words=False, break_on_hyphens=False)
    for number, part in enumerate(parts):
        yield f"{'' if number else name:<14} {part}"
