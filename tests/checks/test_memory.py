"""What is said of a run that does not fit its GPU."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from lora_lint.cli import main

if TYPE_CHECKING:
    from pathlib import Path

RUN = """\
model_name_or_path: {model}
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_alpha: 32
lora_target: q_proj,v_proj
dataset: a
template: llama2
cutoff_len: {length}
per_device_train_batch_size: {batch}
gradient_accumulation_steps: 1
bf16: true
{more}
"""
LLAMA = "meta-llama/Llama-2-7b-hf"


def lint(folder: Path, gpu: str | None, text: str, *options: str) -> dict[str, dict[str, Any]]:
    """The GM findings about a file, by code."""
    path = folder / "run.yaml"
    path.write_text(text)
    named = ["--gpu", gpu] if gpu else []
    arguments = ["lint", str(path), "--isolated", "--output-format", "json", *named, *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)["diagnostics"]
    return {d["code"]: d for d in found if d["code"].startswith("GM")}


def run(batch: int = 8, length: int = 2048, more: str = "", model: str = LLAMA) -> str:
    return RUN.format(model=model, batch=batch, length=length, more=more)


def test_the_plan_is_named_and_offered_as_one_fix(tmp_path: Path) -> None:
    text = run(batch=16, length=4096, more="disable_gradient_checkpointing: true")
    found = lint(tmp_path, "rtx4090", text)["GM402"]
    peak = re.fullmatch(
        r"to make it fit: .*gradient_checkpointing: true.*batch 1, 16 accumulation steps"
        r" \((\d+\.\d\d) GiB\); sequences of up to [\d,]+ tokens fit as it is",
        found["help"],
    )
    assert peak
    assert "for 16 x 4,096 tokens" in found["message"]
    assert float(peak[1]) < 23.5
    (fix,) = found["fixes"]
    assert "batch 1, 16 accumulation steps" in fix["title"]


def test_the_fix_makes_it_fit(tmp_path: Path) -> None:
    text = run(batch=32, length=2048)
    assert "GM402" in lint(tmp_path, "rtx4090", text)
    lint(tmp_path, "rtx4090", text, "--fix", "--unsafe-fixes")
    fixed = (tmp_path / "run.yaml").read_text()
    assert fixed != text
    assert not lint(tmp_path, "rtx4090", fixed)


@pytest.mark.parametrize(("stage", "speaks"), [(1, True), (3, False)])
def test_processes_that_share_it_are_judged_by_one_gpu(
    tmp_path: Path, stage: int, *, speaks: bool
) -> None:
    """Llama-2-13B's weights, 24.2 GiB, are on each of eight GPUs with stage 1, 3 GiB with 3."""
    settings = {"bf16": {"enabled": True}, "zero_optimization": {"stage": stage}}
    (tmp_path / "ds.json").write_text(json.dumps(settings))
    model = "meta-llama/Llama-2-13b-hf"
    text = run(batch=1, length=1024, more="deepspeed: ds.json", model=model)
    found = lint(tmp_path, "rtx4090:8", text)
    assert ("GM402" in found) is speaks
    if speaks:
        assert "each NVIDIA GeForce RTX 4090" in found["GM402"]["message"]


def test_settings_that_are_not_here_leave_it_open(tmp_path: Path) -> None:
    assert not lint(tmp_path, "rtx4090:8", run(batch=64, more="deepspeed: there/none.json"))


def test_half_the_rank_of_llama_2_7b_frees_about_50_megabytes(tmp_path: Path) -> None:
    """4,194,304 parameters fewer: 16 bytes each of state with gradients, of which 12 are there
    before the first gradient: 64 and 48 MiB, which are 50 MB; intermediates of r columns add some.
    """
    found = lint(tmp_path, "16GB", run(batch=1, length=4096))["GM403"]
    told = re.search(r"frees (\d+) MiB of state, (\d+) MiB at the peak", found["message"])
    assert told
    assert told[1] == "64"
    assert 48 <= int(told[2]) <= 64


LENGTHLESS = """\
model_name_or_path: meta-llama/Llama-2-7b-hf
use_peft: true
lora_r: 16
lora_alpha: 32
lora_target_modules: all-linear
dtype: bfloat16
per_device_train_batch_size: {batch}
"""


