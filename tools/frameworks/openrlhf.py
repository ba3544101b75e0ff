"""OpenRLHF: the options of its training commands (argparse)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import Release, Table, argument_keys, facts, merged, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.3.8", "0.5.9.post1", "0.6.4", "0.7.5", "0.8.11", "0.9.10", "0.10.4", "0.11.2")


def _keys(release: Release) -> Table:
    """The options of all its training commands."""
    names = release.names(r".*openrlhf/cli/train_\w+\.py")
    return merged(argument_keys(release.tree(name)) for name in names)


def read(wheels: Path) -> dict[str, Any]:
    """The options of its releases; which command takes which is not told apart."""
    found = releases(wheels / "openrlhf", "openrlhf", VERSIONS)
    tables = [_keys(release) for release in found]
    return facts(found, with_history(tables[-1], tables[:-1]))
