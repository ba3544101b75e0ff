"""LLaMA-Factory's YAML and JSON, and its command line.

Read in llamafactory 0.9.5: hparams/{finetuning,model,data}_args.py for keys, types and defaults;
model/adapter.py, model/model_utils/{misc,visual}.py for what becomes of them; hparams/parser.py for
how files are read: OmegaConf (``1e-4`` is a number, a key set twice is refused), then
HfArgumentParser, which takes values as they are and refuses keys it does not know. On a command
line (cli.py, launcher.py; src/train.py and src/train_bash.py before) stand either its options, read
by argparse, or a file with ``key=value`` overrides of it. Of the latter only the overrides are
read here: the file is a document of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    BOOLEAN,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Own,
    Slot,
    Undecided,
    comma_spans,
    framework_facts,
    keys_set,
    plain_float,
    read_node,
    read_slots,
)
from lora_lint.dialects.evaluation import trainer_evaluation
from lora_lint.dialects.options import (
    ARGPARSE,
    Options,
    config_file,
    overrides,
    parsed,
    restated,
)
from lora_lint.dialects.tables import UNCHECKED, Reader, judged, table
from lora_lint.documents.document import NotEditable
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.diagnostics import Edit, KeyPath
    from lora_lint.documents.document import Document, Part
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree


def _split(value: Any) -> Any:
    """``split_arg``: a string at its commas, empty parts included; a list as it is."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


COMMAS: Final = Codec(_split, _joined, comma_spans)

_KEYS: Final = {
    "base_model": "model_name_or_path",
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target",
    "modules_to_save": "additional_target",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "max_length": "cutoff_len",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "per_device_eval_batch_size": "per_device_eval_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "optim": "optim",
    "learning_rate": "learning_rate",
    "packing": "packing",
    "deepspeed": "deepspeed",
    "fsdp": "fsdp",
    "trust_remote_code": "trust_remote_code",
    "fp16": "fp16",
    "bf16": "bf16",
    "max_grad_norm": "max_grad_norm",
    "weight_decay": "weight_decay",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "warmup_steps": "warmup_steps",
    "fsdp_config": "fsdp_config",
    "resize_vocab": "resize_vocab",
    "quantization_bit": "quantization_bit",
    "quantization_method": "quantization_method",
    "use_galore": "use_galore",
    "use_apollo": "use_apollo",
    "use_badam": "use_badam",
    "fused_loss": "enable_liger_kernel",
}
_SOURCE: Final = "llamafactory 0.9.5 hparams"
_ADAPTER: Final = "llamafactory 0.9.5 model/adapter.py"
_TRAINER: Final = "transformers 5.23.0 training_args.py"
_DEFAULTS: Final = {
    "r": Default(8, f"{_SOURCE}/finetuning_args.py"),
    "lora_dropout": Default(0.0, f"{_SOURCE}/finetuning_args.py"),
    "use_rslora": Default(False, f"{_SOURCE}/finetuning_args.py"),
    "use_dora": Default(False, f"{_SOURCE}/finetuning_args.py"),
    "task_type": Default("CAUSAL_LM", _ADAPTER),
    "max_length": Default(2048, f"{_SOURCE}/data_args.py"),
    "per_device_train_batch_size": Default(8, _TRAINER),
    "per_device_eval_batch_size": Default(8, _TRAINER),
    "gradient_accumulation_steps": Default(1, _TRAINER),
    "optim": Default("adamw_torch_fused", _TRAINER),
    "learning_rate": Default(5e-5, _TRAINER),
}
# Keys that only LLaMA-Factory has.
_MARKS: Final = frozenset(
    {"finetuning_type", "stage", "lora_rank", "lora_target", "template", "cutoff_len"}
)
_LORA_KEYS: Final = ("lora_rank", "lora_alpha", "lora_target")
_LORA_OPTIONS: Final = frozenset(
    {*_LORA_KEYS, "lora_dropout", "additional_target", "use_rslora", "use_dora", "pissa_init"}
)
# Switches that put something else in the place of peft.LoraConfig on the model as it is.
_OTHER_WAYS: Final = (
    "use_unsloth",
    "use_kt",
    "use_llama_pro",
    "mixture_of_depths",
    "resize_vocab",
)
# What LLaMA-Factory freezes of a model that sees, and whether it does so by default.
_FREEZING: Final = {
    "freeze_vision_tower": True,
    "freeze_multi_modal_projector": True,
    "freeze_language_model": False,
}
_PARTS: Final = ("vision_model_keys", "projector_keys", "language_model_keys")
_ATTENTION: Final = {
    "disabled": "eager",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
}
# What runs a training: the entry point, and the scripts of a checkout, whose names others have too.
_ENTRY: Final = re.compile(
    r"(?:llamafactory-cli|llamafactory|lmf|llamafactory\.cli) train"
    r"|llamafactory\.launcher|(?:.*/)?llamafactory/launcher\.py"
)
_SCRIPT: Final = re.compile(r"(?:.*[/.])?(?:train|train_bash|train_sft)(?:\.py)?")
_OWN_OPTIONS: Final = ({"finetuning_type"}, {"stage", "template"}, {"stage", "lora_target"})


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files and commands that train an adapter; those that merge, chat or evaluate are no run."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.style == "command":
            if _is_run(document, root):
                yield part, ()
            continue
        if document.format not in ("yaml", "json"):
            continue
        keys = set(node.keys()) if node.kind == "mapping" else set()
        if "model_name_or_path" not in keys or not keys & _MARKS or "export_dir" in keys:
            continue
        if "use_peft" in keys or not _trains(node, keys):
            continue
        method = _value(node, "finetuning_type", "lora")
        if method == "lora" or (method == "full" and keys & set(_LORA_KEYS)):
            yield part, ()


