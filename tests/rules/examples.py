"""The examples of the rule files, which run as tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

RULES = Path(__file__).parent.parent.parent / "rules"
SECTIONS = (
    "What it does",
    "Why it matters",
    "Example",
    "Use instead",
    "When it stays silent",
    "How it is proven",
)
_BLOCK = re.compile(r"```(\w+)([^\n]*)\n(.*?)```", re.DOTALL)


class Example(NamedTuple):
    """A code block: its file name, options of the command line, and the clause it stands under.

    ``beside`` are files that lie beside it: blocks of the same clause with ``file`` for a title.
    ``before`` are files as they stood at the git revision HEAD: blocks with ``before``.
    """

    code: str
    kind: str
    clause: str
    title: str
    options: tuple[str, ...]
    text: str
    beside: tuple[tuple[str, str], ...] = ()
    before: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.code} {self.kind} {self.clause}".strip()


def front_matter(path: Path) -> dict[str, Any]:
    """A rule file's metadata."""
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
    return data


def sections(path: Path) -> dict[str, str]:
    """A rule file's sections by title, in order."""
    body = path.read_text(encoding="utf-8").split("---\n", 2)[2]
    parts = re.split(r"^## (.+)$", body, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def examples(path: Path) -> list[Example]:
    """The examples of a rule file: bad, good, silent."""
    found = []
    code = path.name.split("-")[0]
    for title, kind in (
        ("Example", "bad"),
        ("Use instead", "good"),
        ("When it stays silent", "silent"),
    ):
        for clause, text in _clauses(sections(path).get(title, "")):
            blocks = [
                (dict(part.split("=", 1) for part in shlex.split(told) if "=" in part), content)
                for _, told, content in _BLOCK.findall(text)
            ]
            beside = tuple((given["file"], text) for given, text in blocks if "file" in given)
            before = tuple((given["before"], text) for given, text in blocks if "before" in given)
            for given, content in blocks:
                if "title" not in given:
                    continue
                options = tuple(shlex.split(given.get("options", "")))
                found.append(
                    Example(code, kind, clause, given["title"], options, content, beside, before)
                )
    return found


def _clauses(text: str) -> list[tuple[str, str]]:
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
