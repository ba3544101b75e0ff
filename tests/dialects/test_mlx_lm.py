"""mlx-lm's files are read as mlx-lm reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import Options, lint_text, resolve_model
from lora_lint.diagnostics import Set
from lora_lint.dialects import LoraKwargs, Undecided, recipes
from lora_lint.dialects.mlx_lm import DIALECT
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.documents.document import NotEditable
from lora_lint.fixes import apply_edits
from tests.dialects.rewriting import recipe_of, roundtrip

FILE = """\
model: mlx-community/Llama-3.2-1B-Instruct-bf16
train: true
fine_tune_type: lora
optimizer: adamw
data: data
num_layers: 8
batch_size: 2
iters: 600
learning_rate: 1e-5
grad_accumulation_steps: 4
max_seq_length: 1024
grad_checkpoint: true
trust_remote_code: false
lora_parameters:
  keys: ["self_attn.q_proj", "self_attn.v_proj"]  # attention
  rank: 16
  scale: 2.0
  dropout: 0.1
"""


def read(**changes: str) -> Any:
    text = FILE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return recipe_of(text, "a.yaml")


def lowered(recipe: Any, model: str = "meta-llama/Llama-3.2-1B") -> LoraKwargs | Undecided:
    return DIALECT.lower(recipe, resolve_model(model))


def findings(text: str) -> dict[str, str]:
    return {d.code: d.severity for d in lint_text(text, "a.yaml").diagnostics}


def test_what_it_says() -> None:
    recipe = read()
    assert recipe.dialect == "mlx_lm"
    wanted = {
        "base_model": "mlx-community/Llama-3.2-1B-Instruct-bf16",
        "r": 16,
        "lora_alpha": 32,  # scale * rank
        "lora_dropout": 0.1,
        "target_modules": ["self_attn.q_proj", "self_attn.v_proj"],
        "max_length": 1024,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": True,
        "learning_rate": 1e-5,
        "optim": "adamw",
        "use_dora": False,
    }
    assert {name: recipe.value(name) for name in wanted} == wanted


def test_defaults() -> None:
    recipe = recipe_of("model: a/b\nfine_tune_type: dora\niters: 5\nval_batches: 2\n", "a.yaml")
    fields = ("r", "lora_alpha", "lora_dropout", "max_length", "per_device_train_batch_size")
    assert [recipe.value(name) for name in fields] == [8, 160, 0.0, 2048, 4]
    assert recipe.value("use_dora") is True
    empty = recipe_of("model: a/b\nlora_parameters:\nfine_tune_type: lora\niters: 5\nseed: 0\n"
                      "num_layers: 4\nbatch_size:\n", "a.yaml")  # fmt: skip
    assert [empty.value(name) for name in fields] == [8, 160, 0.0, 2048, 4]


def test_lora_parameters_inherit_nothing() -> None:
    recipe = read(**{"  dropout: 0.1\n": "", "  rank: 16\n": ""})
    assert recipe["r"].origin == recipe["lora_dropout"].origin == "unset"
    found = lowered(recipe)
    assert isinstance(found, Undecided)
    assert "lora_parameters has no `rank`" in found.reason


def test_the_last_layers_alone() -> None:
    found = lowered(read())
    assert isinstance(found, LoraKwargs)
    assert found.values["layers_to_transform"] == list(range(8, 16))
    assert found.values["target_modules"] == ["self_attn.q_proj", "self_attn.v_proj"]
    for number in ("16", "-1", "0"):
        every = lowered(read(**{"num_layers: 8": f"num_layers: {number}"}))
        assert isinstance(every, LoraKwargs)
        assert "layers_to_transform" not in every.values
    too_many = lowered(read(**{"num_layers: 8": "num_layers: 17"}))
    assert isinstance(too_many, Undecided)
    assert "the model has 16" in too_many.reason


def test_without_keys_every_linear_part() -> None:
    found = lowered(read(**{'["self_attn.q_proj", "self_attn.v_proj"]': "null"}))
    assert isinstance(found, LoraKwargs)
    names = {name.rpartition(".")[2] for name in found.values["target_modules"]}
    assert names == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_keys_are_paths_inside_a_layer() -> None:
    found = lowered(read(**{"self_attn.": ""}))
    assert isinstance(found, Undecided)
    assert "paths" in found.reason


def test_the_older_name_of_num_layers_is_not_relied_on() -> None:
    found = lowered(read(num_layers="lora_layers"))
    assert isinstance(found, Undecided)


def test_models_that_differ_from_hugging_faces_are_undecided() -> None:
    every = read(**{'["self_attn.q_proj", "self_attn.v_proj"]': "null"})
    assert isinstance(lowered(every, "mistralai/Mixtral-8x7B-v0.1"), Undecided)


def test_a_full_fine_tune() -> None:
    recipe = read(**{"fine_tune_type: lora": "fine_tune_type: full"})
    assert (recipe.adapter, recipe.switch) == (False, "fine_tune_type")
    assert "TR615" in findings(FILE.replace("type: lora", "type: full"))


def test_unknown_types_of_tuning() -> None:
    assert findings(FILE.replace("type: lora", "type: qlora"))["CF011"] == "error"


def test_alpha_in_the_place_of_scale() -> None:
    text = FILE.replace("scale: 2.0", "alpha: 32")
    options = Options(select=("CF008",), unsafe_fixes=True)
    report = lint_text(text, "a.yaml", options)
    (found,) = report.diagnostics
    (fix,) = found.fixes
    assert apply_edits(text, fix.edits) == FILE


def test_alpha_beside_scale_is_left_from_older_releases() -> None:
    assert "CF008" not in findings(FILE.replace("scale: 2.0", "scale: 2.0\n  alpha: 32"))


def test_unknown_keys_are_ignored_by_it() -> None:
    assert findings(FILE + "max_seq_lenght: 512\n") == {"TM122": "info"}  # the right one is there
    text = FILE.replace("max_seq_length", "max_seq_lenght")
    assert findings(text)["CF007"] == "warning"
    assert "CF007" not in findings(FILE + "my_note: here\nhf_dataset: {path: a, name: b}\n")


def test_its_own_default_scale_is_no_slip() -> None:
    found = findings(FILE.replace("scale: 2.0", "scale: 20.0"))
    assert "SC207" not in found
    assert found["SC208"] == "info"
    assert findings(FILE.replace("scale: 2.0", "scale: 32.0"))["SC207"] == "warning"


def test_a_learning_rate_without_a_dot_is_a_number() -> None:
    assert "CF003" not in findings(FILE)


def test_a_finished_adapter() -> None:
    text = '{"model": "a/b", "num_layers": 4, "fine_tune_type": "lora", "lora_parameters": '
    text += '{"rank": 8, "scale": 20.0, "dropout": 0.0}}'
    recipe = recipe_of(text, "adapters/adapter_config.json")
    assert (recipe.dialect, recipe.trains, recipe.value("lora_alpha")) == ("mlx_lm", False, 160)


@pytest.mark.parametrize("program", ["mlx_lm.lora", "python -m mlx_lm.lora", "mlx_lm lora"])
def test_commands(program: str) -> None:
    text = f"{program} --model a/b --train --num-layers 4 --batch-size 1 --fine-tune-type dora\n"
    recipe = recipe_of(text, "a.sh")
    fields = ("base_model", "per_device_train_batch_size", "r", "lora_alpha", "use_dora")
    assert [recipe.value(name) for name in fields] == ["a/b", 1, 8, 160, True]
    assert recipe.private["layers"] == 4
    written, _ = roundtrip(text, "a.sh", "per_device_train_batch_size", 8)
    assert written == text.replace("--batch-size 1", "--batch-size 8")
    file = recipe_of(f"{program} -c a.yaml --iters 5\n", "a.sh")
    assert {file[name].origin for name in ("r", "lora_alpha", "base_model")} == {"unknown"}


SHARES = st.floats(0, 1).map(lambda x: round(x, 3))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "base_model": st.from_regex(r"[a-z]{1,8}/[A-Z][a-z0-9.-]{0,8}[a-z]", fullmatch=True),
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 4096),
    "lora_dropout": SHARES,
    "target_modules": st.lists(
        st.sampled_from(["self_attn.k_proj", "mlp.up_proj", "self_attn.q_proj"]),
        min_size=1,
        unique=True,
    ),
    "max_length": st.integers(1, 10**6),
    "per_device_train_batch_size": st.integers(1, 64),
    "gradient_accumulation_steps": st.integers(1, 64),
    "gradient_checkpointing": st.booleans(),
    "optim": st.sampled_from(["adam", "sgd"]),
    "learning_rate": st.floats(1e-7, 1e-1),
    "trust_remote_code": st.booleans(),
}


def test_every_slot_is_tried() -> None:
    assert {*VALUES} == {*DIALECT.slots}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda n: st.tuples(st.just(n), VALUES[n])))
def test_every_slot_reads_what_was_written(pair: tuple[str, Any]) -> None:
    # another rank with the same scale is another alpha
    roundtrip(FILE, "a.yaml", *pair, follow=("lora_alpha",) if pair[0] == "r" else ())


def test_a_scale_that_is_written_is_alpha_by_rank() -> None:
    written, _ = roundtrip(FILE, "a.yaml", "lora_alpha", 64)
    assert written == FILE.replace("scale: 2.0", "scale: 4.0")
    document = parse("a.yaml", FILE.replace("rank: 16", "rank: some"))
    (recipe,) = recipes(document)
    with pytest.raises(NotEditable):
        plan(document, DIALECT, recipe, Set("lora_alpha", 8))
