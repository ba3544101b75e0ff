"""Traces a deep model at two small depths.

What a step needs at its peak grows with each layer by the same amount, once the layers are of the
same kinds: the peak of each phase is affine in the number of repetitions of the pattern in which
the layers' kinds recur.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lora_lint.memory.tracer.step import Request, Traced, prepare, sizes, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

# Patterns longer than this are not looked for; the deepest real one has 8 layers (Jamba).
_LONGEST = 12


def trace_deep(request: Request) -> Traced:
    """What ``trace`` gives, from two depths where the layers recur in a pattern.

    Raises what ``trace`` raises.
    """
    model = prepare(request)
    kinds = layer_kinds(model)
    depths = two_depths(kinds) if not _by_number(request.lora) else None
    if depths is None:
        del model
        return trace(request)
    weights, trainable, parameters = sizes(model)
    del model
    low, high = (trace(request, depth) for depth in depths)
    times = (len(kinds) - depths[0]) // (depths[1] - depths[0])
    phases = {
        phase: (low.phases[phase][0] + times * (size - low.phases[phase][0]), what)
        for phase, (size, what) in high.phases.items()
    }
    states = low.states + times * (high.states - low.states)
    return Traced(weights, trainable, states, phases, parameters, high.kernels, depths)


def two_depths(kinds: Sequence[object]) -> tuple[int, int] | None:
    """Two depths whose first layers hold the same pattern, a whole number of times less than the
    model does; None where there is none that is worth it.
    """
    whole = len(kinds)
    for period in range(1, _LONGEST + 1):
        start = whole
        while start > period and kinds[start - 1] == kinds[start - 1 - period]:
            start -= 1
        begin = start - period if start < whole else whole
        # Peaks settle after some layers: the first are not followed by others, the last is special.
        low = max(begin, 0) + period
        low += (whole - low) % period
        step = period * max(1, 2 // period)
        if low < 2:
            low += step
        if (whole - low) % step:
            low += period
        if low + step < whole:
            return low, low + step
    return None


def layer_kinds(model: Any) -> list[object]:
    """A description of each layer of a decoder, or of each pair of layers of an encoder and a
    decoder that are as deep: what modules with which parameters it has.
    """
    kinds: dict[str, dict[int, list[object]]] = {}
    for name, parameter in model.named_parameters():
        found = re.search(r"^(.*?\.(?:layers|h|blocks?|layer))\.(\d+)\.(.*)$", name)
        if found:
            stack, number, rest = found.groups()
            what = rest, tuple(parameter.shape), parameter.dtype, parameter.requires_grad
            kinds.setdefault(stack, {}).setdefault(int(number), []).append(what)
    text = model.config.get_text_config()
    stacks = [s for s in kinds.values() if len(s) == getattr(text, "num_hidden_layers", None)]
    both = getattr(model.config, "is_encoder_decoder", False)
    if len(kinds) != (2 if both else 1) or len(stacks) != len(kinds):
        return []
    listed = [v for v in vars(text).values() if isinstance(v, list) and len(v) == len(stacks[0])]
    return [
        (
            tuple(tuple(stack[number]) for stack in stacks),
            tuple(str(values[number]) for values in listed),
        )
        for number in sorted(stacks[0])
    ]


def _by_number(lora: Any) -> bool:
    """Whether LoRA goes by the layers' numbers, which a shallow model would not have."""
    text = f"{lora.get('target_modules')}{lora.get('rank_pattern')}{lora.get('exclude_modules')}"
    chosen = ("layers_to_transform", "layer_replication", "layers_pattern")
    return any(lora.get(name) for name in chosen) or bool(re.search(r"\d", text))
