"""Of which torchtune runs there is an estimate of memory, and what is said of the others."""

from __future__ import annotations

import pytest

from lora_lint import Options, lint_text
from lora_lint.checks import traced

FILE = """\
# tune run lora_finetune_single_device --config mine.yaml
model:
  _component_: torchtune.models.llama2.lora_llama2_7b
  lora_attn_modules: [q_proj, v_proj]
  apply_lora_to_mlp: False
  lora_rank: 8
  lora_alpha: 16
tokenizer:
  _component_: torchtune.models.llama2.llama2_tokenizer
  max_seq_len: 1024
dataset:
  _component_: torchtune.datasets.alpaca_dataset
  packed: False
batch_size: 2
gradient_accumulation_steps: 2
optimizer:
  _component_: torch.optim.AdamW
  fused: True
loss:
  _component_: torchtune.modules.loss.CEWithChunkedOutputLoss
compile: False
device: cuda
dtype: bf16
enable_activation_checkpointing: False
enable_activation_offloading: False
"""


def subject(old="", new="", name="train.yaml", **options):
    assert old in FILE
    text = FILE.replace(old, new) if old else FILE
    (found,) = lint_text(text, name, Options(isolated=True, gpu="a100-40gb", **options)).recipes
    return found


def test_a_run_of_the_recipe_for_one_device_is_estimated():
    """The peak traced by ``tools/torchtune_step.py``."""
    found = subject()
    assert found.not_estimated is None
    assert found.memory.tensors == pytest.approx(23_174_970_368, rel=1e-3)
    assert found.memory.assumed.keys() == {"attn_implementation"}


def test_the_name_of_a_file_can_say_which_recipe_runs_it():
    comment = FILE.splitlines()[0]
    assert subject(comment, "#", "7B_lora_single_device.yaml").not_estimated is None
    assert "single device" in subject(comment, "#").not_estimated
    assert "FSDP" in subject("finetune_single_device", "finetune_distributed").not_estimated
    assert "FSDP" in subject("device: cuda", "fsdp_cpu_offload: False").not_estimated


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("compile: False", "compile: True", "torch.compile"),
        ("offloading: False", "offloading: True", "offloaded"),
        ("offloading: False", "offloading: ${there}", "offloaded"),
        ("lora_rank: 8", "lora_rank: 8\n  use_dora: True", "DoRA"),
        ("packed: False", "packed: True", "packed samples"),
        ("dtype: bf16", "dtype: fp16", "bf16 and fp32"),
        ("device: cuda", "device: cpu", "GPU of CUDA"),
        ("device: cuda", "device: cuda\ncollate_fn: mine.collate", "collator"),
        ("torchtune.modules.loss.CEWithChunkedOutputLoss", "mine.Loss", "mine.Loss"),
        ("torchtune.modules.loss.CEWithChunkedOutputLoss", "${there}", "loss"),
        ("ChunkedOutputLoss", "ChunkedOutputLoss\n  num_output_chunks: 4", "8 chunks"),
        ("modules.loss.CEWithChunkedOutputLoss", "rlhf.loss.DPOLoss", "dpo"),
        ("llama2.lora_llama2_7b", "llama3.lora_llama3", "lora_llama3"),
    ],
)
def test_what_is_not_described_is_said(old, new, reason):
    found = subject(old, new)
    assert found.memory is None
    assert reason in found.not_estimated


def test_a_loss_that_makes_the_logits_itself_needs_less_and_is_less_sure():
    chunked, linear = subject().memory, subject("CEWithChunkedOutput", "LinearCrossEntropy").memory
    logits = 2 * 1024 * 32000
    assert chunked.tensors - linear.tensors > logits
    assert chunked.high / chunked.tensors < linear.high / linear.tensors


def test_a_command_says_too_little():
    text = "tune run lora_finetune_single_device --config llama2/7B_lora batch_size=2\n"
    (found,) = lint_text(text, "run.sh", Options(isolated=True)).recipes
    assert "--config" in found.not_estimated


def test_quantization_of_qwen_has_no_figure():
    found = subject("llama2.lora_llama2_7b", "qwen2_5.lora_qwen2_5_7b_base\n  quantize_base: True")
    assert found.memory.peak is None
    assert "torchtune quantizes" in found.memory.reason


def test_peft_is_not_traced_in_torchtunes_place(monkeypatch):
    monkeypatch.setattr(traced, "trace", lambda _: pytest.fail("traced"))
    memory = subject(trace=True).memory
    assert memory.peak == subject().memory.peak
    assert "layers of its own" in memory.reason
