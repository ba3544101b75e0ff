"""One training step of the real model with real PEFT, followed tensor by tensor, without a GPU.

On the meta device nothing is computed, but every operation runs and its output has a storage; the
bytes of all live storages, rounded up to 512 as CUDA's allocator does, give the peak. What CUDA
does otherwise than the meta device is put in by hand: the attention kernel, fused dropout, and
bitsandbytes' matrix product, which keeps nothing but the packed weight.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import peft
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward, repeat_kv

aten = torch.ops.aten
torch.set_num_threads(1)  # the products are too small to share


class Trace(NamedTuple):
    """What a step needed: bytes that parameters and optimizer states take, and the peak."""

    static: int
    peak: int
    trainable: int
    during: str


class Storages(TorchDispatchMode):
    """Counts the bytes of storages that operations make, while they live."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known = known
        self.sizes: dict[int, int] = {}
        self.live = self.peak = 0
        self.phase = self.during = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._meet(tensor.untyped_storage())
        return result

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, -(-storage.nbytes() // 512) * 512
        if key in self.known or key in self.sizes or not size:
            return
        self.sizes[key] = size
        self.live += size
        weakref.finalize(storage, self._leave, key)
        if self.live > self.peak:
            self.peak, self.during = self.live, self.phase

    def _leave(self, key: int) -> None:
        self.live -= self.sizes.pop(key)


def _sdpa(masked: bool) -> Any:
    """What transformers' sdpa does on CUDA, see lora_lint.memory.activations.kernel."""
    mask: list[torch.Tensor] = []

    def attention(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        *_: Any,
        dropout: float = 0.0,
        scaling: float | None = None,
        **__: Any,
    ) -> tuple[torch.Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        if masked:
            if groups > 1:
                key, value = repeat_kv(key, groups), repeat_kv(value, groups)
            batch, heads, length, _ = query.shape
            shape = (batch, 1, length, length)
            if not mask:
                mask.append(torch.empty(shape, dtype=torch.bool, device=query.device))
            bias = torch.empty(shape, dtype=query.dtype, device=query.device)
            bias = bias.expand(batch, heads, length, length)
            out = aten._scaled_dot_product_efficient_attention(
                query, key, value, bias, True, dropout, False, scale=scaling
            )[0]
        elif query.dtype is not torch.float32:
            out = aten._scaled_dot_product_flash_attention(
                query, key, value, dropout, True, False, scale=scaling
            )[0]
        elif groups > 1:
            out = aten._scaled_dot_product_attention_math(
                query, key, value, None, dropout, True, scale=scaling, enable_gqa=True
            )[0]
        else:
            out = aten._scaled_dot_product_efficient_attention(
                query, key, value, None, True, dropout, True, scale=scaling
            )[0]
        return out.transpose(1, 2).contiguous(), None

    return attention


def _eager() -> Any:
    mask: list[torch.Tensor] = []

    def attention(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        *_: Any,
        dropout: float = 0.0,
        scaling: float | None = None,
        **__: Any,
    ) -> Any:
        if not mask:
            shape = (query.shape[0], 1, query.shape[2], query.shape[2])
            mask.append(torch.empty(shape, dtype=query.dtype, device=query.device))
        module.num_key_value_groups = query.shape[1] // key.shape[1]
        return eager_attention_forward(
            module, query, key, value, mask[0], scaling=scaling, dropout=dropout
        )

    return attention


def _cpu(module: Any, query: Any, key: Any, value: Any, *_: Any, scaling: Any, **__: Any) -> Any:
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling
    )
    return out.transpose(1, 2).contiguous(), None


class _FourBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        ctx.shape = rows, columns
        return x.new_zeros((*x.shape[:-1], rows))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        weight = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device)
        return grad @ weight, None, None


def _is_linear(model: Any, name: str) -> bool:
    module = model.get_submodule(name)
    return type(module) is torch.nn.Linear and not name.endswith("lm_head")


