"""What the rules find in a recipe, on every line of versions that it may be trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lora_lint.checks import CHECKS
from lora_lint.checks.lines import between
from lora_lint.checks.versions import knows_words
from lora_lint.diagnostics import SEVERITIES
from lora_lint.facts import peft_facts, version_key
from lora_lint.models.resolve import Unresolved
from lora_lint.rulebook import rules, superseded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.checks import Check, RecipeSubject
    from lora_lint.checks.lines import Line
    from lora_lint.diagnostics import Finding, Severity
    from lora_lint.rulebook import Rule

Found = tuple["Rule", "Finding"]
Selected = list[tuple["Check", "Rule"]]


class Judgement(NamedTuple):
    """A recipe's findings, and the rules that could not be decided, by reason."""

    found: tuple[Found, ...]
    skipped: dict[str, list[str]]


def judge(subject: RecipeSubject, selected: Selected) -> Judgement:
    """Run the rules.

    A finding that does not hold on every line is a warning at most, and says where it holds.
    """
    found, skipped = _on_one_line(subject, selected)
    others = [other for other in subject.siblings if _is_possible(subject, other)]
    if others:
        found = list(_over_lines(subject, found, others, selected))
    if not subject.dialect.certain:
        found = [(rule, _milder(rule, finding)) for rule, finding in found]
    if subject.line.assumed is not None:
        found = [(rule, _assumed(rule, finding, subject)) for rule, finding in found]
    return Judgement(tuple(found), skipped)


def settle(rule: Severity, finding: Severity | None) -> Severity:
    """A finding may be milder than its rule, never harsher."""
    if finding is None:
        return rule
    return max(rule, finding, key=SEVERITIES.index)


def _milder(rule: Rule, finding: Finding) -> Finding:
    """A finding about keys whose meaning is only likely: one step milder."""
    severity = settle(rule.severity, finding.severity)
    return finding._replace(severity="warning" if severity == "error" else "info")


def rests_on_model(rule: Rule) -> bool:
    """Whether a rule's findings depend on the base model's modules."""
    return bool({"model", "injection", "gpu"} & set(rule.needs))


# One line ----------------------------------------------------------------------------------------


def _on_one_line(
    subject: RecipeSubject, selected: Selected
) -> tuple[list[Found], dict[str, list[str]]]:
    found: list[Found] = []
    skipped: dict[str, list[str]] = {}
    for check, rule in selected:
        if check.scope != "recipe":
            continue
        reason = _unmet(subject, rule)
        if reason is not None:
            if reason:
                skipped.setdefault(reason, []).append(rule.code)
            continue
        found += [(rule, finding) for finding in check.run(subject)]
    if any(rule.fallback for rule, _ in found) and _has_other_error(subject, selected):
        found = [(rule, finding) for rule, finding in found if not rule.fallback]
    return list(_without_superseded(found)), skipped


def _unmet(subject: RecipeSubject, rule: Rule) -> str | None:
    return next((r for need in rule.needs if (r := subject.unmet(need)) is not None), None)


def _has_other_error(subject: RecipeSubject, selected: Selected) -> bool:
    """Whether a rule that the user has switched off knows the cause of an exception."""
    codes = {rule.code for _, rule in selected}
    return any(
        settle(rule.severity, finding.severity) == "error"
        for code, rule in rules().items()
        if code not in codes and CHECKS[code].scope == "recipe" and not rule.fallback
        if _unmet(subject, rule) is None
        for finding in CHECKS[code].run(subject)
    )


def _without_superseded(found: list[Found]) -> Iterator[Found]:
    """One cause, one finding: drop what another finding at the same field already explains."""
    errors = {rule.code for rule, f in found if settle(rule.severity, f.severity) == "error"}
    for rule, finding in found:
        if rule.fallback and errors - {rule.code}:
            continue
        if not any(
            rule.code in superseded(other.code) and _same_place(finding, stronger)
            for other, stronger in found
        ):
            yield rule, finding


def _same_place(finding: Finding, stronger: Finding) -> bool:
    if finding.field != stronger.field or finding.key != stronger.key:
        return False
    if finding.whole or finding.item is None or stronger.item is None or stronger.whole:
        return True
    return finding.item == stronger.item


# Several lines -----------------------------------------------------------------------------------


def _is_possible(subject: RecipeSubject, other: RecipeSubject) -> bool:
    """Whether a line counts: a model that an older transformers does not have rules that one
    out, a model whose names it had otherwise does not. Where nothing says which PEFT it is, a
    field that an older one does not know rules that out.
    """
    assumed = subject.context.environment.peft is None
    if assumed and not knows_words(subject, other.line.peft):
        return False
    known = not isinstance(subject.resolution, Unresolved)
    return not (known and isinstance(other.resolution, Unresolved)) or subject.names_changed