def test_a_short_length_that_fits_is_said_where_none_is_known(tmp_path: Path) -> None:
    found = lint(tmp_path, "rtx4090", LENGTHLESS.format(batch=8))["GM402"]
    assert found["severity"] == "info"
    fits = re.search(r"with 8 in a batch, (\d+) tokens fit for certain", found["message"])
    assert fits
    told = int(fits[1])
    assert 0 < told < 1024
    stated = LENGTHLESS.format(batch=8) + "max_length: "
    assert not lint(tmp_path, "rtx4090", f"{stated}{told}\n")
    assert lint(tmp_path, "rtx4090", f"{stated}{told + 8}\n")


@pytest.mark.parametrize(("line", "speaks"), [("", True), ("quantize_moe_experts: true", False)])
def test_experts_that_axolotl_quantizes_are_not_weighed(
    tmp_path: Path, line: str, *, speaks: bool
) -> None:
    """Mixtral's 47B parameters in 16 bits are 87 GiB, in 4 bits they are not."""
    text = (
        "base_model: mistralai/Mixtral-8x7B-v0.1\nadapter: qlora\nload_in_4bit: true\nbf16: true\n"
        "lora_r: 16\nlora_alpha: 32\nlora_target_modules: [q_proj, v_proj]\nsequence_len: 512\n"
    )
    assert ("GM401" in lint(tmp_path, "rtx4090", text + line)) is speaks


SCRIPT = """\
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B"){then}
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(model, lora)
"""


@pytest.mark.parametrize(
    ("version", "then", "speaks"),
    [("4.57.6", "", True), ("4.57.6", ".half()", False), ("5.23.0", "", False), (None, "", False)],
)
def test_a_script_without_dtype_is_float32_with_transformers_4_alone(
    tmp_path: Path, version: str | None, then: str, *, speaks: bool
) -> None:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT.format(then=then))
    given = ["--transformers-version", version, "--peft-version", "0.18.1"] if version else []
    arguments = ["lint", str(path), "--isolated", "--output-format", "json", *given]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    codes = {d["code"] for d in json.loads(result.stdout)["diagnostics"]}
    assert ("GM405" in codes) is speaks


HELD = """\
base_model: {model}
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
sequence_len: 1024
micro_batch_size: 1
bf16: true
{more}
"""


@pytest.mark.parametrize(
    ("model", "more", "told"),
    [
        ("meta-llama/Llama-2-13b-hf", "", True),
        ("TheBloke/Llama-2-13B-GPTQ", "", False),
        ("unsloth/llama-2-13b-bnb-4bit", "", False),
        ("unsloth/Llama-3.3-70B-Instruct-bnb-4bit", "", True),  # 70 x 10^9 half bytes are 33 GiB
        ("deepseek-ai/DeepSeek-V3", "", False),
        ("deepseek-ai/DeepSeek-V3", "load_in_4bit: true", False),  # which transformers refuses
        ("openai/gpt-oss-20b", "", True),  # is made whole: no MXFP4 is trained
    ],
)
def test_weights_are_as_large_as_they_are_published(tmp_path, model, more, told):
    found = lint(tmp_path, "24GB", HELD.format(model=model, more=more))
    assert ("GM401" in found) == told
    if model.endswith("bnb-4bit") and told:
        message = found["GM401"]["message"]
        assert "in nf4" in message
        assert found["GM401"]["severity"] == "warning"  # a name is no proof
        assert "name alone" in message
        assert 33 < float(re.search(r"need ([\d.]+) GiB", message)[1]) < 40


def _peak(folder: Path, text: str, *options: str) -> dict[str, Any]:
    path = folder / "run.yaml"
    path.write_text(text)
    command = ["memory", str(path), "--output-format", "json", *options]
    (found,) = json.loads(CliRunner().invoke(main, command).stdout)["recipes"]
    return dict(found["memory"])


def test_a_pair_of_answers_is_two_sequences(tmp_path: Path) -> None:
    pairs = _peak(tmp_path, run(batch=2, length=1024).replace("stage: sft", "stage: dpo"))
    single = _peak(tmp_path, run(batch=4, length=1024))
    assert pairs["peak"] == single["peak"]
    assert pairs["low"] < single["low"]  # whether logits are whole depends on the release
    assert pairs["assumed"]["sequences_per_sample"] == 2


