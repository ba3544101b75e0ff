"""check(config, model): real objects of peft and transformers, as in a notebook."""

from __future__ import annotations

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from lora_lint import check
from lora_lint.api import LoraLintError


def model() -> GPT2LMHeadModel:
    with torch.device("meta"):
        return GPT2LMHeadModel(GPT2Config(n_layer=2))


def test_a_good_config_is_said_to_be_good() -> None:
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn", "c_proj", "c_fc"])
    report = check(config, model())
    assert "8 modules adapted" in repr(report)
    report.raise_for_errors()


def test_what_peft_would_raise_is_raised() -> None:
    report = check(LoraConfig(target_modules=["q_proj"]), model())
    with pytest.raises(LoraLintError, match=r"none of \[q_proj\] exist in GPT2LMHeadModel"):
        report.raise_for_errors()


def test_no_option_of_the_command_line_is_spoken_of() -> None:
    said = repr(check(LoraConfig(target_modules=["q_proj"]), model()))
    assert "c_attn" in said
    assert "--" not in said


def test_a_notebook_shows_colours_and_no_markup_of_a_name() -> None:
    config = LoraConfig(target_modules=["<script>"])
    shown = check(config, model())._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.count("<span ") == shown.count("</span>") > 0


def test_the_config_of_a_peft_model_will_do() -> None:
    base = model()
    adapted = get_peft_model(model(), LoraConfig(r=8, target_modules=["c_attn"]))
    for config in (adapted, adapted.peft_config, adapted.peft_config["default"]):
        assert "2 modules adapted" in repr(check(config, base))
    with pytest.raises(ValueError, match="already carries adapters"):
        check(adapted, adapted)


def test_one_adapter_of_several_must_be_named() -> None:
    adapted = get_peft_model(model(), LoraConfig(target_modules=["c_attn"]))
    adapted.add_adapter("other", LoraConfig(target_modules=["c_fc"]))
    with pytest.raises(ValueError, match="'default', 'other'"):
        check(adapted, model())


@pytest.mark.parametrize("config", [None, {"r": 8}, IA3Config(target_modules=["c_attn"])])
def test_another_config_is_refused_in_plain_words(config: object) -> None:
    with pytest.raises(TypeError, match=r"a peft\.LoraConfig is expected"):
        check(config, model())


def test_swapped_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match=r"a peft\.LoraConfig is expected, not GPT2LMHeadModel"):
        check(model(), LoraConfig())


def test_the_version_to_decide_for_is_named() -> None:
    config = LoraConfig(target_modules=["c_attn"], target_parameters=["a.b"])
    assert "0.15.0 (the argument peft)" in repr(check(config, model(), peft="0.15.0"))
