"""TRL's YAML for its command line and scripts, which the alignment-handbook uses too.

Read in trl 1.16.0: trainer/model_config.py for keys, types and defaults; trainer/utils.py
``get_peft_config`` and ``get_quantization_config`` for what becomes of them; scripts/utils.py for
how files are read: ``yaml.safe_load``, then the values replace argparse's defaults, which turns
strings into numbers. Which trainer runs a file is not said in it, so that the trainers' own
defaults are not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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
from lora_lint.dialects.tables import ARGPARSE_DEFAULTS, judged
from lora_lint.recipe import UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_KEYS: Final = {
    "base_model": "model_name_or_path",
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
    "target_parameters": "lora_target_parameters",
    "modules_to_save": "lora_modules_to_save",
    "task_type": "lora_task_type",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "dtype": "dtype",
    "max_length": "max_length",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "optim": "optim",
    "learning_rate": "learning_rate",
    "attn_implementation": "attn_implementation",
    "packing": "packing",
    "deepspeed": "deepspeed",
    "fsdp": "fsdp",
    "trust_remote_code": "trust_remote_code",
    "fp16": "fp16",
    "bf16": "bf16",
    "max_grad_norm": "max_grad_norm",
    "weight_decay": "weight_decay",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "warmup_steps": "warmup_steps",
    "fsdp_config": "fsdp_config",
    "gradient_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "ddp_find_unused_parameters": "ddp_find_unused_parameters",
    "load_in_4bit": "load_in_4bit",
    "load_in_8bit": "load_in_8bit",
    "bnb_4bit_quant_storage": "bnb_4bit_quant_storage",
}
_NUMBERS: Final = frozenset(
    {
        "r",
        "lora_alpha",
        "lora_dropout",
        "max_length",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "max_grad_norm",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "warmup_steps",
    }
)
_BOOLEANS: Final = frozenset(
    {"use_rslora", "use_dora", "gradient_checkpointing", "packing", "trust_remote_code"}
    | {"fp16", "bf16", "load_in_4bit", "load_in_8bit", "ddp_find_unused_parameters"}
)
_MODEL: Final = "trl 1.16.0 trainer/model_config.py"
_TRAINER: Final = "transformers 5.23.0 training_args.py"
_DEFAULTS: Final = {
    "r": Default(16, _MODEL),
    "lora_alpha": Default(32, _MODEL),
    "lora_dropout": Default(0.05, _MODEL),
    "task_type": Default("CAUSAL_LM", _MODEL),
    "use_rslora": Default(False, _MODEL),
    "use_dora": Default(False, _MODEL),
    "bias": Default("none", "trl 1.16.0 trainer/utils.py"),
    "dtype": Default("float32", _MODEL),
    "per_device_train_batch_size": Default(8, _TRAINER),
    "gradient_accumulation_steps": Default(1, _TRAINER),
    "optim": Default("adamw_torch_fused", _TRAINER),
}
_LORA_KEYS: Final = ("lora_r", "lora_target_modules", "lora_task_type", "lora_modules_to_save")
# Keys by which LLaMA-Factory's files are told from TRL's.
_FOREIGN: Final = frozenset({"finetuning_type", "stage", "lora_rank", "template", "cutoff_len"})


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files that name a model and one of the LoRA keys of TRL's ModelConfig."""
    if document.format not in ("yaml", "json"):
        return
    for part, root in enumerate(document.parts):
        keys = set(root.node.keys()) if root.node.kind == "mapping" else set()
        if "model_name_or_path" not in keys or keys & _FOREIGN:
            continue
        if keys & set(_LORA_KEYS) or _is_true(root.node, "use_peft"):
            yield part, ()


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a TRL file."""
    root = document.parts[part].node
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    older = root.get("torch_dtype")
    if older is not None and root.get("dtype") is None:
        fields["dtype"] = Field(older.value, "written", ("torch_dtype",))
    fields["target_modules"] = _unwrapped(fields.get("target_modules", UNSET))
    fields["quantization"], fields["double_quant"] = _quantization(root)
    return Recipe(
        dialect="trl",
        part=part,
        path=path,
        fields=fields,
        **judged(root, path, DIALECT, ARGPARSE_DEFAULTS),
        adapter=_is_true(root, "use_peft"),
        switch="use_peft",
    )


def _is_true(root: Node, key: str) -> bool:
    node = root.get(key)
    value = node.value if node is not None else None
    return value is True or (isinstance(value, str) and value.lower() in ("true", "yes", "1"))


def _unwrapped(written: Field) -> Field:
    """``ModelConfig.__post_init__``: the only entry of a list takes the list's place."""
    value = written.value
    if isinstance(value, list) and len(value) == 1:
        return Field(value[0], "computed", written.path, "TRL unwraps a list of one entry")
    return written


def _quantization(root: Node) -> tuple[Field, Field]:
    source = "trl 1.16.0 trainer/utils.py"
    if _is_true(root, "load_in_4bit"):
        kind = root.get("bnb_4bit_quant_type")
        nested = Field(_is_true(root, "use_bnb_nested_quant"), "computed", ("load_in_4bit",))
        value = kind.value if kind is not None else "nf4"
        return Field(value, "computed", ("load_in_4bit",), source), nested
    if _is_true(root, "load_in_8bit"):
        return Field("int8", "computed", ("load_in_8bit",), source), UNSET
    return Field("none", "default", None, _MODEL), UNSET


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """``get_peft_config``: what TRL passes to LoraConfig."""
    value = recipe.value
    values: dict[str, Any] = {
        "task_type": value("task_type"),
        "r": value("r"),
        "target_modules": value("target_modules"),
        "lora_alpha": value("lora_alpha"),
        "lora_dropout": value("lora_dropout"),
        "bias": "none",
        "use_rslora": value("use_rslora"),
        "use_dora": value("use_dora"),
        "modules_to_save": value("modules_to_save"),
    }
    if value("target_parameters") is not None:
        values["target_parameters"] = value("target_parameters")
    return LoraKwargs(values)


def _codec(name: str) -> Codec:
    return NUMBER if name in _NUMBERS else BOOLEAN if name in _BOOLEANS else AS_WRITTEN


DIALECT: Final = Dialect(
    name="trl",
    title="TRL",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (key,), _codec(name)) for name, key in _KEYS.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    refusal="Unknown arguments from config file",
)
