"""``lora-lint show`` for people: what is written, what LoraConfig receives, what PEFT adapts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_lint.dialects import Undecided
from lora_lint.models.resolve import Resolution
from lora_lint.recipe import UNKNOWN
from lora_lint.reports.show_json import field_names
from lora_lint.reports.text import Style, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.checks import RecipeSubject
    from lora_lint.engine import Report
    from lora_lint.injection import Injection

BAR = 32


def render(report: Report, style: Style = plain) -> Iterator[str]:
    """The recipes of a report, one block each."""
    shown = False
    for file in report.files:
        for index, subject in enumerate(file.subjects):
            if shown:
                yield ""
            shown = True
            name = file.path if len(file.subjects) == 1 else f"{file.path}#{index}"
            yield style(f"{name}  ({subject.dialect.title})", bold=True)
            yield from _block(subject, style)
    if not shown:
        yield "no LoRA configuration found"


def _block(subject: RecipeSubject, style: Style) -> Iterator[str]:
    yield from _section("written", _fields(subject), style)
    applied_by = subject.dialect.applied_by
    own = applied_by != "PEFT"
    received = f"as a LoraConfig, {applied_by} itself applies it" if own else "LoraConfig receives"
    yield from _section(received, _kwargs(subject), style)
    yield from _section("base model", _model(subject), style)
    known = subject.context.environment.peft
    source = f" ({known.source})" if known else ""
    title = f"{applied_by} adapts" if own else f"peft {subject.peft}{source} adapts"
    yield from _section(title, _injection(subject, style), style)
    yield from _section("memory", _memory(subject, style), style)


def _section(title: str, lines: Iterable[str], style: Style) -> Iterator[str]:
    body = list(lines)
    if body:
        yield f"  {style(title, fg='cyan', bold=True)}"
        yield from (f"    {line}" for line in body)


def _fields(subject: RecipeSubject) -> Iterator[str]:
    recipe = subject.recipe
    for name in field_names():
        field = recipe[name]
        if field.origin in ("written", "computed"):
            note = "" if field.origin == "written" else f"   ({field.detail or 'computed'})"
            yield f"{name:<28} {_value(field.value)}{note}"
        elif not field.sure:
            yield f"{name:<28} {_value(field.value)}   ({field.detail})"
        elif field.origin == "unknown":
            yield f"{name:<28} ?   (not static: {field.detail})"
    if not recipe.adapter and recipe.switch is None:
        yield "LoRA is off"
    elif not recipe.adapter:
        yield f"LoRA is off: {recipe.switch} is not set to it"


def _kwargs(subject: RecipeSubject) -> Iterator[str]:
    lowered = subject.lowered
    if isinstance(lowered, Undecided):
        yield f"undecided: {lowered.reason}"
        return
    for name, value in lowered.values.items():
        if value is not None:
            yield f"{name:<28} {_value(value)}"


def _value(value: Any) -> str:
    if value is UNKNOWN:
        return "?"
    if isinstance(value, list) and len(value) > 12:
        return "[" + ", ".join(map(str, value[:10])) + f", … {len(value) - 10} more]"
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)


def _model(subject: RecipeSubject) -> Iterator[str]:
    resolution = subject.resolution
    if not isinstance(resolution, Resolution):
        yield f"not known: {resolution.reason}"
        return
    tree = resolution.tree
    library = tree.facts.get("library") or f"transformers {tree.transformers}"
    yield f"{resolution.id}: {tree.cls}, {library} ({resolution.source})"
    own = subject.tree or tree
    count = own.parameter_count()
    if count is not None:
        yield f"{count:,} parameters" + ("" if own is tree else f" in {subject.dialect.title}")


def _injection(subject: RecipeSubject, style: Style) -> Iterator[str]:
    injection = subject.injection
    if injection.error is not None:
        error = injection.error
        yield f"{style(error.type, fg='red', bold=True)}: {error.message}"
        return
    if injection.undecided:
        yield f"undecided: {injection.undecided}"
    yield from _groups(injection, counted=subject.counts_known)
    for title, names in (
        ("trained in full", injection.saved),
        ("trained tokens", injection.tokens),
    ):
        if names:
            yield f"{title}: {', '.join(names[:6])}" + (" …" if len(names) > 6 else "")
    for name, entries in injection.unmatched.items():
        if entries:
            listed = ", ".join(map(str, entries))
            yield f"{style('without effect', fg='yellow', bold=True)}: {name} {listed}"
    if injection.trainable is not None and injection.total:
        share = 100 * injection.trainable / injection.total
        yield f"{injection.trainable:,} of {injection.total:,} trainable ({share:.2g} %)"


def _groups(injection: Injection, *, counted: bool) -> Iterator[str]:
    """The adapted modules by leaf name, with their share of the trainable parameters as a bar."""
    groups: dict[str, list[str]] = {}
    for name in (*injection.modules, *injection.parameters):
        groups.setdefault(name.rpartition(".")[2], []).append(name)
    counts = {
        leaf: sum(injection.adapted[n].parameters for n in names if n in injection.adapted)
        for leaf, names in groups.items()
    }
    most = max(counts.values(), default=0)
    for leaf, names in sorted(groups.items(), key=lambda item: -counts[item[0]]):
        scales = {injection.adapted[n].scale for n in names if n in injection.adapted}
        scale = f"scale {scales.pop():.4g}" if len(scales) == 1 else "scales differ"
        if not most:
            yield f"{leaf:<24} {len(names):>4} modules" if counted else leaf
            continue
        bar = "█" * max(1, round(BAR * counts[leaf] / most))
        yield f"{leaf:<24} {len(names):>4} × {counts[leaf] // len(names):>9,}  {bar} {scale}"


def _memory(subject: RecipeSubject, style: Style) -> Iterator[str]:
    memory = subject.memory
    if memory is None and subject.recipe.adapter and subject.not_estimated is not None:
        yield f"not estimated: {subject.not_estimated}"
    if memory is not None:
        from lora_lint.reports.memory_text import bars

        yield from bars(memory, style)
