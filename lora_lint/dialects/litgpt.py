"""LitGPT's YAML and its ``litgpt finetune_lora`` command.

Read in litgpt 0.5.13: finetune/lora.py ``setup`` for arguments, defaults and what becomes of them,
args.py for the nested ones, lora.py for the layers, utils.py for checkpoints and precisions. Files
and options are read by jsonargparse: texts become the declared type where they spell it, floats do
not become integers, empty values are taken, keys that it does not know are refused.

LitGPT applies LoRA itself, to parts that have a switch each; ``query``, ``key`` and ``value`` are
slices of one layer, each with matrices of its own. Outputs are scaled by ``lora_alpha / lora_r``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    BOOLEAN,
    NUMBER,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    read_node,
)
from lora_lint.dialects.tables import JSONARGPARSE, judged
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_SETUP: Final = "litgpt 0.5.13 finetune/lora.py"
# The parts that have a switch, and whether LoRA is on where it is absent.
_PARTS: Final = {
    "query": True,
    "key": False,
    "value": True,
    "projection": False,
    "mlp": False,
    "head": False,
}
_SLOTS: Final = {
    "r": Slot("r", ("lora_r",), NUMBER),
    "lora_alpha": Slot("lora_alpha", ("lora_alpha",), NUMBER),
    "lora_dropout": Slot("lora_dropout", ("lora_dropout",), NUMBER),
    "target_modules": Slot(
        "target_modules",
        ("lora_query",),
        BOOLEAN,
        {part: ((f"lora_{part}",), absent) for part, absent in _PARTS.items()},
    ),
    "max_length": Slot("max_length", ("train", "max_seq_length"), NUMBER),
    "per_device_train_batch_size": Slot(
        "per_device_train_batch_size", ("train", "micro_batch_size"), NUMBER
    ),
    "learning_rate": Slot("learning_rate", ("optimizer", "init_args", "lr"), NUMBER),
    "weight_decay": Slot("weight_decay", ("optimizer", "init_args", "weight_decay"), NUMBER),
    "max_grad_norm": Slot("max_grad_norm", ("train", "max_norm"), NUMBER),
}
_DEFAULTS: Final = {
    "r": Default(8, _SETUP),
    "lora_alpha": Default(16, _SETUP),
    "lora_dropout": Default(0.05, _SETUP),
    "per_device_train_batch_size": Default(1, _SETUP),
    "bias": Default("none", "litgpt 0.5.13 lora.py mark_only_lora_as_trainable"),
    "task_type": Default("CAUSAL_LM", _SETUP),
}
_GLOBAL_BATCH: Final = 16
_LORA_KEYS: Final = frozenset({"lora_r", "lora_alpha", *(f"lora_{part}" for part in _PARTS)})
_COMMANDS: Final = ("litgpt finetune_lora", "litgpt finetune lora", "litgpt finetune")
# The dtype of the base weights: mixed precision keeps them in float32.
_PRECISIONS: Final = {
    "bf16-true": "bfloat16",
    "16-true": "float16",
    "32-true": "float32",
    "bf16-mixed": "float32",
    "16-mixed": "float32",
}
_QUANTIZED: Final = {
    "bnb.nf4": ("nf4", False),
    "bnb.nf4-dq": ("nf4", True),
    "bnb.fp4": ("fp4", False),
    "bnb.fp4-dq": ("fp4", True),
    "bnb.int8-training": ("int8", None),
}
# What Hugging Face's models call LitGPT's parts: names of which a model has all or none.
_NAMES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "query": (("q_proj",),),
    "key": (("k_proj",),),
    "value": (("v_proj",),),
    "projection": (
        ("o_proj",),
        ("attention.dense",),
        ("self_attn.dense",),
        ("self_attention.dense",),
    ),
    "mlp": (
        ("router", "fc_1", "fc_2", "proj"),
        ("gate_proj", "up_proj", "down_proj"),
        ("fc1", "fc2"),
        ("dense_h_to_4h", "dense_4h_to_h"),
    ),
    "head": (("lm_head",), ("embed_out",)),
}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files with a ``checkpoint_dir`` and LoRA's arguments, and commands of finetune_lora."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.style == "command":
            if node.note in _COMMANDS:
                yield part, ()
        elif document.format in ("yaml", "json") and node.kind == "mapping":
            keys = set(node.keys())
            if "checkpoint_dir" in keys and len(keys & _LORA_KEYS) > 1:
                yield part, ()


class _Values:
    """The arguments of a file, where they are nested, or of a command, where keys are dotted."""

    def __init__(self, root: Node, path: KeyPath) -> None:
        self.root = root
        self.path = path
        self.command = root.style == "command"
        # what a command does not set may stand in the file that it names
        self.elsewhere = self.command and root.get("config") is not None

    def at(self, path: KeyPath) -> KeyPath:
        return (".".join(map(str, path)),) if self.command else path

    def node(self, *path: str) -> Node | None:
        return self.root.at(self.at(path))

    def field(self, slot: Slot, default: Default | None) -> Field:
        node = self.root.at(self.at(slot.path))
        if node is not None:
            found = read_node(node, self.path + self.at(slot.path), slot.codec)
            return UNSET if found.value is None and found.origin != "unknown" else found
        if self.elsewhere:
            return Field(None, "unknown", None, "it may stand in the file that --config names")
        return Field(default.value, "default", None, default.source) if default else UNSET

    def value(self, slot: Slot, default: Default | None = None) -> object:
        found = self.field(slot, default)
        return UNKNOWN if found.origin == "unknown" else found.value


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a LitGPT file or command."""
    root = document.parts[part].node
    values = _Values(root, path)
    fields = {
        name: values.field(slot, _DEFAULTS.get(name))
        for name, slot in _SLOTS.items()
        if not slot.switches
    }
    for name in ("bias", "task_type"):
        fields[name] = Field(_DEFAULTS[name].value, "default", None, _DEFAULTS[name].source)
    fields["target_modules"] = _targets(values)
    fields["base_model"] = _base_model(values)
    devices, nodes = _devices(values, "devices"), _devices(values, "num_nodes")
    fields["dtype"] = _dtype(values)
    fields["autocast"] = _autocast(values)
    fields["quantization"], fields["double_quant"] = _quantization(values)
    fields["optim"] = _optim(values, fields["quantization"])
    fields["gradient_accumulation_steps"] = _accumulation(values, devices, nodes)
    fields["gradient_checkpointing"] = _checkpointing(devices, nodes)
    return Recipe(
        dialect="litgpt",
        part=part,
        path=path,
        fields=fields,
        objective="sft",
        **({} if values.command else judged(root, path, DIALECT, JSONARGPARSE)),
    )


