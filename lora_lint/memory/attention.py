"""Attention on a tape: rotation, masks, and the kernels that torch chooses from.

Sources: transformers 5.23 integrations/sdpa_attention.py, models/*/modeling_*.py
``eager_attention_forward`` and ``apply_rotary_pos_emb``; torch 2.13 aten/src/ATen/native/
transformers/attention.cpp and cuda/sdp_utils.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lora_lint.memory.tape import BATCH, SCORES, SQUARE, TOKENS, Storage, Tape, Tensor, like

if TYPE_CHECKING:
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Attention


class Rows(NamedTuple):
    """How many tokens a sequence has in a batch: ``factor`` of a unit."""

    unit: int = TOKENS
    factor: float = 1

    def scores(self, other: Rows) -> tuple[int, float]:
        """Pairs with the tokens of another sequence."""
        if self.unit == other.unit == TOKENS:
            return SCORES, 1
        if self.unit == TOKENS:
            return TOKENS, other.factor
        if other.unit == TOKENS:
            return TOKENS, self.factor
        return BATCH, self.factor * other.factor


class Place(NamedTuple):
    """Where attention stands: the rows of its queries and keys, whether a mask is given, and the
    width of the embeddings' values, of which cosines, sines and additive masks are.
    """

    queries: Rows
    keys: Rows
    masked: bool
    stream: int


def kernel(run: Run, attention: Attention, *, masked: bool, width: int) -> str:
    """Which attention runs: ``flash``, ``efficient``, ``math`` or ``eager``.

    For ``sdpa`` torch takes the first that can (sdp_utils.cpp): flash attention only without a
    mask, in 16 bit, from Ampere on, with values as wide as keys, and when training with heads wider
    than 192 not on capability 8.6, 8.9 and 12.0; the memory-efficient kernel only with as many key
    heads as query heads, which transformers repeats only where there is a mask or heads are wide;
    else the math kernel, which makes all scores. ``width``: bytes of a value of q, k and v.
    """
    if attention.style in ("gptj", "bloom") or attention.softcap or attention.sinks:
        return "eager"
    if run.attention != "sdpa":
        return "eager" if run.attention == "eager" else "flash"
    head = attention.q_width // attention.heads
    same = head * attention.kv_heads == attention.k_width == attention.v_width
    narrow = 192 if run.capability in ((8, 6), (8, 9), (12, 0)) else 256
    plain = not masked and not attention.biased
    if plain and same and width == 2 and head <= narrow and run.capability >= (8, 0):
        return "flash"
    grouped = attention.kv_heads < attention.heads
    if grouped and attention.style == "interface":
        grouped = not masked and same and head <= 256
    return "math" if grouped else "efficient"


def attend(
    tape: Tape, run: Run, a: Attention, place: Place, q: Tensor, k: Tensor, v: Tensor
) -> Tensor:
    """Attention's output, before its last projection."""
    if a.style == "falcon":  # it always makes its mask
        place = place._replace(masked=True)
    if tape.autocast and a.style != "gptj":
        kind = kernel(run, a, masked=place.masked, width=2)
        if kind != "eager":
            q, k, v = tape.cast(q, 2), tape.cast(k, 2), tape.cast(v, 2)
    else:
        kind = kernel(run, a, masked=place.masked, width=q.width)
    groups = a.heads // a.kv_heads
    if groups > 1 and kind != "flash":
        k, v = _repeat(tape, k, groups), _repeat(tape, v, groups)
    if kind == "eager":
        return _eager(tape, a, place, q, k, v)
    if kind == "math":
        return _math(tape, a, place, q, k, v)
    return _fused(tape, a, place, q, k, v, kind)


def _repeat(tape: Tape, x: Tensor, groups: int) -> Tensor:
    """``repeat_kv`` copies; the backward sums the copies' gradients."""
    return tape.result((x,), (x.unit, groups * x.count, x.width))


def _fused(
    tape: Tape, a: Attention, place: Place, q: Tensor, k: Tensor, v: Tensor, kind: str
) -> Tensor:
    """Keeps q, k, v, its output and an fp32 number for each head and query. The memory-efficient
    kernel also keeps its mask in the query's type, which torch makes of a boolean one at each call
    (``convert_boolean_attn_mask``). A position bias becomes a mask of each layer's own (``where``
    or ``contiguous`` in ``create_position_bias_mask``).
    """
    unit, factor = place.queries
    saved = [q.storage, k.storage, v.storage]
    pairs = place.queries.scores(place.keys)
    if kind == "efficient" and a.biased:
        saved.extend(_position_mask(tape, a, place, pairs, q.width))
    elif kind == "efficient" and place.masked:
        saved.append(tape.scratch(pairs[0], pairs[1] * q.width))
    values = a.v_width // a.kv_heads * a.heads
    out = tape.result((q, k, v), (unit, factor * values, q.width), saved)
    tape.also_keeps(out, out.storage, tape.scratch(unit, 4 * factor * a.heads))
    return out


