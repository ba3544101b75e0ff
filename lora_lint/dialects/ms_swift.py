"""ms-swift: its YAML and JSON files, and the commands ``swift`` and ``megatron``.

Read in ms_swift 4.6.0: arguments/*.py, trainers/arguments.py and
megatron/arguments/megatron_args.py for keys, types and defaults; pipelines/train/tuner.py and
utils/transformers_utils.py for what becomes of them; cli/main.py ``parse_yaml_args`` for files,
which become a command line, so that each value goes through argparse as a text; pipelines/base.py
refuses what is left over. Older
releases (2.6.1, 3.9.3) have other names: ``sft_type`` and ``train_type``, ``model_id_or_path``,
``lora_dropout_p``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects import arguments
from lora_lint.dialects.arguments import LIST, text, truth
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
    framework_facts,
    read_slots,
)
from lora_lint.dialects.evaluation import trainer_evaluation
from lora_lint.dialects.linear_names import Parts, linear_names, named_like, parts_regex
from lora_lint.dialects.tables import table
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_KEYS: Final = {
    "base_model": "model",
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "target_modules",
    "target_parameters": "target_parameters",
    "modules_to_save": "modules_to_save",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "bias": "lora_bias",
    "init_lora_weights": "init_weights",
    "dtype": "torch_dtype",
    "max_length": "max_length",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "per_device_eval_batch_size": "per_device_eval_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "gradient_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "optim": "optim",
    "learning_rate": "learning_rate",
    "attn_implementation": "attn_impl",
    "packing": "packing",
    "deepspeed": "deepspeed",
    "fsdp": "fsdp",
    "device_map": "device_map",
    "fp16": "fp16",
    "bf16": "bf16",
    "max_grad_norm": "max_grad_norm",
    "weight_decay": "weight_decay",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "warmup_steps": "warmup_steps",
    "fused_loss": "use_liger_kernel",
}
# Names of older releases, and those of the Megatron arguments.
_OLDER: Final = {
    "base_model": ("model_id_or_path",),
    "target_modules": ("lora_target_modules",),
    "lora_dropout": ("lora_dropout_p",),
    "modules_to_save": ("lora_modules_to_save",),
    "bias": ("lora_bias_trainable",),
    "init_lora_weights": ("init_lora_weights",),
    "dtype": ("dtype",),
    "per_device_train_batch_size": ("batch_size",),
    "per_device_eval_batch_size": ("eval_batch_size",),
}
_MEGATRON: Final = {
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "",
    "learning_rate": "lr",
    "gradient_checkpointing": "",
    "gradient_checkpointing_kwargs": "",
    "gradient_accumulation_steps": "",
    "deepspeed": "",
    "fsdp": "",
    "optim": "",
}
_NUMBERS: Final = frozenset(
    {"r", "lora_alpha", "lora_dropout", "max_length", "per_device_train_batch_size"}
    | {"per_device_eval_batch_size"}
    | {"gradient_accumulation_steps", "learning_rate", "max_grad_norm", "weight_decay"}
    | {"adam_beta1", "adam_beta2", "adam_epsilon", "warmup_steps"}
)
_BOOLEANS: Final = frozenset(
    {"use_rslora", "use_dora", "gradient_checkpointing", "packing", "fp16", "bf16", "fused_loss"}
)
_LISTS: Final = frozenset({"target_modules", "target_parameters", "modules_to_save"})
_TUNER: Final = "ms_swift 4.6.0 arguments/tuner_args.py"
_TRAINER: Final = "ms_swift 4.6.0 trainers/arguments.py"
_DEFAULTS: Final = {
    "r": Default(8, _TUNER),
    "lora_alpha": Default(32.0, _TUNER),
    "lora_dropout": Default(0.05, _TUNER),
    "use_rslora": Default(False, _TUNER),
    "use_dora": Default(False, _TUNER),
    "bias": Default("none", _TUNER),
    "init_lora_weights": Default(True, _TUNER),
    "per_device_train_batch_size": Default(1, _TRAINER),
    "per_device_eval_batch_size": Default(1, _TRAINER),
    "gradient_checkpointing": Default(True, _TRAINER),
    "learning_rate": Default(1e-4, "ms_swift 4.6.0 arguments/sft_args.py"),
    "optim": Default("adamw_torch_fused", "transformers 5.23.0 training_args.py"),
}
_SWITCHES: Final = ("tuner_type", "train_type", "sft_type")
_LORA: Final = ("lora", "longlora", "lora_llm")
_LORA_KEYS: Final = frozenset(
    {"lora_rank", "lora_alpha", "lora_dropout", "target_modules", "target_regex"}
    | {"lora_target_modules", "lora_dropout_p"}
)
# Keys that only ms-swift has.
_MARKS: Final = frozenset(
    {"tuner_backend", "freeze_llm", "freeze_vit", "freeze_aligner", "attn_impl", "model_author"}
    | {"split_dataset_ratio", "target_regex", "quant_bits", "padding_free", "rlhf_type"}
    | {"mcore_model", "lora_dropout_p", "lora_target_modules", "template_type", "agent_template"}
)
# Keys of the args.json that a run leaves behind.
_RESULTS: Final = frozenset({"swift_version", "model_dir", "model_info"})
# Keys of ms-swift 2, whose defaults are others.
_SECOND: Final = frozenset(
    {"sft_type", "model_id_or_path", "lora_target_modules", "lora_dropout_p", "template_type"}
    | {"batch_size", "quantization_bit", "train_dataset_sample", "custom_train_dataset_path"}
)
_MEGATRON_MARKS: Final = frozenset(
    {"mcore_model", "global_batch_size", "expert_model_parallel_size", "moe_grouped_gemm"}
    | {"pipeline_model_parallel_size", "tensor_model_parallel_size", "recompute_granularity"}
)
_COMMANDS: Final = {
    **{f"swift {task}": task for task in ("sft", "pt", "rlhf")},
    **{f"swift.cli.{task}": task for task in ("sft", "pt", "rlhf")},
    **{f"swift/cli/{task}.py": task for task in ("sft", "pt", "rlhf")},
}
_MEGATRON_COMMANDS: Final = {
    **{f"megatron {task}": task for task in ("sft", "pt", "rlhf")},
    **{f"swift.cli._megatron.{task}": task for task in ("sft", "pt", "rlhf")},
    **{f"swift/cli/_megatron/{task}.py": task for task in ("sft", "pt", "rlhf")},
}
_ATTENTION: Final = {"flash_attn": "flash_attention_2"}
_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# What PEFT is told of a task (pipelines/train/tuner.py ``prepare_adapter``).
_TASKS: Final = {
    "causal_lm": "CAUSAL_LM",
    "seq_cls": "SEQ_CLS",
    "embedding": None,
    "reranker": "SEQ_CLS",
    "generative_reranker": "CAUSAL_LM",
    "decision": "CAUSAL_LM",
}
_ALL: Final = ("all-linear", "all-embedding")
# What ms-swift 2 calls so, by lists of its own.
_SECOND_ALL: Final = ("ALL", "DEFAULT", "EMBEDDING", "AUTO")
# Mamba models, whose ``out_proj`` and ``conv1d`` ms-swift drops from its targets.
_MAMBA: Final = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
_NO_MAMBA: Final = frozenset({"out_proj", "conv1d"})


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files and commands that train with LoRA, or write LoRA settings that do nothing."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.kind != "mapping":
            continue
        keys = {key.replace("-", "_") for key in node.keys()}
        if arguments.is_command(node):
            named = _task(node) is not None
        else:
            tuned = bool(keys & set(_SWITCHES))
            named = bool(keys & {"model", "model_id_or_path", "mcore_model"})
            named = named and (tuned or bool(keys & _MARKS and keys & _LORA_KEYS))
            named = named and not keys & _RESULTS and not _nested(node)
        if not named:
            continue
        kind = text(node, *_SWITCHES) or ("full" if _is_megatron(node) else "lora")
        told = bool(keys & _LORA_KEYS)
        if arguments.config_file(node) and not told and not keys & set(_SWITCHES):
            continue  # the config file says all there is
        if kind in _LORA or (kind == "full" and told):
            yield part, ()


def _nested(node: Node) -> bool:
    model = node.get("model") or node.get("model_id_or_path")
    return model is not None and model.kind == "mapping"


def _task(node: Node) -> str | None:
    """What a command trains for: ``sft``, ``pt`` or ``rlhf``; None where it is not ms-swift's."""
    note = node.note or ""
    for known in (_COMMANDS, _MEGATRON_COMMANDS):
        for name, task in known.items():
            if note == name or (name.endswith(".py") and note.endswith(name)):
                return task
    return None


