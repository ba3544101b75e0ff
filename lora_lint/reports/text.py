"""The report for people: the place, what will happen, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lora_lint.models.resolve import Resolution
from lora_lint.reports.digest import View, digest
from lora_lint.reports.summary import Summary, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.checks import RecipeSubject
    from lora_lint.diagnostics import Diagnostic, Fix, Related, Span
    from lora_lint.documents.document import Document
    from lora_lint.engine import FileResult, Report, Unread
    from lora_lint.injection import Injection
    from lora_lint.reports.digest import Digest

COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}


class Style(Protocol):
    """Puts colour on text, or leaves it plain."""

    def __call__(self, text: str, *, fg: str | None = None, bold: bool = False) -> str:
        """The text with its colour."""


def plain(text: str, *, fg: str | None = None, bold: bool = False) -> str:  # noqa: ARG001
    """No colour."""
    return text


def render(
    report: Report, style: Style = plain, *, infos: bool = True, quiet: bool = False
) -> Iterator[str]:
    """The report's lines. Without ``infos`` advice is only counted; ``quiet`` leaves out facts."""
    view = View(infos=infos, quiet=quiet, style=style)
    return join([digest(file, view) for file in report.files], report.unread, view)


def findings(file: FileResult, view: View) -> Iterator[str]:
    """A file's findings with the lines they stand in."""
    for diagnostic in file.diagnostics:
        if (view.infos or diagnostic.severity != "info") and file.document is not None:
            yield "\n".join(_diagnostic(diagnostic, file.document, view.style or plain))


def join(digests: Sequence[Digest], unread: Sequence[Unread], view: View) -> Iterator[str]:
    """The report's lines: findings, facts, what was not checked or not linted, the figures."""
    style = view.style or plain
    for file in digests:
        for finding in file.findings:
            yield finding
            yield ""
    if not view.quiet:
        for file in digests:
            yield from file.facts
        yield from _not_checked(digests, style)
    for path, reason in unread:
        yield f"{style(path, bold=True)}: {style('not linted', fg='red')}: {reason}"
    if not view.quiet:
        yield summary_line(digests, style, infos=view.infos)


# Diagnostics -------------------------------------------------------------------------------------


def _diagnostic(diagnostic: Diagnostic, document: Document, style: Style) -> Iterator[str]:
    line, column = document.location(diagnostic.span.start)
    colour = COLOURS[diagnostic.severity]
    cell = f":cell {diagnostic.cell + 1}" if diagnostic.cell is not None else ""
    place = style(f"{diagnostic.path}{cell}:{line}:{column}", bold=True)
    code = style(f"{diagnostic.severity}[{diagnostic.code}]", fg=colour, bold=True)
    yield f"{place} {code} {diagnostic.message}"
    gutter = " " * len(str(line))
    bar = style(f"{gutter} |", fg="cyan")
    excerpt = list(_excerpt(diagnostic, document, style, colour))
    if excerpt:
        yield bar
        yield from excerpt
        yield bar
    for related in diagnostic.related:
        yield from _elsewhere(related, style, colour)
    for fix in diagnostic.fixes:
        yield f"{gutter} = {_fix(fix, style)}"
    if diagnostic.help:
        yield f"{gutter} = {style('help', bold=True)}: {diagnostic.help}"


def _fix(fix: Fix, style: Style) -> str:
    kind = "advice" if fix.applicability == "display" else f"fix ({fix.applicability})"
    first, *more = fix.title.split("\n")
    return "\n".join([f"{style(kind, fg='green', bold=True)}: {first}", *more])


def _excerpt(
    diagnostic: Diagnostic, document: Document, style: Style, colour: str
) -> Iterator[str]:
    """The line with its carets, and the lines of related places."""
    spans = [(diagnostic.span, diagnostic.label or "")]
    spans += [(r.span, r.message) for r in diagnostic.related if r.document is None]
    return _lines(spans, document, style, colour)


def _elsewhere(related: Related, style: Style, colour: str) -> Iterator[str]:
    """A related place in another file: where it is, and its line."""
    document = related.document
    if document is None:
        return
    line, column = document.location(related.span.start)
    gutter = " " * len(str(line))
    bar = style(f"{gutter} |", fg="cyan")
    yield f"{gutter}{style('-->', fg='cyan')} {style(f'{related.path}:{line}:{column}', bold=True)}"
    yield bar
    yield from _lines([(related.span, related.message)], document, style, colour)
    yield bar


def _lines(
    spans: list[tuple[Span, str]], document: Document, style: Style, colour: str
) -> Iterator[str]:
    """The lines of places, each with its carets and label."""
    by_line: dict[int, list[tuple[int, int, str]]] = {}
    shown: dict[int, int] = {}  # a notebook's lines are shown with their numbers in the cell
    for span, label in spans:
        if not document.text:
            continue
        line, column = document.row(span.start), document.location(span.start)[1]
        shown[line] = document.location(span.start)[0]
        text = document.line_text(line)
        length = max(1, min(span.end - span.start, len(text) - column + 1))
        by_line.setdefault(line, []).append((column, length, label))
    width = len(str(max(shown.values(), default=0)))
    for line in sorted(by_line):
        text = document.line_text(line)
        yield f"{style(f'{shown[line]:>{width}} |', fg='cyan')} {_shorten(text)}"
        marks, label = _carets(by_line[line], text)
        under = style(f"{marks} {label}".rstrip(), fg=colour)
        yield f"{style(' ' * width + ' |', fg='cyan')} {under}"


