"""Training commands of people's own programs, by the usual names of their options.

What is run is not known here, so that nothing is known of defaults, of what a value means, or of
which options there are. Commands of known frameworks are theirs, read or not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import BOOLEAN, NUMBER, Codec, Dialect, read_node
from lora_lint.dialects.options import parsed, restated
from lora_lint.dialects.usual import (
    is_number,
    lora_fields,
    lower,
    other_adapter,
    switched_off,
)
from lora_lint.recipe import Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node


def _words(value: Any) -> Any:
    """``a,b``, ``[a, b]`` and ``["a", "b"]`` as a list, as such programs read it."""
    if not isinstance(value, str):
        return value
    inner = value.strip()
    bare = inner.removeprefix("[").removesuffix("]")
    if "," not in inner and bare == inner:
        return value
    parts = (part.strip().strip("\"'") for part in bare.split(","))
    return [part for part in parts if part]


WORDS: Final = Codec(_words, lambda value: value)
_LORA_CODECS: Final = {
    "r": NUMBER,
    "lora_alpha": NUMBER,
    "lora_dropout": NUMBER,
    "target_modules": WORDS,
    "modules_to_save": WORDS,
    "use_rslora": BOOLEAN,
    "use_dora": BOOLEAN,
}
_RUN: Final[Mapping[str, tuple[tuple[str, ...], Codec | None]]] = {
    "base_model": (
        (
            "model_name_or_path",
            "pretrained_model_name_or_path",
            "base_model_name_or_path",
            "base_model",
            "base_model_path",
            "model_name",
            "model_id",
            "model_path",
            "model",
        ),
        None,
    ),
    "learning_rate": (("learning_rate", "lr"), NUMBER),
    "per_device_train_batch_size": (("per_device_train_batch_size", "micro_batch_size"), NUMBER),
    "gradient_accumulation_steps": (("gradient_accumulation_steps",), NUMBER),
    "gradient_checkpointing": (("gradient_checkpointing",), BOOLEAN),
    "max_length": (
        ("max_length", "max_seq_length", "max_seq_len", "model_max_length", "cutoff_len"),
        NUMBER,
    ),
    "optim": (("optim",), None),
    "fp16": (("fp16",), BOOLEAN),
    "bf16": (("bf16",), BOOLEAN),
    "dtype": (("dtype", "torch_dtype"), None),
    "attn_implementation": (("attn_implementation",), None),
    "deepspeed": (("deepspeed",), None),
    "trust_remote_code": (("trust_remote_code",), BOOLEAN),
}
# Programs that have a dialect of their own, or none: here they are nobody's.
_FOREIGN: Final = re.compile(
    r"(?:llamafactory(?:-cli|\.\w+)?|lmf|trl|swift|megatron|litgpt|mlx_lm(?:\.\w+)?|axolotl(?:\.\S+)?"
    r"|xtuner|oumi(?:\.\w+)?|autotrain|tune|openrlhf\.\S+|verl\.\S+|vllm\S*|sglang\S*)(?: .*)?"
)
# What is run trains, or its name does not say that it does something else.
_TRAINS: Final = re.compile(r"train|tune|sft|dpo|grpo|kto|ppo|rlhf", re.IGNORECASE)
_DOES_ELSE: Final = re.compile(
    r"merge|export|infer|generat|eval|serv|chat|predict|convert|demo|quantiz|gradio|(?:^|_)api|"
    r"test|deploy|upload|publish|benchmark|extract|download",
    re.IGNORECASE,
)
_SETTINGS: Final = ("r", "lora_alpha", "lora_dropout", "target_modules")


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """Commands that set a rank, an alpha, a dropout or targets of LoRA's."""
    for part, root in enumerate(document.parts):
        node = root.node
        if node.style == "command" and _trains(node.note or ""):
            fields = _lora_fields(parsed(node, {}).root)
            stated = [name for name in _SETTINGS if name in fields]
            if stated and all(_is_plausible(name, fields[name]) for name in stated):
                yield part, ()


def _trains(note: str) -> bool:
    if _FOREIGN.fullmatch(note):
        return False
    name = note.rpartition("/")[2]
    return not _DOES_ELSE.search(name) or _TRAINS.search(name) is not None


def _is_plausible(name: str, field: Field) -> bool:
    return name == "target_modules" or is_number(field)


def _lora_fields(root: Node) -> dict[str, Field]:
    if other_adapter(root):
        return {}
    short = "lora" in (root.note or "").lower() or any(
        isinstance(entry.key, str) and "lora" in entry.key.lower() for entry in root.entries
    )
    fields = lora_fields(root, (), short=short, codecs=_LORA_CODECS)
    spread = root.get("world_size") is not None  # then `--rank` is the process's own
    others = _ANYTHING + (("rank",),) * spread
    return {n: f for n, f in fields.items() if f.path not in others}


# `--dropout` and `--bias` are any model's, `--modules` anything's.
_ANYTHING: Final = (("dropout",), ("bias",), ("modules",), ("targets",))


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of such a command."""
    options = parsed(document.parts[part].node, {})
    fields: dict[str, Field] = {}
    for name, (keys, codec) in _RUN.items():
        key = next((key for key in keys if options.root.get(key) is not None), None)
        node = options.root.get(key) if key else None
        if key and node is not None and not (codec is None and node.style == "flag"):
            fields[name] = read_node(node, (key,), codec) if codec else read_node(node, (key,))
    fields |= _lora_fields(options.root)
    off = switched_off(options.root, lambda node: BOOLEAN.decode(node.value))
    recipe = Recipe(dialect="commands", part=part, path=path, fields=fields, adapter=not off)
    return restated(recipe, options, ())


DIALECT: Final = Dialect(
    name="commands",
    title="home-made command",
    find=find,
    read=read,
    lower=lower,
    slots={},
    parses_numbers=True,
    certain=False,
)
