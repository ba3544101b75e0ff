"""OpenRLHF's own reading of commands: the argument parsers of its training scripts, which stand
under ``if __name__ == "__main__"`` and are run without what follows them.

python tools/second_ways/openrlhf.py FILE ...
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import shlex
import sys
from contextlib import redirect_stderr
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

SPEC = importlib.util.find_spec("openrlhf")
FOLDER = Path(str(SPEC.submodule_search_locations[0])) / "cli"  # type: ignore[union-attr,index]


@cache
def parser(script: str) -> argparse.ArgumentParser:
    """The argument parser of a training script."""
    tree = ast.parse((FOLDER / f"{script}.py").read_text(encoding="utf-8"))
    main = next(node for node in tree.body if isinstance(node, ast.If))
    until = next(at for at, node in enumerate(main.body) if "parse_args" in ast.unparse(node))
    names = {"argparse": argparse, "os": os}
    from datetime import datetime

    names["datetime"] = datetime  # type: ignore[assignment]
    exec(compile(ast.Module(main.body[:until], []), script, "exec"), names)
    found = names["parser"]
    assert isinstance(found, argparse.ArgumentParser)
    return found


def reading(path: str) -> dict[str, Any]:
    """What the options of a command mean."""
    text = Path(path).read_text(encoding="utf-8").replace("\\\n", " ")
    words = next(
        w for line in text.splitlines() if "openrlhf.cli." in line for w in [shlex.split(line)]
    )
    at = next(i for i, word in enumerate(words) if word.startswith("openrlhf.cli."))
    script = words[at].rpartition(".")[2]
    try:
        with redirect_stderr(open(os.devnull, "w")):  # noqa: PTH123
            args = vars(parser(script).parse_args(words[at + 1 :]))
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - any refusal is an answer
        return {"error": f"{type(exc).__name__}: {exc}"}
    if not args["ds.lora.rank"]:
        return {"skipped": True}
    model = "actor" if script == "train_ppo_ray" else "model"
    told = {
        "base_model": args[f"{model}.model_name_or_path"],
        "r": args["ds.lora.rank"],
        "lora_alpha": args["ds.lora.alpha"],
        "lora_dropout": args["ds.lora.dropout"],
        "target_modules": args["ds.lora.target_modules"],
        "dtype": {"bf16": "bfloat16", "fp16": "float16"}[args["ds.param_dtype"]],
        "quantization": "nf4" if args["ds.load_in_4bit"] else "none",
    }
    if script == "train_sft":
        told["max_length"] = args["data.max_len"]
        told["per_device_train_batch_size"] = args["train.micro_batch_size"]
    return told


if __name__ == "__main__":
    answers: dict[str, Any] = {"version": f"openrlhf {version('openrlhf')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers))