def _position_mask(
    tape: Tape, a: Attention, place: Place, pairs: tuple[int, float], width: int
) -> list[Storage]:
    """Of every head; of every sequence only where those differ in their padding. Cross attention's
    is of zeros and shared by all layers, but for autocast's copy.
    """
    if place.masked:
        return [tape.scratch(pairs[0], pairs[1] * a.heads * width)]
    if a.cross and place.stream == width:
        return []
    return [tape.scratch(SQUARE, a.heads * width)]


def _math(tape: Tape, a: Attention, place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In fp32: q and k scaled, v, and softmax's output are kept (``_scaled_dot_product_attention_
    math``).
    """
    width = q.width
    q, k, v = tape.cast(q, 4), tape.cast(k, 4), tape.cast(v, 4)
    q, k = tape.scale(q), tape.scale(k)
    unit, factor = place.queries.scores(place.keys)
    scores = tape.matmul(q, k, (unit, factor * a.heads))
    scores = tape.keeps_output(scores)
    if a.dropout:
        scores = tape.dropout(scores)
    rows, count = place.queries
    out = tape.matmul(scores, v, (rows, count * a.v_width // a.kv_heads * a.heads))
    return tape.copy(tape.cast(out, width))


def _eager(tape: Tape, a: Attention, place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All scores, one step after the other."""
    width = q.width
    unit, factor = place.queries.scores(place.keys)
    if a.style == "gptj" and not tape.autocast:
        q, k = tape.cast(q, 4), tape.cast(k, 4)
    scores = tape.matmul(q, k, (unit, factor * a.heads))
    if a.style not in ("bloom", "falcon"):  # alpha of baddbmm; in place
        scores = tape.scale(scores)
    if a.softcap:
        scores = tape.scale(tape.keeps_output(tape.scale(scores)))
    if a.biased:
        scores = _masked(tape, scores, place.stream)
    if place.masked or a.causal:
        scores = _masked(tape, scores, place.stream)
    if a.sinks:
        scores = tape.copy(scores)
        size = scores.size  # the backward of ``max`` scatters into zeros of this size
        scores = tape.result((scores, scores), like(scores), gives=(None, size), needs=(size,))
        scores = tape.part(tape.keeps_output(scores), scores.count)  # in its own type
        scores = tape.dropout(scores) if a.dropout else scores
        scores = tape.cast(scores, v.width)
    elif a.style == "falcon":  # in the type that its norm gives
        scores = tape.keeps_output(tape.cast(scores, 4 if tape.autocast else width))
        scores = tape.dropout(scores) if a.dropout else scores
    else:
        scores = tape.softmax(scores, wide=a.wide)
        if a.wide or a.style == "gptj":
            scores = tape.cast(scores, v.width if a.style == "gptj" else width)
        scores = tape.dropout(scores) if a.dropout else scores
    rows, count = place.queries
    out = tape.matmul(scores, v, (rows, count * a.v_width // a.kv_heads * a.heads))
    return tape.copy(out)


def _masked(tape: Tape, scores: Tensor, width: int) -> Tensor:
    """With an additive mask of the embeddings' type, to which narrower scores are widened."""
    mask = Tensor(scores.unit, scores.count, width, tape.scratch(scores.unit, 0), None)
    return tape.add(scores, mask)


def rotate(tape: Tape, x: Tensor, share: float, width: int) -> Tensor:
    """``x * cos + rotate_half(x) * sin``: nothing but cosines and sines is kept. ``width`` is
    theirs; ``share`` of each head is rotated, and joined with the rest.
    """
    if share == 1:
        return _rotate(tape, x, width)
    turned, rest = tape.part(x, x.count * share), tape.part(x, x.count * (1 - share))
    return tape.join((_rotate(tape, turned, width), rest))


def _rotate(tape: Tape, x: Tensor, width: int) -> Tensor:
    one = tape.times_parameter(x, width)
    half = x.count / 2
    second = tape.scale(tape.part(x, half))
    turned = tape.join((second, tape.part(x, half)), x.count)
    del second
    other = tape.times_parameter(turned, width)
    return tape.add(one, other)
