"""NeMo AutoModel's YAML.

Read in nemo_automodel 0.7.0: components/_peft/lora.py ``PeftConfig`` for keys and defaults (which
layers are adapted: nemo_layers.py);
components/config/loader.py for how files are read (texts that spell a Python literal become it,
``_target_`` is called with the section's keys); _transformers/{auto_model,model_init,registry}.py
for the model: some architectures are NeMo's own code, unless ``force_hf`` or bitsandbytes is
asked for; components/quantization/qlora.py; recipes/llm/{train_ft,train_seq_cls}.py.
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
    framework_facts,
    is_template,
    read_slots,
)
from lora_lint.dialects.nemo_layers import adapted, lowered
from lora_lint.dialects.tables import Reader, judged
from lora_lint.recipe import UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_DTYPES: Final = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
}


def _dtype(value: Any) -> Any:
    """``dtype_from_str`` (shared/utils.py): with or without ``torch.``, long or short."""
    if not isinstance(value, str):
        return value
    name = value.lower().removeprefix("torch.")
    return _DTYPES.get(name, name)


def _listed(value: Any) -> Any:
    """``ModuleMatcher.__post_init__``: one pattern may stand without a list, none is no list."""
    return [value] if isinstance(value, str) else value


def _unlisted(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


PATTERNS: Final = Codec(_listed, _unlisted)
DTYPE: Final = Codec(_dtype, lambda value: value)
# The keys of PeftConfig that say what peft.LoraConfig says.
PEFT_KEYS: Final[dict[str, tuple[str, Codec]]] = {
    "r": ("dim", NUMBER),
    "lora_alpha": ("alpha", NUMBER),
    "lora_dropout": ("dropout", NUMBER),
    "target_modules": ("target_modules", PATTERNS),
    "exclude_modules": ("exclude_modules", PATTERNS),
    "use_dora": ("use_dora", BOOLEAN),
}
_RUN: Final[dict[str, tuple[KeyPath, Codec]]] = {
    "base_model": (("model", "pretrained_model_name_or_path"), AS_WRITTEN),
    "dtype": (("model", "torch_dtype"), DTYPE),
    "attn_implementation": (("model", "attn_implementation"), AS_WRITTEN),
    "trust_remote_code": (("model", "trust_remote_code"), BOOLEAN),
    "max_length": (("dataset", "seq_length"), NUMBER),
    "per_device_train_batch_size": (("step_scheduler", "local_batch_size"), NUMBER),
    "gradient_checkpointing": (("distributed", "activation_checkpointing"), BOOLEAN),
    "learning_rate": (("optimizer", "lr"), NUMBER),
    "weight_decay": (("optimizer", "weight_decay"), NUMBER),
    "load_in_4bit": (("quantization", "load_in_4bit"), BOOLEAN),
    "load_in_8bit": (("quantization", "load_in_8bit"), BOOLEAN),
}
_LORA: Final = "nemo_automodel 0.7.0 components/_peft/lora.py"
_MATCHER: Final = "nemo_automodel 0.7.0 components/_peft/module_matcher.py"
PEFT_DEFAULTS: Final = {
    "r": Default(8, _LORA),
    "lora_alpha": Default(32, _LORA),
    "lora_dropout": Default(0.0, _LORA),
    "use_dora": Default(False, _LORA),
    "bias": Default("none", _LORA),
}
_DEFAULTS: Final = PEFT_DEFAULTS | {
    "per_device_train_batch_size": Default(1, "nemo_automodel 0.7.0 recipes/llm/train_ft.py"),
}
# Implementations of NeMo's own in which the linear layers have the names of transformers'
# (components/models/{llama,qwen2,qwen3}/model.py).
SAME_NAMES: Final = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# What freezes the adapters of a part again (components/utils/model_utils.py
# ``apply_parameter_freezing``): the switch, its default, the words in a module's name.
_FREEZING: Final = (
    ("freeze_vision_tower", True, ("vision", "visual", "image_encoder")),
    ("freeze_audio_tower", False, ("audio", "speech", "sound")),
    ("freeze_language_model", False, ("language", "text", "llm")),
)


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Files whose section ``peft`` has the target NeMo AutoModel's PeftConfig."""
    if document.format != "yaml":
        return
    for part, root in enumerate(document.parts):
        target = root.node.at(("peft", "_target_"))
        if target is not None and isinstance(target.value, str):
            package, _, name = target.value.rpartition(".")
            if package.startswith("nemo_automodel") and name == "PeftConfig":
                yield part, ()


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a NeMo AutoModel file."""
    root = document.parts[part].node
    section = root.get("peft")
    assert section is not None  # noqa: S101 - find() gave the path
    fields = read_slots(root, path, DIALECT.slots, DIALECT.defaults, null_is_absent=True)
    fields = {name: without_template(field) for name, field in fields.items()}
    fields["target_modules"] = targets(section, ("peft",), fields)
    if "base_model" not in fields:
        fields["base_model"] = _configured(root)
    if fields.get("dtype", UNSET).value == "auto" or "dtype" not in fields:
        fields["dtype"] = _loaded_dtype(root)
    fields |= _length(root, fields)
    fields["quantization"], fields["double_quant"] = _quantization(root)
    fields["optim"] = _optimizer(root)
    return Recipe(
        dialect="nemo_automodel",
        part=part,
        path=path,
        fields=fields,
        model_class=_model_class(root),
        private={
            "every": is_true(section, "match_all_linear"),
            "own_code": not _is(root, "model", "force_hf")
            and fields["quantization"].value == "none",
            "unfrozen": _text(root, "recipe") == "TrainFinetuneRecipeForSequenceClassification",
            "frozen": _frozen(root),
        },
        **judged(section, ("peft",), DIALECT, Reader(choices=True), under=("peft",)),
    )


def without_template(field: Field) -> Field:
    """A field, unknown where its value is to be filled in from outside (``${VAR}``)."""
    values = field.value if isinstance(field.value, list) else [field.value]
    if any(is_template(value) for value in values):
        return Field(None, "unknown", field.path, "a template fills it in")
    return field


def is_true(section: Node, key: str) -> bool:
    """Whether a switch is on."""
    node = section.get(key)
    return node is not None and BOOLEAN.decode(node.value) is True


def targets(section: Node, path: KeyPath, fields: Mapping[str, Field]) -> Field:
    """The patterns of a PeftConfig section, and what NeMo takes where there are none."""
    if is_true(section, "match_all_linear"):
        why = "every linear layer, lm_head too (match_all_linear)"
        return Field("all-linear", "computed", (*path, "match_all_linear"), why)
    written = fields.get("target_modules", UNSET)
    if written.origin == "unknown" or written.value:
        return written
    excluded = fields.get("exclude_modules", UNSET)
    if excluded.origin == "unknown" or excluded.value:
        why = "every linear layer that exclude_modules leaves"
        return Field("all-linear", "computed", (*path, "exclude_modules"), why)
    return Field(["*_proj"], "default", None, _MATCHER)


def _text(root: Node, *path: str) -> str | None:
    node = root.at(path)
    return node.value if node is not None and isinstance(node.value, str) else None


def _is(root: Node, *path: str) -> bool:
    node = root.at(path[:-1])
    return node is not None and is_true(node, path[-1])


def _configured(root: Node) -> Field:
    """The base model of ``from_config``: that of the config's own section."""
    for path in (("model", "config", "pretrained_model_name_or_path"), ("model", "config")):
        name = _text(root, *path)
        if name is not None:
            return without_template(Field(name, "written", path))
    return UNSET


