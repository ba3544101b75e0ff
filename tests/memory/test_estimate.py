from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from lora_lint.injection import inject
from lora_lint.memory import Profile, estimate_memory, max_tokens_that_fit, parse_gpu
from lora_lint.models import ModuleTree
from lora_lint.recipe import UNKNOWN
from tests.memory.models import tree

GIB = 2**30
QV = {"r": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
ALL = {"r": 16, "target_modules": "all-linear", "lora_dropout": 0.05, "task_type": "CAUSAL_LM"}
QLORA = {
    "dtype": "bfloat16",
    "quantization": "nf4",
    "double_quant": True,
    "per_device_train_batch_size": 1,
    "gradient_checkpointing": True,
}


def estimate(name="llama-2-7b", lora=QV, **settings):
    return estimate_memory(tree(name), lora, **{"dtype": "bfloat16", "max_length": 512} | settings)


# The figures people ask for ---------------------------------------------------------------------


@pytest.mark.parametrize("gpu", ["24GB", "rtx4090", "rtx3090", "a10g"])
def test_llama_2_13b_in_bf16_does_not_fit_24_gb(gpu):
    result = estimate("llama-2-13b", gpu=gpu, per_device_train_batch_size=1)
    assert result.bytes["weights"] / GIB == pytest.approx(24.24, abs=0.005)
    assert result.verdict == "oom"
    assert result.weights_exceed


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("lora", [QV, ALL])
def test_llama_2_7b_qlora_fits_an_rtx_4090(lora, length):
    result = estimate(lora=lora, max_length=length, gpu="rtx4090", **QLORA)
    assert result.verdict == "fits"
    assert result.high / GIB < 12  # the QLoRA paper trains 7B on cards of that size


def test_a_long_sequence_without_checkpointing_does_not_fit():
    result = estimate(max_length=4096, per_device_train_batch_size=4, gpu="rtx4090")
    assert result.verdict == "oom"
    assert not result.weights_exceed


# What an estimate says --------------------------------------------------------------------------


def test_parts_are_whole_bytes_and_add_up_to_the_peak_within_the_band():
    for settings in ({}, QLORA, {"gradient_accumulation_steps": 1}, {"optim": "sgd"}):
        result = estimate(**settings)
        assert list(result.bytes) == [
            "weights",
            "adapters",
            "saved_modules",
            "gradients",
            "optimizer",
            "activations",
            "logits",
            "overhead",
        ]
        assert all(isinstance(part, int) for part in result.bytes.values())
        assert sum(result.bytes.values()) == result.peak
        assert result.low < result.peak < result.high


def test_json_has_the_keys_of_the_contract():
    data = json.loads(json.dumps(estimate(gpu="a100-80gb:2").to_dict()))
    assert {"bytes", "low", "peak", "high", "site", "verdict", "assumed", "gpu"} <= data.keys()
    assert data["gpu"] == {
        "name": "NVIDIA A100 80GB",
        "nominal_bytes": 80 * GIB,
        "usable_bytes": parse_gpu("a100-80gb").usable_bytes,
        "count": 2,
    }
    assert estimate().to_dict()["gpu"] is None


def test_adapters_are_fp32_with_gradients_and_two_states():
    result = estimate()
    assert result.bytes["adapters"] == 4 * 4_194_304
    assert result.bytes["gradients"] == 4 * 4_194_304
    assert result.bytes["optimizer"] == 8 * 4_194_304


def test_the_loss_costs_fourteen_bytes_a_logit_at_its_peak():
    """bf16 logits, log_softmax, and two fp32 gradients, as long as the outputs are held."""
    assert estimate().bytes["logits"] == 14 * 32000 * 512 * 8  # transformers' batch of 8
    freed = estimate(profile=Profile(outputs_kept=False))
    assert freed.bytes["logits"] == 12 * 32000 * 512 * 8


def test_saved_modules_are_copies_in_the_models_dtype():
    lora = {**QV, "modules_to_save": ["lm_head", "embed_tokens"]}
    result = estimate(lora=lora)
    assert result.bytes["saved_modules"] == 2 * 2 * 32000 * 4096
    assert result.parameters == {"adapters": 4_194_304, "saved_modules": 2 * 32000 * 4096}


def test_gradients_are_not_alive_at_the_loss_without_accumulation():
    once = estimate(gradient_accumulation_steps=1)
    often = estimate(gradient_accumulation_steps=8)
    assert (once.site, once.bytes["gradients"]) == ("logits backward", 0)
    assert often.peak - once.peak == often.bytes["gradients"] == 4 * 4_194_304


def test_what_was_not_given_is_named():
    assumed = estimate().assumed
    assert assumed["per_device_train_batch_size"] == 8
    assert assumed["gradient_checkpointing"] is False
    assert assumed["optim"] == "adamw_torch_fused"
    given = estimate(
        per_device_train_batch_size=1,
        gradient_checkpointing=True,
        optim="adamw_torch",
        attn_implementation="sdpa",
        packing=False,
        gradient_accumulation_steps=4,
        profile=Profile(autocast=False, outputs_kept=False),
    )
    assert given.assumed == {}


# Levers go the right way ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lever",
    [
        {"gradient_checkpointing": True},
        {"per_device_train_batch_size": 4},
        {"max_length": 256},
        {"quantization": "nf4", "profile": Profile(kbit_preparation=False)},
        {"quantization": "int8", "gradient_checkpointing": True},
        {"profile": Profile(fused_loss=True)},
        {"optim": "sgd"},
    ],
)
def test_levers_lower_the_peak(lever):
    assert estimate(**lever).peak < estimate().peak


