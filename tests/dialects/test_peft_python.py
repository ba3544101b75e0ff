"""LoraConfig in Python: the model, quantization and training arguments that it meets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lora_lint import lint_text
from lora_lint.dialects import recipes
from lora_lint.documents import parse
from lora_lint.recipe import Recipe

IMPORTS = """\
import argparse
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers import BitsAndBytesConfig, Trainer, TrainingArguments
from trl import RewardTrainer, SFTConfig, SFTTrainer
"""
MODEL = 'model = AutoModelForCausalLM.from_pretrained("gpt2")\n'
CONFIG = 'config = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"])\n'


def one(code: str) -> Recipe:
    (found,) = recipes(parse("train.py", IMPORTS + code))
    return found


def origin(recipe: Recipe, name: str) -> tuple[Any, str, bool]:
    field = recipe[name]
    return field.value, field.origin, field.sure


def test_the_model_that_gets_the_config() -> None:
    recipe = one(
        'other = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")\n'
        + MODEL + CONFIG + "model = get_peft_model(model, config)\n"
    )  # fmt: skip
    assert origin(recipe, "base_model") == ("gpt2", "written", True)
    assert recipe.model_class == "AutoModelForCausalLM"


def test_a_model_without_a_link_is_a_guess() -> None:
    assert origin(one(MODEL + CONFIG), "base_model") == ("gpt2", "written", False)


@pytest.mark.parametrize(
    "code",
    [
        'a = AutoModelForCausalLM.from_pretrained("gpt2")\n'
        'b = AutoModelForCausalLM.from_pretrained("gpt2-xl")\n' + CONFIG,
        'model = PeftModel.from_pretrained(base, "x")\n' + CONFIG,
        "model = AutoModelForCausalLM.from_config(something)\n" + CONFIG
        + "get_peft_model(model, config)\n",
        'model = AutoModelForCausalLM.from_pretrained("sd", subfolder="unet")\n' + CONFIG
        + "get_peft_model(model, config)\n",
        "def train(model):\n    return get_peft_model(model, LoraConfig(r=8))\n",
    ],
    ids=["two", "adapter", "from_config", "part", "parameter"],
)  # fmt: skip
def test_a_model_that_is_not_known(code: str) -> None:
    recipe = one(code)
    assert recipe["base_model"].origin == "unknown"


def test_either_branch_may_give_the_model() -> None:
    recipe = one(
        MODEL + "if big:\n    model = AutoModelForCausalLM.from_pretrained('gpt2-xl')\n"
        + CONFIG + "get_peft_model(model, config)\n"
    )  # fmt: skip
    assert recipe["base_model"].origin == "unknown"


def test_a_trainer_loads_a_named_model() -> None:
    recipe = one(
        CONFIG + 'SFTTrainer("gpt2", args=SFTConfig(max_length=512), peft_config=config)\n'
    )
    assert recipe.value("base_model") == "gpt2"
    assert recipe.value("max_length") == 512
    recipe = one(CONFIG + 'RewardTrainer(model="gpt2", peft_config=config)\n')
    assert recipe.model_class == "AutoModelForSequenceClassification"


def test_quantization_and_preparation() -> None:
    recipe = one(
        "bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True,\n"
        "    bnb_4bit_quant_type='nf4')\n"
        "model = AutoModelForCausalLM.from_pretrained('gpt2', quantization_config=bits,\n"
        "    torch_dtype=torch.bfloat16)\n"
        "model = prepare_model_for_kbit_training(model)\n" + CONFIG
        + "model = get_peft_model(model, config)\n"
        "Trainer(model, TrainingArguments('out', per_device_train_batch_size=2))\n"
    )  # fmt: skip
    assert recipe.value("quantization") == "nf4"
    assert recipe.value("double_quant") is True
    assert recipe.value("dtype") == "bfloat16"
    assert recipe.value("gradient_checkpointing") is True
    assert recipe.value("per_device_train_batch_size") == 2


@pytest.mark.parametrize(
    "code",
    [
        "bits = None\nif args.four:\n    bits = BitsAndBytesConfig(load_in_4bit=True)\n",
        "bits = BitsAndBytesConfig(load_in_4bit=True) if args.four else None\n",
        "bits = BitsAndBytesConfig(load_in_4bit=True)\nif not args.four:\n    bits = None\n",
        "bits = BitsAndBytesConfig(load_in_4bit=args.four)\n",
        "bits = BitsAndBytesConfig(**settings)\n",
    ],
)
def test_conditional_quantization_is_unknown(code: str) -> None:
    load = "model = AutoModelForCausalLM.from_pretrained('gpt2', quantization_config=bits)\n"
    recipe = one(code + load + CONFIG + "get_peft_model(model, config)\n")
    assert recipe["quantization"].origin == "unknown"


def test_four_bits_are_fp4_unless_told_otherwise() -> None:
    recipe = one(
        "model = AutoModelForCausalLM.from_pretrained(\n"
        "    'gpt2', quantization_config=BitsAndBytesConfig(load_in_4bit=True))\n"
        + CONFIG + "get_peft_model(model, config)\n"
    )  # fmt: skip
    assert recipe.value("quantization") == "fp4"


def test_an_argument_default_is_not_sure() -> None:
    code = (
        "parser = argparse.ArgumentParser()\n"
        'parser.add_argument("--model", default="gpt2")\n'
        'parser.add_argument("--targets", nargs="+", default=["q_proj"])\n'
        "args = parser.parse_args()\n"
        "model = AutoModelForCausalLM.from_pretrained(args.model)\n"
        "get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=args.targets))\n"
    )
    assert origin(one(code), "base_model") == ("gpt2", "default", False)
    (found,) = [d for d in lint_text(IMPORTS + code, "a.py").diagnostics if d.code == "TM101"]
    assert found.severity == "warning"
    assert "if the run uses" in (found.help or "")


def test_unpacked_keywords_leave_the_rest_open() -> None:
    recipe = one("get_peft_model(model, LoraConfig(r=8, **more))\n")
    assert recipe.value("r") == 8
    assert recipe["lora_alpha"].origin == "unknown"
    assert recipe["target_modules"].origin == "unknown"


def test_the_report_says_what_is_not_static() -> None:
    report = lint_text(
        IMPORTS + MODEL + "LoraConfig(r=compute(), target_modules=['c_attn'])\n", "a.py"
    )
    assert any("not static: r" in entry.reason for entry in report.not_checked)


def test_only_pefts_lora_config_counts() -> None:
    for imports in ("from swift import LoraConfig", "from .config import LoraConfig", ""):
        assert recipes(parse("a.py", f"{imports}\nLoraConfig(r=8, lora_alpha=16)\n")) == []


def test_inference_mode_without_a_trainer_may_be_meant() -> None:
    code = IMPORTS + MODEL + "get_peft_model(model, LoraConfig(inference_mode=True))\n"
    severities = {d.code: d.severity for d in lint_text(code, "a.py").diagnostics}
    assert severities["TR611"] == "warning"
    code += "Trainer(model)\n"
    severities = {d.code: d.severity for d in lint_text(code, "a.py").diagnostics}
    assert severities["TR611"] == "error"


def test_add_adapter_names_the_model_by_its_class() -> None:
    load = "from diffusers import UNet2DConditionModel\n"
    unet = "unet = UNet2DConditionModel.from_pretrained('sd', subfolder='unet')\n"
    recipe = one(MODEL + load + unet + CONFIG + "unet.add_adapter(config)\n")
    assert recipe.value("base_model") == "sd"
    assert recipe.model_class == "UNet2DConditionModel"
    recipe = one(MODEL + load + unet + CONFIG + "model.add_adapter(config)\n")
    assert recipe.value("base_model") == "gpt2"
    recipe = one(MODEL + CONFIG + "something.add_adapter(config)\n")
    assert recipe["base_model"].origin == "unknown"


def test_branches_that_load_the_same_model() -> None:
    recipe = one(
        "if four:\n"
        "    model = AutoModelForCausalLM.from_pretrained('gpt2',\n"
        "        quantization_config=BitsAndBytesConfig(load_in_4bit=True))\n"
        "    model = prepare_model_for_kbit_training(model)\n"
        "else:\n    model = AutoModelForCausalLM.from_pretrained('gpt2')\n"
        + CONFIG + "get_peft_model(model, config)\n"
    )  # fmt: skip
    assert origin(recipe, "base_model") == ("gpt2", "written", False)
    assert recipe["quantization"].origin == "unknown"


def test_a_model_that_a_function_returns() -> None:
    load = (
        "def load():\n    tokenizer = None\n"
        "    model = AutoModelForCausalLM.from_pretrained('gpt2')\n    return model, tokenizer\n"
        "other = AutoModelForCausalLM.from_pretrained('gpt2-xl')\n"
    )
    recipe = one(
        load + "model, tokenizer = load()\n" + CONFIG + "model = get_peft_model(model, config)\n"
    )
    assert origin(recipe, "base_model") == ("gpt2", "written", False)


def notebook(*cells: str) -> str:
    made = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": c}
        for c in cells
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_a_notebooks_excerpt_and_suppressions_count_by_cell() -> None:
    cells = (
        IMPORTS + MODEL,
        "\n" + CONFIG.replace("c_attn", "q_proj") + "get_peft_model(model, config)\n",
    )
    report = lint_text(notebook(*cells), "a.ipynb")
    assert [d.code for d in report.diagnostics] == ["TM101"]
    assert "a.ipynb:cell 2:2:" in repr(report)
    assert '2 | config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj"])' in repr(report)
    silenced = cells[1].replace('["q_proj"])', '["q_proj"])  # lora-lint: ignore[TM101] later')
    assert not lint_text(notebook(cells[0], silenced), "a.ipynb").diagnostics


def test_a_shared_value_is_spoken_of_once() -> None:
    code = (
        IMPORTS + MODEL.replace('"gpt2"', '"gpt2", trust_remote_code=True')
        + CONFIG + "get_peft_model(model, config)\n"
        + "get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=['c_attn']))\n"
    )  # fmt: skip
    assert [d.code for d in lint_text(code, "a.py").diagnostics].count("SE701") == 1
