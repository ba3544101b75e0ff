"""The layers of torchtune's own model as they run, on a tape.

Written as torchtune 0.6.1 writes them (modules/transformer.py ``TransformerSelfAttentionLayer``,
attention.py, feed_forward.py, rms_norm.py, position_embeddings.py, peft/lora.py ``LoRALinear``,
loss/ce_chunked_output_loss.py; models/gemma, gemma2, qwen2; recipes/lora_finetune_single_device.py
``_loss_step``), so that a variable which holds a tensor there holds it here. What is otherwise than
in Hugging Face's modules:

* norms are of an fp32 copy, which is kept; rotation is in fp32, but in Qwen2 in the stream's type,
  for which each layer makes cosines and sines of its own; Phi-3 turns halves of 16 bit by fp32;
* keys and values are repeated for grouped queries whatever the kernel, and no layer has a window
  but Gemma 2's, which computes all scores one step after the other;
* an adapter is not cast, and the embeddings need no gradient for checkpointing;
* an NF4 weight is made whole by steps in Python, which hold its indices as 64-bit integers (torchao
  0.10 dtypes/nf4tensor.py ``get_original_weight``), forward and backward;
* logits come in eight chunks, of which the loss makes fp32 copies one by one, but keeps
  log_softmax's outputs of all;
* LinearCrossEntropyLoss, which torchtune has had since 0.6.1 and which stands here as
  ``fused_loss``, makes logits of one chunk at a time, but keeps log_softmax's outputs of all too;
* Gemma 2 caps what reaches the head, not the logits;
* each layer has its own cosines and sines of as many positions as the model allows (``buffers``).

Shapes come from Hugging Face's module tree; ``as_torchtune`` makes torchtune's of one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.memory.attention import attend
from lora_lint.memory.blocks import activate
from lora_lint.memory.litgpt import attention_of, in_chunks, is_described, mlp_of
from lora_lint.memory.projections import Projections
from lora_lint.memory.shape import Attention, Linear, Mlp, Norm
from lora_lint.memory.tape import (
    BATCH,
    ONE,
    SCORES,
    SQUARE,
    TOKENS,
    HeadPass,
    Leaf,
    Node,
    Storage,
    Tape,
    Tensor,
    as_bytes,
    like,
    peaks_of,
    plus,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.memory.attention import Place
    from lora_lint.memory.litgpt import Ranks
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Head, Layer, Shape, Stack
    from lora_lint.models.module_tree import ModuleTree

# Chunks of the logits (``CEWithChunkedOutputLoss``).
CHUNKS: Final = 8
# Bytes a value of an NF4 weight while it is made whole, and when it is: two indices of eight bytes
# for each byte of the packed weight, their 16-bit values, these scaled, and the whole.
_MAKING: Final = 14
_WHOLE: Final = 2
# How Qwen2's and Phi-3's rotation is told from the others', which is Llama's.
_HALVES: Final = "torchtune_halves"
_WIDE: Final = "torchtune_wide_halves"


class Layers:
    """One layer's parts; ``ranks`` are its adapters'."""

    def __init__(self, tape: Tape, run: Run, ranks: Mapping[str, int], place: Place) -> None:
        self.tape, self.run, self.place, self.ranks = tape, run, place, ranks
        self.plain = Projections(tape, run, {})

    def layer(self, x: Tensor, layer: Layer) -> Tensor:
        """``TransformerSelfAttentionLayer.forward``."""
        tape = self.tape
        attention, mlp = layer.blocks
        h = self._norm(x, attention.pre)
        attended = self.attention(h, attention_of(attention))
        h = tape.add(self._norm(attended, attention.inner), x)
        changed = self.mlp(self._norm(h, mlp.pre), mlp_of(mlp))
        return tape.add(h, self._norm(changed, mlp.inner))

    def _norm(self, x: Tensor, n: Norm | None) -> Tensor:
        return x if n is None else norm(self.tape, x, n)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """``LoRALinear.forward``, or without an adapter that of the base."""
        four = self.run.quantized is not None and linear.quantized
        out = _four_bit(self.tape, x, linear) if four else self.plain(x, linear)
        r = self.ranks.get(linear.name)
        if r is None:
            return out
        tape, width = self.tape, self.run.adapter_bytes
        if self.run.dropout:
            x = tape.dropout(x)
        low = tape.low(x, linear.d_in, r, width, self.plain.leaf())
        lora = tape.scale(tape.high(low, r, linear.d_out, width, self.plain.leaf()))
        return tape.add(out, lora)

    def attention(self, x: Tensor, a: Attention) -> Tensor:
        """``MultiHeadAttention.forward`` and ``Gemma2Attention.forward``."""
        tape = self.tape
        q = self._rotate(self.linear(x, a.into[0]), a)
        k, v = self.linear(x, a.into[1]), self.linear(x, a.into[2])
        k = self._rotate(k, a)
        k, v = self._repeat(k, a), self._repeat(v, a)
        if a.softcap:
            return self.linear(self._capped(a, q, k, v), a.o)
        whole = a._replace(kv_heads=a.heads, k_width=a.q_width, v_width=a.q_width, dropout=False)
        run, place = self.run._replace(attention="sdpa"), self.place._replace(masked=False)
        return self.linear(attend(tape, run, whole, place, q, k, v), a.o)

    def _repeat(self, x: Tensor, a: Attention) -> Tensor:
        """For grouped queries (``expand`` and ``flatten``); of one head that is a view."""
        groups = a.heads // a.kv_heads
        if groups == 1:
            return x
        kind = (x.unit, groups * x.count, x.width)
        if a.kv_heads > 1:
            return self.tape.result((x,), kind)
        node = None
        if x.node is not None:
            node = Node((x.node,), (x.size,), (), ())
            self.tape.nodes.append(node)
        return Tensor(*kind, x.storage, node)

    def _rotate(self, x: Tensor, a: Attention) -> Tensor:
        """In pairs, each a view whose gradient is as large as the whole; or in halves."""
        tape, width = self.tape, x.width
        half = x.count / 2
        if a.style in (_HALVES, _WIDE):
            of = 4 if a.style == _WIDE else width
            one, two = tape.part(x, half), tape.part(x, half)
            rotated = tape.join((tape.scale(two), one))
            turned = tape.add(tape.times_parameter(x, of), tape.times_parameter(rotated, of))
            return tape.cast(turned, width)
        wide = tape.cast(x, 4)
        pairs = [self._pair(wide, half), self._pair(wide, half)]
        return tape.cast(tape.join(pairs), width)

    def _pair(self, wide: Tensor, half: float) -> Tensor:
        tape = self.tape
        one = tape.times_parameter(tape.part(wide, half), 4)
        two = tape.times_parameter(tape.part(wide, half), 4)
        return tape.result((one, two), like(one), gives=(None, two.size))

    def _capped(self, a: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All scores, with an fp32 mask of the layer's own."""
        tape, width = self.tape, q.width
        scores = tape.matmul(q, k, (SCORES, a.heads))
        makes = tape.scratch(SQUARE, 4)
        mask = tape.scratch(SQUARE, 4)
        del makes
        scores = tape.scale(scores)
        scores = tape.keeps_output(scores)
        scores = tape.scale(scores)
        scores = tape.result((scores,), (scores.unit, scores.count, 4))
        scores = tape.keeps_output(scores)
        scores = tape.cast(scores, width)
        out = tape.matmul(scores, v, (TOKENS, a.q_width))
        del mask
        return tape.copy(out)

    def mlp(self, x: Tensor, mlp: Mlp) -> Tensor:
        """``FeedForward.forward``."""
        tape = self.tape
        h = activate(tape, self.linear(x, mlp.into[0]), mlp.activation)
        h = tape.multiply(h, self.linear(x, mlp.into[1]))
        return self.linear(h, mlp.down)


