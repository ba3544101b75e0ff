"""torchtune's files are read as torchtune reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import lint_text, resolve_model
from lora_lint.diagnostics import Set
from lora_lint.dialects import LoraKwargs, Undecided, recipes
from lora_lint.dialects.plan import plan
from lora_lint.dialects.torchtune import DIALECT
from lora_lint.documents import parse
from lora_lint.documents.document import NotEditable
from tests.dialects.rewriting import recipe_of, roundtrip

FILE = """\
tokenizer:
  _component_: torchtune.models.llama3.llama3_tokenizer
  path: /models/tokenizer.model
  max_seq_len: 2048
model:
  _component_: torchtune.models.llama3_2.lora_llama3_2_1b
  lora_attn_modules: ['q_proj', 'output_proj']  # attention
  apply_lora_to_mlp: True
  lora_rank: 16
  lora_alpha: 32
  lora_dropout: 0.05
  use_dora: False
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: /models/mine/
dataset:
  _component_: torchtune.datasets.alpaca_dataset
  packed: True
batch_size: 2
gradient_accumulation_steps: 8
clip_grad_norm: 1.0
enable_activation_checkpointing: True
optimizer:
  _component_: torch.optim.AdamW
  fused: True
  weight_decay: 0.01
  lr: 3e-4
