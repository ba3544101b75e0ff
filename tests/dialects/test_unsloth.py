"""unsloth: what reaches LoraConfig from get_peft_model, and how its loaders load a model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint import inject, lint_text, resolve_model
from lora_lint.diagnostics import Set
from lora_lint.dialects import LoraKwargs, Undecided, dialect, recipes
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.recipe import UNKNOWN, Recipe

IMPORTS = (
    "from unsloth import FastLanguageModel, FastModel, FastVisionModel, FastSentenceTransformer\n"
)
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA = "unsloth/Llama-3.2-1B-Instruct"


def script(
    keywords: str = "r=16", *, cls: str = "FastLanguageModel", load: str = f'"{LLAMA}"'
) -> str:
    return (
        f"{IMPORTS}model, tokenizer = {cls}.from_pretrained({load})\n"
        f"model = {cls}.get_peft_model(model, {keywords})\n"
    )


def one(code: str) -> Recipe:
    (found,) = recipes(parse("train.py", code))
    return found


def lowered(code: str) -> LoraKwargs | Undecided:
    recipe = one(code)
    name = recipe.value("base_model")
    assert isinstance(name, str)
    return dialect("unsloth").lower(recipe, resolve_model(name))


def trainable(code: str) -> int | None:
    recipe = one(code)
    tree = resolve_model(str(recipe.value("base_model")))
    made = dialect("unsloth").lower(recipe, tree)
    assert isinstance(made, LoraKwargs)
    assert tree is not None
    return inject(tree, made.values, peft="0.21.2").trainable


def codes(code: str) -> list[str]:
    return [d.code for d in lint_text(code, "train.py").diagnostics]


@pytest.mark.parametrize(
    ("model", "cls", "rank", "count"),
    [
        ("unsloth/Llama-3.2-1B-Instruct", "FastLanguageModel", 16, 11_272_192),
        ("unsloth/Llama-3.2-3B-Instruct", "FastLanguageModel", 64, 97_255_424),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "FastLanguageModel", 16, 41_943_040),
        ("unsloth/gemma-3-1b-it", "FastLanguageModel", 16, 13_045_760),
        ("unsloth/gemma-3-1b-it", "FastModel", 16, 13_045_760),
        ("unsloth/Qwen2.5-VL-7B-Instruct", "FastVisionModel", 16, 51_521_536),
        ("unsloth/gemma-3-4b-pt", "FastVisionModel", 16, 38_497_792),
    ],
)
def test_the_count_that_unsloth_prints(model: str, cls: str, rank: int, count: int) -> None:
    """``Trainable parameters = ...`` at the start of a training run."""
    assert trainable(script(f"r={rank}", cls=cls, load=f'"{model}"')) == count


def test_defaults() -> None:
    recipe = one(script(""))
    assert {n: recipe.value(n) for n in ("r", "lora_alpha", "lora_dropout", "bias")} == {
        "r": 16,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "bias": "none",
    }
    assert recipe.value("target_modules") == SEVEN
    assert recipe["r"].origin == "default"


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        (f'"{LLAMA}"', "nf4"),
        (f'"{LLAMA}", load_in_4bit=True', "nf4"),
        (f'"{LLAMA}", load_in_4bit=False', "none"),
        (f'"{LLAMA}", load_in_8bit=True, load_in_4bit=False', "int8"),
        ('"unsloth/Meta-Llama-3.1-8B-bnb-4bit", load_in_4bit=False', "nf4"),
        ('"unsloth/gpt-oss-20b-BF16"', "none"),
    ],
)
def test_quantization(load: str, wanted: str) -> None:
    recipe = one(script(load=load))
    assert recipe.value("quantization") == wanted
    assert recipe.value("double_quant") is (True if wanted == "nf4" else None)


def test_what_is_not_static_is_unknown() -> None:
    recipe = one(script(load="name, load_in_4bit=flag, max_seq_length=length"))
    assert {recipe[n].origin for n in ("base_model", "quantization", "max_length")} == {"unknown"}
    assert one(script("r=16, **more"))["lora_alpha"].origin == "unknown"


def test_lengths_and_checkpointing() -> None:
    recipe = one(script('r=8, use_gradient_checkpointing="unsloth"'))
    assert recipe.value("max_length") == 2048
    assert recipe.value("gradient_checkpointing") is True
    off = script("use_gradient_checkpointing=False", load=f'"{LLAMA}", max_seq_length=512')
    assert one(off).value("gradient_checkpointing") is False
    assert one(off).value("max_length") == 512


@pytest.mark.parametrize(
    ("trainer", "wanted"),
    [
        ("SFTTrainer(model, max_seq_length=512, args=SFTConfig())", 512),
        ("DPOTrainer(model=model, args=DPOConfig(max_length=256), max_length=1000)", 1000),
        ("DPOTrainer(model=model, args=DPOConfig(max_length=4000))", 4000),
        ("SFTTrainer(model=model, args=SFTConfig(max_length=512))", 512),
        ("SFTTrainer(model=model, args=SFTConfig(max_length=4000))", 2000),
        ("SFTTrainer(model=model, args=SFTConfig(max_length=1024))", 2000),
        ("SFTTrainer(model=model, args=SFTConfig(max_seq_length=1024))", 1024),
        ("SFTTrainer(model=model, max_seq_length=512)\nSFTTrainer(model, max_seq_length=512)", 512),
        ("SFTTrainer(model=model, args=SFTConfig(), max_seq_length=n)", UNKNOWN),
    ],
)
def test_the_length_that_a_trainer_takes(trainer: str, wanted: Any) -> None:
    code = script(load=f'"{LLAMA}", max_seq_length=2000')
    code += f"from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer\n{trainer}\n"
    assert one(code).value("max_length") == wanted


def test_training_arguments_of_sentence_transformers() -> None:
    code = script(cls="FastSentenceTransformer", load='"unsloth/all-MiniLM-L6-v2"')
    code += (
        "from sentence_transformers import SentenceTransformerTrainer as T\n"
        "from sentence_transformers import SentenceTransformerTrainingArguments as A\n"
        "T(model=model, args=A(per_device_train_batch_size=256))\n"
    )
    assert one(code).value("per_device_train_batch_size") == 256


def test_embeddings_among_the_targets_are_saved() -> None:
    made = lowered(script('target_modules=["q_proj", "lm_head"]', load='"unsloth/mistral-7b"'))
    assert isinstance(made, LoraKwargs)
    assert made.values["target_modules"] == ["q_proj"]
    assert made.values["modules_to_save"] == ["lm_head"]


def test_a_tied_pair_stays_tied() -> None:
    made = lowered(script('modules_to_save=["embed_tokens", "lm_head"]'))
    assert isinstance(made, LoraKwargs)
    assert made.values["modules_to_save"] == ["embed_tokens"]
    assert made.values["ensure_weight_tying"] is True


def test_parts_of_a_model_that_sees() -> None:
    """Which modules the flags pick, by the names in the tree."""
    load = '"unsloth/Qwen2.5-VL-7B-Instruct"'
    tree = resolve_model("unsloth/Qwen2.5-VL-7B-Instruct")
    assert tree is not None

    def adapted(flags: str) -> set[str]:
        made = lowered(script(flags, cls="FastVisionModel", load=load))
        assert isinstance(made, LoraKwargs)
        return set(inject(tree, made.values, peft="0.21.2").modules)

    everything = adapted("r=8")
    sight = adapted("finetune_language_layers=False")
    text = adapted("finetune_vision_layers=False")
    assert all(".visual." in name for name in sight)
    assert all(".language_model." in name for name in text)
    assert sight | text == everything
    assert not sight & text
    attention = adapted("finetune_mlp_modules=False")
    assert attention
    assert all("attn" in name for name in attention)
    listed = adapted('target_modules=["q_proj"], finetune_vision_layers=False')
    assert listed == {name for name in text if name.endswith(".q_proj")}


@pytest.mark.parametrize(
    "code",
    [
        script("r=16", load='"unsloth/gpt-oss-20b"'),
        script("r=16", load='"unsloth/Qwen3-30B-A3B"'),
        script("16, SEVEN", load=f'"{LLAMA}"'),
        script(cls="FastModel", load='"unsloth/gemma-3n-E4B-it"'),
        script("finetune_last_n_layers=4", cls="FastModel"),
    ],
    ids=["experts of its own layout", "mixture", "positional", "towers", "layers"],
)
def test_undecided(code: str) -> None:
    recipe = one(code)
    tree = resolve_model(str(recipe.value("base_model")))
    if tree is not None:
        assert isinstance(dialect("unsloth").lower(recipe, tree), Undecided)


def test_phi_is_loaded_in_another_layout() -> None:
    """Its q_proj, k_proj and v_proj are one module in Microsoft's copy only."""
    code = script('target_modules=["q_proj", "v_proj"]', load='"microsoft/Phi-3.5-mini-instruct"')
    assert one(code).value("base_model") == "unsloth/Phi-3.5-mini-instruct"
    assert not {"TM101", "TM102"} & set(codes(code))


