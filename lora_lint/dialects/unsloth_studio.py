"""Unsloth Studio's YAML and JSON: ``unsloth train --config``, and its files of model defaults.

Read in unsloth 2026.10.9: unsloth_cli/config.py for keys, defaults and how files are read
(``yaml.safe_load``, then pydantic, which refuses other keys); studio/backend/core/training/
trainer.py ``prepare_model_for_training`` and unsloth/models/llama.py ``get_peft_model`` for what
becomes of them. The defaults of single models (studio/backend/assets/configs/model_defaults) name
no model and hold more keys; they are not held against the table.
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
    comma_spans,
    read_slots,
    split_commas,
)
from lora_lint.dialects.tables import PYDANTIC, judged
from lora_lint.facts import ALL_LINEAR
from lora_lint.recipe import UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _modules(value: Any) -> Any:
    """Names at their commas; ``all-linear`` alone in a list is the word, among others nothing."""
    names = split_commas(value)
    if not isinstance(names, list) or ALL_LINEAR not in names:
        return names
    return [name for name in names if name != ALL_LINEAR] or ALL_LINEAR


COMMAS: Final = Codec(_modules, _joined, comma_spans)
_KEYS: Final[dict[str, tuple[KeyPath, Codec]]] = {
    "base_model": (("model",), AS_WRITTEN),
    "r": (("lora", "lora_r"), NUMBER),
    "lora_alpha": (("lora", "lora_alpha"), NUMBER),
    "lora_dropout": (("lora", "lora_dropout"), NUMBER),
    "target_modules": (("lora", "target_modules"), COMMAS),
    "use_rslora": (("lora", "use_rslora"), BOOLEAN),
    "use_dora": (("lora", "use_dora"), BOOLEAN),
    "max_length": (("training", "max_seq_length"), NUMBER),
    "per_device_train_batch_size": (("training", "batch_size"), NUMBER),
    "gradient_accumulation_steps": (("training", "gradient_accumulation_steps"), NUMBER),
    "gradient_checkpointing": (("training", "gradient_checkpointing"), AS_WRITTEN),
    "learning_rate": (("training", "learning_rate"), NUMBER),
    "weight_decay": (("training", "weight_decay"), NUMBER),
    "packing": (("training", "packing"), BOOLEAN),
    "load_in_4bit": (("training", "load_in_4bit"), BOOLEAN),
}
_CONFIG: Final = "unsloth 2026.10.9 unsloth_cli/config.py"
_TRAINER: Final = "unsloth 2026.10.9 studio/backend/core/training/trainer.py"
_SEVEN: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_DEFAULTS: Final = {
    "r": Default(64, _CONFIG),
    "lora_alpha": Default(16, _CONFIG),
    "lora_dropout": Default(0.0, _CONFIG),
    "target_modules": Default([*_SEVEN], _CONFIG),
    "use_rslora": Default(False, _CONFIG),
    "use_dora": Default(False, _CONFIG),
    "bias": Default("none", _TRAINER),
    "max_length": Default(2048, _CONFIG),
    "per_device_train_batch_size": Default(2, _CONFIG),
    "gradient_accumulation_steps": Default(4, _CONFIG),
    "gradient_checkpointing": Default("unsloth", _CONFIG),
    "learning_rate": Default(2e-4, _CONFIG),
    "packing": Default(False, _CONFIG),
    "load_in_4bit": Default(True, _CONFIG),
}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files with Studio's two sections: ``lora`` with its own names, and ``training``."""
    if document.format not in ("yaml", "json"):
        return
    for part, root in enumerate(document.parts):
        lora, training = root.node.at(("lora", "lora_r")), root.node.get("training")
        if lora is None or training is None or training.kind != "mapping":
            continue
        if any(training.get(key) is not None for key in ("max_seq_length", "train_on_completions")):
            yield part, ()


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a Studio file."""
    root = document.parts[part].node
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    kind = root.at(("training", "training_type"))
    full = kind is not None and str(kind.value).strip().lower() == "full"
    if full:  # unsloth_cli/commands/train.py: nothing is quantized then
        at: KeyPath = ("training", "training_type")
        fields["load_in_4bit"] = Field(False, "computed", at, "a full fine-tune")
    fields["quantization"], fields["double_quant"] = _quantization(fields["load_in_4bit"])
    of_command = root.get("model") is not None or root.get("data") is not None
    return Recipe(
        dialect="unsloth_studio",
        part=part,
        path=path,
        fields=fields,
        adapter=not full,
        switch="training_type",
        private={
            "profile": True,
            "loftq": _is(root, "use_loftq"),
            "all": _is(root, "vision_all_linear"),
        },
        **(judged(root, path, DIALECT, PYDANTIC) if of_command else {}),
    )


def _is(root: Node, key: str) -> bool:
    node = root.at(("lora", key))
    return node is not None and BOOLEAN.decode(node.value) is True


def _quantization(switch: Field) -> tuple[Field, Field]:
    source = "unsloth 2026.10.9 unsloth/models/llama.py"
    if switch.value is True:
        how = switch.origin if switch.origin == "default" else "computed"
        return (
            Field("nf4", how, switch.path, source),
            Field(True, how, switch.path, source),
        )
    return Field("none", "computed", switch.path, source), UNSET


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """``model_kwargs``, then Unsloth's ``get_peft_model`` for a model of text."""
    if recipe.private["loftq"]:
        return Undecided("LoftQ is initialised from the base model's weights")
    if tree is not None and "ForCausalLM" not in tree.cls:
        return Undecided("Unsloth chooses the layers of models that see or hear by switches")
    if recipe["target_modules"].value in ("", []):
        return Undecided("Unsloth chooses the layers where target_modules is empty")
    names = ("r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora", "use_dora")
    return LoraKwargs({name: recipe.value(name) for name in names} | {"task_type": "CAUSAL_LM"})


DIALECT: Final = Dialect(
    name="unsloth_studio",
    title="Unsloth Studio",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, path, codec) for name, (path, codec) in _KEYS.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    checks_types=True,
    refusal="unknown key",
)
