"""Version specifiers, and the known releases that they admit.

Every source is read into PEP 440 specifiers, one for each place that names the package.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packaging.specifiers import Specifier, SpecifierSet

# Specifiers by package.
Named: TypeAlias = "Mapping[str, Sequence[str]]"

PACKAGES: Final = ("peft", "transformers", "bitsandbytes", "trl")
# In place of a specifier: a branch, a folder, ... whose version nobody can know from here.
NO_RELEASE: Final = "@"
# No requirement that people write is longer; what reads them is not made for more.
LONGEST: Final = 1000
# Bounds are shown as people write them, the lower one first.
_ORDER: Final = ("===", "==", "~=", ">=", ">", "<", "<=", "!=")
_PLAIN: Final = re.compile(r"==\d+(?:\.\d+)*")
# They mean nothing: 0.7 is 0.7.0.
_ZEROS: Final = re.compile(r"(?:\.0)+$")


class Admitted(NamedTuple):
    """What specifiers admit: a text for people, and the bounds; empty bounds mean the text."""

    text: str
    lowest: str = ""
    highest: str = ""

    @property
    def bounds(self) -> tuple[str, str]:
        """The oldest and the newest release."""
        return self.lowest or self.text, self.highest or self.text


class Collected(dict[str, list[str]]):
    """Specifiers by package, while they are read."""

    def add(self, package: str | None, *specifiers: str) -> None:
        """Note specifiers of a package, if it is one that matters."""
        if package is not None:
            self.setdefault(package, []).extend(specifiers)


def package_called(name: object) -> str | None:
    """The package that a name means (PEP 503), if it is one that matters."""
    normal = re.sub(r"[-_.]+", "-", name).lower() if isinstance(name, str) else ""
    return normal if normal in PACKAGES else None


def admitted(specifiers: Sequence[str], releases: Sequence[str]) -> Admitted | None:
    """What the specifiers of several places admit together; None where they teach nothing."""
    parts = [part for s in dict.fromkeys(specifiers) if (part := _admitted(s, releases))]
    if len(parts) < 2:
        return parts[0] if parts else None
    from packaging.version import Version

    bounds = sorted({bound for part in parts for bound in part.bounds}, key=Version)
    widest = (bounds[0], bounds[-1])
    for part in parts:
        if part.bounds == widest:
            return part
    return Admitted(f"{widest[0]} to {widest[1]}", *widest)


def _admitted(text: str, releases: Sequence[str]) -> Admitted | None:
    # What lock files say needs none of packaging, which takes longer to load than they to read.
    if _PLAIN.fullmatch(text):
        pinned = _ZEROS.sub("", text[2:])
        same = (release for release in releases if _ZEROS.sub("", release) == pinned)
        return Admitted(next(same, text[2:]))
    from packaging.specifiers import SpecifierSet

    try:
        specifier = SpecifierSet(text)
        pin = _pin(specifier)
        return _within(specifier, releases) if pin is None else Admitted(_known(pin, releases))
    except ValueError:  # not a specifier, or numbers too long for Python
        return None


def _within(specifier: SpecifierSet, releases: Sequence[str]) -> Admitted | None:
    fitting = [release for release in releases if specifier.contains(release, prereleases=True)]
    text = ",".join(str(part) for part in sorted(specifier, key=_place))
    if fitting:
        # All that is known: as good as no version.
        if (fitting[0], fitting[-1]) == (releases[0], releases[-1]):
            return None
        return Admitted(text, fitting[0], fitting[-1])
    from packaging.version import Version

    # Newer than all that is known: its bound is the best guess.
    bounds = [part.version.removesuffix(".*") for part in specifier]
    if not bounds:
        return None
    bound = max(bounds, key=Version)
    return Admitted(text, bound, bound)


def _place(part: Specifier) -> tuple[int, str]:
    return _ORDER.index(part.operator), part.version


def _pin(specifier: SpecifierSet) -> str | None:
    """The one version that a specifier admits."""
    for part in sorted(specifier, key=_place):
        if part.operator in ("==", "===") and not part.version.endswith(".*"):
            return part.version
    return None


def _known(version: str, releases: Sequence[str]) -> str:
    """A version as the releases spell it: 0.7 is 0.7.0."""
    from packaging.version import Version

    exact = Version(version)
    return next((release for release in releases if Version(release) == exact), str(exact))
