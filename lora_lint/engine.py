"""Files to diagnostics. Knows the order of things, and no rule by name."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint import documents, suppressions
from lora_lint.checks import CHECKS, Context, DocumentSubject, RecipeSubject
from lora_lint.diagnostics import (
    SEVERITIES,
    Diagnostic,
    DropItem,
    Fix,
    NotChecked,
    Related,
    Rewrite,
    Set,
    SetItem,
    Span,
    Unset,
)
from lora_lint.dialects import LoraKwargs, recipes
from lora_lint.documents.document import NotEditable
from lora_lint.facts import known_releases
from lora_lint.fixes import apply_edits, compatible, edits_for
from lora_lint.judge import judge, rests_on_model, settle
from lora_lint.models.resolve import Effort
from lora_lint.rulebook import matches, rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.checks import Check
    from lora_lint.diagnostics import Change, Edit, Finding, KeyPath, Wish
    from lora_lint.dialects import Dialect
    from lora_lint.documents.document import Document
    from lora_lint.recipe import Recipe
    from lora_lint.revisions import Revision
    from lora_lint.rulebook import Rule
    from lora_lint.settings import Settings

# Fixes are applied in rounds, since one may make another possible; more rounds would be a circle.
MAX_ROUNDS = 20
# A fix is verified by reading the whole file again: how many recipes may be judged for that. A file
# of hundreds of recipes gets its further fixes when the first are applied; until then as advice.
MAX_VERIFIED = 5000


class FileResult(NamedTuple):
    """What linting one file gave.

    ``subjects`` are its recipes with all that was worked out about them; ``document`` is None for a
    file that was dismissed.
    """

    path: str
    document: Document | None = None
    subjects: tuple[RecipeSubject, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()


class Unread(NamedTuple):
    """A named path that could not be linted: missing, forbidden, too big."""

    path: str
    reason: str


class Report(NamedTuple):
    """What a run gave: the files, and the paths that could not be read."""

    files: tuple[FileResult, ...] = ()
    unread: tuple[Unread, ...] = ()
    settings: Settings | None = field(default=None, repr=False)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """All diagnostics, by file and place."""
        return tuple(d for file in self.files for d in file.diagnostics)

    @property
    def not_checked(self) -> tuple[NotChecked, ...]:
        """What could not be decided, with the reasons."""
        return tuple(n for file in self.files for n in file.not_checked)

    @property
    def recipes(self) -> tuple[RecipeSubject, ...]:
        """The LoRA runs of all files."""
        return tuple(subject for file in self.files for subject in file.subjects)


class Linter:
    """Lints files under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._verifications = 0
        self._looked_around = False
        self.context = Context(
            environment=settings.environment,
            model=settings.model,
            aliases=settings.models,
            rules=settings.rules,
            since=_revision(settings.since),
            trace=settings.trace,
            around=not settings.isolated,
            effort=Effort(settings.online, "missing" if settings.live else "no"),
        )

    def lint(self, path: str, text: str) -> FileResult:
        """Lint a file's text."""
        return self.result(documents.parse(path, text))

    def result(self, document: Document) -> FileResult:
        """Lint a document."""
        first = self._pass(document)
        self._verifications = max(1, MAX_VERIFIED // max(1, len(first.subjects)))
        diagnostics = tuple(
            located.diagnostic._replace(fixes=tuple(self._fixes(document, first, located)))
            for located in first.located
        )
        return FileResult(document.path, document, first.subjects, diagnostics, first.not_checked)

    def fix(self, path: str, text: str, *, unsafe: bool) -> tuple[str, int]:
        """A text with its fixes applied until nothing changes, and how many were applied."""
        allowed = ("safe", "unsafe") if unsafe else ("safe",)
        applied = 0
        for _ in range(MAX_ROUNDS):
            fixes = [
                next(fix for fix in diagnostic.fixes if fix.applicability in allowed)
                for diagnostic in self.lint(path, text).diagnostics
                if any(fix.applicability in allowed for fix in diagnostic.fixes)
            ]
            chosen = compatible(fixes)
            if not chosen:
                break
            text = apply_edits(text, (edit for fix in chosen for edit in fix.edits))
            applied += len(chosen)
        return text, applied

    def _pass(self, document: Document, *, memory: bool = True) -> _Pass:
        """One look at a document: everything but the fixes; without the rules on ``memory`` where
        nothing asks for them.
        """
        selected = self._selected(document.path)
        if not memory:
            selected = [(check, rule) for check, rule in selected if "memory" not in rule.needs]
        runs = recipes(document) if document.problem is None else []
        context = self._context(document.path) if runs else self.context
        subjects = tuple(RecipeSubject(document, run, context) for run in runs)
        located: list[_Located] = []
        not_checked: list[NotChecked] = []
        whole = DocumentSubject(document, runs, self.context)
        for check, rule in selected:
            if check.scope == "document":
                located += (self._locate(document, rule, f) for f in check.run(whole))
        for index, subject in enumerate(subjects):
            found, skipped = judge(subject, selected)
            not_checked += [
                NotChecked(document.path, index, reason, tuple(codes))
                for reason, codes in skipped.items()
            ]
            if (reason := subject.not_static()) is not None:
                not_checked.append(NotChecked(document.path, index, reason, ()))
            located += (self._locate(document, rule, f, subject, index) for rule, f in found)
        kept = self._unsilenced(document, list(_once(located)), selected)
        return _Pass(
            document, subjects, tuple(sorted(kept, key=_reading_order)), tuple(not_checked)
        )

    def _unsilenced(
        self, document: Document, located: list[_Located], selected: list[tuple[Check, Rule]]
    ) -> Iterator[_Located]:
        """What no comment silences, and what there is to say about the comments."""
        comments = suppressions.find(document)
        for entry in located:
            if not suppressions.silenced(document, entry.diagnostic, comments):
                yield entry
        codes = frozenset(rule.code for _, rule in selected)
        subject = suppressions.SuppressionSubject(document, comments, codes)
        for check, rule in selected:
            if check.scope == "suppressions":
                yield from (self._locate(document, rule, f) for f in check.run(subject))

    def _context(self, path: str) -> Context:
        """What holds for a file: the versions come from the files around it, unless given."""
        given = self.context.environment
        if self.settings.isolated:
            return self.context
        from lora_lint.environment import find_environment, forget

        if not self._looked_around:
            forget()  # what an earlier linter read may have changed
            self._looked_around = True
        if given.peft and given.transformers:
            return self.context
        peft, transformers = find_environment(Path(path).parent, known_releases())
        environment = given._replace(
            peft=given.peft or peft, transformers=given.transformers or transformers
        )
        return self.context._replace(environment=environment)

    # Rules ---------------------------------------------------------------------------------------

    def _selected(self, path: str) -> list[tuple[Check, Rule]]:
        """The rules that are on for a file."""
        ignored = list(self.settings.ignore)
        for pattern, codes in self.settings.per_file_ignores.items():
            if _path_matches(path, pattern):
                ignored += codes
        return [
            (CHECKS[code], rule)
            for code, rule in rules().items()
            if any(matches(s, rule) for s in self.settings.select)
            and not any(matches(s, rule) for s in ignored)
        ]

    # Diagnostics ---------------------------------------------------------------------------------

    def _locate(
        self,
        document: Document,
        rule: Rule,
        finding: Finding,
        subject: RecipeSubject | None = None,
        index: int | None = None,
    ) -> _Located:
        """A finding with its place in the text."""
        recipe = subject.recipe if subject else None
        place = Place(document, recipe)
        part = recipe.part if recipe else finding.part
        path, span = place.of(finding)
        there, path = document.where(part, path)
        numbered = document.parts[there].index if there < len(document.parts) else None
        severity, advice = settle(rule.severity, finding.severity), finding.help
        if subject is not None and severity == "error":
            unsure = subject.unsure(finding.field, model=rests_on_model(rule))
            if unsure is not None:
                severity = "warning"
                advice = "; ".join(filter(None, (advice, f"if the run uses {unsure.detail}")))
        diagnostic = Diagnostic(
            code=rule.code,
            name=rule.name,
            severity=severity,
            message=finding.message,
            path=document.path,
            span=span,
            document=numbered if document.document_parts else None,
            cell=numbered if document.cell_parts else None,
            recipe=index,
            key_path=path,
            label=finding.label,
            help=advice,
            related=tuple(
                Related(
                    note.message,
                    (note.document or document).path,
                    place.of_note(note, part),
                    note.document,
                )
                for note in finding.notes
            ),
        )
        return _Located(diagnostic, finding, subject, part)

    def _fixes(self, document: Document, before: _Pass, located: _Located) -> Iterator[Fix]:
        """The finding's wishes as fixes: verified, or as advice where they can't be."""
        subject = located.subject
        recipe = subject.recipe if subject else None
        dialect = subject.dialect if subject else None
        for wish in located.finding.wishes:
            try:
                edits = edits_for(document, wish, recipe, dialect, located.part)
            except NotEditable as exc:
                yield Fix(f"{wish.title} (by hand: {exc})", "display")
                continue
            verified = wish.applicability != "display" and self._verifications > 0
            self._verifications -= verified
            if verified and self._holds(before, located, wish, edits):
                yield Fix(wish.title, wish.applicability, edits)
            else:
                yield Fix(wish.title, "display")

    def _holds(self, before: _Pass, located: _Located, wish: Wish, edits: tuple[Edit, ...]) -> bool:
        """Whether the edits do what was wished, and nothing else.

        Read again, only the intended fields have changed, the rule speaks less, no error is new,
        and PEFT accepts the config unless it did not before.
        """
        document = before.document
        try:
            text = apply_edits(document.text, edits)
        except ValueError:
            return False
        # What a fix of another rule needs on the GPU is no reason against it.
        about_memory = "memory" in rules()[located.diagnostic.code].needs
        after = self._pass(documents.parse(document.path, text), memory=about_memory)
        if after.document.problem is not None or len(after.subjects) != len(before.subjects):
            return False
        code = located.diagnostic.code
        if after.count(code) >= before.count(code) or after.errors() - before.errors():
            return False
        spelling = located.subject.dialect if located.subject else None
        wished = {name for change in wish.changes for name in _touched(change, spelling)}
        for old, new in zip(before.subjects, after.subjects, strict=True):
            changed = _changed_fields(old.recipe, new.recipe)
            if changed and located.subject not in (None, old):
                return False
            if located.subject is old and changed - wished - _FOLLOWERS:
                return False
            both = zip((old, *old.siblings), (new, *new.siblings), strict=True)
            if any(_accepts(this) and not _accepts(that) for this, that in both):
                return False
        return True


def _revision(name: str | None) -> Revision | None:
    if name is None:
        return None
    from lora_lint.revisions import Revision

    return Revision(name)


class _Located(NamedTuple):
    """A diagnostic without fixes, and what it was made of."""

    diagnostic: Diagnostic
    finding: Finding
    subject: RecipeSubject | None
    part: int


class _Pass(NamedTuple):
    """What one look at a document gave."""

    document: Document
    subjects: tuple[RecipeSubject, ...]
    located: tuple[_Located, ...]
    not_checked: tuple[NotChecked, ...]

    def count(self, code: str) -> int:
        """How often a rule speaks."""
        return sum(located.diagnostic.code == code for located in self.located)

    def errors(self) -> set[tuple[str, int | None, KeyPath]]:
        """The errors, by rule and place."""
        diagnostics = (located.diagnostic for located in self.located)
        return {(d.code, d.recipe, d.key_path) for d in diagnostics if d.severity == "error"}


def _reading_order(located: _Located) -> tuple[int, int, str]:
    diagnostic = located.diagnostic
    return diagnostic.span.start, SEVERITIES.index(diagnostic.severity), diagnostic.code


def _once(located: list[_Located]) -> Iterator[_Located]:
    """A value that several recipes share is spoken of once."""
    seen = set()
    for entry in located:
        found = entry.diagnostic
        key = (found.code, found.span, found.message)
        if key not in seen:
            seen.add(key)
            yield entry


# Fields that a dialect works out from others, and that may follow a change of those.
_FOLLOWERS = frozenset({"lora_alpha", "task_type", "quantization", "double_quant", "dtype"})


def _changed_fields(old: Recipe, new: Recipe) -> set[str]:
    names = {*old.fields, *new.fields}
    return {name for name in names if repr(old.value(name)) != repr(new.value(name))}


def _touched(change: Change, dialect: Dialect | None) -> set[str]:
    """The fields that a change is about."""
    if isinstance(change, Rewrite):
        return set()
    if isinstance(change, Set | SetItem | DropItem | Unset):
        own = dialect.edits.get(change.field) if dialect is not None else None
        return {change.field} | (own.fields if own is not None else set())
    keys = {change.path[-1], getattr(change, "name", None)}
    slots = dialect.slots.values() if dialect is not None else ()
    return {slot.field for slot in slots if slot.path[-1] in keys}


def _accepts(subject: RecipeSubject) -> bool:
    """Whether PEFT takes the config, as far as that is known."""
    return isinstance(subject.lowered, LoraKwargs) and subject.injection.error is None


class Place:
    """Turns a finding's place - a field, a key path, a span - into a key path and a span."""

    def __init__(self, document: Document, recipe: Recipe | None) -> None:
        self.document = document
        self.recipe = recipe

    def of(self, finding: Finding) -> tuple[KeyPath, Span]:
        """The key path and span of a finding."""
        if finding.span is not None:
            return finding.path or (), finding.span
        if finding.path is not None:
            return finding.path, self._path_span(finding.path, finding)
        assert self.recipe is not None  # noqa: S101 - only recipes have fields
        if finding.field is None:
            return self.recipe.path, self.anchor()
        return self._field(finding.field, finding.item, finding.key)

    def of_note(self, note: Any, part: int) -> Span:
        """The span of a note."""
        if note.span is not None:
            return Span(*note.span)
        if note.path is not None:
            entry = self.document.entry(part, note.path)
            return entry.key_span if entry else Span(0, 0)
        return self._field(note.field, note.item, None)[1]

    def _path_span(self, path: KeyPath, finding: Finding) -> Span:
        part = self.recipe.part if self.recipe else finding.part
        entry = self.document.entry(part, path)
        node = self.document.node(part, path)
        if entry is not None and (finding.on_key or node is None):
            return entry.key_span
        return _first_line(self.document, node.span) if node else Span(0, 0)

    def _field(self, name: str, item: int | None, key: str | None) -> tuple[KeyPath, Span]:
        assert self.recipe is not None  # noqa: S101
        path = self.recipe[name].path
        node = self.document.node(self.recipe.part, path) if path is not None else None
        if path is None or node is None:
            return self.recipe.path, self.anchor()
        if key is not None and node.kind == "mapping" and (entry := node.entry(key)):
            return (*path, key), entry.key_span
        if item is not None and node.kind == "sequence" and item < len(node.items):
            return (*path, item), node.items[item].span
        if item is not None and (spans := self._packed(name, node)) and item < len(spans):
            return (*path, item), spans[item]
        if node.span.start == node.span.end and (entry := self._entry(path)):
            return path, entry.key_span
        return path, _first_line(self.document, node.span)

    def _entry(self, path: KeyPath) -> Any:
        assert self.recipe is not None  # noqa: S101
        return self.document.entry(self.recipe.part, path)

    def _packed(self, name: str, node: Any) -> list[Span]:
        from lora_lint.dialects import dialect

        assert self.recipe is not None  # noqa: S101
        slot = dialect(self.recipe.dialect).slots.get(name)
        if slot is None or slot.codec.entries is None or node.kind != "scalar":
            return []
        return list(slot.codec.entries(node, self.document.text))

    def anchor(self) -> Span:
        """Where a recipe begins: its section's key, its call, or the first LoRA key it has."""
        assert self.recipe is not None  # noqa: S101
        entry = self._entry(self.recipe.path) if self.recipe.path else None
        if entry is not None:
            return Span(*entry.key_span)
        paths = [field.path for field in self.recipe.fields.values() if field.path is not None]
        spans = [entry.key_span for path in paths if (entry := self._entry(path)) is not None]
        return Span(*min(spans)) if spans else Span(0, 0)


def _first_line(document: Document, span: Span) -> Span:
    """A span cut at the end of its first line, so that a long block is not underlined whole."""
    for at in range(span.start, span.end):
        if document.text[at] in "\r\n":
            return Span(span.start, at)
    return span


def _path_matches(path: str, pattern: str) -> bool:
    from fnmatch import fnmatch

    name = Path(path)
    return fnmatch(name.as_posix(), pattern) or fnmatch(name.name, pattern)


# Reading files -----------------------------------------------------------------------------------


def read(path: str) -> tuple[bytes | None, str | None]:
    """A file's bytes, or why they can't be had."""
    target = Path(path)
    try:
        if target.is_symlink() and not target.exists():
            return None, f"it is a link to {target.readlink()}, which does not exist"
        if not target.exists():
            return None, "no such file"
        if not target.is_file():
            return None, "it is not a regular file"
        size = target.stat().st_size
        if size > documents.MAX_BYTES:
            limit = documents.MAX_BYTES // 2**20
            return None, f"it has {size / 2**20:.0f} MiB; files up to {limit} MiB are read"
        return target.read_bytes(), None
    except PermissionError:
        return None, "permission denied"
    except OSError as exc:
        return None, exc.strerror or str(exc)


def find_files(folder: str) -> Iterator[str]:
    """The files of a folder that may hold a config, in order, without hidden and vendored
    folders.
    """
    for entry in sorted(Path(folder).iterdir(), key=lambda p: p.name):
        if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from find_files(str(entry))
        elif entry.suffix.lower() in documents.SUFFIXES and entry.is_file():
            yield str(entry)


_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "build"})