def _is_run(document: Document, part: Part) -> bool:
    """Whether a command is LLaMA-Factory's and trains an adapter."""
    note = part.node.note or ""
    entry = _ENTRY.fullmatch(note) is not None
    if not entry and not _SCRIPT.fullmatch(note):
        return False
    if _uses_v1(part):
        return False
    options = _options(document, part.node)
    keys = set(options.root.keys())
    if not entry and not any(own <= keys for own in _OWN_OPTIONS):
        return False
    if options.file is not None:
        return bool(keys & _LORA_OPTIONS)  # else the run is the file's own affair
    if _value(options.root, "do_train") is not True and not options.more:
        return False
    method = _value(options.root, "finetuning_type", "lora")
    return "export_dir" not in keys and (
        method == "lora" or (method == "full" and bool(keys & set(_LORA_KEYS)))
    )


def _uses_v1(part: Part) -> bool:
    """Whether the command starts LLaMA-Factory's other engine, which has options of its own."""
    value = next((n for node in part.launchers if (n := node.get("USE_V1"))), None)
    return value is not None and str(value.value).lower() in ("true", "y", "1")


def _options(document: Document, command: Node) -> Options:
    file = config_file(command, (".yaml", ".yml", ".json"))
    if file is not None:
        return overrides(document, command, file)
    return parsed(command, table("llama_factory"))


def _trains(node: Node, keys: set[str]) -> bool:
    do_train = node.get("do_train")
    if do_train is None:
        return "dataset" in keys  # the command line may turn training on
    return do_train.value is not False


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a LLaMA-Factory file or command."""
    node = document.parts[part].node
    if node.style != "command":
        return _recipe(document, node, part, path, UNCHECKED)
    options = _options(document, node)
    reader = ARGPARSE if options.file is None else UNCHECKED
    return restated(_recipe(document, options.root, part, path, reader), options, _KEYS)


def _recipe(document: Document, root: Node, part: int, path: KeyPath, reader: Reader) -> Recipe:
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    if document.format == "yaml":
        for name in ("learning_rate", "lora_dropout"):
            fields[name] = plain_float(fields[name], root.get(_KEYS[name]))
    fields |= trainer_evaluation(root, path)
    fields["lora_alpha"] = _alpha(fields)
    fields["target_modules"] = _targets(fields.get("target_modules", UNSET))
    fields["init_lora_weights"] = _initialisation(root)
    fields["dtype"] = _dtype(root)
    fields["quantization"], fields["double_quant"] = _quantization(root)
    off = _value(root, "disable_gradient_checkpointing", default=False)
    fields["gradient_checkpointing"] = (
        Field(not off, "computed", ("disable_gradient_checkpointing",))
        if root.get("disable_gradient_checkpointing") is not None and isinstance(off, bool)
        else Field(True, "default", None, f"{_SOURCE}/model_args.py")
    )
    reentrant = root.get("use_reentrant_gc")
    if reentrant is not None:
        fields["gradient_checkpointing_kwargs"] = _reentrant(reentrant)
    attention = _value(root, "flash_attn", "auto")
    if attention in _ATTENTION:
        fields["attn_implementation"] = Field(
            _ATTENTION[str(attention)], "computed", ("flash_attn",)
        )
    if _value(root, "neat_packing") is True:
        fields["packing"] = Field(True, "computed", ("neat_packing",))
    return Recipe(
        dialect="llama_factory",
        part=part,
        path=path,
        fields=fields,
        **judged(root, path, DIALECT, reader),
        adapter=_value(root, "finetuning_type", "lora") == "lora",
        switch="finetuning_type",
        objective=str(_value(root, "stage", "sft")),
        private={
            "other_way": next((key for key in _OTHER_WAYS if _value(root, key)), _resumed(root)),
            "reference": bool(_value(root, "ref_model")),
            **{key: _value(root, key, default) for key, default in _FREEZING.items()},
        },
    )


def _reentrant(written: Node) -> Field:
    """What torch's checkpoints are told (model/model_utils/checkpointing.py)."""
    field = read_node(written, ("use_reentrant_gc",), BOOLEAN)
    if field.origin == "unknown":
        return field
    return field._replace(value={"use_reentrant": field.value}, origin="computed")


