"""What frameworks switch on, as their sources say, and what LitGPT published of its own step."""

from __future__ import annotations

import pytest

from lora_lint.memory import Profile, estimate_memory, framework_profile
from lora_lint.recipe import UNKNOWN
from tests.memory.models import tree


@pytest.mark.parametrize(
    ("dialect", "given", "autocast"),
    [
        ("trl", {}, True),
        ("trl", {"fp16": True}, True),
        ("trl", {"bf16": False}, False),
        ("trl", {"bf16": UNKNOWN}, None),
        ("llama_factory", {}, False),
        ("llama_factory", {"bf16": True}, True),
        ("llama_factory", {"fp16": True}, True),
        ("axolotl", {}, True),
        ("axolotl", {"bf16": "auto"}, True),
        ("axolotl", {"bf16": "full"}, False),
        ("axolotl", {"bf16": False}, False),
        ("axolotl", {"bf16": False, "fp16": True}, True),
        ("ms_swift", {}, True),
        ("ms_swift", {"bf16": False, "fp16": False}, False),
        ("oumi", {}, False),
        ("oumi", {"bf16": True}, True),
        ("unsloth", {"bf16": False, "fp16": False}, True),
        ("peft_python", {}, None),
        ("peft_python", {"autocast": False}, False),
        ("litgpt", {"autocast": True}, True),
    ],
)
def test_autocast_goes_by_what_is_written_and_by_the_framework(dialect, given, autocast):
    assert framework_profile(dialect, quantized=False, given=given).autocast is autocast


@pytest.mark.parametrize(
    ("dialect", "given", "fused"),
    [
        ("llama_factory", {}, False),
        ("llama_factory", {"fused_loss": True}, True),
        ("llama_factory", {"fused_loss": UNKNOWN}, None),
        ("trl", {}, None),  # fused in new releases, not in old ones
        ("trl", {"fused_loss": False}, None),
        ("trl", {"fused_loss": True}, True),
        ("unsloth", {}, True),
    ],
)
def test_the_loss_is_fused_where_a_file_or_the_framework_says_so(dialect, given, fused):
    assert framework_profile(dialect, quantized=False, given=given).fused_loss is fused


def test_adapters_of_a_quantized_model_are_16_bit_in_trl_alone():
    for dialect, size in (("trl", 2), ("llama_factory", 4), ("axolotl", 4), ("unsloth", 4)):
        assert framework_profile(dialect, quantized=True).adapter_bytes == size
    assert framework_profile("trl", quantized=False).adapter_bytes == 4


def test_a_python_file_with_training_arguments_is_transformers_trainer():
    loop = framework_profile("peft_python", quantized=False)
    trainer = framework_profile("peft_python", quantized=False, given={"autocast": True})
    assert loop.outputs_kept is None
    assert trainer == Profile(autocast=True, outputs_kept=False)


# LitGPT: config_hub/finetune/README.md and tutorials/resource-tables.md at commit 26857050, one
# GPU, bf16-true, torch.cuda.max_memory_allocated / 1e9. The rows of 1304 tokens are of the first
# step, which has the longest sample.
QV = ["q_proj", "v_proj"]
LITGPT = {
    "Llama-2-7B, r 32, batch 2 of 512": ("llama-2-7b", QV, 32, 2, 512, 19.77),
    "Llama-2-7B, r 8, 1304 tokens": ("llama-2-7b", QV, 8, 1, 1304, 21.30),
    "Llama-2-7B, r 8, batch 2 of 1304": ("llama-2-7b", QV, 8, 2, 1304, 29.07),
    "Phi-3-mini, r 8, batch 4 of 512": (
        "phi-3-mini",
        ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"],
        8,
        4,
        512,
        19.75,
    ),
}


@pytest.mark.parametrize("row", LITGPT)
def test_litgpts_own_measurements_lie_in_the_band(row):
    name, targets, r, batch, length, measured = LITGPT[row]
    first = length == 1304
    profile = framework_profile("litgpt", quantized=False, given={"autocast": False})
    result = estimate_memory(
        tree(name),
        {"r": r, "target_modules": targets, "lora_dropout": 0.05, "task_type": "CAUSAL_LM"},
        dtype="bfloat16",
        quantization="none",
        max_length=length,
        per_device_train_batch_size=batch,
        gradient_checkpointing=False,
        gradient_accumulation_steps=1 if first else 2,
        optim="adamw_torch",
        packing=False,
        profile=profile._replace(graph_kept=not first),
    )
    overhead = result.bytes["overhead"]
    assert result.tensors == pytest.approx(measured * 1e9, rel=0.01)
    assert result.low - overhead <= measured * 1e9 <= result.high - overhead


@pytest.mark.parametrize(
    ("dialect", "given", "transformers", "reentrant"),
    [
        ("peft", {}, None, False),
        ("peft", {}, "5.0.0", False),
        ("peft", {}, "4.57.6", True),
        ("peft_python", {}, "4.57.6", None),
        ("trl", {}, "5.23.0", False),
        ("axolotl", {}, "5.23.0", True),
        ("axolotl", {"objective": "dpo"}, "5.23.0", False),
        ("llama_factory", {}, "5.23.0", True),
        ("ms_swift", {}, "5.23.0", None),
        ("llama_factory", {"gradient_checkpointing_kwargs": {"use_reentrant": False}}, None, False),
        ("peft", {"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "5.0.0", True),
        ("peft", {"gradient_checkpointing_kwargs": {"use_reentrant": UNKNOWN}}, "5.0.0", None),
        ("peft", {"gradient_checkpointing_kwargs": UNKNOWN}, "5.0.0", None),
    ],
)
def test_whether_checkpoints_are_reentrant(
    dialect: str, given: dict[str, object], transformers: str | None, *, reentrant: bool | None
) -> None:
    profile = framework_profile(dialect, quantized=False, given=given, transformers=transformers)
    assert profile.reentrant is reentrant


def test_a_way_of_checkpointing_that_is_not_known_is_in_the_band() -> None:
    """Without logits the recompute of a layer is the peak, and the two ways keep other things."""
    settings = {"dtype": "bfloat16", "max_length": 4096, "per_device_train_batch_size": 4}
    settings |= {"gradient_checkpointing": True, "gradient_accumulation_steps": 1}
    lora = {"r": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    one, other, both = (
        estimate_memory(
            tree("llama-2-7b"),
            lora,
            profile=Profile(
                autocast=False, fused_loss=True, outputs_kept=False, padded=False, reentrant=way
            ),
            **settings,
        )
        for way in (False, True, None)
    )
    bounds = [(found.low or 0, found.high or 0) for found in (one, other)]
    assert bounds[0] != bounds[1]
    assert both.low == min(low for low, _ in bounds)
    assert both.high == max(high for _, high in bounds)
    assert "reentrant" in both.assumed
