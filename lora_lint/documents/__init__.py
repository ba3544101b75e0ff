"""Files as trees with exact places, one module per format."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lora_lint.documents.document import Document

# Larger files are not read: configs have kilobytes, notebooks with pictures some megabytes.
MAX_BYTES: Final = 20 * 2**20
SUFFIXES: Final = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".py": "python",
    ".ipynb": "notebook",
    ".sh": "shell",
    ".bash": "shell",
}
# What a file must say somewhere if it holds a LoRA configuration.
_LORA_WORDS: Final = re.compile(rb"lora|peft|target_modules", re.IGNORECASE)


# Keys that only a LoRA configuration sets, and the call in Python.
_LORA_KEYS: Final = re.compile(
    r"""^[\s\-{"']*(?:lora_\w+|target_modules|peft_type|peft_config|lora)["']?\s*:|\bLoraConfig\(""",
    re.MULTILINE,
)
_SHELL: Final = re.compile(r"\ufeff?#![ \t]*\S*(?:/|env[ \t]+)(?:ba|da|k|z)?sh\b")
_TEMPLATE: Final = re.compile(r"^\s*\{\{|\{%", re.MULTILINE)


class NotText(Exception):  # noqa: N818 - it is an answer
    """The bytes are not text in an encoding that the formats allow."""


def speaks_of_lora(data: bytes) -> bool:
    """Whether a file can hold a LoRA configuration at all; one scan of its bytes."""
    return _LORA_WORDS.search(data) is not None or data[:2] in (b"\xff\xfe", b"\xfe\xff")


def sets_lora_keys(text: str) -> bool:
    """Whether a text that does not parse is plainly meant as a LoRA configuration.

    A template (``{{ ... }}``) is not: it is no YAML before it is filled in.
    """
    return _LORA_KEYS.search(text) is not None and _TEMPLATE.search(text) is None


def decode(data: bytes) -> tuple[str, str]:
    """A file's text, byte order mark included, and its encoding.

    UTF-8, or UTF-16 where a byte order mark says so: what YAML and JSON allow. Raises ``NotText``.
    """
    encoding = "utf-16-le" if data[:2] == b"\xff\xfe" else "utf-8"
    encoding = "utf-16-be" if data[:2] == b"\xfe\xff" else encoding
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as exc:
        msg = f"byte {exc.start:,} is not valid {encoding.upper()}"
        raise NotText(msg) from None
    if "\0" in text:
        msg = "it holds zero bytes, so it is not a text file"
        raise NotText(msg)
    return text, encoding


def format_of(path: str, text: str) -> str:
    """The format of a file by its suffix; without a known one, by how its text begins."""
    known = SUFFIXES.get(PurePath(path).suffix.lower())
    if known is not None:
        return known
    if _SHELL.match(text):
        return "shell"
    return "json" if text.lstrip("\ufeff \t\r\n")[:1] == "{" else "yaml"


def parse(path: str, text: str) -> Document:
    """Read a file's text as the format of its name; a text that does not parse has a
    ``problem``.
    """
    kind = format_of(path, text)
    if kind == "json":
        from lora_lint.documents import json

        return json.parse(path, text)
    if kind == "python":
        from lora_lint.documents import python

        return python.parse(path, text)
    if kind == "notebook":
        from lora_lint.documents import notebook

        return notebook.parse(path, text)
    if kind == "shell":
        from lora_lint.documents import shell

        return shell.parse(path, text)
    from lora_lint.documents import yaml

    return yaml.parse(path, text)
