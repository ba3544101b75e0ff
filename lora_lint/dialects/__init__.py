"""Frameworks' spellings of a LoRA run, one module each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import Dialect, LoraKwargs, Slot, Undecided, framework_facts

if TYPE_CHECKING:
    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.recipe import Recipe

__all__ = [
    "Dialect",
    "LoraKwargs",
    "Slot",
    "Undecided",
    "dialect",
    "names",
    "recipes",
    "schema",
    "with_tables",
]

_SWIFT: Final = ("tuner_type", "train_type", "sft_type", "split_dataset_ratio", "attn_impl")
_PYTHON: Final = (
    ("xtuner", ("xtuner",)),
    ("unsloth", ("get_peft_model",)),
    ("peft_python", ("LoraConfig",)),
)
_COMMANDS: Final = (
    ("ms_swift", ("swift", "megatron")),
    ("oumi", ("oumi",)),
    ("autotrain", ("autotrain",)),
    ("verl", ("lora_rank", "lora.rank")),
    ("openrlhf", ("openrlhf",)),
    ("llama_factory", ("lora",)),
    ("trl", ("lora", "peft")),
    ("axolotl", ("axolotl",)),
    ("torchtune", ("tune run",)),
    ("mlx_lm", ("mlx_lm",)),
    ("litgpt", ("litgpt",)),
    ("commands", ("lora",)),
)
# Dialects by format, in the order in which they are tried, each with words of which its files hold
# at least one: a module is not even imported for a file that can't be its.
_BY_FORMAT: Final[dict[str, tuple[tuple[str, tuple[str, ...]], ...]]] = {
    "yaml": (
        ("torchtune", ("_component_",)),
        ("mlx_lm", ("lora_parameters", "fine_tune_type", "lora_layers", "num_layers")),
        ("litgpt", ("checkpoint_dir",)),
        ("mistral_finetune", ("model_id_or_path",)),
        ("nemo_automodel", ("nemo_automodel",)),
        ("unsloth_studio", ("training:", '"training"')),
        ("h2o_llmstudio", ("llm_backbone",)),
        ("ai_toolkit", ("process",)),
        ("nemo_rl", ("lora_cfg", "megatron_cfg")),
        ("ludwig", ("model_type",)),
        ("ms_swift_ray", _SWIFT),
        ("ms_swift", _SWIFT),
        ("oumi", ("use_peft", "peft:")),
        ("autotrain", ("project_name",)),
        ("verl", ("lora_rank", "lora_A_init_method")),
        ("axolotl", ("base_model",)),
        ("llama_factory", ("model_name_or_path",)),
        ("trl", ("model_name_or_path",)),
        ("llama_factory_v1", ("peft_config",)),
        ("peft", ()),
        ("home_made", ("lora", "LoRA", "LORA", "peft")),
    ),
    "json": (
        ("mlx_lm", ("lora_parameters",)),
        ("llama_factory_v1", ("peft_config",)),
        ("unsloth_studio", ("lora_r",)),
        ("ai_toolkit", ("process",)),
        ("ms_swift", _SWIFT),
        ("peft", ()),
        ("llama_factory", ("model_name_or_path",)),
        ("trl", ("model_name_or_path",)),
        ("home_made", ("lora", "LoRA", "LORA", "peft")),
    ),
    "python": _PYTHON,
    "notebook": (*_PYTHON, *_COMMANDS),
    "shell": _COMMANDS,
}
# Formats in which one file may hold runs in the spelling of several frameworks.
_MIXED: Final = ("python", "notebook", "shell")


def dialect(name: str) -> Dialect:
    """A dialect by its name; modules are imported when they are first needed."""
    from importlib import import_module

    found: Dialect = import_module(f"lora_lint.dialects.{name}").DIALECT
    return found


def names() -> list[str]:
    """The names of all dialects."""
    return sorted({name for known in _BY_FORMAT.values() for name, _ in known})


def with_tables() -> list[str]:
    """The dialects whose keys are known, and that have a schema."""
    from lora_lint.facts import DATA

    return sorted(path.stem for path in (DATA / "frameworks").glob("*.json"))


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a framework's config files."""
    from lora_lint.dialects import tables

    spelling = dialect(name)
    made = tables.schema(name, spelling.title, closed=bool(spelling.refusal))
    if framework_facts(name).get("open"):  # any key may stand at the top
        made.pop("additionalProperties", None)
    return made


def recipes(document: Document) -> list[Recipe]:
    """The LoRA runs that a document describes, in the order in which they stand."""
    found: dict[tuple[int, KeyPath], Recipe] = {}
    for name, words in _BY_FORMAT.get(document.format, ()):
        if words and not any(word in document.text for word in words):
            continue
        spelling = dialect(name)
        for part, path in spelling.find(document):
            if (part, path) not in found:
                found[part, path] = spelling.read(document, part, path)
        if found and document.format not in _MIXED:
            break
    if document.format not in _MIXED:
        return list(found.values())
    return [found[place] for place in sorted(found, key=lambda at: _offset(document, *at))]


def _offset(document: Document, part: int, path: KeyPath) -> int:
    node = document.node(part, path)
    return node.span.start if node is not None else 0