def _is_megatron(node: Node) -> bool:
    note = node.note or ""
    if arguments.is_command(node):
        return "megatron" in note
    return bool(set(node.keys()) & _MEGATRON_MARKS)


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of an ms-swift file or command."""
    root = document.parts[part].node
    megatron = _is_megatron(root)
    second = any(root.get(arguments.key_of(root, key)) is not None for key in _SECOND)
    fields = read_slots(
        root,
        path,
        arguments.spelled(_slots(megatron=megatron), root, _OLDER),
        _defaults(megatron=megatron, second=second),
        null_is_absent=False,
    )
    for name, words in (("attn_implementation", _ATTENTION), ("dtype", _DTYPES)):
        found = fields.get(name, UNSET)
        if found.value in words:
            fields[name] = Field(words[str(found.value)], "computed", found.path)
    if fields.get("dtype", UNSET).value == "AUTO":
        fields["dtype"] = UNSET  # the model's own
    if fields["init_lora_weights"].value == "lora-ga":
        why = "ms-swift hands LoRA-GA to another library"
        fields["init_lora_weights"] = fields["init_lora_weights"]._replace(
            value=None, origin="unknown", detail=why
        )
    listed = fields.get("target_modules", UNSET)
    fields["target_modules"] = _targets(root, path, listed, second=second)
    fields["quantization"], fields["double_quant"] = _quantization(root, path)
    if not megatron:
        fields |= _evaluation(root, path)
    task = _task_type(root)
    fields["task_type"] = task
    switch = next((k for k in _SWITCHES if root.get(arguments.key_of(root, k))), _SWITCHES[0])
    source = arguments.config_file(root)
    fields = arguments.unsettled(root, fields, source)
    kind = text(root, *_SWITCHES)
    off = kind == "full" or (kind is None and megatron and source is None)
    return Recipe(
        dialect="ms_swift",
        part=part,
        path=path,
        fields=fields,
        **arguments.judged(root, path, table("ms_swift"), shared=("config",)),
        model_class="AutoModelForSequenceClassification" if task.value == "SEQ_CLS" else None,
        adapter=not off,
        switch=arguments.key_of(root, switch),
        objective=text(root, "rlhf_type") or _task(root),
        private={
            "other_way": _other_way(root, kind, megatron=megatron),
            "reference": bool(text(root, "ref_model")),
            "listed": None if listed.origin == "unset" else listed.value,
            **{
                name: truth(root, name, default=name != "freeze_llm")
                for name in ("freeze_llm", "freeze_vit", "freeze_aligner")
            },
        },
    )


def _evaluation(root: Node, path: KeyPath) -> dict[str, Field]:
    """Whether the run evaluates: with samples to do so, and then as often as it saves, unless told
    otherwise (arguments/base_args/data_args.py ``_init_val_dataset_exists``, arguments/sft_args.py
    ``_init_eval_strategy``); ``save_strategy`` is ``steps`` by default.
    """
    for name in ("val_dataset", "cached_val_dataset", "split_dataset_ratio"):
        key = arguments.key_of(root, name)
        node = root.get(key)
        if node is None or (node.kind == "scalar" and NUMBER.decode(node.value) in (0, None, "")):
            continue
        found = trainer_evaluation(root, path)
        saved = text(root, "save_strategy") or "steps"
        return found or {"eval_strategy": Field(saved, "computed", (*path, key))}
    return {}


def megatron_slots() -> dict[str, Slot]:
    """The keys of a run on Megatron."""
    return _slots(megatron=True)


def megatron_defaults() -> dict[str, Default]:
    """What absent keys mean in a run on Megatron."""
    return _defaults(megatron=True, second=False)


def _slots(*, megatron: bool) -> dict[str, Slot]:
    if not megatron:
        return dict(DIALECT.slots)
    keys = {name: _MEGATRON.get(name, key) for name, key in _KEYS.items()}
    return {name: Slot(name, (key,), _codec(name)) for name, key in keys.items() if key}


def _defaults(*, megatron: bool, second: bool) -> dict[str, Default]:
    found = dict(_DEFAULTS)
    if megatron:
        for name in ("gradient_checkpointing", "optim"):
            del found[name]
    if second:
        source = "ms_swift 2.6.1 llm/utils/argument.py"
        found["max_length"] = Default(2048, source)
    return found


def _targets(root: Node, path: KeyPath, listed: Field, *, second: bool) -> Field:
    """``target_regex`` wins; ``all-linear`` in the list becomes every linear layer's name."""
    regex = root.get(arguments.key_of(root, "target_regex"))
    if regex is not None and regex.kind == "unknown":
        return Field(None, "unknown", (*path, "target_regex"), regex.note)
    if regex is not None and regex.value:
        where = (*path, arguments.key_of(root, "target_regex"))
        return Field(str(regex.value), "computed", where, "target_regex")
    if listed.origin == "unset":
        if second:
            return Field(None, "unknown", None, "ms-swift 2's own list for the model's type")
        return Field("all-linear", "default", None, f"{_TUNER}: all-linear")
    value = listed.value
    if isinstance(value, list) and any(word in value for word in _SECOND_ALL):
        return Field(None, "unknown", listed.path, "ms-swift 2's own list for the model's type")
    if value == ["all-linear"]:
        return Field("all-linear", "computed", listed.path, "every linear layer (all-linear)")
    if isinstance(value, list) and any(word in value for word in _ALL):
        return Field(
            [v for v in value if v not in _ALL],
            "computed",
            listed.path,
            "with the names that all-linear and all-embedding stand for",
        )
    return listed


