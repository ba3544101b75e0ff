"""``lora-lint inspect`` for people: a model's groups of modules as a table, and what to write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from lora_lint.reports.summary import plural
from lora_lint.reports.text import Style, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.injection import Injection
    from lora_lint.inspection import Group, Inspection

_GRADES: Final = {
    "exact": "sizes confirmed by a second source",
    "dims": "sizes on which two copies of its config agree",
    "named": "sizes unknown",
    "live": "built here",
    "given": "as given",
}
_LEGEND: Final = "D: in PEFT's default target_modules   L: in all-linear   (◐ some of them)"
_NARROW, _WIDE = 6, 24


def render(found: Inspection, style: Style = plain, width: int = 100) -> Iterator[str]:
    """The model, its groups, what PEFT's presets take and what to write, in ``width`` columns."""
    yield from _wrapped(_head(found, style), width)
    yield ""
    yield from _table(found, style, width)
    yield ""
    yield from _wrapped(_presets(found, style), width, 14)
    yield from _section("to copy", _to_copy(found), style)
    yield from _section(
        "experts and other parameters that are no modules", _parameters(found), style
    )
    yield from _section("good to know", _wrapped(_notes(found), width), style)
    yield from _section("transformers 4 and 5", _wrapped(_changed(found), width), style)


def _section(title: str, lines: Iterable[str], style: Style) -> Iterator[str]:
    body = list(lines)
    if body:
        yield style(title, fg="cyan", bold=True)
        yield from (f"  {line}" for line in body)


