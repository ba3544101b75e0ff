"""PEFT's own spelling: adapter_config.json, and LoraConfig keywords in YAML or JSON.

Source of the defaults: peft's LoraConfig, read out of each release (``lora_lint/data/peft.json``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    lora_values,
    read_node,
    read_slots,
)
from lora_lint.facts import field_defaults, known_fields, newest_peft
from lora_lint.recipe import Field, Recipe, StrayKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

# Sections of home-made files whose keys are LoraConfig's keywords.
SECTIONS: Final = ("lora", "peft", "peft_config", "lora_config")
# Keys that only LoraConfig has; two of them, or one beside `r`, make a mapping a LoraConfig.
_OWN_KEYS: Final = frozenset(
    {
        "alpha_pattern",
        "exclude_modules",
        "fan_in_fan_out",
        "init_lora_weights",
        "layer_replication",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "modules_to_save",
        "rank_pattern",
        "target_modules",
        "target_parameters",
        "use_dora",
        "use_rslora",
    }
)
# Keys by which other frameworks' files, or other adapters, are told from LoraConfig keywords.
_FOREIGN_KEYS: Final = frozenset(
    {"lora_r", "lora_rank", "rank", "_target_", "_component_", "lora_target", "network_module"}
)
# What Hydra takes for itself beside the keywords (`_target_: peft.LoraConfig`).
_HYDRA: Final = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
# Where home-made files name their base model, beside or above the section.
_MODEL_KEYS: Final = (
    ("base_model_name_or_path",),
    ("base_model",),
    ("model_name_or_path",),
    ("pretrained_model_name_or_path",),
    ("model_name",),
    ("model_id",),
    ("model", "name_or_path"),
    ("model", "model_name_or_path"),
    ("model", "pretrained_model_name_or_path"),
    ("model", "base_model"),
    ("model", "model_name"),
    ("model", "name"),
    ("model", "model_id"),
    ("model",),
)
# What home-made files say of the run beside or above the section, under transformers' and TRL's own
# names.
_RUN_KEYS: Final = {
    "learning_rate": "learning_rate",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "optim": "optim",
    "attn_implementation": "attn_implementation",
    "packing": "packing",
    "deepspeed": "deepspeed",
    "fsdp": "fsdp",
    "device_map": "device_map",
    "trust_remote_code": "trust_remote_code",
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "max_length": "max_length",
    "max_seq_length": "max_length",
    "fp16": "fp16",
    "bf16": "bf16",
}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """LoraConfig keywords at the top, or in a section named for them at the top or one level
    down.
    """
    if document.format not in ("yaml", "json"):
        return
    for part, root in enumerate(document.parts):
        for path in _candidates(root.node):
            node = root.node.at(path)
            if node is not None and _is_lora_config(node, in_section=bool(path)):
                yield part, path


def _candidates(root: Node) -> Iterator[KeyPath]:
    if root.kind != "mapping":
        return
    yield ()
    for key in root.keys():
        if key in SECTIONS:
            yield (key,)
            inner = root.get(key)
            if inner is not None and inner.kind == "mapping":
                yield from ((key, name) for name in inner.keys() if name in SECTIONS)
        else:
            inner = root.get(key)
            if inner is not None and inner.kind == "mapping":
                yield from ((key, name) for name in inner.keys() if name in SECTIONS)


def _is_lora_config(node: Node, *, in_section: bool) -> bool:
    if node.kind != "mapping":
        return False
    keys = set(node.keys())
    kind = node.get("peft_type")
    if kind is not None:
        return str(kind.value).upper() == "LORA"
    target = node.get("_target_")
    if target is not None and str(target.value).startswith("peft."):
        return str(target.value).endswith(".LoraConfig")
    if keys & _FOREIGN_KEYS or (in_section and _short_names(keys)):
        return False
    own = len(keys & _OWN_KEYS)
    return own >= 2 or (own == 1 and ("r" in keys or in_section)) or (in_section and "r" in keys)


def _short_names(keys: set[str]) -> bool:
    """Whether a section has names of its program's own for what LoraConfig has longer ones for."""
    return any(n in keys and f"lora_{n}" not in keys for n in ("alpha", "dropout"))


