"""TR: number formats and kernels, and the GPUs that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Note, Set, Wish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

# Trainers that pass a model's trainable weights to the optimizer as they are.
_AS_THEY_ARE: Final = ("trl", "peft_python", "peft")


@check("TR602")
def fp16_trainable_weights(subject: RecipeSubject) -> Iterator[Finding]:
    """Weights that stay float16 are trained under fp16 mixed precision."""
    value = subject.value
    if value("fp16") is not True or value("dtype") not in ("float16", "torch.float16"):
        return
    if subject.dialect.name not in _AS_THEY_ARE or value("quantization") not in (None, "none"):
        return
    if any(value(name) not in (None, False, "", [], {}) for name in ("deepspeed", "fsdp")):
        return
    field = next((name for name in ("modules_to_save", "bias") if _asks(value(name))), None)
    if field is None:
        return
    what = "the saved modules" if field == "modules_to_save" else "the biases"
    yield Finding(
        f"{what} are trained in float16 under fp16: true",
        field=field,
        notes=(Note("", "dtype" if subject.states("dtype") else "fp16"),),
        help='the scaler stops with "Attempting to unscale FP16 gradients"; PEFT casts the '
        "adapters to float32, and only these; bf16, or dtype float32, works",
    )


def _asks(value: object) -> bool:
    return (isinstance(value, list) and bool(value)) or (
        isinstance(value, str) and value in ("all", "lora_only")
    )


@check("TR603")
def bf16_unsupported_gpu(subject: RecipeSubject) -> Iterator[Finding]:
    """bfloat16 on a GPU that has no units for it."""
    gpu = subject.gpu
    if gpu is None or gpu.has_bf16 is not False or subject.value("bf16") is not True:
        return
    yield Finding(
        f"{gpu.name} has no bfloat16: its compute capability is {_capability(gpu.capability)}, "
        "bfloat16 came with 8.0",
        field="bf16",
        help='transformers stops with "Your setup doesn\'t support bf16/gpu" where torch does not '
        "emulate it",
        wishes=(Wish("bf16: false, fp16: true", (Set("bf16", False), Set("fp16", True))),),
    )


@check("TR604")
def flash_attention_unsupported_gpu(subject: RecipeSubject) -> Iterator[Finding]:
    """FlashAttention on a GPU that it has no kernels for."""
    gpu, kernel = subject.gpu, subject.value("attn_implementation")
    if gpu is None or gpu.has_flash_attention is not False:
        return
    if kernel not in ("flash_attention_2", "flash_attention_3"):
        return
    yield Finding(
        f"{kernel} needs compute capability 8.0 (Ampere); {gpu.name} has "
        f"{_capability(gpu.capability)}",
        field="attn_implementation",
        help='it stops with "FlashAttention only supports Ampere GPUs or newer"',
        wishes=(Wish("attn_implementation: sdpa", (Set("attn_implementation", "sdpa"),)),),
    )


def _capability(number: tuple[int, int] | None) -> str:
    return ".".join(map(str, number or ()))
