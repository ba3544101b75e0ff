"""The rules: what each is called, how severe it is, what it needs, and its text.

Source of truth are the Markdown files in ``rules/``. Start-up reads one small index made of them
(``tools/rules_index.py``); the text of a rule is read when someone asks for it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.facts import DATA

if TYPE_CHECKING:
    from lora_lint.diagnostics import Severity

_HERE: Final = Path(__file__).parent


class Rule(NamedTuple):
    """A rule's metadata, as its front matter states it.

    ``needs`` says what must be known for the rule to be decided (config, peft, model, injection,
    versions, gpu), ``fix`` the best applicability of its fixes, ``supersedes`` the rules that
    are silent where this one speaks, since the cause is one. A ``fallback`` is silent wherever
    another error speaks.
    """

    code: str
    name: str
    severity: Severity
    family: str
    needs: list[str]
    fix: str
    since: str
    evidence: str
    summary: str
    supersedes: list[str]
    fallback: bool


@lru_cache(maxsize=1)
def rules() -> dict[str, Rule]:
    """All rules by code, in the order of their codes."""
    rows = json.loads((DATA / "rules.json").read_text(encoding="utf-8"))["rules"]
    return {row["code"]: Rule(**row) for row in rows}


def superseded(code: str) -> frozenset[str]:
    """The rules that stay silent where this one speaks, directly or through another."""
    found: set[str] = set()
    waiting = [code]
    while waiting:
        for below in rules()[waiting.pop()].supersedes:
            if below not in found:
                found.add(below)
                waiting.append(below)
    return frozenset(found)


def matches(selector: str, rule: Rule) -> bool:
    """Whether a code, a prefix of codes (``TM1``), a rule's name or ALL means a rule."""
    return (
        selector.upper() == "ALL" or rule.code.startswith(selector.upper()) or selector == rule.name
    )


def rule_text(code: str) -> str:
    """The Markdown of a rule, without its front matter.

    Raises ``KeyError`` for a code that no rule has.
    """
    rule = rules()[code]
    name = f"{code}-{rule.name}.md"
    folder = _HERE / "rules"
    if not folder.is_dir():  # a checkout or an editable install
        folder = _HERE.parent / "rules"
    text = (folder / name).read_text(encoding="utf-8")
    return text.split("\n---\n", 1)[1].strip() + "\n"