def _quantization(root: Node, path: KeyPath) -> tuple[Field, Field]:
    """``get_quantization_config``: bits count only beside a method (since ms-swift 3)."""
    source = "ms_swift 4.6.0 arguments/base_args/quant_args.py"
    method, bits = text(root, "quant_method"), text(root, "quant_bits")
    older = text(root, "quantization_bit")
    if arguments.unknown(root, "quant_method", "quant_bits", "quantization_bit"):
        return Field(None, "unknown", None, "the quantization is not static"), UNSET
    if text(root, "tuner_backend") == "unsloth" and bits is not None:
        return Field(None, "unknown", None, "unsloth loads the model"), UNSET
    if older not in (None, "0") and method is None:
        method, bits = "bnb", older
    key = next(
        k
        for k in ("quant_bits", "quantization_bit", "quant_method")
        if text(root, k) or k == "quant_method"
    )
    where: KeyPath = (*path, arguments.key_of(root, key))
    bits = bits or older
    if method is None:
        return Field("none", "default", None, "no quant_method"), UNSET
    if method != "bnb" or bits not in ("4", "8"):
        return Field(method, "computed", where, source), UNSET
    if bits == "8":
        return Field("int8", "computed", where, source), UNSET
    kind = text(root, "bnb_4bit_quant_type") or "nf4"
    double = truth(root, "bnb_4bit_use_double_quant", default=True)
    return Field(kind, "computed", where, source), Field(double, "computed", where, source)


