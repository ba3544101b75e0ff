"""The Hugging Face cache on this disk, as plain files: nothing is imported, nothing downloaded.

Layout (huggingface_hub, *Understand caching*): ``models--org--name/refs/<revision>`` holds a
commit's hash, ``models--org--name/snapshots/<hash>/`` that commit's files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)


# Where transformers 4 looks instead, if they are set (4.57.6 utils/hub.py); 5 does not know them.
_OLD_VARIABLES: Final = (
    "TRANSFORMERS_CACHE",
    "PYTORCH_TRANSFORMERS_CACHE",
    "PYTORCH_PRETRAINED_BERT_CACHE",
)


def home() -> Path:
    """Where huggingface_hub keeps what is its own: ``HF_HOME`` or the default."""
    path = os.environ.get("HF_HOME")
    if not path:
        path = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")  # noqa: PTH118
    return _expanded(path)


def cache_folder() -> Path:
    """Where huggingface_hub keeps models: ``HF_HUB_CACHE``, ``HF_HOME`` or the default."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _expanded(os.environ[name])
    return home() / "hub"


def _folders() -> Iterator[Path]:
    """Where a model may be kept, the likeliest first."""
    yield cache_folder()
    for name in _OLD_VARIABLES:
        if os.environ.get(name):
            yield _expanded(os.environ[name])


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser()


def is_repository(name: str) -> bool:
    """Whether this can be the id of a model on the hub: ``name`` or ``organisation/name``."""
    return len(name) <= 200 and ".." not in name and bool(REPOSITORY.fullmatch(name))


def snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model's files in the cache, None where there is none.

    Without a revision it is that of ``main``, else the only one there is.
    """
    if not is_repository(name):
        return None
    models = (folder / f"models--{name.replace('/', '--')}" for folder in _folders())
    return next((path for model in models if (path := _snapshot(model, revision))), None)


def _snapshot(folder: Path, revision: str | None) -> Path | None:
    snapshots = folder / "snapshots"
    try:
        commit = _commit(folder, revision or "main")
        if commit is None and revision is None:
            found = [path.name for path in snapshots.iterdir()]
            commit = found[0] if len(found) == 1 else None
        path = snapshots / commit if commit else None
        return path if path is not None and path.is_dir() else None
    except (OSError, ValueError):
        return None


def _commit(folder: Path, revision: str) -> str | None:
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    reference = folder / "refs" / revision
    if ".." in Path(revision).parts or not reference.is_file():
        return None
    text = reference.read_text(encoding="utf-8")[:100].strip()
    return text if re.fullmatch(r"[0-9a-zA-Z]+", text) else None
