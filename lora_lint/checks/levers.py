"""What a run could change to need less memory, solved with the run's own estimate.

The order is that of the price: first what costs time alone, then what costs a little quality, the
rank at the very end, since it hardly frees anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.diagnostics import Set, Wish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.memory import MemoryEstimate

# Below this share of the peak a lever is not worth a line, but for the rank, which people try.
_WORTH: Final = 0.005
_LEAST_LENGTH: Final = 256
# Frameworks without a switch for checkpoints.
_NO_SWITCH: Final = ("litgpt",)
_FOUR_BIT: Final = {"quantization": "nf4", "double_quant": True}


# A title, the changes, the price.
Offer = tuple[str, dict[str, Any], str]


class Lever(NamedTuple):
    """A change of some recipe fields, what it costs, and the memory of the run with it.

    ``saved`` are bytes of the peak. A step of a plan counts upon the steps before it.
    """

    title: str
    changes: Mapping[str, Any]
    price: str
    saved: int
    memory: MemoryEstimate

    def wish(self) -> Wish:
        """The change as a fix."""
        return Wish(self.title, tuple(Set(name, value) for name, value in self.changes.items()))


def levers(subject: RecipeSubject) -> tuple[Lever, ...]:
    """What single changes save, by their price; none where the peak is not known."""
    memory = subject.estimate()  # of the same kind as those of the changes
    if memory is None or memory.peak is None:
        return ()
    return tuple(_pulled(subject, memory, {}, _offers(subject)))


def plan(subject: RecipeSubject) -> tuple[Lever, ...]:
    """The first levers that together make the run fit its GPU; none where they do not, or where
    it fits already.
    """
    memory = subject.estimate()
    if memory is None or memory.peak is None or memory.verdict not in ("oom", "risk"):
        return ()
    offers = [offer for offer in _offers(subject) if "r" not in offer[1]]
    steps = _together(subject, memory, offers)
    if not steps or steps[-1].memory.verdict != "fits":
        return ()
    needed = [offer for offer in offers if any(offer[0] == step.title for step in steps)]
    for offer in reversed(needed):  # the dearest first: perhaps it fits without
        fewer = _together(subject, memory, [other for other in needed if other is not offer])
        if fewer and fewer[-1].memory.verdict == "fits":
            needed.remove(offer)
            steps = fewer
    return tuple(steps)


def _together(subject: RecipeSubject, memory: MemoryEstimate, offers: list[Offer]) -> list[Lever]:
    """The offers one upon the other until the run fits, those left out that save nothing more."""
    changes: dict[str, Any] = {}
    chosen: list[Lever] = []
    for offer in offers:
        for lever in _pulled(subject, memory, changes, [offer]):
            chosen.append(lever)
            changes |= lever.changes
            memory = lever.memory
        if memory.verdict == "fits":
            break
    return chosen


def _pulled(
    subject: RecipeSubject,
    before: MemoryEstimate,
    given: Mapping[str, Any],
    offers: list[Offer],
) -> Iterator[Lever]:
    """The offers that save something beside what is changed already."""
    least = _WORTH * (before.peak or 0)
    for title, changes, price in offers:
        after = subject.estimate(**{**given, **changes})
        if after is None or after.peak is None or before.peak is None:
            continue
        saved = before.peak - after.peak
        if saved > least or ("r" in changes and saved > 0):
            yield Lever(title, changes, price, saved, after)


def _offers(subject: RecipeSubject) -> list[Offer]:
    """The levers that are left, the cheapest first."""
    return [*_free(subject), *_for_time(subject), *_for_quality(subject)]


def _free(subject: RecipeSubject) -> Iterator[Offer]:
    name = _FUSED_LOSS.get(subject.recipe.dialect)
    if name is not None and subject.recipe.objective in (None, "sft", "pt"):
        yield name, {"fused_loss": True}, "no logits at once, same result"


# What makes a framework's loss never hold all logits (Liger's fused linear cross entropy).
_FUSED_LOSS: Final = {
    "trl": "use_liger_kernel: true",
    "peft_python": "use_liger_kernel=True",
    "llama_factory": "enable_liger_kernel: true",
    "ms_swift": "use_liger_kernel: true",
    "axolotl": "liger_fused_linear_cross_entropy: true",
    "oumi": "enable_liger_kernel: true",
}


def _for_time(subject: RecipeSubject) -> Iterator[Offer]:
    if subject.setup.checkpointing is not True and subject.dialect.name not in _NO_SWITCH:
        yield (
            "gradient_checkpointing: true",
            {"gradient_checkpointing": True},
            "same result, each layer's forward runs twice",
        )
    batch, steps = (
        subject.value("per_device_train_batch_size"),
        subject.value("gradient_accumulation_steps"),
    )
    if isinstance(batch, int) and batch > 1:
        times = batch * (steps if isinstance(steps, int) and steps > 0 else 1)
        yield (
            f"batch 1, {times} accumulation steps",
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": times},
            "same effective batch, slower",
        )


def _for_quality(subject: RecipeSubject) -> Iterator[Offer]:
    quantization = subject.setup.quantization
    if quantization in ("nf4", "fp4") and subject.value("double_quant") is not True:
        yield "double quantization", {"double_quant": True}, "hardly any quality"
    if quantization is None and subject.setup.quantizable:
        yield "4-bit base (nf4, double quantization)", _FOUR_BIT, "a little quality, slower"
    optim = subject.value("optim")
    if not isinstance(optim, str) or "8bit" not in optim:
        yield "optim: adamw_8bit", {"optim": "adamw_8bit"}, "hardly any quality"
    length = subject.value("max_length")
    if isinstance(length, int) and length >= 2 * _LEAST_LENGTH:
        yield (
            f"sequences of {length // 2} tokens",
            {"max_length": length // 2},
            "longer samples are cut",
        )
    r = subject.value("r")
    if isinstance(r, int) and r > 1:
        yield f"r: {r // 2}", {"r": r // 2}, "capacity"
