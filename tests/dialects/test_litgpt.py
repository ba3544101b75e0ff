"""LitGPT's files are read as LitGPT reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text, resolve_model
from lora_lint.diagnostics import DropItem, Set, SetItem
from lora_lint.dialects import LoraKwargs, Undecided, recipes
from lora_lint.dialects.litgpt import DIALECT
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.documents.document import NotEditable
from lora_lint.fixes import apply_edits
from tests.dialects.rewriting import recipe_of, roundtrip

FILE = """\
checkpoint_dir: checkpoints/meta-llama/Llama-3.2-1B
precision: bf16-true
quantize: bnb.nf4-dq
devices: 1
lora_r: 32  # rank
lora_alpha: 16
lora_dropout: 0.05
lora_query: true
lora_key: false
lora_value: true
lora_projection: false  # output
lora_mlp: false
lora_head: false
data:
  class_path: litgpt.data.Alpaca2k
  init_args:
    mask_prompt: false
train:
  global_batch_size: 8
  micro_batch_size: 2
  max_seq_length: 512
  max_norm: 1.0
optimizer:
  class_path: torch.optim.AdamW
  init_args:
    lr: 0.0002
    weight_decay: 0.1
"""


def read(**changes: str) -> Any:
    text = FILE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return recipe_of(text, "a.yaml")


def findings(text: str) -> dict[str, str]:
    found = lint_text(text, "a.yaml").diagnostics
    return {d.code: d.severity for d in found if d.severity != "info"}


def test_what_it_says() -> None:
    recipe = read()
    assert recipe.dialect == "litgpt"
    wanted = {
        "base_model": "meta-llama/Llama-3.2-1B",
        "r": 32,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["query", "value"],
        "max_length": 512,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": False,
        "dtype": "bfloat16",
        "quantization": "nf4",
        "double_quant": True,
        "optim": "paged_adamw_32bit",
        "learning_rate": 0.0002,
    }
    assert {name: recipe.value(name) for name in wanted} == wanted


def test_defaults() -> None:
    recipe = recipe_of("checkpoint_dir: a/b\nlora_mlp: false\nlora_r: 8\n", "a.yaml")
    fields = ("lora_alpha", "lora_dropout", "target_modules", "per_device_train_batch_size")
    assert [recipe.value(name) for name in fields] == [16, 0.05, ["query", "value"], 1]
    # mixed precision keeps the weights in float32
    assert recipe.value("dtype") == "float32"
    assert (recipe.value("quantization"), recipe.value("optim")) == ("none", "adamw_torch")
    assert recipe.value("gradient_accumulation_steps") == 16


@pytest.mark.parametrize(
    ("directory", "model"),
    [
        ("checkpoints/google/gemma-2-9b", "google/gemma-2-9b"),
        ("./checkpoints/google/gemma-2-9b/", "google/gemma-2-9b"),
        ("google/gemma-2-9b", "google/gemma-2-9b"),
        ("/data/checkpoints/google/gemma-2-9b", "/data/checkpoints/google/gemma-2-9b"),
        ("out/finetune/final", "out/finetune/final"),
    ],
)
def test_where_checkpoints_lie(directory: str, model: str) -> None:
    recipe = read(**{"checkpoints/meta-llama/Llama-3.2-1B": directory})
    assert recipe.value("base_model") == model


def test_several_devices() -> None:
    recipe = read(**{"devices: 1": "devices: 2"})
    assert recipe.value("gradient_accumulation_steps") == 2
    assert recipe.value("gradient_checkpointing") is True
    unknown = read(**{"devices: 1": "devices: auto"})
    assert unknown["gradient_accumulation_steps"].origin == "unknown"
    assert unknown["gradient_checkpointing"].origin == "unknown"


def test_what_it_lowers_to() -> None:
    text = {"lora_mlp: false": "lora_mlp: true", "lora_projection: false": "lora_projection: true"}
    found = DIALECT.lower(read(**text), resolve_model("meta-llama/Llama-3.2-1B"))
    assert isinstance(found, LoraKwargs)
    assert found.values["target_modules"] == [
        "q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    model = resolve_model("tiiuae/falcon-7b")
    assert model is not None
    fused = DIALECT.lower(read(**text), DIALECT.model(model))
    assert isinstance(fused, LoraKwargs)
    assert fused.values["target_modules"] == [
        "q_proj", "v_proj", "self_attention.dense", "dense_h_to_4h", "dense_4h_to_h",
    ]  # fmt: skip
    other = DIALECT.lower(read(), resolve_model("bigscience/bloom-560m"))
    assert isinstance(other, Undecided)  # LitGPT has no such model
    head = {"lora_query: true": "lora_query: false", "lora_value: true": "lora_value: false"}
    nothing = DIALECT.lower(read(**head), resolve_model("meta-llama/Llama-3.2-1B"))
    assert isinstance(nothing, Undecided)


def test_its_parser_refuses() -> None:
    assert findings(FILE) == {}
    assert findings(FILE.replace("lora_r:", "lora_rank:")) == {"CF008": "warning"}
    assert findings(FILE.replace("lora_dropout", "lora_dropuot")) == {"CF007": "error"}
    assert findings(FILE.replace("micro_batch_size", "micro_batchsize")) == {"CF007": "error"}
    assert findings(FILE.replace("lora_alpha: 16", "lora_alpha: 16.0")) == {"CF009": "error"}
    assert findings(FILE.replace("lora_query: true", "lora_query: 1")) == {"CF009": "error"}
    assert findings(FILE.replace("bnb.nf4-dq", "nf4")) == {"CF011": "error"}


def test_its_parser_takes() -> None:
    for old, new in (
        ("lora_alpha: 16", 'lora_alpha: "16"'),
        ("lora_query: true", 'lora_query: "yes"'),
        ("lora_dropout: 0.05", "lora_dropout: 5e-2"),
        ("lora_dropout: 0.05", "lora_dropout: 0"),
        ("lr: 0.0002", "lr: 2e-4"),
        ("max_seq_length: 512", "max_seq_length:"),
        ("quantize: bnb.nf4-dq", "quantize:"),
        ("mask_prompt: false", "anything: 3"),
    ):
        assert findings(FILE.replace(old, new)) == {}, new


def test_texts_are_read_as_their_types() -> None:
    recipe = read(**{"lora_r: 32": 'lora_r: "32"', "lora_query: true": 'lora_query: "no"'})
    assert (recipe.value("r"), recipe.value("target_modules")) == (32, ["value"])


def test_other_tuning_is_no_recipe() -> None:
    text = "checkpoint_dir: a/b\nprecision: bf16-true\ntrain:\n  epochs: 3\n"
    assert recipes(parse("a.yaml", text)) == []


def test_a_command() -> None:
    text = "litgpt finetune_lora google/gemma-2-9b --lora_r 4 --train.micro_batch_size=2 \\\n"
    text += "  --lora_mlp true --quantize bnb.nf4 --precision bf16-true\n"
    recipe = recipe_of(text, "a.sh")
    wanted = {
        "base_model": "google/gemma-2-9b",
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["query", "value", "mlp"],
        "per_device_train_batch_size": 2,
        "quantization": "nf4",
        "dtype": "bfloat16",
    }
    assert {name: recipe.value(name) for name in wanted} == wanted
    written, _ = roundtrip(text, "a.sh", "r", 16)
    assert written == text.replace("--lora_r 4", "--lora_r 16")
    file = recipe_of("litgpt finetune_lora a/b --config a.yaml --lora_r 4\n", "a.sh")
    assert file.value("r") == 4
    assert {file[n].origin for n in ("lora_alpha", "target_modules", "optim")} == {"unknown"}


SHARES = st.floats(0, 1).map(lambda x: round(x, 3))
PARTS = ("query", "key", "value", "projection", "mlp", "head")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 512),
    "lora_dropout": SHARES,
    "target_modules": st.sets(st.sampled_from(PARTS)).map(
        lambda chosen: [part for part in PARTS if part in chosen]
    ),
    "max_length": st.integers(1, 10**6),
    "per_device_train_batch_size": st.integers(1, 8),
    "learning_rate": st.floats(1e-7, 1e-1),
    "weight_decay": SHARES,
    "max_grad_norm": SHARES,
}


def test_every_slot_is_tried() -> None:
    assert {*VALUES} == {*DIALECT.slots}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda n: st.tuples(st.just(n), VALUES[n])))
def test_every_slot_reads_what_was_written(pair: tuple[str, Any]) -> None:
    # the global batch stays, so that another micro-batch means other steps
    roundtrip(FILE, "a.yaml", *pair, follow=("gradient_accumulation_steps",))


@given(VALUES["target_modules"])
def test_absent_switches_are_added(parts: list[str]) -> None:
    text = "checkpoint_dir: a/b\nlora_r: 8  # rank\nlora_alpha: 16\n"
    roundtrip(text, "a.yaml", "target_modules", parts)


def test_entries_are_switches() -> None:
    document = parse("a.yaml", FILE)
    (recipe,) = recipes(document)
    dropped = apply_edits(FILE, plan(document, DIALECT, recipe, DropItem("target_modules", 0)))
    assert dropped == FILE.replace("lora_query: true", "lora_query: false")
    edits = plan(document, DIALECT, recipe, SetItem("target_modules", 0, "mlp"))
    assert apply_edits(FILE, edits) == dropped.replace("lora_mlp: false", "lora_mlp: true")
    with pytest.raises(NotEditable):
        plan(document, DIALECT, recipe, Set("target_modules", ["gate_proj"]))
