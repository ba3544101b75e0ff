"""AutoTrain's YAML for language models, and the options of ``autotrain llm``.

Read in autotrain-advanced 0.8.36: parser.py for files (``yaml.safe_load``; ``params`` is handed to
pydantic as it is), trainers/clm/params.py for keys, types and defaults, trainers/clm/utils.py and
train_clm_*.py for what becomes of them, cli/run_llm.py for the options. Keys that are not known
only give a warning. It is tied to transformers 4.48.0. Commands of releases 0.6 and 0.7 have other
names for some options (``--use_peft``, ``--use_int4``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects import arguments
from lora_lint.dialects.base import (
    AS_WRITTEN,
    NUMBER,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    comma_spans,
    plain_float,
    read_slots,
)
from lora_lint.dialects.tables import PYDANTIC, judged
from lora_lint.recipe import UNKNOWN, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree
    from lora_lint.recipe import Origin


def _split(value: Any) -> Any:
    """``get_target_modules``: at its commas, blanks stay; none where it is empty."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() in ("", "all-linear"):
        return value.strip().lower() or None
    return value.split(",")


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


COMMAS: Final = Codec(_split, _joined, comma_spans)
_KEYS: Final = {
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "target_modules",
    "max_length": "block_size",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "optim": "optimizer",
    "learning_rate": "lr",
    "max_grad_norm": "max_grad_norm",
    "weight_decay": "weight_decay",
}
_NUMBERS: Final = frozenset(_KEYS) - {"target_modules", "optim"}
_PARAMS: Final = "autotrain-advanced 0.8.36 trainers/clm/params.py"
_UTILS: Final = "autotrain-advanced 0.8.36 trainers/clm/utils.py"
_DEFAULTS: Final = {
    "r": Default(16, _PARAMS),
    "lora_alpha": Default(32, _PARAMS),
    "lora_dropout": Default(0.05, _PARAMS),
    "target_modules": Default("all-linear", _PARAMS),
    "bias": Default("none", _UTILS),
    "max_length": Default(1024, f"{_UTILS}: configure_block_size, at most the tokenizer's"),
    "per_device_train_batch_size": Default(2, _PARAMS),
    "gradient_accumulation_steps": Default(4, _PARAMS),
    "optim": Default("adamw_torch", _PARAMS),
    "learning_rate": Default(3e-5, _PARAMS),
}
# Options of releases 0.6 and 0.7 (read in 0.6.48 and 0.7.10), by what they are called since.
_OLDER: Final = {
    "per_device_train_batch_size": ("train_batch_size",),
    "learning_rate": ("learning_rate",),
}
_OLD_OPTIONS: Final = ("use_peft", "use_int4", "use_int8", "learning_rate", "train_batch_size")
# Settings whose defaults those releases have otherwise.
_CHANGED: Final = ("target_modules", "quantization", "gradient_accumulation_steps")
_LORA_KEYS: Final = frozenset({"lora_r", "lora_alpha", "lora_dropout", "target_modules"})


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files of an LLM task, and commands, that use PEFT or write LoRA settings."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.kind != "mapping":
            continue
        if arguments.is_command(node):
            named = node.note == "autotrain llm"
        else:
            task = arguments.text(node, "task") or ""
            named = task == "llm" or task.startswith("llm-")
            named = named and node.get("base_model") is not None
        params = _params(node)
        if not named or params is None:
            continue
        keys = {key.replace("-", "_") for key in params.keys()}
        if keys & _LORA_KEYS or _adapter(params):
            yield part, ()


def _params(node: Node) -> Node | None:
    """The mapping with the settings of the training."""
    if arguments.is_command(node):
        return node
    found = node.get("params")
    return found if found is not None and found.kind == "mapping" else None


def _truth(params: Node, key: str, *, default: bool = False) -> bool | None:
    return arguments.truth(params, key, default=default)


