"""unsloth: ``FastLanguageModel.get_peft_model(model, r=16, ...)`` in Python files and notebooks.

Read in unsloth 2026.10.9: models/loader.py (which class takes which model), models/llama.py and
models/vision.py (``get_peft_model``: defaults, and what becomes of them), models/_utils.py
(``_redirect_embedding_targets``, ``_effective_weight_tying``), models/sentence_transformer.py; in
unsloth_zoo 2026.10.9 peft_utils.py (``get_peft_regex``). How models are loaded: ``runs``.

Two ways lead to PEFT. ``FastLanguageModel`` has kernels of its own for six families; there
every keyword reaches LoraConfig, which refuses those that it does not know. All other models, and
those of ``FastModel`` and ``FastVisionModel``, get their targets as a regular expression over parts
of the model, and keywords that LoraConfig does not know are dropped without a word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    framework_facts,
    read_node,
    read_slots,
)
from lora_lint.dialects.peft import DIALECT as PEFT
from lora_lint.dialects.runs import (
    TRAINING,
    has_reference,
    keywords,
    model_fields,
    run_of_model,
    sure,
    trained_for,
)
from lora_lint.documents import calls
from lora_lint.recipe import UNKNOWN, Field, Recipe, StrayKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_SOURCE: Final = "unsloth 2026.10.9"
# Model types with kernels of their own (models/loader.py, FastLanguageModel.from_pretrained).
FAST: Final = frozenset({"llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3"})
# Classes by the way on which they lead to PEFT; those of the first have no other way.
_FAST_CLASSES: Final = ("FastLlamaModel", "FastMistralModel", "FastQwen2Model", "FastQwen3Model")
_CLASSES: Final = {
    **dict.fromkeys(_FAST_CLASSES, "fast"),
    "FastLanguageModel": "language",
    "FastModel": "general",
    "FastVisionModel": "general",
    "FastTextModel": "general",
    "FastSentenceTransformer": "encoder",
}
_SEVEN: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ENCODER: Final = ("query", "key", "value", "dense")
# Which parts of a model get adapters, with what FastModel and FastLanguageModel take when absent.
_PARTS: Final = {
    "finetune_vision_layers": (True, False),
    "finetune_language_layers": (True, True),
    "finetune_attention_modules": (True, True),
    "finetune_mlp_modules": (True, True),
    "finetune_audio_layers": (False, False),
}
# What names of modules hold by which their part is told (unsloth_zoo peft_utils.py).
_TAGS: Final = {
    "finetune_vision_layers": ("vision", "image", "visual", "patch"),
    "finetune_language_layers": ("language", "text"),
    "finetune_attention_modules": ("self_attn", "attention", "attn", "mixer"),
    "finetune_mlp_modules": ("mlp", "feed_forward", "ffn", "dense", "mixer"),
}
# Model types, by how they begin, for which unsloth or unsloth_zoo do more than is reproduced here:
# towers with branches of their own, Mamba mixers, models that encode, speech.
_SPECIAL: Final = (
    "bamba", "bart", "bert", "csm", "embedding_gemma", "falcon_h1", "falcon_mamba", "gemma3n",
    "gemma4", "gpt_oss", "granitemoehybrid", "mamba", "nemotron", "qwen2_5_omni", "qwen3_omni",
    "t5", "voxtral", "whisper", "zamba",
)  # fmt: skip
# Keywords of older trainers of TRL, which unsloth hands on to the trainer's config.
_HANDED_ON: Final = {
    "max_length": "max_length",
    "max_seq_length": "max_length",
    "packing": "packing",
}
# What TRL's SFTConfig says where nobody does: unsloth takes it for nothing said.
_SFT_LENGTH: Final = 1024
# Fields that unsloth settles itself where they are absent.
_CHOSEN: Final = ("target_modules", "ensure_weight_tying")
_EMBEDDINGS: Final = frozenset({"embed_tokens", "lm_head"})
_DEFAULTS: Final = {
    **PEFT.defaults,
    "r": Default(16, f"{_SOURCE} models/llama.py"),
    "lora_alpha": Default(16, f"{_SOURCE} models/llama.py"),
    "lora_dropout": Default(0.0, f"{_SOURCE} models/llama.py"),
    "bias": Default("none", f"{_SOURCE} models/llama.py"),
    "task_type": Default("CAUSAL_LM", f"{_SOURCE} models/llama.py"),
}


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The calls of get_peft_model of unsloth's classes."""
    if document.format not in ("python", "notebook"):
        return
    for site in calls.sites(document):
        if site.name == "get_peft_model" and _class(site.call) in _CLASSES:
            yield site.part, site.path


