"""Reads the module tree of a live torch model. The only room of ``models`` that needs torch."""

from __future__ import annotations

import json
from typing import Any

from lora_lint.facts import ENCODES_BEFORE, version_key
from lora_lint.models.module_tree import Grade, Kind, ModuleNode, ModuleTree

# Facts of a config that name its size; for people, for the memory estimate and for finding a tree
# by size.
_DIMENSIONS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "sliding_window",
    "max_position_embeddings",
)
# Facts of a config that say where values are dropped out, for the memory estimate.
_DROPOUTS = (
    "activation_dropout",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "dropout",
    "dropout_rate",
    "embd_pdrop",
    "hidden_dropout",
    "hidden_dropout_prob",
    "resid_pdrop",
)


def read_model(model: Any, grade: Grade = "live") -> ModuleTree:
    """The tree of a model; see ``ModuleTree.from_model``."""
    import torch

    if not isinstance(model, torch.nn.Module):
        msg = f"a torch.nn.Module is expected, not {type(model).__name__}"
        raise TypeError(msg)
    for module in model.modules():
        bases = {base.__name__ for base in type(module).__mro__}
        if bases & {"BaseTunerLayer", "AuxiliaryTrainingWrapper", "PeftModel", "BaseTuner"}:
            msg = "the model already carries adapters; read the tree before get_peft_model"
            raise ValueError(msg)
    reader = _Reader()
    root = reader.node(model, "")
    config = getattr(model, "config", None)
    return ModuleTree(
        root=root,
        cls=type(model).__name__,
        model_type=getattr(config, "model_type", None),
        transformers=_transformers_version(),
        grade=grade,
        dtype=_main_dtype(model),
        facts=_facts(model, config),
        shared=reader.shared,
        tied=tuple(tuple(names) for names in reader.parameters.values() if len(names) > 1),
    )


class _Reader:
    """Walks a model once; equal subtrees become one node."""

    def __init__(self) -> None:
        from torch import nn

        self.kinds = _kinds()
        self.containers = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
        self.first_names: dict[int, str] = {}
        self.shared: dict[str, str] = {}
        self.parameters: dict[int, list[str]] = {}
        self.nodes: dict[str, ModuleNode] = {}

    def node(self, module: Any, name: str) -> ModuleNode:
        if id(module) in self.first_names:
            self.shared[name] = self.first_names[id(module)]
        self.first_names.setdefault(id(module), name)
        shapes = {}
        for key, parameter in module._parameters.items():  # noqa: SLF001 - None entries count
            if parameter is None:
                continue
            full = f"{name}.{key}" if name else key
            names = self.parameters.setdefault(id(parameter), [])
            if full not in names:
                names.append(full)
            shapes[key] = tuple(int(n) for n in parameter.shape)
        children = {
            key: self.node(child, f"{name}.{key}" if name else key)
            for key, child in module._modules.items()  # noqa: SLF001
            if child is not None
        }
        kind = self._kind(module)
        facts = _module_facts(module, kind, shapes)
        identity = json.dumps(
            [
                type(module).__name__,
                kind,
                shapes,
                {key: id(child) for key, child in children.items()},
                facts,
            ]
        )
        if identity not in self.nodes:
            self.nodes[identity] = ModuleNode(type(module).__name__, kind, shapes, children, facts)
        return self.nodes[identity]

    def _kind(self, module: Any) -> Kind:
        for cls, kind in self.kinds:
            if isinstance(module, cls):
                return kind
        return "container" if isinstance(module, self.containers) else "other"


def _kinds() -> list[tuple[type, Kind]]:
    """Classes in the order of peft 0.21.2 tuners/lora/layer.py ``dispatch_default``."""
    from torch import nn

    kinds: list[tuple[type, Kind]] = [
        (nn.Embedding, "Embedding"),
        (nn.Conv2d, "Conv2d"),
        (nn.Conv3d, "Conv3d"),
        (nn.Conv1d, "Conv1d"),
        (nn.MultiheadAttention, "MultiheadAttention"),
        (nn.Linear, "Linear"),
    ]
    try:
        from transformers.pytorch_utils import Conv1D
    except ImportError:
        return kinds
    return [*kinds, (Conv1D, "Conv1D")]