def test_misspelt_keywords() -> None:
    ignored = lint_text(script("finetune_vision_modules=True", cls="FastVisionModel"), "a.py")
    (found,) = [d for d in ignored.diagnostics if d.code == "CF007"]
    assert "finetune_vision_layers" in found.message
    assert "ignores" in (found.label or "")
    assert "CF007" in codes(script("lora_drop=0.1"))
    assert "CF007" not in codes(script("use_dora=True, random_state=1, temporary_location='x'"))


def test_full_fine_tuning_is_no_lora() -> None:
    assert one(script(load=f'"{LLAMA}", full_finetuning=True')).adapter is False
    assert one(script(load=f'"{LLAMA}", full_finetuning=False')).adapter is True


def test_load_in_4bit_is_an_argument_of_unsloths_loader() -> None:
    assert "VR309" not in codes(script(load=f'"{LLAMA}", load_in_4bit=True'))


def test_an_encoder() -> None:
    recipe = one(script("r=32", cls="FastSentenceTransformer", load='"unsloth/bge-m3"'))
    assert recipe.value("target_modules") == ["query", "key", "value", "dense"]
    assert recipe.value("task_type") == "FEATURE_EXTRACTION"
    assert recipe.value("quantization") == "none"
    assert recipe.value("gradient_checkpointing") is False


