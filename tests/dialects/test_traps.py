"""What lint tools fall for in LoRA configs, and lora-lint must not."""

from __future__ import annotations

import pytest

from lora_lint.api import Options, lint_text

ISOLATED = Options(isolated=True)
PEFT = "base_model_name_or_path: {model}\nr: 16\nlora_alpha: 32\ntarget_modules: {targets}\n"


def errors(text: str, path: str = "train.yaml") -> list[str]:
    found = lint_text(text, path, ISOLATED).diagnostics
    return [f"{d.code} {d.message}" for d in found if d.severity == "error"]


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        # Names say nothing of the architecture: a fused layout under a known family's name, code
        # that comes with the weights, models of sight and sound.
        ("unsloth/Phi-4-mini-instruct", "[q_proj, k_proj, v_proj, o_proj]"),
        ("THUDM/glm-4-9b-chat", "[query_key_value]"),
        ("LiquidAI/LFM2-VL-1.6B", "[q_proj, k_proj, v_proj, out_proj, in_proj]"),
        ("mistralai/Voxtral-Mini-3B-2507", "[q_proj, v_proj]"),
        ("acme/llama-but-not-really", "[Wqkv]"),
    ],
)
def test_a_model_is_not_guessed_by_its_name(model: str, targets: str) -> None:
    assert errors(PEFT.format(model=model, targets=targets)) == []


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        # transformers 5 renamed these; 4 has them (docs/peft-releases.md, models of both lines).
        ("google/vit-base-patch16-224", "[query, value]"),
        ("mistralai/Mixtral-8x7B-v0.1", "[q_proj, v_proj, w1, w2, w3]"),
    ],
)
def test_names_of_another_transformers_are_no_error(model: str, targets: str) -> None:
    assert errors(PEFT.format(model=model, targets=targets)) == []


def test_experts_that_peft_turns_into_parameters_are_there() -> None:
    """PEFT 0.21 makes gate_proj, up_proj and down_proj target_parameters on fused experts."""
    text = PEFT.format(
        model="Qwen/Qwen3-30B-A3B", targets="[q_proj, v_proj, gate_proj, up_proj, down_proj]"
    )
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        # Ranks and rates that a template fills in.
        (
            "base_model: ${BASE_MODEL}\nadapter: ${ADAPTER}\nlora_r: ${LORA_R}\nlora_alpha: 32\n"
            "lora_target_linear: true\nmicro_batch_size: ${BATCH}\n"
        ),
        (
            "model_name_or_path: ${oc.env:MODEL}\nstage: sft\ndo_train: true\n"
            "finetuning_type: lora\n"
            "lora_rank: ${oc.env:RANK}\nlora_alpha: ${mul:${lora_rank},2}\ndataset: a\n"
        ),
        "model_name_or_path: <model>\nuse_peft: true\nlora_r: <rank>\nlora_alpha: <alpha>\n",
        "lora:\n  r: ${rank}\n  lora_alpha: ${alpha}\n  target_modules: ${targets}\n",
    ],
)
def test_a_template_is_not_judged(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize("rate", ["1e-4", "2e-4", "5e5", "1e+4"])
def test_a_rate_without_a_dot_where_the_loader_makes_a_number_of_it(rate: str) -> None:
    axolotl = (
        "base_model: NousResearch/Llama-3.2-1B\nadapter: lora\nlora_r: 16\nlora_alpha: 32\n"
        f"lora_target_linear: true\nlearning_rate: {rate}\ndatasets: []\n"
    )
    factory = (
        "model_name_or_path: meta-llama/Llama-3.1-8B\nstage: sft\ndo_train: true\n"
        f"finetuning_type: lora\nlearning_rate: {rate}\ndataset: a\ntemplate: llama3\n"
    )
    for text in (axolotl, factory):
        found = lint_text(text, "train.yaml", ISOLATED).diagnostics
        assert [d.code for d in found if d.code == "CF003"] == []


def test_axolotl_takes_fsdp_settings_with_a_prefix() -> None:
    text = (
        "base_model: NousResearch/Llama-3.2-1B\nadapter: lora\nlora_r: 16\nlora_alpha: 32\n"
        "lora_target_linear: true\nlearning_rate: 0.0002\ndatasets: []\nfsdp_config:\n"
        "  fsdp_offload_params: true\n  fsdp_state_dict_type: FULL_STATE_DICT\n"
    )
    found = lint_text(text, "train.yaml", ISOLATED).diagnostics
    assert [d.code for d in found if d.code.startswith("CF")] == []
