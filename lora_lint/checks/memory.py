"""GM: whether the run fits the GPU, and what its memory goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.memory import Gpu, MemoryEstimate

GIB: Final = 2**30
# Below this, modules_to_save is not worth a word.
_MUCH: Final = GIB
# More than this share of the peak in adapters, and their rank is a lever after all.
_LEVER: Final = 0.1


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.2f} GiB"


def _shared_out(subject: RecipeSubject) -> bool:
    """Whether the model may be spread over several devices, or kept elsewhere."""
    gpu = subject.gpu
    spread = any(subject.value(name) not in (None, False, "") for name in ("deepspeed", "fsdp"))
    return gpu is None or gpu.count > 1 or spread or isinstance(subject.value("device_map"), str)


def _judged(subject: RecipeSubject) -> tuple[MemoryEstimate, Gpu] | None:
    """The estimate of a run on one GPU that must hold it all; None where that is not the case."""
    memory = subject.memory
    if memory is None or memory.gpu is None or not subject.recipe.trains or _shared_out(subject):
        return None
    return memory, memory.gpu


@check("GM401")
def weights_exceed_gpu(subject: RecipeSubject) -> Iterator[Finding]:
    """The base model's weights alone are larger than the GPU's memory."""
    judged = _judged(subject)
    if judged is None or not judged[0].weights_exceed:
        return
    memory, gpu = judged
    stated = subject.recipe["dtype"].origin != "unset" and "dtype" not in memory.assumed
    held = subject.value("quantization")
    quantized = held if held not in (None, "none") else None
    size = gib(memory.least_weights or 0)
    size += f" in {quantized or subject.value('dtype')}" if stated or quantized else " at least"
    assumed = "" if stated else "; the file does not say in which dtype it is loaded"
    yield Finding(
        f"the weights alone need {size}, {gpu.name} has {gib(gpu.nominal_bytes)}{assumed}",
        field=next((n for n in ("quantization", "dtype") if subject.states(n)), "base_model"),
        severity=None if stated else "warning",
        label="more than the GPU has",
        help=_smaller(subject, gpu),
    )


def _smaller(subject: RecipeSubject, gpu: Gpu) -> str:
    """What the weights would need in 4 bits."""
    if subject.value("quantization") in ("nf4", "fp4"):
        return "a smaller model, a larger GPU, or several of them"
    estimate = subject.estimate(quantization="nf4", double_quant=True)
    four = estimate.bytes["weights"] if estimate else None
    if four is None or four > gpu.usable_bytes:
        return "a smaller model, a larger GPU, or several of them"
    return f"in 4 bits (nf4, double_quant) they need {gib(four)}"


@check("GM402")
def training_likely_oom(subject: RecipeSubject) -> Iterator[Finding]:
    """The run's peak is larger than the GPU's memory."""
    judged = _judged(subject)
    if judged is None or judged[0].weights_exceed or judged[0].verdict not in ("oom", "risk"):
        return
    memory, gpu = judged
    if memory.low is None:
        return
    parts = sorted(((size or 0, name) for name, size in memory.bytes.items()), reverse=True)
    largest = ", ".join(f"{name.replace('_', ' ')} {gib(size)}" for size, name in parts[:3])
    if memory.verdict == "oom":
        peak = memory.peak if memory.peak is not None else memory.low
        about = "about" if memory.peak is not None else "at least"
        message = f"training needs {about} {gib(peak)}, {gpu.name} has {gib(gpu.usable_bytes)}"
    elif memory.peak is None or memory.high is None:
        return
    else:
        message = (
            f"training may not fit: {gib(memory.low)} to {gib(memory.high)}, {gpu.name} has "
            f"{gib(gpu.usable_bytes)}"
        )
    yield Finding(
        message,
        field="max_length" if subject.recipe["max_length"].path else None,
        severity=None if memory.verdict == "oom" else "info",
        label=largest,
        help=_lever(subject),
    )


def _levers(subject: RecipeSubject) -> list[tuple[int, str]]:
    """What single changes would save, in bytes of the peak, the largest first."""
    memory = subject.memory
    if memory is None or memory.peak is None:
        return []
    length, batch = subject.value("max_length"), subject.value("per_device_train_batch_size")
    changes: list[tuple[str, dict[str, Any]]] = []
    if subject.value("gradient_checkpointing") is not True:
        changes.append(("gradient_checkpointing: true", {"gradient_checkpointing": True}))
    if subject.value("quantization") in (None, "none"):
        changes.append(("4-bit weights (nf4)", {"quantization": "nf4", "double_quant": True}))
    if isinstance(batch, int) and batch > 1:
        changes.append(("a batch of 1", {"per_device_train_batch_size": 1}))
    elif isinstance(length, int) and length > 512:
        changes.append((f"sequences of {length // 2}", {"max_length": length // 2}))
    savings = []
    for title, change in changes:
        changed = subject.estimate(**change)
        if changed is not None and changed.peak is not None and changed.peak < memory.peak:
            savings.append((memory.peak - changed.peak, title))
    return sorted(savings, reverse=True)


def _lever(subject: RecipeSubject) -> str | None:
    levers = _levers(subject)[:2]
    return "; ".join(f"{title} would save about {gib(saved)}" for saved, title in levers) or None


@check("GM403")
def rank_is_not_the_memory_lever(subject: RecipeSubject) -> Iterator[Finding]:
    """A lower rank hardly saves memory."""
    judged, r = _judged(subject), subject.value("r")
    if judged is None or judged[0].verdict not in ("oom", "risk"):
        return
    if not isinstance(r, int) or r < 2 or not subject.recipe.written("r") or subject.tree is None:
        return
    from lora_lint.memory import rank_saving

    _, gpu = judged
    saved = rank_saving(subject.tree, subject.kwargs, r // 2, injection=subject.injection)
    if saved is None or saved <= 0 or saved > _LEVER * gpu.usable_bytes:
        return
    better = next(iter(_levers(subject)), None)
    more = f"; {better[1]} would save {gib(better[0])}" if better and better[0] > saved else ""
    yield Finding(
        f"a lower rank is no remedy: r {r} -> {r // 2} saves {saved / 2**20:,.0f} MiB of the "
        f"{gib(gpu.usable_bytes)}{more}",
        field="r",
        label=f"{100 * saved / gpu.usable_bytes:.2g} % of the GPU",
    )


@check("GM406")
def saved_modules_dominate_memory(subject: RecipeSubject) -> Iterator[Finding]:
    """modules_to_save trains far more than LoRA does."""
    written = subject.value("modules_to_save")
    if not isinstance(written, list) or subject.tree is None or not subject.recipe.trains:
        return
    from lora_lint.memory import saved_modules_share

    optim = subject.value("optim")
    share = saved_modules_share(
        subject.tree, subject.injection, optim=optim if isinstance(optim, str) else None
    )
    if share is None or share.ratio is None or share.ratio < 2 or share.saved.bytes < _MUCH:
        return
    yield Finding(
        f"modules_to_save trains {share.saved.parameters:,} full parameters "
        f"({gib(share.saved.bytes)} with gradients and optimizer), {share.ratio:.0f} times the "
        "LoRA part",
        field="modules_to_save",
        label="and the saved adapter holds them all",
        help="if only new tokens matter, trainable_token_indices (peft>=0.15) trains their rows "
        "alone",
    )