dtype: bf16
"""


def read(text: str = FILE, **changes: str) -> Any:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return recipe_of(text, "a.yaml")


def codes(text: str) -> list[str]:
    return [d.code for d in lint_text(text, "a.yaml").diagnostics if d.severity != "info"]


def test_what_it_says() -> None:
    recipe = read()
    assert recipe.dialect == "torchtune"
    wanted = {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "output_proj"],
        "base_model": "meta-llama/Llama-3.2-1B",
        "dtype": "bfloat16",
        "quantization": "none",
        "max_length": 2048,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "gradient_checkpointing": True,
        "optim": "adamw_torch_fused",
        "learning_rate": 3e-4,
        "packing": True,
    }
    assert {name: recipe.value(name) for name in wanted} == wanted


def test_the_builders_own_defaults() -> None:
    recipe = read("model:\n  _component_: torchtune.models.mistral.lora_mistral_7b\n")
    fields = ("r", "lora_alpha", "lora_dropout", "use_dora")
    assert [recipe[name].value for name in fields] == [8, 16, 0.0, False]
    assert {recipe[name].origin for name in fields} == {"default"}
    # a component builder has no default rank
    general = read("model:\n  _component_: torchtune.models.llama3.lora_llama3\n")
    assert general["r"].origin == "unset"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("_component_: torchtune.models.llama3.qlora_llama3_8b", "nf4"),
        ("_component_: torchtune.models.llama3.lora_llama3_8b", "none"),
        ("{_component_: torchtune.models.llama3.lora_llama3_8b, quantize_base: true}", "nf4"),
        ("{_component_: torchtune.models.llama3.qlora_llama3_8b, quantize_base: false}", "none"),
    ],
)
def test_quantization_is_the_builders(model: str, kind: str) -> None:
    model = model if model.startswith("{") else f"{{{model}}}"
    recipe = recipe_of(f"model: {model}\n", "a.yaml")
    assert recipe.value("quantization") == kind
    assert recipe.value("double_quant") is (True if kind == "nf4" else None)


def test_a_builder_that_is_no_known_model_leaves_the_checkpoint() -> None:
    text = FILE.replace("torchtune.models.llama3_2.lora_llama3_2_1b", "mine.lora_special")
    recipe = recipe_of(text, "a.yaml")
    assert recipe.value("base_model") == "/models/mine/"
    assert not recipe.stray  # whose arguments are not known either


def test_what_it_lowers_to() -> None:
    tree = resolve_model("meta-llama/Llama-3.2-1B")
    lowered = DIALECT.lower(read(), tree)
    assert isinstance(lowered, LoraKwargs)
    assert lowered.values["target_modules"] == [
        "q_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    assert (lowered.values["r"], lowered.values["lora_alpha"]) == (16, 32)


def test_a_tied_output_takes_no_adapter() -> None:
    tied = read(apply_lora_to_mlp="apply_lora_to_output")
    assert isinstance(DIALECT.lower(tied, resolve_model("meta-llama/Llama-3.2-1B")), Undecided)
    untied = DIALECT.lower(tied, resolve_model("meta-llama/Llama-3.1-8B"))
    assert isinstance(untied, LoraKwargs)
    assert "lm_head" in untied.values["target_modules"]


def test_layers_that_hugging_face_has_in_one_are_undecided() -> None:
    recipe = read("model:\n  _component_: torchtune.models.phi3.lora_phi3_mini\n"
                  "  lora_attn_modules: [q_proj]\n")  # fmt: skip
    tree = resolve_model("microsoft/Phi-3-mini-4k-instruct")
    assert isinstance(DIALECT.lower(recipe, tree), Undecided)


def test_arguments_that_a_builder_does_not_take() -> None:
    # Gemma's builders have no apply_lora_to_output (TypeError)
    text = "model:\n  _component_: torchtune.models.gemma.lora_gemma_2b\n"
    text += "  lora_attn_modules: [q_proj]\n  apply_lora_to_output: False\n"
    assert codes(text) == ["CF007"]
    assert codes(text.replace("gemma", "llama3").replace("_2b", "_8b")) == []
    assert codes(FILE.replace("lora_rank", "lora_rnk")) == ["CF007"]
    assert codes(FILE.replace("lora_rank", "rank")) == ["CF008"]


def test_keys_that_recipes_may_read_are_no_mistake() -> None:
    assert codes(FILE + "my_own_key: 3\nbatch_sizes: 4\n") == []


def test_templates() -> None:
    recipe = read(**{"lora_rank: 16": "lora_rank: ${rank}", "dtype: bf16": "dtype: bf16\nrank: 64"})
    assert (recipe.value("r"), recipe["r"].origin) == (64, "computed")
    other = read(**{"dtype: bf16": "dtype: ${precision.kind}\nprecision: {kind: fp16}"})
    assert other.value("dtype") == "float16"
    unknown = read(**{"lora_rank: 16": "lora_rank: ${oc.env:RANK}"})
    assert unknown["r"].origin == "unknown"
    assert codes(FILE.replace("lora_rank: 16", "lora_rank: ${oc.env:RANK}")) == []


def test_a_learning_rate_without_a_dot_is_a_number() -> None:
    assert "CF003" not in codes(FILE)


def test_numbers_and_empty_values_as_its_parser_has_them() -> None:
    recipe = read(**{"lora_alpha: 32": "lora_alpha: 1e1", "dtype: bf16": "dtype:"})
    assert (recipe.value("lora_alpha"), recipe.value("dtype")) == (10.0, "float32")


def test_several_data_sets() -> None:
    text = FILE.replace(
        "dataset:\n  _component_: torchtune.datasets.alpaca_dataset\n  packed: True\n",
        "dataset:\n  - {_component_: a.b, packed: True}\n  - {_component_: a.c}\n",
    )
    assert recipe_of(text, "a.yaml")["packing"].origin == "unknown"


def test_full_fine_tuning_is_no_recipe() -> None:
    text = FILE.replace("lora_llama3_2_1b", "llama3_2_1b")
    assert recipes(parse("a.yaml", text)) == []


def test_a_command() -> None:
    text = (
        "tune run --nproc_per_node 2 lora_finetune_distributed --config llama3_1/8B_lora \\\n"
        "  model.lora_rank=64 model.lora_attn_modules=[q_proj,v_proj] optimizer.lr=1e-4\n"
    )
    recipe = recipe_of(text, "a.sh")
    assert recipe.value("r") == 64
    assert recipe.value("target_modules") == ["q_proj", "v_proj"]
    assert recipe.value("learning_rate") == 1e-4
    assert recipe["lora_alpha"].origin == "unknown"  # it stands in the named file
    written, _ = roundtrip(text, "a.sh", "r", 32)
    assert written == text.replace("lora_rank=64", "lora_rank=32")
    assert recipes(parse("a.sh", "tune run full_finetune_single_device --config a.yaml\n")) == []


NAMES = st.lists(
    st.sampled_from(["q_proj", "k_proj", "v_proj", "output_proj"]), min_size=1, unique=True
)
SHARES = st.floats(0, 1).map(lambda x: round(x, 3))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 512),
    "lora_dropout": SHARES,
    "target_modules": NAMES,
    "use_dora": st.booleans(),
    "dtype": st.sampled_from(["bfloat16", "float16", "float32"]),
    "max_length": st.integers(1, 10**6),
    "per_device_train_batch_size": st.integers(1, 64),
    "gradient_accumulation_steps": st.integers(1, 64),
    "gradient_checkpointing": st.booleans(),
    "learning_rate": st.floats(1e-7, 1e-1),
    "weight_decay": SHARES,
    "max_grad_norm": SHARES,
    "packing": st.booleans(),
}


def test_every_slot_is_tried() -> None:
    assert {*VALUES, "optim"} == {*DIALECT.slots}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda n: st.tuples(st.just(n), VALUES[n])))
def test_every_slot_reads_what_was_written(pair: tuple[str, Any]) -> None:
    roundtrip(FILE, "a.yaml", *pair)


def test_absent_arguments_are_added() -> None:
    text = "model:\n  _component_: torchtune.models.llama3.lora_llama3_8b\n"
    written, _ = roundtrip(text, "a.yaml", "lora_alpha", 32)
    assert written == text + "  lora_alpha: 32\n"


def test_optimizers_are_classes() -> None:
    document = parse("a.yaml", FILE)
    (recipe,) = recipes(document)
    with pytest.raises(NotEditable):
        plan(document, DIALECT, recipe, Set("optim", "paged_adamw_8bit"))
