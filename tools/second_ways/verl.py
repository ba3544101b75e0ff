"""verl's own reading of commands: hydra composes its trainers' configs with the overrides.

python tools/second_ways/verl.py FILE ...
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

CONFIGS = {
    "verl.trainer.main_ppo": "ppo_trainer",
    "verl.trainer.sft_trainer": "sft_trainer_engine",
}
SPEC = importlib.util.find_spec("verl")
FOLDER = Path(str(SPEC.submodule_search_locations[0])) / "trainer" / "config"  # type: ignore[union-attr,index]


def reading(path: str) -> dict[str, Any]:
    """What a trainer's config holds of a command's overrides."""
    if not path.endswith(".sh"):
        return {"skipped": True}
    text = Path(path).read_text(encoding="utf-8").replace("\\\n", " ")
    line = next(found for line in text.splitlines() if "-m" in (found := shlex.split(line)))
    program = line[line.index("-m") + 1]
    # what hydra cannot know, as we do not: the shell's variables
    overrides = [word for word in line[line.index("-m") + 2 :] if "$" not in word]
    while True:
        try:
            with initialize_config_dir(str(FOLDER), version_base=None):
                config = compose(CONFIGS[program], overrides=overrides)
            break
        except Exception as exc:  # noqa: BLE001 - any refusal is an answer
            # overrides of other releases, which say nothing of LoRA
            key = re.search(r"Could not override '([^']+)'", str(exc))
            kept = [o for o in overrides if not key or not o.startswith(f"{key[1]}=")]
            if key is None or "lora" in key[1] or kept == overrides:
                return {"error": f"{type(exc).__name__}: {exc}"}
            overrides = kept
    sft = program.endswith("sft_trainer")
    model = config.model if sft else config.actor_rollout_ref.model
    if not model.lora_rank:
        return {"skipped": True}
    targets = model.target_modules
    told = {
        "r": model.lora_rank,
        "lora_alpha": model.lora_alpha,
        "target_modules": OmegaConf.to_container(targets)
        if not isinstance(targets, str)
        else targets,
    }
    if any(word.partition("=")[0].endswith("model.path") for word in overrides):
        told["base_model"] = model.path
    batch = (
        config.data.micro_batch_size_per_gpu
        if sft
        else config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu
    )
    if batch is not None:
        told["per_device_train_batch_size"] = batch
    return told


if __name__ == "__main__":
    answers: dict[str, Any] = {"version": f"verl {version('verl')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers))
