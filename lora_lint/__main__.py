"""``python -m lora_lint``."""

from lora_lint.cli import console

if __name__ == "__main__":
    console()
