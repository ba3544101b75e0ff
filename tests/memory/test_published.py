"""Against measurements on GPUs that others published."""

from __future__ import annotations

import json

import pytest

from lora_lint.memory import Profile, estimate_memory, framework_profile
from lora_lint.memory.estimate import CONTEXT_HIGH, CONTEXT_LOW
from tests.memory.models import tree
from tools import published_rows

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


# Lightning-AI/litgpt at 26857050, one GPU, bitsandbytes before 0.43.2, GB of 1e9 bytes allocated:
# tutorials/resource-tables.md (r 8, the longest sample has 1304 tokens and comes first) and
# config_hub/finetune/{llama-2-7b/qlora,phi-3/qlora}.yaml (samples cut at 512), by releases without
# StableEmbedding.
QV = ["q_proj", "v_proj"]
QLORA = {
    "resource tables, nf4": ("llama-2-7b", QV, 8, 1, 1304, False, 14.14),
    "resource tables, nf4-dq": ("llama-2-7b", QV, 8, 1, 1304, True, 13.84),
    "config_hub, Llama-2-7B": ("llama-2-7b", QV, 32, 2, 512, False, 13.68),
    "config_hub, Phi-3-mini": (
        "phi-3-mini",
        ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"],
        8,
        4,
        512,
        False,
        19.13,
    ),
}


def in_4_bit(row, **changes):
    name, targets, r, batch, length, double, _ = QLORA[row]
    profile = framework_profile("litgpt", quantized=True, given={"autocast": False})
    first = row.startswith("resource tables")
    then = {"keeps_inputs": True, "stable_embedding": False, "graph_kept": not first}
    return estimate_memory(
        tree(name),
        {"r": r, "target_modules": targets, "lora_dropout": 0.05, "task_type": "CAUSAL_LM"},
        dtype="bfloat16",
        quantization="nf4",
        double_quant=double,
        max_length=length,
        per_device_train_batch_size=batch,
        gradient_checkpointing=False,
        gradient_accumulation_steps=1 if first else 2,
        optim="adamw_torch",
        packing=False,
        profile=profile._replace(**{**then, **changes}),
    )


@pytest.mark.parametrize("row", QLORA)
def test_old_bitsandbytes_in_litgpt_lies_in_the_band(row):
    estimate, measured = in_4_bit(row), QLORA[row][-1] * 1e9
    assert estimate.low - CONTEXT_LOW <= measured <= estimate.high - CONTEXT_HIGH
    assert estimate.tensors == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("row", ["config_hub, Llama-2-7B", "config_hub, Phi-3-mini"])
@pytest.mark.parametrize("switch", ["keeps_inputs", "graph_kept"])
def test_without_the_inputs_of_two_steps_the_band_is_too_low(row, switch):
    estimate, measured = in_4_bit(row, **{switch: False}), QLORA[row][-1] * 1e9
    assert estimate.high - CONTEXT_HIGH < measured


def test_rows_are_settings_or_say_why_not(tmp_path):
    said = {
        "source": "litgpt_config_hub",
        "repo": "a/b",
        "path": "falcon-7b/qlora.yaml",
        "model": "falcon-7b",
        "method": "QLORA",
        "r": 32,
        "target_modules": ["query", "value"],
        "lora_dropout": 0.05,
        "quant": "bnb.nf4",
        "max_seq_len": 512,
        "micro_batch": 1,
        "grad_ckpt": False,
        "gpu": "1xA10G",
        "peak_bytes": 9.44e9,
        "oom": False,
        "quality": "B: config public",
    }
    others = [
        said | {"gpu": "4xA10G"},
        said | {"method": "FULL"},
        said | {"source": "torchtune"},
        said | {"quality": "C: a user's report"},
        said | {"oom": True, "peak_bytes": None},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, [said, *others])))
    first, again, full, torchtune, graded, oom = published_rows.read_rows(file)
    assert first.setting.model == "tiiuae/falcon-7b"
    assert first.setting.lora["target_modules"] == ["q_proj", "v_proj"]
    assert first.setting.settings["quantization"] == "nf4"
    assert first.setting.profile.keeps_inputs
    assert first.setting.measured == 9_440_000_000
    assert "repeats" in again.setting
    assert "no LoRA" in full.setting
    assert "own model" in torchtune.setting
    assert graded.setting == "grade C"
    assert oom.setting.measured is None
