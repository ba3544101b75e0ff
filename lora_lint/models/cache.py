"""lora-lint's own cache on this disk: fetched config files and the trees of built models.

Nothing in it is needed: what can't be read counts as absent, what can't be written is not kept.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

# Which file says what a repository of the hub is: a model, an adapter, a diffusion pipeline.
MODEL_FILES: Final = ("config.json", "adapter_config.json", "model_index.json")


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


def hub() -> str:
    """The address of the hub: ``HF_ENDPOINT``, else huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def host() -> str:
    """The hub's name for people."""
    return hub().rpartition("://")[2].rpartition("@")[2]


def model_folder(name: str, revision: str | None = None) -> Path:
    """Where the fetched file of a model on the hub is, or would be."""
    model = f"models--{name.replace('/', '--')}"
    return folder() / "hub" / _safe(host()) / model / _safe(revision or "main")


def fetched(name: str, revision: str | None = None) -> Path | None:
    """The folder with the file that was fetched of a model, None where none was."""
    path = model_folder(name, revision)
    return path if any((path / file).is_file() for file in MODEL_FILES) else None


def _safe(text: str) -> str:
    """A text as the name of a file."""
    name = re.sub(r"[^\w.-]", lambda char: f"%{ord(char[0]):X}", text, flags=re.ASCII)
    return f"%{name}" if name.startswith(".") else name


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
