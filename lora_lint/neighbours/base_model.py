"""The base model's own files, where they are on this disk: its config, its tokenizer.

Layout (transformers 5.23.0 tokenization_utils_base.py): ``tokenizer.json`` holds the whole
vocabulary, ``tokenizer_config.json`` and the older ``added_tokens.json`` what was added to it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.neighbours.files import Missing, Section, find, is_path, read

if TYPE_CHECKING:
    from pathlib import Path

    from lora_lint.recipe import Recipe

# The largest tokenizer.json of models that people train has 35 MB.
MAX_BYTES: Final = 64 * 2**20


class Tokenizer(NamedTuple):
    """The text of a tokenizer's files: enough to see whether it has a token."""

    folder: str
    text: str

    def has(self, token: str) -> bool:
        """Whether the vocabulary or the added tokens hold exactly this token."""
        spellings = {json.dumps(token), json.dumps(token, ensure_ascii=False)}
        return any(spelling in self.text for spelling in spellings)


def model_config(config: str, recipe: Recipe) -> Section | None:
    """The base model's own config.json, where it is on this disk; else None."""
    name = recipe["base_model"].value
    if not isinstance(name, str) or not recipe["base_model"].sure:
        return None
    folder = _folder(name, config, "config.json")
    document = read(folder / "config.json") if folder is not None else None
    if document is None or document.parts[0].node.kind != "mapping":
        return None
    return Section(document, 0, ())


def tokenizer(config: str, recipe: Recipe) -> Tokenizer | None:
    """The base model's tokenizer; None where its whole vocabulary is not on this disk."""
    name = recipe["base_model"].value
    if not isinstance(name, str) or not recipe["base_model"].sure:
        return None
    folder = _folder(name, config, "tokenizer.json")
    text = _text(folder / "tokenizer.json") if folder is not None else None
    if folder is None or text is None:
        return None
    others = ("tokenizer_config.json", "added_tokens.json")
    return Tokenizer(str(folder), "\n".join([text, *(_text(folder / o) or "" for o in others)]))


def _folder(name: str, config: str, file: str) -> Path | None:
    """The folder of a model: a path where such a file is, else a snapshot in the Hugging Face
    cache.
    """
    from lora_lint.models.hub_cache import snapshot

    if is_path(name):
        found = find(f"{name}/{file}", config)
        if not isinstance(found, Missing):
            return found[0].parent
    return snapshot(name)


def _text(path: Path) -> str | None:
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
