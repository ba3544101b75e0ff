"""Oumi's YAML, and the options of ``oumi train``.

Read in oumi 0.9: core/configs/training_config.py and core/configs/params/*.py for keys, types and
defaults; ``PeftParams.to_lora`` and ``to_bits_and_bytes`` and builders/models.py for what becomes
of them; core/configs/base_config.py for how files are read: OmegaConf with a structured config,
which refuses keys it does not know, keys set twice and values of other types, takes ``1e-4`` and
``"8"`` for numbers and an enum by its member's name or value. ``${...}`` stays the text that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects import arguments
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
from lora_lint.dialects.tables import OMEGACONF, entry, judged, table
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree
    from lora_lint.recipe import Misfit

_KEYS: Final[dict[str, KeyPath]] = {
    "base_model": ("model", "model_name"),
    "r": ("peft", "lora_r"),
    "lora_alpha": ("peft", "lora_alpha"),
    "lora_dropout": ("peft", "lora_dropout"),
    "target_modules": ("peft", "lora_target_modules"),
    "exclude_modules": ("peft", "lora_exclude_modules"),
    "target_parameters": ("peft", "lora_target_parameters"),
    "modules_to_save": ("peft", "lora_modules_to_save"),
    "bias": ("peft", "lora_bias"),
    "init_lora_weights": ("peft", "lora_init_weights"),
    "task_type": ("peft", "lora_task_type"),
    "bnb_4bit_quant_type": ("peft", "bnb_4bit_quant_type"),
    "bnb_4bit_compute_dtype": ("peft", "bnb_4bit_compute_dtype"),
    "bnb_4bit_quant_storage": ("peft", "bnb_4bit_quant_storage"),
    "dtype": ("model", "torch_dtype_str"),
    "max_length": ("model", "model_max_length"),
    "attn_implementation": ("model", "attn_implementation"),
    "device_map": ("model", "device_map"),
    "trust_remote_code": ("model", "trust_remote_code"),
    "per_device_train_batch_size": ("training", "per_device_train_batch_size"),
    "per_device_eval_batch_size": ("training", "per_device_eval_batch_size"),
    "gradient_accumulation_steps": ("training", "gradient_accumulation_steps"),
    "gradient_checkpointing": ("training", "enable_gradient_checkpointing"),
    "gradient_checkpointing_kwargs": ("training", "gradient_checkpointing_kwargs"),
    "optim": ("training", "optimizer"),
    "learning_rate": ("training", "learning_rate"),
    "max_grad_norm": ("training", "max_grad_norm"),
    "weight_decay": ("training", "weight_decay"),
    "adam_beta1": ("training", "adam_beta1"),
    "adam_beta2": ("training", "adam_beta2"),
    "adam_epsilon": ("training", "adam_epsilon"),
    "warmup_steps": ("training", "warmup_steps"),
    "ddp_find_unused_parameters": ("training", "ddp_find_unused_parameters"),
    "fused_loss": ("model", "enable_liger_kernel"),
}
_NUMBERS: Final = frozenset(
    {"r", "lora_alpha", "lora_dropout", "max_length", "per_device_train_batch_size"}
    | {"per_device_eval_batch_size"}
    | {"gradient_accumulation_steps", "learning_rate", "max_grad_norm", "weight_decay"}
    | {"adam_beta1", "adam_beta2", "adam_epsilon", "warmup_steps"}
)
_BOOLEANS: Final = frozenset(
    {"trust_remote_code", "gradient_checkpointing", "ddp_find_unused_parameters", "fused_loss"}
)
_PEFT: Final = "oumi 0.9 core/configs/params/peft_params.py"
_TRAINING: Final = "oumi 0.9 core/configs/params/training_params.py"
_DEFAULTS: Final = {
    "r": Default(8, _PEFT),
    "lora_alpha": Default(8, _PEFT),
    "lora_dropout": Default(0.0, _PEFT),
    "bias": Default("none", _PEFT),
    "init_lora_weights": Default(True, _PEFT),
    "task_type": Default("CAUSAL_LM", _PEFT),
    "bnb_4bit_quant_type": Default("fp4", _PEFT),
    "bnb_4bit_compute_dtype": Default("float32", _PEFT),
    "bnb_4bit_quant_storage": Default("uint8", _PEFT),
    "per_device_train_batch_size": Default(8, _TRAINING),
    "per_device_eval_batch_size": Default(8, _TRAINING),
    "gradient_accumulation_steps": Default(1, _TRAINING),
    "gradient_checkpointing": Default(False, _TRAINING),
    "optim": Default("adamw_torch", _TRAINING),
    "learning_rate": Default(5e-5, _TRAINING),
}
# utils/torch_utils.py ``get_torch_dtype``.
_DTYPES: Final = {
    **dict.fromkeys(("f32", "float32", "float"), "float32"),
    **dict.fromkeys(("f16", "float16", "half"), "float16"),
    **dict.fromkeys(("bf16", "bfloat16"), "bfloat16"),
    **dict.fromkeys(("f64", "float64", "double"), "float64"),
}
_MODES: Final = {"bf16": "BF16", "fp16": "FP16"}
# Trainers by the names and the values of ``TrainerType``.
_OBJECTIVES: Final = {"trl_sft": "sft", "trl_dpo": "dpo", "trl_kto": "kto", "trl_grpo": "grpo"}
_COMMANDS: Final = ("oumi train", "oumi.train", "oumi")


def _init(value: Any) -> Any:
    """``to_lora``: the enum's member, by its name or its value, as what LoraConfig is told."""
    words = {
        "default": True,
        "random": False,
        "pisa": "pissa",
        "pissa_niter": "pissa_niter_[number of iters]",
    }
    if not isinstance(value, str):
        return value
    return words.get(value.lower(), value.lower())


