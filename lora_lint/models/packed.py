"""The catalogue's files: JSON as text, or compressed with zlib as ``.json.z``.

Files of one folder resemble each other, so they are compressed against the parts that many of them
share, which stand in the folder's ``dictionary.z`` beside it; that takes half of what each would
take alone. A file about older releases is compressed against the one of the newest release that it
resembles (``like``). ``tools/packing.py`` writes them.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Final

from lora_lint.facts import DATA

MODELS: Final = DATA / "models"
# zlib's window: what lies further back is of no use.
WINDOW: Final = 2**15


def read(name: str, like: bytes = b"") -> bytes:
    """A file's plain text by its name without ``.z``; ``like`` is what it was compressed against.

    Raises ``OSError`` where there is none.
    """
    try:
        return (MODELS / name).read_bytes()  # one that was written and not compressed yet
    except FileNotFoundError:
        packed = (MODELS / f"{name}.z").read_bytes()
    return zlib.decompressobj(zdict=against(name, like)).decompress(packed)


def against(name: str, like: bytes = b"") -> bytes:
    """What a file is compressed against: the text it resembles, else its folder's dictionary."""
    return like[-WINDOW:] if like else _dictionary(name.rpartition("/")[0])


@lru_cache(maxsize=4)
def _dictionary(folder: str) -> bytes:
    path = MODELS / f"{folder}.dictionary.z"
    return zlib.decompress(path.read_bytes()) if folder and path.exists() else b""