def _module_facts(module: Any, kind: Kind, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    weight = shapes.get("weight")
    if kind == "Linear":
        features = [int(module.in_features), int(module.out_features)]
        if weight is None or list(weight) != features[::-1]:
            facts["features"] = features
    elif kind == "Embedding":
        features = [int(module.num_embeddings), int(module.embedding_dim)]
        if weight is None or list(weight) != features:
            facts["features"] = features
    elif kind in ("Conv1d", "Conv2d", "Conv3d"):
        facts["features"] = [int(module.in_channels), int(module.out_channels)]
        facts["kernel"] = [int(n) for n in module.kernel_size]
        if module.groups != 1:
            facts["groups"] = int(module.groups)
    elif kind == "MultiheadAttention":
        facts["features"] = [int(module.embed_dim), 3 * int(module.embed_dim)]
        if not module._qkv_same_embed_dim:  # noqa: SLF001
            facts["same_embed"] = False
    if getattr(module, "is_transposed", False) is True:
        facts["transposed"] = True
    if hasattr(module, "parametrizations"):
        facts["parametrized_shapes"] = {
            name: [int(n) for n in getattr(module, name).shape] for name in module.parametrizations
        }
    return facts


def _facts(model: Any, config: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"has_config": config is not None}
    as_dict = config.to_dict() if hasattr(config, "to_dict") else config
    if isinstance(as_dict, dict) and "tie_word_embeddings" in as_dict:
        facts["tie_word_embeddings"] = as_dict["tie_word_embeddings"]
    if hasattr(
        config, "tie_word_embeddings"
    ):  # PEFT asks the dict in one place, the object in another
        facts["tie_attribute"] = config.tie_word_embeddings
    facts["pretrained"] = any(base.__name__ == "PreTrainedModel" for base in type(model).__mro__)
    facts["generates"] = hasattr(model, "prepare_inputs_for_generation")
    if version_key(_transformers_version() or "") < ENCODES_BEFORE:
        facts["encodes"] = hasattr(model, "_prepare_encoder_decoder_kwargs_for_generation")
    facts["has_input_embeddings"] = hasattr(model, "get_input_embeddings")
    names = {id(module): name for name, module in model.named_modules()}
    for fact, method in (
        ("input_embeddings", "get_input_embeddings"),
        ("output_embeddings", "get_output_embeddings"),
    ):
        try:
            embeddings = getattr(model, method)() if hasattr(model, method) else None
        except (NotImplementedError, AttributeError) as exc:
            facts[f"{fact}_error"] = type(exc).__name__
            continue
        if embeddings is not None and id(embeddings) in names:
            facts[fact] = names[id(embeddings)]
    tied_keys = _tied_keys(model)
    if tied_keys is not None:
        facts["tied_keys"] = tied_keys
    dimensions = {
        name: value
        for name in _DIMENSIONS
        if isinstance(value := _read(_text_config(config), name), int)
        and not isinstance(value, bool)
    }
    if dimensions:
        facts["config"] = dimensions
        drops = {name: _read(_text_config(config), name) for name in _DROPOUTS}
        if any(isinstance(p, int | float) for p in drops.values()):
            likely = {name: p for name, p in drops.items() if isinstance(p, int | float) and p}
            facts["config"] = {**dimensions, "dropouts": likely}
    return facts


def _text_config(config: Any) -> Any:
    """The part of a config that describes the language model, else the whole."""
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):  # no such method; more than one text model (musicgen)
        return config


def _read(config: Any, name: str) -> Any:
    """A config's value; None where it has none or has one per layer, which transformers reports
    with a RuntimeError (gemma4).
    """
    try:
        return getattr(config, name, None)
    except RuntimeError:
        return None


def _tied_keys(model: Any) -> dict[str, str] | list[str] | None:
    """``_tied_weights_keys`` of the model and its parts, under full names (transformers 5: a
    mapping from the tied parameter to its source; transformers 4: a list)."""
    if not hasattr(model, "_tied_weights_keys"):
        return None
    own = model._tied_weights_keys  # noqa: SLF001
    if not isinstance(own, dict):
        return None if own is None else [getattr(key, "pattern", key) for key in own]
    keys: dict[str, str] = {}
    for name, module in model.named_modules():
        part = getattr(module, "_tied_weights_keys", None)
        if isinstance(part, dict):
            prefix = f"{name}." if name else ""
            keys.update({prefix + key: prefix + source for key, source in part.items()})
    return keys


def _main_dtype(model: Any) -> str:
    sizes: dict[str, int] = {}
    for parameter in model.parameters():
        name = str(parameter.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + parameter.numel()
    return max(sizes, key=lambda name: sizes[name], default="float32")


def _transformers_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("transformers")
    except PackageNotFoundError:
        return None
