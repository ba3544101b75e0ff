"""What mlx-lm itself makes of its config files: ``mlx_lm.lora`` reads them, and the settings are
taken where it would begin to load the model.

    python -P tools/second_ways/mlx_lm.py FILE ...

Run it with a Python that has mlx-lm and mlx (on Linux ``mlx[cpu]``); nothing is downloaded.
``lora_alpha`` is ``scale`` times ``rank``.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

from mlx_lm import lora


def settings(path: str) -> Any:
    """The settings that ``mlx_lm.lora --config FILE`` comes to."""
    found: list[Any] = []
    lora.run = lambda args, *_: found.append(args)
    sys.argv = ["mlx_lm.lora", "--config", path]
    with contextlib.redirect_stdout(io.StringIO()):
        lora.main()
    return found[0]


def read(path: str) -> dict[str, Any]:
    """The fields of a file."""
    args = settings(path)
    if args.fine_tune_type not in ("lora", "dora"):
        return {"skipped": args.fine_tune_type}
    given = args.lora_parameters
    return {
        "base_model": args.model,
        "r": given["rank"],
        "lora_alpha": given["scale"] * given["rank"],
        "lora_dropout": given["dropout"],
        "target_modules": given.get("keys"),
        "max_length": args.max_seq_length,
        "per_device_train_batch_size": args.batch_size,
    }


def main() -> None:
    """Read files and print what was found, as JSON."""
    found: dict[str, Any] = {}
    for path in list(sys.argv[1:]):
        try:
            found[path] = read(path)
        except Exception as exc:  # noqa: BLE001, PERF203 - what it says is the answer
            found[path] = {"error": f"{type(exc).__name__}: {exc}"}
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
