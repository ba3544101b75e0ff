"""Measures real training steps on a GPU and compares them with lora-lint's figures.

    python tools/measure_on_gpu.py --out FILE.jsonl [--settings N] [--minutes M]

Needs CUDA, torch, transformers, peft; bitsandbytes for the 4-bit settings. Models have published
sizes and random weights; PEFT and the steps are real. For each setting a process of its own takes
three steps: once with the whole GPU, for what PyTorch allocated and reserved, then under caps
(``torch.cuda.set_per_process_memory_fraction``), to find the smallest under which the steps still
run. That cap, and not what a roomy card reserves, is what a verdict must be judged by. Each row is
written when it is known, and rows that FILE holds already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 2**20
# Caps are found to this.
STEP = 64 * MIB
RAN_OUT = 3

MODELS: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "qwen2.5-3b": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "mistral-7b": {
        "model_type": "mistral",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "llama-3.1-8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "mistral": "MistralForCausalLM",
}
ALL = {"r": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
FEW = {"r": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def settings() -> Iterator[dict[str, Any]]:
    """The settings, as fields of the tracer's ``Request``; the quickest to measure first."""
    for name, (lora, way) in product(MODELS, ((ALL, "all-linear"), (FEW, "q,v"))):
        config = MODELS[name]
        base = {"config": config, "cls": CLASSES[config["model_type"]], "lora": lora}
        for quantization, checkpointing, (batch, length) in product(
            (None, "nf4"), (None, "non-reentrant"), ((1, 1024), (4, 512))
        ):
            yield {
                "name": f"{name} {way} {quantization or 'bf16'} {checkpointing or 'plain'} "
                f"{batch}x{length}",
                **base,
                "quantization": quantization,
                "double_quant": quantization is not None,
                "prepared": False,
                "checkpointing": checkpointing,
                "batch": batch,
                "length": length,
            }


def smallest_cap(runs: Callable[[int], bool], low: int, high: int, step: int = STEP) -> int:
    """The smallest cap in bytes, to a step, under which a run still runs.

    ``low`` bytes are surely needed; ``high`` are surely enough. Raises ``ValueError`` if the run
    does not run with ``high``.
    """
    if not runs(high):
        msg = f"the run does not run with {high} bytes"
        raise ValueError(msg)
    while high - low > step:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle, high)
    return high


def take_steps(setting: dict[str, Any], cap: int | None, device: str = "cuda") -> dict[str, Any]:
    """Three training steps of a setting under a cap in bytes, and what they needed.

    Raises ``torch.OutOfMemoryError``.
    """
    import torch

    from lora_lint.memory.tracer.step import Request

    if device == "cuda" and cap is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total))
    fields = {key: value for key, value in setting.items() if key != "name"}
    request = Request(**fields)
    model = real_model(request, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    vocabulary = model.config.get_text_config().vocab_size
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    losses = []
    for _ in range(3):
        ids = torch.randint(0, vocabulary, (request.batch, request.length), device=device)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        del loss
    answer: dict[str, Any] = {"losses": losses, "trained": sum(p.numel() for p in trained)}
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()
        answer |= {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
            "context": total - free - reserved,
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
        }
    return answer


def real_model(request: Any, device: str) -> Any:
    """A request's PeftModel with random weights on a real device, ready to be trained."""
    import peft
    import torch
    import transformers

    from lora_lint.memory.tracer.step import DTYPES, config_of

    config = config_of(request.config)
    config.use_cache = False
    where = "cpu" if request.quantization else device
    with torch.device(where):
        base = getattr(transformers, request.cls)._from_config(config, dtype=DTYPES[request.dtype])
    if request.quantization:
        _quantize(base, request)
        base = base.to(device)
    if request.checkpointing:
        reentrant = request.checkpointing == "reentrant"
        base.gradient_checkpointing_enable({"use_reentrant": reentrant})
        base.enable_input_require_grads()
    model = peft.get_peft_model(base, peft.LoraConfig(**request.lora))
    model.train()
    return model


def _quantize(model: Any, request: Any) -> None:
    import bitsandbytes as bnb
    import torch
    import transformers

    from lora_lint.memory.tracer.step import DTYPES

    keep = set(transformers.quantizers.base.get_keys_to_not_convert(model))
    for name, module in list(model.named_modules()):
        if type(module) is not torch.nn.Linear or name in keep:
            continue
        new = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=DTYPES[request.compute_dtype],
            compress_statistics=request.double_quant,
            quant_type=request.quantization,
        )
        new.weight = bnb.nn.Params4bit(
            module.weight.data,
            requires_grad=False,
            compress_statistics=request.double_quant,
            quant_type=request.quantization,
        )
        new.bias = module.bias
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, new)
    model.is_loaded_in_4bit = True