def _init_back(value: Any) -> Any:
    return (
        {True: "DEFAULT", False: "RANDOM"}.get(value, value) if isinstance(value, bool) else value
    )


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files with a model and settings of LoRA or ``use_peft``, and commands that set them."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.kind != "mapping":
            continue
        if arguments.is_command(node):
            if node.note in _COMMANDS and any(key.startswith("peft.lora") for key in node.keys()):
                yield part, ()
            continue
        lora = any(key.startswith("lora_") for key in _section(node, "peft"))
        named = node.at(("model", "model_name"))
        trains = "training" in set(node.keys())
        if named is not None and trains and (lora or _truth(node, ("training", "use_peft"))):
            yield part, ()


def _section(node: Node, name: str) -> set[str]:
    section = node.get(name)
    return set(section.keys()) if section is not None and section.kind == "mapping" else set()


def _at(root: Node, path: KeyPath) -> Node | None:
    """The value at a path, which a command spells with dots."""
    return root.get(".".join(map(str, path))) if arguments.is_command(root) else root.at(path)


def _text(root: Node, path: KeyPath) -> str | None:
    node = _at(root, path)
    return str(node.value) if node is not None and node.kind == "scalar" else None


def _truth(root: Node, path: KeyPath) -> bool | None:
    """A boolean; None where it is absent or not one."""
    node = _at(root, path)
    value = BOOLEAN.decode(node.value) if node is not None and node.kind == "scalar" else None
    return bool(value) if isinstance(value, bool | int) else None


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of an Oumi file or command."""
    root = document.parts[part].node
    command = arguments.is_command(root)
    slots = dict(DIALECT.slots)
    if command:
        slots = {n: s._replace(path=(".".join(map(str, s.path)),)) for n, s in slots.items()}
    fields = read_slots(root, path, slots, DIALECT.defaults, null_is_absent=False)
    for name, field in fields.items():
        if isinstance(field.value, str) and "${" in field.value:
            fields[name] = Field(None, "unknown", field.path, "a template")
        elif field.value is None and field.origin == "written" and name in _OPTIONAL:
            fields[name] = UNSET
    fields["target_modules"] = _unwrapped(fields.get("target_modules", UNSET))
    fields["exclude_modules"] = _joined(fields.get("exclude_modules", UNSET))
    fields["dtype"] = _dtype(fields.get("dtype", UNSET))
    fields |= _quantization(root, path)
    for name, mode in _MODES.items():
        told = _text(root, ("training", "mixed_precision_dtype"))
        if told is not None and told.rpartition(".")[2].upper() == mode:
            where = (*path, "training", "mixed_precision_dtype")
            fields[name] = Field(True, "computed", where)
    if command:
        fields = arguments.unsettled(root, fields, "the config file")
    trainer = (_text(root, ("training", "trainer_type")) or "").rpartition(".")[2].lower()
    found = {} if command else judged(root, path, DIALECT, OMEGACONF)
    misfits = tuple(m for m in found.get("misfits", ()) if not _is_member(m))
    return Recipe(
        dialect="oumi",
        part=part,
        path=path,
        fields=fields,
        stray=found.get("stray", ()),
        misfits=misfits,
        adapter=command or bool(_truth(root, ("training", "use_peft"))),
        switch="training.use_peft",
        objective=_OBJECTIVES.get(trainer),
        private={"other_way": _other_way(root, trainer)},
    )


# Fields whose key may be null.
_OPTIONAL: Final = frozenset(
    name
    for name, path in _KEYS.items()
    if "null" in (entry(table("oumi"), path) or {}).get("type", ())
)


def _is_member(misfit: Misfit) -> bool:
    """``TrainerType.TRL_SFT``: OmegaConf takes an enum's member with the enum's name too."""
    value = str(misfit.value)
    return "${" in value or ("." in value and value.rpartition(".")[2] in misfit.choices)


def _unwrapped(written: Field) -> Field:
    """``to_lora``: the list of ``all-linear`` alone is what PEFT calls so."""
    if written.value == ["all-linear"]:
        return Field("all-linear", "computed", written.path, "oumi unwraps [all-linear]")
    return written


def _joined(written: Field) -> Field:
    """``to_lora``: the patterns as one regular expression."""
    if isinstance(written.value, list) and written.value:
        joined = "|".join(f"({pattern})" for pattern in written.value)
        return Field(joined, "computed", written.path, "oumi joins the patterns")
    return Field(None, "computed", written.path) if written.value == [] else written


def _dtype(written: Field) -> Field:
    if written.value in ("auto", None):
        return UNSET if written.origin != "unknown" else written
    return written._replace(value=_DTYPES.get(str(written.value).lower(), written.value))


def _quantization(root: Node, path: KeyPath) -> dict[str, Field]:
    """``to_bits_and_bytes``, which only counts beside ``q_lora``."""
    node = _at(root, ("peft", "q_lora"))
    if node is not None and node.kind == "unknown":
        return {"quantization": Field(None, "unknown", None, node.note)}
    if not _truth(root, ("peft", "q_lora")):
        return {"quantization": Field("none", "default", None, f"{_PEFT}: q_lora")}
    where = (*path, "peft.q_lora") if arguments.is_command(root) else (*path, "peft", "q_lora")
    bits = _text(root, ("peft", "q_lora_bits")) or "4"
    if bits == "8":
        kind, double = "int8", UNSET
    elif bits == "4":
        kind = _text(root, ("peft", "bnb_4bit_quant_type")) or "fp4"
        nested = bool(_truth(root, ("peft", "use_bnb_nested_quant")))
        double = Field(nested, "computed", where, _PEFT)
    else:
        kind, double = "none", UNSET
    return {
        "quantization": Field(kind, "computed", where, _PEFT),
        "double_quant": double,
        "load_in_4bit": Field(bits == "4", "computed", where, _PEFT),
        "load_in_8bit": Field(bits == "8", "computed", where, _PEFT),
    }


def _other_way(root: Node, trainer: str) -> str | None:
    if trainer == "verl_grpo":
        return "trainer_type VERL_GRPO leaves LoRA to verl"
    adapter = _at(root, ("model", "adapter_model"))
    if adapter is not None and adapter.value is not None:
        return "adapter_model brings a LoraConfig of its own"
    return None


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """``to_lora``: what Oumi passes to LoraConfig."""
    if recipe.private["other_way"]:
        return Undecided(recipe.private["other_way"])
    value = recipe.value
    modules = ("target_modules", "exclude_modules", "target_parameters", "modules_to_save")
    names = ("r", "lora_alpha", "lora_dropout", *modules, "bias", "task_type", "init_lora_weights")
    values = {name: value(name) for name in names}
    if values["target_modules"] == ["all-linear"]:
        values["target_modules"] = "all-linear"
    if values["exclude_modules"] is not UNKNOWN:
        values["exclude_modules"] = values["exclude_modules"] or None
    return LoraKwargs(values)


def _codec(name: str) -> Codec:
    if name == "init_lora_weights":
        return Codec(_init, _init_back)
    return NUMBER if name in _NUMBERS else BOOLEAN if name in _BOOLEANS else AS_WRITTEN


DIALECT: Final = Dialect(
    name="oumi",
    title="Oumi",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, path, _codec(name)) for name, path in _KEYS.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    checks_types=True,
    refuses_duplicates=True,
    refusal="Key ... not in ...",
)