def _quantize(model: Any) -> None:
    """bitsandbytes' Linear4bit with double quantization, as far as memory goes."""
    for name, module in list(model.named_modules()):
        if "lora_" in name or not _is_linear(model, name):
            continue
        rows, columns = module.weight.shape
        blocks = -(-rows * columns // 64)
        device = module.weight.device
        packed = torch.empty((rows * columns // 2, 1), dtype=torch.uint8, device=device)
        module.weight = torch.nn.Parameter(packed, requires_grad=False)
        module.register_buffer("absmax", torch.empty(blocks, dtype=torch.uint8, device=device))
        module.register_buffer("absmax2", torch.empty(-(-blocks // 256), device=device))

        def forward(x: torch.Tensor, rows: int = rows, columns: int = columns) -> torch.Tensor:
            return _FourBitProduct.apply(x.to(torch.bfloat16), rows, columns).to(x.dtype)

        module.forward = forward


def _dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return torch.native_dropout(x, p, training)[0] if training and p > 0 else x


def trace(
    config: transformers.PreTrainedConfig,
    lora: dict[str, Any],
    *,
    batch: int = 1,
    length: int = 512,
    dtype: torch.dtype = torch.bfloat16,
    checkpointing: bool = False,
    adapters_in_fp32: bool = True,
    attention: str = "sdpa",
    masked: bool = False,
    nf4: bool = False,
    prepared: bool = False,
    outputs_kept: bool = True,
    autocast: bool = False,
    device: str = "meta",
    steps: int = 2,
) -> Trace:
    """The peak of the last of some training steps; from the second on Adam's states are there."""
    chosen = _cpu if device == "cpu" else _eager() if attention == "eager" else _sdpa(masked)
    ALL_ATTENTION_FUNCTIONS.register("traced", chosen)
    original, torch.nn.functional.dropout = torch.nn.functional.dropout, _dropout
    try:
        config.use_cache = False
        with torch.device(device):
            base = transformers.AutoModelForCausalLM.from_config(
                config, attn_implementation="traced", dtype=dtype
            )
            if prepared:
                for name, parameter in base.named_parameters():
                    if not (nf4 and _is_linear(base, name.rpartition(".")[0])):
                        parameter.data = parameter.data.float()
            if checkpointing:
                base.gradient_checkpointing_enable({"use_reentrant": False})
                base.enable_input_require_grads()
            model = peft.get_peft_model(
                base, peft.LoraConfig(**lora), autocast_adapter_dtype=adapters_in_fp32
            )
        for name, parameter in model.named_parameters():
            if "lora_" in name:  # on the meta device PEFT casts nothing
                parameter.data = parameter.data.to(torch.float32 if adapters_in_fp32 else dtype)
        if nf4:
            _quantize(model)
        model.train()
        return _run(
            model,
            batch,
            length,
            outputs_kept=outputs_kept,
            autocast=autocast,
            device=device,
            steps=steps,
        )
    finally:
        torch.nn.functional.dropout = original


def _run(
    model: Any,
    batch: int,
    length: int,
    *,
    outputs_kept: bool,
    autocast: bool,
    device: str,
    steps: int,
) -> Trace:
    trained = [p for p in model.parameters() if p.requires_grad]
    known: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        known[storage._cdata] = storage.nbytes()
    optimizer = torch.optim.AdamW(trained, foreach=False)
    storages = Storages(set(known))
    with storages:
        for step in range(steps):
            storages.peak = storages.live
            storages.phase = "forward"
            ids = torch.zeros((batch, length), dtype=torch.int64, device=device)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                outputs = model(input_ids=ids, labels=ids)
            loss = outputs.loss
            if not outputs_kept:
                del outputs
            storages.phase = "backward"
            loss.backward()
            storages.phase = "optimizer"
            if step < steps - 1:
                optimizer.step()
                optimizer.zero_grad()
                if outputs_kept:
                    del outputs
                del loss
    states = sum(
        tensor.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for tensor in state.values()
        if tensor.ndim
    )
    static = sum(known.values())
    return Trace(
        static + states,
        static + storages.peak,
        sum(p.numel() for p in trained),
        storages.during,
    )
