"""H2O LLM Studio's YAML.

Read in h2oai/h2o-llmstudio (not on PyPI): llm_studio/python_configs/
text_causal_language_modeling_config.py for keys and defaults; llm_studio/src/utils/
modeling_utils.py ``prepare_lora`` and ``create_nlp_backbone`` for what becomes of them. Files are
written out whole by the program, so that a LoRA that is off stands beside its settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    comma_spans,
    read_slots,
)
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree


def _split(value: Any) -> Any:
    """``prepare_lora``: a string at its commas; an empty one stands for every linear layer."""
    if isinstance(value, str) and value:
        return [part.strip() for part in value.strip().split(",")]
    return value


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


COMMAS: Final = Codec(_split, _joined, comma_spans)
_KEYS: Final[dict[str, KeyPath]] = {
    "base_model": ("llm_backbone",),
    "r": ("training", "lora_r"),
    "lora_alpha": ("training", "lora_alpha"),
    "lora_dropout": ("training", "lora_dropout"),
    "target_modules": ("training", "lora_target_modules"),
    "use_dora": ("training", "use_dora"),
    "use_rslora": ("training", "use_rslora"),
    "max_length": ("tokenizer", "max_length"),
    "per_device_train_batch_size": ("training", "batch_size"),
    "gradient_accumulation_steps": ("training", "grad_accumulation"),
    "gradient_checkpointing": ("architecture", "gradient_checkpointing"),
    "learning_rate": ("training", "learning_rate"),
    "weight_decay": ("training", "weight_decay"),
    "trust_remote_code": ("environment", "trust_remote_code"),
}
_CONFIG: Final = "h2o-llmstudio python_configs/text_causal_language_modeling_config.py"
_MODELING: Final = "h2o-llmstudio src/utils/modeling_utils.py"
_DEFAULTS: Final = {
    "r": Default(4, _CONFIG),
    "lora_alpha": Default(16, _CONFIG),
    "lora_dropout": Default(0.05, _CONFIG),
    "use_dora": Default(False, _CONFIG),
    "use_rslora": Default(False, _CONFIG),
    "bias": Default("none", _MODELING),
    "task_type": Default("CAUSAL_LM", _MODELING),
    "max_length": Default(512, _CONFIG),
    "per_device_train_batch_size": Default(2, _CONFIG),
    "gradient_accumulation_steps": Default(1, _CONFIG),
    "gradient_checkpointing": Default(True, _CONFIG),
    "learning_rate": Default(0.0001, _CONFIG),
    "trust_remote_code": Default(True, _CONFIG),
}
_OPTIMIZERS: Final = {"AdamW": "adamw_torch", "AdamW8bit": "adamw_8bit", "SGD": "sgd"}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files with a backbone and a section ``training`` that speaks of LoRA."""
    if document.format != "yaml":
        return
    for part, root in enumerate(document.parts):
        training = root.node.get("training") if root.node.kind == "mapping" else None
        if root.node.get("llm_backbone") is None or training is None:
            continue
        if training.get("lora") is not None or training.get("lora_r") is not None:
            yield part, ()


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of an H2O LLM Studio file."""
    root = document.parts[part].node
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=True)
    fields["target_modules"] = _targets(fields.get("target_modules", UNSET))
    fields |= _weights(root)
    optimizer = root.at(("training", "optimizer"))
    if optimizer is None:
        fields["optim"] = Field("adamw_torch", "default", None, _CONFIG)
    elif optimizer.value in _OPTIMIZERS:
        name = _OPTIMIZERS[str(optimizer.value)]
        fields["optim"] = Field(name, "computed", ("training", "optimizer"))
    switch = root.at(("training", "lora"))
    unfrozen = root.at(("training", "lora_unfreeze_layers"))
    return Recipe(
        dialect="h2o_llmstudio",
        part=part,
        path=path,
        fields=fields,
        adapter=switch is None or switch.value is not False,
        switch="training.lora",
        private={"profile": True, "unfrozen": unfrozen is not None and bool(unfrozen.items)},
    )


def _targets(written: Field) -> Field:
    """An empty string: every linear layer whose name holds no ``head``."""
    if written.origin == "unset":
        return Field("all-linear", "default", None, _CONFIG)
    if written.value == "":
        return Field("all-linear", "computed", written.path, "every linear layer (an empty string)")
    return written


def _weights(root: Node) -> dict[str, Field]:
    """``backbone_dtype``: also how the weights are quantized."""
    path: KeyPath = ("architecture", "backbone_dtype")
    node = root.at(path)
    value = node.value if node is not None else "int4"
    how: dict[str, Any] = {"origin": "computed", "path": path, "detail": _MODELING}
    if node is None:
        how = {"origin": "default", "path": None, "detail": _CONFIG}
    if value in ("int4", "int8"):
        made = {
            "dtype": Field("float16", **how),
            "quantization": Field("nf4" if value == "int4" else "int8", **how),
        }
        return made | ({"double_quant": Field(False, **how)} if value == "int4" else {})
    return {
        "dtype": Field(value, **how),
        "quantization": Field("none", **how),
    }


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """``prepare_lora``: what H2O LLM Studio passes to LoraConfig."""
    if recipe.private["unfrozen"]:
        return Undecided("lora_unfreeze_layers trains more of the base model")
    targets: Any = recipe.value("target_modules")
    if targets == "all-linear" and recipe["target_modules"].origin != "written":
        if tree is None:
            targets = UNKNOWN
        elif any(node.kind == "Conv1d" for _, node in tree.named_modules()):
            return Undecided("which convolutions H2O LLM Studio adapts is not known")
        else:
            targets = _linear_names(tree)
    names = ("r", "lora_alpha", "lora_dropout", "bias", "task_type", "use_dora", "use_rslora")
    return LoraKwargs({"target_modules": targets, **{name: recipe.value(name) for name in names}})


def _linear_names(tree: ModuleTree) -> list[str]:
    """The last parts of the names of linear layers that hold no ``head``."""
    return list(
        dict.fromkeys(
            name.rpartition(".")[2]
            for name, node in tree.named_modules()
            if node.kind in ("Linear", "Conv1D") and "head" not in name
        )
    )


DIALECT: Final = Dialect(
    name="h2o_llmstudio",
    title="H2O LLM Studio",
    find=find,
    read=read,
    lower=lower,
    slots={
        name: Slot(name, path, COMMAS if name == "target_modules" else AS_WRITTEN)
        for name, path in _KEYS.items()
    },
    defaults=_DEFAULTS,
)
