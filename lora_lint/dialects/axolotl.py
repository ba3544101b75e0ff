"""Axolotl's YAML, and what a command line changes of it.

Read in axolotl 0.19.0: utils/schemas/{peft,model,config,training}.py for keys, types and defaults;
loaders/adapter.py for what becomes of them; utils/config/__init__.py ``resolve_dtype``;
loaders/model.py for classes and quantization. Keys without a value count as absent, numbers may be
strings (pydantic), keys that the schema lacks are dropped in silence. ``axolotl train FILE
--lora-r 8`` (cli/utils/args.py: the schema's keys as options) is read as the options alone, since
the file is a document of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    BOOLEAN,
    NUMBER,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Own,
    Slot,
    Undecided,
    keys_set,
    read_node,
    read_slots,
    without_template,
)
from lora_lint.dialects.evaluation import trainer_evaluation
from lora_lint.dialects.options import Options, config_file, parsed, restated
from lora_lint.dialects.tables import PYDANTIC, judged, table
from lora_lint.documents.document import NotEditable
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import Edit, KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

# Liger's loss (integrations/liger/args.py), and what brings it.
_FUSED: Final = "liger_fused_linear_cross_entropy"
_FOUR_BIT_FIELDS: Final = frozenset({"load_in_4bit", "load_in_8bit", "adapter_type"})
_LIGER: Final = "axolotl.integrations.liger.LigerPlugin"
_KEYS: Final = {
    "base_model": "base_model",
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
    "target_parameters": "lora_target_parameters",
    "modules_to_save": "lora_modules_to_save",
    "fan_in_fan_out": "lora_fan_in_fan_out",
    "rank_pattern": "lora_rank_pattern",
    "alpha_pattern": "lora_alpha_pattern",
    "layers_to_transform": "peft_layers_to_transform",
    "layers_pattern": "peft_layers_pattern",
    "layer_replication": "peft_layer_replication",
    "init_lora_weights": "peft_init_lora_weights",
    "use_dora": "peft_use_dora",
    "use_rslora": "peft_use_rslora",
    "trainable_token_indices": "peft_trainable_token_indices",
    "ensure_weight_tying": "peft_ensure_weight_tying",
    "max_length": "sequence_len",
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "optim": "optimizer",
    "learning_rate": "learning_rate",
    "attn_implementation": "attn_implementation",
    "packing": "sample_packing",
    "deepspeed": "deepspeed",
    "fsdp": "fsdp_config",
    "device_map": "device_map",
    "trust_remote_code": "trust_remote_code",
    "fp16": "fp16",
    "bf16": "bf16",
    "max_grad_norm": "max_grad_norm",
    "weight_decay": "weight_decay",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "fsdp_config": "fsdp_config",
    "fsdp_version": "fsdp_version",
    "gradient_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "ddp_find_unused_parameters": "ddp_find_unused_parameters",
    "load_in_4bit": "load_in_4bit",
    "load_in_8bit": "load_in_8bit",
    "gptq": "gptq",
    "merge_lora": "merge_lora",
    "inference": "inference",
    "tokens": "tokens",
    "special_tokens": "special_tokens",
    "adapter_type": "adapter",
}
_NUMBERS: Final = frozenset(
    {
        "r",
        "lora_alpha",
        "lora_dropout",
        "max_length",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "max_grad_norm",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
    }
)
_BOOLEANS: Final = frozenset(
    {
        "fan_in_fan_out",
        "use_dora",
        "use_rslora",
        "ensure_weight_tying",
        "packing",
        "trust_remote_code",
        "fp16",
        "bf16",
        "load_in_4bit",
        "load_in_8bit",
        "gptq",
        "merge_lora",
        "inference",
        "ddp_find_unused_parameters",
    }
)
_ADAPTER: Final = "axolotl 0.19.0 loaders/adapter.py"
_SCHEMA: Final = "axolotl 0.19.0 utils/schemas"
_DEFAULTS: Final = {
    "lora_dropout": Default(0.0, f"{_SCHEMA}/peft.py"),
    "bias": Default("none", _ADAPTER),
    "max_length": Default(512, f"{_SCHEMA}/config.py"),
    "per_device_train_batch_size": Default(1, f"{_SCHEMA}/training.py"),
    "gradient_accumulation_steps": Default(1, f"{_SCHEMA}/training.py"),
    "gradient_checkpointing": Default(False, f"{_SCHEMA}/config.py"),
    "optim": Default("adamw_torch_fused", f"{_SCHEMA}/training.py"),
}
# Keys that make a mapping an Axolotl file, beside ``base_model``.
_MARKS: Final = frozenset(
    {
        "adapter",
        "micro_batch_size",
        "sequence_len",
        "sample_packing",
        "lora_target_linear",
        "lora_target_modules",
        "load_in_4bit",
        "load_in_8bit",
        "val_set_size",
        "datasets",
    }
)
_LORA_ADAPTERS: Final = ("lora", "qlora")
_COMMANDS: Final = ("axolotl train", "axolotl.cli.train", "axolotl.cli.main train")
_LORA_KEYS: Final = ("lora_r", "lora_alpha", "lora_target_modules", "lora_target_linear")
# Attention switches that came before ``attn_implementation``, in the order in which they win.
_ATTENTION: Final = {
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "flex_attention": "flex_attention",
    "xformers_attention": "xformers",
    "eager_attention": "eager",
}
# Output embeddings that ``lora_target_linear`` leaves out (loaders/utils.py).
_OUTPUT_EMBEDDINGS: Final = {"gpt_neox": "embed_out"}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The documents of a YAML stream that are Axolotl's: a base model, and keys only Axolotl
    has; and commands that change LoRA settings of such a file.
    """
    for part, root in enumerate(document.parts):
        if root.node.style == "command":
            if root.node.note in _COMMANDS and set(_LORA_KEYS) & {*_options(root.node).root.keys()}:
                yield part, ()
            continue
        if document.format != "yaml":
            continue
        keys = set(root.node.keys()) if root.node.kind == "mapping" else set()
        if "base_model" not in keys or not keys & _MARKS:
            continue
        adapter = _text(root.node, "adapter")
        open_ = not adapter or "${" in adapter
        if adapter in _LORA_ADAPTERS or (open_ and keys & set(_LORA_KEYS)):
            yield part, ()