def _class(call: Node) -> str:
    """The class of unsloth whose method is called; empty for anything else."""
    if not calls.is_from(call, "unsloth"):
        return ""
    return (call.note or "").rpartition(".")[0].rpartition(".")[2]


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a call of get_peft_model."""
    call = document.parts[part].node.at(path)
    assert call is not None  # noqa: S101 - find() gave the path
    way = _CLASSES[_class(call)]
    fields = read_slots(call, path, DIALECT.slots, DIALECT.defaults, null_is_absent=False)
    targets = {"fast": _SEVEN, "language": _SEVEN, "encoder": _ENCODER}.get(way)
    fields["target_modules"] = _given(call, path, "target_modules", targets)
    if way == "encoder" and call.get("task_type") is None:
        fields["task_type"] = Field("FEATURE_EXTRACTION", "default", None, _SOURCE)
    if calls.is_open(call):
        unknown = Field(None, "unknown", None, "it may come in through `**`")
        fields |= {name: unknown for name in DIALECT.slots if call.get(name) is None}
    fields = {name: sure(field) for name, field in fields.items()}
    run = run_of_model(document, call)
    found, model_class = model_fields(document, run)
    fields |= found
    if run.arguments is not None:
        fields |= keywords(document, run.arguments, TRAINING)
    fields |= _of_trainers(document, call, fields, found.get("max_length"))
    fields["gradient_checkpointing"] = _checkpointing(call, path, encoder=way == "encoder")
    loading = run.models[0] if len(run.models) == 1 else None
    return Recipe(
        dialect="unsloth",
        part=part,
        path=path,
        fields=fields,
        stray=tuple(_strays(call, path, way)),
        model_class=model_class,
        adapter=not _is_true(loading, "full_finetuning"),
        objective=trained_for(document),
        private={
            "reference": has_reference(document),
            "way": "general" if way == "language" and _is_delegated(loading) else way,
            "parts": {
                name: _plain(call, name, general if way == "general" else language)
                for name, (general, language) in _PARTS.items()
            },
            "layers": any(
                _plain(call, name, None) is not None
                for name in ("layers_to_transform", "finetune_last_n_layers")
            ),
            "flags": tuple(name for name in _PARTS if call.get(name) is not None),
            "labels": loading is not None and loading.get("num_labels") is not None,
            "positional": any(isinstance(entry.key, int) and entry.key for entry in call.entries)
            or any(entry.key == "*" for entry in call.entries),
        },
    )


def _of_trainers(
    document: Document, call: Node, fields: Mapping[str, Field], loaded: Field | None
) -> dict[str, Field]:
    """What the trainer that gets the model changes: its own keywords go before its config's
    (unsloth 2026.10.9 trainer.py, ``_backwards_compatible_trainer``), and SFT takes no more tokens
    than the model was loaded for (models/rl.py, ``max_length_check``).
    """
    sites = [site for site, _ in calls.uses(document, call) if site.name.endswith("Trainer")]
    read = [keywords(document, site.call, _HANDED_ON) for site in sites]
    told = [{name: (f.value, f.origin) for name, f in found.items()} for found in read]
    if not read or any(one != told[0] for one in told):
        return {}
    changed = read[0]
    length = changed.get("max_length", fields.get("max_length"))
    if length is None or loaded is None or not isinstance(loaded.value, int):
        return changed
    if isinstance(length.value, int) and all(
        site.name in ("SFTTrainer", "UnslothTrainer") for site in sites
    ):
        unsaid = length.value == _SFT_LENGTH and (length.path or ("",))[-1] == "max_length"
        if length.value > loaded.value or unsaid:
            detail = "unsloth takes the length that the model is loaded for"
            changed["max_length"] = loaded._replace(origin="computed", detail=detail)
    return changed


def _given(call: Node, path: KeyPath, key: str, default: Sequence[str] | None) -> Field:
    """A keyword of the call as a field, else unsloth's default."""
    node = call.get(key)
    if node is not None:
        return read_node(node, (*path, key))
    if default is None:
        return Field(None, "unset", None, "chosen by the finetune_* flags")
    return Field(list(default), "default", None, f"{_SOURCE} models/llama.py")


