"""lora-lint: what a LoRA fine-tuning config will really do, told before the run."""

__version__ = "0.1.0"
