"""Ludwig's YAML for language models (``model_type: llm``).

Read in ludwig 0.11.0: schema/llms/{peft,quantization,base_model}.py, schema/trainer.py and
schema/model_types/llm.py for keys, types and defaults; utils/llm_utils.py
``load_pretrained_from_config`` and ``initialize_adapter`` for what becomes of them. Values are
held against a JSON Schema; keys that it lacks are dropped. Its repository knows more keys than its
last release (``init_lora_weights``), so that an unknown key is not judged.
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
    framework_facts,
    read_slots,
)
from lora_lint.dialects.tables import Reader, misfits, table
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree


def _preset(value: Any) -> Any:
    """``MODEL_PRESETS``: a short name stands for a model of the hub."""
    presets: dict[str, str] = framework_facts("ludwig")["presets"]
    return presets.get(value, value) if isinstance(value, str) else value


_KEYS: Final[dict[str, KeyPath]] = {
    "base_model": ("base_model",),
    "r": ("adapter", "r"),
    "lora_alpha": ("adapter", "alpha"),
    "lora_dropout": ("adapter", "dropout"),
    "bias": ("adapter", "bias_type"),
    "target_modules": ("adapter", "target_modules"),
    "use_rslora": ("adapter", "use_rslora"),
    "use_dora": ("adapter", "use_dora"),
    "init_lora_weights": ("adapter", "init_lora_weights"),
    "max_length": ("preprocessing", "global_max_sequence_length"),
    "per_device_train_batch_size": ("trainer", "batch_size"),
    "gradient_accumulation_steps": ("trainer", "gradient_accumulation_steps"),
    "gradient_checkpointing": ("trainer", "enable_gradient_checkpointing"),
    "learning_rate": ("trainer", "learning_rate"),
    "trust_remote_code": ("trust_remote_code",),
}
_PEFT: Final = "ludwig 0.11.0 schema/llms/peft.py"
_TRAINER: Final = "ludwig 0.11.0 schema/trainer.py"
_DEFAULTS: Final = {
    "r": Default(8, _PEFT),
    "lora_dropout": Default(0.05, _PEFT),
    "bias": Default("none", _PEFT),
    "use_rslora": Default(False, _PEFT),
    "use_dora": Default(False, _PEFT),
    "task_type": Default("CAUSAL_LM", "ludwig 0.11.0 utils/llm_utils.py"),
    "per_device_train_batch_size": Default(1, _TRAINER),
    "gradient_checkpointing": Default(False, _TRAINER),
    "learning_rate": Default(0.0002, _TRAINER),
}
# Initialisations that want data or work before LoraConfig sees the model.
_BY_DATA: Final = ("eva", "corda", "loftq", "lora_ga")
_AUTO: Final = ("per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate")


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files for a language model whose adapter is LoRA."""
    if document.format != "yaml":
        return
    for part, root in enumerate(document.parts):
        adapter = root.node.get("adapter") if root.node.kind == "mapping" else None
        if adapter is None or _text(root.node, "model_type") != "llm":
            continue
        if adapter.value == "lora" or _text(adapter, "type") == "lora":
            yield part, ()


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a Ludwig file."""
    root = document.parts[part].node
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=True)
    for name in _AUTO:
        if fields.get(name, UNSET).value == "auto":
            fields[name] = Field(None, "unknown", fields[name].path, "Ludwig tries it out (auto)")
    if "lora_alpha" not in fields:
        fields["lora_alpha"] = _alpha(fields["r"])
    fields |= _weights(root)
    adapter = root.get("adapter")
    keys = table("ludwig")["adapter"]["keys"]
    reader = Reader(types=True, choices=True)
    return Recipe(
        dialect="ludwig",
        part=part,
        path=path,
        fields=fields,
        misfits=tuple(misfits(adapter, ("adapter",), keys, reader)) if adapter else (),
        model_class=None if _is(root, "is_multimodal") else "AutoModelForCausalLM",
        objective=_objective(root),
        private={"finished": _text(adapter, "pretrained_adapter_weights") if adapter else None},
    )


def _text(node: Node, key: str) -> str | None:
    found = node.get(key)
    return found.value if found is not None and isinstance(found.value, str) else None


def _is(node: Node, key: str) -> bool:
    found = node.get(key)
    return found is not None and found.value is True


def _alpha(rank: Field) -> Field:
    """``LoraConfig.__post_init__``: twice the rank."""
    if rank.origin == "unknown" or not isinstance(rank.value, int):
        return Field(None, "unknown", rank.path, "twice the rank")
    return Field(rank.value * 2, "computed" if rank.path else "default", None, _PEFT)


def _weights(root: Node) -> dict[str, Field]:
    """How the base model is loaded: quantized with bitsandbytes, else in float32."""
    source = "ludwig 0.11.0 utils/llm_utils.py"
    section = root.get("quantization")
    if section is None or section.kind != "mapping":
        return {
            "dtype": Field("float32", "default", None, source),
            "quantization": Field("none", "default", None, "no quantization section"),
        }
    bits = section.get("bits")
    path: KeyPath = ("quantization",) if bits is None else ("quantization", "bits")
    dtype = _text(section, "bnb_4bit_compute_dtype") or "float16"
    found = {"dtype": Field(dtype, "computed", path, source)}
    if bits is not None and bits.value == 8:
        return found | {"quantization": Field("int8", "computed", path, source)}
    if bits is not None and bits.value != 4:
        unknown = Field(None, "unknown", path, "neither 4 nor 8 bits")
        return found | {"quantization": unknown}
    double = section.get("bnb_4bit_use_double_quant")
    return found | {
        "quantization": Field(
            _text(section, "bnb_4bit_quant_type") or "nf4", "computed", path, source
        ),
        "double_quant": Field(double is None or double.value is True, "computed", path, source),
    }


def _objective(root: Node) -> str | None:
    trainer = root.get("trainer")
    kind = _text(trainer, "type") if trainer is not None else None
    return {"finetune": "sft"}.get(kind, kind) if kind else None


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """``LoraConfig.to_config``: what Ludwig passes to peft's."""
    if recipe.private["finished"]:
        return Undecided("the adapter is loaded from pretrained_adapter_weights")
    names = ("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "task_type")
    values = {name: recipe.value(name) for name in (*names, "use_rslora", "use_dora")}
    init = recipe.value("init_lora_weights")
    if init is not UNKNOWN and init in _BY_DATA:
        return Undecided(f"how Ludwig prepares {init} is not known")
    if init is UNKNOWN or init is not None:
        values["init_lora_weights"] = init
    return LoraKwargs(values)


PRESETS: Final = Codec(_preset, lambda value: value)
DIALECT: Final = Dialect(
    name="ludwig",
    title="Ludwig",
    find=find,
    read=read,
    lower=lower,
    slots={
        name: Slot(name, path, PRESETS if name == "base_model" else AS_WRITTEN)
        for name, path in _KEYS.items()
    },
    defaults=_DEFAULTS,
    checks_types=True,
)