def _wrapped(lines: Iterable[str], width: int, indent: int = 4) -> Iterator[str]:
    import textwrap

    for line in lines:
        yield from textwrap.wrap(
            line,
            max(40, width - 2),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _head(found: Inspection, style: Style) -> Iterator[str]:
    tree = found.tree
    kind = f" ({tree.model_type})" if tree.model_type else ""
    yield f"{style(found.resolution.id, bold=True)}  {tree.cls}{kind}"
    count = tree.parameter_count()
    dtype = tree.facts.get("checkpoint_quantization") or tree.facts.get("checkpoint_dtype")
    facts = [f"{count:,} parameters" if count is not None else ""]
    facts += [f"published as {dtype}" if dtype else "", _grade(found)]
    yield "  " + " · ".join(filter(None, facts))
    names = f"module names of transformers {tree.transformers}" if tree.transformers else ""
    task = f"task_type {found.task}" if found.task else ""
    facts = [f"from {found.resolution.source}", names, f"peft {found.peft}", task]
    yield "  " + " · ".join(filter(None, facts))


def _grade(found: Inspection) -> str:
    if not found.counted:
        return "names of its class; layer counts and sizes unknown"
    return _GRADES[found.tree.grade]


# The table ---------------------------------------------------------------------------------------


def _table(found: Inspection, style: Style, width: int) -> Iterator[str]:
    groups = found.groups
    if not groups:
        yield "no module that PEFT has a LoRA layer for"
        return
    names = [len(g.name) + (2 if g.part else 0) for g in groups]
    counts = [_count(group, found) for group in groups]
    kinds = [_kind(group) for group in groups]
    figures = [_trainable(group) for group in groups]
    sized = any(group.trainable is not None for group in groups)
    columns = [max(map(len, names_)) for names_ in (counts, kinds, figures)]
    name_width = max(names)
    left = f"{'':<{name_width}}  {'':>{columns[0]}}  {'':<{columns[1]}}  "
    title = f"trainable at r={found.r}" if sized else ""
    bar = width - len(left) - columns[2] - len("  D L  ")
    bar = min(_WIDE, bar) if sized and bar >= _NARROW else 0
    figure = max(columns[2], 0 if bar else len(title))
    most = max((g.trainable or 0 for g in groups), default=0)
    over = f"{title:<{figure + 2 + bar}}" if bar else f"{title:>{figure}}"
    yield style(f"{left}{'D L':<3}  {over}".rstrip(), bold=True)
    part = None
    for group, count, kind, number in zip(groups, counts, kinds, figures, strict=True):
        if group.part != part and group.part:
            yield style(group.part, fg="cyan")
        part = group.part
        name = f"  {group.name}" if group.part else group.name
        marks = f"{_mark(group, group.default)} {_mark(group, group.all_linear)}"
        drawn = "█" * max(1, round(bar * group.trainable / most)) if group.trainable else ""
        row = f"{name:<{name_width}}  {count:>{columns[0]}}  {kind:<{columns[1]}}  {marks}"
        yield f"{row}  {number:>{figure}}  {drawn if bar else ''}".rstrip()
    yield style(_LEGEND, fg="cyan")


def _count(group: Group, found: Inspection) -> str:
    return f"{len(group.members):,}" if found.counted else ""


def _kind(group: Group) -> str:
    if len(group.shapes) > 2:
        return f"{group.kind} ({len(group.shapes)} shapes)"
    sign = "→" if group.kind in ("Linear", "Conv1D") else "×"
    shapes = (sign.join(map(str, shape)) for shape in group.shapes)
    return f"{group.kind} {', '.join(shapes)}".rstrip()


def _trainable(group: Group) -> str:
    if group.refused:
        return "refused"
    if not group.reached:
        return "not reached"
    return f"{group.trainable:,}" if group.trainable is not None else ""


def _mark(group: Group, hits: int) -> str:
    if not hits:
        return "·"
    return "●" if hits == len(group.members) else "◐"


# Below it ----------------------------------------------------------------------------------------


def _presets(found: Inspection, style: Style) -> Iterator[str]:
    default = found.default
    if found.written_default is None and default.error is not None:
        text = f"none for {found.tree.model_type} models: write target_modules"
    else:
        text = _outcome(default, found, style)
        if found.written_default is not None:
            text = f"{_written(found.written_default)}  {text}"
    yield f"{style('PEFT default', bold=True)}  {text}"
    yield f"{style('all-linear', bold=True)}    {_outcome(found.all_linear, found, style)}"


def _written(targets: list[str] | str) -> str:
    return targets if isinstance(targets, str) else f"[{', '.join(targets)}]"


def _outcome(injection: Injection, found: Inspection, style: Style) -> str:
    if injection.error is not None:
        error = injection.error
        return f"{style(error.type, fg='red', bold=True)}: {error.message}"
    if not (injection.modules or injection.parameters):
        return f"undecided: {injection.undecided}"
    if not found.counted:
        leaves = dict.fromkeys(name.rpartition(".")[2] for name in injection.modules)
        return f"takes {', '.join(leaves)}{_saved(injection)}"
    count = len(injection.modules)
    parts = [f"{count:,} {plural('module', count)}"]
    if injection.parameters:
        count = len(injection.parameters)
        parts.append(f"{count:,} {plural('parameter', count)}")
    text = " and ".join(parts)
    if injection.trainable is not None and injection.total:
        share = 100 * injection.trainable / injection.total
        text += f", {injection.trainable:,} trainable ({share:.2g} %)"
    return text + _saved(injection)


def _saved(injection: Injection) -> str:
    return f", with {', '.join(injection.saved)} trained in full" if injection.saved else ""


def _to_copy(found: Inspection) -> Iterator[str]:
    if found.target_modules is not None:
        what = "as all-linear"
        if found.all_linear.parameters:
            what = "as all-linear, without the experts"
        elif found.all_linear.error is not None:
            what = "all linear layers but the output head"
        yield f"# {what}"
        yield f"target_modules: {_yaml(found.target_modules)}"
    for stack, pattern in found.stacks.items():
        yield f"# only {stack}"
        yield f"target_modules: {_yaml(pattern)}"


def _yaml(targets: list[str] | str) -> str:
    """The value as YAML and Python both read it."""
    return json.dumps(targets, ensure_ascii=False)


def _parameters(found: Inspection) -> Iterator[str]:
    groups = [group for group in found.groups if group.kind == "Parameter"]
    stacked = [group for group in groups if not any(len(s) < 3 for s in group.shapes)]
    entries = [group.entry for group in stacked if group.entry is not None]
    if entries:
        yield f"target_parameters: {_yaml(entries)}"
        yield "# lora_dropout must stay 0 with it"
    for reason in dict.fromkeys(group.refused for group in groups if group.refused):
        yield f"refused by peft {found.peft}: {reason}"


def _notes(found: Inspection) -> Iterator[str]:
    left_out = list(_left_out(found))
    if left_out and found.all_linear.error is None and found.all_linear.modules:
        yield f"all-linear leaves out {'; '.join(left_out)}"
    for group in found.groups:
        if group.refused and group.kind != "Parameter":
            yield f"PEFT refuses {group.path}: {group.refused}"
    lost = list(dict.fromkeys(group.name for group in found.groups if not group.reached))
    if lost:
        names = ", ".join(lost)
        yield (
            f"not reached: peft {found.peft} takes {names} in target_modules for the experts, "
            "whatever else is called so"
        )
    tied = [group for group in found.tree.tied if len(group) > 1]
    for first, *others in tied[:3]:
        yield f"tied, one tensor: {', '.join((first, *others))}"
    if len(tied) > 3:
        yield f"and {len(tied) - 3} more tied tensors"
    if found.others:
        yield f"no LoRA layer in PEFT for {', '.join(_others(found))}"


def _left_out(found: Inspection) -> Iterator[str]:
    """Linear layers that all-linear does not take, those of one part together."""
    parts: dict[str, list[str]] = {}
    for group in found.groups:
        if group.kind not in ("Linear", "Conv1D") or group.all_linear:
            continue
        if group.members == (found.head,):
            yield f"{group.path} (the output head)"
        else:
            parts.setdefault(group.part, []).append(group.name)
    for part, names in parts.items():
        yield f"{', '.join(names)} of {part}" if part else ", ".join(names)


def _others(found: Inspection) -> Iterator[str]:
    """Classes that PEFT has no layer for, with the last parts of their names where they are few."""
    names: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for (cls, name), count in found.others.items():
        names.setdefault(cls, []).append(name)
        counts[cls] = counts.get(cls, 0) + count
    for cls, called in names.items():
        number = f"{counts[cls]:,}×" if found.counted else ""
        listed = f" ({called[0]})" if len(called) == 1 and not called[0].isdigit() else ""
        yield f"{number}{cls}{listed}"


def _changed(found: Inspection) -> Iterator[str]:
    change = found.changed
    if not change.text:
        yield f"the same module names in {change.since} and 5"
    elif change.gone or change.new or change.fused_experts:
        yield f"from {change.since} to 5: {change.text}"
    else:
        yield change.text