def _loaded_dtype(root: Node) -> Field:
    """``dtype`` wins over ``torch_dtype``; ``auto`` is bfloat16 for a model made from a config."""
    newer = root.at(("model", "dtype"))
    if newer is not None and newer.value not in (None, "auto"):
        return Field(_dtype(newer.value), "written", ("model", "dtype"))
    if (_text(root, "model", "_target_") or "").endswith(".from_config"):
        return Field(
            "bfloat16", "default", None, "nemo_automodel 0.7.0 _transformers/auto_model.py"
        )
    return UNSET


def _length(root: Node, fields: Mapping[str, Field]) -> dict[str, Field]:
    """The length that sequences are packed to, else the one that the dataset is given."""
    packed = root.at(("packed_sequence", "packed_sequence_size"))
    size = NUMBER.decode(packed.value) if packed is not None else 0
    if isinstance(size, int) and size > 0:
        path: KeyPath = ("packed_sequence", "packed_sequence_size")
        return {
            "max_length": Field(size, "computed", path),
            "packing": Field(True, "computed", path),
        }
    packing = {"packing": Field(False, "default", None, "no packed_sequence_size")}
    other = root.at(("dataset", "seq_len"))
    if "max_length" not in fields and other is not None and other.kind == "scalar":
        packing["max_length"] = without_template(
            Field(NUMBER.decode(other.value), "written", ("dataset", "seq_len"))
        )
    return packing