def _task_type(root: Node) -> Field:
    source = "ms_swift 4.6.0 pipelines/train/tuner.py"
    if text(root, "rlhf_type") == "rm":
        return Field("SEQ_CLS", "computed", None, source)
    task = text(root, "task_type")
    if task is None and text(root, "num_labels") is not None:
        task = "seq_cls"
    if arguments.unknown(root, "task_type") or (task is not None and task not in _TASKS):
        return Field(None, "unknown", None, "the task is not static")
    return Field(_TASKS[task or "causal_lm"], "computed", None, source)


def _other_way(root: Node, kind: str | None, *, megatron: bool) -> str | None:
    """What makes ms-swift do something else than give a LoraConfig to PEFT."""
    if megatron:
        return "Megatron's modules have other names than the model's"
    if kind == "lora_llm":
        return "tuner_type lora_llm trains the other parts of the model in full"
    if truth(root, "use_swift_lora") is not False:
        return "use_swift_lora puts ms-swift's own layers into the model"
    if text(root, "tuner_backend") not in (None, "peft"):
        return "tuner_backend leaves LoRA to another library"
    if (text(root, "init_weights") or "").lower() == "lora-ga":
        return "init_weights lora-ga is not PEFT's"
    for key in ("adapters", "resume_from_checkpoint"):
        if root.get(arguments.key_of(root, key)) is not None:
            return f"{key} brings a LoraConfig of its own"
    return None


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """``prepare_adapter``: what ms-swift passes to LoraConfig."""
    if recipe.private["other_way"]:
        return Undecided(recipe.private["other_way"])
    value = recipe.value
    targets = _expanded(recipe, tree)
    if isinstance(targets, Undecided):
        return targets
    saved = value("modules_to_save")
    if isinstance(saved, list):
        if any(word in saved for word in ("all-embedding", "all-norm")):
            if tree is None:
                return Undecided("all-embedding and all-norm depend on the model's module names")
            named = {word: named_like(tree, word) for word in ("all-embedding", "all-norm")}
            saved = [name for entry in saved for name in named.get(entry, [entry])]
    elif saved is None:
        saved = []
    if value("task_type") == "SEQ_CLS" and isinstance(saved, list):
        saved = [*saved, "v_head"]
    values: dict[str, Any] = {
        "task_type": value("task_type"),
        "r": value("r"),
        "target_modules": targets,
        "lora_alpha": value("lora_alpha"),
        "lora_dropout": value("lora_dropout"),
        "bias": value("bias"),
        "modules_to_save": saved,
        "use_rslora": value("use_rslora"),
        "use_dora": value("use_dora"),
        "init_lora_weights": value("init_lora_weights"),
    }
    if value("target_parameters") is not None:
        values["target_parameters"] = value("target_parameters")
    return LoraKwargs(values)


