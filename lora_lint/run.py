"""One run of ``lora-lint lint``: lint, fix, report, judge. What the command line calls."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint import documents, engine, fixes
from lora_lint.diagnostics import SEVERITIES
from lora_lint.engine import Unread
from lora_lint.reports.digest import Digest, View, digest, join
from lora_lint.reports.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lora_lint.engine import FileResult, Linter, Report
    from lora_lint.settings import Options, Settings


class Outcome(NamedTuple):
    """A run, after fixes: what there is to say of each file, the paths that could not be linted,
    how many fixes were applied, and the diff that --diff shows; ``view`` is how it is reported.
    """

    view: View
    digests: tuple[Digest, ...]
    unread: tuple[Unread, ...] = ()
    fixed: int = 0
    diff: str = ""

    @property
    def missing(self) -> list[str]:
        """What --require asks for and a recipe lacks, in words."""
        return [line for file in self.digests for line in file.missing]


class Interrupted(Exception):  # noqa: N818 - the user's wish
    """The user has stopped the run; the message says what was done until then."""


def files(paths: Sequence[str]) -> list[str]:
    """The files that would be linted."""
    return list(engine.listed(paths))


def report(path: str, settings: Settings) -> Report:
    """The report on a file or folder with all that was worked out; nothing is fixed."""
    linter = engine.Linter(settings)
    results = [
        engine.lint_listed(linter, name, named=named)
        for name, named in engine.listed((path,)).items()
    ]
    return engine.Report(
        tuple(result for result in results if isinstance(result, engine.FileResult)),
        tuple(result for result in results if isinstance(result, Unread)),
        settings,
    )


def lint(
    paths: Sequence[str],
    options: Options,
    settings: Settings,
    view: View,
    stdin_filename: str | None = None,
) -> Outcome:
    """Lint paths, and fix them if asked to. Nothing is written before all files are linted, so that
    an interrupted run has changed nothing and no file is judged beside others that were changed.

    Raises ``Interrupted``, and ``SettingsError`` if there is no such revision as --since names.
    """
    if settings.since is not None:
        _check_revision(settings.since, [stdin_filename or "-"] if "-" in paths else paths)
    if tuple(paths) == ("-",):
        return _lint_stdin(options, settings, view, stdin_filename or "<stdin>")
    from lora_lint import parallel, progress

    listed = engine.listed(paths)
    view = view._replace(infos=view.infos or len(listed) == 1)
    job = _Job(options, settings, view)
    results = parallel.ordered(list(listed.items()), partial(_prepare, job), options.jobs)
    digests: list[Digest] = []
    unread, unwritten, diffs = [], [], []
    pending: list[tuple[int, _Fixed]] = []
    applied = 0
    try:
        for result in progress.shown(results, len(listed)):
            if isinstance(result, Unread):
                unread.append(result)
            elif result is not None:
                if result.fixed is not None:
                    pending.append((len(digests), result.fixed))
                digests.append(result.digest)
                diffs.append(result.diff)
        for index, fixed in pending:
            reason = _write(fixed)
            if reason is None:
                digests[index] = fixed.digest
                applied += fixed.applied
            else:
                unwritten.append(Unread(fixed.digest.path, f"the fixes can't be written: {reason}"))
    except KeyboardInterrupt:
        done = f"{applied or 'no'} fixes were applied"
        raise Interrupted(f"interrupted; {done}" if options.fix else "interrupted") from None
    return Outcome(view, tuple(digests), (*unread, *unwritten), applied, "".join(diffs))


def _check_revision(name: str, paths: Sequence[str]) -> None:
    from lora_lint.revisions import NotComparable, Revision
    from lora_lint.settings import SettingsError

    revision = Revision(name)
    given = [Path(path).resolve() for path in paths]
    folders = (path if path.is_dir() else path.parent for path in given)
    try:
        for folder in dict.fromkeys(folder for folder in folders if folder.is_dir()):
            revision.commit(folder)
    except NotComparable as exc:
        raise SettingsError(f"--since {name}: {exc}") from None


# One file, in whichever process ------------------------------------------------------------------


class _Job(NamedTuple):
    """What holds for all files of a run."""

    options: Options
    settings: Settings
    view: View


class _Fixed(NamedTuple):
    """A file's new text, and what there is to say of it. ``before`` are the bytes it replaces."""

    digest: Digest
    applied: int
    before: bytes
    text: str
    encoding: str


class _Linted(NamedTuple):
    """A file as it stands: what there is to say of it, and the diff or new text of its fixes."""

    digest: Digest
    diff: str = ""
    fixed: _Fixed | None = None


