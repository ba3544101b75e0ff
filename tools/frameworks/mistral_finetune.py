"""mistral-finetune: the dataclasses in finetune/args.py, finetune/data/args.py and model/args.py.

It is a repository without releases or wheels, and has stopped changing; what it declares is
transcribed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameworks.common import facts

if TYPE_CHECKING:
    from pathlib import Path

LORA = {"enable": True, "rank": 16, "dropout": 0.0, "scaling": 2.0}
OPTIM = {"lr": 3e-4, "weight_decay": 0.1, "pct_start": 0.3}
WANDB = {"project": None, "offline": False, "key": None, "run_name": None}
MLFLOW = {"tracking_uri": None, "experiment_name": None}
INSTRUCT = {"shuffle": True, "dynamic_chunk_fn_call": True}
DATA = {"data": "", "shuffle": False, "instruct_data": "", "eval_instruct_data": ""}
TRAIN = {
    "model_id_or_path": ...,
    "run_dir": ...,
    "seed": 0,
    "num_microbatches": 1,
    "seq_len": 2048,
    "batch_size": 1,
    "max_norm": 1.0,
    "max_steps": 100,
    "log_freq": 1,
    "ckpt_freq": 0,
    "save_adapters": True,
    "no_ckpt": False,
    "num_ckpt_keep": 3,
    "eval_freq": 0,
    "no_eval": True,
    "checkpoint": True,
}
OLD = ("ckpt_only_lora", "wandb_project", "world_size")
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _entry(default: Any) -> dict[str, Any]:
    if default is ...:
        return {"type": ["string"]}
    if default is None:
        return {"type": ["string", "null"], "default": None}
    return {"type": [KINDS[type(default)]], "default": default}


def _section(defaults: dict[str, Any], **more: Any) -> dict[str, Any]:
    keys = {key: _entry(default) for key, default in defaults.items()}
    return {"type": ["object"], "keys": keys | more}


def read(wheels: Path) -> dict[str, Any]:  # noqa: ARG001 - there are none
    """The keys of TrainArgs."""
    keys = {key: _entry(default) for key, default in TRAIN.items()}
    keys |= {
        "lora": _section(LORA),
        "optim": _section(OPTIM),
        "wandb": _section(WANDB),
        "mlflow": _section(MLFLOW),
        "data": _section(DATA, instruct=_section(INSTRUCT)),
        **{key: {"old": True} for key in OLD},
    }
    keys["num_ckpt_keep"]["type"] = ["integer", "null"]
    return facts([], keys)
