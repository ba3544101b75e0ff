"""The figures at the end of every report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lora_lint.diagnostics import Diagnostic
    from lora_lint.engine import FileResult


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
    def of(cls, file: FileResult) -> Summary:
        """The figures of a file."""
        severities = [diagnostic.severity for diagnostic in file.diagnostics]
        return cls(
            files=1,
            recipes=len(file.subjects),
            errors=severities.count("error"),
            warnings=severities.count("warning"),
            infos=severities.count("info"),
            fixable=sum(_has(d, "safe") for d in file.diagnostics),
            unsafely_fixable=sum(
                _has(d, "unsafe") and not _has(d, "safe") for d in file.diagnostics
            ),
        )

    @classmethod
    def total(cls, summaries: Iterable[Summary]) -> Summary:
        """The figures of all files."""
        return cls(*map(sum, zip((0,) * len(cls._fields), *summaries, strict=True)))

    @property
    def findings(self) -> int:
        """How many findings there are, of any severity."""
        return self.errors + self.warnings + self.infos


def _has(diagnostic: Diagnostic, applicability: str) -> bool:
    return any(fix.applicability == applicability for fix in diagnostic.fixes)


def plural(word: str, count: int, ending: str = "s") -> str:
    """A word in the number that goes with a count."""
    return word if count == 1 else word + ending