def lint_bytes(linter: Linter, path: str, data: bytes, *, named: bool) -> FileResult:
    """Lint a file's bytes; one that was only found and is not about LoRA is dismissed."""
    if not named and not documents.speaks_of_lora(data):
        return FileResult(path)
    try:
        text, _ = documents.decode(data)
    except documents.NotText as exc:
        return unreadable(linter, path, str(exc)) if named else FileResult(path)
    document = documents.parse(path, text)
    if not named and document.problem is not None and not documents.sets_lora_keys(text):
        return FileResult(path)
    return linter.result(document)


def unreadable(linter: Linter, path: str, reason: str) -> FileResult:
    """The result for a file whose bytes are no text."""
    from lora_lint.documents.document import Document, Problem

    document = Document(path, "")
    document.problem = Problem(reason, Span(0, 0))
    return linter.result(document)


def listed(paths: Iterable[str]) -> dict[str, bool]:
    """The files that paths stand for, in order, and whether each was named itself."""
    files: dict[str, bool] = {}
    for path in paths:
        if Path(path).is_dir():
            for name in find_files(path):
                files.setdefault(name, False)
        else:
            files[path] = True
    return files


def lint_listed(
    linter: Linter, path: str, *, named: bool, hook: bool = False
) -> FileResult | Unread | None:
    """Lint a file of a list; None for one that was only found and can't be read.

    With ``hook`` named files count as found ones: a pre-commit hook passes every file of a type.
    """
    data, reason = read(path)
    if data is None:
        return Unread(path, reason or "unreadable") if named else None
    return lint_bytes(linter, path, data, named=named and not hook)
