"""What PEFT does with a config on a model: the room that knows PEFT's behaviour."""

from lora_lint.injection.inject import inject
from lora_lint.injection.result import Adapted, Injection, PeftError, PeftWarning

__all__ = ["Adapted", "Injection", "PeftError", "PeftWarning", "inject"]
