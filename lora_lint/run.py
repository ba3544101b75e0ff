"""One run of ``lora-lint lint``: lint, fix, render, judge. What the command line calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint import documents, engine, fixes
from lora_lint.diagnostics import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.engine import FileResult, Linter, Report
    from lora_lint.reports.text import Style
    from lora_lint.settings import Options, Settings


class Outcome(NamedTuple):
    """A run: the report after fixes, how many fixes were applied, and the diff that --diff
    shows.
    """

    report: Report
    fixed: int = 0
    diff: str = ""


def files(paths: Sequence[str]) -> Iterator[str]:
    """The files that would be linted."""
    for path in dict.fromkeys(paths):
        yield from engine.find_files(path) if Path(path).is_dir() else (path,)


def lint(
    paths: Sequence[str], options: Options, settings: Settings, stdin_filename: str | None
) -> Outcome:
    """Lint paths, and fix them if asked to."""
    linter = engine.Linter(settings)
    if tuple(paths) == ("-",):
        return _lint_stdin(linter, options, stdin_filename or "<stdin>")
    report = engine.lint_paths(linter, paths, hook=options.hook)
    if not (options.fix or options.diff):
        return Outcome(report)
    results, changes, unwritten, count = [], [], [], 0
    for result in report.files:
        try:
            after, applied, change = _fix_file(linter, result, options)
        except OSError as exc:
            reason = f"the fixes can't be written: {exc.strerror or exc}"
            unwritten.append(engine.Unread(result.path, reason))
            after, applied, change = result, 0, ""
        results.append(after)
        changes.append(change)
        count += applied
    unread = (*report.unread, *unwritten)
    return Outcome(engine.Report(tuple(results), unread, settings), count, "".join(changes))


def _fix_file(linter: Linter, result: FileResult, options: Options) -> tuple[FileResult, int, str]:
    """A file's result after its fixes, how many were applied, and the diff if only shown."""
    document = result.document
    if document is None or not any(d.fixes for d in result.diagnostics):
        return result, 0, ""
    text, applied = linter.fix(result.path, document.text, unsafe=options.unsafe_fixes)
    if text == document.text:
        return result, 0, ""
    if options.diff:
        return result, 0, fixes.diff(result.path, document.text, text)
    _, encoding = documents.decode(Path(result.path).read_bytes())
    fixes.write(result.path, text, encoding)
    return linter.lint(result.path, text), applied, ""


def _lint_stdin(linter: Linter, options: Options, name: str) -> Outcome:
    """Lint standard input; with --fix the fixed text goes to standard output."""
    data = sys.stdin.buffer.read(documents.MAX_BYTES + 1)
    result = engine.lint_bytes(linter, name, data, named=not options.hook)
    if options.fix and result.document is not None and result.document.problem is None:
        text, applied = linter.fix(name, result.document.text, unsafe=options.unsafe_fixes)
        _, encoding = documents.decode(data)
        sys.stdout.buffer.write(text.encode(encoding))
        sys.stdout.flush()
        return Outcome(engine.Report((linter.lint(name, text),), (), linter.settings), applied)
    if options.diff and result.document is not None:
        text, _ = linter.fix(name, result.document.text, unsafe=options.unsafe_fixes)
        change = fixes.diff(name, result.document.text, text)
        return Outcome(engine.Report((result,), (), linter.settings), 0, change)
    return Outcome(engine.Report((result,), (), linter.settings))


def format_for_surroundings() -> str:
    """The output format where none is asked for: annotations in GitHub Actions, else text."""
    return "github" if os.environ.get("GITHUB_ACTIONS") == "true" else "text"


def render(
    outcome: Outcome,
    output_format: str,
    style: Style,
    *,
    infos: bool,
    quiet: bool,
    statistics: bool,
) -> str:
    """The text to print."""
    if outcome.diff:
        return outcome.diff.rstrip("\n")
    if statistics:
        return "\n".join(_statistics(outcome.report))
    if output_format == "json":
        from lora_lint.reports import json

        return json.render(outcome.report)
    if output_format == "github":
        from lora_lint.reports import github

        return "\n".join(github.render(outcome.report))
    if output_format == "concise":
        from lora_lint.reports import concise

        return "\n".join(concise.render(outcome.report, style, infos=infos))
    from lora_lint.reports import text

    lines = list(text.render(outcome.report, style, infos=infos, quiet=quiet))
    if outcome.fixed:
        from lora_lint.reports.summary import plural

        lines.append(f"{outcome.fixed} {plural('fix', outcome.fixed, 'es')} applied")
    return "\n".join(lines)


def _statistics(report: Report) -> Iterator[str]:
    counts: dict[tuple[str, str], int] = {}
    for diagnostic in report.diagnostics:
        key = (diagnostic.code, diagnostic.name)
        counts[key] = counts.get(key, 0) + 1
    longest = max(counts.values(), default=1)
    for (code, name), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        bar = "█" * max(1, round(30 * count / longest))
        yield f"{count:>6}  {code}  {name:<34} {bar}"


def settings_text(settings: Settings) -> str:
    """The settings of a run, one a line."""
    rows: list[tuple[str, Any]] = [
        (name.replace("_", "-"), value) for name, value in settings._asdict().items()
    ]
    return "\n".join(f"{name}: {value}" for name, value in rows)


def exit_code(outcome: Outcome, options: Options) -> int:
    """The exit status, judged after fixes."""
    report = outcome.report
    if report.unread:
        return 2
    if options.exit_zero:
        return 0
    settings = report.settings
    limit = SEVERITIES.index(settings.fail_on if settings else "error")
    if any(SEVERITIES.index(d.severity) <= limit for d in report.diagnostics):
        return 1
    missing = settings is not None and any(missing_facts(report, settings.require))
    return 1 if outcome.diff or missing else 0


def missing_facts(report: Report, require: Sequence[str]) -> Iterator[str]:
    """What --require asks for and a recipe lacks, in words."""
    for subject in report.recipes:
        for need in require:
            reason = subject.unmet(need)
            if reason is not None:
                yield f"{subject.document.path}: --require {need}: {reason}"