def _options(command: Node) -> Options:
    """The options of a command, and the file whose values they override."""
    file = config_file(command, (".yaml", ".yml")) or "the config file"
    return parsed(command, table("axolotl"), file)


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of an Axolotl file or command."""
    node = document.parts[part].node
    if node.style != "command":
        return _recipe(node, part, path)
    options = _options(node)
    recipe = _recipe(options.root, part, path)
    private = {**recipe.private, "text_batches": False}  # a file may say more
    return restated(replace(recipe, stray=(), misfits=(), private=private), options, _KEYS)


def _recipe(root: Node, part: int, path: KeyPath) -> Recipe:
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=True)
    fields |= _emptied(root, path)
    fields["dtype"] = _dtype(root)
    fields["quantization"], fields["double_quant"] = _quantization(root)
    fields["fused_loss"] = _fused_loss(root)
    fields |= _evaluation(root)
    if "attn_implementation" not in fields:
        fields["attn_implementation"] = _attention(root)
    model_class = _model_class(root)
    fields["task_type"] = Field(_task_type(model_class), "computed", None, _ADAPTER)
    if root.get("lora_target_linear") is not None and _is_true(root, "lora_target_linear"):
        fields["target_modules"] = _linear_targets(fields.get("target_modules", UNSET))
    fields = {name: without_template(field) for name, field in fields.items()}
    named = _text(root, "adapter") or ""
    adapter = named in _LORA_ADAPTERS or "${" in named
    experts = root.get("quantize_moe_experts")
    return Recipe(
        dialect="axolotl",
        part=part,
        path=path,
        fields=fields,
        model_class=model_class,
        adapter=adapter,
        switch="adapter",
        objective=_text(root, "rl"),
        private={
            # pixels reach a batch only by a processor (core/builders/causal.py ``build_collator``)
            "text_batches": root.get("processor_type") is None,
            # which are no linear layers (``quantize_moe_experts``); or it is not static
            "quantized_experts": experts is not None and experts.value not in (False, None),
        },
        # plugins bring keys of their own
        **({} if root.get("plugins") else judged(root, path, DIALECT, PYDANTIC)),
    )


def _emptied(root: Node, path: KeyPath) -> dict[str, Field]:
    """A key without a value is None even where the schema has a default: the schema takes it, and
    ``model_dump(exclude_none=True)`` drops it afterwards (utils/config/__init__.py).
    """
    emptied = {}
    for name in _DEFAULTS:
        slot = DIALECT.slots.get(name)
        node = root.at(slot.path) if slot is not None else None
        if slot is not None and node is not None and node.kind == "scalar" and node.value is None:
            emptied[name] = Field(None, "written", (*path, *slot.path))
    return emptied


def _text(root: Node, key: str) -> str | None:
    node = root.get(key)
    return node.value if node is not None and isinstance(node.value, str) else None


def _is_true(root: Node, key: str) -> bool:
    node = root.get(key)
    value = node.value if node is not None else None
    return value is True or (isinstance(value, str) and value.lower() in ("true", "yes", "on", "1"))


def _linear_targets(written: Field) -> Field:
    """``lora_target_linear: true`` adds the leaf name of every linear layer to the written
    targets.
    """
    path: KeyPath = ("lora_target_linear",)
    if written.origin == "written":
        return Field(written.value, "computed", written.path, "with every linear layer's name")
    return Field("all-linear", "computed", path, "every linear layer's name (lora_target_linear)")


def _dtype(root: Node) -> Field:
    """The dtype of the base weights (``resolve_dtype``); ``bf16: auto`` depends on the GPU."""
    for key, dtype in (("bf16", "bfloat16"), ("bfloat16", "bfloat16")):
        if _is_true(root, key) or (key == "bf16" and _text(root, key) == "full"):
            return Field(dtype, "computed", (key,))
    for key in ("load_in_8bit", "fp16", "float16"):
        if _is_true(root, key):
            return Field("float16", "computed", (key,))
    bf16 = root.get("bf16")
    if bf16 is None or bf16.value in (None, "auto"):
        return Field("bfloat16", "default", None, "bf16: auto, on a GPU that has bfloat16")
    return Field("float32", "computed", ("bf16",))


def _quantization(root: Node) -> tuple[Field, Field]:
    adapter = _text(root, "adapter")
    if adapter == "qlora" and _is_true(root, "load_in_4bit"):
        source = "axolotl 0.19.0 loaders/model.py"
        path: KeyPath = ("load_in_4bit",)
        kind = _override(root, "bnb_4bit_quant_type")
        double = _override(root, "bnb_4bit_use_double_quant")
        return (
            kind or Field("nf4", "computed", path, source),
            double or Field(True, "default", None, source),
        )
    if adapter == "lora" and _is_true(root, "load_in_8bit"):
        return Field("int8", "computed", ("load_in_8bit",)), UNSET
    if _is_true(root, "gptq"):
        return Field("gptq", "computed", ("gptq",)), UNSET
    return Field("none", "default", None, "no load_in_4bit, load_in_8bit or gptq"), UNSET


def _override(root: Node, key: str) -> Field | None:
    """A keyword of BitsAndBytesConfig that ``bnb_config_kwargs`` sets."""
    path: KeyPath = ("bnb_config_kwargs",)
    extra = root.at(path)
    node = extra.get(key) if extra is not None and extra.kind == "mapping" else None
    if node is not None:
        return read_node(node, (*path, key))
    if extra is None or extra.kind == "mapping" or (extra.kind == "scalar" and not extra.value):
        return None
    return Field(None, "unknown", path, extra.note)


def _evaluation(root: Node) -> dict[str, Field]:
    """Whether the run evaluates (core/builders/base.py ``_configure_save_and_eval_strategy``): on
    samples that are held out. Where ``eval_batch_size`` is not written it is ``micro_batch_size``
    (utils/config/__init__.py ``normalize_config``).
    """
    held_out = root.get("test_datasets") or root.get("val_set_size")
    if held_out is None:
        return {}
    if held_out.kind == "scalar" and NUMBER.decode(held_out.value) in (0, None, False):
        return {}
    for key in ("eval_steps", "evals_per_epoch"):
        steps = root.get(key)
        if steps is not None and steps.value:
            return {"eval_strategy": Field("steps", "computed", (key,))}
    return trainer_evaluation(root, ())


def _fused_loss(root: Node) -> Field:
    """Whether the loss never holds all logits: a plugin's (integrations/liger/args.py,
    integrations/cut_cross_entropy/args.py, which is on where its plugin is). Losses that are
    computed in chunks of all the logits (monkeypatch/loss/chunked.py) are neither.
    """
    for key in (_FUSED, "cut_cross_entropy"):
        if _is_true(root, key):
            return Field(value=True, origin="computed", path=(key,))
    plugins = root.get("plugins")
    for item in plugins.items if plugins is not None and plugins.kind == "sequence" else ():
        if "CutCrossEntropyPlugin" in str(item.value) and root.get("cut_cross_entropy") is None:
            return Field(value=True, origin="computed", path=("plugins",))
    for key in ("chunked_cross_entropy", "liger_cross_entropy"):
        if _is_true(root, key):
            return Field(None, "unknown", (key,), "a loss in chunks of all the logits")
    return Field(value=False, origin="default", detail=f"{_SCHEMA}/config.py")


def _fuse(document: Document, recipe: Recipe, value: object) -> list[Edit]:
    """Liger's fused loss: its switch, and the plugin without which the switch is not read."""
    root = document.parts[recipe.part].node
    plugins = root.get("plugins")
    if value is not True or root.style == "command":
        raise NotEditable("it is a plugin's")
    edits = []
    if plugins is None:
        edits += document.insert_key(root, "plugins", [_LIGER], ["base_model"])
    elif plugins.kind != "sequence":
        raise NotEditable("plugins is not written as a list")
    elif not any("LigerPlugin" in str(item.value) for item in plugins.items):
        edits += document.set_items(plugins, [*(item.value for item in plugins.items), _LIGER])
    switch = root.get(_FUSED)
    if switch is not None:
        return [*edits, *document.replace(switch, value)]
    return [*edits, *document.insert_key(root, _FUSED, value, ["gradient_checkpointing"])]


