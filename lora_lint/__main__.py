"""The command: ``lora-lint``, and ``python -m lora_lint``."""

from __future__ import annotations

import gc
import os
import sys


def console() -> None:
    """Run the command line and end the process.

    A run lives for a tenth of a second. Looking for garbage in that time, and taking every object
    apart at its end, were a fifth of it.
    """
    gc.set_threshold(100_000, 50, 50)
    from lora_lint import cli

    status: object = 0
    try:
        cli.console()
    except SystemExit as exc:
        status = exc.code
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the reader of a pipe went away
        status = status or 1
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    console()
