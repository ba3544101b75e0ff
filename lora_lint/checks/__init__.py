"""The rules' logic, one module per family."""

from lora_lint.checks import (
    architectures,
    config_files,
    distributed,
    embeddings,
    experts,
    learning,
    memory,
    moved,
    precision,
    quantization,
    scaling,
    target_modules,
    tokens,
    training,
    versions,
)
from lora_lint.checks.registry import CHECKS, Check
from lora_lint.checks.subject import Context, DocumentSubject, RecipeSubject

__all__ = [
    "CHECKS",
    "Check",
    "Context",
    "DocumentSubject",
    "RecipeSubject",
    "architectures",
    "config_files",
    "distributed",
    "embeddings",
    "experts",
    "learning",
    "memory",
    "moved",
    "precision",
    "quantization",
    "scaling",
    "target_modules",
    "tokens",
    "training",
    "versions",
]
