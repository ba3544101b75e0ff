"""One training step of torchtune's own model on the meta device, and its peak.

    python tools/torchtune_step.py < REQUESTS

Needs torch, transformers, torchtune and torchao. Reads a JSON list of requests and prints
torchtune's version and the traced peaks in bytes. A request has the ``builder`` under
torchtune.models, ``r``, ``modules`` (``lora_attn_modules``, and ``mlp`` and ``output``),
``dropout``, ``batch``, ``length``, and may have ``dtype``, ``quantize``, ``checkpointing`` and
``linear_loss``.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from types import MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from lora_lint.memory.tracer.cuda import AsOnCuda
from lora_lint.memory.tracer.step import _autocast_asked_of_the_cpu, _backward
from lora_lint.memory.tracer.storages import Storages, rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACES = ("q_proj", "k_proj", "v_proj", "output_proj")


class _FourBit(torch.Tensor):
    """What stands where a weight is an NF4Tensor: its packed values, of which torchao's own code
    (0.10 dtypes/nf4tensor.py ``get_original_weight``) makes the weight.
    """

    parts: SimpleNamespace


def _to_nf4(tensor: torch.Tensor, block: int = 64, scaler_block: int = 256) -> Any:
    """The parts of an NF4Tensor, of their sizes (``NF4Tensor.from_tensor``)."""
    from torchao.dtypes.nf4tensor import NF4Tensor

    values, dtype = tensor.numel(), tensor.dtype

    def empty(size: int, kind: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=kind, device="meta")

    parts = SimpleNamespace(
        quantized_data=empty(values // 2, torch.uint8),
        quantized_scalers=empty(values // block, torch.int8),
        quantization_factor=empty(values // block // scaler_block, dtype),
        scaler_mean=empty(1, dtype)[0],
        nf4=empty(16, dtype),
        block_size=block,
        scaler_block_size=scaler_block,
        shape=tuple(tensor.shape),
        dtype=dtype,
        dequantize=NF4Tensor.dequantize,
    )
    parts.dequantize_scalers = MethodType(NF4Tensor.dequantize_scalers, parts)
    made = parts.quantized_data.as_subclass(_FourBit)
    made.parts = parts
    return made


class _Product(torch.autograd.Function):
    """``LinearNF4``, which saves the weight: by that a checkpoint learns what is needed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.parts = weight.parts
        return torch.nn.functional.linear(x, _whole(ctx.parts))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (_,) = ctx.saved_tensors
        return grad @ _whole(ctx.parts), None


def _whole(parts: SimpleNamespace) -> torch.Tensor:
    from torchao.dtypes.nf4tensor import NF4Tensor

    return NF4Tensor.get_original_weight(parts)


class _Adapted:
    """``LoRALinear`` and ``FrozenNF4Linear`` with these weights."""

    @staticmethod
    def put() -> None:
        import torchtune.modules.low_precision.nf4_linear as frozen
        import torchtune.modules.peft.lora as lora

        def parameter(weight: Any, requires_grad: bool = True) -> Any:
            if not isinstance(weight, _FourBit):
                return torch.nn.Parameter(weight, requires_grad=requires_grad)
            plain = weight.as_subclass(torch.Tensor)
            made = torch.nn.Parameter(plain, requires_grad=False)
            made.parts = weight.parts
            return made

        def linear(input: torch.Tensor, weight: Any) -> torch.Tensor:  # noqa: A002
            return _Product.apply(input, weight)

        def init(self: Any, in_dim: int, out_dim: int, bias: bool = False) -> None:
            torch.nn.Linear.__init__(self, in_dim, out_dim, bias=bias)
            self.weight = parameter(_to_nf4(self.weight))

        lora.to_nf4, lora.linear_nf4, frozen.linear_nf4 = _to_nf4, linear, linear
        lora.nn = SimpleNamespace(**{**vars(torch.nn), "Parameter": parameter})
        frozen.FrozenNF4Linear.__init__ = init


