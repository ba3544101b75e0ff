"""ms-swift's YAML files for Megatron on Ray.

Read in ms_swift 4.6.0 ray/megatron/driver_utils.py ``parse_ray_yaml``: keys at the top are shared
by all roles, those under ``train``, ``rollout`` and ``teacher`` are a role's own and win
(pipeline.py: ``{**shared_cfg, **group_cfgs["train"]}``). What is trained is what ``megatron sft``
would train with the same keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.dialects import ms_swift
from lora_lint.dialects.arguments import text
from lora_lint.dialects.base import Dialect, LoraKwargs, Slot, Undecided, read_slots
from lora_lint.recipe import NOTHING, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.models import ModuleTree

_ROLE: Final = "train"
_ALL: Final = "every linear layer (all-linear)"


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files with a training role that has LoRA settings, and a model that all roles share."""
    for part, root in enumerate(document.parts):
        role = root.node.get(_ROLE)
        if role is None or role.kind != "mapping" or root.node.get("model") is None:
            continue
        if text(role, "tuner_type") == "lora" or role.get("lora_rank") is not None:
            yield part, (_ROLE,)


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """The recipe of the training role, with what it shares."""
    root = document.parts[part].node
    role = root.at(path)
    assert role is not None  # noqa: S101 - find() gave the path
    fields = read_slots(root, (), DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    fields |= read_slots(role, path, DIALECT.slots, NOTHING, null_is_absent=False)
    targets = fields.get("target_modules")
    if targets is None or targets.value in (["all-linear"], "all-linear"):
        every = Field("all-linear", "default", None, _ALL)
        fields["target_modules"] = (
            every if targets is None else every._replace(origin="computed", path=targets.path)
        )
    fields["task_type"] = Field("CAUSAL_LM", "computed")
    switch = text(role, "tuner_type") or text(root, "tuner_type")
    return Recipe(
        dialect="ms_swift_ray",
        part=part,
        path=path,
        fields=fields,
        adapter=switch == "lora",
        switch="tuner_type",
        objective=text(root, "rlhf_type") or "grpo",
    )


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """Not known: Megatron's modules have other names than the model's."""
    return Undecided("Megatron's modules have other names than the model's")


DIALECT: Final = Dialect(
    name="ms_swift_ray",
    title="ms-swift (Ray)",
    find=find,
    read=read,
    lower=lower,
    slots={
        name: Slot(name, slot.path, slot.codec) for name, slot in ms_swift.megatron_slots().items()
    },
    defaults=ms_swift.megatron_defaults(),
    parses_numbers=True,
)
