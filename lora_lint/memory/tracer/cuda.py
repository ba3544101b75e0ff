"""What CUDA does otherwise than the meta device, for the functions that models call.

``AsOnCuda`` is a function mode: it sees each call before autograd does, as CUDA's own dispatch
would, and puts in its place what runs on a GPU.

* ``scaled_dot_product_attention``: the kernel that torch would choose (aten/src/ATen/native/
  transformers/cuda/sdp_utils.cpp of torch 2.13), whose saved tensors differ.
* dropout: fused on CUDA, a mask of one byte a value; on other devices a mask in the input's dtype.
* autocast, which does not know the meta device: the lists of aten/src/ATen/autocast_mode.h and
  autocast_mode.cpp, with its cache of cast parameters.
* decisions by value: a meta tensor has none, so what is asked for (is the batch padded?) comes from
  the request.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
_flash = aten._scaled_dot_product_flash_attention  # noqa: SLF001
_efficient = aten._scaled_dot_product_efficient_attention  # noqa: SLF001
_math = aten._scaled_dot_product_attention_math  # noqa: SLF001

# Functions that autocast runs in 16 bit, in fp32, or in the widest type of their arguments
# (torch 2.13 aten/src/ATen/autocast_mode.h AT_FORALL_LOWER_PRECISION_FP, AT_FORALL_FP32,
# AT_FORALL_FP32_SET_OPT_DTYPE, AT_FORALL_PROMOTE), as far as models use them.
LOWER = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu addmm addmv
    addr matmul __matmul__ __rmatmul__ einsum mm mv linear addbmm baddbmm bmm chain_matmul
    scaled_dot_product_attention
    """.split()  # noqa: SIM905
)
FP32 = frozenset(
    """
    acos asin cosh erfinv exp __exp__ expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow
    __pow__ __rpow__ softplus layer_norm group_norm norm cosine_similarity nll_loss l1_loss
    smooth_l1_loss huber_loss mse_loss cross_entropy binary_cross_entropy_with_logits dist cdist
    logsumexp prod softmax log_softmax cumprod cumsum sum vector_norm
    """.split()  # noqa: SIM905
)
WIDEST = frozenset(
    """
    addcdiv addcmul atan2 bilinear cross dot vdot index_put tensordot
    """.split()  # noqa: SIM905
)
ON_META = "meta"


