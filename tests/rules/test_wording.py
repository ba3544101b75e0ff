"""Messages say no more than holds: what a rule knows decides its words."""

from __future__ import annotations

import pytest

from lora_lint import Options, lint_text

REMOTE = "base_model: %s\nadapter: lora\nlora_r: 8\nlora_alpha: 16\n"
REMOTE += "lora_target_linear: true\ntrust_remote_code: true\n"


@pytest.mark.parametrize(
    ("model", "applicability", "said"),
    [
        ("meta-llama/Llama-3.1-8B", "safe", "llama is built into transformers;"),
        ("Qwen/Qwen3-4B", "unsafe", "qwen3 is built into transformers 5.23.0;"),
    ],
)
def test_se701_is_safe_only_where_every_release_has_the_model(
    model: str, applicability: str, said: str
) -> None:
    """transformers 4.46.3 has llama and no qwen3 (its CONFIG_MAPPING)."""
    diagnostics = lint_text(REMOTE % model, "a.yaml").diagnostics
    (found,) = [d for d in diagnostics if d.code == "SE701"]
    assert found.message.startswith(said)
    assert [fix.applicability for fix in found.fixes] == [applicability]


def test_se701_is_silent_where_the_users_transformers_lacks_the_model() -> None:
    options = Options(transformers_version="4.46.3")
    report = lint_text(REMOTE % "Qwen/Qwen3-4B", "a.yaml", options)
    assert not [d for d in report.diagnostics if d.code == "SE701"]


@pytest.mark.parametrize(("bias", "nothing"), [("none", True), ("all", False)])
def test_tr611_counts_nothing_only_where_nothing_is_trained(bias: str, nothing: bool) -> None:
    text = (
        f"lora: {{r: 8, lora_alpha: 16, inference_mode: true, bias: {bias}, target_modules: [q]}}\n"
    )
    (found,) = [d for d in lint_text(text, "a.yaml").diagnostics if d.code == "TR611"]
    assert ("0 trainable" in found.message) is nothing
