"""Losses that never hold all logits: what they make in the forward, keep, and make in the backward.

``liger`` (liger_kernel 0.8.5 ops/fused_linear_cross_entropy.py) works in chunks of no more than
next_power_of_2(tokens / (V / h)) x V logits, so of at most twice tokens x h values, in the compute
dtype and in fp32, beside the gradient of its input and autocast's copy of an fp32 weight.

TRL's own takes 256 tokens at a time, each computed again in the backward, on a copy of the hidden
states in another order. Up to 1.12 it makes the head's weight fp32 for each chunk (``trl_1.7``; trl
1.7.0 to 1.12.0 trainer/sft_trainer.py ``_chunk``: ``w.float()``), since 1.13 it takes it as it is
(``trl_1.13``). Since 1.15 (``trl_1.15``; trl 1.16.0 kernels/chunked_logprob.py) it takes tiles of
4096 tokens x 32768 words, which the backward turns into gradients where they are, and sums the
hidden states' gradient in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from lora_lint.memory.tape import ONE, as_bytes, plus

if TYPE_CHECKING:
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Linear
    from lora_lint.memory.tape import Bytes, Tensor

Kind = Literal["liger", "trl_1.7", "trl_1.13", "trl_1.15"]

_CHUNK: Final = 256
# Tokens and words of a tile.
TILE: Final = 4096, 32768


def beside(
    kind: Kind, run: Run, hidden: Tensor, linear: Linear, *, few: bool
) -> tuple[list[Bytes], list[Bytes]]:
    """What a loss needs beside the hidden states that it gets: moments of its forward, and of its
    backward, in which their gradient has their place. ``few``: there are no more tokens than a tile
    has.
    """
    one, weight = hidden.count * hidden.width, linear.d_in * linear.d_out
    states = as_bytes((hidden.unit, one))
    compute = 2 if run.autocast else hidden.width
    if kind == "liger":
        size = 2.0 * (compute + 4) * hidden.count
        copied = 2 * weight if run.autocast and run.plain_bytes == 4 else 0
        moment = plus(states, plus(as_bytes((hidden.unit, size)), as_bytes((ONE, copied))))
        return [moment], [moment]
    # The states in the order, or at the places, that the loss takes.
    if kind == "trl_1.15":
        words = min(TILE[1], linear.d_out)
        tokens = hidden.count / linear.d_in
        tile = (hidden.unit, tokens * words * compute) if few else (ONE, TILE[0] * words * compute)
        copied = compute * words * linear.d_in * (run.plain_bytes != compute)
        held = plus(states, plus(as_bytes(tile), as_bytes((ONE, copied))))
        return [held], [plus(held, as_bytes((hidden.unit, 4.0 * hidden.count)))]
    values = _CHUNK * linear.d_out
    # The weight in another type, autocast's copy of that, and which of both the product refers to.
    wide = 4 if kind == "trl_1.7" else hidden.width
    made = wide * weight * (run.plain_bytes != wide)
    lowered = 2 * weight * (run.autocast and wide == 4)
    product = made + lowered + (2 if run.autocast else wide) * values
    # Logits, log_softmax's output, for the entropy its exponential and their product. The backward
    # computes again what it needs of that, and adds the gradients of slices in one as large as the
    # states.
    logits = 2 if kind == "trl_1.7" and run.autocast else 4
    again = 12 if kind == "trl_1.7" else 16
    forward = (product, (logits + 12) * values)
    backward = (product, (lowered or made) + again * values)
    return (
        [plus(states, as_bytes((ONE, size))) for size in forward],
        [plus(states, as_bytes((ONE, size))) for size in backward],
    )