def _expanded(recipe: Recipe, tree: ModuleTree | None) -> Any:
    """``get_target_modules``: names in the place of all-linear and all-embedding."""
    field = recipe["target_modules"]
    if field.origin == "unknown":
        return UNKNOWN
    listed = recipe.private["listed"] if field.origin == "computed" else field.value
    if field.path is not None and field.path[-1] in ("target_regex", "target-regex"):
        return field.value
    if field.origin == "default" or listed == "all-linear":
        listed = ["all-linear"]
    if not isinstance(listed, list) or not any(word in listed for word in _ALL):
        return listed
    if tree is None:
        return Undecided("all-linear depends on the model's module names")
    embedding = "all-embedding" in listed
    names = [name for name in listed if name not in _ALL]
    if "all-linear" in listed:
        known = _family(tree)
        if isinstance(known, Undecided):
            return known
        sees, parts = known
        if sees:
            return _regex(recipe, tree, parts, embedding=embedding)
        names += linear_names(tree, str(parts.get("lm_head") or "lm_head").rpartition(".")[2])
    if embedding:
        names += named_like(tree, "all-embedding")
    if tree.model_type in _MAMBA:
        names = [name for name in names if name not in _NO_MAMBA]
    return list(dict.fromkeys(names))


def _family(tree: ModuleTree) -> tuple[bool, Mapping[str, Any]] | Undecided:
    """Whether ms-swift takes the model for multimodal, and what its parts are called."""
    facts = framework_facts("ms_swift")
    stem, head, _ = tree.cls.partition("For")
    found = facts["models"].get(tree.cls)
    if found is None and head:
        found = facts["models"].get(f"{stem}ForCausalLM")
    if found is None:
        return Undecided(f"ms-swift's own description of {tree.cls} is not known")
    sees, arch = found
    parts = facts["parts"].get(arch, {})
    if sees and not parts.get("language_model"):
        return Undecided(f"ms-swift's own description of {tree.cls} is not known")
    return sees, parts


def _regex(
    recipe: Recipe, tree: ModuleTree, parts: Mapping[str, Any], *, embedding: bool
) -> str | Undecided:
    frozen = [recipe.private[f"freeze_{part}"] for part in ("llm", "vit", "aligner")]
    if None in frozen:
        return Undecided("which parts of the model are frozen is not static")
    named = Parts(*(_as_list(parts.get(p)) for p in ("language_model", "vision_tower", "aligner")))
    head = str(parts.get("lm_head") or "lm_head").rpartition(".")[2]
    found = parts_regex(tree, named, [bool(part) for part in frozen], head, embedding=embedding)
    return found or Undecided("ms-swift's names of the model's parts are of another transformers")


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _init(value: Any) -> Any:
    """``true`` and ``false`` are booleans, every other text a method's name."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def _codec(name: str) -> Codec:
    if name == "init_lora_weights":
        return Codec(_init, lambda value: value)
    if name in _LISTS:
        return LIST
    return NUMBER if name in _NUMBERS else BOOLEAN if name in _BOOLEANS else AS_WRITTEN


DIALECT: Final = Dialect(
    name="ms_swift",
    title="ms-swift",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (key,), _codec(name)) for name, key in _KEYS.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    refusal="remaining_argv",
)