def test_of_rewards_only_what_is_certain_is_told(tmp_path: Path) -> None:
    found = _peak(tmp_path, run(batch=2, length=1024).replace("stage: sft", "stage: rm"))
    assert found["peak"] is None
    assert found["bytes"]["weights"] == 2 * 6_738_415_616
    assert "rm" in found["reason"]


def test_a_second_model_is_not_left_out(tmp_path: Path) -> None:
    text = run(batch=2, length=1024, more="ref_model: meta-llama/Llama-2-13b-hf")
    (tmp_path / "run.yaml").write_text(text.replace("stage: sft", "stage: dpo"))
    command = ["memory", str(tmp_path / "run.yaml")]
    assert "reference model" in CliRunner().invoke(main, command).stdout


EVALUATES = "eval_strategy: steps\nval_size: 0.1\n"
QWEN = "Qwen/Qwen2.5-7B-Instruct"


def test_batches_of_evaluation_that_nobody_wrote_are_told_and_mended(tmp_path: Path) -> None:
    text = run(batch=1, more=EVALUATES, model=QWEN)
    found = lint(tmp_path, "rtx4090", text)["GM408"]
    assert found["severity"] == "warning"
    assert "batches of 8, the default," in found["message"]
    lint(tmp_path, "rtx4090", text, "--fix", "--unsafe-fixes")
    assert "per_device_eval_batch_size: 1\n" in (tmp_path / "run.yaml").read_text()
    assert "GM408" not in lint(tmp_path, "rtx4090", (tmp_path / "run.yaml").read_text())


def test_without_a_gpu_it_is_advice(tmp_path: Path) -> None:
    found = lint(tmp_path, None, run(batch=1, more=EVALUATES, model=QWEN))["GM408"]
    assert found["severity"] == "info"


@pytest.mark.parametrize("more", ["", "do_eval: true\n", "eval_strategy: no\n"])
def test_a_run_that_does_not_evaluate_is_not_spoken_of(tmp_path: Path, more: str) -> None:
    assert "GM408" not in lint(tmp_path, "rtx4090", run(batch=1, more=more, model=QWEN))


def test_ligers_loss_has_all_logits_in_evaluation(tmp_path: Path) -> None:
    more = EVALUATES + "enable_liger_kernel: true\n"
    assert "GM408" in lint(tmp_path, "rtx4090", run(batch=1, more=more, model=QWEN))


def test_a_run_that_does_not_fit_is_spoken_of_once(tmp_path: Path) -> None:
    text = run(batch=1, length=16384, more=EVALUATES, model=QWEN)
    found = lint(tmp_path, "16GB", text)
    assert "GM408" not in found
    assert {"GM402", "GM403"} & set(found)


def test_preferences_are_not_evaluated_by_the_loss_of_a_batch(tmp_path: Path) -> None:
    text = run(batch=1, more=EVALUATES, model=QWEN).replace("stage: sft", "stage: dpo")
    assert "GM408" not in lint(tmp_path, "rtx4090", text)


QUANTIZED = "quantization_bit: 4\ndisable_gradient_checkpointing: true\n"


