"""GM: whether the run fits the GPU, and what its memory goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.checks.levers import levers, plan
from lora_lint.checks.loading import AUTOMATIC
from lora_lint.checks.quantization import is_recorded
from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Set, Wish
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.checks.levers import Lever
    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.memory import Gpu, MemoryEstimate

GIB: Final = 2**30
# Below this, modules_to_save is not worth a word.
_MUCH: Final = GIB
# What logits and their gradients must need to be worth a word.
_MANY: Final = 4 * GIB
# More than this share of the peak in adapters, and their rank is a lever after all.
_LEVER: Final = 0.1
# What TRL cuts sequences to where nothing is said (trl 1.16.0 trainer/sft_config.py).
_USUAL_LENGTH: Final = 1024
_BATCH: Final = "per_device_train_batch_size"
_EVAL_BATCH: Final = "per_device_eval_batch_size"
# What is trained for where evaluation is the loss of a batch; others generate, or take two at once.
_LOSS_OF_A_BATCH: Final = (None, "sft", "pt")
# By how much evaluation's peak has to be above training's.
_WORTH_A_WORD: Final = GIB // 2


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.2f} GiB"


def _judged(subject: RecipeSubject) -> tuple[MemoryEstimate, Gpu] | None:
    """The estimate of a run on one GPU, or on the fullest of several that share it in a known way;
    None where that is not the case.
    """
    memory = subject.memory
    if memory is None or memory.gpu is None or not subject.recipe.trains:
        return None
    if memory.gpu.count > 1 and subject.shared is None:
        return None  # they may share the model
    return memory, memory.gpu


def _has(subject: RecipeSubject, gpu: Gpu) -> str:
    """What a GPU has, in words."""
    which = f"each {gpu.name}" if gpu.count > 1 or subject.shared is not None else gpu.name
    return f"{which} has {gib(gpu.usable_bytes)}"


@check("GM401")
def weights_exceed_gpu(subject: RecipeSubject) -> Iterator[Finding]:
    """The base model's weights alone are larger than the GPU's memory."""
    judged = _judged(subject)
    if judged is None or not judged[0].weights_exceed or subject.value("device_map") in AUTOMATIC:
        return
    memory, gpu = judged
    stated = subject.recipe["dtype"].origin != "unset" and "dtype" not in memory.assumed
    held = subject.setup.quantization
    quantized = held if held not in (None, "none") else None
    size = gib(memory.least_weights or 0)
    size += f" in {quantized or subject.value('dtype')}" if stated or quantized else " at least"
    assumed = "" if stated else "; the file does not say in which dtype it is loaded"
    by_name = quantized and not subject.states("quantization") and not is_recorded(subject)
    if by_name:
        assumed = "; that they are quantized is told by the model's name alone"
    yield Finding(
        f"the weights alone need {size}, {gpu.name} has {gib(gpu.nominal_bytes)}{assumed}",
        field=_decides_size(subject, quantized=bool(quantized)),
        severity=None if stated and not by_name else "warning",
        label="more than the GPU has",
        help=_smaller(subject, gpu),
    )


def _decides_size(subject: RecipeSubject, *, quantized: bool) -> str:
    """The field that decides how large the weights are."""
    name = "quantization" if quantized else "dtype"
    return name if subject.states(name) else "base_model"


def _smaller(subject: RecipeSubject, gpu: Gpu) -> str:
    """What the weights would need in 4 bits."""
    if subject.setup.quantization in ("nf4", "fp4") or not subject.setup.quantizable:
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
    if judged is None or judged[0].weights_exceed:
        return
    memory, gpu = judged
    if memory.peak is None and memory.verdict == "unknown":
        yield from _lengths_that_fit(subject, gpu)
    if memory.verdict not in ("oom", "risk") or memory.low is None:
        return
    parts = sorted(((size or 0, name) for name, size in memory.bytes.items()), reverse=True)
    largest = ", ".join(f"{name.replace('_', ' ')} {gib(size)}" for size, name in parts[:3])
    if memory.verdict == "oom":
        peak = memory.peak if memory.peak is not None else memory.low
        about = "about" if memory.peak is not None else "at least"
        message = f"training needs {about} {gib(peak)}{_of(memory)}, {_has(subject, gpu)}"
    elif memory.peak is None or memory.high is None:
        return
    else:
        message = (
            f"training may not fit: {gib(memory.low)} to {gib(memory.high)}{_of(memory)}, "
            f"{_has(subject, gpu)}"
        )
    steps = plan(subject)
    told = _remedy(steps) or _largest_savings(subject), _shorter(subject)
    yield Finding(
        message,
        field="max_length" if subject.recipe["max_length"].path else None,
        severity=None if memory.verdict == "oom" else "info",
        label=largest,
        help="; ".join(filter(None, told)) or None,
        wishes=(_wish(steps),) if steps else (),
    )


def _of(memory: MemoryEstimate) -> str:
    """The batch that a peak is for: the largest that the settings allow."""
    run = memory.run
    return "" if run is None or memory.peak is None else f" for {run.batch} x {run.length:,} tokens"


def _shorter(subject: RecipeSubject) -> str | None:
    """The length up to which batches fit, where no setting makes all as long as they may be."""
    memory = subject.memory
    if memory is None or memory.peak is None or subject.value("packing") not in (None, False):
        return None
    longest = subject.longest()
    return f"sequences of up to {longest:,} tokens fit as it is" if longest else None


def _remedy(steps: Sequence[Lever]) -> str | None:
    if not steps:
        return None
    peak = steps[-1].memory.peak or 0
    return f"to make it fit: {', then '.join(step.title for step in steps)} ({gib(peak)})"


def _wish(steps: Sequence[Lever]) -> Wish:
    """All changes of a plan as one fix; of two of the same field the later."""
    changes = {name: value for step in steps for name, value in step.changes.items()}
    title = "; ".join(step.title for step in steps)
    return Wish(title, tuple(Set(name, value) for name, value in changes.items()))


def _others(subject: RecipeSubject) -> list[Lever]:
    """The levers beside the rank, the one that saves most first."""
    others = [lever for lever in levers(subject) if "r" not in lever.changes]
    return sorted(others, key=lambda lever: lever.saved, reverse=True)


def _largest_savings(subject: RecipeSubject) -> str | None:
    told = (f"{lever.title}: about {gib(lever.saved)} less" for lever in _others(subject)[:2])
    return "; ".join(told) or None


def _lengths_that_fit(subject: RecipeSubject, gpu: Gpu) -> Iterator[Finding]:
    """Where nothing says how long sequences are: the length that fits, if it is a short one."""
    batch = subject.value("per_device_train_batch_size")
    if batch is UNKNOWN or subject.value("max_length") is UNKNOWN:
        return
    longest = subject.longest()
    if longest is None or longest >= _USUAL_LENGTH:
        return
    rows = batch if isinstance(batch, int) else 8
    fits = f"{longest} token{'s' * (longest != 1)}" if longest else "not even one token"
    yield Finding(
        f"the length of sequences is not known; with {rows} in a batch, {fits} fit for certain: "
        f"{_has(subject, gpu)}",
        severity="info",
        field="per_device_train_batch_size" if subject.states(_BATCH) else None,
        label="sequences longer than that may not fit" if longest else None,
    )


@check("GM403")
def rank_is_not_the_memory_lever(subject: RecipeSubject) -> Iterator[Finding]:
    """A lower rank hardly saves memory."""
    judged, r = _judged(subject), subject.value("r")
    if judged is None or judged[0].verdict not in ("oom", "risk"):
        return
    tree, injection = subject.weighed
    if not isinstance(r, int) or r < 2 or not subject.recipe.written("r") or tree is None:
        return
    from lora_lint.memory import rank_saving

    _, gpu = judged
    saved = rank_saving(tree, subject.kwargs, r // 2, injection=injection)
    lower = next((lever.saved for lever in levers(subject) if "r" in lever.changes), 0)
    if saved is None or saved <= 0 or max(saved, lower) > _LEVER * gpu.usable_bytes:
        return
    better = next(iter(_others(subject)), None)
    more = ""
    if better is not None and better.saved > max(saved, lower):
        more = f"; {better.title}: {gib(better.saved)} less"
    at_peak = f", {lower / 2**20:,.0f} MiB at the peak," if lower else ""
    yield Finding(
        f"a lower rank is no remedy: r {r} -> {r // 2} frees {saved / 2**20:,.0f} MiB of state"
        f"{at_peak} of the {gib(gpu.usable_bytes)}{more}",
        field="r",
        label=f"{100 * max(saved, lower) / gpu.usable_bytes:.2g} % of the GPU",
    )


@check("GM404")
def gradient_checkpointing_off(subject: RecipeSubject) -> Iterator[Finding]:
    """The file turns checkpointing off in a run that does not fit."""
    judged = _judged(subject)
    if judged is None or judged[0].weights_exceed or judged[0].verdict not in ("oom", "risk"):
        return
    name = "gradient_checkpointing"
    if not subject.states(name) or subject.value(name) is not False:
        return
    lever = next((lever for lever in levers(subject) if name in lever.changes), None)
    if lever is None:
        return
    yield Finding(
        f"gradient checkpointing is off; on, it saves about {gib(lever.saved)} of the "
        f"{gib(judged[0].peak or 0)} here",
        field=name,
        label=lever.price,
        wishes=(lever.wish(),),
    )


@check("GM407")
def logits_dominate_memory(subject: RecipeSubject) -> Iterator[Finding]:
    """The logits are the largest part of the peak; where the GPU is known GM402 looks at it."""
    if subject.gpu is not None or not subject.recipe.trains or not _has_many_logits(subject):
        return
    if not subject.states(_BATCH) or not subject.states("max_length"):
        return  # of what nobody wrote, no more is said than the facts
    memory = subject.memory
    if memory is None or memory.peak is None or "fused_loss" in memory.assumed:
        return
    size = memory.bytes["logits"] or 0
    if size < _MANY or size < max(part or 0 for part in memory.bytes.values()):
        return
    batch, length = subject.value(_BATCH), subject.value("max_length")
    lever = next((lever for lever in levers(subject) if "fused_loss" in lever.changes), None)
    yield Finding(
        f"the logits need {gib(size)} of the {gib(memory.peak)} at the peak: {batch} x {length:,} "
        f"tokens x a vocabulary of {_vocabulary(subject):,}",
        field="max_length",
        label="and their gradients",
        help=f"{lever.title} saves about {gib(lever.saved)}: {lever.price}" if lever else None,
        wishes=(lever.wish(),) if lever else (),
    )


def _vocabulary(subject: RecipeSubject) -> int:
    """The rows of the output embeddings, 0 where they are not known."""
    tree = subject.tree
    head = tree.get(tree.facts.get("output_embeddings") or "") if tree is not None else None
    shape = head.parameters.get("weight") if head is not None else None
    return int(shape[0]) if shape else 0


def _has_many_logits(subject: RecipeSubject) -> bool:
    """Whether the logits are large enough to ask for an estimate."""
    batch, length = subject.value(_BATCH), subject.value("max_length")
    if not isinstance(batch, int) or not isinstance(length, int):
        return False
    return 12 * batch * length * _vocabulary(subject) >= _MANY


@check("GM408")
def eval_batch_larger_than_train(subject: RecipeSubject) -> Iterator[Finding]:
    """The batches of evaluation need more than the training step, which the GPU may not have."""
    if subject.value("eval_strategy") not in ("steps", "epoch") or not subject.recipe.trains:
        return
    if subject.recipe.objective not in _LOSS_OF_A_BATCH:
        return
    ours, trained = subject.value(_EVAL_BATCH), subject.value(_BATCH)
    trained = 8 if trained is None else trained  # transformers' default
    if not isinstance(ours, int) or not isinstance(trained, int) or ours <= trained:
        return
    memory = subject.memory
    if memory is None or memory.peak is None or memory.verdict == "oom":
        return  # GM402 speaks of the training step
    if memory.gpu is not None and _judged(subject) is None:
        return
    step = subject.evaluation(ours)
    if step is None or step.beyond < _WORTH_A_WORD:
        return
    gpu = memory.gpu
    if gpu is not None and step.least <= gpu.usable_bytes:
        return
    written = subject.states(_EVAL_BATCH)
    has = f", {_has(subject, gpu)}" if gpu is not None else ""
    yield Finding(
        f"evaluation in batches of {ours}{'' if written else ', the default,'} needs at least "
        f"{gib(step.least)}{has}; training in batches of {trained} about {gib(memory.peak)}",
        field=_EVAL_BATCH if written else "eval_strategy",
        severity=None if gpu is not None else "info",
        label=f"logits of a whole batch: {gib(step.logits)}",
        help="the loss of a batch is all that is asked for, so smaller ones only take longer",
        wishes=(Wish(f"evaluate in batches of {trained}", (Set(_EVAL_BATCH, trained),)),),
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
