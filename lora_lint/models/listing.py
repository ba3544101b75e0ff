"""The models that are known by name, and the ones that a wrong name may have meant."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.models import catalogue, names
from lora_lint.models.hub_cache import is_repository

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lora_lint.models.catalogue import Entry
    from lora_lint.models.module_tree import Grade
    from lora_lint.models.resolve import Unresolved


class Listed(NamedTuple):
    """A model's id, the class it is built as (None where only the model type is known), its grade,
    and the number of its parameters where its sizes are known.
    """

    id: str
    cls: str | None
    model_type: str | None
    grade: Grade
    parameters: int | None


def listed(words: Iterable[str] = ()) -> list[Listed]:
    """The models that resolve under their own name, by id; with words, those whose id, class or
    model type has each of them.
    """
    found = {entry.id.lower(): _entry(entry) for entry in catalogue.models()}
    for known in names.templates():
        model = Listed(known.id, known.cls, known.model_type, "named", None)
        found.setdefault(known.id.lower(), model)
    lowered = [word.lower() for word in words]
    return [
        model
        for _, model in sorted(found.items())
        if is_repository(model.id)
        and all(word in f"{model.id} {model.cls} {model.model_type}".lower() for word in lowered)
    ]


def _entry(entry: Entry) -> Listed:
    # A sized tree is stored under its class and parameter count.
    count = re.search(r"-(\d+)(?:-\d+)?$", entry.tree) if entry.grade != "named" else None
    return Listed(entry.id, entry.cls, None, entry.grade, int(count[1]) if count else None)


def near(name: str) -> list[str]:
    """Ids of known models that look like a name, the nearest first; at most three."""
    ids = [model.id for model in listed()]
    by_id = {other.lower(): other for other in ids}
    by_bare: dict[str, list[str]] = {}
    for lowered, other in by_id.items():
        by_bare.setdefault(lowered.rpartition("/")[2], []).append(other)
    bare = name.lower().rpartition("/")[2]
    found = [by_id[m] for m in difflib.get_close_matches(name.lower(), by_id, n=3, cutoff=0.8)]
    for match in difflib.get_close_matches(bare, by_bare, n=3, cutoff=0.75):
        found += by_bare[match]
    return list(dict.fromkeys(found))[:3]


# Remote code is never run here; the user may run it.
OWN_PROCESS: Final = """\
Where you load the model yourself, write its module tree and name that file instead:
  from lora_lint import ModuleTree
  open("tree.json", "w").write(ModuleTree.from_model(model).to_json())"""


def why_not(name: str, found: Unresolved) -> list[str]:
    """Why a model is not known and what helps, in lines for people."""
    lines = [found.reason.replace("; pass --model", "")]
    similar = near(name)
    if similar and similar[0].lower() != name.lower() and not found.remote_code:
        lines.append(f"Did you mean {' or '.join(similar)}? `lora-lint models` lists all.")
    return [*lines, OWN_PROCESS]