def _quantization(root: Node) -> tuple[Field, Field]:
    source = "nemo_automodel 0.7.0 components/quantization/qlora.py"
    section = root.get("quantization")
    if section is not None and is_true(section, "load_in_4bit"):
        path: KeyPath = ("quantization", "load_in_4bit")
        kind = _text(root, "quantization", "bnb_4bit_quant_type") or "nf4"
        double = section.get("bnb_4bit_use_double_quant")
        nested = double is None or is_true(section, "bnb_4bit_use_double_quant")
        return Field(kind, "computed", path, source), Field(nested, "computed", path, source)
    if section is not None and is_true(section, "load_in_8bit"):
        return Field("int8", "computed", ("quantization", "load_in_8bit"), source), UNSET
    return Field("none", "default", None, "no quantization section"), UNSET


def _optimizer(root: Node) -> Field:
    """The optimizer in transformers' words, where these have one."""
    name = _text(root, "optimizer", "_target_")
    if name == "torch.optim.AdamW":
        return Field("adamw_torch", "computed", ("optimizer", "_target_"))
    if name is None or name == "torch.optim.Adam":  # whose state is as large as AdamW's
        return UNSET
    return Field(None, "unknown", ("optimizer", "_target_"), f"{name} is not transformers'")


def _model_class(root: Node) -> str | None:
    """transformers' Auto class under the one that NeMo wraps it in."""
    owner = (_text(root, "model", "_target_") or "").rpartition(".")[0]
    name = owner.rpartition(".")[2]
    return name.removeprefix("NeMo") if name.startswith("NeMoAutoModel") else None


def _frozen(root: Node) -> tuple[str, ...] | None:
    """Words in the names of modules whose adapters are frozen again; None where rules do it."""
    section = root.get("freeze_config")
    if section is None or section.kind != "mapping":
        return ()
    if section.get("freeze_modules") is not None or section.get("unfreeze_modules") is not None:
        return None
    words: list[str] = []
    for key, default, names in _FREEZING:
        if is_true(section, key) or (section.get(key) is None and default):
            words += names
    return tuple(words)


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """The LoraConfig that gives the layers which NeMo adapts on transformers' model."""
    if tree is None:
        return Undecided("NeMo's patterns select among the model's modules")
    known = framework_facts("nemo_automodel")["architectures"]
    if recipe.private["own_code"] and tree.cls in known and tree.cls not in SAME_NAMES:
        return Undecided(f"NeMo AutoModel has an implementation of its own of {tree.cls}")
    if recipe.private["frozen"] is None:
        return Undecided("freeze_config's rules change which adapters are trained")
    wanted = adapted(tree, recipe.value, every=recipe.private["every"])
    if isinstance(wanted, Undecided):
        return wanted
    if any(word in name.lower() for word in recipe.private["frozen"] for name in wanted):
        return Undecided("freeze_config freezes some of the adapters")
    made = lowered(tree, wanted, recipe.value)
    if isinstance(made, Undecided) or not recipe.private["unfrozen"]:
        return made
    if any(name.endswith("classifier") for name in wanted):
        return Undecided("the classifier is adapted and trained")
    heads = [name for name in tree.root.children if name.endswith("classifier")]
    return made._replace(values={**made.values, "modules_to_save": heads})


DIALECT: Final = Dialect(
    name="nemo_automodel",
    title="NeMo AutoModel",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, ("peft", key), codec) for name, (key, codec) in PEFT_KEYS.items()}
    | {name: Slot(name, path, codec) for name, (path, codec) in _RUN.items()},
    defaults=_DEFAULTS,
    parses_numbers=True,
    refusal="got an unexpected keyword argument",
    applied_by="NeMo AutoModel",
)
