"""What a LoRA config of a Python file or notebook is used with: the model, how it is loaded and
quantized, the training arguments.

Source of BitsAndBytesConfig's defaults: transformers 5.23.0 utils/quantization_config.py.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.dialects.base import framework_facts, read_node
from lora_lint.dialects.evaluation import trainer_evaluation
from lora_lint.documents import calls
from lora_lint.recipe import Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.calls import Site
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node

# Keywords of from_pretrained, and the fields they are.
LOADING: Final = {
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "attn_implementation": "attn_implementation",
    "device_map": "device_map",
    "trust_remote_code": "trust_remote_code",
}
# Keywords of TrainingArguments and of TRL's configs, and the fields they are.
TRAINING: Final = {
    "per_device_train_batch_size": "per_device_train_batch_size",
    "per_device_eval_batch_size": "per_device_eval_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "optim": "optim",
    "learning_rate": "learning_rate",
    "deepspeed": "deepspeed",
    "fsdp": "fsdp",
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
    "max_length": "max_length",
    "max_seq_length": "max_length",
    "packing": "packing",
    "use_liger_kernel": "fused_loss",
}
# Arguments whose trainer's evaluation is the loss of a batch; others generate, or take two batches.
_EVALUATED: Final = ("TrainingArguments", "Seq2SeqTrainingArguments", "SFTConfig")
# Keywords of BitsAndBytesConfig beside its switches, with transformers' defaults.
_BITS_KEYWORDS: Final = {
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
}
# Classes with a from_pretrained that gives no model.
_NO_MODEL: Final = ("Tokenizer", "TokenizerFast", "Processor", "Config", "Extractor", "Pipeline")
# The class that a trainer of TRL loads a named model as, where it is not what the config says.
_TRAINERS_MODELS: Final = {"RewardTrainer": "AutoModelForSequenceClassification"}
_ONLY: Final = "the only model that the file plainly loads"
_EVERY: Final = "the model that every branch loads"
_LOADER: Final = "unsloth 2026.10.9 models/loader.py"
_TRL: Final = "trl 1.16.0 trainer/base_config.py"
_ARGUMENTS: Final = "transformers 5.23.0 training_args.py"
_BITS_SOURCE: Final = "transformers 5.23.0 utils/quantization_config.py"


# A model to compare answers with, given to a trainer.
_REFERENCE: Final = re.compile(r"\bref_model\s*=(?!=)\s*(?!None\b)")
# What trl's and transformers' trainers train for, in the words of the other dialects.
_TRAINERS: Final = {
    "Trainer": "sft",
    "Seq2SeqTrainer": "sft",
    "SFTTrainer": "sft",
    "UnslothTrainer": "sft",
    "DPOTrainer": "dpo",
    "KTOTrainer": "kto",
    "ORPOTrainer": "orpo",
    "CPOTrainer": "cpo",
    "RewardTrainer": "rm",
    "PPOTrainer": "ppo",
    "GRPOTrainer": "grpo",
    "RLOOTrainer": "rloo",
    "OnlineDPOTrainer": "online_dpo",
    "GKDTrainer": "gkd",
    "BCOTrainer": "bco",
    "PRMTrainer": "prm",
}
TRL_TRAINERS: Final = _TRAINERS.keys() - {"Trainer", "Seq2SeqTrainer", "UnslothTrainer"}


def trainers_of(document: Document) -> set[str]:
    """The trainers that a file calls, by their classes' names."""
    return {site.name for site in calls.sites(document) if site.name.endswith("Trainer")}


def trained_for(document: Document) -> str | None:
    """What a file trains for; None where its trainers do not say, or say several."""
    objectives = {_TRAINERS.get(name) for name in trainers_of(document)}
    return objectives.pop() if len(objectives) == 1 else None


def has_reference(document: Document) -> bool:
    """Whether a file gives a trainer a model to compare answers with."""
    return _REFERENCE.search(document.text) is not None


class Run(NamedTuple):
    """What a LoraConfig is used with; None where that is not known.

    ``models`` are the calls that may load the model, ``name`` the argument that names it where a
    trainer loads it itself, ``prepared`` the call of ``prepare_model_for_kbit_training`` that the
    model goes through. ``in_place``: the adapter is put into the model, which stays of its class.
    """

    models: list[Node]
    name: tuple[Site, str | int, Node] | None = None
    arguments: Node | None = None
    prepared: Node | None = None
    linked: bool = False
    in_place: bool = False


