"""Which PEFT, transformers and GPU the user trains with, and how that is known."""

from __future__ import annotations

from typing import NamedTuple


class Version(NamedTuple):
    """A version, and where it comes from: ``--peft-version``, a lock file, ..."""

    version: str
    source: str


class Environment(NamedTuple):
    """What the user trains with; None where nothing says so."""

    peft: Version | None = None
    transformers: Version | None = None
    gpu: str | None = None