def peak(folder: Path, *options: str) -> int:
    """The memory of a 4-bit run, in bytes."""
    text = run(batch=8, more=QUANTIZED)
    path = folder / "run.yaml"
    path.write_text(text)
    arguments = ["show", str(path), "--output-format", "json", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    found: int = json.loads(result.stdout)["recipes"][0]["memory"]["peak"]
    return found


@pytest.mark.parametrize(
    ("requirement", "more"),
    [
        ("bitsandbytes==0.41.1", True),
        ("bitsandbytes<0.43", True),
        ("bitsandbytes==0.43.2", False),
        ("bitsandbytes>=0.39", False),
        ("torch", False),
    ],
)
def test_an_old_bitsandbytes_keeps_the_inputs_of_4_bit_layers(
    tmp_path: Path, requirement: str, *, more: bool
) -> None:
    (tmp_path / ".git").mkdir()
    least = peak(tmp_path, "--isolated")
    (tmp_path / "requirements.txt").write_text(requirement + "\n")
    assert (peak(tmp_path) > least) is more
    assert (
        peak(tmp_path, "--peft-version", "0.18.0", "--transformers-version", "4.57.6") > least
    ) is more
    assert peak(tmp_path, "--isolated") == least


TRL = """\
model_name_or_path: meta-llama/Llama-2-7b-hf
use_peft: true
lora_r: 16
lora_alpha: 32
lora_target_modules: [q_proj, v_proj]
dtype: bfloat16
max_length: 2048
per_device_train_batch_size: 4
gradient_checkpointing: true
"""


@pytest.mark.parametrize(
    ("requirement", "more", "logits"),
    [
        ("torch", "", "open"),
        ("trl==1.6.0", "", "whole"),
        ("trl==1.7.0", "", "none"),
        ("trl>=1.7", "", "none"),
        ("trl>=0.24", "", "open"),
        ("trl==1.7.0", "loss_type: nll", "open"),
        ("trl==1.16.0", "loss_type: nll", "none"),
        ("trl<1.5", "loss_type: nll", "whole"),
        ("trl==0.24.0", "use_liger_kernel: true", "none"),
    ],
)
def test_whether_trl_holds_the_logits_goes_by_its_release(
    tmp_path: Path, requirement: str, more: str, logits: str
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "requirements.txt").write_text(requirement + "\n")
    found = _peak(tmp_path, TRL + more)
    assert found["assumed"]["objective"] == "sft"
    assert ("fused_loss" in found["assumed"]) == (logits == "open")
    # 4 x 2048 tokens x 32000 values x 12 bytes
    assert (found["bytes"]["logits"] > 3_000_000_000) == (logits != "none")


AXOLOTL = """\
{plugins}base_model: google/gemma-7b
adapter: qlora
load_in_4bit: true
lora_r: 32
lora_alpha: 64
lora_target_linear: true
sequence_len: 4096
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 3
gradient_checkpointing: true  # kept
bf16: auto
"""
LIGER = "axolotl.integrations.liger.LigerPlugin"


@pytest.mark.parametrize(
    ("plugins", "after"),
    [
        ("", f"plugins: [{LIGER}]"),
        ("plugins:\n  - a.Plugin\n", f"plugins:\n  - a.Plugin\n  - {LIGER}\n"),
        (f"plugins:\n  - {LIGER}\n", f"plugins:\n  - {LIGER}\nbase_model"),
    ],
)
def test_a_fused_loss_comes_with_its_plugin(tmp_path: Path, plugins: str, after: str) -> None:
    text = AXOLOTL.format(plugins=plugins)
    assert "GM402" in lint(tmp_path, "rtx4090", text)
    lint(tmp_path, "rtx4090", text, "--fix", "--unsafe-fixes")
    fixed = (tmp_path / "run.yaml").read_text()
    assert after in fixed
    assert "\nliger_fused_linear_cross_entropy: true\n" in fixed
    assert set(text.splitlines()) <= set(fixed.splitlines())
    assert "GM402" not in lint(tmp_path, "rtx4090", fixed)


@pytest.mark.parametrize(
    ("requirement", "said", "assumed"),
    [
        ("trl==0.21.0", None, None),
        ("trl==0.22.0", None, None),
        ("torch", None, True),
        ("trl==0.22.0", False, None),
    ],
)
def test_trl_checkpoints_since_0_22(
    tmp_path: Path, requirement: str, said: bool | None, assumed: bool | None
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "requirements.txt").write_text(requirement + "\n")
    text = TRL.replace("gradient_checkpointing: true\n", "")
    if said is not None:
        text += f"gradient_checkpointing: {str(said).lower()}\n"
    found = _peak(tmp_path, text)
    assert found["assumed"].get("gradient_checkpointing") is assumed
    # 32 layers of 8192 tokens keep 4096 values of 2 bytes each at least, or far more.
    checkpointed = found["bytes"]["activations"] < 32 * 8192 * 4096 * 2 * 3
    assert checkpointed is (requirement != "trl==0.21.0" and said is not False)
    if assumed:
        assert found["high"] > 3 * found["peak"]  # without checkpoints


def test_trls_arguments_in_python_are_read_by_release(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "requirements.txt").write_text("trl==1.16.0\n")
    (tmp_path / "run.py").write_text(
        "from peft import LoraConfig\nfrom transformers import AutoModelForCausalLM\n"
        "from trl import SFTConfig, SFTTrainer\n"
        "model = AutoModelForCausalLM.from_pretrained("
        "'meta-llama/Llama-2-7b-hf', dtype='bfloat16')\n"
        "args = SFTConfig(output_dir='x', max_length=2048, per_device_train_batch_size=4)\n"
        "lora = LoraConfig(r=16, target_modules=['q_proj', 'v_proj'], task_type='CAUSAL_LM')\n"
        "SFTTrainer(model=model, args=args, peft_config=lora).train()\n"
    )
    command = ["memory", str(tmp_path / "run.py"), "--output-format", "json"]
    (found,) = json.loads(CliRunner().invoke(main, command).stdout)["recipes"]
    assert not {"fused_loss", "gradient_checkpointing"} & set(found["memory"]["assumed"])
    assert found["memory"]["bytes"]["logits"] == 0
    assert not any("checkpointing" in lever["title"] for lever in found["levers"])


def test_a_fix_of_another_rule_is_offered_whatever_the_run_needs(tmp_path: Path) -> None:
    text = run(batch=16, length=4096).replace("q_proj,v_proj", "q_proj,v_prj")
    path = tmp_path / "run.yaml"
    path.write_text(text)
    command = ["lint", "--isolated", "--output-format", "json", "--gpu", "16GB", str(path)]
    found = json.loads(CliRunner().invoke(main, command).stdout)["diagnostics"]
    (wrong,) = [one for one in found if one["code"] == "TM102"]
    assert any(fix["applicability"] != "display" for fix in wrong["fixes"])


AXOLOTL_LORA = """\
base_model: meta-llama/Llama-2-7b-hf
adapter: lora  # kept
lora_r: 32
lora_alpha: 64
lora_target_linear: true
sequence_len: 2048
micro_batch_size: 1
gradient_checkpointing: true
bf16: auto
"""


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (AXOLOTL_LORA, "adapter: qlora  # kept\nload_in_4bit: true\n"),
        (
            TRL.replace("device_train_batch_size: 4", "device_train_batch_size: 1"),
            "load_in_4bit: t",
        ),
        (run(batch=1, length=2048), "finetuning_type: lora\nquantization_bit: 4\n"),
    ],
)
def test_four_bits_are_written_in_each_frameworks_way(
    tmp_path: Path, text: str, written: str
) -> None:
    assert "GM402" in lint(tmp_path, "14GB", text)
    lint(tmp_path, "14GB", text, "--fix", "--unsafe-fixes")
    fixed = (tmp_path / "run.yaml").read_text()
    assert written in fixed
    assert "GM402" not in lint(tmp_path, "14GB", fixed)
    assert _peak(tmp_path, fixed)["bytes"]["weights"] < 2 * 6_738_415_616 / 3


