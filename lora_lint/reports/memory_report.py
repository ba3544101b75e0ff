"""``lora-lint memory``: the parts of a run's memory as bars, what would make it fit, what-ifs."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint.checks.levers import levers, plan
from lora_lint.memory import parse_gpu
from lora_lint.reports.json import FORMAT_VERSION, dumps
from lora_lint.reports.memory_text import COLUMNS, bars, gib, verdict
from lora_lint.reports.text import Style, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.checks import RecipeSubject
    from lora_lint.checks.levers import Lever
    from lora_lint.engine import Report
    from lora_lint.memory import Gpu, MemoryEstimate

BAR = 24
# What stands left of a lever's bar.
_LEFT = 57
_LEAST_BAR = 8


class WhatIf(NamedTuple):
    """The values to try, as they are given on the command line; empty: the run's own.

    ``gpus`` are names or sizes; ``batches``, ``lengths`` and ``ranks`` whole numbers.
    """

    gpus: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()

    @property
    def asked(self) -> bool:
        """Whether there is anything to try."""
        return bool(self.batches or self.lengths or self.ranks or len(self.gpus) > 1)


class Try(NamedTuple):
    """One row of the what-ifs: what was changed, the estimate for the first GPU, and a verdict for
    each: ``unknown`` where it is not known how so many GPUs share the run.
    """

    changes: dict[str, int]
    memory: MemoryEstimate
    verdicts: tuple[str, ...]


def tries(subject: RecipeSubject, what_if: WhatIf) -> tuple[Try, ...]:
    """The runs to compare: every combination of the values, the run's own where none are given."""
    cards: list[Gpu | None] = [parse_gpu(name) for name in what_if.gpus] or [subject.gpu]
    axes = {
        "per_device_train_batch_size": what_if.batches,
        "max_length": what_if.lengths,
        "r": what_if.ranks,
    }
    varied = {name: values for name, values in axes.items() if values}
    rows = []
    for values in product(*varied.values()):
        changes = dict(zip(varied, values, strict=True))
        estimates = [subject.estimate(gpu=card, **changes) for card in cards]
        first = estimates[0]
        if first is not None:
            rows.append(
                Try(
                    changes,
                    first,
                    tuple(e.verdict if e is not None else "unknown" for e in estimates),
                )
            )
    return tuple(rows)


def render(
    report: Report, what_if: WhatIf, style: Style = plain, columns: int = COLUMNS
) -> Iterator[str]:
    """The memory of each recipe of a report, in so many columns."""
    subjects = [(file, subject) for file in report.files for subject in file.subjects]
    for index, (file, subject) in enumerate(subjects):
        if index:
            yield ""
        yield from _block(file.path, subject, what_if, style, columns)
    if not subjects:
        yield "no LoRA configuration found"


def _block(
    path: str, subject: RecipeSubject, what_if: WhatIf, style: Style, columns: int
) -> Iterator[str]:
    yield style(f"{path}  ({subject.dialect.title})", bold=True)
    memory = subject.memory
    if memory is None:
        yield f"  not estimated: {_why(subject)}"
        return
    yield f"  {_setting(subject)}"
    yield from (f"  {line}" for line in bars(memory, style, columns - 2))
    if memory.peak is None and memory.gpu is not None:
        yield from _longest(subject)
    steps = plan(subject)
    if steps:
        yield ""
        yield f"  {style('to make it fit', fg='cyan', bold=True)}"
        for step in steps:
            left = f"    {step.title:<40} {gib(step.memory.peak or 0):>10} "
            yield from _priced(left, step.price, columns)
    single = levers(subject)
    if single:
        yield ""
        yield f"  {style('what each change alone would save', fg='cyan', bold=True)}"
        yield from _single(single, columns)
    if what_if.asked:
        yield ""
        yield f"  {style('what if', fg='cyan', bold=True)}"
        yield from (f"    {line}" for line in _table(subject, what_if, style))


def _why(subject: RecipeSubject) -> str:
    from lora_lint.models.resolve import Unresolved

    if not subject.recipe.adapter:
        return "LoRA is off"
    if subject.not_estimated is not None:
        return subject.not_estimated
    if isinstance(subject.resolution, Unresolved):
        return subject.resolution.reason
    return subject.injection.undecided or "what LoraConfig receives is not known"


