"""The files around a config that it names: DeepSpeed and FSDP settings, the base model's own.

They are read as documents, so that every value has its place, and never executed.
"""

from lora_lint.neighbours.base_model import Tokenizer, model_config, tokenizer
from lora_lint.neighbours.files import Missing, Section
from lora_lint.neighbours.launch import (
    accelerate,
    accelerate_option,
    deepspeed,
    fsdp_settings,
    zero_stage,
)

__all__ = [
    "Missing",
    "Section",
    "Tokenizer",
    "accelerate",
    "accelerate_option",
    "deepspeed",
    "fsdp_settings",
    "model_config",
    "tokenizer",
    "zero_stage",
]