def _prepare(job: _Job) -> Callable[[tuple[str, bool]], _Linted | Unread | None]:
    """The work on one file of a list."""
    return partial(_lint_listed, engine.Linter(job.settings), job)


def _lint_listed(linter: Linter, job: _Job, listed: tuple[str, bool]) -> _Linted | Unread | None:
    path, named = listed
    result = engine.lint_listed(linter, path, named=named, hook=job.options.hook)
    if not isinstance(result, engine.FileResult):
        return result
    linted = _Linted(_digest(result, job.settings, job.view))
    text, applied = _fixed_text(linter, result, job.options)
    if result.document is None or text == result.document.text:
        return linted
    if job.options.diff:
        return linted._replace(diff=fixes.diff(path, result.document.text, text))
    before = engine.read(path)[0] or b""
    _, encoding = documents.decode(before)
    after = _digest(linter.lint(path, text), job.settings, job.view)
    return linted._replace(fixed=_Fixed(after, applied, before, text, encoding))


def _digest(result: FileResult, settings: Settings, view: View) -> Digest:
    missing = (
        f"{result.path}: --require {need}: {reason}"
        for subject in result.subjects
        for need in settings.require
        if (reason := subject.unmet(need)) is not None
    )
    return digest(result, view)._replace(missing=tuple(missing))


def _fixed_text(linter: Linter, result: FileResult, options: Options) -> tuple[str, int]:
    """A file's text after its fixes, if any are asked for, and how many were applied."""
    if result.document is None:
        return "", 0
    if not (options.fix or options.diff) or not any(d.fixes for d in result.diagnostics):
        return result.document.text, 0
    return linter.fix(result.path, result.document.text, unsafe=options.unsafe_fixes)


def _write(fixed: _Fixed) -> str | None:
    """Write a file's new text, or say why that can't be done."""
    path = fixed.digest.path
    try:
        now = Path(path).read_bytes()
        if now not in (fixed.before, fixed.text.encode(fixed.encoding)):  # a link to it, perhaps
            return "the file was changed meanwhile"
        fixes.write(path, fixed.text, fixed.encoding)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _lint_stdin(options: Options, settings: Settings, view: View, name: str) -> Outcome:
    """Lint standard input; with --fix the fixed text goes to standard output."""
    linter, view = engine.Linter(settings), view._replace(infos=True)
    data = sys.stdin.buffer.read(documents.MAX_BYTES + 1)
    result = engine.lint_bytes(linter, name, data, named=not options.hook)
    text, applied = _fixed_text(linter, result, options)
    if options.fix and result.document is not None and result.document.problem is None:
        _, encoding = documents.decode(data)
        sys.stdout.buffer.write(text.encode(encoding))
        sys.stdout.flush()
        return Outcome(view, (_digest(linter.lint(name, text), settings, view),), (), applied)
    change = ""
    if options.diff and result.document is not None:
        change = fixes.diff(name, result.document.text, text)
    return Outcome(view, (_digest(result, settings, view),), (), 0, change)


# The report --------------------------------------------------------------------------------------


def format_for_surroundings() -> str:
    """The output format where none is asked for: annotations in GitHub Actions, else text."""
    return "github" if os.environ.get("GITHUB_ACTIONS") == "true" else "text"


def render(outcome: Outcome, *, statistics: bool) -> str:
    """The text to print."""
    view = outcome.view
    if outcome.diff:
        return outcome.diff.rstrip("\n")
    if statistics:
        return "\n".join(_statistics(outcome.digests))
    lines = list(join(outcome.digests, outcome.unread, view))
    if outcome.fixed and view.output_format == "text":
        from lora_lint.reports.summary import plural

        lines.append(f"{outcome.fixed} {plural('fix', outcome.fixed, 'es')} applied")
    return "\n".join(lines)


def _statistics(digests: Sequence[Digest]) -> Iterator[str]:
    counts: dict[tuple[str, str], int] = {}
    for key in (key for file in digests for key in file.codes):
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


def exit_code(outcome: Outcome, options: Options, settings: Settings) -> int:
    """The exit status, judged after fixes."""
    if outcome.unread:
        return 2
    if options.exit_zero:
        return 0
    total = Summary.total(file.summary for file in outcome.digests)
    counts = (total.errors, total.warnings, total.infos)
    limit = SEVERITIES.index(settings.fail_on)
    failed = any(counts[: limit + 1]) or bool(outcome.diff or outcome.missing)
    return 1 if failed else 0
