"""Writes random training commands for a framework that has no config files of its own, to be read
in two ways by tools/compare_dialects.py.

    python tools/random_commands.py openrlhf|verl DIR [--files 100] [--seed 1]

One command a file, in the spellings that people use; every tenth or so is one that the framework
refuses.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path


def openrlhf(rng: random.Random, number: int) -> tuple[str, list[str]]:
    """A program and its options."""
    script = rng.choice(["train_sft", "train_dpo", "train_ppo_ray"])
    model = "actor" if script == "train_ppo_ray" else "model"
    rank = rng.choice(["8", "16", "64", *(["4x"] if number % 10 == 0 else [])])
    words = [f"--{model}.model_name_or_path", "acme/model", "--ds.lora.rank", rank]
    targets = [["q_proj", "v_proj"], ["q_proj"], ["all-linear"], ["'q_proj'", '"k_proj"']]
    dtypes = ["bf16", "fp16", *(["fp32"] if number % 7 == 0 else [])]
    for share, more in (
        (0.5, rng.choice([["--ds.lora.alpha=32"], ["--ds.lora.alpha", "16"]])),
        (0.5, ["--ds.lora.target_modules", *rng.choice(targets)]),
        (0.4, ["--ds.lora.dropout", rng.choice(["0.05", ".1", "5e-2"])]),
        (0.4, ["--ds.load_in_4bit"]),
        (0.4, ["--ds.param_dtype", rng.choice(dtypes)]),
        (0.3, ["--ds.packing_samples"]),
    ):
        words += more if rng.random() < share else []
    if script == "train_sft" and rng.random() < 0.5:
        words += ["--data.max_len", "4096", "--train.micro_batch_size", "2"]
    if number % 9 == 0:
        words += ["--ds.lora.rnk", "3"]
    launcher = rng.choice(["deepspeed --module", "python3 -m", "accelerate launch -m"])
    return f"{launcher} openrlhf.cli.{script}", words


def verl(rng: random.Random, number: int) -> tuple[str, list[str]]:
    """A program and its overrides."""
    supervised = rng.random() < 0.4
    model = "model." if supervised else "actor_rollout_ref.model."
    rank = rng.choice(["8", "16", "64", "0" if number % 20 == 0 else "32"])
    words = [f"{model}path=acme/model", f"{rng.choice(['', '', '++'])}{model}lora_rank={rank}"]
    lists = ["'[q_proj,v_proj]'", '"[q_proj, k_proj]"', "[q_proj]", """'["q_proj","v_proj"]'"""]
    batch = "data.micro_batch_size_per_gpu"
    if not supervised:
        batch = "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
    for share, more in (
        (0.5, f"{model}lora_alpha={rng.choice(['16', '32', '8'])}"),
        (0.6, f"{model}target_modules={rng.choice(['all-linear', *lists])}"),
        (0.5, f"{batch}={rng.choice(['1', '4'])}"),
        (float(number % 11 == 0), f"{model}lora_rnk=3"),
    ):
        words += [more] if rng.random() < share else []
    return f"python3 -m verl.trainer.{'sft_trainer' if supervised else 'main_ppo'}", words


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    makers = {"openrlhf": openrlhf, "verl": verl}
    parser.add_argument("name", choices=sorted(makers))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(given.seed)
    for number in range(given.files):
        program, words = makers[given.name](rng, number)
        gap = rng.choice([" ", " \\\n    "])
        text = f"#!/bin/bash\n{program}{gap}{gap.join(words)}\n"
        (given.folder / f"{number:03}.sh").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
