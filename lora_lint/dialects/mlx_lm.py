"""mlx-lm's YAML, the adapter_config.json that it writes, and its ``mlx_lm.lora`` command.

Read in mlx_lm 0.32.2: lora.py for options, defaults and how files are read (PyYAML with floats such
as ``1e-5``; empty keys count as absent; the command line wins; keys that nothing reads are
dropped in silence), tuner/utils.py ``linear_to_lora_layers`` for what becomes of them.

mlx-lm applies LoRA itself and multiplies a layer's output by ``scale`` (tuner/lora.py), where PEFT
has ``lora_alpha / r``. A ``lora_parameters`` takes the place of the whole default, so that it must
have rank, scale and dropout. Only the last ``num_layers`` layers are adapted, and in them the parts
whose path inside the layer is among ``keys``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    NUMBER,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    framework_facts,
    is_template,
    plain_float,
    read_node,
    read_slots,
)
from lora_lint.dialects.tables import UNCHECKED, misfits, stray, table
from lora_lint.documents.document import NotEditable
from lora_lint.recipe import UNKNOWN, UNSET, Field, Misfit, Recipe, StrayKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_LORA: Final = "lora_parameters"
_SCRIPT: Final = "mlx_lm 0.32.2 lora.py"


def _scale(alpha: Any, recipe: Recipe) -> Any:
    """The ``scale`` that an alpha is with the recipe's rank."""
    rank = recipe.value("r")
    if not isinstance(rank, int) or rank <= 0 or not isinstance(alpha, int | float):
        msg = "scale is lora_alpha / r, and r is not known"
        raise NotEditable(msg)
    return alpha / rank


SCALE: Final = Codec(AS_WRITTEN.decode, AS_WRITTEN.encode, within=_scale)

_SLOTS: Final = {
    "base_model": Slot("base_model", ("model",)),
    "r": Slot("r", (_LORA, "rank")),
    "lora_alpha": Slot("lora_alpha", (_LORA, "scale"), SCALE),
    "lora_dropout": Slot("lora_dropout", (_LORA, "dropout")),
    "target_modules": Slot("target_modules", (_LORA, "keys")),
    "max_length": Slot("max_length", ("max_seq_length",)),
    "per_device_train_batch_size": Slot("per_device_train_batch_size", ("batch_size",)),
    "gradient_accumulation_steps": Slot(
        "gradient_accumulation_steps", ("grad_accumulation_steps",)
    ),
    "gradient_checkpointing": Slot("gradient_checkpointing", ("grad_checkpoint",)),
    "optim": Slot("optim", ("optimizer",)),
    "learning_rate": Slot("learning_rate", ("learning_rate",)),
    "trust_remote_code": Slot("trust_remote_code", ("trust_remote_code",)),
}
_DEFAULTS: Final = {
    "r": Default(8, _SCRIPT),
    "lora_dropout": Default(0.0, _SCRIPT),
    "bias": Default("none", "mlx_lm 0.32.2 tuner/lora.py"),
    "task_type": Default("CAUSAL_LM", _SCRIPT),
    "max_length": Default(2048, _SCRIPT),
    "per_device_train_batch_size": Default(4, _SCRIPT),
    "gradient_accumulation_steps": Default(1, _SCRIPT),
    "gradient_checkpointing": Default(False, _SCRIPT),
    "optim": Default("adam", _SCRIPT),
    "learning_rate": Default(1e-5, _SCRIPT),
    "trust_remote_code": Default(False, _SCRIPT),
}
_USUAL: Final = Default(20.0, _SCRIPT)
# Fields that lora_parameters has, and that a written one does not inherit.
_INSIDE: Final = ("r", "lora_dropout")
# Keys of mlx-lm's alone, of which a file without ``lora_parameters`` has some.
_MARKS: Final = frozenset(
    {"fine_tune_type", "lora_layers", "num_layers", "iters", "adapter_path", "steps_per_report"}
    | {"steps_per_eval", "val_batches", "grad_checkpoint", "resume_adapter_file"}
)
# Keys that make a file with ``lora_parameters`` mlx-lm's.
_OTHERS: Final = ("train", "max_seq_length", "mask_prompt")
_TYPES: Final = ("lora", "dora", "full")
_COMMANDS: Final = ("mlx_lm.lora", "mlx_lm lora")
# A module's path, its layer's number, and its path inside the layer.
_LAYER: Final = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)\.(.+)")


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files with ``lora_parameters``, or with several keys of mlx-lm's; commands that train."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.style == "command":
            if node.note in _COMMANDS and (_option(node, "train") or _option(node, "config")):
                yield part, ()
        elif document.format in ("yaml", "json") and _is_own(node):
            yield part, ()


