"""The text report: what people read, and what it must not claim."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from lora_lint import lint_text
from lora_lint.cli import main

TEMPLATE = "lora: {base_model_name_or_path: facebook/opt-6.7b, r: 8, lora_alpha: 16,\n  "
TEMPLATE += "target_modules: [q_proj, v_proj]}\n"


def codes(text: str, name: str = "a.yaml") -> dict[str, str]:
    return {d.code: d.severity for d in lint_text(text, name).diagnostics}


def test_the_layers_of_a_template_are_not_counted(tmp_path: Path) -> None:
    """opt-6.7b has 32 layers, the default config of its class 12."""
    said = repr(lint_text(TEMPLATE, "a.yaml"))
    assert "adapts q_proj, v_proj (how many is not known)" in said
    assert "24 modules" not in said
    path = tmp_path / "a.yaml"
    path.write_text(TEMPLATE)
    arguments = ["show", "--isolated", str(path)]
    shown = CliRunner().invoke(main, arguments, catch_exceptions=False).stdout
    assert "12" not in shown.partition("adapts")[2]
    answer = CliRunner().invoke(main, [*arguments, "--output-format", "json"]).stdout
    injection = json.loads(answer)["recipes"][0]["injection"]
    assert injection["modules"] == []
    assert injection["undecided"] == "the model's sizes are not known"


def test_a_head_among_the_targets_is_not_only_attention() -> None:
    text = "lora: {base_model_name_or_path: meta-llama/Llama-2-7b-hf, r: 8, lora_alpha: 16, "
    text += "task_type: CAUSAL_LM, target_modules: [q_proj, v_proj%s]}\n"
    assert "TM122" in codes(text % "")
    assert "TM122" not in codes(text % ", lm_head")


def test_eva_has_an_alpha_of_its_own() -> None:
    text = "lora: {r: 16, lora_alpha: 1, target_modules: [q_proj]%s}\n"
    assert codes(text % "")["SC207"] == "warning"
    assert codes(text % ", init_lora_weights: eva")["SC207"] == "info"


def test_a_section_with_its_own_schema_is_not_judged_on_the_model() -> None:
    text = "model: gpt2\npeft_config: {%s r: 8, lora_alpha: 16, target_modules: all}\n"
    assert codes(text % "")["TM103"] == "error"
    assert codes(text % "name: lora,") == {}


def test_no_colour_without_a_terminal() -> None:
    result = CliRunner().invoke(main, ["lint", "--isolated", "-"], input=TEMPLATE)
    assert "\x1b[" not in result.stdout


def test_lora_that_no_key_turns_on_is_off_without_a_name() -> None:
    """unsloth's full_finetuning makes get_peft_model do nothing; there is no key to name."""
    code = (
        "from unsloth import FastModel\n"
        "m, t = FastModel.from_pretrained('unsloth/Llama-3.2-1B', full_finetuning=True)\n"
        "m = FastModel.get_peft_model(m, r=16)\n"
    )
    said = repr(lint_text(code, "train.py"))
    assert "LoRA is off" in said
    assert "off (None)" not in said