def _value(root: Node, key: str, default: object = None) -> object:
    """The plain value of a top-level key; ``UNKNOWN`` is reported as absent."""
    node = root.get(key)
    return node.value if node is not None and node.kind == "scalar" else default


def _resumed(root: Node) -> str | None:
    """An adapter that is trained further brings its own LoraConfig."""
    if root.get("adapter_name_or_path") is None or _value(root, "adapter_name_or_path", "") is None:
        return None
    return None if _value(root, "create_new_adapter") is True else "adapter_name_or_path"


def _alpha(fields: dict[str, Field]) -> Field:
    """``lora_alpha or lora_rank * 2``."""
    written, rank = fields.get("lora_alpha", UNSET), fields["r"]
    if written.origin == "unknown" or written.value:
        return written
    source = f"{_SOURCE}/finetuning_args.py: lora_rank * 2"
    if not isinstance(rank.value, int):
        return Field(None, "unknown", None, source)
    if written.origin == "unset":
        return Field(rank.value * 2, "default", None, source)
    return Field(rank.value * 2, "computed", written.path, source)


def _targets(written: Field) -> Field:
    if written.origin == "unset":
        return Field("all-linear", "default", None, f"{_SOURCE}/finetuning_args.py: all")
    if written.value == ["all"]:
        return Field(
            "all-linear", "computed", written.path, "every linear layer (lora_target: all)"
        )
    return written


def _initialisation(root: Node) -> Field:
    if _value(root, "pissa_init") is not True:
        return UNSET
    steps = _value(root, "pissa_iter", 16)
    return Field("pissa" if steps == -1 else f"pissa_niter_{steps}", "computed", ("pissa_init",))


def _dtype(root: Node) -> Field:
    """The dtype the base model is loaded in (model/patcher.py): bf16, else fp16, else its own."""
    for key, dtype in (("bf16", "bfloat16"), ("pure_bf16", "bfloat16"), ("fp16", "float16")):
        if _value(root, key) is True:
            return Field(dtype, "computed", (key,))
    return UNSET


def _quantization(root: Node) -> tuple[Field, Field]:
    bits, method = _value(root, "quantization_bit"), _value(root, "quantization_method", "bnb")
    source = "llamafactory 0.9.5 model/model_utils/quantization.py"
    if bits is None:
        return Field("none", "default", None, "no quantization_bit"), UNSET
    path: KeyPath = ("quantization_bit",)
    if method not in ("bnb", "bitsandbytes") or bits not in (4, 8):
        return Field(None, "unknown", path, f"quantized with {method}"), UNSET
    if bits == 8:
        return Field("int8", "computed", path, source), UNSET
    kind = _value(root, "quantization_type", "nf4")
    double = _value(root, "double_quantization", default=True)
    return Field(kind, "computed", path, source), Field(double, "computed", path, source)


