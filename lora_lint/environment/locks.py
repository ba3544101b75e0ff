"""Lock files: what exactly was resolved.

They can be huge, so only the entries of the packages that matter are parsed. A package with
several entries is resolved differently for different platforms or environments.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lora_lint.environment.files import text_of, toml_of
from lora_lint.environment.specifiers import NO_RELEASE, PACKAGES, Collected, package_called

if TYPE_CHECKING:
    from pathlib import Path

    from lora_lint.environment.specifiers import Named

_TOML_NAME: Final = re.compile(rf"""^name *= *["'](?:{"|".join(PACKAGES)})["']""", re.MULTILINE)
# Formats 4 and 5 of pixi.lock, and packages from PyPI in later ones.
_PIXI_NAME: Final = re.compile(
    rf"^ +name: (?P<name>{'|'.join(PACKAGES)})$(?:\n +version: (?P<version>\S+)$)?", re.MULTILINE
)
# Format 6 and later: <name>-<version>-<build>.
_PIXI_CONDA: Final = re.compile(
    rf"^ *- conda: \S*/(?P<name>{'|'.join(PACKAGES)})-(?P<version>[^-/\s]+)-[^-/\s]+"
    r"\.(?:conda|tar\.bz2)$",
    re.MULTILINE,
)


def toml_lock(path: Path) -> Named:
    """What a uv.lock, poetry.lock or pdm.lock says."""
    found = Collected()
    for entry in text_of(path).split("[[package]]\n")[1:]:
        # Its own keys end where a sub-table begins.
        own = entry.partition("\n[")[0]
        if _TOML_NAME.search(own):
            package = toml_of(own)
            if not package:  # a file that is broken here is broken
                return {}
            # One without a version is built from a folder.
            version = package.get("version")
            found.add(package_called(package["name"]), f"=={version}" if version else NO_RELEASE)
    return found


def pixi_lock(path: Path) -> Named:
    """What a pixi.lock says."""
    text = text_of(path)
    found = Collected()
    for entry in _PIXI_NAME.finditer(text):
        version = (entry["version"] or "").strip("'\"")
        found.add(entry["name"], f"=={version}" if version else NO_RELEASE)
    for entry in _PIXI_CONDA.finditer(text):
        found.add(entry["name"], f"=={entry['version']}")
    return found