def sure(field: Field) -> Field:
    """The default of a command-line option is a value that the run may not have."""
    return field._replace(sure=False) if field.origin == "default" and field.path else field


# What the config is used with --------------------------------------------------------------------


def run_of(document: Document, config: Node) -> Run:
    """The model and the training arguments that a config meets, as far as names lead to them."""
    linked = False
    for site, key in calls.uses(document, config):
        if site.name == "add_adapter" and not calls.is_from(site.call, "peft"):
            models, arguments = _loaded_as(document, site), _arguments(document, None, None)
            return Run(models, None, arguments, in_place=True)
        takes_model = site.name in ("get_peft_model", "inject_adapter_in_model")
        trainer = site.name.endswith("Trainer") and key == "peft_config"
        if not (takes_model or trainer or site.name.startswith("PeftModel")):
            continue
        linked = True
        position = 1 if site.name == "inject_adapter_in_model" else 0
        given = calls.argument(site.call, position, "model")
        if given is None:
            continue
        arguments = _arguments(document, site if trainer else None, site.call)
        if trainer and isinstance(given[1].value, str):
            return Run([], (site, *given), arguments, linked=True)
        models = calls.model_calls(given[1])
        if models:
            one, into = calls.is_one_call(given[1]), site.name == "inject_adapter_in_model"
            prepare = _preparation(given[1])
            return Run(models, None, arguments, prepare, linked=one, in_place=into)
    model = _only_model(document)
    arguments = _arguments(document, None, None)
    return Run([model] if model else [], None, arguments, linked=linked)


def _loaded_as(document: Document, site: Site) -> list[Node]:
    """The one call that loads a model of the class whose ``add_adapter`` is called; none where that
    is not known: scripts for diffusion load several models.
    """
    owner = (site.call.note or "").rpartition(".")[0]
    found = [s.call for s in calls.sites(document) if s.call.note == f"{owner}.from_pretrained"]
    return found if len(found) == 1 and not owner.startswith("?") else []


def run_of_model(document: Document, call: Node) -> Run:
    """The model that a call adapts (``FastLanguageModel.get_peft_model(model, r=16)``) and the
    training arguments that it meets then.
    """
    arguments = _arguments(document, None, call)
    given = calls.argument(call, 0, "model")
    models = calls.model_calls(given[1]) if given is not None else []
    if models and given is not None:
        return Run(models, None, arguments, linked=calls.is_one_call(given[1]))
    model = _only_model(document)
    return Run([model] if model else [], None, arguments)


def _arguments(document: Document, trainer: Site | None, adapted: Node | None) -> Node | None:
    """The training arguments of the trainer that gets the model; else the only ones there are."""
    trainers = [trainer] if trainer is not None else []
    if adapted is not None and trainer is None:
        trainers = [s for s, _ in calls.uses(document, adapted) if s.name.endswith("Trainer")]
    for site in trainers:
        given = calls.argument(site.call, 1, "args")
        behind = calls.calls_behind(given[1]) if given else []
        if len(behind) == 1:
            return behind[0]
    return _only_arguments(document)


@lru_cache(maxsize=2)
def _only_arguments(document: Document) -> Node | None:
    """The training arguments of a file that makes them once."""
    found = [site.call for site in calls.sites(document) if _is_arguments(site)]
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=2)
def _only_model(document: Document) -> Node | None:
    """The call that loads the model in a file that loads one."""
    found = [site.call for site in calls.sites(document) if _loads_model(site.call)]
    return found[0] if len(found) == 1 else None


def _is_arguments(site: Site) -> bool:
    packages = ("transformers", "sentence_transformers", "unsloth")
    own = any(calls.is_from(site.call, package) for package in packages)
    return (own and site.name.endswith("TrainingArguments")) or (
        calls.is_from(site.call, "trl") and site.name.endswith("Config")
    )


def _preparation(model: Node) -> Node | None:
    """The call of prepare_model_for_kbit_training that a model goes through."""
    behind = calls.calls_behind(model)
    for _ in range(calls.MAX_STEPS):
        if len(behind) != 1:
            return None
        if (behind[0].note or "").endswith("prepare_model_for_kbit_training"):
            return behind[0]
        inner = calls.argument(behind[0], 0, "model")
        behind = calls.calls_behind(inner[1]) if inner is not None else []
    return None


