"""The command: ``lora-lint``, and ``python -m lora_lint``."""

from __future__ import annotations

import gc


def console() -> None:
    """Run the command line.

    A run lives for a tenth of a second and makes no garbage worth collecting in that time: with
    Python's default thresholds a tenth of it went into looking for some.
    """
    gc.set_threshold(100_000, 50, 50)
    from lora_lint import cli

    cli.console()


if __name__ == "__main__":
    console()
