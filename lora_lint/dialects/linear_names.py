"""ms-swift's ways to name all modules of a kind (4.6.0 utils/transformers_utils.py)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lora_lint.models import ModuleTree
    from lora_lint.models.module_tree import ModuleNode

_NUMBER: Final = re.compile(r"\d+\.")
# Linear layers that ``find_all_linears`` leaves out, by a part of their name or class.
_HEADS: Final = ("score", "v_head", "classifier", "lora_A", "lora_B", "base_layer")
_OTHER_LINEAR: Final = ("glulinear", "gemma4clippablelinear")


class Parts(NamedTuple):
    """The names of a multimodal model's parts (model/model_arch.py)."""

    language_model: list[str]
    vision_tower: list[str]
    aligner: list[str]


def linear_names(tree: ModuleTree, head: str) -> list[str]:
    """``find_all_linears``: names that single out the linear layers of a model, without its
    output layer ``head``.
    """
    return _names(tree.named_modules(), _is_linear(head, embedding=False))


def named_like(tree: ModuleTree, word: str) -> list[str]:
    """``find_embedding`` and ``find_norm``: the names behind ``all-embedding``, ``all-norm``."""
    if word == "all-embedding":
        return _names(tree.named_modules(), lambda _, node: _is_embedding(node))
    return _names(
        tree.named_modules(),
        lambda _, node: node.cls == "LayerNorm" or "rmsnorm" in node.cls.lower(),
    )


def parts_regex(
    tree: ModuleTree, parts: Parts, frozen: list[bool], head: str, *, embedding: bool
) -> str | None:
    """``get_multimodal_target_regex``: the pattern for the linear layers of the parts that are
    not frozen; None where the model has no such parts.

    ``frozen`` are those of the language model, the vision tower and the aligner.
    """
    modules = [n for names, off in zip(parts, frozen, strict=True) if not off for n in names]
    found = []
    for module in modules:
        node = tree.get(module)
        if node is None or (module.endswith("lm_head") and node.kind == "Linear"):
            continue
        rejected = [
            aligner
            for aligner in parts.aligner
            if aligner.startswith(f"{module}.") and not (frozen[0] and frozen[1])
        ]
        below = [
            (name[len(module) + 1 :], other)
            for name, other in tree.named_modules()
            if name == module or name.startswith(f"{module}.")
        ]
        names = _names(below, _is_linear(head, embedding=embedding))
        if not names:
            continue
        pattern = (f"(?!({'|'.join(rejected)}))" if rejected else "") + re.escape(module)
        if "" in names:
            found.append(pattern)
        names = [name for name in names if name]
        if names:
            found.append(rf"{pattern}(?=\.).*\.({'|'.join(names)})")
    return f"^({'|'.join(found)})$" if found else None


def _is_linear(head: str, *, embedding: bool) -> Callable[[str, ModuleNode], bool]:
    def cond(name: str, node: ModuleNode) -> bool:
        cls = node.cls.lower()
        linear = "linear" in cls and not any(other in cls for other in _OTHER_LINEAR)
        wanted = linear or (embedding and _is_embedding(node))
        return wanted and not any(part in name for part in (head, *_HEADS))

    return cond


def _is_embedding(node: ModuleNode) -> bool:
    return node.kind == "Embedding"


def _names(
    modules: Iterable[tuple[str, ModuleNode]], cond: Callable[[str, ModuleNode], bool]
) -> list[str]:
    """``find_layers``: the last parts of the names of the modules that ``cond`` takes, as many of
    them as it needs to end like no other module's name.
    """
    listed = list(modules)
    inner = {plain for name, node in listed if not cond(plain := _NUMBER.sub("{}.", name), node)}
    found: dict[str, None] = {}
    done: set[str] = set()  # layers that differ in their number alone have one name
    for name, node in listed:
        plain = _NUMBER.sub("{}.", name)
        if plain in done or not cond(name, node):
            continue
        before = name.split(".")
        short = before.pop()
        for other in inner:
            while before and other.endswith(_NUMBER.sub("{}.", short)):
                short = f"{before.pop()}.{short}"
        found[short] = None
        if not any(step.isdigit() for step in short.split(".")):
            done.add(plain)
    return sorted(found)
