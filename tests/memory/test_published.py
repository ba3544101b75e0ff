"""Against measurements on GPUs that others published."""

from __future__ import annotations

import pytest

from lora_lint.memory import Profile, estimate_memory
from lora_lint.memory.estimate import CONTEXT_HIGH, CONTEXT_LOW
from tests.memory.models import tree

# huggingface/peft, method_comparison/MetaMathQA/results/lora--llama-3.2-3B-rank32*.json: L40S,
# bf16, batch 4, length 768, max_memory_reserved, at commits 5d602fdb, 5261e958, f4763a0e.
LORA = {"r": 32, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
ROWS = {
    "rank32, torch 2.13, transformers 5.13": (LORA, 22_292_725_760),
    "rank32, torch 2.9, transformers 4.57": (LORA, 22_286_434_304),
    "rank32, torch 2.7, transformers 4.52": (LORA, 22_273_851_392),
    "MiCA, torch 2.13, transformers 5.13": (
        {**LORA, "init_lora_weights": "mica"},
        22_244_491_264,
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_band_holds_pefts_own_measurements(row):
    lora, measured = ROWS[row]
    estimate = estimate_memory(
        tree("llama-3.2-3b"),
        lora,
        dtype="bfloat16",
        max_length=768,
        per_device_train_batch_size=4,
    )
    assert estimate.low - CONTEXT_LOW <= measured <= estimate.high - CONTEXT_HIGH


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("padded", [False, True])
def test_with_the_benchmarks_own_loop_the_error_is_below_3_percent(row, padded):
    lora, measured = ROWS[row]
    estimate = estimate_memory(
        tree("llama-3.2-3b"),
        lora,
        dtype="bfloat16",
        max_length=768,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        profile=Profile(autocast=False, outputs_kept=True, padded=padded),
    )
    assert estimate.tensors == pytest.approx(measured, rel=0.03)
