"""The files of LLaMA-Factory's new engine (``USE_V1=1 llamafactory-cli sft FILE``).

Read in llamafactory 0.9.5: v1/config/{model,training}_args.py for keys, types and defaults,
arg_parser.py for how files are read (OmegaConf, then HfArgumentParser, which refuses keys it does
not know), arg_utils.py for what becomes of texts in ``peft_config``; v1/plugins/model_plugins/
{peft,quantization}.py and v1/core/{model_engine,base_trainer}.py for what becomes of them. Keys of
``peft_config`` are looked up one by one: others are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
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
from lora_lint.dialects.tables import stray, table
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree


def _plugin_value(value: Any) -> Any:
    """``_convert_str_dict``: digits and booleans out of texts, nothing else."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value.isdigit():
        return int(value)
    return float(value) if value.replace(".", "", 1).isdigit() else value


PLUGIN: Final = Codec(_plugin_value, lambda value: value)
_PEFT: Final = "llamafactory 0.9.5 v1/plugins/model_plugins/peft.py"
_TRAINING: Final = "llamafactory 0.9.5 v1/config/training_args.py"
_MODEL: Final = "llamafactory 0.9.5 v1/config/model_args.py"
_SLOTS: Final = {
    **{
        name: Slot(name, ("peft_config", name), PLUGIN)
        for name in ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
    },
    "target_modules": Slot("target_modules", ("peft_config", "target_modules")),
    "modules_to_save": Slot("modules_to_save", ("peft_config", "modules_to_save")),
    "base_model": Slot("base_model", ("model",)),
    "max_length": Slot("max_length", ("cutoff_len",)),
    "per_device_train_batch_size": Slot("per_device_train_batch_size", ("micro_batch_size",)),
    "gradient_checkpointing": Slot("gradient_checkpointing", ("enable_activation_checkpointing",)),
    "learning_rate": Slot("learning_rate", ("learning_rate",)),
    "attn_implementation": Slot("attn_implementation", ("flash_attn",)),
    "trust_remote_code": Slot("trust_remote_code", ("trust_remote_code",)),
    "bf16": Slot("bf16", ("bf16",)),
    "max_grad_norm": Slot("max_grad_norm", ("max_grad_norm",)),
}
_DEFAULTS: Final = {
    "r": Default(8, _PEFT),
    "lora_alpha": Default(16, _PEFT),
    "lora_dropout": Default(0.05, _PEFT),
    "use_rslora": Default(False, _PEFT),
    "use_dora": Default(False, _PEFT),
    "task_type": Default("CAUSAL_LM", _PEFT),
    "base_model": Default("Qwen/Qwen3-4B-Instruct-2507", _MODEL),
    "max_length": Default(2048, _TRAINING),
    "per_device_train_batch_size": Default(1, _TRAINING),
    "gradient_checkpointing": Default(True, _TRAINING),
    "learning_rate": Default(1e-4, _TRAINING),
    "attn_implementation": Default("sdpa", _MODEL),
    "bf16": Default(True, _TRAINING),
}
_ADAMW: Final = "llamafactory 0.9.5 v1/core/base_trainer.py: torch.optim.AdamW"
# Keys of its files beside peft_config; home-made ones have some, but not two of them.
_MARKS: Final = frozenset(
    {
        "batching_strategy",
        "cutoff_len",
        "dist_config",
        "init_config",
        "kernel_config",
        "lr_scheduler_config",
        "model_class",
        "optim_config",
        "quant_config",
        "sample_backend",
        "train_dataset",
    }
)


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files whose peft_config is the plugin ``lora``; those that merge describe no run."""
    if document.format not in ("yaml", "json"):
        return
    for part, root in enumerate(document.parts):
        plugin = root.node.get("peft_config") if root.node.kind == "mapping" else None
        if plugin is None or plugin.kind != "mapping" or plugin.get("export_dir") is not None:
            continue
        name = plugin.get("name")
        if name is not None and name.value == "lora" and len(_MARKS & {*root.node.keys()}) >= 2:
            yield part, ()


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of such a file."""
    root = document.parts[part].node
    plugin = root.get("peft_config")
    assert plugin is not None  # noqa: S101 - find() saw it
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    if document.format == "yaml":
        fields["learning_rate"] = plain_float(fields["learning_rate"], root.get("learning_rate"))
        dropout = plugin.get("lora_dropout")
        fields["lora_dropout"] = plain_float(fields["lora_dropout"], dropout)
    fields["target_modules"] = _targets(fields.get("target_modules", UNSET))
    fields["quantization"], fields["double_quant"] = _quantization(root.get("quant_config"))
    optim = root.get("optim_config")
    fields["optim"] = Field("adamw_torch", "default", None, _ADAMW)
    if optim is not None and optim.plain() is not None:
        fields["optim"] = Field(None, "unknown", ("optim_config",), "optim_config names it")
    keys = table("llama_factory_v1")
    inner = keys["peft_config"]["keys"]
    keys = {**keys, "peft_config": {}}
    model_class = root.get("model_class")
    resumed = plugin.get("adapter_name_or_path")
    return Recipe(
        dialect="llama_factory_v1",
        part=part,
        path=path,
        fields=fields,
        stray=(
            *stray(root, path, keys, "rejected"),
            *stray(plugin, (*path, "peft_config"), inner, "ignored", complete=True),
        ),
        model_class="AutoModelForTokenClassification"
        if model_class is not None and model_class.value == "cls"
        else None,
        private={"resumed": resumed is not None and resumed.plain() not in (None, "", [])},
    )


