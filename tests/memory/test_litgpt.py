"""LitGPT's own layers, head and loss, against traces of LitGPT's own model class.

Bytes that PyTorch would have allocated at the peak of the second step, by ``tools/litgpt_step.py``
with litgpt 0.5.13, lightning 2.6.6 and torch 2.13; gradients of the first are alive.
"""

from __future__ import annotations

import pytest

from lora_lint.memory import estimate_memory, framework_profile
from lora_lint.memory.estimate import CONTEXT_HIGH
from tests.memory.models import tree

QV = ("q_proj", "v_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
ALL = (*MLP, "lm_head")
# Model, rank, modules, dropout, batch, length, traced.
TRACED = {
    "all parts, no dropout": ("llama-2-7b", 16, ALL, 0.0, 1, 2048, 27_250_942_464),
    "grouped queries": ("llama-3.1-8b", 32, ALL, 0.05, 2, 1024, 35_421_413_888),
    "sliding windows": ("gemma-3-1b", 16, MLP, 0.05, 1, 2048, 14_001_114_112),
    "less than a chunk": ("qwen3-8b", 8, ATTENTION, 0.05, 2, 100, 18_255_659_008),
}
MIXED = {"dtype": "float32", "autocast": True}
NF4 = {"quantization": "nf4", "optim": "paged_adamw_32bit"}
OTHERS = {
    "mixed precision": (
        ("gemma-2b", 8, QV, 0.05, 2, 300, 22_520_796_160),
        MIXED,
    ),
    "nf4": (("llama-3.1-8b", 16, MLP, 0.0, 1, 2048, 24_885_789_696), NF4),
    "nf4-dq": (
        ("qwen3-8b", 8, QV, 0.05, 2, 640, 19_774_745_088),
        {**NF4, "double_quant": True},
    ),
}


def estimate(name, r, modules, dropout, batch, length, *, autocast=False, changes=None, **settings):
    quantized = "quantization" in settings
    profile = framework_profile("litgpt", quantized=quantized, given={"autocast": autocast})
    return estimate_memory(
        tree(name),
        {"r": r, "target_modules": list(modules), "lora_dropout": dropout},
        **{
            "dtype": "bfloat16",
            "quantization": "none",
            "double_quant": False,
            "max_length": length,
            "per_device_train_batch_size": batch,
            "gradient_checkpointing": False,
            "gradient_accumulation_steps": 2,
            "optim": "adamw_torch",
            "packing": False,
            **settings,
        },
        profile=profile._replace(**(changes or {})),
    )


@pytest.mark.parametrize("row", TRACED)
def test_16_bit_steps_are_within_a_thousandth_of_litgpts_class(row):
    *setting, traced = TRACED[row]
    assert estimate(*setting).tensors == pytest.approx(traced, rel=1e-3)


@pytest.mark.parametrize("row", OTHERS)
def test_mixed_and_4_bit_steps_are_within_a_hundredth_of_litgpts_class(row):
    (*setting, traced), settings = OTHERS[row]
    assert estimate(*setting, **settings).tensors == pytest.approx(traced, rel=0.01)


def test_mixed_precision_copies_the_frozen_head_for_each_chunk_of_128_tokens():
    """A 16-bit copy of 256000 x 2048 values; the rest of what 128 tokens need is less by far."""
    chunk = 2 * 256000 * 2048
    sizes = [
        estimate("gemma-2b", 8, QV, 0.0, 1, length, **MIXED).tensors for length in (128, 129, 256)
    ]
    assert sizes[1] - sizes[0] > chunk
    assert sizes[2] - sizes[1] < chunk


def test_stable_embedding_costs_the_old_embeddings_and_the_gradient_of_the_new():
    setting = ("llama-2-7b", 8, QV, 0.0, 1, 512)
    with_it = estimate(*setting, **NF4)
    without = estimate(*setting, **NF4, changes={"stable_embedding": False})
    embeddings = 2 * 32000 * 4096
    assert with_it.bytes["weights"] - without.bytes["weights"] == embeddings
    assert with_it.bytes["gradients"] - without.bytes["gradients"] == embeddings
    assert estimate(*setting).bytes["weights"] == 2 * (6_738_415_616)


def test_checkpointing_of_several_gpus_keeps_less():
    setting = ("llama-2-7b", 8, QV, 0.0, 2, 1024)
    assert estimate(*setting, gradient_checkpointing=True).tensors < estimate(*setting).tensors


def test_the_band_is_5_percent_and_15_for_layers_that_are_not_described():
    for name, width in (("llama-2-7b", 0.05), ("mixtral", 0.15)):
        found = estimate(name, 8, QV, 0.05, 1, 512)
        assert found.high == pytest.approx(found.tensors * (1 + width) + CONTEXT_HIGH, rel=1e-6)


def test_8_bit_training_has_no_figure():
    found = estimate("llama-2-7b", 8, QV, 0.05, 1, 512, quantization="int8")
    assert found.peak is None
    assert "8-bit" in found.reason
