"""A layer's forward and backward on a tape, and what of them can be a step's peak."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from lora_lint.memory.attention import Place, Rows
from lora_lint.memory.blocks import Blocks
from lora_lint.memory.tape import (
    NOTHING,
    Bytes,
    Leaf,
    Pass,
    Storage,
    Tape,
    Tensor,
    as_bytes,
    peaks_of,
    plus,
)

if TYPE_CHECKING:
    from lora_lint.memory import litgpt, torchtune
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Layer

# Ranks of the adapted projections of one layer, by name within the layer, in multiples of the
# model's.
Ranks = tuple[tuple[str, int], ...]


class Setting(NamedTuple):
    """Where a layer stands: the rows of its stream and of the encoder's output that it reads,
    whether its masks are there, bytes of a value of the stream, whether its input and the encoder's
    output need gradients, how many values a token of the latter has, and whether its padding is
    masked.
    """

    rows: Rows
    memory: Rows | None
    masked: bool
    stream: int
    grad: bool
    memory_grad: bool = False
    memory_hidden: int = 0
    memory_masked: bool = False


class Figures(NamedTuple):
    """A pass in bytes: see ``tape.Pass``."""

    kept: float
    held: float
    gradients: float
    casts: float
    forward: float
    backward: float


@lru_cache(maxsize=1024)
def layer_pass(layer: Layer, ranks: Ranks, run: Run, setting: Setting) -> Pass:
    """The pass of a layer. ``run`` has batch and length 0, since the pass serves all, and every
    rank.
    """
    tape = Tape(autocast=run.autocast)
    unit, factor = setting.rows
    x = tape.new(unit, factor * layer.hidden, setting.stream, grad=setting.grad)
    memory = None
    if setting.memory is not None:  # counted once for all layers, so here it has no bytes
        there, times = setting.memory
        node = Leaf() if setting.memory_grad else None
        nothing = tape.scratch(there, 0)
        memory = Tensor(there, times * setting.memory_hidden, setting.stream, nothing, node)
        del nothing
    place = Place(setting.rows, setting.rows, setting.masked, run.plain_bytes)
    across = None
    if setting.memory is not None:
        across = place._replace(keys=setting.memory, masked=setting.memory_masked)
    own = _own_layers(tape, run, ranks, place, layer) if run.code != "hf" else None
    blocks = Blocks(tape, run, dict(ranks), place, across)
    y = own.layer(x, layer) if own is not None else blocks.layer(x, layer, memory)
    top = y.node
    ends = [t.node for t in (x, memory) if t is not None and isinstance(t.node, Leaf)]
    if run.checkpointing and top is not None:
        del top
        passing = [x, y]
        del x, y, memory
        how = _reentrant if run.reentrant else _non_reentrant
        return how(tape, passing, ends)
    forward = (*tape.moments, tuple(tape.live))
    size, width = y.size, y.width
    casts = _casts(tape)
    del x, memory, y
    kept = tuple(tape.live)
    tape.moments.clear()
    if top is None:
        return Pass(
            NOTHING, NOTHING, peaks_of(forward), (), NOTHING, NOTHING, flows=False, width=width
        )
    tape.backward(top, [Storage(tape, *size)])
    tape.moments.append(tuple(tape.live))
    backward = peaks_of(tape.moments)
    held, left = _held(tape), _left(tape, ends)
    return Pass(kept, held, peaks_of(forward), backward, left, casts, flows=True, width=width)


def _own_layers(
    tape: Tape, run: Run, ranks: Ranks, place: Place, layer: Layer
) -> litgpt.Layers | torchtune.Layers | None:
    """A framework's own layers; None where they are not described."""
    from lora_lint.memory import litgpt, torchtune

    if not litgpt.is_described(layer):
        return None
    own = litgpt.Layers if run.code == "litgpt" else torchtune.Layers
    return own(tape, run, dict(ranks), place)


def _reentrant(tape: Tape, passing: list[Tensor], ends: list[Leaf]) -> Pass:
    """The layer is computed again, then its backward runs inside that of the checkpoint, which
    holds output and gradient until it ends (torch/utils/checkpoint.py ``CheckpointFunction``).
    """
    y, x = passing.pop(), passing.pop()
    gradient = Storage(tape, *y.size)
    again = [plus(moment, as_bytes(y.size)) for moment in tape.moments]
    again.append(tuple(tape.live))
    tape.moments.clear()
    tape.backward(y.node, [gradient])
    backward = peaks_of([*again, *tape.moments, tuple(tape.live)])
    own, casts, width = as_bytes(x.size), _casts(tape), y.width
    del x, y, gradient
    left = _left(tape, ends)
    return Pass(own, NOTHING, (), backward, left, casts, flows=True, width=width)


def _non_reentrant(tape: Tape, passing: list[Tensor], ends: list[Leaf]) -> Pass:
    """The backward starts, and when it first asks for something kept the layer is computed again,
    up to the last tensor that is kept (torch/utils/checkpoint.py, ``early_stop``).
    """
    y, x = passing.pop(), passing.pop()
    stops = tape.saves
    again = tape.moments[:stops] or [tuple(tape.live)]
    own, size, width, held = as_bytes(x.size), y.size, y.width, _held(tape)
    casts = _casts(tape)
    node = y.node
    del y
    before = tuple(tape.live)
    tape.moments.clear()
    pending = tape.backward(node, [Storage(tape, *size)])
    tape.moments.append(tuple(tape.live))
    extra = plus(pending, before, -1) if pending else NOTHING
    moments = [*(plus(moment, extra) for moment in again), *tape.moments]
    del node, x
    left = _left(tape, ends)
    kept = plus(own, held)
    return Pass(kept, held, (), peaks_of(moments), left, casts, flows=True, width=width)


def _casts(tape: Tape) -> Bytes:
    total = NOTHING
    for storage in tape.casts:
        total = plus(total, as_bytes((storage.unit, storage.size)))
    return total


def _held(tape: Tape) -> Bytes:
    total = NOTHING
    for storage in {id(storage): storage for storage in tape.held}.values():
        total = plus(total, as_bytes((storage.unit, storage.size)))
    return total


def _left(tape: Tape, ends: list[Leaf]) -> Bytes:
    """What is alive after a backward beside the gradients of its inputs: those of parameters."""
    tape.casts.clear()
    tape.held.clear()
    for leaf in ends:
        leaf.buffer = None
    return tuple(tape.live)
