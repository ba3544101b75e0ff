"""Which checkpoints a file asks for, in frameworks that have words of their own for it."""

from __future__ import annotations

import pytest

from lora_lint.recipe import UNKNOWN
from tests.dialects.roundtrip import recipe_of

FACTORY = "model_name_or_path: a/b\nstage: sft\ndo_train: true\nlora_rank: 8\ndataset: a\n"
PYTHON = (
    "from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training\n"
    "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
    "model = AutoModelForCausalLM.from_pretrained(\n"
    "    'gpt2', quantization_config=BitsAndBytesConfig(load_in_4bit=True))\n"
    "model = prepare_model_for_kbit_training(model{})\n"
    "model = get_peft_model(model, LoraConfig(r=8))\n"
)


@pytest.mark.parametrize(
    ("text", "path", "told"),
    [
        (FACTORY, "a.yaml", None),
        (FACTORY + "use_reentrant_gc: false\n", "a.yaml", {"use_reentrant": False}),
        (PYTHON.format(""), "a.py", UNKNOWN),
        (
            PYTHON.format(", gradient_checkpointing_kwargs={'use_reentrant': True}"),
            "a.py",
            {"use_reentrant": True},
        ),
    ],
)
def test_what_checkpoints_are_told(text: str, path: str, told: object) -> None:
    assert recipe_of(text, path).value("gradient_checkpointing_kwargs") == told
