"""Where a base model's module tree comes from."""

from lora_lint.models.module_tree import ModuleNode, ModuleTree

__all__ = ["ModuleNode", "ModuleTree"]
