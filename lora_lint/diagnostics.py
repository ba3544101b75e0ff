"""What a rule says, and what people are shown: findings, diagnostics, edits and fixes."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from lora_lint.documents.document import Document

Severity = Literal["error", "warning", "info"]
Applicability = Literal["safe", "unsafe", "display"]
KeyPath = tuple["str | int", ...]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Span(NamedTuple):
    """A stretch of a document's text: offsets in characters, ``end`` exclusive."""

    start: int
    end: int


class Edit(NamedTuple):
    """Replace the characters from ``start`` to ``end`` by ``text``."""

    start: int
    end: int
    text: str


class Set(NamedTuple):
    """A field should hold this value."""

    field: str
    value: object


class SetItem(NamedTuple):
    """One entry of a list field should hold this value."""

    field: str
    item: int
    value: object


class DropItem(NamedTuple):
    """One entry of a list field should go."""

    field: str
    item: int


class Unset(NamedTuple):
    """A field should not be written at all."""

    field: str


class RenameKey(NamedTuple):
    """A key of the document should be spelled otherwise."""

    path: KeyPath
    name: str


class Replace(NamedTuple):
    """The value at a path of the document should be another one."""

    path: KeyPath
    value: object


class Remove(NamedTuple):
    """A key of the document, with its value, should go."""

    path: KeyPath
    occurrence: int = -1


class Rewrite(NamedTuple):
    """Comments of the document should read otherwise: the edits themselves."""

    edits: tuple[Edit, ...]


Change = Rewrite | Set | SetItem | DropItem | Unset | RenameKey | Replace | Remove


class Wish(NamedTuple):
    """What should become true, in recipe words; the dialect and the document make it an edit.

    ``title`` is shown to people; several changes stand or fall together.
    """

    title: str
    changes: tuple[Change, ...]
    applicability: Applicability = "unsafe"


class Note(NamedTuple):
    """A further place that explains a finding: a field, a key path or a span, with a message.

    ``document`` is another file, in which the span then lies.
    """

    message: str
    field: str | None = None
    item: int | None = None
    path: KeyPath | None = None
    span: Span | None = None
    document: Document | None = None


class Finding(NamedTuple):
    """What a check has found, before it is known where that stands in the text.

    The place is, in this order, ``span``, ``path`` (with ``on_key``: the key, not its value) or
    ``field`` (with ``item``: one entry of its list; with ``key``: one key of its mapping). A field
    that is not written stands at the recipe itself. ``part`` is the document or cell of a
    document-scope finding. ``severity`` overrides the rule's own, only
    downwards. ``whole``: the finding is about the whole field, although it points at one entry.
    """

    message: str
    field: str | None = None
    item: int | None = None
    key: str | None = None
    path: KeyPath | None = None
    on_key: bool = False
    whole: bool = False
    span: Span | None = None
    part: int = 0
    severity: Severity | None = None
    label: str | None = None
    help: str | None = None
    notes: tuple[Note, ...] = ()
    wishes: tuple[Wish, ...] = ()


class Related(NamedTuple):
    """A second place of a diagnostic, in this file or in ``document``, which is another."""

    message: str
    path: str
    span: Span
    document: Document | None = None


class Fix(NamedTuple):
    """A verified proposal: its edits apply together or not at all.

    ``applicability``: ``safe`` keeps the meaning of the run that the writer plainly intended,
    ``unsafe`` changes what is trained, ``display`` is advice that is never applied.
    """

    title: str
    applicability: Applicability
    edits: tuple[Edit, ...] = ()


class Diagnostic(NamedTuple):
    """A finding with its rule, place, settled severity and verified fixes.

    ``document`` is the index in a YAML stream, ``cell`` the index of a notebook's cell, ``recipe``
    the index of the LoRA run in its file; each is None where it does not apply. ``key_path`` leads
    from the document's root to the place.
    """

    code: str
    name: str
    severity: Severity
    message: str
    path: str
    span: Span
    document: int | None = None
    cell: int | None = None
    recipe: int | None = None
    key_path: KeyPath = ()
    label: str | None = None
    help: str | None = None
    url: str | None = None
    related: tuple[Related, ...] = ()
    fixes: tuple[Fix, ...] = ()


class NotChecked(NamedTuple):
    """What could not be decided: the reason and the rules that therefore said nothing."""

    path: str
    recipe: int | None
    reason: str
    codes: tuple[str, ...] = field(default=())