def _is_own(root: Node) -> bool:
    if root.kind != "mapping":
        return False
    keys = set(root.keys())
    model, inside = root.get("model"), root.get(_LORA)
    if model is not None and model.kind not in ("scalar", "unknown"):
        return False
    if inside is not None and inside.kind == "mapping":
        return inside.get("scale") is not None or bool(keys & {*_MARKS, *_OTHERS})
    return model is not None and len(keys & _MARKS) > 2


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of an mlx-lm file or command."""
    root = document.parts[part].node
    if root.style == "command":
        return _read_command(root, part, path)
    fields = read_slots(root, path, _SLOTS, _DEFAULTS, null_is_absent=True)
    for name in ("learning_rate", "lora_dropout"):
        if name in fields:
            fields[name] = plain_float(fields[name], root.at(_SLOTS[name].path))
    inside = root.get(_LORA)
    if inside is not None and inside.kind == "mapping":
        fields |= {name: UNSET for name in _INSIDE if inside.get(_SLOTS[name].path[-1]) is None}
    fields["lora_alpha"] = _alpha(root, path, fields)
    if "base_model" not in fields:
        fields["base_model"] = Field(None, "unknown", None, "the command line may name it")
    kind, switch = _type(root)
    fields["use_dora"] = Field(kind == "dora", *switch)
    if is_template(kind):
        fields["use_dora"] = Field(None, "unknown", switch[1], "a template fills it in")
    fields["quantization"] = Field(None, "unknown", None, "the model's own")
    return Recipe(
        dialect="mlx_lm",
        part=part,
        path=path,
        fields=fields,
        stray=tuple(_stray(root, path)),
        misfits=tuple(_misfits(root, path)),
        trains=not document.path.endswith("adapter_config.json"),
        adapter=kind != "full",
        switch="fine_tune_type",
        objective="sft",
        private={"layers": _layers(root), "missing": _missing(root)},
    )


def _type(root: Node) -> tuple[object, tuple[Any, ...]]:
    """``fine_tune_type`` and where a field that follows from it comes from."""
    node = root.get("fine_tune_type")
    if node is None or node.value is None:
        return "lora", ("default", None, _SCRIPT)
    return node.value, ("computed", ("fine_tune_type",))


def _alpha(root: Node, path: KeyPath, fields: dict[str, Field]) -> Field:
    """``scale`` times the rank: what PEFT calls lora_alpha."""
    rank, inside = fields["r"], root.get(_LORA)
    node = inside.get("scale") if inside is not None else None
    if node is None:
        if inside is not None and inside.kind == "mapping":
            return UNSET
        return Field(_product(_USUAL.value, rank.value), "default", None, _USUAL.source)
    scale = plain_float(read_node(node, (*path, _LORA, "scale")), node)
    alpha = _product(scale.value, rank.value)
    if scale.origin == "unknown" or alpha is None:
        return Field(None, "unknown", scale.path, "scale * rank, of which one is not a number")
    return Field(alpha, "computed", scale.path, "scale * rank")


def _product(scale: object, rank: object) -> float | int | None:
    if not isinstance(scale, int | float) or not isinstance(rank, int) or isinstance(scale, bool):
        return None
    alpha = round(scale * rank, 9)
    return int(alpha) if float(alpha).is_integer() else alpha


def _layers(root: Node) -> object:
    """``num_layers``; ``lora_layers`` is what releases before 0.19 call it."""
    for key in ("num_layers", "lora_layers"):
        node = root.get(key)
        if node is not None and node.value is not None:
            return node.value if key == "num_layers" and isinstance(node.value, int) else UNKNOWN
    return 16


def _missing(root: Node) -> str | None:
    """What a written ``lora_parameters`` lacks (KeyError)."""
    inside = root.get(_LORA)
    if inside is None or inside.kind != "mapping":
        return None
    return next((key for key in ("scale", "rank", "dropout") if inside.get(key) is None), None)


def _stray(root: Node, path: KeyPath) -> Iterator[StrayKey]:
    keys = table("mlx_lm")
    yield from stray(root, path, keys, "ignored")
    inside = root.get(_LORA)
    if inside is not None and inside.get("alpha") is not None and inside.get("scale") is None:
        known = tuple(keys[_LORA]["keys"])
        yield StrayKey((*path, _LORA, "alpha"), "alpha", "rejected", known)


def _misfits(root: Node, path: KeyPath) -> Iterator[Misfit]:
    yield from misfits(root, path, table("mlx_lm"), UNCHECKED)
    kind = root.get("fine_tune_type")
    value = kind.value if kind is not None else None
    if isinstance(value, str) and value not in _TYPES and not is_template(value):
        yield Misfit((*path, "fine_tune_type"), "fine_tune_type", value, ("string",), _TYPES)


# Commands ----------------------------------------------------------------------------------------


def _option(command: Node, name: str) -> Node | None:
    short = {"config": "c"}.get(name, name)
    return command.get(name) or command.get(name.replace("_", "-")) or command.get(short)


def _read_command(command: Node, part: int, path: KeyPath) -> Recipe:
    """What is not on the command line stands in the file of ``--config``, else it is a default."""
    file = _option(command, "config")
    elsewhere = Field(None, "unknown", None, "it stands in the file that --config names")
    fields: dict[str, Field] = {}
    for name, slot in _SLOTS.items():
        key = str(slot.path[-1])
        node = _option(command, key) if len(slot.path) == 1 else None
        if node is not None:
            written = key if command.get(key) is not None else key.replace("_", "-")
            fields[name] = read_node(node, (*path, written), NUMBER)
        elif file is not None:
            fields[name] = elsewhere
        elif name in _DEFAULTS:
            fields[name] = Field(_DEFAULTS[name].value, "default", None, _SCRIPT)
    kind = _option(command, "fine_tune_type")
    if file is None:
        alpha = _product(_USUAL.value, _DEFAULTS["r"].value)
        fields["lora_alpha"] = Field(alpha, "default", None, _SCRIPT)
    fields["use_dora"] = elsewhere
    if kind is not None or file is None:
        dora = kind is not None and kind.value == "dora"
        fields["use_dora"] = Field(dora, "computed" if kind is not None else "default")
    fields["quantization"] = Field(None, "unknown", None, "the model's own")
    fields |= {
        name: Field(_DEFAULTS[name].value, "default", None, _DEFAULTS[name].source)
        for name in ("bias", "task_type")
    }
    layers = _option(command, "num_layers")
    number = NUMBER.decode(layers.value) if layers is not None else UNKNOWN if file else 16
    return Recipe(
        dialect="mlx_lm",
        part=part,
        path=path,
        fields=fields,
        adapter=kind is None or kind.value != "full",
        objective="sft",
        private={"layers": number if isinstance(number, int) else UNKNOWN, "missing": None},
    )


# What it does ------------------------------------------------------------------------------------


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """The LoraConfig that would put the same layers into Hugging Face's model."""
    value, private = recipe.value, recipe.private
    if private["missing"] is not None:
        return Undecided(f"mlx-lm stops: lora_parameters has no `{private['missing']}`")
    if tree is None:
        return Undecided("which layers num_layers and keys mean depends on the model")
    keys, wanted = value("target_modules"), private["layers"]
    if UNKNOWN in (keys, wanted) or not isinstance(wanted, int):
        return Undecided("which layers are adapted is not static")
    parts = _parts(tree)
    if parts is None or not tree.sized or tree.facts.get("template"):
        return Undecided(f"what mlx-lm calls the layers of {tree.model_type} models is not known")
    count, linear = parts
    if keys is not None and (not isinstance(keys, list) or not set(map(str, keys)) & linear):
        return Undecided("keys names no part of a layer; they are paths such as self_attn.q_proj")
    if wanted > count:
        return Undecided(f"mlx-lm stops: num_layers is {wanted}, the model has {count}")
    chosen = sorted(linear if keys is None else {str(key) for key in keys} & linear)
    values: dict[str, Any] = {
        "r": value("r"),
        "lora_alpha": value("lora_alpha"),
        "lora_dropout": value("lora_dropout"),
        "target_modules": chosen,
        "use_dora": value("use_dora"),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    if 0 < wanted < count:
        values["layers_to_transform"] = list(range(count - wanted, count))
    return LoraKwargs({k: v for k, v in values.items() if v is not None})


def _parts(tree: ModuleTree) -> tuple[int, set[str]] | None:
    """The number of layers, and the paths of the linear parts inside one; None where mlx-lm's model
    has others than Hugging Face's.
    """
    named = framework_facts("mlx_lm")["linear_names"].get(tree.model_type)
    found = [m for name, node in tree.named_modules() if node.kind and (m := _LAYER.match(name))]
    linear = {
        match[2]
        for name, node in tree.named_modules()
        if node.kind in ("Linear", "Conv1D") and (match := _LAYER.match(name))
    }
    leaves = {path.rpartition(".")[2] for path in linear}
    if named is None or not linear or not leaves <= set(named):
        return None
    if set(named) - leaves - {"lm_head", "embed_out"}:
        return None
    return 1 + max(int(match[1]) for match in found), linear


DIALECT: Final = Dialect(
    name="mlx_lm",
    title="mlx-lm",
    find=find,
    read=read,
    lower=lower,
    slots=_SLOTS,
    defaults={**_DEFAULTS, "scale": _USUAL},
    refusal="LoRA config is missing required key 'scale'",
    applied_by="mlx-lm",
)
