"""pyproject.toml: the standard's dependencies, and those of Poetry, PDM, uv and pixi."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from lora_lint.environment.conda import conda_specifiers
from lora_lint.environment.files import items, table, text_of, toml_of
from lora_lint.environment.requirements import requirement, specifier_of, tagged
from lora_lint.environment.specifiers import (
    LONGEST,
    NO_RELEASE,
    PACKAGES,
    Collected,
    package_called,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lora_lint.environment.specifiers import Named

_BOUND: Final = re.compile(r"\s*(\^|~=|~|===?|=|!=|<>|>=|<=|>|<)?\s*v?([\w.*+-]+)[\s,]*")


def project_file(path: Path) -> Named:
    """What a pyproject.toml says."""
    text = text_of(path)
    if not any(package in text.lower() for package in PACKAGES):
        return {}
    data = toml_of(text)
    tool = {name: table(part) for name, part in table(data.get("tool")).items()}
    found = Collected()
    for line in chain(_standard(data), *_groups(tool.get("pdm", {}).get("dev-dependencies"))):
        _add(found, line)
    for line in items(tool.get("uv", {}).get("dev-dependencies")):
        _add(found, line)
    # A dependency's source takes the place of an index; the version stands elsewhere.
    _add_table(found, tool.get("uv", {}).get("sources"), conda_specifiers)
    poetry = tool.get("poetry", {})
    for group in (poetry, *table(poetry.get("group")).values()):
        _add_table(found, table(group).get("dependencies"), poetry_specifiers)
        _add_table(found, table(group).get("dev-dependencies"), poetry_specifiers)
    for feature in _pixi_parts(tool.get("pixi", {})):
        _add_table(found, feature.get("dependencies"), conda_specifiers)
        _add_table(found, feature.get("pypi-dependencies"), conda_specifiers)
    return found


def _standard(data: dict[str, Any]) -> Iterator[Any]:
    project = table(data.get("project"))
    yield from items(project.get("dependencies"))
    for groups in (project.get("optional-dependencies"), data.get("dependency-groups")):
        yield from chain(*_groups(groups))


def _groups(groups: Any) -> list[list[Any]]:
    return [items(group) for group in table(groups).values()]


def _pixi_parts(pixi: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Where pixi has dependencies: at the top, in features, and for platforms in both."""
    for part in (pixi, *map(table, table(pixi.get("feature")).values())):
        yield part
        yield from map(table, table(part.get("target")).values())


def _add(found: Collected, line: Any) -> None:
    if not isinstance(line, str) or len(line) >= LONGEST:
        return
    if (named := requirement(line.removeprefix("-e "))) is not None:
        found.add(*named)


def _add_table(found: Collected, entries: Any, read: Callable[[str], list[str]]) -> None:
    """Take entries by name: a version, a table with more, or a list of tables."""
    for name, value in table(entries).items():
        package = package_called(name)
        for one in (value if isinstance(value, list) else [value]) if package else ():
            entry = one if isinstance(one, dict) else {"version": one}
            found.add(package, *_described(entry, read))


def _described(entry: dict[str, Any], read: Callable[[str], list[str]]) -> list[str]:
    """The specifiers of a table like ``{git = "…", tag = "v0.7.1"}``."""
    if "git" in entry:
        release = tagged(entry.get("tag")) or tagged(entry.get("rev"))
        return [f"=={release}" if release else NO_RELEASE]
    for key in ("url", "path", "file"):
        if key in entry:
            return [specifier_of(str(entry[key]))]
    if entry.get("workspace"):
        return [NO_RELEASE]
    version = entry.get("version")
    return read(version) if isinstance(version, str) and len(version) < LONGEST else []


def poetry_specifiers(text: str) -> list[str]:
    """Poetry's constraint as PEP 440 specifiers, one for each alternative."""
    return [
        ",".join(filter(None, (_poetry_bound(*bound) for bound in _BOUND.findall(part))))
        for part in re.split(r"\|\|?", text)
    ]


def _poetry_bound(operator: str, version: str) -> str:
    if operator in ("^", "~"):
        numbers = [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]
        return f">={version},<{_next(numbers, caret=operator == '^')}" if numbers else ""
    if version.rstrip("*.") == "":
        return ""
    operator = {"": "==", "=": "==", "<>": "!="}.get(operator, operator)
    return f"{operator}{version}"


def _next(numbers: list[int], *, caret: bool) -> str:
    """The first version that a bound no longer admits.

    A caret lets everything after the first number that is not zero change, a tilde everything
    after the second number.
    """
    place = min(1, len(numbers) - 1)
    if caret:
        last = len(numbers) - 1
        place = next((i for i, number in enumerate(numbers) if number), last)
    return ".".join(str(number) for number in (*numbers[:place], numbers[place] + 1))