def _four_bit(document: Document, recipe: Recipe, value: object) -> list[Edit]:
    """QLoRA, which is nf4 and quantizes twice unless ``bnb_config_kwargs`` says otherwise."""
    root = document.parts[recipe.part].node
    if value != "nf4" or root.style == "command" or root.get("bnb_config_kwargs") is not None:
        raise NotEditable("it takes several keys")
    values: dict[str, object] = {"adapter": "qlora", "load_in_4bit": True}
    if root.get("load_in_8bit") is not None:
        values["load_in_8bit"] = False
    return keys_set(document, root, values, "adapter")


def _double(document: Document, recipe: Recipe, value: object) -> list[Edit]:
    if value is not True or document.parts[recipe.part].node.get("bnb_config_kwargs") is not None:
        raise NotEditable("it stands in bnb_config_kwargs")
    return []


def _attention(root: Node) -> Field:
    for key, name in _ATTENTION.items():
        if _is_true(root, key):
            return Field(name, "computed", (key,))
    return UNSET


def _model_class(root: Node) -> str | None:
    """The class Axolotl builds (loaders/model.py): ``model_type``, unless it is the general one."""
    if _is_true(root, "reward_model"):
        return "AutoModelForSequenceClassification"
    if _is_true(root, "process_reward_model"):
        return "AutoModelForTokenClassification"
    model_type = _text(root, "model_type")
    general = model_type is None or model_type.startswith("AutoModel")
    return None if general or _is_true(root, "trust_remote_code") else model_type


