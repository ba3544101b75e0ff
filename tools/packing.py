"""Compresses the catalogue's files in place: ``python tools/packing.py``.

Whatever in ``lora_lint/data/models`` is still text and large, or compressed in another way, is
written as ``lora_lint/models/packed.py`` reads it. ``tools/catalogue.py`` and
``tools/transformers_lines.py`` end with the same; run alone it loses and changes nothing.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from typing import TYPE_CHECKING

from lora_lint.models import packed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FOLDERS = ("architectures", "formulas", "trees")
# Single files that are large and not read by people.
SINGLE = ("dimensions.json", "evidence.json", "names.json")


def compress(text: bytes, dictionary: bytes) -> bytes:
    """A file's bytes, compressed as far as zlib can."""
    level, window, memory = 9, 15, 9
    if dictionary:
        packer = zlib.compressobj(
            level, zlib.DEFLATED, window, memory, zlib.Z_DEFAULT_STRATEGY, dictionary
        )
    else:
        packer = zlib.compressobj(level, zlib.DEFLATED, window, memory)
    return packer.compress(text) + packer.flush()


def shared_parts(texts: Iterable[bytes]) -> bytes:
    """The parts that save most when every file may refer to them, the best last, where zlib finds
    them at the shortest distance.
    """
    found: Counter[bytes] = Counter()
    for text in texts:
        found.update(set(re.split(rb'(?<=\}),(?=\{)|(?<=\]),(?=\[|")', text)))
    best = sorted(found.items(), key=lambda item: (-(item[1] - 1) * len(item[0]), item[0]))
    parts: list[bytes] = []
    size = 0
    for part, count in best:
        if count > 2 and size + len(part) < packed.WINDOW - 2**8:
            parts.append(part)
            size += len(part) + 1
    return b",".join(reversed(parts))


def write(name: str, text: bytes, like: bytes = b"") -> None:
    """Write a file, compressed, under its name without ``.z``. What was compressed against it is
    compressed again.
    """
    older = _older(name)
    before = _plain(name) if older is not None else b""
    rest = _plain(older, before) if older is not None else b""
    _put(name, text, like)
    if older is not None and rest and before != text:
        _put(older, rest, text)


def _put(name: str, text: bytes, like: bytes) -> None:
    path = packed.MODELS / f"{name}.z"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(text, packed.against(name, like)))
    (packed.MODELS / name).unlink(missing_ok=True)


# Folder -> that of the files about older releases that are compressed against its own.
OLDER = {"architectures": "lines", "trees": "lines/known"}


def _older(name: str) -> str | None:
    folder, _, file = name.rpartition("/")
    return f"{OLDER[folder]}/{file}" if folder in OLDER else None


def _plain(name: str, like: bytes = b"") -> bytes:
    try:
        return packed.read(name, like)
    except OSError:
        return b""


def pack_folder(folder: str) -> None:
    """Compress all files of a folder against what they share."""
    texts = {name: packed.read(name) for name in sorted(names_in(packed.MODELS / folder, folder))}
    if not texts:
        return
    dictionary = shared_parts(texts.values())
    path = packed.MODELS / f"{folder}.dictionary.z"
    path.write_bytes(compress(dictionary, b""))
    packed._dictionary.cache_clear()
    for name, text in texts.items():
        _put(name, text, b"")


def names_in(path: Path, folder: str) -> set[str]:
    """The files of a folder, each by its name without ``.z``."""
    return {f"{folder}/{file.name.removesuffix('.z')}" for file in path.glob("*.json*")}


def main() -> None:
    """Compress what is not, and print the sizes."""
    for folder in FOLDERS:
        pack_folder(folder)
    for name in SINGLE:
        write(name, packed.read(name))
    for path in sorted(packed.MODELS.iterdir()):
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        print(f"{sum(file.stat().st_size for file in files):>9,}  {path.name}")


if __name__ == "__main__":
    main()
