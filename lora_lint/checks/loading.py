"""GM: how the base model's weights are loaded, and where to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Note, Set, Unset, Wish
from lora_lint.facts import version_key
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

GIB: Final = 2**30
# What float32 must cost more than 16 bits, in bytes, to be worth a word: a model of about 1B.
_MUCH: Final = 2 * GIB
# Words of a file by which a run is on no CUDA GPU, or a model is cast once it is loaded.
_ELSEWHERE: Final = ("use_cpu", "no_cuda", "use_mps_device", '"mps"', "'mps'", '"cpu"', "'cpu'")
_CASTS: Final = (".half(", ".bfloat16(", ".to(torch.", ".to(dtype", "set_default_dtype")
# Device maps that divide a model among the GPUs a process sees, if it is made of several parts
# (transformers 5.23.0 integrations/accelerate.py ``_get_device_map``); ``sequential`` fills the
# first GPU before the next.
_BALANCED: Final = ("auto", "balanced", "balanced_low_0")
AUTOMATIC: Final = (*_BALANCED, "sequential")


@check("GM405")
def float32_base_weights(subject: RecipeSubject) -> Iterator[Finding]:
    """The frozen base weights are loaded in float32."""
    if subject.setup.quantization is not None or not subject.recipe.trains:
        return
    why = _float32(subject)
    if why is None or _divided(subject):
        return
    if subject.gpu is not None and subject.gpu.has_bf16 is False:
        return  # float16 overflows with some models, and bfloat16 is not there
    if subject.value("device_map") in ("cpu", "mps") or _says(subject, _ELSEWHERE):
        return
    sizes = [_weights(subject, dtype) for dtype in ("float32", "bfloat16")]
    if sizes[0] is None or sizes[1] is None or sizes[0] - sizes[1] < _MUCH:
        return
    yield Finding(
        f"the base model is loaded in float32{why}: {sizes[0] / GIB:.2f} GiB, in bfloat16 "
        f"{sizes[1] / GIB:.2f} GiB",
        field="dtype" if subject.states("dtype") else None,
        label="twice the memory of bfloat16",
        help="LoRA does not train these weights, and PEFT makes its own in float32 whichever dtype "
        "they have",
        wishes=(Wish("dtype: bfloat16", (Set("dtype", "bfloat16"),)),),
    )


def _float32(subject: RecipeSubject) -> str | None:
    """Why the weights are in float32, for a message; None where they are not for certain."""
    field = subject.recipe["dtype"]
    if str(field.value).removeprefix("torch.") == "float32":
        return "" if subject.states("dtype") else None  # nobody chose a framework's default
    # transformers before 5.0 took float32 whatever the checkpoint had (modeling_utils.py)
    stated = subject.context.environment.transformers
    old = stated is not None and version_key(stated.last) < version_key("5.0.0")
    if field.origin != "unset" or not old or subject.dialect.name != "peft_python":
        return None
    loaded = subject.states("base_model") and not _says(subject, _CASTS)
    return f", transformers {subject.transformers}'s default" if loaded else None


def _says(subject: RecipeSubject, words: tuple[str, ...]) -> bool:
    return any(word in subject.document.text for word in words)


def _divided(subject: RecipeSubject) -> bool:
    """Whether processes divide the weights, for which all may need one dtype."""
    shared = subject.shared
    return shared is not None and not isinstance(shared, str) and shared.divides_weights


def _weights(subject: RecipeSubject, dtype: str) -> int | None:
    estimate = subject.estimate(dtype=dtype)
    return estimate.bytes["weights"] if estimate is not None else None


@check("GM410")
def device_map_offloads(subject: RecipeSubject) -> Iterator[Finding]:
    """A device map that is made by itself puts a part of the model in main memory."""
    memory = subject.memory
    if subject.value("device_map") not in AUTOMATIC or not subject.recipe.trains:
        return
    if memory is None or memory.gpu is None or not memory.weights_exceed or subject.shared:
        return
    gpu, size = memory.gpu, memory.least_weights or 0
    quantized = subject.setup.quantization is not None
    smaller = not quantized and subject.setup.quantizable
    what = (
        "transformers refuses quantized modules there, and else " if quantized else ""
    ) + "the backward still needs every layer's weights on the GPU"
    yield Finding(
        f"device_map: {subject.value('device_map')} puts at least "
        f"{(size - gpu.nominal_bytes) / GIB:.2f} GiB of the model in main memory: its weights need "
        f"{size / GIB:.2f} GiB, {gpu.name} has {gpu.nominal_bytes / GIB:.2f} GiB",
        field="device_map",
        label="offloading is made for inference",
        help=f"{what}; {'load it in 4 bits' if smaller else 'a smaller model or more GPUs'}",
    )


@check("GM411")
def device_map_auto_distributed(subject: RecipeSubject) -> Iterator[Finding]:
    """Every process would divide the model among all GPUs."""
    if subject.dialect.name != "peft_python" or subject.value("device_map") not in _BALANCED:
        return
    around = next((name for name in ("deepspeed", "fsdp") if _is_on(subject, name)), None)
    if around is None or not subject.states("device_map"):
        return
    yield Finding(
        f'device_map="{subject.value("device_map")}" with {around}: each process would put the '
        "model on all GPUs",
        field="device_map",
        notes=(Note("", around),),
        help="accelerate stops with \"You can't train a model that has been loaded with "
        "`device_map='auto'` in any distributed mode\" where a process sees several GPUs, "
        "transformers under ZeRO-3 in any case",
        wishes=(Wish("without device_map", (Unset("device_map"),)),),
    )


def _is_on(subject: RecipeSubject, name: str) -> bool:
    value = subject.value(name)
    return subject.states(name) and value is not UNKNOWN and value not in (None, False, "", [], {})
