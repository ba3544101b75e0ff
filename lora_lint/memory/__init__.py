"""How much GPU memory a LoRA run needs; each name is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_lint.memory.advice import SavedShare, State, rank_saving, saved_modules_share
    from lora_lint.memory.estimate import MemoryEstimate, estimate_memory, max_tokens_that_fit
    from lora_lint.memory.evaluation import Evaluation, evaluation_memory
    from lora_lint.memory.gpus import Gpu, parse_gpu
    from lora_lint.memory.objective import for_objective
    from lora_lint.memory.profile import PROFILE_FIELDS, Profile, framework_profile
    from lora_lint.memory.sharding import Sharding

_HOMES = {
    "PROFILE_FIELDS": "profile",
    "Evaluation": "evaluation",
    "Gpu": "gpus",
    "MemoryEstimate": "estimate",
    "Profile": "profile",
    "SavedShare": "advice",
    "Sharding": "sharding",
    "State": "advice",
    "estimate_memory": "estimate",
    "evaluation_memory": "evaluation",
    "for_objective": "objective",
    "framework_profile": "profile",
    "max_tokens_that_fit": "estimate",
    "parse_gpu": "gpus",
    "rank_saving": "advice",
    "saved_modules_share": "advice",
}

__all__ = [
    "PROFILE_FIELDS",
    "Evaluation",
    "Gpu",
    "MemoryEstimate",
    "Profile",
    "SavedShare",
    "Sharding",
    "State",
    "estimate_memory",
    "evaluation_memory",
    "for_objective",
    "framework_profile",
    "max_tokens_that_fit",
    "parse_gpu",
    "rank_saving",
    "saved_modules_share",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
