"""TRL's YAML for its scripts, which the alignment-handbook uses too, and its command line.

Read in trl 1.16.0: trainer/model_config.py for keys, types and defaults; trainer/utils.py
``get_peft_config`` and ``get_quantization_config`` for what becomes of them; scripts/utils.py for
how files are read: ``yaml.safe_load``, then the values replace argparse's defaults, which turns
strings into numbers. Which trainer runs a file is not said in it, so that the trainers' own
defaults are not known. A command (cli/commands/training.py, scripts/*.py) says it; of one that
names a config file only its own options are read here, the file is a document of its own.
The alignment-handbook (0.3.0 alignment/configs.py) has TRL's keys and defaults, but loads the
weights as they are stored where no ``torch_dtype`` is written.
"""

from __future__ import annotations

import re
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
)
from lora_lint.dialects.evaluation import trainer_evaluation
from lora_lint.dialects.options import ARGPARSE, Options, config_file, parsed, restated
from lora_lint.dialects.tables import ARGPARSE_DEFAULTS, Reader, judged, table
from lora_lint.documents.document import NotEditable
from lora_lint.recipe import UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import Edit, KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_KEYS: Final = {
    "base_model": "model_name_or_path",
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
    "target_parameters": "lora_target_parameters",
    "modules_to_save": "lora_modules_to_save",
    "task_type": "lora_task_type",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "dtype": "dtype",
    "max_length": "max_length",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "per_device_eval_batch_size": "per_device_eval_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "optim": "optim",
    "learning_rate": "learning_rate",
    "attn_implementation": "attn_implementation",
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
    "gradient_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "ddp_find_unused_parameters": "ddp_find_unused_parameters",
    "load_in_4bit": "load_in_4bit",
    "load_in_8bit": "load_in_8bit",
    "bnb_4bit_quant_storage": "bnb_4bit_quant_storage",
    "fused_loss": "use_liger_kernel",
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
        "warmup_steps",
    }
)
_BOOLEANS: Final = frozenset(
    {"use_rslora", "use_dora", "gradient_checkpointing", "packing", "trust_remote_code"}
    | {"fp16", "bf16", "load_in_4bit", "load_in_8bit", "ddp_find_unused_parameters", "fused_loss"}
)
_MODEL: Final = "trl 1.16.0 trainer/model_config.py"
_TRAINER: Final = "transformers 5.23.0 training_args.py"
_DEFAULTS: Final = {
    "r": Default(16, _MODEL),
    "lora_alpha": Default(32, _MODEL),
    "lora_dropout": Default(0.05, _MODEL),
    "task_type": Default("CAUSAL_LM", _MODEL),
    "use_rslora": Default(False, _MODEL),
    "use_dora": Default(False, _MODEL),
    "bias": Default("none", "trl 1.16.0 trainer/utils.py"),
    "dtype": Default("float32", _MODEL),
    "per_device_train_batch_size": Default(8, _TRAINER),
    "per_device_eval_batch_size": Default(8, _TRAINER),
    "gradient_accumulation_steps": Default(1, _TRAINER),
    "optim": Default("adamw_torch_fused", _TRAINER),
}
_LORA_KEYS: Final = ("lora_r", "lora_target_modules", "lora_task_type", "lora_modules_to_save")
# Keys by which LLaMA-Factory's files are told from TRL's.
_FOREIGN: Final = frozenset({"finetuning_type", "stage", "lora_rank", "template", "cutoff_len"})
# The scripts of TRL and of its examples, by the name of the command; and of the alignment-handbook.
_ENTRY: Final = re.compile(r"trl (\w+)|trl\.scripts\.(\w+)|(?:.*/)?trl/scripts/(\w+)\.py")
_EXAMPLE: Final = re.compile(r"(?:.*/)?examples/scripts/(?:.*/)?(\w+)\.py")
_SCRIPT: Final = re.compile(
    r"(?:.*/)?(?:run_)?((?:sft|dpo|orpo|cpo|kto|bco|gkd|grpo|rloo|ppo|nash_md|xpo|reward(?:_modeling)?"
    r"|online_dpo|cpt)(?:_vlm|_online)?)\.py"
)
_OBJECTIVES: Final = {"reward": "rm", "reward_modeling": "rm", "cpt": "pt", "sft_vlm": "sft"}
_LORA_OPTIONS: Final = frozenset(
    {*_LORA_KEYS, "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "use_peft"}
)
# Keys of the alignment-handbook's own.
_HANDBOOK: Final = frozenset({"dataset_mixer", "dataset_splits", "dataset_configs"})
_HANDBOOK_SOURCE: Final = "alignment-handbook 0.3.0 alignment/configs.py"


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files that name a model and one of the LoRA keys of TRL's ModelConfig, and TRL's commands
    with such options.
    """
    for part, root in enumerate(document.parts):
        if root.node.style == "command":
            if _is_run(root.node):
                yield part, ()
            continue
        if document.format not in ("yaml", "json"):
            continue
        keys = set(root.node.keys()) if root.node.kind == "mapping" else set()
        if "model_name_or_path" not in keys or keys & _FOREIGN:
            continue
        if keys & set(_LORA_KEYS) or _is_true(root.node, "use_peft"):
            yield part, ()


def _script(note: str) -> str | None:
    """The name of the script of TRL's that a command runs, or of one that may be TRL's."""
    found = _ENTRY.fullmatch(note) or _EXAMPLE.fullmatch(note) or _SCRIPT.fullmatch(note)
    return next(filter(None, found.groups())) if found else None


def _is_run(command: Node) -> bool:
    """Whether a command is TRL's and sets LoRA options.

    A script that only has a name of TRL's examples is theirs if it has no option that TRL lacks.
    """
    note = command.note or ""
    if _script(note) is None:
        return False
    options = _options(command)
    keys = set(options.root.keys())
    if not keys & _LORA_OPTIONS:
        return False
    if _ENTRY.fullmatch(note):
        return True
    peft = "use_peft" in keys or options.more or options.file is not None
    return peft and keys <= set(table("trl"))


def _options(command: Node) -> Options:
    """A command's options, and the file whose values they override: ``--config``, or the first
    word behind a script of the alignment-handbook's.
    """
    file = config_file(command, (".yaml", ".yml"))
    named = command.get("config")
    if named is not None:
        file = str(named.value) if named.kind == "scalar" else "the config file"
    options = parsed(command, table("trl"), file)
    if (command.note or "").startswith("trl "):  # what it does not know goes to accelerate
        options = options._replace(refusal="unrecognized arguments")
    return options


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a TRL file or command."""
    node = document.parts[part].node
    if node.style != "command":
        return _recipe(node, part, path, ARGPARSE_DEFAULTS)
    options = _options(node)
    recipe = _recipe(options.root, part, path, ARGPARSE)
    name = _script(node.note or "") or ""
    fields = {n: Field(d.value, "default", None, d.source) for n, d in _trainer(name).items()}
    recipe = replace(
        recipe, fields={**fields, **recipe.fields}, objective=_OBJECTIVES.get(name, name)
    )
    return restated(recipe, options, _KEYS)


def _trainer(name: str) -> dict[str, Default]:
    """What the trainers of TRL's own command line take where nothing is written."""
    rate = {"sft": 2e-5, "reward": 1e-4}.get(name, 1e-6)
    if name not in ("sft", "dpo", "kto", "grpo", "reward", "rloo"):
        return {}
    source = f"trl 1.16.0 trainer/{name}_config.py"
    made = {
        "learning_rate": Default(rate, source),
    }
    if name not in ("grpo", "rloo"):
        made["max_length"] = Default(1024, source)
    return made


def _recipe(root: Node, part: int, path: KeyPath, reader: Reader) -> Recipe:
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    older = root.get("torch_dtype")
    if older is not None and root.get("dtype") is None:
        fields["dtype"] = read_node(older, ("torch_dtype",))
    elif _HANDBOOK & set(root.keys()) and root.get("dtype") is None:
        fields["dtype"] = Field(None, "default", None, _HANDBOOK_SOURCE)
    length = root.get("max_seq_length")  # SFTConfig's name for it up to trl 0.19
    if length is not None and root.get("max_length") is None:
        fields["max_length"] = read_node(length, ("max_seq_length",), NUMBER)
    fields |= trainer_evaluation(root, path)
    fields["target_modules"] = _unwrapped(fields.get("target_modules", UNSET))
    fields["quantization"], fields["double_quant"] = _quantization(root)
    return Recipe(
        dialect="trl",
        part=part,
        path=path,
        fields=fields,
        **judged(root, path, DIALECT, reader),
        adapter=_is_true(root, "use_peft"),
        switch="use_peft",
    )


def _is_true(root: Node, key: str) -> bool:
    node = root.get(key)
    value = node.value if node is not None else None
    return value is True or (isinstance(value, str) and value.lower() in ("true", "yes", "1"))


def _unwrapped(written: Field) -> Field:
    """``ModelConfig.__post_init__``: the only entry of a list takes the list's place."""
    value = written.value
    if isinstance(value, list) and len(value) == 1:
        return Field(value[0], "computed", written.path, "TRL unwraps a list of one entry")
    return written


def _quantization(root: Node) -> tuple[Field, Field]:
    source = "trl 1.16.0 trainer/utils.py"
    if _is_true(root, "load_in_4bit"):
        kind = root.get("bnb_4bit_quant_type")
        nested = Field(_is_true(root, "use_bnb_nested_quant"), "computed", ("load_in_4bit",))
        value = kind.value if kind is not None else "nf4"
        return Field(value, "computed", ("load_in_4bit",), source), nested
    if _is_true(root, "load_in_8bit"):
        return Field("int8", "computed", ("load_in_8bit",), source), UNSET
    return Field("none", "default", None, _MODEL), UNSET


def _four_bit(document: Document, recipe: Recipe, value: object) -> list[Edit]:
    """4 bits, which are nf4 unless another type is written."""
    root = document.parts[recipe.part].node
    others = ("bnb_4bit_quant_type", "load_in_8bit")
    if value != "nf4" or root.style == "command" or any(root.get(key) for key in others):
        raise NotEditable("it takes several keys")
    return keys_set(document, root, {"load_in_4bit": True}, "use_peft")


def _double(document: Document, recipe: Recipe, value: object) -> list[Edit]:
    root = document.parts[recipe.part].node
    if root.style == "command":
        raise NotEditable("it is an option")
    return keys_set(document, root, {"use_bnb_nested_quant": value}, "use_peft")


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """``get_peft_config``: what TRL passes to LoraConfig."""
    value = recipe.value
    if recipe.private.get("file"):
        return Undecided(f"the rest of the run stands in {recipe.private['file']}")
    values: dict[str, Any] = {
        "task_type": value("task_type"),
        "r": value("r"),
        "target_modules": value("target_modules"),
        "lora_alpha": value("lora_alpha"),
        "lora_dropout": value("lora_dropout"),
        "bias": "none",
        "use_rslora": value("use_rslora"),
        "use_dora": value("use_dora"),
        "modules_to_save": value("modules_to_save"),
    }
    if value("target_parameters") is not None:
        values["target_parameters"] = value("target_parameters")
    return LoraKwargs(values)


def _codec(name: str) -> Codec:
    return NUMBER if name in _NUMBERS else BOOLEAN if name in _BOOLEANS else AS_WRITTEN


DIALECT: Final = Dialect(
    name="trl",
    title="TRL",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (key,), _codec(name)) for name, key in _KEYS.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    refusal="Unknown arguments from config file",
    edits={
        "quantization": Own(_four_bit, frozenset({"load_in_4bit"})),
        "double_quant": Own(_double),
    },
)
