"""A config as it stood at a git revision: what ``--since`` compares with.

Git is asked for bytes that it has stored, and nothing else: no pager, no filter, no hook and no
network is involved. A file's repository is the one that it lies in, wherever lora-lint is called.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint import documents
from lora_lint.dialects import recipes

if TYPE_CHECKING:
    from lora_lint.documents.document import Document
    from lora_lint.recipe import Recipe

# Seconds for one question to git; a file system that takes longer is not waited for.
TIMEOUT: Final = 20
# A git hook runs with GIT_DIR and others set, which would be taken for every file's repository.
_NOT_PASSED: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE")
_PASSED: Final = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}


class NotComparable(Exception):  # noqa: N818 - a state of the repository, not a fault
    """Files can't be compared with the revision; the message says why."""


class Earlier(NamedTuple):
    """A recipe as it stood before, with its document."""

    document: Document
    recipe: Recipe


class Revision:
    """A git revision by the name that the user gives it (``HEAD``, ``origin/main``, a hash)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._commits: dict[Path, str | NotComparable] = {}
        self._renames: dict[Path, dict[str, str]] = {}
        self._last: tuple[str, tuple[Document, list[Recipe]] | None] | None = None

    def commit(self, folder: Path) -> str:
        """The hash that the name means in the repository of a folder.

        Raises ``NotComparable`` where there is no git, no repository or no such revision.
        """
        found = self._commits.get(folder)
        if found is None:
            try:
                found = self._find_commit(folder)
            except NotComparable as exc:
                found = exc
            self._commits[folder] = found
        if isinstance(found, NotComparable):
            raise found
        return found

    def earlier(self, document: Document, recipe: Recipe) -> Earlier | None:
        """A recipe as it stood at the revision: the one at the same place of the file, else the one
        that has its number, if there are as many. None where there is none.

        Raises ``NotComparable`` as ``commit`` does.
        """
        before = self._read(document.path)
        if before is None:
            return None
        then, runs = before
        places = [(run.part, run.path) for run in runs]
        place = recipe.part, recipe.path
        if place in places:
            return Earlier(then, runs[places.index(place)])
        now = [(run.part, run.path) for run in recipes(document)]
        if len(now) != len(places) or place not in now:
            return None
        number = now.index(place)
        return Earlier(then, runs[number]) if places[number] not in now else None

    def _read(self, path: str) -> tuple[Document, list[Recipe]] | None:
        """The file at the revision with its recipes; only the last one is kept."""
        if self._last is None or self._last[0] != path:
            data = self._bytes(Path(path).resolve())
            self._last = path, None
            if data is not None and len(data) <= documents.MAX_BYTES:
                self._last = path, _parsed(path, data)
        return self._last[1]

    def _bytes(self, path: Path) -> bytes | None:
        """The file's bytes at the revision, under the name that it had; None if it is new."""
        folder = path.parent
        if not folder.is_dir():  # standard input under the name of a file elsewhere
            return None
        commit = self.commit(folder)
        data = _git(folder, "cat-file", "blob", f"{commit}:./{path.name}")
        if data is not None:
            return data
        root = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel") or b"").rstrip("\n"))
        if root not in self._renames:
            self._renames[root] = _renamed(root, commit)
        old = self._renames[root].get(Path(os.path.relpath(path, root)).as_posix())
        return _git(root, "cat-file", "blob", f"{commit}:{old}") if old else None

    def _find_commit(self, folder: Path) -> str:
        if self.name.startswith("-"):
            raise NotComparable(f"{self.name!r} is not a revision")
        found = _git(folder, "rev-parse", "--verify", "--quiet", f"{self.name}^{{commit}}")
        if found is not None:
            return found.decode("ascii").strip()
        inside = _git(folder, "rev-parse", "--is-shallow-repository")
        if inside is None:
            raise NotComparable(f"{folder} is not in a git repository")
        shallow = inside.strip() == b"true"
        hint = "; the clone is shallow, fetch more of its history" if shallow else ""
        raise NotComparable(f"the repository of {folder} has no revision {self.name!r}{hint}")


def _parsed(path: str, data: bytes) -> tuple[Document, list[Recipe]] | None:
    try:
        text, _ = documents.decode(data)
    except documents.NotText:
        return None
    document = documents.parse(path, text)
    return (document, recipes(document)) if document.problem is None else None


def _renamed(root: Path, commit: str) -> dict[str, str]:
    """The old names of files that have another one since, as git recognizes them.

    The index is compared, not the files: for those git may run filters that the user has set up.
    """
    options = ("--cached", "--no-ext-diff", "--no-textconv", "--find-renames", "--diff-filter=R")
    told = _git(root, "diff", *options, "--name-status", "-z", commit, "--")
    fields = os.fsdecode(told or b"").split("\0")
    return dict(zip(fields[2::3], fields[1::3], strict=False))


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints, None if it fails. Raises ``NotComparable`` if it can't be run."""
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_PASSED} | _PASSED
    try:
        done = subprocess.run(
            ["git", "--no-pager", "-c", "core.fsmonitor=false", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise NotComparable("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise NotComparable(f"git did not answer within {TIMEOUT} s") from None
    except OSError as exc:
        raise NotComparable(f"git can't be run: {exc.strerror or exc}") from None
    if b"dubious ownership" in done.stderr:
        raise NotComparable(f"git trusts nobody else's repository: {folder}")
    return done.stdout if done.returncode == 0 else None