def _targets(values: _Values) -> Field:
    """The parts whose switch is on."""
    on, written = [], None
    for part, absent in _PARTS.items():
        slot = Slot(part, (f"lora_{part}",), BOOLEAN)
        found = values.value(slot, Default(absent, _SETUP))
        if not isinstance(found, bool):
            return Field(None, "unknown", None, f"what lora_{part} says is not static")
        if values.node(f"lora_{part}") is not None and written is None:
            written = values.path + values.at(slot.path)
        on += [part] if found else []
    if written is None:
        return Field(on, "default", None, _SETUP)
    return Field(on, "computed", written, "the parts whose switch is on")


def _base_model(values: _Values) -> Field:
    """LitGPT keeps the model ``org/name`` in ``checkpoints/org/name`` and takes both."""
    slot = Slot("base_model", ("checkpoint_dir",))
    found = values.field(slot, None)
    first = values.root.get(0) if values.command else None
    if first is not None:
        found = read_node(first, (*values.path, 0))
    if not isinstance(found.value, str):
        return found
    _, mark, name = found.value.strip("/").removeprefix("./").partition("checkpoints/")
    if mark and name.count("/") == 1 and not found.value.startswith(("/", "~")):
        return found._replace(value=name, origin="computed")
    return found


def _devices(values: _Values, key: str) -> int | None:
    """How many devices or nodes, None where that is not known."""
    found = values.value(Slot(key, (key,), NUMBER), Default(1, _SETUP))
    return found if isinstance(found, int) and found > 0 else None


def _dtype(values: _Values) -> Field:
    found = values.field(Slot("dtype", ("precision",)), None)
    if found.origin == "unknown":
        return found
    if found.value is None:
        source = "litgpt 0.5.13 utils.py get_default_supported_precision: mixed precision"
        return Field("float32", "default", None, source)
    if found.value not in _PRECISIONS:
        return Field(None, "unknown", found.path, f"precision {found.value}")
    return Field(_PRECISIONS[str(found.value)], "computed", found.path, "precision")