def _slots() -> dict[str, Slot]:
    names = sorted(known_fields(newest_peft()) - {"peft_type", "base_model_name_or_path"})
    return {
        "base_model": Slot("base_model", ("base_model_name_or_path",)),
        **{name: Slot(name, (name,)) for name in names},
    }


def _defaults() -> dict[str, Default]:
    version = newest_peft()
    source = f"peft {version} LoraConfig"
    skipped = ("peft_type", "peft_version", "base_model_name_or_path", "runtime_config")
    return {
        name: Default(value, source)
        for name, value in field_defaults(version).items()
        if name not in skipped
    }


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a mapping of LoraConfig keywords; null is a value here, as for PEFT."""
    root = document.parts[part].node
    mapping = root.at(path)
    assert mapping is not None  # noqa: S101 - find() gave the path
    # a section of a run's own file is what it trains with
    finished = mapping.get("peft_type") is not None and (not path or document.format == "json")
    fields = read_slots(mapping, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    fields |= surroundings(root, path)
    known = known_fields(newest_peft())
    stray = [
        StrayKey(
            (*path, key),
            key,
            "ignored" if finished else "unclear",
            tuple(sorted(known)),
            complete=True,
        )
        for key in mapping.keys()
        if key not in known and key not in _HYDRA
    ]
    return Recipe(
        dialect="peft",
        part=part,
        path=path,
        fields=fields,
        stray=tuple(stray),
        trains=not finished,
    )


def surroundings(root: Node, path: KeyPath) -> dict[str, Field]:
    """The base model and training arguments that stand beside or above a section."""
    fields: dict[str, Field] = {}
    for depth in range(len(path), -1, -1):
        holder = root.at(path[:depth])
        if holder is None:
            continue
        for keys in _MODEL_KEYS:
            node = holder.at(keys)
            if "base_model" not in fields and node is not None and isinstance(node.value, str):
                fields["base_model"] = read_node(node, path[:depth] + keys)
        for key, name in _RUN_KEYS.items():
            node = holder.get(key)
            if name not in fields and node is not None:
                fields[name] = read_node(node, (*path[:depth], key), AS_WRITTEN)
        if "quantization" not in fields and (found := _quantization(holder, path[:depth])):
            fields["quantization"] = found
    return fields


def _quantization(holder: Node, path: KeyPath) -> Field | None:
    """BitsAndBytesConfig's switches; its 4-bit type is fp4 unless told otherwise."""
    for key, value in (("load_in_4bit", "fp4"), ("load_in_8bit", "int8")):
        switch = holder.get(key)
        if switch is not None and switch.value is True:
            kind = holder.get("bnb_4bit_quant_type")
            if key == "load_in_4bit" and kind is not None and isinstance(kind.value, str):
                value = kind.value
            return Field(value, "computed", (*path, key), "transformers BitsAndBytesConfig")
    return None


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """The written keywords themselves: PEFT fills in its own defaults."""
    names = [name for name in DIALECT.slots if name != "base_model"]
    values: dict[str, Any] = {
        name: v
        for name, v in lora_values(recipe, names).items()
        if recipe.written(name) or recipe[name].origin == "unknown"
    }
    if not recipe.trains:
        values |= {key.name: None for key in recipe.stray}
    elif (own := _own_key(recipe)) is not None:
        return Undecided(
            f"`{own}` is no LoraConfig keyword, so a program reads this in its own way"
        )
    return LoraKwargs(values, "kwargs" if recipe.trains else "adapter_config")


def _own_key(recipe: Recipe) -> str | None:
    """A key in the section that is neither LoraConfig's nor one of those misspelt: the section
    follows a schema of its own, and what reaches LoraConfig is not known.
    """
    from difflib import get_close_matches

    for key in recipe.stray if recipe.path else ():
        if key.name not in _RUN_KEYS and not get_close_matches(key.name, key.known, 1, 0.75):
            return key.name
    return None


DIALECT: Final = Dialect(
    name="peft",
    title="PEFT",
    find=find,
    read=read,
    lower=lower,
    slots=_slots(),
    defaults=_defaults(),
    refusal="got an unexpected keyword argument",
)
