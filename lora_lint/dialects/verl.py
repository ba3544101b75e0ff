"""verl's YAML files, and the overrides of its commands.

Read in verl 0.9.1: trainer/config/model/hf_model.yaml and the trainers' own files for keys and
defaults; workers/engine/fsdp/transformer_impl.py ``_build_lora_module`` for what becomes of them.
Files are composed by hydra, so that one may be a part of a config; an override of the command is
read by hydra's own grammar (``[q_proj,v_proj]`` is a list). ``lora_rank: 0`` is the template's
word for no LoRA. The settings under ``lora`` are those of Megatron.
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
    plain_float,
    read_node,
    read_slots,
)
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree


def _list(value: Any) -> Any:
    """``[a,b]`` and ``null`` as hydra reads them in an override."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text == "null":
        return None
    if text.startswith("[") and text.endswith("]"):
        parts = (part.strip().strip("'\"") for part in text[1:-1].split(","))
        return [part for part in parts if part]
    return text.strip("'\"")


def _joined(value: Any) -> Any:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else value


OVERRIDE: Final = Codec(_list, _joined)
_KEYS: Final = {
    "base_model": "path",
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "target_modules": "target_modules",
    "target_parameters": "target_parameters",
    "exclude_modules": "exclude_modules",
    "gradient_checkpointing": "enable_gradient_checkpointing",
    "trust_remote_code": "trust_remote_code",
}
_LISTS: Final = ("target_modules", "target_parameters", "exclude_modules")
_MODEL: Final = "verl 0.9.1 trainer/config/model/hf_model.yaml"
_ENGINE: Final = "verl 0.9.1 workers/engine/fsdp/transformer_impl.py"
_DEFAULTS: Final = {
    "r": Default(0, _MODEL),
    "lora_alpha": Default(16, _MODEL),
    "target_modules": Default("all-linear", _MODEL),
    "gradient_checkpointing": Default(True, _MODEL),
    "bias": Default("none", _ENGINE),
    "task_type": Default("CAUSAL_LM", _ENGINE),
}
_SFT: Final = "verl 0.9.1 trainer/config/sft_trainer_engine.yaml"
_SFT_DEFAULTS: Final = {
    "per_device_train_batch_size": Default(4, _SFT),
    "max_length": Default(1024, _SFT),
}
_DYNAMIC: Final = Field(
    None, "unknown", None, "with data.use_dynamic_bsz data.max_token_len_per_gpu decides"
)
# Settings of Megatron's LoRA, which stand in a section of their own.
_MEGATRON: Final = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
    "exclude_modules": "exclude_modules",
}
# Where a model's settings stand, and where those of its training do.
_BATCH: Final = "per_device_train_batch_size"
_PLACES: Final[dict[KeyPath, dict[str, KeyPath]]] = {
    ("actor_rollout_ref", "model"): {
        _BATCH: ("actor_rollout_ref", "actor", "ppo_micro_batch_size_per_gpu"),
        "learning_rate": ("actor_rollout_ref", "actor", "optim", "lr"),
        "dtype": ("actor_rollout_ref", "actor", "fsdp_config", "model_dtype"),
    },
    ("critic", "model"): {
        _BATCH: ("critic", "ppo_micro_batch_size_per_gpu"),
        "learning_rate": ("critic", "optim", "lr"),
        "dtype": ("critic", "model", "fsdp_config", "model_dtype"),
    },
    ("model",): {
        _BATCH: ("data", "micro_batch_size_per_gpu"),
        "learning_rate": ("optim", "lr"),
        "dtype": ("model", "fsdp_config", "model_dtype"),
        "max_length": ("data", "max_length"),
    },
    (): {},
}
# verl 0.9.1 utils/torch_dtypes.py ``PrecisionType``.
_DTYPES: Final = {
    **dict.fromkeys(("32", "float32", "fp32", "float"), "float32"),
    **dict.fromkeys(("16", "float16", "fp16", "half"), "float16"),
    **dict.fromkeys(("bf16", "bfloat16"), "bfloat16"),
}
# Keys of which a model's mapping has one, beside those of LoRA.
_MARKS: Final = frozenset(
    {"use_remove_padding", "partial_pretrain", "use_shm", "external_lib", "lora_adapter_path"}
)


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The models of a trainer's config with LoRA settings, and commands that set some."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.kind != "mapping":
            continue
        if arguments.is_command(node):
            if _prefix(node) is not None:
                yield part, ()
            continue
        for path in _PLACES:
            model = node.at(path) if path else node
            if model is None or model.kind != "mapping":
                continue
            keys = set(model.keys())
            told = "lora_rank" in keys or _is_megatron(model)
            if told and keys & (_MARKS | ({"override_config"} if path else set())):
                yield part, path


def _prefix(node: Node) -> str | None:
    """The section of a command's model that is given LoRA settings, None where none is."""
    keys = set(node.keys())
    ours = (node.note or "").startswith(("verl.", "recipe."))
    for prefix in ("actor_rollout_ref.model.", "model."):
        told = {f"{prefix}lora_rank", f"{prefix}lora.rank", f"{prefix}lora_adapter_path"} & keys
        if told and (ours or prefix != "model."):
            return prefix
    return None