def _setting(subject: RecipeSubject) -> str:
    """The run in a line: what decides its memory."""
    batch, length = subject.value("per_device_train_batch_size"), subject.value("max_length")
    kind = subject.setup.quantization
    parts = [
        subject.model_name,
        str(kind) if isinstance(kind, str) and kind != "none" else None,
        f"r {subject.value('r')}" if isinstance(subject.value("r"), int) else None,
        f"batch {batch}" if isinstance(batch, int) else None,
        f"{length} tokens" if isinstance(length, int) else None,
    ]
    return " · ".join(part for part in parts if part)


def _longest(subject: RecipeSubject) -> Iterator[str]:
    if subject.value("max_length") is None or not isinstance(subject.value("max_length"), int):
        longest = subject.longest()
        if longest:
            yield f"  sequences of up to {longest:,} tokens fit"


def _single(found: Sequence[Lever], columns: int) -> Iterator[str]:
    most = max(lever.saved for lever in found)
    beside = columns - _LEFT - 1 - max(len(lever.price) for lever in found)
    width = min(BAR, beside if beside >= _LEAST_BAR else max(_LEAST_BAR, columns - _LEFT))
    for lever in found:
        drawn = width * lever.saved / most
        bar = "█" * max(1, round(drawn)) if drawn > 1 else "▏"
        saved = f"{lever.saved / 2**20:,.0f} MiB" if lever.saved < 2**30 else gib(lever.saved)
        yield from _priced(
            f"    {lever.title:<40} {saved:>10}  {bar:<{width}}", lever.price, columns
        )


def _priced(left: str, price: str, columns: int) -> Iterator[str]:
    """What a lever gives, and its price beside it or, where that has no room, below."""
    if len(left) + 1 + len(price) <= columns:
        yield f"{left} {price}"
    else:
        yield left.rstrip()
        yield f"      {price}"


_HEADS = {"per_device_train_batch_size": "batch", "max_length": "length", "r": "r"}


def _table(subject: RecipeSubject, what_if: WhatIf, style: Style) -> Iterator[str]:
    rows = tries(subject, what_if)
    if not rows:
        yield "not estimated"
        return
    names = what_if.gpus or ((subject.gpu.name,) if subject.gpu else ())
    heads = [f"{_HEADS[name]:>7}" for name in rows[0].changes]
    yield " ".join([*heads, f"{'peak':>10}", f"{'band':>16}", *(f"{n:>14}" for n in names)])
    for row in rows:
        memory = row.memory
        cells = [f"{value:>7,}" for value in row.changes.values()]
        if memory.peak is None or memory.low is None or memory.high is None:
            yield " ".join([*cells, f"not estimated: {memory.reason}"])
            continue
        band = f"{memory.low / 2**30:.1f} to {memory.high / 2**30:.1f}"
        judged = [verdict(word, style, 14) for word in row.verdicts] if names else []
        yield " ".join([*cells, f"{gib(memory.peak):>10}", f"{band:>16}", *judged])
    if len({parse_gpu(name).count for name in what_if.gpus}) > 1:
        yield f"peak and band are those of {names[0]}; each is judged by its own"


def render_json(report: Report, what_if: WhatIf) -> str:
    """The same for machines; documented in docs/json.md."""
    recipes = []
    for file in report.files:
        for index, subject in enumerate(file.subjects):
            memory = subject.memory
            recipes.append(
                {
                    "path": file.path,
                    "recipe": index,
                    "memory": memory.to_dict() if memory else None,
                    "not_estimated": None if memory else _why(subject),
                    "levers": [_lever(lever) for lever in levers(subject)],
                    "plan": [_lever(lever) for lever in plan(subject)],
                    "what_if": [_try(row, what_if, subject) for row in tries(subject, what_if)]
                    if what_if.asked
                    else [],
                }
            )
    return dumps({"version": FORMAT_VERSION, "recipes": recipes})


def _lever(lever: Lever) -> dict[str, Any]:
    return {
        "title": lever.title,
        "changes": dict(lever.changes),
        "price": lever.price,
        "saved_bytes": lever.saved,
        "peak": lever.memory.peak,
        "verdict": lever.memory.verdict,
    }


def _try(row: Try, what_if: WhatIf, subject: RecipeSubject) -> dict[str, Any]:
    names = what_if.gpus or ((subject.gpu.name,) if subject.gpu else ())
    return {
        **row.changes,
        "low": row.memory.low,
        "peak": row.memory.peak,
        "high": row.memory.high,
        "verdicts": dict(zip(names, row.verdicts, strict=False)),
    }
