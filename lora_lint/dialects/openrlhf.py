"""The options of OpenRLHF's training commands.

Read in openrlhf 0.11.2: cli/train_*.py for options, types and defaults; models/actor.py for what
becomes of them. Releases before 0.10 had the options without sections (``--lora_rank``; read in
0.5.9 and 0.9.10). A rank of 0, the default, is no LoRA. ``--ds.lora.target_modules all-linear`` is
the list of one name, which PEFT does not take for all linear layers; only the default is a text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lora_lint.dialects import arguments
from lora_lint.dialects.arguments import LIST
from lora_lint.dialects.base import (
    AS_WRITTEN,
    BOOLEAN,
    NUMBER,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    read_slots,
)
from lora_lint.dialects.tables import table
from lora_lint.recipe import UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_KEYS: Final = {
    "base_model": "model.model_name_or_path",
    "r": "ds.lora.rank",
    "lora_alpha": "ds.lora.alpha",
    "lora_dropout": "ds.lora.dropout",
    "target_modules": "ds.lora.target_modules",
    "dtype": "ds.param_dtype",
    "max_length": "data.max_len",
    "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_checkpointing": "model.gradient_checkpointing_enable",
    "learning_rate": "adam.lr",
    "attn_implementation": "ds.attn_implementation",
    "packing": "ds.packing_samples",
    "weight_decay": "adam.weight_decay",
    "max_grad_norm": "max_norm",
}
_OLDER: Final = {
    "base_model": ("actor.model_name_or_path", "pretrain"),
    "r": ("lora_rank",),
    "lora_alpha": ("lora_alpha",),
    "lora_dropout": ("lora_dropout",),
    "target_modules": ("target_modules",),
    "dtype": ("param_dtype",),
    "max_length": ("max_len",),
    "per_device_train_batch_size": ("micro_train_batch_size",),
    "gradient_checkpointing": ("actor.gradient_checkpointing_enable", "gradient_checkpointing"),
    "learning_rate": ("actor.adam.lr", "learning_rate", "actor_learning_rate"),
    "attn_implementation": ("attn_implementation",),
    "packing": ("packing_samples",),
    "weight_decay": ("l2",),
    "max_grad_norm": ("actor.max_norm",),
}
_BOOLEANS: Final = ("gradient_checkpointing", "packing")
_TEXTS: Final = ("base_model", "dtype", "attn_implementation")
_SFT: Final = "openrlhf 0.11.2 cli/train_sft.py"
_DEFAULTS: Final = {
    "r": Default(0, _SFT),
    "lora_alpha": Default(16, _SFT),
    "lora_dropout": Default(0, _SFT),
    "target_modules": Default("all-linear", _SFT),
    "bias": Default("none", "openrlhf 0.11.2 models/actor.py"),
    "gradient_checkpointing": Default(False, _SFT),
    "max_length": Default(2048, _SFT),
    "per_device_train_batch_size": Default(8, _SFT),
    "learning_rate": Default(5e-6, _SFT),
}
# Defaults that the commands do not share.
_OF_SFT: Final = ("max_length", "per_device_train_batch_size", "learning_rate")
_PROGRAM: Final = re.compile(r"(?:openrlhf[./]cli[./]|\.?/?)(?:.*/)?train_(\w+?)(?:\.py)?")
_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16"}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Commands of OpenRLHF that set LoRA's options."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.kind == "mapping" and arguments.is_command(node) and _objective(node) is not None:
            lora = {_KEYS[name] for name in ("r", "lora_alpha", "target_modules")}
            if lora & set(node.keys()) or {"lora_rank", "lora_alpha"} & set(node.keys()):
                yield part, ()


def _objective(node: Node) -> str | None:
    """What a command trains for; None where it is not OpenRLHF's."""
    note = node.note or ""
    if "openrlhf" not in note:
        return None
    match = _PROGRAM.fullmatch(note)
    return match[1].removesuffix("_ray") if match else None


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a command."""
    root = document.parts[part].node
    objective = _objective(root)
    slots = arguments.spelled(DIALECT.slots, root, _OLDER)
    known = {n: d for n, d in _DEFAULTS.items() if objective == "sft" or n not in _OF_SFT}
    fields = read_slots(root, path, slots, known, null_is_absent=False)
    fields["dtype"] = _dtype(root, fields.get("dtype", UNSET))
    four = arguments.truth(root, "ds.load_in_4bit") or arguments.truth(root, "load_in_4bit")
    where = "ds.load_in_4bit" if root.get("ds.load_in_4bit") is not None else "load_in_4bit"
    source = "openrlhf 0.11.2 models/actor.py"
    fields["quantization"] = (
        Field("nf4", "computed", (where,), source)
        if four
        else Field("none", "default", None, source)
    )
    fields["double_quant"] = Field(True, "default", None, source) if four else UNSET
    fields["task_type"] = (
        Field(None, "default", None, "openrlhf 0.11.2 models/model.py")
        if objective == "rm"
        else Field("CAUSAL_LM", "default", None, source)
    )
    fields = arguments.unsettled(root, fields, None)
    rank = fields["r"]
    return Recipe(
        dialect="openrlhf",
        part=part,
        path=path,
        fields=fields,
        **arguments.judged(root, path, table("openrlhf")),
        adapter=rank.origin == "unknown" or bool(rank.value),
        switch=str(slots["r"].path[-1]),
        objective=objective,
    )


def _dtype(root: Node, written: Field) -> Field:
    """bf16 unless told otherwise; before 0.9 only with ``--bf16``."""
    if written.value in _DTYPES:
        return Field(_DTYPES[str(written.value)], "computed", written.path)
    if written.origin != "unset":
        return written
    if root.get("bf16") is not None:
        return Field("bfloat16", "computed", ("bf16",))
    older = root.get("lora_rank") is not None
    return UNSET if older else Field("bfloat16", "default", None, _SFT)


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """What models/actor.py passes to LoraConfig."""
    if recipe.objective == "rm":
        return Undecided("the class of a reward model is OpenRLHF's own")
    names = ("task_type", "r", "lora_alpha", "target_modules", "lora_dropout")
    return LoraKwargs({**{name: recipe.value(name) for name in names}, "bias": "none"})


def _codec(name: str) -> Codec:
    if name == "target_modules":
        return LIST
    return BOOLEAN if name in _BOOLEANS else AS_WRITTEN if name in _TEXTS else NUMBER


DIALECT: Final = Dialect(
    name="openrlhf",
    title="OpenRLHF",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (key,), _codec(name)) for name, key in _KEYS.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    refusal="unrecognized arguments",
)
