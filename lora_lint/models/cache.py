"""lora-lint's own cache on this disk: fetched config files and the trees of built models.

Nothing in it is needed: what can't be read counts as absent, what can't be written is not kept.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder() -> Path:
    """Where the cache is: ``LORA_LINT_CACHE``, else ``lora-lint`` in the system's place for such.

    That is ``XDG_CACHE_HOME`` or ``~/.cache``, ``LOCALAPPDATA`` on Windows.
    """
    own = os.environ.get("LORA_LINT_CACHE")
    if own:
        return Path(own).expanduser()
    system = os.environ.get("XDG_CACHE_HOME")
    if not system and sys.platform == "win32":
        system = os.environ.get("LOCALAPPDATA")
    return Path(system or "~/.cache").expanduser() / "lora-lint"


def trees() -> Path:
    """The folder of the trees of built models."""
    return folder() / "trees"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; in silence where it can't be written."""
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return