@pytest.mark.parametrize(
    ("trainer", "objective", "sequences"),
    [("SFTTrainer", "sft", 1), ("DPOTrainer", "dpo", 2), ("GRPOTrainer", "grpo", None)],
)
def test_unsloths_trainers_say_what_is_trained_for(
    tmp_path: Path, trainer: str, objective: str, sequences: int | None
) -> None:
    (tmp_path / "run.py").write_text(
        "from unsloth import FastLanguageModel\n"
        f"from trl import {trainer}, {trainer.removesuffix('Trainer')}Config\n"
        "model, tokenizer = FastLanguageModel.from_pretrained(\n"
        "    'unsloth/Meta-Llama-3.1-8B', max_seq_length=2048, load_in_4bit=True)\n"
        "model = FastLanguageModel.get_peft_model(model, r=16, target_modules=['q_proj'])\n"
        f"args = {trainer.removesuffix('Trainer')}Config(per_device_train_batch_size=2)\n"
        f"{trainer}(model=model, args=args, ref_model=None).train()\n"
    )
    command = ["memory", str(tmp_path / "run.py"), "--output-format", "json"]
    (found,) = json.loads(CliRunner().invoke(main, command).stdout)["recipes"]
    memory = found["memory"]
    if sequences is None:
        assert memory["peak"] is None
        assert objective in memory["reason"]
    else:
        assert memory["assumed"].get("sequences_per_sample", 1) == sequences