def _on_meta(self: Any) -> None:
    """``Llama3ScaledRoPE.rope_init``, which on the meta device makes nothing."""
    theta = torch.empty(self.dim // 2, dtype=torch.float32)
    self.register_buffer("theta", theta, persistent=False)
    self.build_rope_cache(self.max_seq_len)
    self.is_cache_built = True


def build(request: Mapping[str, Any]) -> Any:
    """The model as recipes/lora_finetune_single_device.py ``_setup_model`` (0.6.1) makes it."""
    from torchtune import modules, training
    from torchtune.models.llama3_1 import _position_embeddings as positions
    from torchtune.modules.peft import get_adapter_params, set_trainable_params

    positions.Llama3ScaledRoPE.rope_init = _on_meta
    quantize = {"quantize_base": True} if request.get("quantize") else {}
    if quantize:
        _Adapted.put()
    module, _, name = request["builder"].rpartition(".")
    builder = getattr(import_module(f"torchtune.models.{module}"), name)
    parts = request["modules"]
    output = {"apply_lora_to_output": True} if "output" in parts else {}
    kind = getattr(torch, request.get("dtype", "bfloat16"))
    with training.set_default_dtype(kind), torch.device("meta"):
        model = builder(
            lora_attn_modules=[part for part in parts if part in _PLACES],
            apply_lora_to_mlp="mlp" in parts,
            lora_rank=request["r"],
            lora_alpha=16,
            lora_dropout=request["dropout"],
            **output,
            **quantize,
        )
    set_trainable_params(model, get_adapter_params(model))
    if request.get("checkpointing"):
        policy = {modules.TransformerSelfAttentionLayer}
        training.set_activation_checkpointing(model, auto_wrap_policy=policy)
    return model


def trace(request: Mapping[str, Any]) -> int:
    """The traced peak of the recipe's step (``train``, ``_loss_step``), in bytes, in which
    gradients of an earlier micro-batch are alive.
    """
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    model = build(request)
    model.train()
    loss_fn = CEWithChunkedOutputLoss()
    step_loss = _loss
    if request.get("linear_loss"):
        step_loss, model.unembed = _linear_loss, model.norm.forward
    else:
        model.set_num_output_chunks(loss_fn.num_output_chunks)
    known = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        parts = getattr(parameter, "parts", None)
        if parts is not None:
            known += [v for v in vars(parts).values() if isinstance(v, torch.Tensor)]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, foreach=False)
    storages, as_on_cuda = Storages("meta", known), AsOnCuda()
    running: Any = 0
    with _autocast_asked_of_the_cpu(as_on_cuda), storages, as_on_cuda:
        ignored = torch.full((request["batch"], 1), loss_fn.ignore_index, device="meta")
        for step in range(2):
            if step:
                storages.peaks.clear()
            storages.phase = "forward"
            shape = request["batch"], request["length"]
            ids = torch.zeros(shape, dtype=torch.int64, device="meta")
            labels = torch.zeros(shape, dtype=torch.int64, device="meta")
            count = (labels != loss_fn.ignore_index).sum()
            loss = step_loss(model, loss_fn, ids, labels, ignored) * count
            running += loss
            storages.phase = "backward"
            _backward(loss)
            if not step:
                optimizer.step()
                running = 0
    sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in known}
    fixed = sum(map(rounded, sizes.values()))
    return fixed + max(size for size, _ in storages.peaks.values())


def _loss(model: Any, loss_fn: Any, ids: Any, labels: Any, ignored: Any) -> torch.Tensor:
    """``_loss_step``."""
    logits = model(tokens=ids)
    labels = torch.hstack((labels[..., 1:], ignored[: labels.shape[0]]))
    loss = loss_fn(logits, labels)
    del logits
    return loss


def _linear_loss(model: Any, loss_fn: Any, ids: Any, labels: Any, ignored: Any) -> torch.Tensor:
    """What follows the model's norm where the loss is a LinearCrossEntropyLoss, which torchtune has
    had since 0.6.1: chunk by chunk it takes the tokens with labels, here all, and makes logits.
    """
    outputs = model(tokens=ids)
    labels = torch.hstack((labels[..., 1:], ignored[: labels.shape[0]]))
    chunks = loss_fn.num_output_chunks
    pairs = zip(outputs.tensor_split(chunks, 1), labels.tensor_split(chunks, 1), strict=True)
    total: Any = 0.0
    for hidden, wanted in pairs:
        total += _chunk_loss(model.output, hidden, wanted)
    return total / (labels != loss_fn.ignore_index).sum()


def _chunk_loss(output: Any, hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    rows = torch.empty((2, wanted.numel()), dtype=torch.int64, device="meta").unbind()
    hidden, wanted = hidden[rows], wanted[rows]
    logits = output(hidden)
    return torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")


def main() -> None:
    """Answer the requests."""
    from importlib.metadata import version

    requests = json.load(sys.stdin)
    print(json.dumps([version("torchtune"), [trace(request) for request in requests]]))


if __name__ == "__main__":
    main()
