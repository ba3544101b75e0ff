"""What a run could change to need less memory."""

from __future__ import annotations

import pytest

from lora_lint import Options, lint_text
from lora_lint.checks.levers import levers, plan

BIG = """\
base_model: meta-llama/Llama-2-7b-hf
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_modules: [q_proj, v_proj]
bf16: true
sequence_len: 4096
micro_batch_size: 8
gradient_accumulation_steps: 2
"""


def subject(text=BIG, gpu="rtx4090"):
    (found,) = lint_text(text, "train.yaml", Options(gpu=gpu, isolated=True)).recipes
    return found


def test_each_lever_is_solved_with_the_runs_own_estimate():
    run = subject()
    for lever in levers(run):
        changed = run.estimate(**lever.changes)
        assert lever.saved == run.estimate().peak - changed.peak > 0


def test_the_rank_comes_last_with_its_honest_megabytes():
    last = levers(subject())[-1]
    assert last.changes == {"r": 8}
    # 64 MiB of fp32 adapters, gradients and Adam's states (4,194,304 parameters x 16 bytes); what
    # is alive at the peak of it, and the adapters' own activations, in a run of 8 x 4096 tokens.
    assert last.saved < 0.01 * subject().memory.peak


def test_the_plan_fits_and_holds_no_step_too_many():
    run = subject()
    steps = plan(run)
    assert run.memory.verdict == "oom"
    assert steps[-1].memory.verdict == "fits"
    every = [step.changes for step in steps]
    for left_out in every:
        changes = {k: v for other in every if other is not left_out for k, v in other.items()}
        assert run.estimate(**changes).verdict != "fits"


def test_smaller_batches_keep_the_effective_batch():
    (batch,) = [lever for lever in levers(subject()) if "batch 1" in lever.title]
    assert batch.changes == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}


def test_a_run_that_fits_needs_no_plan():
    run = subject(BIG.replace("4096", "256").replace("size: 8", "size: 1"), "h100")
    assert run.memory.verdict == "fits"
    assert plan(run) == ()


def test_weights_of_another_method_are_not_to_be_loaded_in_4_bit():
    def titles(model):
        run = subject(BIG.replace("meta-llama/Llama-2-7b-hf", model), "h100")
        return [lever.title for lever in levers(run)]

    assert any("4-bit" in title for title in titles("meta-llama/Llama-2-7b-hf"))
    assert not any("4-bit" in title for title in titles("openai/gpt-oss-20b"))

    quantizers = pytest.importorskip("transformers.quantizers.auto")
    four_bit = pytest.importorskip("transformers").BitsAndBytesConfig(load_in_4bit=True)
    with pytest.raises(ValueError, match="pass the same quantization config class"):
        quantizers.AutoHfQuantizer.merge_quantization_configs({"quant_method": "mxfp4"}, four_bit)


def test_what_a_framework_has_no_switch_for_is_not_offered():
    text = (
        "checkpoint_dir: checkpoints/meta-llama/Llama-2-7b-hf\nprecision: bf16-true\ndevices: 1\n"
        "lora_r: 32\nlora_alpha: 16\nlora_query: true\nlora_value: true\n"
        "train:\n  global_batch_size: 8\n  micro_batch_size: 4\n  max_seq_length: 2048\n"
    )
    titles = [lever.title for lever in levers(subject(text, "16GB"))]
    assert any("4-bit" in title for title in titles)
    assert not any("checkpointing" in title for title in titles)
