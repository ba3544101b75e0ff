"""torchtune's YAML, and the overrides of its ``tune run`` command.

Read in torchtune 0.6.1: models/*/_model_builders.py for arguments and defaults,
models/*/_component_builders.py for what is built of them, config/_parse.py and
config/_instantiate.py for how files are read: OmegaConf (``3e-4`` is a number, a key set twice is
refused, ``${key}`` is looked up), then ``model._component_`` is called with the other keys beside
it. recipes/lora_finetune_*.py for the keys around it; recipes are copied and changed, so that
others are no mistake there.

torchtune applies LoRA itself. Its layers have the names of Llama's in Hugging Face's model, but
for ``output_proj`` (``o_proj``) and ``w1``, ``w3``, ``w2`` (``gate_proj``, ``up_proj``,
``down_proj``); a layer's output is scaled by ``lora_alpha / lora_rank`` (modules/peft/lora.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    NUMBER,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    framework_facts,
    is_template,
    plain_float,
    read_node,
    read_slots,
)
from lora_lint.dialects.tables import UNCHECKED, misfits, stray
from lora_lint.documents.document import NotEditable
from lora_lint.recipe import UNKNOWN, UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
# Optimizers by their classes, under transformers' names.
_OPTIMIZERS: Final = {
    "torch.optim.AdamW": "adamw_torch",
    "torch.optim.SGD": "sgd",
    "bitsandbytes.optim.AdamW8bit": "adamw_bnb_8bit",
    "bitsandbytes.optim.PagedAdamW": "paged_adamw_32bit",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit",
    "torchao.optim.AdamW8bit": "adamw_torch_8bit",
    "torchao.optim.AdamW4bit": "adamw_torch_4bit",
}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    return names.get(value, value) if isinstance(value, str) else value


def _no_class(value: Any) -> Any:
    msg = f"torchtune names optimizers by their classes, not {value!r}"
    raise NotEditable(msg)


def _scalar(text: Any) -> Any:
    """A word of a command line, which OmegaConf reads as YAML."""
    words = {"true": True, "false": False, "null": None, "none": None, "~": None}
    if isinstance(text, str) and text.lower() in words:
        return words[text.lower()]
    return NUMBER.decode(text)


_WORD: Final = Codec(_scalar, AS_WRITTEN.encode)
_DTYPE: Final = Codec(
    lambda value: _renamed(value, _DTYPES),
    lambda value: _renamed(value, {name: key for key, name in _DTYPES.items()}),
)
_OPTIMIZER: Final = Codec(lambda value: _renamed(value, _OPTIMIZERS), _no_class)

_SLOTS: Final = {
    "r": Slot("r", ("model", "lora_rank")),
    "lora_alpha": Slot("lora_alpha", ("model", "lora_alpha")),
    "lora_dropout": Slot("lora_dropout", ("model", "lora_dropout")),
    "target_modules": Slot("target_modules", ("model", "lora_attn_modules")),
    "use_dora": Slot("use_dora", ("model", "use_dora")),
    "dtype": Slot("dtype", ("dtype",), _DTYPE),
    "max_length": Slot("max_length", ("tokenizer", "max_seq_len")),
    "per_device_train_batch_size": Slot("per_device_train_batch_size", ("batch_size",)),
    "gradient_accumulation_steps": Slot(
        "gradient_accumulation_steps", ("gradient_accumulation_steps",)
    ),
    "gradient_checkpointing": Slot("gradient_checkpointing", ("enable_activation_checkpointing",)),
    "optim": Slot("optim", ("optimizer", "_component_"), _OPTIMIZER),
    "learning_rate": Slot("learning_rate", ("optimizer", "lr")),
    "weight_decay": Slot("weight_decay", ("optimizer", "weight_decay")),
    "max_grad_norm": Slot("max_grad_norm", ("clip_grad_norm",)),
    "packing": Slot("packing", ("dataset", "packed")),
}
_MODELS: Final = "torchtune 0.6.1 models"
_RECIPE: Final = "torchtune 0.6.1 recipes/lora_finetune_single_device.py"
_DEFAULTS: Final = {
    "bias": Default("none", "torchtune 0.6.1 modules/peft/lora.py"),
    "task_type": Default("CAUSAL_LM", _RECIPE),
    "gradient_checkpointing": Default(False, _RECIPE),
    "packing": Default(False, "torchtune 0.6.1 datasets"),
}
# Arguments of builders that fields stand for; their defaults are the builder's own.
_ARGUMENTS: Final = ("r", "lora_alpha", "lora_dropout", "use_dora")
_NUMBERS: Final = ("r", "lora_alpha", "lora_dropout", "learning_rate", "weight_decay")
_BUILDER: Final = re.compile(r"[\w.]*\b(q?)lora_(\w+)")
# The models that builders build, without ``lora_``: torchtune's own sizes, which are these models'
# (tools/second_ways/torchtune.py counts their parameters).
_BASE_MODELS: Final = {
    "llama2_7b": "meta-llama/Llama-2-7b-hf",
    "llama2_13b": "meta-llama/Llama-2-13b-hf",
    "llama2_70b": "meta-llama/Llama-2-70b-hf",
    "code_llama2_7b": "codellama/CodeLlama-7b-hf",
    "code_llama2_13b": "codellama/CodeLlama-13b-hf",
    "code_llama2_70b": "codellama/CodeLlama-70b-hf",
    "llama3_8b": "meta-llama/Meta-Llama-3-8B",
    "llama3_70b": "meta-llama/Meta-Llama-3-70B",
    "llama3_1_8b": "meta-llama/Llama-3.1-8B",
    "llama3_1_70b": "meta-llama/Llama-3.1-70B",
    "llama3_1_405b": "meta-llama/Llama-3.1-405B",
    "llama3_2_1b": "meta-llama/Llama-3.2-1B",
    "llama3_2_3b": "meta-llama/Llama-3.2-3B",
    "llama3_3_70b": "meta-llama/Llama-3.3-70B-Instruct",
    "gemma_2b": "google/gemma-2b",
    "gemma_7b": "google/gemma-7b",
    "gemma2_2b": "google/gemma-2-2b",
    "gemma2_9b": "google/gemma-2-9b",
    "gemma2_27b": "google/gemma-2-27b",
    "mistral_7b": "mistralai/Mistral-7B-v0.1",
    "phi3_mini": "microsoft/Phi-3-mini-4k-instruct",
    "phi4_14b": "microsoft/phi-4",
    "qwen2_0_5b": "Qwen/Qwen2-0.5B",
    "qwen2_1_5b": "Qwen/Qwen2-1.5B",
    "qwen2_7b": "Qwen/Qwen2-7B",
    "qwen2_5_0_5b": "Qwen/Qwen2.5-0.5B",
    "qwen2_5_1_5b_base": "Qwen/Qwen2.5-1.5B",
    "qwen2_5_1_5b_instruct": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen2_5_3b": "Qwen/Qwen2.5-3B",
    "qwen2_5_7b_base": "Qwen/Qwen2.5-7B",
    "qwen2_5_7b_instruct": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2_5_14b_base": "Qwen/Qwen2.5-14B",
    "qwen2_5_14b_instruct": "Qwen/Qwen2.5-14B-Instruct",
    "qwen2_5_32b_base": "Qwen/Qwen2.5-32B",
    "qwen2_5_32b_instruct": "Qwen/Qwen2.5-32B-Instruct",
    "qwen2_5_72b_base": "Qwen/Qwen2.5-72B",
    "qwen2_5_72b_instruct": "Qwen/Qwen2.5-72B-Instruct",
}
_ATTENTION: Final = {
    "q_proj": "q_proj",
    "k_proj": "k_proj",
    "v_proj": "v_proj",
    "output_proj": "o_proj",
}
_MLP: Final = ("gate_proj", "up_proj", "down_proj")
_INTERPOLATION: Final = re.compile(r"\$\{([\w.]+)\}")
_LORA_OVERRIDE: Final = re.compile(r"model\.(lora_\w+|apply_lora_\w+|use_dora|quantize_base)")


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files whose model is built by a LoRA builder, and ``tune run`` commands of LoRA recipes."""
    for part, root in enumerate(document.parts):
        if root.node.style == "command":
            if root.node.note == "tune run" and _is_lora_command(root.node):
                yield part, ()
        elif document.format in ("yaml", "json") and _builder(root.node) is not None:
            yield part, ()