def norm(tape: Tape, x: Tensor, n: Norm) -> Tensor:
    """``RMSNorm.forward`` and ``GemmaRMSNorm.forward``: the input in fp32 is kept, and the
    reciprocal root; Gemma's weight plus one as well. What is fp32 already goes to torch's own
    rms_norm of one step, except Gemma's.
    """
    if x.width == 4 and n.kind != "gemma":
        root = tape.scratch(x.unit, 4 * x.count * n.vectors / n.size)
        return tape.result((x,), like(x), (x.storage, root))
    wide = tape.cast(x, 4)
    mean = tape.scale(tape.power(wide), x.count * n.vectors / n.size)
    normed = tape.multiply(wide, tape.keeps_output(mean))
    copied = (tape.scratch(ONE, 4 * n.size / n.vectors),) if n.kind == "gemma" else ()
    return tape.cast(tape.result((normed,), like(normed), copied), x.width)


def _four_bit(tape: Tape, x: Tensor, linear: Linear) -> Tensor:
    """``LinearNF4``: the weight is made whole, then used. In the backward that is before there is a
    gradient of the input, hence a step of its own. The packed weight is kept, which takes nothing,
    but tells when a checkpointed layer is computed again.
    """
    values = linear.d_in * linear.d_out
    making = tape.scratch(ONE, _MAKING * values)
    del making
    weight = tape.scratch(ONE, _WHOLE * values)
    out = (x.unit, x.count / linear.d_in * linear.d_out, x.width)
    y = tape.result((x,), out, needs=((ONE, _WHOLE * values),))
    tape.also_keeps(y)
    del weight
    if y.node is None:
        return y
    packed = (tape.scratch(ONE, 0),)
    node = Node((y.node,), (None,), packed, ((ONE, _MAKING * values),))
    tape.nodes.append(node)
    return Tensor(y.unit, y.count, y.width, y.storage, node)


