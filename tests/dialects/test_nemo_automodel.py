"""NeMo AutoModel's YAML: what it says of a run, and which of the model's layers it adapts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text, resolve_model
from lora_lint.dialects import LoraKwargs, Undecided, dialect
from tests.dialects.roundtrip import recipe_of, roundtrip

LLAMA = """\
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: meta-llama/Llama-3.1-8B
  torch_dtype: torch.bfloat16
step_scheduler:
  local_batch_size: 4
peft:
  _target_: nemo_automodel.components._peft.lora.PeftConfig
  target_modules: '*_proj'  # all of them
  dim: 16
dataset:
  _target_: nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset
  seq_length: 2048
optimizer:
  _target_: torch.optim.AdamW
  lr: 1e-5
"""


def changed(old: str, new: str) -> str:
    assert old in LLAMA
    return LLAMA.replace(old, new)


def kwargs(text: str) -> dict[str, Any] | str:
    recipe = recipe_of(text)
    tree = resolve_model(str(recipe.value("base_model")), cls=recipe.model_class)
    assert tree is not None
    made = dialect("nemo_automodel").lower(recipe, tree)
    return dict(made.values) if isinstance(made, LoraKwargs) else made.reason


def test_what_a_file_says() -> None:
    recipe = recipe_of(LLAMA)
    assert recipe.dialect == "nemo_automodel"
    assert {name: recipe.value(name) for name in recipe.fields} | {"bias": None} == {
        "base_model": "meta-llama/Llama-3.1-8B",
        "dtype": "bfloat16",
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "use_dora": False,
        "bias": None,
        "target_modules": ["*_proj"],
        "max_length": 2048,
        "packing": False,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-5,
        "optim": "adamw_torch",
        "quantization": "none",
        "double_quant": None,
    }
    assert recipe["lora_alpha"].origin == "default"


def test_a_file_without_the_section_is_no_recipe() -> None:
    report = lint_text(LLAMA[: LLAMA.index("peft:")], "train.yaml")
    assert not report.recipes


@pytest.mark.parametrize(
    ("section", "targets"),
    [
        (
            "target_modules: '*_proj'",
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        ),
        ("target_modules: ['*.q_proj', '*.v_proj']", ["q_proj", "v_proj"]),
        ("target_modules: []", None),
        ("exclude_modules: ['*lm_head*', '*mlp*']", ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("target_modules: ['*.layers.3.*']", 7),
        ("match_all_linear: true", 8),
    ],
)
def test_the_layers_that_patterns_match(section: str, targets: list[str] | int | None) -> None:
    made = kwargs(changed("target_modules: '*_proj'", section))
    assert isinstance(made, dict)
    if isinstance(targets, int):
        assert len(made["target_modules"]) == targets
    else:
        assert made["target_modules"] == (targets or kwargs(LLAMA)["target_modules"])  # type: ignore[index]


def test_a_layer_number_is_not_the_start_of_another() -> None:
    """``*.layers.1.*`` does not match layer 10."""
    made = kwargs(changed("'*_proj'", "['*.layers.1.*']"))
    assert isinstance(made, dict)
    assert all(name.startswith("model.layers.1.") for name in made["target_modules"])


def test_two_kinds_of_patterns_stop_nemo() -> None:
    both = changed("  dim: 16", "  exclude_modules: ['*lm_head']\n  dim: 16")
    assert "mutually exclusive" in str(kwargs(both))


def test_models_of_nemos_own_code() -> None:
    mixture = changed("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B")
    assert "an implementation of its own" in str(kwargs(mixture))


def test_a_packed_length_and_quantization() -> None:
    recipe = recipe_of(
        LLAMA + "packed_sequence:\n  packed_sequence_size: 1024\n"
        "quantization:\n  load_in_4bit: True\n  bnb_4bit_use_double_quant: False\n"
    )
    assert (recipe.value("max_length"), recipe.value("packing")) == (1024, True)
    assert (recipe.value("quantization"), recipe.value("double_quant")) == ("nf4", False)


def test_templates_are_not_known() -> None:
    recipe = recipe_of(changed("meta-llama/Llama-3.1-8B", "${MODEL}"))
    assert recipe["base_model"].origin == "unknown"


def test_a_key_that_peftconfig_does_not_have() -> None:
    report = lint_text(changed("dim: 16", "rank: 16"), "train.yaml")
    assert [d.message for d in report.diagnostics if "rank" in d.message and d.code[:2] == "CF"]


def test_nothing_is_said_of_its_own_example() -> None:
    report = lint_text(LLAMA, "train.yaml")
    assert not [d for d in report.diagnostics if d.severity == "error"]


@given(st.integers(1, 512), st.sampled_from(["r", "lora_alpha", "max_length"]))
def test_numbers(value: int, field: str) -> None:
    roundtrip(LLAMA, field, value)


@given(st.lists(st.sampled_from(["*.q_proj", "*.o_proj", "*mlp*"]), min_size=1, unique=True))
def test_patterns(value: list[str]) -> None:
    assert "# all of them" in roundtrip(LLAMA, "target_modules", value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_model", "Qwen/Qwen3-8B"),
        ("dtype", "float16"),
        ("lora_dropout", 0.1),
        ("use_dora", True),
        ("learning_rate", 0.0002),
        ("per_device_train_batch_size", 2),
        ("trust_remote_code", True),
        ("attn_implementation", "sdpa"),
    ],
)
def test_every_other_slot(field: str, value: object) -> None:
    roundtrip(LLAMA, field, value)


def test_undecided_without_a_model() -> None:
    assert isinstance(dialect("nemo_automodel").lower(recipe_of(LLAMA), None), Undecided)
