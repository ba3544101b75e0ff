"""transformers' TrainingArguments, which other frameworks' files take too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frameworks.common import Source, Table, class_keys, merged, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("4.36.2", "4.40.2", "4.44.2", "4.48.3", "4.52.4", "4.57.6", "5.0.0", "5.23.0")
CLASSES = ("TrainingArguments", "Seq2SeqTrainingArguments")


def training_arguments(wheels: Path) -> Table:
    """The keys of TrainingArguments and its Seq2Seq kind."""
    tables = []
    for release in releases(wheels / "transformers", "transformers", VERSIONS):
        source = Source.of(release, r"transformers/(training_args(_seq2seq)?|trainer_utils)\.py")
        tables.append(merged(class_keys(source, name) for name in CLASSES))
    return with_history(tables[-1], tables[:-1])
