"""Number formats: TR602 against PEFT and torch, TR603 and TR604 by the GPU's capability."""

from __future__ import annotations

from typing import Any

import pytest

from lora_lint import Options, lint_text

PYTHON = """from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B", dtype="float16")
config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]{more})
model = get_peft_model(model, config)
trainer = Trainer(model, TrainingArguments("out", fp16=True))
"""
TRL = "model_name_or_path: meta-llama/Llama-3.2-1B\nuse_peft: true\nlora_r: 8\nlora_alpha: 16\n"
TRL += "lora_target_modules: all-linear\n"


def unscales(**config: Any) -> bool:
    """Whether torch's gradient scaler takes what PEFT trains on a float16 model."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=32,
        )
    ).half()
    targets = ["q_proj", "v_proj"]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, **config))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(trained)
    scaler.scale(torch.ones(()))
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    try:
        scaler.unscale_(optimizer)
    except ValueError as exc:
        return "Attempting to unscale FP16 gradients" not in str(exc)
    return True


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"use_dora": True},
        {"trainable_token_indices": [1]},
        {"use_rslora": True},
    ],
    ids=str,
)
def test_fp16_is_refused_where_the_rule_says_so(config: dict[str, Any]) -> None:
    more = "".join(f", {name}={value!r}" for name, value in config.items())
    options = Options(select=("TR602",), isolated=True)
    found = lint_text(PYTHON.format(more=more), "train.py", options).diagnostics
    assert bool(found) is not unscales(**config)


@pytest.mark.parametrize(
    ("gpu", "old"),
    # NVIDIA's table of compute capabilities: 7.5, 7.0, 8.0, 8.6, 8.9.
    [("t4", True), ("v100-16gb", True), ("a100-80gb", False), ("rtx3090", False), ("l4", False)],
)
def test_gpus(gpu: str, old: bool) -> None:
    text = TRL + "bf16: true\nattn_implementation: flash_attention_2\n"
    options = Options(select=("TR603", "TR604"), gpu=gpu, isolated=True)
    found = {d.code: d.severity for d in lint_text(text, "a.yaml", options).diagnostics}
    assert found == ({"TR603": "warning", "TR604": "error"} if old else {})