def _loads_model(call: Node) -> bool:
    owner, _, last = (call.note or "").rpartition(".")
    if last != "from_pretrained":
        return False
    cls = owner.rpartition(".")[2].lstrip("?")
    return cls[:1].isupper() and not cls.endswith(_NO_MODEL) and "Peft" not in cls


def training(document: Document, call: Node) -> dict[str, Field]:
    """The training arguments of a call as fields, with whether the step runs under autocast where
    nothing else is said: not by transformers' own arguments; by TRL's in bf16 unless fp16 is on
    (trl 1.16.0 trainer/base_config.py).
    """
    fields = keywords(document, call, TRAINING)
    if (call.note or "").rpartition(".")[2] in _EVALUATED:
        fields |= _evaluation(document, call, fields)
    both = [fields.get(name) for name in ("bf16", "fp16")]
    own = calls.is_from(call, "trl")
    if any(field is not None and field.value is True for field in both):
        fields["autocast"] = Field(value=True, origin="computed")
    elif any(field is not None and field.origin == "unknown" for field in both):
        fields["autocast"] = Field(None, "unknown", None, "bf16 and fp16 are not static")
    elif own and both[0] is None:
        fields["autocast"] = Field(value=True, origin="default", detail=_TRL, sure=False)
    else:
        fields["autocast"] = Field(value=False, origin="default", detail=_ARGUMENTS)
    return fields


def _evaluation(document: Document, call: Node, fields: Mapping[str, Field]) -> dict[str, Field]:
    """Whether a trainer of these arguments evaluates, and in batches of how many by default."""
    place = calls.place(document, call)
    found = trainer_evaluation(call, place)
    name = "per_device_eval_batch_size"
    if name not in fields:
        found[name] = Field(8, "default", (*place, name), _ARGUMENTS)
    return found


# The model ---------------------------------------------------------------------------------------


def model_fields(document: Document, run: Run) -> tuple[dict[str, Field], str | None]:
    """The fields that say which model is loaded and how, and its class."""
    if run.name is not None:
        site, key, node = run.name
        named = {"base_model": sure(read_node(node, (*calls.place(document, site.call), key)))}
        return named, _TRAINERS_MODELS.get(site.name)
    if len(run.models) > 1:
        return _one_of_several(document, run.models)
    if not run.models:
        return {"base_model": Field(None, "unknown", None, "it is not loaded in this file")}, None
    call = run.models[0]
    owner, _, how = (call.note or "").rpartition(".")
    package, _, cls = owner.rpartition(".")
    place = calls.place(document, call)
    reason = _not_that_model(call, package, cls, how)
    given = calls.argument(call, 0, "pretrained_model_name_or_path")
    given = given or calls.argument(call, None, "model_name")
    if given is None or reason is not None:
        unknown = Field(None, "unknown", place, reason or "it is not named")
        return {"base_model": unknown}, None
    base = sure(read_node(given[1], (*place, given[0])))
    if not run.linked and base.origin != "unknown":
        base = base._replace(detail=_ONLY, sure=False)
    fields = {"base_model": base, **keywords(document, call, LOADING)}
    if package.partition(".")[0] == "unsloth":
        return fields | _unsloth(document, call, cls, base), None
    fields["quantization"], fields["double_quant"] = _quantization(document, call)
    fields |= _quantization_keywords(document, call)
    return fields, _built(call, package, cls)


def _built(call: Node, package: str, cls: str) -> str | None:
    """The class that a call builds, or the part of a pipeline where only that is said."""
    part, library = call.get("subfolder"), package.partition(".")[0]
    if part is not None and (cls == "AutoModel" or library == "transformers"):
        return str(part.value)
    return cls if library in ("diffusers", "transformers") else None


def _one_of_several(document: Document, models: list[Node]) -> tuple[dict[str, Field], str | None]:
    """What all the calls say that branches leave open: often the same model, quantized or not."""
    read = [model_fields(document, Run([call])) for call in models]
    first, cls = read[0]
    fields = {}
    for name in {name for found, _ in read for name in found}:
        every = [found.get(name, Field(None, "unset")) for found, _ in read]
        same = all((f.value, f.origin) == (every[0].value, every[0].origin) for f in every)
        why = every[0].detail if same and every[0].origin == "unknown" else "branches load several"
        open_ = every[0].origin == "unknown" or not same
        fields[name] = Field(None, "unknown", None, why) if open_ else first[name]
    if fields["base_model"].origin != "unknown":
        fields["base_model"] = fields["base_model"]._replace(detail=_EVERY, sure=False)
    return fields, cls if all(other == cls for _, other in read) else None


