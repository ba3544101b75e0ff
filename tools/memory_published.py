"""The closed form of memory against measurements on GPUs that others published.

    python tools/memory_published.py FILE > docs/memory-published.md

FILE has the measurements; ``published_rows`` says how a row becomes a setting. Needs torch and
transformers, which build the models' module trees without weights.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from published_rows import Row, Setting, read_rows, tree

from lora_lint.memory import estimate_memory
from lora_lint.memory.estimate import CONTEXT_HIGH, CONTEXT_LOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lora_lint.memory import MemoryEstimate

HEAD = """
# The closed form of memory against published measurements

Made by `python tools/memory_published.py FILE`, where FILE has the measurements; how a row becomes
a setting is described in `tools/published_rows.py`.

Error: what the closed form gives for the peak of PyTorch's memory against the measured one, +: too
much. Band: its low and its high end against the measured figure. All are without the CUDA context,
which neither metric includes. PEFT's figures are reserved memory, LitGPT's allocated memory.
"""
NOTES = """
LitGPT's rows are estimated by the form of LitGPT's own layers, head and loss
(`lora_lint/memory/litgpt.py`), which is compared with its class in `docs/memory-tracer.md`. Its
rows of config_hub state no longest sample: 512 tokens are where they are cut. Those of the resource
tables are first steps (`tools/published_rows.py`). In 4 bit the moment of the peak is one in which
the output head's weight is there in float16 and in bfloat16, since lightning packs it from float16:
4 bytes for each of 50688 x 4096 values, 0.83 GB of the 5.24 GB of row 29.

These rows are no blind check of LitGPT's form: its source was read for what made them miss. No
coefficient is fitted to a row; each is what the source does, and settings that nobody measured are
checked against traces of LitGPT's class, half of them listed before (`tools/litgpt_settings.py`).
"""


class Checked(NamedTuple):
    """A row with its estimate."""

    row: Row
    setting: Setting
    estimate: MemoryEstimate

    @property
    def measured(self) -> int:
        """Bytes; 0 where the run was out of memory."""
        return self.setting.measured or 0

    def against(self, size: float | None) -> float:
        """A size against the measured one, as a share of it."""
        return (size or 0) / self.measured - 1

    @property
    def ends(self) -> tuple[float, float]:
        """The band without the CUDA context."""
        return (self.estimate.low or 0) - CONTEXT_LOW, (self.estimate.high or 0) - CONTEXT_HIGH

    @property
    def inside(self) -> bool:
        """Whether the band holds the measured figure."""
        low, high = self.ends
        return low <= self.measured <= high

    @property
    def width(self) -> float:
        """Half the band's width as a share of its middle."""
        low, high = self.ends
        return (high - low) / (high + low)


def check(row: Row) -> Checked | None:
    """The estimate of a row that is a setting."""
    setting = row.setting
    if isinstance(setting, str):
        return None
    estimate = estimate_memory(
        tree(setting.model, litgpt=setting.litgpt),
        setting.lora,
        **setting.settings,
        profile=setting.profile,
        gpu=setting.gpu,
    )
    return Checked(row, setting, estimate)


def page(rows: Sequence[Row]) -> Iterable[str]:
    """The page, line by line."""
    yield HEAD.strip()
    checked = [one for row in rows if (one := check(row)) is not None]
    figures = [one for one in checked if one.setting.measured is not None]
    yield "\n## By source\n"
    yield "| source | rows | in the band | mean error | worst | bias | widest band |"
    yield "|---|---|---|---|---|---|---|"
    sources = list(dict.fromkeys(_source(one) for one in figures))
    for source in sources:
        yield _summary(source, [one for one in figures if _source(one) == source])
    yield _summary("**all**", figures)
    yield NOTES.rstrip()
    for source in sources:
        yield f"\n### {source}\n"
        yield "| row | setting | measured | closed form | error | band | inside |"
        yield "|---|---|---|---|---|---|---|"
        yield from (_line(one) for one in figures if _source(one) == source)
    yield "\n## Runs that were out of memory\n"
    yield "| row | setting | GPU | closed form | verdict |"
    yield "|---|---|---|---|---|"
    for one in checked:
        if one.setting.measured is None:
            size = f"{(one.estimate.tensors or 0) / 1e9:.2f} GB"
            yield f"| {_name(one.row)} | {one.setting.gpu} | {size} | {one.estimate.verdict} |"
    yield "\n## Files of the measurements\n"
    yield from sorted({f"- {one.row.where}" for one in checked})
    yield "\n## Rows left out\n"
    yield "| source | rows | why |"
    yield "|---|---|---|"
    why = Counter((r.said["source"], r.setting) for r in rows if isinstance(r.setting, str))
    for (source, reason), count in why.items():
        yield f"| {source} | {count} | {reason} |"


def _source(one: Checked) -> str:
    kind = "4 bit" if one.setting.settings["quantization"] == "nf4" else "16 bit"
    return f"{one.row.said['source']}, {kind}"


def _name(row: Row) -> str:
    return f"{row.number} | {row.label}"


def _summary(name: str, rows: Sequence[Checked]) -> str:
    errors = [one.against(one.estimate.tensors) for one in rows]
    inside = sum(one.inside for one in rows)
    cells = [
        name,
        str(len(rows)),
        f"{inside} ({inside / len(rows):.0%})",
        f"{sum(map(abs, errors)) / len(errors):.1%}",
        f"{max(errors, key=abs):+.1%}",
        f"{sum(errors) / len(errors):+.1%}",
        f"±{max(one.width for one in rows):.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def _line(one: Checked) -> str:
    low, high = one.ends
    cells = [
        _name(one.row),
        f"{one.measured / 1e9:.2f} GB",
        f"{(one.estimate.tensors or 0) / 1e9:.2f} GB",
        f"{one.against(one.estimate.tensors):+.1%}",
        f"{one.against(low):+.1%} … {one.against(high):+.1%}",
        "yes" if one.inside else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    print("\n".join(page(list(read_rows(parser.parse_args().file)))))


if __name__ == "__main__":
    main()