def _is_megatron(model: Node) -> bool:
    section = model.get("lora")
    return section is not None and section.get("lora_A_init_method") is not None


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a trainer's model or of a command."""
    root = document.parts[part].node
    if arguments.is_command(root):
        return _command(root, part)
    model = root.at(path) or root
    slots = dict(DIALECT.slots)
    if model.get("path") is None and model.get("partial_pretrain") is not None:
        slots["base_model"] = Slot("base_model", ("partial_pretrain",))
    fields = read_slots(model, path, slots, DIALECT.defaults, null_is_absent=True)
    rank = fields["r"].value
    megatron = _is_megatron(model) and (model.get("lora_rank") is None or rank in (0, None))
    if megatron and (model.at(("lora", "rank")) is not None) and not rank:
        own = {name: Slot(name, ("lora", key)) for name, key in _MEGATRON.items()}
        other = read_slots(model, path, own, {}, null_is_absent=False)
        if other.get("r", UNSET).value or model.get("lora_rank") is None:
            fields |= other
            rank = fields["r"].value
    fields |= _elsewhere(root, _PLACES[path])
    if path == ("model",) and _is_dynamic(root.at(("data", "use_dynamic_bsz")), default=False):
        fields[_BATCH] = _DYNAMIC
    return _recipe(part, path, fields, model, switch=None, megatron=megatron)


def _is_dynamic(node: Node | None, *, default: bool) -> bool:
    """Whether samples are packed up to a number of tokens, whatever the batch size says: so in
    supervised training unless it is switched off (workers/engine/utils.py prepare_micro_batches).
    """
    return default if node is None else str(node.value).lower() != "false"


def _elsewhere(root: Node, paths: dict[str, KeyPath]) -> dict[str, Field]:
    """Fields in other sections of the file; null is absent."""
    found = {}
    for name, at in paths.items():
        node = root.at(at) if at else None
        if node is not None and not (node.kind == "scalar" and node.value is None):
            found[name] = plain_float(read_node(node, at), node)
    return found


def _command(root: Node, part: int) -> Recipe:
    prefix = _prefix(root) or ""
    slots = {
        name: Slot(name, (prefix + str(slot.path[-1]),), _codec(name))
        for name, slot in DIALECT.slots.items()
    }
    if prefix == "model." and root.get("model.partial_pretrain") is not None:
        slots["base_model"] = Slot("base_model", ("model.partial_pretrain",))
    megatron = root.get(f"{prefix}lora.rank") is not None
    if megatron:
        slots |= {
            name: Slot(name, (f"{prefix}lora.{key}",), OVERRIDE if name in _LISTS else NUMBER)
            for name, key in _MEGATRON.items()
        }
    place: KeyPath = tuple(prefix.removesuffix(".").split("."))
    for name, at in _PLACES[place].items():
        codec = AS_WRITTEN if name == "dtype" else NUMBER
        slots[name] = Slot(name, (".".join(map(str, at)),), codec)
    defaults = _DEFAULTS | (_SFT_DEFAULTS if prefix == "model." else {})
    fields = read_slots(root, (), slots, defaults, null_is_absent=False)
    older = "fsdp_sft_trainer" in (root.note or "") or "model.partial_pretrain" in root.keys()
    dynamic = root.get("data.use_dynamic_bsz")
    if prefix == "model." and _is_dynamic(dynamic, default=not older):
        fields[_BATCH] = _DYNAMIC
    named = next((k for k in root.keys() if k.replace("-", "_").startswith("config_")), None)
    fields = arguments.unsettled(root, fields, "the config file" if named else None)
    return _recipe(part, (), fields, root, switch=f"{prefix}lora_rank", megatron=megatron)


def _recipe(
    part: int,
    path: KeyPath,
    fields: dict[str, Field],
    model: Node,
    *,
    switch: str | None,
    megatron: bool,
) -> Recipe:
    rank = fields.get("r", UNSET)
    dtype = fields.get("dtype", UNSET)
    if dtype.origin == "written":
        known = _DTYPES.get(str(dtype.value).lower(), dtype.value)
        fields["dtype"] = dtype._replace(value=known, origin="computed")
    elif dtype.origin == "unset" and (megatron or _is_megatron(model)):
        fields["dtype"] = Field(None, "unknown", None, "Megatron's engine has its own")
    elif dtype.origin == "unset":
        fields["dtype"] = Field("float32", "default", None, f"{_ENGINE}: where it trains")
    fields["quantization"] = Field("none", "default", None, _ENGINE)
    keys = [key for key in model.keys() if key.endswith("lora_adapter_path")]
    loaded = any(getattr(model.get(key), "value", None) not in (None, "null") for key in keys)
    return Recipe(
        dialect="verl",
        part=part,
        path=path,
        fields=fields,
        model_class="AutoModelForTokenClassification" if path[:1] == ("critic",) else None,
        adapter=rank.origin == "unknown" or bool(rank.value) or loaded,
        switch=switch,
        private={"megatron": megatron, "loaded": loaded},
    )


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """``_build_lora_module``: what verl passes to LoraConfig."""
    if recipe.private["megatron"]:
        return Undecided("Megatron's modules have other names than the model's")
    if recipe.private["loaded"]:
        return Undecided("lora_adapter_path brings a LoraConfig of its own")
    names = ("task_type", "r", "lora_alpha", "target_modules", "target_parameters")
    values = {name: recipe.value(name) for name in (*names, "exclude_modules")}
    if values["exclude_modules"] is not UNKNOWN:
        values["exclude_modules"] = values["exclude_modules"] or None
    return LoraKwargs({**values, "bias": "none"})


def _codec(name: str) -> Codec:
    if name in _LISTS:
        return OVERRIDE
    if name in ("gradient_checkpointing", "trust_remote_code"):
        return BOOLEAN
    return NUMBER if name in ("r", "lora_alpha") else AS_WRITTEN


DIALECT: Final = Dialect(
    name="verl",
    title="verl",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (key,)) for name, key in _KEYS.items()},
    defaults=_DEFAULTS,
)
