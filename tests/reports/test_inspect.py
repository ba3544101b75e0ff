"""What a person and a program read of inspect and models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_lint.cli import main


def run(*arguments: str, columns: int = 100) -> Result:
    environment = {"COLUMNS": str(columns)}
    return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.split()[:1] == [name])


def test_a_model_at_a_glance() -> None:
    """The figures of gpt2: 12 layers of width 768, 124,439,808 parameters (its model card)."""
    said = run("inspect", "gpt2").stdout
    assert "124,439,808 parameters" in said
    assert f"{12 * 16 * (768 + 2304):,}" in row(said, "c_attn")
    assert "Conv1D 768→2304" in row(said, "c_attn")
    assert "● ●" in row(said, "c_attn")
    assert "· ●" in row(said, "c_fc")
    assert "· ·" in row(said, "lm_head")
    assert "[c_attn]  12 modules, 589,824 trainable" in said
    assert 'target_modules: ["c_attn", "c_proj", "c_fc"]' in said
    assert "all-linear leaves out lm_head (the output head)" in said
    assert "tied, one tensor: transformer.wte.weight, lm_head.weight" in said


def test_a_bar_is_as_long_as_its_figure() -> None:
    said = run("inspect", "gpt2").stdout
    bars = {name: row(said, name).count("█") for name in ("wte", "c_attn", "c_fc")}
    assert bars["wte"] == max(bars.values())
    assert bars["c_attn"] / bars["wte"] == pytest.approx(589_824 / 816_400, abs=0.05)


def test_the_rank_changes_the_figures_in_proportion() -> None:
    said = run("inspect", "gpt2", "--r", "32").stdout
    assert "trainable at r=32" in said
    assert f"{12 * 32 * (768 + 2304):,}" in row(said, "c_attn")


@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-V3", "google-t5/t5-small", "gpt2"])
def test_the_table_fits_a_narrow_terminal(model: str) -> None:
    lines = run("inspect", model, columns=80).stdout.splitlines()
    copied = ("  target_modules:", "  target_parameters:")
    assert all(len(line) <= 80 for line in lines if not line.startswith(copied))


def test_no_figure_where_sizes_are_not_known() -> None:
    """opt-6.7b has 32 layers, the default config of its class 12."""
    said = run("inspect", "facebook/opt-6.7b").stdout
    assert "layer counts and sizes unknown" in said
    table = said.partition("D L")[2].partition("transformers")[0]
    assert not re.search(r"(?<![a-z])\d", table)
    assert 'target_modules: ["k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"]' in said
    answer = json.loads(run("inspect", "facebook/opt-6.7b", "--output-format", "json").stdout)
    assert answer["model"]["parameters"] is None
    assert {group["count"] for group in answer["groups"]} == {None}
    assert {group["trainable"] for group in answer["groups"]} == {None}
    assert answer["all_linear"]["modules"] is None


def test_experts_are_spelled() -> None:
    said = run("inspect", "mistralai/Mixtral-8x7B-v0.1").stdout
    assert 'target_parameters: ["experts.gate_up_proj", "experts.down_proj"]' in said
    assert "Parameter 8×28672×4096" in row(said, "gate_up_proj")


def test_a_task_and_a_class_choose_what_is_built() -> None:
    assert "GPT2ForSequenceClassification" in run("inspect", "gpt2", "--task", "seq_cls").stdout
    assert "GPT2Model" in run("inspect", "gpt2", "--cls", "GPT2Model").stdout.splitlines()[0]
    wrong = run("inspect", "gpt2", "--task", "CAUSAL")
    assert wrong.exit_code == 2
    assert "CAUSAL_LM" in wrong.stderr


def test_a_saved_tree_is_inspected(tmp_path: Path) -> None:
    from lora_lint import resolve_model

    tree = resolve_model("gpt2")
    assert tree is not None
    path = tmp_path / "tree.json"
    path.write_text(tree.to_json())
    said = run("inspect", str(path)).stdout
    assert "as given" in said
    assert "124,439,808 parameters" in said


def test_an_unknown_model_ends_with_the_reason() -> None:
    result = run("inspect", "meta-lama/Llama-3.1-8B")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Did you mean meta-llama/Llama-3.1-8B" in result.stderr


def test_names_of_another_release_are_not_shown_as_its_own() -> None:
    """transformers 5 renamed ViT's query, key and value."""
    vit = "google/vit-base-patch16-224"
    result = run("inspect", vit, "--transformers-version", "4.57.6")
    assert not re.search(r"^ +q_proj", result.stdout, re.MULTILINE)
    now = run("inspect", vit).stdout
    assert re.search(r"from 4.57.6 to 5: gone: .*\bquery\b.*; new: .*\bq_proj\b", now)


def test_json_holds_what_the_text_says() -> None:
    answer = json.loads(run("inspect", "gpt2", "--output-format", "json").stdout)
    assert answer["version"] == 1
    assert answer["model"]["class"] == "GPT2LMHeadModel"
    group = next(group for group in answer["groups"] if group["name"] == "c_attn")
    assert group == {
        "part": "transformer.h.*.attn",
        "name": "c_attn",
        "kind": "Conv1D",
        "count": 12,
        "shapes": [[768, 2304]],
        "trainable": 589_824,
        "refused": None,
        "reached": True,
        "default": "all",
        "all_linear": "all",
        "target_parameters": None,
    }
    assert answer["default"]["target_modules"] == ["c_attn"]
    assert answer["all_linear"]["modules"] == 48


def test_known_models_are_listed() -> None:
    said = run("models", "gpt2").stdout
    line = next(line for line in said.splitlines() if line.startswith("openai-community/gpt2 "))
    assert line.split()[1:] == ["124,439,808", "exact", "GPT2LMHeadModel"]
    answer = json.loads(run("models", "gpt2", "--output-format", "json").stdout)
    assert len(answer["models"]) == len(said.splitlines()) - 1


def test_no_models_for_a_word_of_none() -> None:
    assert run("models", "no-such").stdout == "0 models, 0 with sizes (exact or dims)\n"