def _four_bit(document: Document, recipe: Recipe, value: object) -> list[Edit]:
    """bitsandbytes in 4 bits, which is nf4 unless another method or type is written."""
    root = document.parts[recipe.part].node
    others = ("quantization_method", "quantization_type")
    if value != "nf4" or root.style == "command" or any(root.get(key) for key in others):
        raise NotEditable("it takes several keys")
    return keys_set(document, root, {"quantization_bit": 4}, "finetuning_type")


def _double(document: Document, recipe: Recipe, value: object) -> list[Edit]:
    root = document.parts[recipe.part].node
    if value is not True or root.style == "command":
        raise NotEditable("it is an option")
    written = root.get("double_quantization") is not None
    return keys_set(document, root, {"double_quantization": True} if written else {}, "")


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """``_setup_lora_tuning``: what LLaMA-Factory passes to LoraConfig."""
    value = recipe.value
    if recipe.private.get("file"):
        return Undecided(f"the rest of the run stands in {recipe.private['file']}")
    if recipe.private["other_way"]:
        return Undecided(f"{recipe.private['other_way']} changes what LLaMA-Factory does with LoRA")
    targets = value("target_modules")
    unused: tuple[str, ...] = ()
    composite = _composite(tree)
    if tree is None:
        targets = UNKNOWN
    elif targets == "all-linear" and recipe["target_modules"].origin != "written":
        targets = _linear_names(tree, composite, frozen=recipe.private["freeze_vision_tower"])
    if tree is not None and composite is not None and isinstance(targets, list):
        named = _patched(tree, composite, recipe, targets)
        unused = tuple(t for t in targets if not any(str(t) in name for name in named))
        targets = named
    values: dict[str, Any] = {
        "r": value("r"),
        "target_modules": targets,
        "lora_alpha": value("lora_alpha"),
        "lora_dropout": value("lora_dropout"),
        "use_rslora": value("use_rslora"),
        "use_dora": value("use_dora"),
        "modules_to_save": value("modules_to_save"),
        "task_type": "CAUSAL_LM",
        "inference_mode": False,
    }
    if recipe.written("init_lora_weights"):
        values["init_lora_weights"] = value("init_lora_weights")
    return LoraKwargs(values, unused=unused)


def _composite(tree: ModuleTree | None) -> dict[str, list[str]] | None:
    """LLaMA-Factory's table of a model's parts, None for a model of text alone."""
    models = framework_facts("llama_factory")["composite_models"]
    found: dict[str, list[str]] | None = models.get(tree.model_type) if tree else None
    return found


def _linear_names(
    tree: ModuleTree, composite: dict[str, list[str]] | None, *, frozen: bool
) -> list[str]:
    """``find_all_linear_modules``: leaf names of all that is called Linear."""
    forbidden = {"lm_head"}
    forbidden |= {"chatglm": {"output_layer"}, "internlm2": {"output"}}.get(
        tree.model_type or "", set()
    )
    if composite is not None:
        forbidden |= {*composite["projector_keys"]}
        forbidden |= {*composite["vision_model_keys"]} if frozen else set()
    return list(
        dict.fromkeys(
            name.rpartition(".")[2]
            for name, node in tree.named_modules()
            if not any(word in name for word in forbidden)
            and ("Linear" in node.cls and "Embedding" not in node.cls)
        )
    )


def _patched(
    tree: ModuleTree, composite: dict[str, list[str]], recipe: Recipe, targets: Sequence[object]
) -> list[str]:
    """``patch_target_modules``: full names, without the frozen parts of a model that sees."""
    forbidden = list(composite["lora_conflict_keys"])
    for switch, part in zip(_FREEZING, _PARTS, strict=True):
        forbidden += composite[part] if recipe.private[switch] else []
    return [
        name
        for name, _ in tree.named_modules()
        if any(str(target) in name for target in targets)
        and not any(word in name for word in forbidden)
    ]


DIALECT: Final = Dialect(
    name="llama_factory",
    title="LLaMA-Factory",
    find=find,
    read=read,
    lower=lower,
    slots={
        name: Slot(
            name, (key,), COMMAS if name in ("target_modules", "modules_to_save") else AS_WRITTEN
        )
        for name, key in _KEYS.items()
    },
    defaults=_DEFAULTS,
    refuses_duplicates=True,
    refusal="Some keys are not used by the HfArgumentParser",
    edits={
        "quantization": Own(_four_bit, frozenset({"quantization_bit"})),
        "double_quant": Own(_double),
    },
)