def _builder(root: Node) -> str | None:
    """The name of the builder, without its module; None where it is none for LoRA."""
    node = root.at(("model", "_component_"))
    value = node.value if node is not None else None
    if not isinstance(value, str) or not _BUILDER.fullmatch(value):
        return None
    own = value.startswith("torchtune.") or root.at(("model", "lora_attn_modules")) is not None
    return value.rpartition(".")[2] if own else None


def _is_lora_command(command: Node) -> bool:
    recipe = command.get(0)
    named = recipe is not None and isinstance(recipe.value, str) and "lora" in recipe.value
    return named or any(_LORA_OVERRIDE.fullmatch(key) for key in command.keys())


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a torchtune file or command."""
    root = document.parts[part].node
    if root.style == "command":
        return _read_command(root, part, path)
    builder = _builder(root) or ""
    arguments = _arguments(builder)
    defaults = {**_DEFAULTS, **_argument_defaults(arguments)}
    fields = read_slots(root, path, _SLOTS, defaults, null_is_absent=False)
    fields = {name: _looked_up(name, field, root) for name, field in fields.items()}
    for name in _NUMBERS:
        if name in fields:
            fields[name] = plain_float(fields[name], root.at(_SLOTS[name].path))
    if fields.get("dtype", UNSET)[:2] == (None, "written"):
        fields["dtype"] = fields["dtype"]._replace(value="float32", origin="computed")
    if fields.get("max_length", UNSET)[:2] == (None, "written"):
        fields["max_length"] = UNSET
    fields["packing"] = _packing(root, fields["packing"])
    fields["optim"] = _optim(root, fields.get("optim", UNSET))
    fields["quantization"], fields["double_quant"] = _quantization(root, builder)
    fields["base_model"] = _looked_up("base_model", _base_model(root, builder), root)
    known = {"keys": {**arguments, "_component_": {}}}
    model = root.get("model")
    judged: dict[str, Any] = {}
    if arguments and model is not None:
        inside = (*path, "model")
        judged["stray"] = tuple(stray(model, inside, known["keys"], "rejected", complete=True))
        judged["misfits"] = tuple(misfits(model, inside, known["keys"], UNCHECKED))
    return Recipe(
        dialect="torchtune",
        part=part,
        path=path,
        fields=fields,
        objective=_objective(root),
        private={
            "builder": builder,
            "mlp": _switch(root, "apply_lora_to_mlp"),
            "output": _switch(root, "apply_lora_to_output"),
        },
        **judged,
    )


def _arguments(builder: str) -> dict[str, dict[str, Any]]:
    """The table of a builder's arguments, empty for one that no release has."""
    found = framework_facts("torchtune")["builders"].get(builder)
    arguments: dict[str, dict[str, Any]] = found["keys"] if found else {}
    return arguments