def _task_type(model_class: str | None) -> str:
    """``_get_peft_task_type``: by the name of the model's class."""
    if model_class and "SequenceClassification" in model_class:
        return "SEQ_CLS"
    if model_class and "TokenClassification" in model_class:
        return "TOKEN_CLS"
    return "CAUSAL_LM"


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """``_build_peft_lora_config``: what Axolotl passes to LoraConfig."""
    value = recipe.value
    if recipe.private.get("file"):
        return Undecided(f"the rest of the run stands in {recipe.private['file']}")
    if _beyond_vocabulary(recipe, tree):
        return Undecided("added tokens make the embeddings larger than the base model's")
    targets = value("target_modules")
    if recipe["target_modules"].origin == "computed":
        if tree is None:
            return Undecided("lora_target_linear depends on the model's module names")
        listed = [] if recipe["target_modules"].path == ("lora_target_linear",) else targets
        listed = listed if isinstance(listed, list) else [listed]
        targets = list(dict.fromkeys([*listed, *_linear_names(tree)]))
    values: dict[str, Any] = {
        "r": value("r"),
        "lora_alpha": value("lora_alpha"),
        "target_modules": targets or [] if targets is not UNKNOWN else UNKNOWN,
        "target_parameters": _or(value("target_parameters"), []),
        "layers_to_transform": value("layers_to_transform"),
        "layers_pattern": value("layers_pattern"),
        "lora_dropout": value("lora_dropout"),
        "fan_in_fan_out": value("fan_in_fan_out"),
        "modules_to_save": _or(value("modules_to_save"), None),
        "exclude_modules": None,
        "bias": "none",
        "task_type": _task_type(tree.cls if tree else recipe.model_class),
    }
    for name in (
        "init_lora_weights",
        "use_dora",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "layer_replication",
        "trainable_token_indices",
    ):
        if value(name) is UNKNOWN or value(name):
            values[name] = value(name)
    if value("ensure_weight_tying") is not None:
        values["ensure_weight_tying"] = value("ensure_weight_tying")
    return LoraKwargs(values, patches=frozenset({"dropout-beside-experts", "clippable-linear"}))