def _unsloth(document: Document, call: Node, cls: str, base: Field) -> dict[str, Field]:
    """What unsloth's loaders take when nothing is said: 4 bits, double quantized, and 2,048 tokens
    (unsloth 2026.10.9 models/loader.py, llama.py, vision.py, sentence_transformer.py).
    """
    place = calls.place(document, call)
    encoder = cls == "FastSentenceTransformer"
    fields = keywords(document, call, {"max_seq_length": "max_length"})
    if not encoder and "max_length" not in fields:
        fields["max_length"] = Field(2048, "default", None, _LOADER)
    if isinstance(base.value, str) and base.value.lower() in _repacked():
        name = _repacked()[base.value.lower()]
        fields["base_model"] = base._replace(
            value=name, origin="computed", detail=f"unsloth loads {name} instead"
        )
    path, unset = (*place, "quantization_config"), Field(None, "unset")
    if call.get("quantization_config") is not None:
        fields["quantization"], fields["double_quant"] = _quantization(document, call)
        return fields
    states = {key: _switch(call, key) for key in ("load_in_8bit", "load_in_16bit", "load_in_fp8")}
    four = _switch(call, "load_in_4bit", default=not encoder)
    sixteen = isinstance(base.value, str) and base.value.lower().endswith("-bf16")
    if base.origin == "unknown" or None in (*states.values(), four):
        fields["quantization"] = Field(None, "unknown", path, "it depends on how unsloth loads it")
    elif states["load_in_8bit"]:
        fields["quantization"] = Field("int8", "computed", (*place, "load_in_8bit"), _LOADER)
    elif sixteen or not four or states["load_in_16bit"]:
        four_bits = isinstance(base.value, str) and "bnb-4bit" in base.value.lower()
        fields["quantization"] = Field("none", "computed", path, _LOADER)
        if four_bits:  # a checkpoint that is quantized already stays so
            fields["quantization"] = Field("nf4", "computed", path, _LOADER)
    elif states["load_in_fp8"]:
        fields["quantization"] = Field(None, "unknown", path, "8-bit floats")
    else:
        written = call.get("load_in_4bit") is not None
        fields["quantization"] = (
            Field("nf4", "computed", (*place, "load_in_4bit"), _LOADER)
            if written
            else Field("nf4", "default", None, _LOADER)
        )
    nf4 = fields["quantization"].value == "nf4"
    fields["double_quant"] = Field(True, "default", None, _LOADER) if nf4 else unset
    return fields


def _switch(call: Node, key: str, *, default: bool = False) -> bool | None:
    """A boolean keyword of a call, None where its value is not known."""
    node = call.get(key)
    if node is None:
        return None if calls.is_open(call) else default
    return bool(node.value) if node.kind == "scalar" else None


@lru_cache
def _repacked() -> dict[str, str]:
    """The models that unsloth loads in a copy of its own layout, with that copy."""
    found: dict[str, str] = framework_facts("unsloth")["repacked"]
    return found


def _not_that_model(call: Node, package: str, cls: str, how: str) -> str | None:
    """Why the modules of the model that a call names are not those of the model that it gives;
    None if they are.
    """
    if how != "from_pretrained":
        return f"it is made by {cls}.{how}"
    library, part = package.partition(".")[0], call.get("subfolder")
    diffusion = library == "diffusers" and cls.endswith("Model")
    if not diffusion and (library not in ("transformers", "unsloth") or "Peft" in cls):
        return f"it is a {cls}" if cls else "it is loaded by something unknown"
    encoder = part is not None and str(part.value).startswith("text_encoder")
    if part is not None and not (diffusion or (library == "transformers" and encoder)):
        return "it is a part of a pipeline"
    if diffusion and cls == "AutoModel" and (part is None or not isinstance(part.value, str)):
        return "its class is not known"
    config = call.get("config")
    if config is not None and not calls.calls_behind(config):
        return "it is built with a config of its own"
    return None


def keywords(document: Document, call: Node, names: dict[str, str]) -> dict[str, Field]:
    """Keywords of a call as fields; those that may come in through ``**`` are unknown."""
    place = calls.place(document, call)
    fields = {}
    for key, name in names.items():
        node = call.get(key)
        if node is not None:
            fields[name] = sure(read_node(node, (*place, key)))
        elif calls.is_open(call) and name not in fields:
            fields[name] = Field(None, "unknown", None, "it may come in through `**`")
    dtype = fields.get("dtype")
    if dtype is not None and isinstance(dtype.value, str):
        fields["dtype"] = dtype._replace(value=dtype.value.removeprefix("torch."))
    return fields


