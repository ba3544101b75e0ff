"""The rules' logic, by code. Each family's module registers its checks here, explicitly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lora_lint.diagnostics import Finding

Scope = Literal["document", "recipe", "suppressions"]


class Check(NamedTuple):
    """A rule's logic: a generator of findings about a document, a recipe or comments."""

    code: str
    scope: Scope
    run: Callable[[Any], Iterator[Finding]]


CHECKS: dict[str, Check] = {}


def check(
    code: str, *, scope: Scope = "recipe"
) -> Callable[[Callable[[Any], Iterator[Finding]]], Callable[[Any], Iterator[Finding]]]:
    """Register a generator as the logic of a rule."""

    def register(run: Callable[[Any], Iterator[Finding]]) -> Callable[[Any], Iterator[Finding]]:
        CHECKS[code] = Check(code, scope, run)
        return run

    return register