def _beyond_vocabulary(recipe: Recipe, tree: ModuleTree | None) -> bool:
    """Whether token indices are meant for rows that Axolotl adds (loaders/model.py resizes the
    embeddings before PEFT sees the model).
    """
    indices, special = recipe.value("trainable_token_indices"), recipe.value("special_tokens")
    added = recipe.value("tokens")
    grows = any(isinstance(part, dict | list) and part for part in (added, special))
    size = tree.facts.get("config", {}).get("vocab_size") if tree is not None else None
    if not grows or not isinstance(indices, list) or not isinstance(size, int):
        return False
    return any(isinstance(index, int) and index >= size for index in indices)


def _or(value: Any, other: Any) -> Any:
    return value if value is UNKNOWN or value else other


def _linear_names(tree: ModuleTree) -> list[str]:
    """``find_all_linear_names``: leaf names of everything that is or is called Linear, without the
    output embedding.
    """
    names = dict.fromkeys(
        name.rpartition(".")[2]
        for name, node in tree.named_modules()
        if node.kind == "Linear"
        or ("Linear" in node.cls and node.cls != "LlamaLinearScalingRotaryEmbedding")
    )
    names.pop(_OUTPUT_EMBEDDINGS.get(tree.model_type or "", "lm_head"), None)
    return list(names)


def _codec(name: str) -> Codec:
    return NUMBER if name in _NUMBERS else BOOLEAN if name in _BOOLEANS else AS_WRITTEN


DIALECT: Final = Dialect(
    name="axolotl",
    title="Axolotl",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (key,), _codec(name)) for name, key in _KEYS.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    checks_types=True,
    edits={
        "fused_loss": Own(_fuse),
        "quantization": Own(_four_bit, _FOUR_BIT_FIELDS),
        "double_quant": Own(_double),
    },
)