# Head and loss ----------------------------------------------------------------------------------


class Stream(NamedTuple):
    """What reaches the head: its norm, whether it needs a gradient, bytes of its values, and the
    tokens of a chunk of each sequence and of the last one. ``linear``: the loss makes the logits.
    """

    final: Norm | None
    flows: bool
    width: int
    chunk: int
    last: int
    linear: bool


def stream(
    final: Norm | None, *, flows: bool, width: int, length: int, linear: bool = False
) -> Stream:
    """What reaches the head of sequences of so many tokens."""
    if linear:  # ``tensor_split``
        least = max(1, length // CHUNKS)
        return Stream(final, flows, width, least, least, linear)
    chunk = -(-length // CHUNKS)
    return Stream(final, flows, width, chunk, length - chunk * ((length - 1) // chunk), linear)


@lru_cache(maxsize=256)
def head(one: Head, others: Ranks, run: Run, what: Stream) -> HeadPass:
    """The output head and the loss, in chunks (``TransformerDecoder.unembed``,
    ``CEWithChunkedOutputLoss``).

    The most is there when a late chunk's fp32 copy stands beside all logits and log_softmax's
    outputs up to it. Then logits are let go of; the backward makes two fp32 gradients of a chunk,
    and all chunks' gradients in the head's type before the first product is run back. With an
    adapter on the head its inputs are kept chunk by chunk, as copies.
    """
    tape = Tape()
    linear = one.linears[-1]
    values, width = linear.d_out, what.width
    x = tape.new(TOKENS, linear.d_in, width, grad=what.flows)
    start = x.node
    hidden = x if what.final is None else norm(tape, x, what.final)
    if one.capped:
        hidden = tape.scale(tape.keeps_output(tape.scale(hidden)))
    r = dict(others).get(linear.name)
    leaves = (Leaf(), Leaf())
    product = in_chunks(tape, run, hidden, linear, r, width, leaves)
    root, size = product.node, hidden.size
    logits = tape.scratch(TOKENS, 0 if what.linear else width * values)
    added = tape.scratch(BATCH, 2 * width * what.chunk * values if r is not None else 0)
    forward = peaks_of([*tape.moments, tuple(tape.live)])
    del added, product, hidden, x
    scores = tape.scratch(TOKENS, 4 * values)
    last, other = 4 * what.last * values, 4 * what.chunk * values
    copies = (last, other - last) if width < 4 else (0, -last)
    if what.linear:
        copies = (copies[0] + width * what.last * values,) * 2
    moments = [plus(tuple(tape.live), as_bytes((BATCH, n))) for n in copies]
    del logits
    moments += [plus(tuple(tape.live), as_bytes((BATCH, n))) for n in (2 * last, 2 * other - last)]
    del scores
    gradients = tape.scratch(TOKENS, 0 if what.linear else width * values)
    moments.append(tuple(tape.live))
    del gradients
    tape.moments.clear()
    pieces = tape.scratch(*size)
    tape.backward(root, [Storage(tape, TOKENS, 0)])
    del pieces
    tape.moments.append(tuple(tape.live))
    backward = peaks_of([*moments, *tape.moments])
    if start is not None:
        start.buffer = None
    made = as_bytes((TOKENS, 4 * values))
    return HeadPass(forward, backward, made, as_bytes((TOKENS, 0)), tuple(tape.live))


# Shapes -----------------------------------------------------------------------------------------

# Families of which torchtune has models whose layers are written so, with their rotation.
_FAMILIES: Final = {
    "llama": "torchtune",
    "mistral": "torchtune",
    "qwen2": _HALVES,
    "gemma": "torchtune",
    "gemma2": "torchtune",
    "phi3": _WIDE,
}


def as_torchtune(shape: Shape, tree: ModuleTree) -> Shape:
    """The shape of torchtune's model for Hugging Face's. What torchtune has in another way or not
    at all stays as it is and counts as not traced.
    """
    style = _FAMILIES.get(tree.model_type or "")
    if style is None or len(shape.stacks) > 1 or shape.head.kind != "lm":
        return shape._replace(traced=False)
    stack = shape.stacks[0]
    made = {id(layer): _layer(layer, style) for layer in stack.layers}
    described = all(map(is_described, made.values()))
    stack = stack._replace(layers=tuple(made[id(layer)] for layer in stack.layers))
    return shape._replace(stacks=(stack,), traced=described, fixed=None)


def _layer(layer: Layer, style: str) -> Layer:
    if not is_described(layer):
        return layer
    first, second = layer.blocks
    attention, mlp = attention_of(first), mlp_of(second)
    attention = attention._replace(style=style, window=None, dropout=False)
    activation = "input" if mlp.activation == "new_gelu" else mlp.activation
    mlp = mlp._replace(activation=activation, drops=False)
    return layer._replace(blocks=(first._replace(body=attention), second._replace(body=mlp)))


def rotary(stack: Stack, run: Run) -> float:
    """Bytes of the cosines and sines that Qwen2's layers keep, for queries and keys each, in 16 bit
    (models/qwen2/_positional_embeddings.py): of checkpointed layers one at a time.
    """
    bodies = [attention_of(layer.blocks[0]) for layer in stack.layers if is_described(layer)]
    found = [a.q_width // a.heads for a in bodies if a.style == _HALVES]
    if not found or run.plain_bytes == 4:
        return 0.0
    return float(4 * 2 * run.length * (found[0] if run.checkpointing else sum(found)))


# Positions that a model allows, by the builder's name (models/*/_model_builders.py
# ``max_seq_len``), and bytes of a position for each value of a head: Qwen2 and Phi repeat their
# cosines and sines. Llama 3.1 and later share them between layers.
_SIZE: Final = r"\d+(_\d+)?b"
_POSITIONS: Final = (
    (re.compile(rf"llama2_{_SIZE}"), 4096, 4),
    (re.compile(rf"code_llama2_{_SIZE}"), 16384, 4),
    (re.compile(r"llama3_\d+b"), 8192, 4),
    (re.compile(r"llama3_[123]_\d+b"), 131072, 4),
    (re.compile(rf"gemma2?_{_SIZE}"), 8192, 4),
    (re.compile(r"phi3_mini"), 4096, 8),
    (re.compile(r"phi4_14b"), 16384, 8),
    (re.compile(rf"mistral_{_SIZE}"), 32768, 4),
    (re.compile(rf"qwen2_5_{_SIZE}_base"), 131072, 8),
    (re.compile(rf"qwen2_5_{_SIZE}(_instruct)?"), 32768, 8),
    (re.compile(r"qwen2_(7b|\d_5b)"), 32768, 8),
)
_SHARED: Final = re.compile(r"llama3_[123]_")


def has_buffers(builder: str) -> bool:
    """Whether a builder is one whose model is described."""
    name = builder.partition("lora_")[2]
    return any(pattern.fullmatch(name) for pattern, _, _ in _POSITIONS)


def buffers(builder: str, tree: ModuleTree) -> int:
    """Bytes of the cosines and sines in a builder's model, fp32 whatever its dtype; 0 for builders
    that are not known.
    """
    from lora_lint.memory.shapes import read_shape

    name, shape = builder.partition("lora_")[2], read_shape(tree)
    found = next((one for one in _POSITIONS if one[0].fullmatch(name)), None)
    if found is None or isinstance(shape, str):
        return 0
    _, positions, size = found
    bodies = (layer.blocks[0].body for layer in shape.stacks[0].layers)
    heads = [a.q_width // a.heads for a in bodies if isinstance(a, Attention)]
    heads = heads[:1] if _SHARED.match(name) else heads
    return sum((positions * size + 2) * head for head in heads)
