"""Where a base model's module tree comes from."""

from lora_lint.models.module_tree import ModuleNode, ModuleTree
from lora_lint.models.resolve import Resolution, Unresolved, hint, renamed_since_4, resolve

__all__ = [
    "ModuleNode",
    "ModuleTree",
    "Resolution",
    "Unresolved",
    "hint",
    "renamed_since_4",
    "resolve",
]