def _targets(written: Field) -> Field:
    """``all`` is every linear layer; another string is one name."""
    if written.origin == "unset":
        return Field("all-linear", "default", None, f"{_PEFT}: all")
    if written.value == "all":
        return Field("all-linear", "computed", written.path, "every linear layer (all)")
    if isinstance(written.value, str):
        return Field([written.value], "computed", written.path, _PEFT)
    return written


def _quantization(config: Node | None) -> tuple[Field, Field]:
    if config is None or config.kind != "mapping":
        unset = config is None or (config.kind == "scalar" and config.value is None)
        none = Field("none", "default", None, "no quant_config")
        return none if unset else Field(None, "unknown", ("quant_config",)), UNSET
    at: KeyPath = ("quant_config", "quantization_bit")
    found = config.get("quantization_bit")
    bits = PLUGIN.decode(found.value) if found is not None else None
    source = "llamafactory 0.9.5 v1/plugins/model_plugins/quantization.py"
    if bits == 8:
        return Field("int8", "computed", at, source), UNSET
    if bits != 4:
        return Field(None, "unknown", ("quant_config",), "quant_config says it"), UNSET
    kind, double = config.get("quantization_type"), config.get("double_quantization")
    quantization = Field("nf4", "computed", at, source)
    if kind is not None:
        quantization = read_node(kind, ("quant_config", "quantization_type"))
    nested = Field(True, "computed", at, source)
    if double is not None:
        nested = read_node(double, ("quant_config", "double_quantization"), PLUGIN)
    return quantization, nested


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """``get_lora_model``: what it passes to LoraConfig."""
    if recipe.private["resumed"]:
        return Undecided("adapter_name_or_path: the adapter brings its own LoraConfig")
    value = recipe.value
    targets = value("target_modules")
    if targets == "all-linear":
        targets = UNKNOWN if tree is None else _linear_names(tree)
    names = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "modules_to_save")
    return LoraKwargs(
        {
            "task_type": "CAUSAL_LM",
            "inference_mode": False,
            "target_modules": targets,
            **{name: value(name) for name in names},
        }
    )


def _linear_names(tree: ModuleTree) -> list[str]:
    """``_find_all_linear_modules``: leaf names of all that is called Linear, heads left out."""
    return list(
        dict.fromkeys(
            name.rpartition(".")[2]
            for name, node in tree.named_modules()
            if not any(word in name for word in ("lm_head", "output_layer", "output"))
            and ("Linear" in node.cls and "Embedding" not in node.cls)
        )
    )


DIALECT: Final = Dialect(
    name="llama_factory_v1",
    title="LLaMA-Factory v1",
    find=find,
    read=read,
    lower=lower,
    slots=_SLOTS,
    defaults=_DEFAULTS,
    refuses_duplicates=True,
    refusal="Some keys are not used by the HfArgumentParser",
)
