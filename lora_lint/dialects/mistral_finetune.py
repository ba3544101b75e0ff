"""mistral-finetune's YAML.

Read in the repository at its last state: finetune/args.py and model/args.py for keys and defaults,
train.py for dtype and optimizer, model/transformer.py for which layers have LoRA (all linear ones
but the output), model/lora.py for the scale: ``scaling`` itself, where PEFT has ``lora_alpha / r``.
Files are read by simple-parsing: texts become the declared type, an unknown key at the top is
refused, one inside a section is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
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
from lora_lint.dialects.tables import stray, table
from lora_lint.documents.document import NotEditable
from lora_lint.recipe import UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree
    from lora_lint.recipe import StrayKey


def _scaling(alpha: Any, recipe: Recipe) -> Any:
    """The ``scaling`` that an alpha is with the recipe's rank."""
    rank = recipe.value("r")
    if not isinstance(rank, int) or rank <= 0 or not isinstance(alpha, int | float):
        msg = "scaling is lora_alpha / r, and r is not known"
        raise NotEditable(msg)
    return alpha / rank


_SLOTS: Final = {
    "base_model": Slot("base_model", ("model_id_or_path",)),
    "r": Slot("r", ("lora", "rank"), NUMBER),
    "lora_alpha": Slot(
        "lora_alpha", ("lora", "scaling"), Codec(NUMBER.decode, NUMBER.encode, within=_scaling)
    ),
    "lora_dropout": Slot("lora_dropout", ("lora", "dropout"), NUMBER),
    "max_length": Slot("max_length", ("seq_len",), NUMBER),
    "per_device_train_batch_size": Slot("per_device_train_batch_size", ("batch_size",), NUMBER),
    "gradient_accumulation_steps": Slot(
        "gradient_accumulation_steps", ("num_microbatches",), NUMBER
    ),
    "gradient_checkpointing": Slot("gradient_checkpointing", ("checkpoint",), BOOLEAN),
    "learning_rate": Slot("learning_rate", ("optim", "lr"), NUMBER),
    "weight_decay": Slot("weight_decay", ("optim", "weight_decay"), NUMBER),
    "max_grad_norm": Slot("max_grad_norm", ("max_norm",), NUMBER),
}
_ARGS: Final = "mistral-finetune finetune/args.py"
_LORA: Final = "mistral-finetune model/args.py"
_TRAIN: Final = "mistral-finetune train.py"
_LAYERS: Final = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
_NAMES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")
_USUAL: Final = Default(2.0, _LORA)
_DEFAULTS: Final = {
    "r": Default(16, _LORA),
    "lora_dropout": Default(0.0, _LORA),
    "target_modules": Default(list(_LAYERS), "mistral-finetune model/transformer.py"),
    "bias": Default("none", "mistral-finetune model/lora.py"),
    "task_type": Default("CAUSAL_LM", _TRAIN),
    "dtype": Default("bfloat16", _TRAIN),
    "quantization": Default("none", _TRAIN),
    "optim": Default("adamw_torch", _TRAIN),
    "packing": Default(True, "mistral-finetune finetune/data/dataset.py"),
    "max_length": Default(2048, _ARGS),
    "per_device_train_batch_size": Default(1, _ARGS),
    "gradient_accumulation_steps": Default(1, _ARGS),
    "gradient_checkpointing": Default(True, _ARGS),
    "learning_rate": Default(3e-4, _ARGS),
}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files with a model's path and sequence length in its words, and LoRA's section or a run's."""
    if document.format != "yaml":
        return
    for part, root in enumerate(document.parts):
        keys = set(root.node.keys()) if root.node.kind == "mapping" else set()
        if {"model_id_or_path", "seq_len"} <= keys and keys & {"lora", "run_dir"}:
            yield part, ()


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a mistral-finetune file."""
    root = document.parts[part].node
    fields = read_slots(root, path, _SLOTS, _DEFAULTS, null_is_absent=False)
    fields["lora_alpha"] = _alpha(fields)
    if fields.get("base_model", UNSET).value == "":
        fields["base_model"] = UNSET  # to be filled in
    enable = root.at(("lora", "enable"))
    return Recipe(
        dialect="mistral_finetune",
        part=part,
        path=path,
        fields=fields,
        stray=tuple(_stray(root, path)),
        adapter=enable is None or BOOLEAN.decode(enable.value) is not False,
        switch="lora.enable",
        objective="sft",
    )


def _alpha(fields: dict[str, Field]) -> Field:
    """``scaling`` times the rank: what PEFT calls lora_alpha."""
    rank, written = fields["r"], fields.get("lora_alpha")
    scaling = _USUAL.value if written is None else written.value
    path = None if written is None else written.path
    if not isinstance(rank.value, int) or not isinstance(scaling, int | float):
        return Field(None, "unknown", path, "scaling * rank, of which one is not a number")
    alpha = round(scaling * rank.value, 9)
    alpha = int(alpha) if float(alpha).is_integer() else alpha
    if written is None:
        return Field(alpha, "default", None, _USUAL.source)
    return Field(alpha, "computed", path, "scaling * rank")


def _stray(root: Node, path: KeyPath) -> Iterator[StrayKey]:
    """Unknown keys: those at the top are refused, those in sections dropped."""
    for found in stray(root, path, table("mistral_finetune"), "rejected"):
        inside = len(found.path) > len(path) + 1
        yield found._replace(effect="ignored") if inside else found


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """The LoraConfig that would put the same layers into Hugging Face's model."""
    leaves = {name.rpartition(".")[2] for name, _ in tree.named_modules()} if tree else set(_NAMES)
    if not leaves.issuperset(_NAMES) or "experts" in leaves:
        return Undecided("mistral-finetune adapts every linear layer, which this model has in one")
    value = recipe.value
    return LoraKwargs(
        {
            "r": value("r"),
            "lora_alpha": value("lora_alpha"),
            "lora_dropout": value("lora_dropout"),
            "target_modules": list(_NAMES),
            "bias": "none",
            "task_type": "CAUSAL_LM",
        }
    )


DIALECT: Final = Dialect(
    name="mistral_finetune",
    title="mistral-finetune",
    find=find,
    read=read,
    lower=lower,
    slots=_SLOTS,
    defaults={**_DEFAULTS, "scale": _USUAL},
    parses_numbers=True,
    refusal="got an unexpected keyword argument",
    applied_by="mistral-finetune",
)
