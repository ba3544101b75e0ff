"""conda's package specifications, and the environment files that hold them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lora_lint.environment.files import items, table, text_of, yaml_of
from lora_lint.environment.requirements import requirement_lines
from lora_lint.environment.specifiers import LONGEST, Collected, package_called

if TYPE_CHECKING:
    from pathlib import Path

    from lora_lint.environment.specifiers import Named

# channel/subdir::name, and the rest: a version and a build, or [key=value, ...].
_SPEC: Final = re.compile(r"(?:[^\s=<>!~\[]*:)?([\w.-]+)\s*(.*)")
_KEY: Final = re.compile(r"""\bversion\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\],]*))""")
_BUILD: Final = re.compile(r"(.*[\w*])=([^=<>!~,|]+)")


def environment_file(path: Path) -> Named:
    """What an environment.yml says, with its ``pip:`` part."""
    found = Collected()
    text = text_of(path)
    data = yaml_of(text) if "dependencies" in text else None
    for entry in items(table(data).get("dependencies")):
        if isinstance(entry, str):
            spec = _SPEC.match(entry.strip()) if len(entry) < LONGEST else None
            if spec and (package := package_called(spec.group(1))):
                found.add(package, *conda_specifiers(spec.group(2)))
        else:
            lines = [
                line
                for line in items(table(entry).get("pip"))
                if isinstance(line, str) and len(line) < LONGEST
            ]
            for package, specifiers in requirement_lines(lines, path.parent).items():
                found.add(package, *specifiers)
    return found


def conda_specifiers(text: str) -> list[str]:
    """conda's version and build as PEP 440 specifiers, one for each alternative."""
    if text.startswith("["):
        key = _KEY.search(text)
        text = next((value for value in key.groups() if value), "") if key else ""
    # No spaces around the signs: what follows the first one left is the build.
    text = re.sub(r"\s*([,|])\s*", r"\1", re.sub(r"([<>=!~])\s+", r"\1", text.strip()))
    text = " ".join(text.split())
    version, _, build = text.partition(" ")
    version = version.partition("[")[0]
    if inline := _BUILD.fullmatch(version):
        version, build = inline.groups()
    if build and not version.startswith("=="):
        # =0.7.1=build: with a build, the version is meant exactly.
        version = version.removeprefix("=")
    return [",".join(filter(None, map(_one, part.split(",")))) for part in version.split("|")]


def _one(text: str) -> str:
    """One bound: ``=0.7`` means 0.7 and what begins with it, a bare version exactly that."""
    text = text.strip("() ")
    bare = text.lstrip("=<>!~")
    operator = text.removesuffix(bare) if bare else text
    fuzzy = bare.endswith("*")
    version = bare.rstrip("*").rstrip(".")
    if not version:
        return ""
    if operator in ("", "=", "==", "==="):
        return f"=={version}.*" if fuzzy or operator == "=" else f"=={version}"
    return f"!={version}.*" if fuzzy and operator == "!=" else f"{operator}{version}"