def _plain(call: Node, key: str, default: Any) -> Any:
    node = call.get(key)
    if node is None:
        return UNKNOWN if calls.is_open(call) else default
    return node.plain()


def _is_true(call: Node | None, key: str) -> bool:
    node = call.get(key) if call is not None else None
    return node is not None and node.value is True


def _is_delegated(loading: Node | None) -> bool:
    """Whether FastLanguageModel hands the loading over to FastModel whatever the model is."""
    keys = ("load_in_8bit", "full_finetuning")
    return any(_is_true(loading, key) for key in keys) or (
        loading is not None and loading.get("qat_scheme") is not None
    )


def _checkpointing(call: Node, path: KeyPath, *, encoder: bool) -> Field:
    """``"unsloth"`` is checkpointing too, with the checkpoints kept in the CPU's memory."""
    node = call.get("use_gradient_checkpointing")
    if node is None:
        return Field(not encoder, "default", None, f"{_SOURCE} models/vision.py")
    field = read_node(node, (*path, "use_gradient_checkpointing"))
    if isinstance(field.value, str):
        return field._replace(value=field.value.lower() in ("unsloth", "true"), origin="computed")
    return sure(field)


def _strays(call: Node, path: KeyPath, way: str) -> Iterator[StrayKey]:
    known = {*framework_facts("unsloth")["keys"], "model"}
    effect: Any = {"fast": "rejected", "language": "unclear"}.get(way, "ignored")
    for key in call.keys():
        if key not in known and key not in ("*", "**"):
            yield StrayKey((*path, key), key, effect, tuple(sorted(known)), complete=True)


# What LoraConfig receives ------------------------------------------------------------------------


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """What unsloth passes to LoraConfig for a model."""
    way = recipe.private["way"]
    if recipe.private["positional"]:
        return Undecided("get_peft_model is called with positional arguments")
    if way == "encoder":
        return _encoder(recipe, tree)
    if tree is None:
        return LoraKwargs(_values(recipe, UNKNOWN, recipe.value("modules_to_save")))
    targets, saved = _moved(recipe.value("target_modules"), recipe.value("modules_to_save"))
    saved, tied = _tied(recipe, tree, saved)
    if way == "fast" or (way == "language" and tree.model_type in FAST):
        values = _values(recipe, targets, saved) | tied
        if recipe.private["labels"]:
            values["task_type"] = "SEQ_CLS"
        # Nothing is left out here: LoraConfig stops at what it does not know.
        rest = (*recipe.private["flags"], *(key.name for key in recipe.stray))
        return LoraKwargs(values | dict.fromkeys(rest))
    reason = _not_reproduced(recipe, tree)
    if reason is not None:
        return Undecided(reason)
    parts = recipe.private["parts"]
    if targets == "all-linear":
        parts = dict.fromkeys(parts, True)
    listed = isinstance(targets, list)
    if targets in (None, "all-linear") or (listed and not all(_scope(parts))):
        if any(value is UNKNOWN for value in parts.values()):
            return Undecided("a finetune_* flag is not static")
        targets = _pattern(tree, parts, targets if listed else None)
        if targets is None:
            return Undecided("unsloth stops here: no layers to finetune")
    values = _values(recipe, targets, saved) | tied
    if not recipe.written("task_type") and not tree.facts.get("generates"):
        values["task_type"] = None
    return LoraKwargs(values)


def _values(recipe: Recipe, targets: Any, saved: Any) -> dict[str, Any]:
    """LoraConfig's keywords as unsloth passes them on, written or not."""
    values: dict[str, Any] = {
        name: recipe.value(name)
        for name in DIALECT.slots
        if recipe.written(name) or recipe[name].path or recipe[name].origin == "unknown"
    }
    own = ("r", "lora_alpha", "lora_dropout", "bias", "task_type")
    values |= {name: recipe.value(name) for name in own}
    return {**values, "target_modules": targets, "modules_to_save": saved}