def _adapter(params: Node) -> bool | None:
    """Whether PEFT is on, by the option's name of any release; None where it is not static."""
    told = (_truth(params, "peft"), _truth(params, "use_peft"))
    return None if None in told else any(told)


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of an AutoTrain file or command."""
    root = document.parts[part].node
    command = arguments.is_command(root)
    params = _params(root) or root
    under: KeyPath = () if command else ("params",)
    slots = {name: slot._replace(path=slot.path[-1:]) for name, slot in DIALECT.slots.items()}
    base = slots.pop("base_model")
    slots = arguments.spelled(slots, params, _OLDER if command else None)
    fields = read_slots(params, (*path, *under), slots, DIALECT.defaults, null_is_absent=False)
    model = {"base_model": base._replace(path=("model",)) if command else base}
    fields |= read_slots(root, path, arguments.spelled(model, root), {}, null_is_absent=False)
    if not command:
        for name in ("learning_rate", "lora_dropout"):
            fields[name] = plain_float(fields[name], params.get(_KEYS[name]))
    if fields["max_length"].value == -1:
        fields["max_length"] = Field(1024, "computed", fields["max_length"].path, _UTILS)
    where = (*path, *under)
    fields |= _model(params, where)
    task = _trainer(root, params)
    fields["task_type"] = Field(
        "SEQ_CLS" if task == "reward" else "CAUSAL_LM", "computed", None, _UTILS
    )
    if command and any(params.get(arguments.key_of(params, key)) for key in _OLD_OPTIONS):
        reason = "releases before 0.8 have other defaults"
        fields |= {
            name: Field(None, "unknown", None, reason)
            for name in _CHANGED
            if fields[name].origin == "default"
        }
    fields = arguments.unsettled(root, fields, None)
    found = {} if command else judged(root, path, DIALECT, PYDANTIC)
    unsloth = _truth(params, "unsloth") is not False and task in ("default", "sft")
    return Recipe(
        dialect="autotrain",
        part=part,
        path=path,
        fields=fields,
        **found,
        model_class="AutoModelForSequenceClassification" if task == "reward" else None,
        adapter=_adapter(params) is not False,
        switch="peft" if command else "params.peft",
        objective=task,
        private={"unsloth": unsloth},
    )


def _trainer(root: Node, params: Node) -> str:
    """The trainer: out of the task's name, which ``params`` may say otherwise."""
    task = "" if arguments.is_command(root) else arguments.text(root, "task") or ""
    named = task.partition("-")[2]
    told = arguments.text(params, "trainer")
    return told or {"": "default", "generic": "default"}.get(named, named)


def _model(params: Node, where: KeyPath) -> dict[str, Field]:
    """``get_model``: how the base model is loaded."""
    fields: dict[str, Field] = {}
    node = params.get(arguments.key_of(params, "quantization"))
    kind = node.value if node is not None and node.kind == "scalar" else "int4"
    key = (*where, arguments.key_of(params, "quantization"))
    origin: Origin = "default" if node is None else "computed"
    if node is not None and node.kind == "unknown":
        fields["quantization"] = Field(None, "unknown", key, node.note)
    elif _truth(params, "use_int4") or _truth(params, "use_int8"):
        older = "use_int4" if _truth(params, "use_int4") else "use_int8"
        name = {"use_int4": "nf4", "use_int8": "int8"}[older]
        where_older = (*where, arguments.key_of(params, older))
        fields["quantization"] = Field(name, "computed", where_older, _UTILS)
    elif _adapter(params) is False or kind not in ("int4", "int8"):
        fields["quantization"] = Field("none", origin, key if node else None, _UTILS)
    else:
        name = {"int4": "nf4", "int8": "int8"}[str(kind)]
        fields["quantization"] = Field(name, origin, key if node else None, _UTILS)
    fields["double_quant"] = Field(False, "default", None, _UTILS)
    fields["dtype"] = Field("float32", "default", None, "transformers 4.48.0: no torch_dtype")
    mixed = arguments.text(params, "mixed_precision")
    for name in ("fp16", "bf16"):
        if mixed == name:
            at = (*where, arguments.key_of(params, "mixed_precision"))
            fields[name] = Field(True, "computed", at)
    off = _truth(params, "disable_gradient_checkpointing")
    at = (*where, arguments.key_of(params, "disable_gradient_checkpointing"))
    fields["gradient_checkpointing"] = (
        Field(not off, "computed", at)
        if params.get(at[-1]) is not None and off is not None
        else Field(True, "default", None, _PARAMS)
    )
    if _truth(params, "use_flash_attention_2"):
        at = (*where, arguments.key_of(params, "use_flash_attention_2"))
        fields["attn_implementation"] = Field("flash_attention_2", "computed", at)
    return fields


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """The LoraConfig of train_clm_*.py."""
    if recipe.private["unsloth"]:
        return Undecided("unsloth puts LoRA into the model, where it is installed")
    value = recipe.value
    targets = value("target_modules")
    return LoraKwargs(
        {
            "r": value("r"),
            "lora_alpha": value("lora_alpha"),
            "lora_dropout": value("lora_dropout"),
            "bias": "none",
            "task_type": value("task_type"),
            "target_modules": targets if targets is UNKNOWN else targets or None,
        }
    )


def _codec(name: str) -> Codec:
    if name == "target_modules":
        return COMMAS
    return NUMBER if name in _NUMBERS else AS_WRITTEN


DIALECT: Final = Dialect(
    name="autotrain",
    title="AutoTrain",
    find=find,
    read=read,
    lower=lower,
    slots={
        "base_model": Slot("base_model", ("base_model",)),
        **{name: Slot(name, ("params", key), _codec(name)) for name, key in _KEYS.items()},
    },
    defaults=_DEFAULTS,
    parses_numbers=True,
    warns=True,
)
