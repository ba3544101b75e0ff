"""NeMo RL's YAML.

Read in NVIDIA-NeMo/RL (no release on PyPI holds code): nemo_rl/models/policy/__init__.py for the
keys; nemo_rl/models/automodel/setup.py ``setup_model_and_optimizer``: ``lora_cfg`` goes through
AutoModel's ``PeftConfig.from_dict``, which takes its own defaults for absent keys and drops those
that it does not know (nemo_automodel 0.7.0 components/_peft/lora.py); the Megatron backend has its
own section ``peft`` and Megatron's names of layers. A file may rest on another (``defaults``):
what it does not write is then not known. Values are OmegaConf's: ``${...}`` refers elsewhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    BOOLEAN,
    NUMBER,
    Codec,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    framework_facts,
    plain_float,
    read_node,
    read_slots,
)
from lora_lint.dialects.nemo_automodel import (
    PEFT_DEFAULTS,
    PEFT_KEYS,
    SAME_NAMES,
    targets,
    without_template,
)
from lora_lint.dialects.nemo_layers import adapted, lowered
from lora_lint.recipe import NOTHING, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

# Sections of models that are trained, and of LoRA in them by backend.
_MODELS: Final = ("policy", "value")
_SECTIONS: Final = {"dtensor_cfg": "lora_cfg", "megatron_cfg": "peft"}
# Where the run's own settings stand, below the model's section.
_RUN: Final[dict[str, tuple[KeyPath, Codec]]] = {
    "base_model": (("model_name",), AS_WRITTEN),
    "max_length": (("max_total_sequence_length",), NUMBER),
    "per_device_train_batch_size": (("train_micro_batch_size",), NUMBER),
    "packing": (("sequence_packing", "enabled"), BOOLEAN),
}
_BACKEND: Final[dict[str, dict[str, KeyPath]]] = {
    "dtensor_cfg": {
        "gradient_checkpointing": ("dtensor_cfg", "activation_checkpointing"),
        "learning_rate": ("optimizer", "kwargs", "lr"),
        "weight_decay": ("optimizer", "kwargs", "weight_decay"),
    },
    "megatron_cfg": {
        "gradient_checkpointing": ("megatron_cfg", "activation_checkpointing"),
        "learning_rate": ("megatron_cfg", "optimizer", "lr"),
        "weight_decay": ("megatron_cfg", "optimizer", "weight_decay"),
    },
}
_ALGORITHMS: Final = ("sft", "dpo", "grpo", "ppo", "rm", "distillation")


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The LoRA sections of the backends that train a model; the first one where none does."""
    if document.format != "yaml":
        return
    for part, root in enumerate(document.parts):
        written = [
            (model, backend, section)
            for model in _MODELS
            for backend, section in _SECTIONS.items()
            if (node := root.node.at((model, backend, section))) is not None
            and node.kind == "mapping"
            and node.get("dim") is not None
        ]
        trained = [path for path in written if not _off(root.node, path[0], path[1])]
        for path in trained or written[:1]:
            yield part, path


def _off(root: Node, model: str, backend: str) -> bool:
    """Whether another backend trains the model; Megatron's is off unless it is turned on."""
    enabled = root.at((model, backend, "enabled"))
    if enabled is None or enabled.kind == "unknown":
        return backend == "megatron_cfg"
    return enabled.value is not True


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a NeMo RL file."""
    root = document.parts[part].node
    section, model = root.at(path), root.at(path[:1])
    assert section is not None  # noqa: S101 - find() gave the path
    assert model is not None  # noqa: S101 - and this is above it
    backend = str(path[1])
    rests = root.get("defaults") is not None
    fields = read_slots(
        section, path, DIALECT.slots, NOTHING if rests else PEFT_DEFAULTS, null_is_absent=False
    )
    every = _value(section, "match_all_linear") is True
    if backend == "dtensor_cfg" and (every or not rests):
        fields["target_modules"] = targets(section, path, fields)
    for name, (at, codec) in _RUN.items():
        fields[name] = _above(model, path[:1], at, codec)
    for name, at in _BACKEND[backend].items():
        fields[name] = _above(model, path[:1], at, AS_WRITTEN)
    fields["dtype"] = Field(None, "unknown", None, "NeMo RL's own choice for the base weights")
    fields = {name: without_template(_followed(root, field)) for name, field in fields.items()}
    if rests:
        missing = Field(None, "unknown", None, "it may stand in the file that `defaults` names")
        unset = [n for n in (*DIALECT.slots, *_RUN) if fields.get(n, UNSET).origin == "unset"]
        fields |= dict.fromkeys(unset, missing)
    enabled = section.get("enabled")
    return Recipe(
        dialect="nemo_rl",
        part=part,
        path=path,
        fields={name: field for name, field in fields.items() if field.origin != "unset"},
        adapter=(enabled is None or enabled.value is not False)
        and not _off(root, str(path[0]), backend),
        switch="enabled",
        objective=next((name for name in _ALGORITHMS if root.get(name) is not None), None),
        private={
            "profile": True,
            "backend": backend,
            "every": every,
            "stands": section.get("match_all_linear") is not None or not rests,
            "force_hf": _value(model, "dtensor_cfg", "automodel_kwargs", "force_hf") is True,
        },
    )


def _above(model: Node, path: KeyPath, at: KeyPath, codec: Codec) -> Field:
    node = model.at(at)
    if node is None:
        return UNSET
    return plain_float(read_node(node, path + at, codec), node)


def _followed(root: Node, field: Field) -> Field:
    """What a reference to another key of the file (``${policy.model_name}``) leads to."""
    node = root.at(field.path) if field.path is not None else None
    written = node.value if node is not None else None
    match = re.fullmatch(r"\$\{([A-Za-z_][\w.]*)\}", written) if isinstance(written, str) else None
    found = root.at(tuple(match[1].split("."))) if match else None
    if match is None or found is None or found.kind != "scalar":
        return field
    return Field(found.value, "computed", tuple(match[1].split(".")), f"through {written}")


def _value(node: Node, *path: str) -> Any:
    found = node.at(path)
    return found.value if found is not None else None


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """The LoraConfig that gives the layers which AutoModel adapts on transformers' model."""
    private = recipe.private
    if private["backend"] == "megatron_cfg":
        return Undecided("Megatron's layers are not those of transformers' model")
    if tree is None:
        return Undecided("AutoModel's patterns select among the model's modules")
    if not private["stands"]:
        return Undecided("the patterns may stand in the file that `defaults` names")
    known = framework_facts("nemo_automodel")["architectures"]
    if not private["force_hf"] and tree.cls in known and tree.cls not in SAME_NAMES:
        return Undecided(f"AutoModel may take an implementation of its own of {tree.cls}")
    wanted = adapted(tree, recipe.value, every=private["every"])
    return wanted if isinstance(wanted, Undecided) else lowered(tree, wanted, recipe.value)


DIALECT: Final = Dialect(
    name="nemo_rl",
    title="NeMo RL",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (key,), codec) for name, (key, codec) in PEFT_KEYS.items()},
    defaults=PEFT_DEFAULTS,
    applied_by="NeMo RL",
)
