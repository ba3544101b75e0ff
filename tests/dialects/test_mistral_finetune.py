"""mistral-finetune's files are read as it reads them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lora_lint import Options, lint_text, resolve_model
from lora_lint.dialects import LoraKwargs, Undecided
from lora_lint.dialects.mistral_finetune import DIALECT
from lora_lint.fixes import apply_edits
from tests.dialects.rewriting import recipe_of, roundtrip

FILE = """\
data:
  instruct_data: a.jsonl
model_id_or_path: mistralai/Mistral-7B-v0.3
lora:
  enable: true
  rank: 64  # high
  dropout: 0.0
  scaling: 2.0
seq_len: 8192
batch_size: 1
num_microbatches: 2
max_norm: 1.0
checkpoint: true
optim:
  lr: 6.e-5
  weight_decay: 0.1
run_dir: out
"""


def codes(text: str) -> dict[str, str]:
    found = lint_text(text, "a.yaml").diagnostics
    return {d.code: d.severity for d in found if d.severity != "info"}


def test_what_it_says() -> None:
    recipe = recipe_of(FILE, "a.yaml")
    assert recipe.dialect == "mistral_finetune"
    wanted = {
        "base_model": "mistralai/Mistral-7B-v0.3",
        "r": 64,
        "lora_alpha": 128,  # scaling * rank
        "lora_dropout": 0.0,
        "target_modules": ["wq", "wk", "wv", "wo", "w1", "w2", "w3"],
        "max_length": 8192,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "dtype": "bfloat16",
        "quantization": "none",
        "learning_rate": 6e-5,
    }
    assert {name: recipe.value(name) for name in wanted} == wanted


def test_defaults() -> None:
    recipe = recipe_of("model_id_or_path: ''\nseq_len: 1024\nrun_dir: a\n", "a.yaml")
    fields = ("r", "lora_alpha", "lora_dropout", "base_model", "gradient_checkpointing")
    assert [recipe.value(name) for name in fields] == [16, 32, 0.0, None, True]


def test_what_it_lowers_to() -> None:
    recipe = recipe_of(FILE, "a.yaml")
    found = DIALECT.lower(recipe, resolve_model("mistralai/Mistral-7B-v0.3"))
    assert isinstance(found, LoraKwargs)
    assert sorted(found.values["target_modules"]) == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    mixture = DIALECT.lower(recipe, resolve_model("mistralai/Mixtral-8x7B-v0.1"))
    assert isinstance(mixture, Undecided)


def test_unknown_keys() -> None:
    assert codes(FILE) == {}
    assert codes(FILE.replace("seq_len", "seq_len: 1\nseqlen")) == {"CF007": "error"}
    assert codes(FILE.replace("  dropout", "  droput")) == {"CF007": "warning"}


def test_alpha_in_the_place_of_scaling() -> None:
    text = FILE.replace("scaling: 2.0", "lora_alpha: 128")
    (found,) = lint_text(text, "a.yaml", Options(select=("CF008",))).diagnostics
    assert apply_edits(text, found.fixes[0].edits) == FILE


def test_lora_off() -> None:
    assert recipe_of(FILE.replace("enable: true", "enable: false"), "a.yaml").adapter is False


SHARES = st.floats(0, 1).map(lambda x: round(x, 3))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "base_model": st.from_regex(r"[a-z]{1,8}/[A-Z][a-z0-9.-]{0,8}[a-z]", fullmatch=True),
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 4096),
    "lora_dropout": SHARES,
    "max_length": st.integers(1, 10**6),
    "per_device_train_batch_size": st.integers(1, 64),
    "gradient_accumulation_steps": st.integers(1, 64),
    "gradient_checkpointing": st.booleans(),
    "learning_rate": st.floats(1e-7, 1e-1),
    "weight_decay": SHARES,
    "max_grad_norm": SHARES,
}


def test_every_slot_is_tried() -> None:
    assert {*VALUES} == {*DIALECT.slots}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda n: st.tuples(st.just(n), VALUES[n])))
def test_every_slot_reads_what_was_written(pair: tuple[str, Any]) -> None:
    roundtrip(FILE, "a.yaml", *pair, follow=("lora_alpha",) if pair[0] == "r" else ())