def _encoder(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:
    """``FastSentenceTransformer``: the keywords themselves, for the model within. Of one that also
    sees or hears only the text's part gets adapters.
    """
    towers = tree is not None and any(
        name.rpartition(".")[2] in ("vision_tower", "audio_tower", "visual")
        for name, _ in tree.named_modules()
    )
    if recipe.private["flags"] or towers:
        return Undecided("unsloth limits the adapters to parts of an embedding model")
    return LoraKwargs(
        _values(recipe, recipe.value("target_modules"), recipe.value("modules_to_save"))
    )


def _moved(targets: Any, saved: Any) -> tuple[Any, Any]:
    """``embed_tokens`` and ``lm_head`` among listed targets are trained as a whole instead."""
    if not isinstance(targets, list) or saved is UNKNOWN:
        return targets, saved
    moved = [t for t in targets if isinstance(t, str) and t.rpartition(".")[2] in _EMBEDDINGS]
    if not moved:
        return targets, saved
    kept = [saved] if isinstance(saved, str) else list(saved or ())
    kept += [name for name in dict.fromkeys(moved) if name not in kept]
    return [t for t in dict.fromkeys(targets) if t not in moved], kept


def _tied(recipe: Recipe, tree: ModuleTree, saved: Any) -> tuple[Any, dict[str, Any]]:
    """A tied pair that is saved stays tied: PEFT makes the head out of the embeddings."""
    wished = recipe.value("ensure_weight_tying")
    both = (
        isinstance(saved, list) and {str(name).rpartition(".")[2] for name in saved} >= _EMBEDDINGS
    )
    tied = bool(tree.facts.get("tie_word_embeddings"))
    if wished is None and both and tied:
        kept = [name for name in saved if str(name).rpartition(".")[2] != "lm_head"]
        return kept, {"ensure_weight_tying": True}
    return saved, {}


def _not_reproduced(recipe: Recipe, tree: ModuleTree) -> str | None:
    """Why it can't be said what unsloth does with a model, None where it can."""
    kind = tree.model_type or ""
    if kind.startswith(_SPECIAL) or tree.facts.get("encodes"):
        return f"unsloth has rules of its own for {kind} models"
    if any(name.rpartition(".")[2] == "experts" for name, _ in tree.named_modules()):
        return "unsloth picks the experts of a mixture itself"
    if recipe.private["layers"] is not False:
        return "unsloth turns layers into names itself"
    return None


def _scope(parts: Mapping[str, Any]) -> list[Any]:
    """The flags that limit a list of targets; audio is none of them."""
    return [value for name, value in parts.items() if name != "finetune_audio_layers"]


def _pattern(
    tree: ModuleTree, parts: Mapping[str, Any], leaves: Sequence[object] | None
) -> str | None:
    """The regular expression over module names that unsloth_zoo makes of flags and names; None
    where it finds no linear layer.
    """
    linear = [
        name
        for name, node in tree.named_modules()
        if node.kind == "Linear" and not node.cls.endswith("Router")
    ]
    where = "|".join(_tags(parts, "finetune_vision_layers", "finetune_language_layers"))
    what = "|".join(_tags(parts, "finetune_attention_modules", "finetune_mlp_modules"))
    names = leaves if leaves is not None else _repeated(linear)
    last = "(?:" + "|".join(re.escape(str(name)) for name in names) + ")"
    if not where or not what or not names:
        return None
    pattern = rf".*?(?:{where}).*?(?:{what}).*?\.{last}"
    if parts["finetune_language_layers"]:
        plain = rf"\bmodel\.layers\.[\d]{{1,}}(?!.*\.experts\.\d)\..*?(?:{what}).*?\.{last}"
        pattern = f"(?:{pattern})|(?:{plain})"
    if not any(re.fullmatch(pattern, name) for name in linear):
        pattern = rf".*?(?:{what}).*?\.{last}"
    return pattern if any(re.fullmatch(pattern, name) for name in linear) else None


def _tags(parts: Mapping[str, Any], *names: str) -> list[str]:
    return [tag for name in names if parts[name] for tag in _TAGS[name]]


def _repeated(linear: Sequence[str]) -> list[str]:
    """The last names of linear layers but for those that stand alone, which are heads."""
    counts: dict[str, int] = {}
    for name in linear:
        leaf = name.rpartition(".")[2]
        counts[leaf] = counts.get(leaf, 0) + 1
    stacked = {name.rpartition(".")[2] for name in linear if re.search(r"\.\d+\.", name)}
    return [leaf for leaf, count in counts.items() if count != 1 or leaf in stacked]


DIALECT: Final = Dialect(
    name="unsloth",
    title="unsloth",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, (name,)) for name in PEFT.slots if name != "base_model"},
    defaults={name: d for name, d in _DEFAULTS.items() if name not in _CHOSEN},
    refusal=PEFT.refusal,
)
