"""How much GPU memory a LoRA run needs."""

from lora_lint.memory.advice import SavedShare, State, rank_saving, saved_modules_share
from lora_lint.memory.estimate import MemoryEstimate, estimate_memory, max_tokens_that_fit
from lora_lint.memory.evaluation import Evaluation, evaluation_memory
from lora_lint.memory.gpus import Gpu, parse_gpu
from lora_lint.memory.objective import for_objective
from lora_lint.memory.profile import PROFILE_FIELDS, Profile, framework_profile
from lora_lint.memory.sharding import Sharding

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
