"""``peft.LoraConfig(...)`` in Python files and notebooks, with the model that it is given to.

Source of the defaults: peft's LoraConfig, read out of each release (``lora_lint/data/peft.json``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import Dialect, LoraKwargs, Slot, Undecided, read_slots
from lora_lint.dialects.peft import DIALECT as PEFT
from lora_lint.dialects.runs import (
    TRL_TRAINERS,
    has_reference,
    model_fields,
    prepared,
    run_of,
    sure,
    trained_for,
    trainers_of,
    training,
)
from lora_lint.documents import calls
from lora_lint.facts import known_fields, newest_peft
from lora_lint.recipe import Field, Recipe, StrayKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.models import ModuleTree


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The calls of PEFT's LoraConfig."""
    if document.format not in ("python", "notebook"):
        return
    for site in calls.sites(document):
        if site.name == "LoraConfig" and calls.is_from(site.call, "peft"):
            yield site.part, site.path


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a call of LoraConfig."""
    call = document.parts[part].node.at(path)
    assert call is not None  # noqa: S101 - find() gave the path
    fields = read_slots(call, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    if calls.is_open(call):
        unknown = Field(None, "unknown", None, "it may come in through `**`")
        absent = [n for n in DIALECT.slots if n not in fields or fields[n].origin == "default"]
        fields |= {name: unknown for name in absent if call.get(name) is None}
    fields = {name: sure(field) for name, field in fields.items()}
    run = run_of(document, call)
    found, model_class = model_fields(document, run)
    fields |= found
    if run.arguments is not None:
        fields |= training(document, run.arguments)
    if run.prepared is not None:
        fields |= prepared(document, run.prepared, fields)
    known = known_fields(newest_peft())
    trainers = trainers_of(document)
    own = run.arguments is not None and calls.is_from(run.arguments, "trl")
    return Recipe(
        dialect="peft_python",
        part=part,
        path=path,
        fields=fields,
        stray=tuple(
            StrayKey((*path, key), key, "rejected", tuple(sorted(known)), complete=True)
            for key in call.keys()
            if key not in known and key not in ("*", "**")
        ),
        model_class=model_class,
        objective=trained_for(document),
        private={
            "in_place": run.in_place,
            "positional": any(isinstance(entry.key, int) for entry in call.entries),
            "trainer": bool(trainers),
            "trl": own or bool(trainers & TRL_TRAINERS),
            "trl_arguments": own,
            "reference": has_reference(document),
        },
    )


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """The keywords themselves: PEFT fills in its own defaults."""
    if recipe.private.get("positional"):
        return Undecided("LoraConfig is called with positional arguments")
    values: dict[str, Any] = {}
    for name in DIALECT.slots:
        field = recipe[name]
        if field.path is not None or field.origin == "unknown" or recipe.written(name):
            values[name] = recipe.value(name)
    for key in recipe.stray:
        values.setdefault(key.name, None)
    patches = {"no-wrapper"} if recipe.private.get("in_place") else set()
    return LoraKwargs(values, patches=frozenset(patches))


DIALECT: Final = Dialect(
    name="peft_python",
    title="PEFT",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (name,)) for name in PEFT.slots if name != "base_model"},
    defaults=PEFT.defaults,
    refusal=PEFT.refusal,
)
