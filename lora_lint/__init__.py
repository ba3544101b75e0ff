"""Tells what a LoRA fine-tuning config will really do, before the run.

The names below are the public API; each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_lint.api import Options, Report, check, lint_file, lint_text, resolve_model
    from lora_lint.injection import Injection, inject
    from lora_lint.memory import MemoryEstimate, estimate_memory
    from lora_lint.models import ModuleTree
    from lora_lint.recipe import UNKNOWN

__version__ = "0.1.0"

_HOMES = {
    "UNKNOWN": "lora_lint.recipe",
    "Injection": "lora_lint.injection",
    "MemoryEstimate": "lora_lint.memory",
    "ModuleTree": "lora_lint.models",
    "Options": "lora_lint.settings",
    "Report": "lora_lint.api",
    "check": "lora_lint.api",
    "estimate_memory": "lora_lint.memory",
    "inject": "lora_lint.injection",
    "lint_file": "lora_lint.api",
    "lint_text": "lora_lint.api",
    "resolve_model": "lora_lint.api",
}

__all__ = [
    "UNKNOWN",
    "Injection",
    "MemoryEstimate",
    "ModuleTree",
    "Options",
    "Report",
    "check",
    "estimate_memory",
    "inject",
    "lint_file",
    "lint_text",
    "resolve_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
