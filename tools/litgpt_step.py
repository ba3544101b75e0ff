"""One training step of LitGPT's own model class on the meta device, and its peak.

    python tools/litgpt_step.py < REQUESTS

Needs torch, transformers and litgpt. Reads a JSON list of requests and prints LitGPT's version and
the traced peaks in bytes. A request has LitGPT's name of the model, ``r``, ``targets`` (its parts
with LoRA), ``dropout``, ``batch``, ``length``, and may have a ``precision`` and ``quantize``; of a
release before 0.5 with bitsandbytes before 0.43.2 if ``old``; the first step if ``first``.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from lora_lint.memory.tracer.cuda import AsOnCuda
from lora_lint.memory.tracer.step import _autocast_asked_of_the_cpu, _backward
from lora_lint.memory.tracer.storages import Storages, rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARTS = ("query", "key", "value", "projection", "mlp", "head")


class FourBit(torch.nn.Module):
    """A linear map as lightning makes it (2.6.6 fabric/plugins/precision/bitsandbytes.py): packed
    from float16, so that a product makes the weight in float16, then in the input's type
    (bitsandbytes 0.49 autograd/_functions.py ``MatMul4Bit``). ``keeps``: its context refers to the
    product's input, as before 0.43.2.
    """

    def __init__(self, linear: torch.nn.Linear, *, nested: bool, keeps: bool) -> None:
        super().__init__()
        self.keeps = keeps
        self.shape = tuple(linear.weight.shape)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        values = linear.weight.numel()
        blocks = -(-values // 64)
        packed = torch.empty(-(-values // 2), 1, dtype=torch.uint8, device="meta")
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias
        scale = torch.uint8 if nested else torch.float32
        self.register_buffer("absmax", torch.empty(blocks, dtype=scale, device="meta"))
        if nested:
            self.register_buffer("absmax2", torch.empty(-(-blocks // 256), device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return _Product.apply(x, self.shape, self.keeps)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, int], keeps: bool) -> torch.Tensor:
        ctx.shape = shape
        if keeps and x.requires_grad:
            ctx.tensors = x
        return torch.nn.functional.linear(x, _whole(shape, x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return torch.matmul(grad, _whole(ctx.shape, grad.dtype)), None, None


def _whole(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float16, device="meta").to(dtype)


class StableEmbedding(torch.nn.Embedding):
    """bitsandbytes 0.49 nn/modules.py: a norm follows."""

    def __init__(self, number: int, width: int) -> None:
        super().__init__(number, width, device="meta", dtype=torch.bfloat16)
        self.norm = torch.nn.LayerNorm(width, device="meta", dtype=torch.bfloat16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """In the weights' own type, which is Fabric's default in a forward."""
        return self.norm(super().forward(ids))


def build(request: Mapping[str, Any]) -> tuple[Any, list[torch.Tensor]]:
    """LitGPT's model as ``main`` in its finetune/lora.py (0.5.13) makes it, and what else ``main``
    holds: the embeddings that were replaced.
    """
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable

    config = Config.from_name(
        request["name"],
        lora_r=request["r"],
        lora_alpha=16,
        lora_dropout=request["dropout"],
        **{f"lora_{name}": name in request["targets"] for name in _PARTS},
    )
    mixed = request.get("precision", "bf16-true").endswith("-mixed")
    torch.set_default_dtype(torch.float32 if mixed else torch.bfloat16)
    with torch.device("meta"):
        model = GPT(config)
        model.max_seq_length = request["length"]
    torch.set_default_dtype(torch.float32)
    mark_only_lora_as_trainable(model)
    quantize = request.get("quantize")
    if not quantize:
        return model, []
    nested, before = quantize.endswith("-dq"), bool(request.get("old"))
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(owner, name, FourBit(child, nested=nested, keeps=before))
    if before:
        return model, []
    old = model.transformer.wte
    model.transformer.wte = StableEmbedding(old.num_embeddings, old.embedding_dim)
    return model, [old.weight]


def trace(request: Mapping[str, Any]) -> int:
    """The traced peak of LitGPT's step, in bytes: its head in chunks of 128 tokens
    (finetune/lora.py ``fit``), whose outputs Fabric makes fp32 (lightning 2.6.6 fabric/wrappers.py
    ``_FabricModule.forward``); in the second step gradients of an earlier micro-batch are alive.
    """
    from lightning.fabric.plugins import HalfPrecision
    from litgpt.utils import chunked_cross_entropy

    model, held = build(request)
    model.train()
    adapters = [p for name, p in model.named_parameters() if "lora_" in name]
    known = [*model.parameters(), *model.buffers(), *held]
    storages = Storages("meta", known)
    optimizer = torch.optim.AdamW(adapters, foreach=False)
    as_on_cuda, precision = AsOnCuda(), HalfPrecision("bf16-true")
    mixed = request.get("precision", "bf16-true").endswith("-mixed")
    with _autocast_asked_of_the_cpu(as_on_cuda), storages, as_on_cuda:
        for step in range(1 if request.get("first") else 2):
            if step:
                storages.peaks.clear()
            storages.phase = "forward"
            shape = request["batch"], request["length"]
            ids = torch.zeros(shape, dtype=torch.int64, device="meta")
            # the frames of the model's forward end before its outputs are converted
            with torch.autocast("cpu", dtype=torch.bfloat16) if mixed else nullcontext():
                outputs = model(ids, lm_head_chunk_size=128)
            logits = precision.convert_output(outputs)
            del outputs
            logits[-1] = logits[-1][..., :-1, :]
            loss = chunked_cross_entropy(logits, ids[..., 1:])
            storages.phase = "backward"
            _backward(loss)
            if not step:
                optimizer.step()
    fixed = sum(rounded(tensor.untyped_storage().nbytes()) for tensor in known)
    return fixed + max(size for size, _ in storages.peaks.values())


def main() -> None:
    """Answer the requests."""
    from importlib.metadata import version

    requests = json.load(sys.stdin)
    print(json.dumps([version("litgpt"), [trace(request) for request in requests]]))


if __name__ == "__main__":
    main()
