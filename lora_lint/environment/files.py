"""Files that may be absent, broken or something else: read, or passed over."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

# Real lock files have up to some megabytes.
MAX_SIZE: Final = 32_000_000


def text_of(path: Path) -> str:
    """The text of a file; empty where there is none."""
    try:
        # A pipe would wait for its writer.
        if not path.is_file() or path.stat().st_size > MAX_SIZE:
            return ""
        data = path.read_bytes()
    except (OSError, ValueError):  # a name with a null byte is a ValueError
        return ""
    # `pip freeze > requirements.txt` in Windows PowerShell writes UTF-16.
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if utf_16 else "utf-8-sig", errors="replace")
    return text.replace("\r\n", "\n")


def is_there(path: Path) -> bool:
    """Whether a path exists and may be looked at."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def toml_of(text: str) -> dict[str, Any]:
    """The table in a TOML text; empty where it is broken."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data


def yaml_of(text: str) -> Any:
    """The data in a YAML text, scalars as they are written; None where it is broken."""
    import yaml

    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        return yaml.load(text, loader)  # noqa: S506 - it builds strings, lists and mappings only
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def table(value: Any) -> dict[str, Any]:
    """A value that should be a table, as one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """A value that should be a list, as one."""
    return value if isinstance(value, list) else []
