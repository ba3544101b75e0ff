"""XTuner's Python configs: ``lora=dict(type=LoraConfig, ...)`` in the dict of a model.

Read in xtuner 0.2.0: model/{sft,llava,internvl}.py for what becomes of them (``BUILDER.build``
calls ``type`` with the other keys; where ``target_modules`` is absent, every linear layer's name is
filled in), model/utils.py ``find_all_linear_names``; tools/train.py for files whose ``model`` and
``lora`` stand side by side and are given to transformers' Trainer; configs/ for how files are
written. The defaults are peft's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    lora_values,
    read_node,
    read_slots,
)
from lora_lint.dialects.peft import DIALECT as PEFT
from lora_lint.facts import known_fields, newest_peft
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe, StrayKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

# Keywords of XTuner's models that take a LoraConfig, and those of the model it goes into.
_SECTIONS: Final = {
    "lora": "llm",
    "llm_lora": "llm",
    "visual_encoder_lora": "visual_encoder",
}
_LOADING: Final = {
    "pretrained_model_name_or_path": "base_model",
    "torch_dtype": "dtype",
    "dtype": "dtype",
    "trust_remote_code": "trust_remote_code",
    "attn_implementation": "attn_implementation",
    "device_map": "device_map",
}
_RUN: Final[dict[str, KeyPath]] = {
    "per_device_train_batch_size": ("train_dataloader", "batch_size"),
    "max_length": ("train_dataloader", "dataset", "max_length"),
    "packing": ("train_dataloader", "dataset", "pack_to_max_length"),
    "gradient_accumulation_steps": ("optim_wrapper", "accumulative_counts"),
    "learning_rate": ("optim_wrapper", "optimizer", "lr"),
    "weight_decay": ("optim_wrapper", "optimizer", "weight_decay"),
    "max_grad_norm": ("optim_wrapper", "clip_grad", "max_norm"),
}
# Where the same stands in files for transformers' Trainer.
_TRAINER: Final[dict[str, KeyPath]] = {
    "max_length": ("train_dataset", "max_length"),
    "packing": ("train_dataset", "pack_to_max_length"),
    **{
        name: ("training_args", name)
        for name in (
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "gradient_checkpointing",
            "learning_rate",
            "weight_decay",
            "max_grad_norm",
            "optim",
            "fp16",
            "bf16",
        )
    },
}
_OPTIMIZERS: Final = {
    "torch.optim.AdamW": "adamw_torch",
    "bitsandbytes.optim.PagedAdamW32bit": "paged_adamw_32bit",
    "bitsandbytes.optim.AdamW8bit": "adamw_8bit",
}
# Layers that ``find_all_linear_names`` leaves out.
_HEADS: Final = ("lm_head", "output_layer")
_SFT: Final = "xtuner 0.2.0 model/sft.py"


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The dicts of PEFT's LoraConfig in the dict of one of XTuner's models."""
    if document.format not in ("python", "notebook"):
        return
    for part, root in enumerate(document.parts):
        model = root.node.get("model")
        if model is None:
            continue
        if _type(model).startswith("xtuner."):
            paths: list[KeyPath] = [("model", key) for key in _SECTIONS]
        else:
            paths = [("lora",)] if _type(model).endswith(".from_pretrained") else []
        for path in paths:
            if _is_lora(root.node.at(path)):
                yield part, path


def _is_lora(node: Node | None) -> bool:
    package, _, last = _type(node).rpartition(".") if node is not None else ("", "", "")
    return package.partition(".")[0] == "peft" and last == "LoraConfig"


