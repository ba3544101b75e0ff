"""The layers of LitGPT's own model class as they run, on a tape.

Written as litgpt 0.5.13 writes them (model.py ``GPT``, ``Block``, ``CausalSelfAttention``,
``apply_rope``, ``RMSNorm``, ``LLaMAMLP``, ``GptNeoxMLP``; lora.py ``LoRALinear``,
``LoRAQKVLinear``), so that a variable which holds a tensor there holds it here. What is otherwise
than in Hugging Face's modules:

* queries, keys and values are one linear map. Values that are not repeated are a view of all three,
  which attention thereby keeps whole;
* cosines and sines are fp32 (``build_rope_cache``), and so is the rotation; its results are joined
  with the rest of each head, an empty one too, into new tensors;
* keys and values are repeated for grouped queries whatever the kernel;
* a layer with a sliding window makes a mask of its own, however short the sequence is;
* an adapter is not cast, and the queries', keys' and values' is a convolution of all that are on;
* a 4-bit weight is packed from float16 (lightning 2.6.6 fabric/plugins/precision/bitsandbytes.py
  ``quantize``), so that a product makes it in float16 and then in the input's type, forward and
  backward (bitsandbytes 0.42 to 0.49 autograd/_functions.py ``MatMul4Bit``); 16 bit is taken for
  bfloat16. The output head is such a weight too, most often the largest.

Shapes come from Hugging Face's module tree; ``as_litgpt`` makes LitGPT's of one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.memory.attention import attend, kernel
from lora_lint.memory.blocks import activate
from lora_lint.memory.blocks import norm as torch_norm
from lora_lint.memory.projections import Projections
from lora_lint.memory.shape import Attention, Linear, Mlp, Norm
from lora_lint.memory.tape import (
    BATCH,
    ONE,
    RANK,
    SQUARE,
    TOKENS,
    HeadPass,
    Leaf,
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
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Block, Head, Layer, Shape
    from lora_lint.models.module_tree import ModuleTree

# Ranks of adapted modules beside the layers, by name, in multiples of the model's.
Ranks = tuple[tuple[str, int], ...]

# Tokens of a chunk of the output head and of the loss (finetune/lora.py ``fit``, utils.py
# ``chunked_cross_entropy``).
CHUNK: Final = 128


class Layers:
    """One layer's parts; ``ranks`` are its adapters'."""

    def __init__(self, tape: Tape, run: Run, ranks: Mapping[str, int], place: Place) -> None:
        self.tape, self.run, self.place, self.ranks = tape, run, place, ranks
        self.plain = Projections(tape, run, {})

    def layer(self, x: Tensor, layer: Layer) -> Tensor:
        """``Block.forward``: parallel or one after the other."""
        tape = self.tape
        attention, mlp = layer.blocks
        normed = self._norm(x, attention.pre)
        attended = self._norm(self.attention(normed, attention_of(attention)), attention.inner)
        if layer.parallel:
            if not layer.one_norm:
                normed = self._norm(x, mlp.pre)
            x = tape.add(attended, x)
        else:
            x = tape.add(attended, x)
            normed = self._norm(x, mlp.pre)
        return tape.add(self._norm(self.mlp(normed, mlp_of(mlp)), mlp.inner), x)

    def _norm(self, x: Tensor, n: Norm | None) -> Tensor:
        return x if n is None else norm(self.tape, x, n, self.run.plain_bytes)

    # Linear maps --------------------------------------------------------------------------------

    def _base(self, x: Tensor, linear: Linear) -> Tensor:
        if self.run.quantized in ("nf4", "fp4"):
            return _four_bit(self.tape, self.run, x, linear)
        return self.plain(x, linear)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """``LoRALinear.forward``."""
        pretrained = self._base(x, linear)
        r = self.ranks.get(linear.name)
        if r is None:
            return pretrained
        tape, width = self.tape, self.run.adapter_bytes
        if self.run.dropout:
            x = tape.dropout(x)
        low = tape.low(x, linear.d_in, r, width, self.plain.leaf())
        lora = tape.scale(tape.high(low, r, linear.d_out, width, self.plain.leaf()))
        return tape.add(pretrained, lora)

    def queries_keys_values(self, x: Tensor, a: Attention) -> Tensor:
        """``LoRAQKVLinear.forward``: one A for all parts that are on; B is a convolution in groups,
        for grouped queries one a part, whose results are joined. Unless all are on they are copied
        into zeros of the whole width (``zero_pad``), for which they are kept, and a copy of the
        index, eight bytes a value (torch's ``index_copy_``).
        """
        tape, width = self.tape, self.run.adapter_bytes
        parts = (a.q_width, a.k_width, a.v_width)
        names = [linear.name for linear in a.into] * (3 if len(a.into) == 1 else 1)
        d_in = a.into[0].d_in
        whole = Linear(names[0], d_in, sum(parts), quantized=a.into[0].quantized)
        pretrained = self._base(x, whole)
        ranks = [self.ranks.get(name) for name in names]
        on = [part for part, r in zip(parts, ranks, strict=True) if r is not None]
        r = max((r for r in ranks if r is not None), default=0)
        if not on:
            return pretrained
        if self.run.dropout:
            x = tape.dropout(x)
        low = tape.low(x, d_in, r * len(on), width, self.plain.leaf())
        leaf = self.plain.leaf()
        if a.kv_heads == a.heads:
            high = tape.high(low, r * len(on), sum(on), width, leaf, groups=len(on))
        else:
            share = low.count / len(on)
            pieces = [
                tape.high(piece, r, part, width, leaf)
                for piece, part in zip(tape.split(low, *[share] * len(on)), on, strict=True)
            ]
            high = tape.join(pieces)
            del pieces
        padded = high
        if len(on) < len(parts):
            index = tape.scratch(ONE, 8 * sum(on))
            kind = high.unit, pretrained.count, high.width
            padded = tape.result((high,), kind, (high.storage, index))
            del index
        lora = tape.scale(padded)
        del padded
        return tape.add(pretrained, lora)

    # Attention ----------------------------------------------------------------------------------

    def attention(self, x: Tensor, a: Attention) -> Tensor:
        """``CausalSelfAttention.forward``."""
        tape = self.tape
        fused = self.queries_keys_values(x, a)
        rows = fused.count / (a.q_width + a.k_width + a.v_width)
        widths = [rows * width for width in (a.q_width, a.k_width, a.v_width)]
        q, k, v = tape.split(fused, *widths)
        q, k = self._norm(q, a.q_norm), self._norm(k, a.k_norm)
        q_roped, k_roped = self._rope(q, a.rotary), self._rope(k, a.rotary)
        q = tape.join((q_roped, tape.part(q, q.count * (1 - a.rotary))))
        k = tape.join((k_roped, tape.part(k, k.count * (1 - a.rotary))))
        groups = a.heads // a.kv_heads
        if groups > 1:
            k, v = (tape.result((t,), (t.unit, groups * t.count, t.width)) for t in (k, v))
        mask = None
        if a.style == "litgpt_window":
            full = tape.scratch(SQUARE, q.width)
            mask = tape.scratch(SQUARE, q.width)
            del full
        elif a.softcap:
            mask = tape.scratch(SQUARE, q.width)
        return self.linear(self._attend(a, q, k, v, mask), a.o)

    def _attend(
        self, a: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Storage | None
    ) -> Tensor:
        """torch's scaled_dot_product_attention. Flash attention's output lies in memory as the
        queries do, head by head since they were joined, so that bringing the heads together copies
        it (torch 2.13 flash_api.cpp ``mha_fwd``). With an additive mask it is the memory-efficient
        kernel, which keeps the mask; scores that are capped are made one step after the other.
        """
        tape = self.tape
        whole = a._replace(kv_heads=a.heads, k_width=a.q_width, v_width=a.q_width, dropout=False)
        run = self.run._replace(attention="sdpa")
        if mask is None or a.softcap:
            kind = kernel(run, whole, masked=False, width=2 if tape.autocast else q.width)
            out = attend(tape, run, whole, self.place._replace(masked=False), q, k, v)
            return tape.copy(out) if kind == "flash" else out
        if tape.autocast:
            q, k, v = tape.cast(q, 2), tape.cast(k, 2), tape.cast(v, 2)
        saved = (q.storage, k.storage, v.storage, mask)
        out = tape.result((q, k, v), like(q), saved)
        unit, factor = self.place.queries
        tape.also_keeps(out, out.storage, tape.scratch(unit, 4 * factor * a.heads))
        return out

    def _rope(self, x: Tensor, share: float) -> Tensor:
        """``apply_rope`` of a share of each head."""
        tape, width = self.tape, x.width
        if share < 1:
            x = tape.part(x, x.count * share)
        half = x.count / 2
        one, two = tape.part(x, half), tape.part(x, half)
        rotated = tape.join((tape.scale(two), one))
        roped = tape.add(tape.times_parameter(x, 4), tape.times_parameter(rotated, 4))
        return tape.cast(roped, width)

    # Feed-forward -------------------------------------------------------------------------------

    def mlp(self, x: Tensor, mlp: Mlp) -> Tensor:
        """``LLaMAMLP.forward`` and ``GptNeoxMLP.forward``."""
        tape = self.tape
        first = self.linear(x, mlp.into[0])
        if len(mlp.into) == 1:
            first = activate(tape, first, mlp.activation)
            return self.linear(first, mlp.down)
        second = self.linear(x, mlp.into[1])
        inner = tape.multiply(activate(tape, first, mlp.activation), second)
        return self.linear(inner, mlp.down)


def norm(tape: Tape, x: Tensor, n: Norm, width: int) -> Tensor:
    """``RMSNorm.forward``, or torch's LayerNorm. The input in fp32 is kept, for its square twice,
    the reciprocal root, and the weight's copy in fp32. ``width``: bytes of a value of the weight.
    """
    if n.kind == "layer":
        return torch_norm(tape, x, n, width)
    wide = tape.cast(x, 4)
    mean = tape.scale(tape.multiply(wide, wide), x.count * n.vectors / n.size)
    normed = tape.multiply(wide, tape.keeps_output(tape.scale(mean)))
    copied = (tape.scratch(ONE, 4 * n.size / n.vectors),) if width < 4 else ()
    return tape.cast(tape.result((normed,), like(normed), copied), x.width)


def _four_bit(tape: Tape, run: Run, x: Tensor, linear: Linear) -> Tensor:
    """Two values a byte are made 16-bit ones twice. Before 0.43.2 the product also refers to its
    input, as ``Projections`` says.
    """
    size = 2.0 * linear.d_in * linear.d_out
    half = tape.scratch(ONE, size)
    weight = tape.scratch(ONE, size)
    del half
    kept: tuple[Storage, ...] = ()
    if run.keeps_inputs and x.node is not None:
        tape.held.append(x.storage)
        kept = (x.storage,)
    out = (x.unit, x.count / linear.d_in * linear.d_out, x.width)
    y = tape.result((x,), out, kept, needs=((ONE, 2 * size),))
    del weight
    return y


def attention_of(block: Block) -> Attention:
    """The attention of a block of a layer that ``is_described``."""
    assert isinstance(block.body, Attention)  # noqa: S101 - ``is_described``
    return block.body


def mlp_of(block: Block) -> Mlp:
    """The feed-forward of a block of a layer that ``is_described``."""
    assert isinstance(block.body, Mlp)  # noqa: S101 - ``is_described``
    return block.body


# Head and loss ----------------------------------------------------------------------------------


class Stream(NamedTuple):
    """What reaches the head: its norm, whether it needs a gradient, bytes of its values; how many
    chunks a sequence has, and the tokens of one.
    """

    final: Norm | None
    flows: bool
    width: int
    chunks: int
    chunk: int


def stream(final: Norm | None, *, flows: bool, width: int, length: int) -> Stream:
    """What reaches the head of sequences of so many tokens."""
    return Stream(final, flows, width, -(-length // CHUNK), min(CHUNK, length))


def in_chunks(
    tape: Tape,
    run: Run,
    hidden: Tensor,
    linear: Linear,
    r: int | None,
    width: int,
    leaves: tuple[Leaf, Leaf],
) -> Tensor:
    """The head's product, whose own bytes are counted by who calls: with an adapter its inputs are
    kept chunk by chunk, as copies.
    """
    inputs, gives = [hidden], [hidden.size]
    if r is None:
        return tape.result(inputs, (TOKENS, 0, width), (), gives)
    whole = tape.dropout(hidden) if run.dropout else tape.copy(hidden)
    low = tape.low(whole, linear.d_in, r, run.adapter_bytes, leaves[0])
    factor = Tensor(RANK, r * linear.d_out, run.adapter_bytes, low.storage, leaves[1])
    inputs, gives = [hidden, low, factor], [hidden.size, low.size, factor.size]
    product = tape.result(inputs, (TOKENS, 0, width), (), gives)
    tape.also_keeps(product, low.storage)
    return product


@lru_cache(maxsize=256)
def head(one: Head, others: Ranks, run: Run, what: Stream) -> HeadPass:
    """The output head and the loss, in chunks of 128 tokens (``CHUNK``).

    Fabric makes fp32 logits of all chunks (lightning 2.6.6 fabric/wrappers.py
    ``_FabricModule.forward`` converts outputs) before the head's own are freed. The loss keeps
    log_softmax's output of the same size; its backward makes two gradients of a chunk, of which one
    stays where that was. All chunks' are made before the first is converted to the head's type, and
    all converted before the first product is run back; what comes of those is joined. With an
    adapter on the head its inputs are kept chunk by chunk, as copies. Autocast copies an fp32
    weight of the head for each chunk, since it is frozen (``Tape.linear``).
    """
    tape = Tape(autocast=run.autocast)
    linear = one.linears[-1]
    values = linear.d_out
    x = tape.new(TOKENS, linear.d_in, what.width, grad=what.flows)
    start = x.node
    hidden = x if what.final is None else norm(tape, x, what.final, run.plain_bytes)
    del x
    width = 2 if run.autocast else hidden.width
    r = dict(others).get(linear.name)
    leaves = (Leaf(), Leaf())
    product = in_chunks(tape, run, hidden, linear, r, width, leaves)
    root, size = product.node, hidden.size
    if run.quantized and run.keeps_inputs:
        tape.also_keeps(product, hidden.storage)
    if one.capped:  # tanh keeps its output
        tape.also_keeps(product, tape.scratch(TOKENS, width * values))
    if run.autocast and run.plain_bytes == 4:
        copies = what.chunks * 2 * linear.d_in * values
        tape.also_keeps(product, tape.scratch(ONE, copies))
    weight = 4.0 * linear.d_in * values if run.quantized in ("nf4", "fp4") else 0.0
    logits = tape.scratch(TOKENS, width * values)
    adapter = tape.scratch(BATCH, 2 * width * what.chunk * values if r is not None else 0)
    product_made = tape.scratch(ONE, weight)
    forward = [tuple(tape.live)]
    del adapter, product_made, product, hidden
    outputs = as_bytes((TOKENS, 4 * values))
    if width < 4:
        wide = tape.scratch(TOKENS, 4 * values)
        forward.append(tuple(tape.live))
        logits = wide
        del wide
    kept = tape.scratch(TOKENS, 4 * values)  # where a variable has let go of the last step's
    del logits
    alive = tuple(tape.live)
    tape.moments.clear()
    loss = as_bytes((BATCH, 2 * 4 * what.chunk * values))
    converted = as_bytes((TOKENS, (width - 4) * values))
    moments = [plus(alive, loss), plus(plus(alive, converted), as_bytes((ONE, weight)))]
    del kept
    tape.moments.clear()
    pieces = tape.scratch(*size)
    tape.backward(root, [Storage(tape, TOKENS, 0)])
    del pieces
    tape.moments.append(tuple(tape.live))
    if start is not None:
        start.buffer = None
    tape.casts.clear()
    backward = peaks_of([*moments, *tape.moments])
    return HeadPass(peaks_of(forward), backward, outputs, outputs, tuple(tape.live))


# Shapes -----------------------------------------------------------------------------------------

# Families of which LitGPT has models whose layers slide (config.py ``sliding_window_size``), beside
# those of which Hugging Face's shape tells which ones do.
_SLIDING: Final = frozenset({"mistral", "phi3"})


def as_litgpt(shape: Shape, tree: ModuleTree) -> Shape:
    """The shape of LitGPT's model for Hugging Face's: gate and up are two maps, activations are
    torch's own, and a layer that slides always has a mask. What LitGPT has in another way (mixtures
    of experts, latent attention, encoders) stays as it is and counts as not traced.
    """
    if len(shape.stacks) > 1 or shape.head.kind != "lm":
        return shape._replace(traced=False)
    stack = shape.stacks[0]
    family = tree.model_type or ""
    slides = family in _SLIDING and bool(tree.facts.get("config", {}).get("sliding_window"))
    made = {id(layer): _layer(layer, slides=slides) for layer in stack.layers}
    layers = tuple(made[id(layer)] for layer in stack.layers)
    described = all(map(is_described, made.values()))
    stack = stack._replace(layers=layers)
    return shape._replace(stacks=(stack,), traced=described, fixed=None)


@lru_cache(maxsize=256)
def is_described(layer: Layer) -> bool:
    """Whether ``Layers`` runs this layer."""
    if len(layer.blocks) != 2 or any(block.post or block.dropout for block in layer.blocks):
        return False
    first, second = (block.body for block in layer.blocks)
    return isinstance(second, Mlp) and isinstance(first, Attention) and first.latent is None


def _layer(layer: Layer, *, slides: bool) -> Layer:
    if not is_described(layer):
        return layer
    first, second = layer.blocks
    attention, mlp = attention_of(first), mlp_of(second)
    window = slides or attention.window is not None
    attention = attention._replace(
        style="litgpt_window" if window and not attention.softcap else "litgpt",
        window=None,
        dropout=False,
        wide=True,
    )
    into = mlp.into
    if mlp.fused:
        half = into[0]._replace(d_out=into[0].d_out // 2)
        into = (half, half)
    activation = "input" if mlp.activation == "new_gelu" else mlp.activation
    mlp = mlp._replace(into=into, fused=False, activation=activation, drops=False)
    return layer._replace(blocks=(first._replace(body=attention), second._replace(body=mlp)))