def _argument_defaults(arguments: dict[str, dict[str, Any]]) -> dict[str, Default]:
    return {
        name: Default(entry["default"], f"{_MODELS}/*/_model_builders.py")
        for name in _ARGUMENTS
        if "default" in (entry := arguments.get(str(_SLOTS[name].path[-1]), {}))
    }


def _switch(root: Node, key: str) -> object:
    """An argument that turns LoRA on for a part: False where it is absent."""
    node = root.at(("model", key))
    if node is None:
        return False
    value = node.plain()
    return value if isinstance(value, bool) else UNKNOWN


def _packing(root: Node, written: Field) -> Field:
    """``dataset`` may be a list of data sets, of which each packs its own samples."""
    several = root.get("dataset")
    if several is None or several.kind != "sequence":
        return written
    values = {node.value if (node := item.get("packed")) else False for item in several.items}
    if len(values) == 1:
        return Field(values.pop(), "computed", ("dataset",))
    return Field(None, "unknown", ("dataset",), "the data sets differ")


def _optim(root: Node, written: Field) -> Field:
    fused = root.at(("optimizer", "fused"))
    if written.value == "adamw_torch" and fused is not None and fused.value is True:
        return Field("adamw_torch_fused", "computed", ("optimizer", "_component_"))
    return written


def _quantization(root: Node, builder: str) -> tuple[Field, Field]:
    """``quantize_base``, which ``qlora_`` builders turn on; NF4 quantizes its scales again."""
    path: KeyPath = ("model", "_component_")
    node, on = root.at(("model", "quantize_base")), builder.startswith("qlora_")
    if node is not None and isinstance(node.value, bool):
        path, on = ("model", "quantize_base"), node.value
    source = "torchtune 0.6.1 modules/peft/lora.py, torchao NF4Tensor"
    if on:
        return Field("nf4", "computed", path, source), Field(True, "default", None, source)
    return Field("none", "computed", path, source), UNSET


def _base_model(root: Node, builder: str) -> Field:
    """The model that the builder builds, else the directory of the checkpoint."""
    known = _BASE_MODELS.get(builder.partition("lora_")[2])
    if known is not None and _arguments(builder):
        return Field(known, "computed", ("model", "_component_"), f"what {builder} builds")
    directory = root.at(("checkpointer", "checkpoint_dir"))
    if directory is None:
        return UNSET
    return read_node(directory, ("checkpointer", "checkpoint_dir"))


