"""What is installed in a virtual environment, by its metadata files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lora_lint.environment.files import text_of
from lora_lint.environment.specifiers import PACKAGES, Collected

if TYPE_CHECKING:
    from pathlib import Path

    from lora_lint.environment.specifiers import Named

_PLACES: Final = ("lib/python*/site-packages", "Lib/site-packages")


def installed(environment: Path) -> Named:
    """The versions in a virtual environment."""
    found = Collected()
    for package in PACKAGES:
        for place in _PLACES:
            try:
                files = list(environment.glob(f"{place}/{package}-*.dist-info/METADATA"))
            except OSError:
                continue
            for path in files:
                headers = text_of(path).partition("\n\n")[0]
                version = re.search(r"^Version: *(\S+)$", headers, re.MULTILINE)
                if version:
                    found.add(package, f"=={version.group(1)}")
    return found
