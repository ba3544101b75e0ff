"""Whether a run evaluates while it trains, and in which batches, in each framework's words."""

from __future__ import annotations

import pytest

from lora_lint.recipe import UNKNOWN
from tests.dialects.roundtrip import recipe_of, roundtrip

FACTORY = "model_name_or_path: a/b\nstage: sft\ndo_train: true\nlora_rank: 8\ndataset: a\n"
AXOLOTL = "base_model: a/b\nadapter: lora\nlora_r: 8\nmicro_batch_size: 2\n"
SWIFT = "model: a/b\ntuner_type: lora\nlora_rank: 8\ndataset: a\n"
TRL = "model_name_or_path: a/b\nuse_peft: true\nlora_r: 8\n"
OUMI = "model:\n  model_name: a/b\ntraining:\n  use_peft: True\n{}peft:\n  lora_r: 8\n"


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        (FACTORY, None),
        (FACTORY + "do_eval: true\n", None),
        (FACTORY + "eval_strategy: steps\n", "steps"),
        (FACTORY + "evaluation_strategy: epoch\n", "epoch"),
        (FACTORY + "eval_strategy: no\n", "no"),
        (FACTORY + "eval_strategy: ${when}\n", UNKNOWN),
        (TRL + "eval_strategy: steps\n", "steps"),
        (AXOLOTL + "eval_steps: 50\n", None),
        (AXOLOTL + "val_set_size: 0\neval_steps: 50\n", None),
        (AXOLOTL + "val_set_size: 0.1\n", None),
        (AXOLOTL + "val_set_size: 0.1\nevals_per_epoch: 4\n", "steps"),
        (AXOLOTL + "test_datasets:\n  - path: a\neval_strategy: epoch\n", "epoch"),
        (SWIFT + "eval_strategy: steps\n", None),
        (SWIFT + "split_dataset_ratio: 0.01\n", "steps"),
        (SWIFT + "split_dataset_ratio: 0\neval_steps: 50\n", None),
        (SWIFT + "val_dataset: b\nsave_strategy: epoch\n", "epoch"),
        (SWIFT + "val_dataset: b\neval_strategy: 'no'\n", "no"),
    ],
)
def test_when_it_evaluates(text: str, strategy: object) -> None:
    assert recipe_of(text).value("eval_strategy") == strategy


@pytest.mark.parametrize(
    ("text", "batch"),
    [(FACTORY, 8), (TRL, 8), (SWIFT, 1), (OUMI.format(""), 8), (AXOLOTL, None)],
)
def test_the_batch_that_is_not_written(text: str, batch: int | None) -> None:
    assert recipe_of(text).value("per_device_eval_batch_size") == batch


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (FACTORY + "per_device_eval_batch_size: 8\n", "a.yaml"),
        (TRL, "a.yaml"),
        (SWIFT + "per_device_eval_batch_size: 8\n", "a.yaml"),
        (AXOLOTL + "eval_batch_size: 8\n", "a.yaml"),
        (OUMI.format("  per_device_eval_batch_size: 8\n"), "a.yaml"),
        ("swift sft --model a/b --lora_rank 8 --per_device_eval_batch_size 8\n", "a.sh"),
    ],
)
def test_it_can_be_set(text: str, path: str) -> None:
    assert roundtrip(text, "per_device_eval_batch_size", 2, path)


PYTHON = (
    "from peft import LoraConfig, get_peft_model\n"
    "from transformers import AutoModelForCausalLM, Trainer, TrainingArguments\n"
    "from trl import DPOConfig, DPOTrainer\n"
    "model = get_peft_model(AutoModelForCausalLM.from_pretrained('gpt2'), LoraConfig(r=8))\n"
)


def test_python_has_transformers_default() -> None:
    text = PYTHON + "Trainer(model, TrainingArguments('o', eval_strategy='steps'))\n"
    recipe = recipe_of(text, "a.py")
    assert recipe.value("eval_strategy") == "steps"
    assert recipe.value("per_device_eval_batch_size") == 8
    assert roundtrip(text, "per_device_eval_batch_size", 2, "a.py") == text.replace(
        "eval_strategy='steps'", "eval_strategy='steps', per_device_eval_batch_size=2"
    )


@pytest.mark.parametrize(
    "told",
    [
        "Trainer(model, TrainingArguments('o', **more))\n",
        "DPOTrainer(model, DPOConfig('o', eval_strategy='steps'))\n",
    ],
)
def test_python_that_does_not_say_it(told: str) -> None:
    recipe = recipe_of(PYTHON + told, "a.py")
    assert recipe.value("eval_strategy") is None
    assert not isinstance(recipe.value("per_device_eval_batch_size"), int)