def _objective(root: Node) -> str | None:
    loss = root.at(("loss", "_component_"))
    if loss is not None and isinstance(loss.value, str) and re.search("DPO|RSO|SimPO", loss.value):
        return "dpo"
    return "kd" if root.get("kd_loss") is not None else "sft"


def _looked_up(name: str, field: Field, root: Node) -> Field:
    """``${key.key}`` by the value that stands there; other templates are not static."""
    written = root.at(field.path) if field.origin == "unknown" and field.path else None
    text = written.value if written is not None else None
    match = _INTERPOLATION.fullmatch(text) if isinstance(text, str) else None
    node = root.at(tuple(match[1].split("."))) if match else None
    if node is None or node.kind != "scalar" or is_template(node.value):
        return field
    value = _SLOTS[name].codec.decode(node.value) if name in _SLOTS else node.value
    return Field(value, "computed", field.path, f"as {text} says")


def _read_command(command: Node, part: int, path: KeyPath) -> Recipe:
    """``tune run RECIPE --config FILE key=value``: what is not overridden stands in the file."""
    elsewhere = Field(None, "unknown", None, "it stands in the file that --config names")
    fields: dict[str, Field] = {}
    for name, slot in _SLOTS.items():
        key = ".".join(map(str, slot.path))
        node = command.get(key)
        spelled = slot.codec if slot.codec is not AS_WRITTEN else _WORD
        fields[name] = elsewhere if node is None else read_node(node, (*path, key), spelled)
    fields["target_modules"] = _flow_list(fields["target_modules"])
    for name in ("quantization", "base_model"):
        fields[name] = elsewhere
    builder = command.get("model") or command.get("model._component_")
    if builder is not None and isinstance(builder.value, str):
        name = builder.value.rpartition(".")[2]
        known = _BASE_MODELS.get(name.partition("lora_")[2])
        if known is not None:
            fields["base_model"] = Field(known, "computed", (*path, "model"), f"what {name} builds")
    fields |= {name: Field(d.value, "default", None, d.source) for name, d in _ALWAYS.items()}
    return Recipe(
        dialect="torchtune",
        part=part,
        path=path,
        fields=fields,
        private={"builder": "", "mlp": UNKNOWN, "output": UNKNOWN},
    )


_ALWAYS: Final = {name: _DEFAULTS[name] for name in ("bias", "task_type")}


def _flow_list(field: Field) -> Field:
    """``[q_proj,v_proj]`` as OmegaConf reads it on a command line."""
    text = field.value
    if not isinstance(text, str) or not (text.startswith("[") and text.endswith("]")):
        return field
    parts = [part.strip().strip("'\"") for part in text[1:-1].split(",")]
    return field._replace(value=[part for part in parts if part], origin="computed")


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """The LoraConfig that would put the same layers into Hugging Face's model."""
    value, private = recipe.value, recipe.private
    if "vision" in private["builder"]:
        return Undecided("torchtune's fusion models have parts of their own for LoRA")
    targets = value("target_modules")
    if UNKNOWN in (targets, private["mlp"], private["output"]) or not isinstance(targets, list):
        return Undecided("what lora_attn_modules and apply_lora_to_... say is not static")
    named = [_ATTENTION[t] for t in targets if isinstance(t, str) and t in _ATTENTION]
    if not named:
        return Undecided("torchtune wants one or more of q_proj, k_proj, v_proj, output_proj")
    if private["mlp"]:
        named += _MLP
    if private["output"]:
        if tree is not None and tree.facts.get("tie_word_embeddings"):
            return Undecided("torchtune stops: apply_lora_to_output where the output is tied")
        named.append("lm_head")
    leaves = {name.rpartition(".")[2] for name, _ in tree.named_modules()} if tree else set(named)
    if not leaves.issuperset(named):
        return Undecided("torchtune splits layers that this model has in one")
    values: dict[str, Any] = {
        "r": value("r"),
        "lora_alpha": value("lora_alpha"),
        "lora_dropout": value("lora_dropout"),
        "target_modules": list(dict.fromkeys(named)),
        "use_dora": value("use_dora"),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    return LoraKwargs({k: v for k, v in values.items() if v is not None})


def _model(tree: ModuleTree) -> ModuleTree:
    from lora_lint.models.torchtune import torchtune_tree

    return torchtune_tree(tree)


DIALECT: Final = Dialect(
    name="torchtune",
    title="torchtune",
    find=find,
    read=read,
    lower=lower,
    slots=_SLOTS,
    defaults=_DEFAULTS,
    refuses_duplicates=True,
    refusal="got an unexpected keyword argument",
    applied_by="torchtune",
    model=_model,
)
