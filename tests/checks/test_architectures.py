"""Findings about experts, encoders and moved names: for which release, how severe."""

from __future__ import annotations

import pytest

from lora_lint import Options, lint_text

TEXT = "lora:\n  base_model_name_or_path: %s\n  r: 16\n  lora_alpha: 32\n  target_modules: %s\n"
NEW = {"peft_version": "0.21.2", "transformers_version": "5.23.0"}
OLD = {"peft_version": "0.18.1", "transformers_version": "4.57.6"}
VIT = "google/vit-base-patch16-224"
MIXTRAL = "mistralai/Mixtral-8x7B-v0.1"


def found(model: str, targets: str, code: str, **versions: str) -> list[tuple[str, str]]:
    """Severity and message of a rule's findings."""
    report = lint_text(TEXT % (model, targets), "train.yaml", Options(isolated=True, **versions))
    return [(d.severity, d.message) for d in report.diagnostics if d.code == code]


@pytest.mark.parametrize(
    ("versions", "severities"), [(NEW, ["error", "error"]), (OLD, []), ({}, ["warning", "warning"])]
)
def test_an_old_name_is_judged_by_the_release(
    versions: dict[str, str], severities: list[str]
) -> None:
    """ViT's query and value have these names in transformers 4.57.6 and not in 5.23."""
    assert [s for s, _ in found(VIT, "[query, value]", "TM128", **versions)] == severities


@pytest.mark.parametrize(("versions", "severities"), [(NEW, []), (OLD, ["error"]), ({}, ["info"])])
def test_a_new_name_is_no_more_than_an_info_where_nothing_says_which_release(
    versions: dict[str, str], severities: list[str]
) -> None:
    assert [s for s, _ in found(VIT, "[q_proj]", "TM128", **versions)] == severities


def test_the_new_name_is_offered() -> None:
    options = Options(isolated=True, **NEW)
    report = lint_text(TEXT % (VIT, "[query, value]"), "train.yaml", options)
    titles = [f.title for d in report.diagnostics if d.code == "TM128" for f in d.fixes]
    assert titles == ["replace `query` by `q_proj`", "replace `value` by `v_proj`"]


def test_names_that_never_reached_experts_are_advice() -> None:
    """gpt-oss has stacked experts in every release, Qwen1.5-MoE since transformers 5."""
    assert [s for s, _ in found("openai/gpt-oss-20b", "all-linear", "TM126", **NEW)] == ["info"]
    moe = "Qwen/Qwen1.5-MoE-A2.7B"
    assert [s for s, _ in found(moe, "all-linear", "TM126", **NEW)] == ["warning"]


def test_a_dead_name_beside_experts_is_still_reported() -> None:
    targets = "[q_proj, gate_up_proj, no_such_layer]"
    assert len(found("openai/gpt-oss-20b", targets, "TM111", **NEW)) == 1
    assert len(found("openai/gpt-oss-20b", targets, "TM102", **NEW)) == 1


def test_before_peft_rewrote_names_the_experts_of_mixtral_are_not_reached() -> None:
    """peft 0.18.1 has no conversion (utils/transformers_weight_conversion.py is 0.19's)."""
    versions = {"peft_version": "0.18.1", "transformers_version": "5.0.0"}
    reached = found(MIXTRAL, "[q_proj, w1, w2, w3]", "TM111", **versions)
    assert [severity for severity, _ in reached] == ["error"] * 3
    assert not found(MIXTRAL, "[q_proj, w1, w2, w3]", "TM111", **NEW)


def test_the_default_of_mixtral_is_lost_from_peft_0_19_on() -> None:
    text = f"lora:\n  base_model_name_or_path: {MIXTRAL}\n  r: 16\n  lora_alpha: 32\n"
    for release, lost in (("0.18.1", False), ("0.19.0", True), ("0.21.2", True)):
        options = Options(isolated=True, peft_version=release, transformers_version="5.0.0")
        codes = {d.code for d in lint_text(text, "train.yaml", options).diagnostics}
        assert ("TM130" in codes) is lost


def test_names_of_another_family_do_not_mean_the_encoder() -> None:
    """GLM's language model has a gate_up_proj, its encoder a gate_proj and an up_proj."""
    targets = "[gate_proj, up_proj, down_proj, q_proj]"
    assert found("zai-org/GLM-4.6V-Flash", targets, "TM109", **NEW)
    assert not found("google/gemma-3-4b-it", "[q_proj, v_proj, fc1]", "TM109", **NEW)


def test_experts_of_a_layer_are_named_once() -> None:
    """Gemma 4 has its experts right under the layer, not in its mlp."""
    options = Options(isolated=True, **NEW)
    text = TEXT % ("google/gemma-4-26B-A4B-it", "all-linear")
    fixes = [f for d in lint_text(text, "train.yaml", options).diagnostics for f in d.fixes]
    titles = [fix.title for fix in fixes if "target_parameters" in fix.title]
    assert titles == ["target_parameters: [experts.gate_up_proj, experts.down_proj]"]