def test_4_bit_prepared_without_checkpointing_can_need_more_than_16_bit():
    """bitsandbytes#1569: 72.8 GB in bf16, 81.1 GB in 4 bit, since preparation casts the norms to
    fp32 and every activation follows.
    """
    settings = {"max_length": 4096, "per_device_train_batch_size": 1}
    prepared = Profile(kbit_preparation=True, autocast=False)
    assert (
        estimate(quantization="nf4", profile=prepared, **settings).peak > estimate(**settings).peak
    )


def test_rank_hardly_matters():
    """torchtune's README: r 8 to 64 on Llama-2-7B's q and v adds 0.29 GB, with bf16 adapters."""
    settings = {"per_device_train_batch_size": 2, "max_length": 1024}
    peak = estimate(**settings).peak
    more = estimate(lora={**QV, "r": 64}, **settings).peak - peak
    assert 0 < more < 0.03 * peak


def test_an_8_bit_optimizer_saves_three_quarters_of_the_states():
    whole, eight = (estimate(optim=name).bytes["optimizer"] for name in (None, "adamw_8bit"))
    assert eight / whole == pytest.approx(0.25, abs=0.01)


def test_paged_states_are_not_certain():
    paged, plain = estimate(optim="paged_adamw_32bit"), estimate(optim="adamw_torch_fused")
    assert paged.peak == plain.peak
    assert paged.low <= plain.low


# Not known, and said so -------------------------------------------------------------------------


def test_without_a_length_there_is_no_peak_but_what_is_certain():
    for length in (None, UNKNOWN):
        result = estimate(max_length=length, gpu="rtx4090")
        assert (result.peak, result.high, result.site) == (None, None, None)
        assert (result.verdict, result.reason) == ("unknown", "the sequence length is not known")
        assert result.bytes["weights"] == 2 * 6_738_415_616
        assert result.bytes["activations"] is None
        assert result.low > result.bytes["weights"]


def test_weights_that_exceed_the_gpu_are_oom_whatever_is_not_known():
    result = estimate("llama-2-13b", max_length=None, gpu="16GB")
    assert result.verdict == "oom"
    assert result.weights_exceed


def test_other_architectures_get_their_exact_parts_only():
    lora = {"r": 8, "target_modules": ["in_proj"], "task_type": "CAUSAL_LM"}
    result = estimate("mamba-2.8b", lora=lora, gpu="2GB")
    assert result.bytes["weights"] == pytest.approx(2 * 2_768_345_600)  # as its page counts
    assert result.bytes["adapters"] == 4 * result.parameters["adapters"]
    assert result.bytes["activations"] is None
    assert result.verdict == "oom"
    assert "not modelled" in result.reason
    assert estimate("mamba-2.8b", lora=lora, gpu="h200").verdict == "unknown"


