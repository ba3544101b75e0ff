"""Finding and reading a file that a config names.

A framework takes a relative path as relative to the folder that it is started in, which the config
does not tell. So a file is looked for beside the config, in the folders above it up to the root of
its repository, and in the current folder.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint import documents
from lora_lint.diagnostics import Note, Span
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node

# Settings have kilobytes; a tokenizer_config.json with thousands of added tokens some hundreds.
MAX_BYTES: Final = 8 * 2**20
_SUFFIXES: Final = (".json", ".yaml", ".yml")
# What a path never holds that this program could follow: variables, templates, other people's
# homes, schemes. A name with one of these is filled in when the run is started.
_OPEN: Final = re.compile(r"[${}<>*?|\n\r\0]|^~|^[A-Za-z][A-Za-z0-9+.-]+://|^hf:|^s3:")


class Section(NamedTuple):
    """Settings in a mapping: in a file of their own, or within the config itself (``inline``).

    ``sure`` is False where several files of that name are around, so that the run may use another.
    """

    document: Document
    part: int
    path: KeyPath
    inline: bool = False
    sure: bool = True

    def node(self, *steps: str) -> Node | None:
        """The value at a key path below the section."""
        return self.document.node(self.part, (*self.path, *steps))

    def value(self, *steps: str) -> object:
        """A scalar below the section; None where there is none, ``UNKNOWN`` if it is not static."""
        node = self.node(*steps)
        if node is None:
            return None
        return UNKNOWN if node.kind == "unknown" else node.plain()

    def note(self, message: str, *steps: str) -> Note:
        """A note that points at a value below the section."""
        node, entry = self.node(*steps), self.document.entry(self.part, (*self.path, *steps))
        span = Span(0, 0) if node is None else node.span
        if entry is not None and entry.node.kind != "scalar":
            span = entry.key_span
        return Note(message, span=span, document=None if self.inline else self.document)

    @property
    def name(self) -> str:
        """What the section is called in messages: its file, or where it stands in this one."""
        return Path(self.document.path).name if not self.inline else ".".join(map(str, self.path))


class Missing(NamedTuple):
    """A file that a config names and that is not there.

    ``near`` is a file of a similar name in the folder that the path leads to; ``folder`` whether
    that folder exists at all.
    """

    name: str
    near: str | None = None
    folder: bool = False


def is_path(text: str) -> bool:
    """Whether a text names a file that can be looked for: no URL, no template, no variable."""
    return 0 < len(text) < 1000 and _OPEN.search(text) is None


def names_file(text: str) -> bool:
    """Whether a text can only be the path of a settings file: it has the suffix of one."""
    return is_path(text) and Path(text).suffix.lower() in _SUFFIXES


def find(text: str, config: str) -> tuple[Path, bool] | Missing:
    """The file that a path in a config means, and whether it can be no other.

    ``config`` is the path of the config. Raises nothing: what may not be looked at is not there.
    """
    found: list[Path] = []
    for folder in folders(config):
        candidate = folder / text
        if _is_file(candidate) and not any(_same(candidate, other) for other in found):
            found.append(candidate)
    if found:
        return found[0], len(found) == 1
    return _missing(text, config)


def folders(config: str) -> Iterator[Path]:
    """The folders that a relative path may start from: the config's, those above it up to the
    root of its repository, the current one.
    """
    try:
        start = Path(config).parent
        above = [start.absolute(), *start.absolute().parents]
        root = next((i for i, path in enumerate(above) if (path / ".git").exists()), 0)
        here = Path.cwd()
    except OSError:
        return
    yield start
    yield from (_shown(path) for path in above[1 : root + 1])
    if here not in above[: root + 1]:
        yield Path()


def read(path: Path) -> Document | None:
    """A file as a document; None where it can't be read, does not parse or is too big."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not _is_file(path) or status.st_size > MAX_BYTES:
        return None
    return _read(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read(path: str, _changed: int, _size: int) -> Document | None:
    try:
        text, _ = documents.decode(Path(path).read_bytes())
    except (OSError, documents.NotText):
        return None
    document = documents.parse(path, text)
    return document if document.problem is None and document.parts else None


def _missing(text: str, config: str) -> Missing:
    from difflib import get_close_matches

    name = Path(text).name
    there = False
    for folder in folders(config):
        holder = (folder / text).parent
        try:
            listed = [path.name for path in holder.iterdir()] if holder.is_dir() else None
        except (OSError, ValueError):
            continue
        if listed is None:
            continue
        there = True
        alike = [other for other in listed if Path(other).suffix == Path(name).suffix]
        near = get_close_matches(name, alike, 1, 0.75)
        if near:
            return Missing(text, near[0], folder=True)
    return Missing(text, None, there)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, or to files that say the same."""
    try:
        return one.samefile(other) or one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _shown(path: Path) -> Path:
    """A folder as people would write it from here."""
    try:
        return Path(os.path.relpath(path))
    except ValueError:  # on another drive
        return path
