"""ms-swift's own reading of YAML and JSON files and of commands: its file loader and its argument
classes, without what they fetch from a hub.

python tools/second_ways/ms_swift.py FILE ...
"""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

from swift.arguments import RLHFArguments
from swift.cli.main import parse_yaml_args
from swift.utils import parse_args

RLHFArguments.__post_init__ = lambda _: None


def words(path: str) -> list[str] | None:
    """The command line that a file stands for; None where it trains with Megatron."""
    if not path.endswith(".sh"):
        argv = [path]
        parse_yaml_args(argv)
        return None if "--global_batch_size" in argv else argv
    text = Path(path).read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"--\w+ \$\([^)]*\)", "", text)  # what only the shell can know
    for line in text.splitlines():
        found = shlex.split(line)
        if "swift" in found:
            argv = found[found.index("swift") + 2 :]
            parse_yaml_args(argv)
            return argv
    return None


def reading(path: str) -> dict[str, Any]:
    """What ms-swift's dataclasses hold after they have parsed a file."""
    argv = words(path)
    if argv is None:
        return {"skipped": True}
    try:
        args, rest = parse_args(RLHFArguments, argv)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    if rest:
        return {"error": f"remaining_argv: {rest}"}
    if args.tuner_type == "full":
        return {"skipped": True}
    kind: str | None = args.quant_method or "none"
    if kind == "bnb":
        kind = args.bnb_4bit_quant_type if args.quant_bits == 4 else "int8"
    targets = args.target_regex or args.target_modules
    told = {
        "base_model": args.model,
        "r": args.lora_rank,
        "lora_alpha": args.lora_alpha,
        "lora_dropout": args.lora_dropout,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "quantization": kind,
    }
    if targets == ["all-linear"] or not {"all-linear", "all-embedding"} & set(targets):
        told["target_modules"] = "all-linear" if targets == ["all-linear"] else targets
    rest_of = {"max_length": args.max_length, "dtype": args.torch_dtype}
    told |= {name: value for name, value in rest_of.items() if value is not None}
    return told


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers: dict[str, Any] = {"version": f"ms-swift {version('ms-swift')}"}
    for name in sys.argv[1:]:
        with redirect_stdout(io.StringIO()):
            answers[name] = reading(name)
    print(json.dumps(answers))