def _type(node: Node) -> str:
    """The dotted name of what a dict is built by."""
    found = node.get("type") if node.kind == "mapping" else None
    return found.value if found is not None and isinstance(found.value, str) else ""


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a dict of LoraConfig."""
    root = document.parts[part].node
    model, section = root.get("model"), root.at(path)
    assert section is not None  # noqa: S101 - find() gave the path
    assert model is not None  # noqa: S101 - and this is above it
    fields = read_slots(section, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    if section.get("**") is not None:
        unknown = Field(None, "unknown", None, "it may come in through `**`")
        fields |= {n: unknown for n in DIALECT.slots if section.get(n) is None}
    targets = fields.get("target_modules", UNSET)
    if targets.origin != "unknown" and targets.value is None:
        fields["target_modules"] = Field(
            "all-linear", "default", None, f"{_SFT}: every linear layer's name"
        )
    own = len(path) == 2  # a model of XTuner's own
    holder: KeyPath = ("model", _SECTIONS[str(path[-1])]) if own else ("model",)
    fields |= _loaded(root.at(holder), holder)
    for name, at in (_RUN if own else _TRAINER).items():
        node = root.at(at)
        if node is not None:
            fields[name] = read_node(node, at)
    if own:
        fields["optim"] = _optimizer(root)
        fields["gradient_checkpointing"] = _checkpointing(model)
    known = known_fields(newest_peft())
    return Recipe(
        dialect="xtuner",
        part=part,
        path=path,
        fields=fields,
        stray=tuple(
            StrayKey((*path, key), key, "rejected", tuple(sorted(known)), complete=True)
            for key in section.keys()
            if key not in known and key not in ("type", "**")
        ),
        model_class=_class(root.at(holder)),
        private={
            "model": _type(model).rpartition(".")[2],
            "loaded": root.at(holder) is not None,
            "weights": model.get("peft_model") is not None,
        },
    )


def _class(loaded: Node | None) -> str | None:
    """The class whose ``from_pretrained`` loads the model."""
    name = _type(loaded) if loaded is not None else ""
    owner, _, last = name.rpartition(".")
    return owner.rpartition(".")[2] if last == "from_pretrained" else None


def _loaded(loaded: Node | None, path: KeyPath) -> dict[str, Field]:
    """What the dict of ``from_pretrained`` says."""
    if loaded is None or loaded.kind != "mapping":
        return {}
    fields = {}
    for key, name in _LOADING.items():
        node = loaded.get(key)
        if node is not None:
            fields[name] = read_node(node, (*path, key))
    dtype = fields.get("dtype")
    if dtype is not None and isinstance(dtype.value, str):
        fields["dtype"] = dtype._replace(value=dtype.value.removeprefix("torch."))
    return fields | _quantization(loaded.get("quantization_config"), path)


def _quantization(config: Node | None, path: KeyPath) -> dict[str, Field]:
    """BitsAndBytesConfig as a dict; its 4-bit type is fp4 unless told otherwise."""
    source = "transformers BitsAndBytesConfig"
    path = (*path, "quantization_config")
    if config is None or (config.kind == "scalar" and config.value is None):
        return {"quantization": Field("none", "default", None, "no quantization_config")}
    if not _type(config).endswith(".BitsAndBytesConfig") or config.get("**") is not None:
        why = "it is no BitsAndBytesConfig of this file"
        return {"quantization": Field(None, "unknown", path, why)}
    four, eight = config.get("load_in_4bit"), config.get("load_in_8bit")
    if any(node is not None and node.kind != "scalar" for node in (four, eight)):
        return {"quantization": Field(None, "unknown", path, "its switches are not static")}
    if four is not None and four.value is True:
        kind, nested = config.get("bnb_4bit_quant_type"), config.get("bnb_4bit_use_double_quant")
        at = (*path, "load_in_4bit")
        return {
            "quantization": Field(kind.value if kind else "fp4", "computed", at, source),
            "double_quant": Field(bool(nested and nested.value is True), "computed", at, source),
        }
    if eight is not None and eight.value is True:
        return {"quantization": Field("int8", "computed", (*path, "load_in_8bit"), source)}
    return {"quantization": Field("none", "computed", path, source)}


def _optimizer(root: Node) -> Field:
    path: KeyPath = ("optim_wrapper", "optimizer", "type")
    node = root.at(path)
    name = node.value if node is not None and isinstance(node.value, str) else ""
    if not name:
        return UNSET
    if name in _OPTIMIZERS:
        return Field(_OPTIMIZERS[name], "computed", path)
    return Field(None, "unknown", path, f"{name} is not transformers'")


def _checkpointing(model: Node) -> Field:
    """``use_activation_checkpointing``, on where it is absent."""
    node = model.get("use_activation_checkpointing")
    if node is None:
        return Field(True, "default", None, _SFT)
    return read_node(node, ("model", "use_activation_checkpointing"))


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """The dict's own keys, and the names of all linear layers where it names none."""
    if not recipe.private["loaded"]:
        return Undecided(f"{recipe.private['model']} gives LoRA to a part of its model")
    values: dict[str, Any] = {
        name: v
        for name, v in lora_values(recipe, list(DIALECT.slots)).items()
        if recipe.written(name) or recipe[name].origin == "unknown"
    }
    if recipe["target_modules"].origin == "default":
        values["target_modules"] = UNKNOWN if tree is None else _linear_names(tree)
    return LoraKwargs(values)


def _linear_names(tree: ModuleTree) -> list[str]:
    """``find_all_linear_names``: the last parts of linear layers' names, without the head's."""
    names = dict.fromkeys(
        name.rpartition(".")[2] for name, node in tree.named_modules() if node.kind == "Linear"
    )
    return [name for name in names if name not in _HEADS]


DIALECT: Final = Dialect(
    name="xtuner",
    title="XTuner",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (name,)) for name in PEFT.slots if name != "base_model"},
    defaults={n: d for n, d in PEFT.defaults.items() if n != "target_modules"},
    refusal="got an unexpected keyword argument",
)
