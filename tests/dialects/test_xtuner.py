"""XTuner's Python configs: LoraConfig as a dict in the dict of a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text, resolve_model
from lora_lint.dialects import LoraKwargs, Undecided, dialect
from tests.dialects.roundtrip import recipe_of, roundtrip

FILE = """\
import torch
from peft import LoraConfig
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from mmengine.optim import AmpOptimWrapper
from xtuner.dataset import process_hf_dataset
from xtuner.model import SupervisedFinetune

pretrained_model_name_or_path = "meta-llama/Llama-2-7b-hf"
max_length = 2048
optim_type = AdamW
accumulative_counts = 16
accumulative_counts *= 2
model = dict(
    type=SupervisedFinetune,
    llm=dict(
        type=AutoModelForCausalLM.from_pretrained,
        pretrained_model_name_or_path=pretrained_model_name_or_path,
        torch_dtype=torch.float16,
        quantization_config=dict(
            type=BitsAndBytesConfig,
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
        ),
    ),
    lora=dict(
        type=LoraConfig,
        r=64,  # rank
        lora_alpha=16,
        task_type="CAUSAL_LM",
    ),
)
data = dict(type=process_hf_dataset, max_length=max_length)
train_dataloader = dict(batch_size=1, dataset=data)
optim_wrapper = dict(
    type=AmpOptimWrapper,
    optimizer=dict(type=optim_type, lr=2e-4),
    accumulative_counts=accumulative_counts,
)
"""


def lowered(text: str) -> LoraKwargs | Undecided:
    recipe = recipe_of(text, "config.py")
    tree = resolve_model(str(recipe.value("base_model")))
    return dialect("xtuner").lower(recipe, tree)


def test_what_a_file_says() -> None:
    recipe = recipe_of(FILE, "config.py")
    said = {
        "base_model": "meta-llama/Llama-2-7b-hf",
        "r": 64,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "dtype": "float16",
        "quantization": "nf4",
        "double_quant": False,
        "max_length": 2048,
        "per_device_train_batch_size": 1,
        "learning_rate": 2e-4,
        "optim": "adamw_torch",
        "gradient_checkpointing": True,
    }
    assert {name: recipe.value(name) for name in said} == said
    assert recipe["gradient_accumulation_steps"].origin == "unknown"
    assert (recipe.path, recipe.model_class) == (("model", "lora"), "AutoModelForCausalLM")


def test_absent_modules_are_all_linear_layers() -> None:
    made = lowered(FILE)
    assert isinstance(made, LoraKwargs)
    assert made.values == {
        "r": 64,
        "lora_alpha": 16,
        "task_type": "CAUSAL_LM",
        "target_modules": [
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
    }  # fmt: skip


def test_written_modules_are_taken() -> None:
    made = lowered(FILE.replace("r=64", 'target_modules=["q_proj"], r=64'))
    assert isinstance(made, LoraKwargs)
    assert made.values["target_modules"] == ["q_proj"]


def test_modules_that_are_not_static() -> None:
    recipe = recipe_of(FILE.replace("r=64", "target_modules=chosen(), r=64"), "config.py")
    assert recipe["target_modules"].origin == "unknown"


def test_a_misspelt_key() -> None:
    report = lint_text(FILE.replace("lora_alpha=16", "lora_aplha=16"), "config.py")
    found = [d for d in report.diagnostics if d.severity == "error"]
    assert [d.key_path for d in found] == [("model", "lora", "lora_aplha")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("type=LoraConfig", "type=Other"),
        ("from peft import LoraConfig", "from elsewhere import LoraConfig"),
        ("lora=dict(", "peft=dict("),
        ("from xtuner.model", "from another"),
        ("train_dataloader = ", "model = None\ntrain_dataloader = "),
        ("train_dataloader = ", 'model["lora"]["r"] = 8\ntrain_dataloader = '),
    ],
)
def test_other_dicts_are_no_recipes(old: str, new: str) -> None:
    assert old in FILE
    assert not lint_text(FILE.replace(old, new), "config.py").recipes


def test_a_part_of_a_model_is_not_decided() -> None:
    text = FILE.replace("llm=dict(", "ignored=dict(").replace("lora=dict", "llm_lora=dict")
    assert "part of its model" in str(lowered(text))


def test_a_file_for_the_trainer() -> None:
    text = (
        FILE[: FILE.index("model = dict(")]
        + "training_args = dict(type=TrainingArguments, learning_rate=3e-4, fp16=True)\n"
        "model = dict(type=AutoModelForCausalLM.from_pretrained,\n"
        "             pretrained_model_name_or_path=pretrained_model_name_or_path)\n"
        "lora = dict(type=LoraConfig, r=8, lora_alpha=16)\n"
        "train_dataset = dict(type=process_hf_dataset, max_length=max_length)\n"
    )
    recipe = recipe_of(text, "config.py")
    said = {"r": 8, "learning_rate": 3e-4, "max_length": 2048, "fp16": True}
    assert {name: recipe.value(name) for name in said} == said
    assert recipe.value("base_model") == "meta-llama/Llama-2-7b-hf"
    assert "r=4" in roundtrip(text, "r", 4, "config.py")


@given(st.integers(1, 512), st.sampled_from(["r", "lora_alpha"]))
def test_numbers(value: int, field: str) -> None:
    assert "# rank" in roundtrip(FILE, field, value, "config.py")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_modules", ["q_proj", "v_proj"]),
        ("lora_dropout", 0.1),
        ("use_rslora", True),
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
        ("bias", "all"),
        ("task_type", "SEQ_CLS"),
    ],
)
def test_every_other_slot(field: str, value: object) -> None:
    roundtrip(FILE, field, value, "config.py")
