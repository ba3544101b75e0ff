"""TRL: ModelConfig, ScriptArguments and the trainers' configs (dataclasses).

What its readers take beside them: ``trl NAME`` hands options that it does not know to ``accelerate
launch``, whether they come from the command line or a config file; and the alignment-handbook's
recipes, which are TRL's with some keys of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import (
    Release,
    Source,
    Table,
    argument_keys,
    class_keys,
    facts,
    merged,
    releases,
    with_history,
)
from frameworks.transformers import training_arguments

if TYPE_CHECKING:
    from pathlib import Path

PATTERN = r"trl/(trainer|experimental|scripts|commands)/.*\.py"
HANDBOOK = ("0.1.0", "0.2.0", "0.3.0")
# trl 1.16.0 cli/accelerate_config.py; and `dataset_mixture` of the alignment-handbook's and
# open-r1's ScriptArguments (their repositories; no release has it).
MORE = ("accelerate_config", "dataset_mixture")


def _keys(release: Release) -> Table:
    source = Source.of(release, PATTERN)
    return merged(class_keys(source, name) for name in source.classes)


def _handbook(release: Release) -> Table:
    source = Source.of(release, r"alignment/configs\.py")
    for node in source.classes.values():
        node.bases = []  # `class SFTConfig(trl.SFTConfig)`
    return merged(class_keys(source, name) for name in source.classes)


def _accelerate(wheels: Path) -> Table:
    newest = releases(wheels / "accelerate", "accelerate", ("1.15.0",))[-1]
    return argument_keys(newest.tree("accelerate/commands/launch.py"))


def read(wheels: Path) -> dict[str, Any]:
    """The keys that any script of TRL takes; which one runs a file is not said in it."""
    found = releases(wheels / "trl", "trl", ("1.16.0",))
    tables = [_keys(release) for release in found]
    newest = merged([tables[-1], training_arguments(wheels)])
    keys = with_history(newest, tables[:-1])
    others = [_handbook(r) for r in releases(wheels / "alignment", "alignment-handbook", HANDBOOK)]
    for name in (*MORE, *_accelerate(wheels), *merged(others)):
        keys.setdefault(name, {"old": True})  # known, and nothing more is said of it
    return facts(found, keys)
