"""The report for machines; the format is versioned and documented in docs/json.md."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from lora_lint.reports.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lora_lint.checks import RecipeSubject
    from lora_lint.diagnostics import Diagnostic, Fix, Span
    from lora_lint.documents.document import Document
    from lora_lint.engine import FileResult, Unread
    from lora_lint.reports.digest import Digest, View

FORMAT_VERSION = 1


def findings(file: FileResult, _view: View) -> Iterator[str]:
    """A file's diagnostics, each as JSON text."""
    for diagnostic in file.diagnostics:
        if file.document is not None:
            yield dumps(_diagnostic(diagnostic, file.document))


def facts(file: FileResult, _view: View) -> Iterator[str]:
    """A file's recipes, each as JSON text."""
    yield from map(dumps, _recipes(file))


def join(digests: Sequence[Digest], _unread: Sequence[Unread], _view: View) -> Iterator[str]:
    """The report as JSON text, as ``dumps`` would write it in one piece."""
    summary = Summary.total(file.summary for file in digests)
    not_checked = (
        {"path": n.path, "recipe": n.recipe, "reason": n.reason, "codes": list(n.codes)}
        for file in digests
        for n in file.not_checked
    )
    figures = {
        name: getattr(summary, name)
        for name in ("files", "recipes", "errors", "warnings", "infos", "fixable")
    }
    parts = {
        "version": dumps(FORMAT_VERSION),
        "diagnostics": _array(text for file in digests for text in file.findings),
        "not_checked": _array(map(dumps, not_checked)),
        "recipes": _array(text for file in digests for text in file.facts),
        "summary": dumps(figures),
    }
    yield "{"
    yield ",\n".join(_indented(f'"{name}": {text}') for name, text in parts.items())
    yield "}"


def _array(items: Iterable[str]) -> str:
    """JSON texts as one array."""
    inner = ",\n".join(map(_indented, items))
    return f"[\n{inner}\n]" if inner else "[]"


def _indented(text: str) -> str:
    """JSON text, one level deeper; no string of JSON holds a line end."""
    return "  " + text.replace("\n", "\n  ")


def dumps(data: object) -> str:
    """JSON text; numbers that JSON does not have (``nan``, ``inf``) become strings."""
    return json.dumps(_finite(data), indent=2, ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def _diagnostic(diagnostic: Diagnostic, document: Document) -> dict[str, Any]:
    return {
        "code": diagnostic.code,
        "name": diagnostic.name,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "path": diagnostic.path,
        "document": diagnostic.document,
        "cell": diagnostic.cell,
        "recipe": diagnostic.recipe,
        "key_path": list(diagnostic.key_path),
        "span": span(diagnostic.span, document),
        "related": [
            {"message": r.message, "path": r.path, "span": span(r.span, r.document or document)}
            for r in diagnostic.related
        ],
        "help": diagnostic.help,
        "url": diagnostic.url,
        "fixes": [_fix(fix) for fix in diagnostic.fixes],
    }


def span(place: Span, document: Document) -> dict[str, Any]:
    """A span with lines and columns from 1 and offsets from 0, in characters."""
    return {name: _point(document, at) for name, at in (("start", place.start), ("end", place.end))}


def _point(document: Document, offset: int) -> dict[str, int]:
    line, column = document.location(offset)
    return {"line": line, "column": column, "offset": offset}


def _fix(fix: Fix) -> dict[str, Any]:
    return {
        "title": fix.title,
        "applicability": fix.applicability,
        "edits": [{"start": e.start, "end": e.end, "text": e.text} for e in fix.edits],
    }


def _recipes(file: FileResult) -> list[dict[str, Any]]:
    return [
        {
            "path": file.path,
            "recipe": index,
            "dialect": subject.recipe.dialect,
            "environment": environment(subject),
        }
        for index, subject in enumerate(file.subjects)
    ]


def environment(subject: RecipeSubject) -> dict[str, Any]:
    """The versions a recipe was decided for, and where they come from."""
    known = subject.context.environment
    told = (f"peft {line.peft} with transformers {line.transformers}" for line in subject.lines)
    assumed = f"not known: decided for {' and for '.join(told)}"
    return {
        "peft": {
            "version": known.peft.version if known.peft else subject.peft,
            "source": known.peft.source if known.peft else assumed,
        },
        "transformers": {
            "version": known.transformers.version if known.transformers else subject.transformers,
            "source": known.transformers.source if known.transformers else assumed,
        },
        "gpu": subject.gpu.to_dict() if subject.gpu else None,
    }
