"""Which PEFT, transformers and GPU the user trains with, and how that is known."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lora_lint.environment.specifiers import Named


class Version(NamedTuple):
    """A version, and where it comes from: ``--peft-version``, a lock file, ...

    ``version`` is for people: a release, or the requirement as it is written (``>=0.7,<0.9``).
    ``lowest`` and ``highest`` are the known releases that the requirement admits; empty means the
    version itself. Ask ``first`` and ``last``.
    """

    version: str
    source: str
    lowest: str = ""
    highest: str = ""

    @property
    def first(self) -> str:
        """The oldest release it can be."""
        return self.lowest or self.version

    @property
    def last(self) -> str:
        """The newest release it can be."""
        return self.highest or self.version

    @property
    def exact(self) -> bool:
        """Whether it can be one release only."""
        return self.first == self.last


class Environment(NamedTuple):
    """What the user trains with; None where nothing says so."""

    peft: Version | None = None
    transformers: Version | None = None
    gpu: str | None = None


_LOCKS: Final = ("uv.lock", "poetry.lock", "pdm.lock", "pixi.lock")
_MANIFESTS: Final = ("environment.yml", "environment.yaml", "pyproject.toml")


def find_environment(
    folder: Path, releases: Mapping[str, Sequence[str]]
) -> tuple[Version | None, Version | None]:
    """The PEFT and the transformers that a config in ``folder`` is trained with.

    ``releases`` are the known releases of both, oldest first. Files decide, the nearest folder
    first; only for a package that none of them names, what is installed beside the config or in
    ``$VIRTUAL_ENV``. Nothing is run, and what can't be read counts as absent.
    """
    found = _found(folder, releases)
    return found.get("peft"), found.get("transformers")


def find_release(folder: Path, package: str, releases: Sequence[str]) -> Version | None:
    """The release of another package that a config in ``folder`` is trained with, found as PEFT
    is.
    """
    return _found(folder, {package: releases}).get(package)


def _found(folder: Path, releases: Mapping[str, Sequence[str]]) -> dict[str, Version | None]:
    """What the sources around a folder say, by package; None where it is no release."""
    found: dict[str, Version | None] = {}
    start = _resolved(folder)
    walked = []
    folders, in_repository = _upwards(start)
    for holder in folders:
        walked.append(holder)
        for path in _sources(holder):
            _take(_named(path), _shown(path, start), releases, found)
            if len(found) == len(releases):
                break
        # Without a repository nothing says where the project ends.
        if len(found) == len(releases) or (found and not in_repository):
            break
    if len(found) < len(releases):
        for environment, shown in _installations(walked, start):
            _take(_named(environment), shown, releases, found)
    return found


def _take(
    named: Named,
    source: str,
    releases: Mapping[str, Sequence[str]],
    found: dict[str, Version | None],
) -> None:
    """Note what a source says about packages that nothing before it named."""
    if not named:
        return
    from lora_lint.environment.specifiers import NO_RELEASE, admitted

    for package in releases.keys() & named.keys() - found.keys():
        if NO_RELEASE in named[package]:
            found[package] = None
        elif (known := admitted(named[package], releases[package])) is not None:
            found[package] = Version(known.text, source, known.lowest, known.highest)


def _upwards(start: Path) -> tuple[list[Path], bool]:
    """The folders to search, nearest first, and whether a repository's root bounds them."""
    folders = [start, *start.parents]
    home = _home()
    if home in folders:
        folders = folders[: folders.index(home) + 1]
    from lora_lint.environment.files import is_there

    for count, folder in enumerate(folders, start=1):
        if is_there(folder / ".git"):
            return folders[:count], True
    return folders, False


def _home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:  # a user without one
        return None
    # $HOME can be empty.
    return _resolved(home) if home.is_absolute() else None


def _sources(folder: Path) -> Iterator[Path]:
    """The files of a folder that may name a package, in the order in which they are believed."""
    for name in _LOCKS:
        yield folder / name
    yield from sorted(
        _text_files(folder, "requirements"), key=lambda path: (path.stem != "requirements", path)
    )
    yield from sorted(_text_files(folder / "requirements"))
    for name in _MANIFESTS:
        yield folder / name


def _text_files(folder: Path, prefix: str = "") -> list[Path]:
    try:
        # The folder may hold a data set.
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".txt")]
    except OSError:
        return []
    return [folder / name for name in names if name.startswith(prefix)]


def _installations(walked: list[Path], start: Path) -> Iterator[tuple[Path, str]]:
    """The virtual environments that may be the user's, and how to call them.

    lora-lint's own is none: it says what the linter runs with, not what is trained with.
    """
    candidates = [
        (folder / name, _shown(folder / name, start))
        for folder in walked
        for name in (".venv", "venv")
    ]
    if active := os.environ.get("VIRTUAL_ENV"):
        candidates.append((Path(active), "$VIRTUAL_ENV"))
    from lora_lint.environment.files import is_there

    own = _resolved(Path(sys.prefix))
    for path, shown in candidates:
        if is_there(path) and _resolved(path) != own:
            yield path, shown


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path.absolute()


def _shown(path: Path, start: Path) -> str:
    """A path as the config's folder sees it."""
    return Path(os.path.relpath(path, start)).as_posix()


# Configs share folders, and folders their parents.
@lru_cache(maxsize=512)
def _named(path: Path) -> Named:
    """What a file or a virtual environment says about the packages."""
    if path.name.endswith(".lock"):
        from lora_lint.environment.locks import pixi_lock, toml_lock

        return pixi_lock(path) if path.name == "pixi.lock" else toml_lock(path)
    if path.suffix == ".txt":
        from lora_lint.environment.requirements import requirements_file

        return requirements_file(path)
    if path.name == "pyproject.toml":
        from lora_lint.environment.pyproject import project_file

        return project_file(path)
    if path.name in _MANIFESTS:
        from lora_lint.environment.conda import environment_file

        return environment_file(path)
    from lora_lint.environment.installed import installed

    return installed(path)


def forget() -> None:
    """Read the files anew from here on."""
    _named.cache_clear()
