"""bitsandbytes on the meta device, as far as memory goes.

PEFT's own layers for bitsandbytes (tuners/lora/bnb.py) run as they are; under them lie these
stand-ins. What they hold, what their product keeps for its backward, and what it makes on the way
are those of bitsandbytes 0.50.2 (nn/modules.py ``Linear4bit``, ``Linear8bitLt``;
autograd/_functions.py ``MatMul4Bit``, ``MatMul8bitLt``; functional.py ``quantize_4bit``).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

_MODULES: Final = ("bitsandbytes", "bitsandbytes.nn", "bitsandbytes.functional")


class Params4bit(nn.Parameter):
    """The packed weight. PEFT and its k-bit preparation know it by its class's name."""

    compress_statistics: bool
    quant_type: str
    quant_state: Any = None

    def __deepcopy__(self, memo: Any) -> Params4bit:
        """PEFT copies the layer to make DoRA's magnitudes."""
        copy = Params4bit(self.data.clone(), requires_grad=False)
        vars(copy).update(vars(self))
        return copy


class QuantState(NamedTuple):
    """What PEFT's dequantization hands back: the whole weight's shape and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def dequantize_4bit(_: torch.Tensor, state: QuantState) -> torch.Tensor:
    """The whole weight in the dtype that it had before (functional.py ``dequantize_4bit``)."""
    return torch.empty(state.shape, dtype=state.dtype, device="meta")


class Int8Params(nn.Parameter):
    """The weight as int8."""


class Linear4bit(nn.Linear):
    """Two values a byte with a scale for each block of 64, or a scale of scales as well."""

    def __init__(self, layer: Any, kind: str, dtype: torch.dtype, *, nested: bool) -> None:
        rows, columns = _rows_and_columns(layer)
        where = layer.weight.device
        super().__init__(columns, rows, bias=False, device="meta")
        self.bias = layer.bias
        blocks = -(-rows * columns // 64)
        packed = torch.empty((-(-rows * columns // 2), 1), dtype=torch.uint8, device=where)
        self.weight = Params4bit(packed, requires_grad=False)
        self.weight.compress_statistics, self.weight.quant_type = nested, kind
        self.weight.quant_state = QuantState((rows, columns), layer.weight.dtype)
        scale = torch.uint8 if nested else torch.float32
        self.register_buffer("absmax", torch.empty(blocks, dtype=scale, device=where))
        if nested:
            self.register_buffer("absmax2", torch.empty(-(-blocks // 256), device=where))
        self.compute_dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In the compute dtype, and back to the input's."""
        kind, bias = x.dtype, self.bias
        if bias is not None and bias.dtype != kind:
            bias.data = bias.data.to(kind)  # as bitsandbytes does, once
        shape = (self.out_features, self.in_features)
        product: torch.Tensor = _FourBitProduct.apply(  # type: ignore[no-untyped-call]
            x.to(self.compute_dtype), shape, bias
        )
        return product.to(kind)


class _FourBitProduct(torch.autograd.Function):
    """Keeps the packed weight alone; the backward makes the whole weight in 16 bit."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, int], _: Any) -> torch.Tensor:
        ctx.shape = shape
        return x.new_empty((*x.shape[:-1], shape[0]))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        weight = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device)
        return torch.matmul(grad, weight), None, None


class _State:
    """What PEFT's dispatcher asks of an 8-bit layer (``MatmulLtState``)."""

    has_fp16_weights = False
    threshold = 6.0


class Linear8bitLt(nn.Linear):
    """A byte a value and an fp32 scale a row."""

    def __init__(self, layer: Any) -> None:
        rows, columns = _rows_and_columns(layer)
        where = layer.weight.device
        super().__init__(columns, rows, bias=False, device="meta")
        packed = torch.empty((rows, columns), dtype=torch.int8, device=where)
        self.weight = Int8Params(packed, requires_grad=False)
        self.register_buffer("scb", torch.empty(rows, device=where))
        self.bias, self.state, self.index = layer.bias, _State(), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product keeps its input, in the input's dtype."""
        product: torch.Tensor = _EightBitProduct.apply(  # type: ignore[no-untyped-call]
            x, (self.out_features, self.in_features)
        )
        return product


class _EightBitProduct(torch.autograd.Function):
    """``ctx.tensors = (CAt, subA, A)``: the input, as an attribute and not as a saved tensor, so
    that checkpointing does not see it but the graph holds it all the same.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        rows, columns = x.numel() // x.shape[-1], x.shape[-1]
        ctx.shape, ctx.kept, ctx.kind = shape, x.reshape(rows, columns), x.dtype
        half = ctx.kept.to(torch.float16)
        codes = torch.empty((rows, columns), dtype=torch.int8, device=x.device)
        del half
        products = torch.empty((rows, shape[0]), dtype=torch.int32, device=x.device)
        out = torch.empty((*x.shape[:-1], shape[0]), dtype=x.dtype, device=x.device)
        del codes, products
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        weight = torch.empty(ctx.shape, dtype=ctx.kind, device=grad.device)
        return torch.matmul(grad.contiguous().to(ctx.kind), weight), None


def _rows_and_columns(layer: Any) -> tuple[int, int]:
    """Output and input features; GPT-2's Conv1D has them the other way round."""
    shape = layer.weight.shape
    rows, columns = shape if isinstance(layer, nn.Linear) else shape[::-1]
    return rows, columns


def stand_in() -> None:
    """Put the stand-ins in bitsandbytes' place for this process, before PEFT asks for it."""
    modules = {name: ModuleType(name) for name in _MODULES}
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
    for cls in (Params4bit, Int8Params, Linear4bit, Linear8bitLt):
        setattr(modules["bitsandbytes.nn"], cls.__name__, cls)
    modules["bitsandbytes.functional"].dequantize_4bit = dequantize_4bit  # type: ignore[attr-defined]
    for name in _MODULES[1:]:
        setattr(modules["bitsandbytes"], name.rpartition(".")[2], modules[name])
    modules["bitsandbytes"].__version__ = "0.50.2"  # type: ignore[attr-defined]
    sys.modules.update(modules)


def quantize(
    model: nn.Module, kind: str, dtype: torch.dtype, *, nested: bool, keep: set[str]
) -> None:
    """Replace the linear layers that transformers hands to bitsandbytes: nn.Linear and Conv1D
    (transformers 5.23 integrations/bitsandbytes.py ``replace_with_bnb_linear``).

    ``kind``: ``nf4``, ``fp4`` or ``int8``; ``dtype``: that of the products; ``keep``: names of
    modules left as they are (transformers 5.23 quantizers/base.py ``get_keys_to_not_convert``).
    """
    for name, module in list(model.named_modules()):
        if not (type(module) is nn.Linear or isinstance(module, Conv1D)) or name in keep:
            continue
        new = (
            Linear8bitLt(module)
            if kind == "int8"
            else Linear4bit(module, kind, dtype, nested=nested)
        )
        new.train(module.training)
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, new)
    model.is_loaded_in_8bit = kind == "int8"  # type: ignore[assignment]
    model.is_loaded_in_4bit = kind != "int8"  # type: ignore[assignment]
