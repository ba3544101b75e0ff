"""Requirements as pip reads them: files with options, single requirements, and URLs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from lora_lint.environment.files import text_of
from lora_lint.environment.specifiers import LONGEST, NO_RELEASE, Collected, package_called

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from lora_lint.environment.specifiers import Named

_NAME: Final = re.compile(r"([A-Za-z0-9][\w.-]*)(?![/\\\w.-])")
_PLAIN: Final = re.compile(r"[\w.-]+\s*([<>=!~\d.*,\s]*)")
_OPTION: Final = re.compile(r"(-[rce]|--(?:requirement|constraint|editable)(?=[\s=]))[\s=]*(.*)")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
# Hashes and the like, after a requirement.
_OPTIONS_BEHIND: Final = re.compile(r"\s-.*")
# git+https://host/owner/name.git@revision
_VCS: Final = re.compile(r"\w+\+.*?/(?P<name>[^/@]+?)(?:\.git)?/?(?:@(?P<revision>[^@]+))?$")
_ARCHIVE: Final = re.compile(
    r".*/(?P<name>[^/]+)/archive/(?:refs/\w+/)?(?P<revision>[^/]+?)\.(?:zip|tar\.gz)$"
)
# A tag for a release. A number without a dot may be a commit, one with more behind it a branch.
_TAG: Final = re.compile(r"(?:.*/)?v?(\d+(?:\.\d+)+(?:(?:a|b|rc|\.?dev|\.?post)\d+)?)")


def requirements_file(path: Path) -> Named:
    """What a requirements file and those that it includes say."""
    return requirement_lines(_lines(text_of(path)), path.parent, {(path, False)})


def requirement_lines(
    lines: Iterable[str], folder: Path, seen: set[tuple[Path, bool]] | None = None
) -> Collected:
    """What lines of a requirements file in a folder say."""
    seen = set() if seen is None else seen
    wanted, constraints = Collected(), Collected()
    waiting = [(folder, False, lines)]
    while waiting:
        folder, constraining, lines = waiting.pop()
        for line in lines:
            option = _OPTION.match(line)
            if option and option[1] not in ("-e", "--editable"):
                path = folder / option[2].strip("'\" ")
                key = (path, option[1] in ("-c", "--constraint"))
                if key not in seen:
                    seen.add(key)
                    waiting.append((path.parent, key[1], _lines(text_of(path))))
            else:
                named = located(option[2]) if option else requirement(line)
                if named is not None:
                    (constraints if constraining else wanted).add(*named)
    return _constrained(wanted, constraints)


def _constrained(wanted: Collected, constraints: Collected) -> Collected:
    """Requirements as constraints narrow them.

    A constraint alone counts too: it holds for a package that another one brings along.
    """
    for package, limits in constraints.items():
        wanted[package] = [
            NO_RELEASE
            if NO_RELEASE in (specifier, limit)
            else ",".join(part for part in (specifier, limit) if part)
            for specifier in wanted.get(package, [""])
            for limit in limits
        ]
    return wanted


def _lines(text: str) -> Iterator[str]:
    """Logical lines: continued ones joined, comments and hashes left out."""
    joined = ""
    for line in text.split("\n"):
        comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not comment:
            joined += line[:-1]
            continue
        # pip puts a space before a comment in the midst, so that it is one.
        whole = f"{joined} {line}" if comment else joined + line
        joined = ""
        yield from _plain(whole)
    yield from _plain(joined)


def _plain(line: str) -> Iterator[str]:
    """A line without its comment and options, if it can matter."""
    line = _OPTIONS_BEHIND.sub("", _COMMENT.sub("", line).strip())
    if len(line) < LONGEST:
        yield line


def requirement(text: str) -> tuple[str, str] | None:
    """The package that a requirement names, with its specifier; None for all other packages.

    Markers are not evaluated: on some machine the requirement holds.
    """
    name = _NAME.match(text)
    package = package_called(name.group(1)) if name else None
    if package is None:
        return located(text)
    # Most requirements need none of packaging, which is slow to load.
    if plain := _PLAIN.fullmatch(text):
        return package, plain.group(1).strip()
    from packaging.requirements import Requirement

    try:
        parsed = Requirement(text)
    except ValueError:
        return None
    if parsed.url is None:
        return package, str(parsed.specifier)
    return package, specifier_of(parsed.url)


def located(text: str) -> tuple[str, str] | None:
    """The same for a bare URL or path: a repository, an archive or a folder."""
    location = re.split(r"\s+;", text, maxsplit=1)[0].strip("'\" ")
    egg = re.search(r"#(?:.*&)?egg=([\w.-]+)", location)
    name, _ = _release_at(location)
    package = package_called(egg.group(1) if egg else name)
    return None if package is None else (package, specifier_of(location))


def specifier_of(location: str) -> str:
    """The release that a URL or path names: a wheel's, or a tag's."""
    _, version = _release_at(location)
    return f"=={version}" if version else NO_RELEASE


def tagged(revision: object) -> str | None:
    """The release that a tag is for: 0.7.1 of ``v0.7.1``."""
    tag = _TAG.fullmatch(revision) if isinstance(revision, str) else None
    return tag.group(1) if tag else None


def _release_at(location: str) -> tuple[str | None, str | None]:
    """The name and the release that a URL or path tells."""
    if len(location) >= LONGEST:
        return None, None
    plain = unquote(re.split("[#?]", location, maxsplit=1)[0]).replace("\\", "/")
    plain = re.sub(r"://[^/@]*@", "://", plain)  # a user
    plain = re.sub(r"\[[\w,\s-]*\]$", "", plain)  # extras
    match = _VCS.match(plain) or _ARCHIVE.match(plain)
    if match:
        return match["name"], tagged(match["revision"])
    last = plain.rstrip("/").rpartition("/")[2]
    if not last.endswith((".whl", ".tar.gz", ".zip")):
        return last, None
    from packaging.utils import parse_sdist_filename, parse_wheel_filename

    try:
        if last.endswith(".whl"):
            name, version, *_ = parse_wheel_filename(last)
        else:
            name, version = parse_sdist_filename(last)
    except ValueError:
        return None, None
    return name, str(version)