def test_other_classes_are_not_unsloths() -> None:
    for imports in ("from mine import FastLanguageModel\n", ""):
        code = script().replace(IMPORTS, imports)
        assert recipes(parse("a.py", code)) == []


def notebook(*cells: str) -> str:
    made = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": c}
        for c in cells
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_a_setting_in_another_cell_is_found_and_mended_there() -> None:
    load = (
        f'model, tokenizer = FastLanguageModel.from_pretrained("{LLAMA}",\n'
        "    trust_remote_code=True)\n"
    )
    text = notebook(
        IMPORTS, load, "model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16)\n"
    )
    (found,) = [d for d in lint_text(text, "a.ipynb").diagnostics if d.code == "SE701"]
    assert found.cell == 1
    assert text[slice(*found.span)] == "True"
    (fix,) = found.fixes
    (edit,) = fix.edits
    mended = text[: edit.start] + edit.text + text[edit.end :]
    assert "trust_remote_code=False" in "".join(
        str(cell["source"]) for cell in json.loads(mended)["cells"]
    )


def test_a_marimo_notebook_shares_names_between_cells() -> None:
    code = f'''import marimo

app = marimo.App()


@app.cell
def _():
    from unsloth import FastLanguageModel

    rank = 32
    model, tokenizer = FastLanguageModel.from_pretrained("{LLAMA}", load_in_4bit=False)
    return FastLanguageModel, model, rank


@app.cell(hide_code=True)
def _(FastLanguageModel, model, rank):
    model_1 = FastLanguageModel.get_peft_model(model, r=rank)
    return (model_1,)
'''
    recipe = one(code)
    assert recipe.value("r") == 32
    assert recipe.value("base_model") == LLAMA
    assert recipe.value("quantization") == "none"
    assert recipes(parse("a.py", code.replace("import marimo", "import other as marimo"))) == []


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "r": st.integers(1, 512),
    "lora_alpha": st.integers(1, 512),
    "lora_dropout": st.floats(0, 0.9),
    "bias": st.sampled_from(["none", "all", "lora_only"]),
    "use_rslora": st.booleans(),
    "use_dora": st.booleans(),
    "target_modules": st.lists(st.sampled_from(SEVEN), min_size=1, unique=True),
    "modules_to_save": st.lists(
        st.sampled_from(["lm_head", "embed_tokens"]), min_size=1, unique=True
    ),
    "task_type": st.sampled_from(["CAUSAL_LM", "SEQ_CLS"]),
}


@given(st.data())
def test_a_change_is_read_back(data: st.DataObject) -> None:
    """Each slot: after the edits the field has the wished value, and nothing else has changed."""
    name = data.draw(st.sampled_from(sorted(VALUES)))
    value = data.draw(VALUES[name])
    written = data.draw(st.sampled_from(["r=8", "r=8,\n    lora_alpha=16,\n", 'bias="all", r=4']))
    document = parse("train.py", script(written))
    (before,) = recipes(document)
    text = document.text
    for edit in sorted(plan(document, dialect("unsloth"), before, Set(name, value)), reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    after = one(text)
    assert after.value(name) == value
    for other in set(before.fields) | set(after.fields):
        if other != name:
            assert after.value(other) == before.value(other), other
