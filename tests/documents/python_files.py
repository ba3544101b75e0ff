"""What the tests of Python files share."""

from __future__ import annotations

from typing import Any

from lora_lint.documents import python
from lora_lint.documents.document import Document
from lora_lint.documents.tree import Node
from lora_lint.recipe import UNKNOWN

PEFT = "from peft import LoraConfig\n"


def parse(text: str) -> Document:
    document = python.parse("train.py", text)
    assert document.problem is None, document.problem
    return document


def config(text: str, *path: str) -> Node:
    node = parse(text).node(0, (*path, "LoraConfig#0"))
    assert node is not None
    return node


def argument(text: str, name: str | int = "r", *path: str) -> Node:
    node = config(text, *path).get(name)
    assert node is not None
    return node


def value(text: str, name: str | int = "r", *path: str) -> Any:
    return argument(text, name, *path).plain()


def reason(text: str, name: str | int = "r", *path: str) -> str:
    node = argument(text, name, *path)
    assert node.kind == "unknown"
    assert node.plain() is UNKNOWN
    assert node.note
    return node.note
