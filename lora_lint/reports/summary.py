"""The figures at the end of every report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lora_lint.diagnostics import Diagnostic
    from lora_lint.engine import Report


class Summary(NamedTuple):
    """How much was linted and found; ``fixable`` counts what safe fixes mend."""

    files: int
    recipes: int
    errors: int
    warnings: int
    infos: int
    fixable: int
    unsafely_fixable: int

    @classmethod
    def of(cls, report: Report) -> Summary:
        """The summary of a report."""
        diagnostics = report.diagnostics
        severities = [diagnostic.severity for diagnostic in diagnostics]
        return cls(
            files=len(report.files),
            recipes=len(report.recipes),
            errors=severities.count("error"),
            warnings=severities.count("warning"),
            infos=severities.count("info"),
            fixable=sum(_has(d, "safe") for d in diagnostics),
            unsafely_fixable=sum(_has(d, "unsafe") and not _has(d, "safe") for d in diagnostics),
        )


def _has(diagnostic: Diagnostic, applicability: str) -> bool:
    return any(fix.applicability == applicability for fix in diagnostic.fixes)


def plural(word: str, count: int, ending: str = "s") -> str:
    """A word in the number that goes with a count."""
    return word if count == 1 else word + ending
