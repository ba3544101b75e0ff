"""The module tree of torchtune's own model for that of Hugging Face's."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from lora_lint.models.litgpt import apart

if TYPE_CHECKING:
    from lora_lint.models.module_tree import ModuleNode, ModuleTree


@lru_cache(maxsize=32)
def torchtune_tree(tree: ModuleTree) -> ModuleTree:
    """A model as torchtune has it, under Hugging Face's names: Phi-3's and Phi-4's queries, keys
    and values and gate and up are maps of their own (torchtune 0.6.1
    models/phi3/_component_builders.py). Other families that it has are the same in both.
    """
    if tree.model_type != "phi3":
        return tree
    made: dict[int, ModuleNode] = {}

    def own(node: ModuleNode) -> ModuleNode:
        """The node with everything in it; equal ones stay one object."""
        if id(node) not in made:
            children = {name: own(child) for name, child in node.children.items()}
            made[id(node)] = replace(node, children=apart(children, "qkv_proj"))
        return made[id(node)]

    return replace(tree, root=own(tree.root))