def _carets(places: list[tuple[int, int, str]], text: str) -> tuple[str, str]:
    """Carets under every place of a line, and the first label."""
    marks = [" "] * (max(column + length for column, length, _ in places) - 1)
    for column, length, _ in places:
        for at in range(column - 1, column - 1 + length):
            marks[at] = "^"
    kept = "".join(
        "\t" if t == "\t" else mark for mark, t in zip(marks, text.ljust(len(marks)), strict=False)
    )
    return kept, next((label for _, _, label in places if label), "")


def _shorten(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


# Facts -------------------------------------------------------------------------------------------


def facts(file: FileResult, view: View) -> Iterator[str]:
    """One line per recipe: model, what is adapted, how many parameters, the scale."""
    style = view.style or plain
    for number, subject in enumerate(file.subjects if not view.quiet else ()):
        name = file.path if len(file.subjects) == 1 else f"{file.path}#{number}"
        parts = [
            subject.dialect.title,
            *_model(subject),
            *_versions(subject),
            *_reach(subject),
            *_scale(subject),
            *_memory(subject, style),
        ]
        yield f"{style(name, bold=True)}: " + " · ".join(parts)


def _model(subject: RecipeSubject) -> Iterator[str]:
    resolution = subject.resolution
    if isinstance(resolution, Resolution):
        yield f"{resolution.id} ({resolution.source})"
    else:
        yield subject.model_name


def _versions(subject: RecipeSubject) -> Iterator[str]:
    environment = subject.context.environment
    by_source: dict[str, list[str]] = {}
    for name, known in (("peft", environment.peft), ("transformers", environment.transformers)):
        if known is not None:
            by_source.setdefault(known.source, []).append(f"{name} {known.version}")
    for source, packages in by_source.items():
        yield f"{', '.join(packages)} ({source})"


def _reach(subject: RecipeSubject) -> Iterator[str]:
    injection: Injection = subject.injection
    if not subject.recipe.adapter:
        switch = subject.recipe.switch
        yield f"LoRA is off ({switch})" if switch is not None else "LoRA is off"
    elif injection.error is not None:
        yield f"PEFT raises {injection.error.type}"
    elif injection.modules and not subject.counts_known:
        leaves = dict.fromkeys(name.rpartition(".")[2] for name in injection.modules)
        yield f"adapts {', '.join(leaves)} (how many is not known)"
    elif injection.modules or injection.parameters:
        count = len(injection.modules)
        yield f"{count} {plural('module', count)} adapted"
        if injection.parameters:
            number = len(injection.parameters)
            yield f"{number} {plural('parameter', number)} adapted"
    if injection.trainable is not None and injection.total:
        share = 100 * injection.trainable / injection.total
        yield f"{injection.trainable:,} trainable ({share:.2g} %)"


def _scale(subject: RecipeSubject) -> Iterator[str]:
    from lora_lint.checks.scaling import scales

    for scale in list(scales(subject))[:1]:
        yield f"scale {scale.value:.4g}"


def _memory(subject: RecipeSubject, style: Style) -> Iterator[str]:
    if not isinstance(subject.value("max_length"), int) or subject.injection.error:
        return
    from lora_lint.reports import memory_text

    memory = subject.memory if subject.recipe.trains else None
    text = memory_text.summary(memory, style) if memory is not None else None
    if text is not None:
        yield text


# The end -----------------------------------------------------------------------------------------


def _not_checked(digests: Sequence[Digest], style: Style) -> Iterator[str]:
    reasons: dict[str, dict[str, None]] = {}
    for entry in (entry for file in digests for entry in file.not_checked):
        reasons.setdefault(entry.reason, {}).update(dict.fromkeys(entry.codes))
    for reason, codes in reasons.items():
        count = len(codes)
        listed = (
            ", ".join(codes) if count <= 6 else f"{', '.join(list(codes)[:5])} and {count - 5} more"
        )
        yield f"{style('not checked', bold=True)}: {f'{listed}: ' if listed else ''}{reason}"


def summary_line(digests: Sequence[Digest], style: Style = plain, *, infos: bool = True) -> str:
    """What was found, in one line."""
    summary = Summary.total(file.summary for file in digests)
    if not summary.recipes and not summary.findings:
        files = plural("file", summary.files)
        return f"no LoRA configuration found in {summary.files} {files}"
    counts = (
        ("error", summary.errors),
        ("warning", summary.warnings),
        ("info", summary.infos),
    )
    said = [
        style(f"{count} {plural(name, count)}", fg=COLOURS[name], bold=True)
        for name, count in counts
        if count
    ]
    if not said:
        recipes = plural("recipe", summary.recipes)
        return style(f"no problem found in {summary.recipes} {recipes}", fg="green")
    line = ", ".join(said)
    if summary.fixable or summary.unsafely_fixable:
        fixable = [f"{summary.fixable} with --fix"] if summary.fixable else []
        if summary.unsafely_fixable:
            fixable.append(f"{summary.unsafely_fixable} with --fix --unsafe-fixes")
        line += f" (fixable: {', '.join(fixable)})"
    if summary.infos and not infos:
        line += "; the infos are shown when one file is named"
    return line