def expected(setting: dict[str, Any]) -> dict[str, Any]:
    """lora-lint's figures for a setting: the closed form's and the tracer's, in bytes."""
    import torch
    import transformers

    from lora_lint.memory import Profile, estimate_memory
    from lora_lint.memory.trace import trace
    from lora_lint.memory.tracer.step import DTYPES, config_of
    from lora_lint.models import ModuleTree

    config = config_of(setting["config"])
    with torch.device("meta"):
        model = getattr(transformers, setting["cls"])._from_config(config, dtype=DTYPES["bfloat16"])
    estimate = estimate_memory(
        ModuleTree.from_model(model),
        setting["lora"],
        dtype="bfloat16",
        quantization=setting["quantization"],
        double_quant=setting["double_quant"],
        max_length=setting["length"],
        per_device_train_batch_size=setting["batch"],
        gradient_checkpointing=setting["checkpointing"] is not None,
        gradient_accumulation_steps=1,
        optim="adamw_torch",
        profile=Profile(autocast=False, kbit_preparation=False, outputs_kept=False, padded=False),
    )
    request = {key: value for key, value in setting.items() if key != "name"}
    return {
        "low": estimate.low,
        "peak": estimate.peak,
        "high": estimate.high,
        "tensors": estimate.tensors,
        "traced": trace(request).peak,
    }


def measure(setting: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a setting, from processes of their own."""
    whole = _in_process(setting, None)
    if whole is None:
        return {"name": setting["name"], "oom": True, **expected(setting)}
    cap = smallest_cap(
        lambda size: _in_process(setting, size) is not None,
        int(whole["allocated"]) - STEP,
        int(whole["reserved"]) + STEP,
    )
    return {"name": setting["name"], "oom": False, **whole, "cap": cap, **expected(setting)}


def _in_process(setting: dict[str, Any], cap: int | None) -> dict[str, Any] | None:
    """What a process's steps needed; None if it ran out of memory.

    Raises ``RuntimeError`` if it failed otherwise.
    """
    command = [sys.executable, __file__, "--one", json.dumps(setting)]
    command += ["--cap", str(cap)] if cap is not None else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == RAN_OUT:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _one(setting: dict[str, Any], cap: int | None) -> None:
    import torch

    try:
        print(json.dumps(take_steps(setting, cap)))
    except torch.OutOfMemoryError:
        sys.exit(RAN_OUT)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--settings", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--one", type=json.loads)
    parser.add_argument("--cap", type=int)
    given = parser.parse_args()
    if given.one:
        _one(given.one, given.cap)
        return
    end = time.monotonic() + 60 * given.minutes
    known = set()
    if given.out.exists():
        known = {json.loads(line)["name"] for line in given.out.read_text("utf-8").splitlines()}
    for setting in list(settings())[: given.settings]:
        if setting["name"] in known or time.monotonic() > end:
            continue
        row = measure(setting)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row["name"], row.get("cap"), row["low"], row["high"], flush=True)


if __name__ == "__main__":
    main()