def _quantization(document: Document, call: Node) -> tuple[Field, Field]:
    """BitsAndBytesConfig, or the switches that older releases took themselves."""
    path = (*calls.place(document, call), "quantization_config")
    unset = Field(None, "unset")
    config = call.get("quantization_config")
    if config is None:
        direct = _bits(call, calls.place(document, call))
        if direct is not None:
            return direct
        if calls.is_open(call):
            return Field(None, "unknown", None, "it may come in through `**`"), unset
        return unset, unset
    behind = calls.calls_behind(config)
    if config.kind == "scalar" and config.value is None:
        return unset, unset
    if config.kind == "unknown" and behind:
        return Field(None, "unknown", path, config.note), unset
    if len(behind) != 1 or not (behind[0].note or "").endswith(".BitsAndBytesConfig"):
        return Field(None, "unknown", path, "it is not a BitsAndBytesConfig of this file"), unset
    if calls.is_open(behind[0]):
        return Field(None, "unknown", path, "it may come in through `**`"), unset
    return _bits(behind[0], calls.place(document, behind[0])) or (unset, unset)


def _quantization_keywords(document: Document, call: Node) -> dict[str, Field]:
    """The switches and dtypes of a BitsAndBytesConfig, defaults included."""
    config = call.get("quantization_config")
    behind = calls.calls_behind(config) if config is not None else []
    if len(behind) != 1 or not (behind[0].note or "").endswith(".BitsAndBytesConfig"):
        return {}
    names = ("load_in_4bit", "load_in_8bit", *_BITS_KEYWORDS)
    fields = keywords(document, behind[0], {name: name for name in names})
    place = calls.place(document, behind[0])
    for name, default in _BITS_KEYWORDS.items():
        found = fields.setdefault(name, Field(default, "default", (*place, name), _BITS_SOURCE))
        if isinstance(found.value, str):
            fields[name] = found._replace(value=found.value.removeprefix("torch."))
    return fields


def _bits(call: Node, path: KeyPath) -> tuple[Field, Field] | None:
    """The switches of BitsAndBytesConfig; its 4-bit type is fp4 unless told otherwise."""
    source = "transformers BitsAndBytesConfig"
    four, eight = call.get("load_in_4bit"), call.get("load_in_8bit")
    if four is not None and (four.value is True or four.kind == "unknown"):
        nested = call.get("bnb_4bit_use_double_quant")
        double = (
            read_node(nested, (*path, "bnb_4bit_use_double_quant"))
            if nested is not None
            else Field(False, "default", None, source)
        )
        kind = call.get("bnb_4bit_quant_type")
        if four.kind == "unknown" or (kind is not None and kind.kind == "unknown"):
            return Field(None, "unknown", (*path, "load_in_4bit"), four.note), double
        value = kind.value if kind is not None else "fp4"
        return Field(value, "computed", (*path, "load_in_4bit"), source), double
    if eight is not None and eight.kind == "unknown":
        return Field(None, "unknown", (*path, "load_in_8bit"), eight.note), Field(None, "unset")
    if eight is not None and eight.value is True:
        return Field("int8", "computed", (*path, "load_in_8bit"), source), Field(None, "unset")
    return None


def prepared(document: Document, call: Node, fields: dict[str, Field]) -> dict[str, Field]:
    """``prepare_model_for_kbit_training`` turns checkpointing on for a quantized model, unless
    told otherwise (peft 0.21.2 utils/other.py).
    """
    given = calls.argument(call, 1, "use_gradient_checkpointing")
    quantization = fields.get("quantization")
    quantized = quantization is not None and quantization.origin == "computed"
    if not quantized or (given is not None and given[1].value is not True):
        return {}
    detail = "prepare_model_for_kbit_training"
    found = {"gradient_checkpointing": Field(True, "computed", None, detail)}
    if "gradient_checkpointing_kwargs" not in fields:
        # PEFT's own are an empty mapping, and a trainer may come after it with transformers'
        how = Field(None, "unknown", None, "PEFT or the trainer decides")
        told = calls.argument(call, 2, "gradient_checkpointing_kwargs")
        if told is not None:
            how = read_node(told[1], (*calls.place(document, call), told[0]))
        found["gradient_checkpointing_kwargs"] = how
    return found