def _autocast(values: _Values) -> Field:
    """Mixed precision, which is the default, is Lightning's name for autocast."""
    found = values.field(Slot("autocast", ("precision",)), None)
    if found.origin == "unknown" or (found.value is not None and found.value not in _PRECISIONS):
        return found if found.origin == "unknown" else Field(None, "unknown", found.path)
    if found.value is None:
        return Field(value=True, origin="default", detail="litgpt 0.5.13 utils.py")
    return Field(str(found.value).endswith("-mixed"), "computed", found.path, "precision")


def _quantization(values: _Values) -> tuple[Field, Field]:
    found = values.field(Slot("quantization", ("quantize",)), None)
    if found.origin == "unknown":
        return found, found
    if found.value is None:
        return Field("none", "default", None, _SETUP), UNSET
    if found.value not in _QUANTIZED:
        unknown = Field(None, "unknown", found.path, f"quantize {found.value}")
        return unknown, unknown
    kind, double = _QUANTIZED[str(found.value)]
    quantized = Field(kind, "computed", found.path, "quantize")
    return quantized, UNSET if double is None else Field(double, "computed", found.path)


def _optim(values: _Values, quantization: Field) -> Field:
    """AdamW, which becomes bitsandbytes' paged one on quantized weights."""
    node = values.node("optimizer")
    named = values.node("optimizer", "class_path") or node
    if values.elsewhere and named is None:
        return Field(None, "unknown", None, "it may stand in the file that --config names")
    name = named.value if named is not None else "AdamW"
    if not isinstance(name, str) or name.rpartition(".")[2] != "AdamW":
        return Field(name, "written", None) if isinstance(name, str) else UNSET
    if quantization.value not in (None, "none"):
        return Field("paged_adamw_32bit", "computed", None, "litgpt 0.5.13 utils.py")
    return Field("adamw_torch", "default" if named is None else "computed", None, _SETUP)


def _accumulation(values: _Values, devices: int | None, nodes: int | None) -> Field:
    """``TrainArgs.gradient_accumulation_iters``: the global batch by devices and micro-batches."""
    total = values.value(
        Slot("", ("train", "global_batch_size"), NUMBER), Default(_GLOBAL_BATCH, _SETUP)
    )
    micro = values.value(
        _SLOTS["per_device_train_batch_size"], _DEFAULTS["per_device_train_batch_size"]
    )
    whole = isinstance(total, int) and isinstance(micro, int) and micro > 0
    if not whole or devices is None or nodes is None:
        reason = "the global batch by devices and micro-batches, which are not static"
        return Field(None, "unknown", None, reason)
    assert isinstance(total, int)  # noqa: S101 - see above
    assert isinstance(micro, int)  # noqa: S101
    return Field(total // (devices * nodes) // micro, "computed", None, "litgpt 0.5.13 args.py")


def _checkpointing(devices: int | None, nodes: int | None) -> Field:
    """``parallelize_fn`` wraps every layer where there are several devices."""
    if devices is None or nodes is None:
        return Field(None, "unknown", None, "on with several devices")
    return Field(devices * nodes > 1, "default", None, f"{_SETUP} parallelize_fn")


def _model(tree: ModuleTree) -> ModuleTree:
    from lora_lint.models.litgpt import litgpt_tree

    return litgpt_tree(tree)


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """The LoraConfig that would put the same layers into LitGPT's model (``litgpt_tree``)."""
    value = recipe.value
    parts = value("target_modules")
    if tree is None or parts is UNKNOWN or not isinstance(parts, list):
        return Undecided("what LitGPT's parts are called depends on the model")
    if not parts:
        return Undecided("no part has LoRA switched on")
    names = [name for name, node in tree.named_modules() if node.kind == "Linear"]
    chosen: list[str] = []
    for part in parts:
        found = next((n for n in _NAMES[part] if all(_has(names, name) for name in n)), None)
        if found is None:
            return Undecided(f"LitGPT's {part} is no layer of its own in {tree.model_type} models")
        chosen += found
    values: dict[str, Any] = {
        "r": value("r"),
        "lora_alpha": value("lora_alpha"),
        "lora_dropout": value("lora_dropout"),
        "target_modules": chosen,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    return LoraKwargs({k: v for k, v in values.items() if v is not None})


def _has(names: list[str], suffix: str) -> bool:
    return any(name == suffix or name.endswith(f".{suffix}") for name in names)


DIALECT: Final = Dialect(
    name="litgpt",
    title="LitGPT",
    find=find,
    read=read,
    lower=lower,
    slots=_SLOTS,
    defaults=_DEFAULTS,
    parses_numbers=True,
    checks_types=True,
    refusal="does not accept option",
    applied_by="LitGPT",
    model=_model,
)