def _over_lines(
    subject: RecipeSubject, found: list[Found], others: Sequence[RecipeSubject], selected: Selected
) -> Iterator[Found]:
    """The findings of all lines; those that do not hold on all say so."""
    elsewhere = [(other, _on_one_line(other, selected)[0]) for other in others]
    here = {_key(rule, finding) for rule, finding in found}
    for rule, finding in found:
        same = [_same(rule, finding, theirs) for _, theirs in elsewhere]
        if None in same and rule.needs:
            yield rule, _partly(rule, finding, subject, others)
        else:
            milder = [settle(rule.severity, other.severity) for other in same if other]
            severity = max([settle(rule.severity, finding.severity), *milder], key=SEVERITIES.index)
            yield rule, finding._replace(severity=severity)
    for other, theirs in elsewhere:
        for rule, finding in theirs:
            key = _key(rule, finding)
            if key not in here:
                here.add(key)
                yield rule, _partly(rule, finding, other, [subject])


def _key(rule: Rule, finding: Finding) -> tuple[object, ...]:
    return rule.code, finding.field, finding.item, finding.key, finding.path, finding.span


def _same(rule: Rule, finding: Finding, theirs: Sequence[Found]) -> Finding | None:
    key = _key(rule, finding)
    return next((f for other, f in theirs if _key(other, f) == key), None)


def _partly(
    rule: Rule, finding: Finding, subject: RecipeSubject, others: Sequence[RecipeSubject]
) -> Finding:
    """A finding of one line only: at most a warning, and its message names the line."""
    severity = settle(settle(rule.severity, finding.severity), "warning")
    where = _releases(rule, finding, subject) or _line_name(rule, finding, subject, others)
    return finding._replace(message=f"{finding.message} ({where})", severity=severity)


def _line_name(
    rule: Rule, finding: Finding, subject: RecipeSubject, others: Sequence[RecipeSubject]
) -> str:
    """What it is about a line that makes the difference, in words."""
    line = subject.line
    parts = []
    for other in others:
        by_peft = other.line._replace(transformers=line.transformers)
        by_transformers = other.line._replace(peft=line.peft)
        if not _undecided(other) and not _holds_at(by_peft, rule, finding, subject):
            parts.append(f"peft {line.peft}")
        if not _holds_at(by_transformers, rule, finding, subject):
            own, their = version_key(line.transformers)[0], version_key(other.line.transformers)[0]
            parts.append(f"transformers {line.transformers if own == their else own}")
    if not parts:
        parts = [f"peft {line.peft}", f"transformers {line.transformers}"]
    return f"with {' and '.join(dict.fromkeys(parts))}"


def _holds_at(line: Line, rule: Rule, finding: Finding, subject: RecipeSubject) -> bool:
    """Whether a rule finds the same on another line."""
    other = subject.at(line)
    if _unmet(other, rule) is not None:
        return False
    return any(_key(rule, f) == _key(rule, finding) for f in CHECKS[rule.code].run(other))


def _undecided(subject: RecipeSubject) -> bool:
    return isinstance(subject.resolution, Unresolved)


def _releases(rule: Rule, finding: Finding, subject: RecipeSubject) -> str | None:
    """The known releases of the user's range in which a finding holds: ``in peft 0.7.0 to 0.7.1``.

    None where the user's PEFT is no range.
    """
    spans: list[list[str]] = []
    before = False
    for line in between(subject.context.environment):
        holds = _holds_at(line, rule, finding, subject)
        if holds and before:
            spans[-1][1:] = [line.peft]
        elif holds:
            spans.append([line.peft])
        before = holds
    if not spans:
        return None
    newest = peft_facts()["versions"][-1]
    told = [
        f"{span[0]} on" if span[-1] == newest and len(span) > 1 else " to ".join(span)
        for span in spans
    ]
    return f"in peft {', '.join(told)}"


def _assumed(rule: Rule, finding: Finding, subject: RecipeSubject) -> Finding:
    """A finding about a PEFT that is not known, decided as for the release next to it."""
    if not rests_on_model(rule) and "versions" not in rule.needs:
        return finding
    line = subject.line
    return finding._replace(
        message=f"{finding.message} (if peft {line.assumed} does as {line.peft} does)",
        severity=settle(settle(rule.severity, finding.severity), "warning"),
    )