class AsOnCuda(TorchFunctionMode):
    """Runs what CUDA would run.

    ``capability`` is the GPU's; ``uniform`` says that all rows are full and hold one sequence, the
    answer to every question about values. Autocast follows torch's own state for the CPU, which
    the caller switches: ``torch.autocast("cpu", dtype=...)``.
    """

    def __init__(self, *, capability: tuple[int, int] = (8, 0), uniform: bool = True) -> None:
        super().__init__()
        self.capability = capability
        self.uniform = uniform
        self.asked: set[str] = set()
        self.kernels: set[str] = set()
        self._casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def forget_casts(self) -> None:
        """Empty autocast's cache of cast parameters, as it does when its outermost block ends."""
        self._casts.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function in CUDA's way."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__bool__", "item", "tolist", "__int__", "__index__", "__float__") and _meta(
            args
        ):
            return self._value(name)
        if torch.is_autocast_enabled("cpu"):
            args, kwargs = self._autocast(name, args, kwargs)
        if name == "scaled_dot_product_attention" and _meta(args):
            return self._attention(*args, **kwargs)
        if name == "dropout" and _meta(args):
            return _dropout(*args, **kwargs)
        grouped = name == "_grouped_mm" and _meta(args)
        if grouped and args[0].dtype is not torch.bfloat16:
            return _GroupedProduct.apply(*args[:2])  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)

    def _value(self, name: str) -> Any:
        self.asked.add(name)
        if name == "__bool__":
            return self.uniform
        if name == "item":
            return int(self.uniform)
        raise RuntimeError("the model asks for the values of its inputs")

    # Autocast ---------------------------------------------------------------------------------

    def _autocast(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if name in LOWER:
            return self._cast(args, kwargs, torch.get_autocast_dtype("cpu"))
        if name in FP32:
            return self._cast(args, kwargs, torch.float32)
        if name in WIDEST:
            tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
            if any(t.dtype is torch.float32 for t in tensors):
                return self._cast(args, kwargs, torch.float32)
        return args, kwargs

    def _cast(self, args: Any, kwargs: Any, dtype: torch.dtype) -> tuple[Any, Any]:
        cast = tuple(self._cast_one(value, dtype) for value in args)
        return cast, {key: self._cast_one(value, dtype) for key, value in kwargs.items()}

    def _cast_one(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
            return type(value)(self._cast_one(v, dtype) for v in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        if value.dtype == dtype or value.dtype is torch.float64:
            return value
        cached = value.is_leaf and value.requires_grad and value.dtype is torch.float32
        if not cached or dtype is torch.float32:
            return value.to(dtype)
        if id(value) not in self._casts:
            self._casts[id(value)] = value, value.to(dtype)
        return self._casts[id(value)][1]

    # Attention --------------------------------------------------------------------------------

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        kernel = self.kernel(query, key, value, attn_mask)
        self.kernels.add(kernel)
        if kernel == "flash":
            width = query.shape[-1]
            if width % 8:  # torch pads the heads (attention.cpp ``pad_last_dim``)
                pad = (0, 8 - width % 8)
                query, key, value = (torch.nn.functional.pad(t, pad) for t in (query, key, value))
            out = _flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
            return out[..., :width]
        if kernel == "efficient":
            bias = _bias(attn_mask, query, key)
            return _efficient(
                query, key, value, bias, query.requires_grad, dropout_p, is_causal, scale=scale
            )[0]
        if attn_mask is not None and attn_mask.dtype is torch.bool:
            attn_mask = _as_bias(attn_mask, query)
        return _math(
            query,
            key,
            value,
            attn_mask,
            dropout_p,
            is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )[0]

    def kernel(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> str:
        """``flash``, ``efficient`` or ``math``, in torch's order of preference."""
        width = query.shape[-1]
        same_width = width == key.shape[-1] == value.shape[-1]
        sixteen = query.dtype in (torch.bfloat16, torch.float16)
        groups = query.shape[-3] != key.shape[-3]
        # Training with heads wider than 192 needs shared memory that 8.6 and 8.9 do not have.
        widest = 192 if self.capability in ((8, 6), (8, 9), (12, 0)) else 256
        four = query.dim() == 4
        flash = four and same_width and sixteen and mask is None and width <= widest
        if flash and self.capability >= (8, 0):
            return "flash"
        if four and not groups and (mask is None or not mask.requires_grad or mask.dim() == 4):
            return "efficient"
        return "math"


class _GroupedProduct(torch.autograd.Function):
    """``grouped_mm`` of other types than bf16, which CUDA has and the meta device refuses
    (aten/src/ATen/native/cuda/GroupedBlas.cpp ``_grouped_mm_cuda``, its fallback).
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        wanted = ctx.needs_input_grad
        ctx.save_for_backward(x if wanted[1] else None, weight if wanted[0] else None)
        ctx.shape = weight.shape
        return x.new_empty((*x.shape[:-1], weight.shape[-1]))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_x = None if weight is None else grad.new_empty((*grad.shape[:-1], ctx.shape[-2]))
        return to_x, None if x is None else grad.new_empty(ctx.shape)


def _meta(args: Any) -> bool:
    return bool(args) and isinstance(args[0], torch.Tensor) and args[0].device.type == ON_META


def _as_bias(mask: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """A boolean mask as torch turns it into an additive one at each call (attention.cpp
    ``convert_boolean_attn_mask``).
    """
    return torch.empty(mask.shape, dtype=query.dtype, device=mask.device)


def _bias(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> Any:
    if mask is None:
        return None
    bias = _as_bias(mask, query) if mask.dtype is torch.bool else mask.to(query.dtype)
    if bias.shape[-1] % 16:  # the kernel wants aligned rows (attention.cpp ``pad_bias``)
        length = bias.shape[-1]
        bias = torch.nn.functional.pad(bias, (0, 16 - length % 16))[..., :length]
    return bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def _dropout(
    input: torch.Tensor,  # noqa: A002 - torch's own name
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001 - fused dropout is out of place
) -> torch.Tensor:
    return torch.native_dropout(input, p, True)[0] if training and 0 < p < 1 else input
