"""verl: the settings of its trainers' models, in YAML files under verl/trainer/config."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from frameworks.common import Release, Table, facts, merged, releases, with_history

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.4.1", "0.5.0", "0.6.1", "0.7.1", "0.8.0", "0.9.1")
TRAINERS = r"verl/trainer/config/(_generated_)?(ppo_trainer|sft_trainer|sft_trainer_engine)\.yaml"
MODELS = r"verl/trainer/config/model/hf_model\.yaml"
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}


def _entry(value: Any) -> dict[str, Any]:
    """What a default says of a key: its type, where it is one of a value's own."""
    if isinstance(value, str) and re.search(r"\$\{|\?\?\?", value):
        return {}
    kind = KINDS.get(type(value))
    return {"type": [kind], "default": value} if kind not in (None, "array") else {}


def _section(value: Any) -> Table:
    made = {str(k): _entry(v) for k, v in (value or {}).items() if k != "_target_"}
    for key in made.keys() & {"target_modules"}:
        made[key]["type"] = ["string", "array", "null"]
    return made


def _keys(release: Release) -> Table:
    roots: Table = {}
    models = []
    for name in release.names(f"{TRAINERS}|{MODELS}"):
        found = yaml.safe_load(release.wheel.read(name))
        if name.endswith("hf_model.yaml"):
            models.append(_section(found))
            continue
        roots |= {key: {} for key in found if key != "defaults"}
        holders = (found, found.get("actor_rollout_ref") or {})
        models.extend(_section(holder.get("model")) for holder in holders)
    model: dict[str, Any] = {"type": ["object"], "keys": merged(models)}
    model["keys"].setdefault("target_parameters", {})  # workers/config/model.py
    ours = {"actor_rollout_ref": {"type": ["object"], "keys": _rest(model)}, "model": model}
    # a part of a config is a file of its own: trainer/config/model/hf_model.yaml
    return model["keys"] | roots | ours


def _rest(model: dict[str, Any]) -> Table:
    return {"model": model, "actor": {}, "ref": {}, "rollout": {}, "hybrid_engine": {}}


def read(wheels: Path) -> dict[str, Any]:
    """The keys of its releases; sections other than the model's are left open."""
    found = releases(wheels / "verl", "verl", VERSIONS)
    tables = [_keys(release) for release in found]
    return facts(found, with_history(tables[-1], tables[:-1]))