def test_a_mixture_keeps_what_each_chosen_expert_needs():
    lora = {"r": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    result = estimate("mixtral", lora=lora, gpu="80GB")
    assert result.bytes["weights"] == pytest.approx(2 * 46_702_792_704)  # as its page counts
    assert result.verdict == "oom"
    assert result.bytes["activations"] > 0


def test_a_config_that_peft_refuses_has_no_peak():
    result = estimate(lora={**QV, "target_modules": ["nothing"]}, gpu="rtx4090")
    assert (result.verdict, result.peak) == ("unknown", None)
    assert result.reason.startswith("PEFT refuses this config")
    assert result.bytes["weights"] == 2 * 6_738_415_616
    assert result.bytes["adapters"] is None


def test_names_without_sizes_give_nothing():
    text = tree("llama-2-7b", 2).to_json()
    data = json.loads(text)
    named = ModuleTree.from_json(json.dumps({**data, "grade": "named"}))
    result = estimate_memory(named, QV, max_length=512, gpu="24GB")
    assert (result.low, result.peak, result.verdict) == (None, None, "unknown")


@pytest.mark.parametrize("kind", ["gptq", UNKNOWN])
def test_weights_of_unknown_quantization_are_not_guessed(kind):
    result = estimate(quantization=kind, gpu="24GB")
    assert (result.bytes["weights"], result.low, result.verdict) == (None, None, "unknown")


@pytest.mark.parametrize(
    "setting",
    ["dtype", "gradient_checkpointing", "packing", "attn_implementation", "optim"],
)
def test_an_unknown_setting_widens_the_band(setting):
    known = {"dtype": "bfloat16", "gradient_checkpointing": False, "packing": False}
    known |= {"attn_implementation": "sdpa", "optim": "adamw_torch_fused"}
    known |= {"per_device_train_batch_size": 1}
    narrow, wide = estimate(**known), estimate(**{**known, setting: UNKNOWN})
    assert wide.low <= narrow.low
    assert wide.high >= narrow.high
    assert wide.high - wide.low > narrow.high - narrow.low
    assert setting in wide.assumed


def test_an_unchecked_family_has_a_wider_band():
    shape = tree("llama-2-7b", 4)
    text = shape.to_json().replace('"model_type":"llama"', '"model_type":"my-own"')
    settings = {"dtype": "bfloat16", "max_length": 512, "per_device_train_batch_size": 1}
    ours = estimate_memory(shape, QV, **settings)
    custom = estimate_memory(ModuleTree.from_json(text), QV, **settings)
    assert custom.peak == ours.peak
    assert custom.high - custom.low > ours.high - ours.low


# Verdicts ---------------------------------------------------------------------------------------


def test_the_verdict_follows_from_the_band():
    result = estimate(per_device_train_batch_size=1)
    for size, verdict in (
        (result.low - 16, "oom"),
        (result.low + 16, "risk"),
        (result.high, "risk"),
        (result.high / 0.91 + 2**20, "fits"),
    ):
        gpu = f"{size / 2**20:.6f}MB"
        assert estimate(per_device_train_batch_size=1, gpu=gpu).verdict == verdict
    assert result.verdict == "unknown"


def test_several_gpus_may_share_what_one_cannot_hold():
    result = estimate("llama-2-13b", gpu="24GB:2")
    assert (result.verdict, result.weights_exceed) == ("unknown", False)
    assert result.reason == "how 2 GPUs share the model is not known"
    assert estimate(gpu="h200:8").verdict == "fits"


def test_an_unknown_gpu_is_an_error():
    with pytest.raises(ValueError, match="unknown GPU"):
        estimate(gpu="rtx9999")


@pytest.mark.parametrize("certain", [True, False])
@pytest.mark.parametrize("gpu", ["rtx4090", "16GB"])
def test_the_longest_length_that_fits_is_the_last_that_does(gpu, certain):
    longest = max_tokens_that_fit(tree("llama-2-7b"), ALL, gpu=gpu, certain=certain, **QLORA)
    fine = ("fits",) if certain else ("fits", "risk")
    assert longest > 512
    assert estimate(lora=ALL, gpu=gpu, max_length=longest, **QLORA).verdict in fine
    assert estimate(lora=ALL, gpu=gpu, max_length=longest + 1, **QLORA).verdict not in fine


def test_no_length_fits_where_the_weights_do_not():
    assert max_tokens_that_fit(tree("llama-2-13b"), QV, gpu="24GB", dtype="bfloat16") == 0
    lora = {"r": 8, "target_modules": ["in_proj"]}
    assert max_tokens_that_fit(tree("mamba-2.8b"), lora, gpu="h200", dtype="bfloat16") is None


def test_grouped_keys_need_all_scores_on_a_gpu_without_flash_attention():
    """torch has no other kernel for unrepeated keys there (sdp_utils.cpp), and the scores grow with
    the square of the length.
    """
    settings = {"dtype": "float16", "max_length": 4096, "per_device_train_batch_size": 1}
    settings |= {"gradient_checkpointing": True, "profile": Profile(fused_loss=True)}
    old = estimate("llama-3.1-8b", gpu="t4", **settings)
    new = estimate("llama-3.1-8b", gpu="l4", **settings)
    assert old.peak - new.peak > 4 * 32 * 4096**2


# Cost -------------------------------------------------------------------------------------------


def test_an_estimate_costs_about_a_millisecond():
    shape = tree("llama-2-7b")
    injection = inject(shape, ALL, peft="0.21.2")
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        estimate_memory(
            shape, ALL, dtype="bfloat16", max_length=512, injection=injection, gpu="rtx4090"
        )
        best = min(best, time.perf_counter() - start)
    assert best < 0.003  # measured: 0.5 ms


def test_torch_is_not_imported():
    code = "import sys, lora_lint.memory; sys.exit(bool({'torch', 'peft'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
