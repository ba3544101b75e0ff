"""What a decoder's training step keeps and needs at its peak, in closed form.

A layer is a sequence of steps. Each keeps something from its forward until its backward (autograd's
saved tensors), and needs something more while its forward or its backward runs. Whichever of the
two runs, what it and the steps before it keep is alive, and what later steps keep is not: not yet,
or no more. A layer's peak is therefore the largest of ``kept up to k + forward of k`` and ``kept up
to k + backward of k``.

What is saved follows from autograd: a linear map saves its input only for the gradient of its
weight, so frozen projections save none; an elementwise product saves both factors unless one is
frozen; SiLU and torch's GELU save their input; attention saves q, k, v, its output and one fp32
number per head and token. Sources: torch 2.13 tools/autograd/derivatives.yaml, transformers 5.23
models/llama/modeling_llama.py, models/gpt2/modeling_gpt2.py, integrations/sdpa_attention.py,
loss/loss_utils.py, peft 0.21.2 tuners/lora/layer.py ``Linear.forward`` and tuners/lora/dora.py.
No figure here is fitted to a measurement; tests compare with the operations of real steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lora_lint.memory.regime import Regime, Run, regime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lora_lint.memory.decoder import Decoder, Layer, Norm, Projection

# Ranks of the adapted projections of one layer, by name within the layer.
Ranks = tuple[tuple[str, int], ...]


class Step(NamedTuple):
    """A step of a layer: bytes that it keeps, and that its forward and its backward need beside.

    ``pending`` are the gradients that its backward makes before it needs anything it kept.
    """

    name: str
    kept: float
    forward: float
    backward: float
    pending: float = 0.0


class Peak(NamedTuple):
    """A moment of the training step: where it is, and the bytes alive beyond weights and states.

    ``outputs`` is the head's output, which is alive as long as a variable holds the model's
    outputs. ``gradients`` are those of trainable parameters alive then: ``none``, of a trained
    output ``head`` alone, of all but a trained input embedding (``layers``), or ``all``.
    """

    site: str
    activations: float
    logits: float
    outputs: float
    gradients: str


class Stack(NamedTuple):
    """The layers of a decoder with the adapters on them, equal ones together.

    Each kind has its layer, its adapters' ranks, and how many layers of it there are at or after
    the first adapted one, which is of the kind ``first`` (None: no layer is adapted); ``last`` is
    the last layer's kind.
    """

    kinds: tuple[tuple[Layer, Ranks, int], ...]
    first: int | None
    last: int


def stack_of(decoder: Decoder, ranks: Sequence[Ranks]) -> Stack:
    """The stack of a decoder, from the ranks in each of its layers."""
    numbers: dict[tuple[int, Ranks], int] = {}
    kinds: list[tuple[Layer, Ranks, int]] = []
    first = None
    number = 0
    for layer, layer_ranks in zip(decoder.layers, ranks, strict=True):
        number = numbers.setdefault((id(layer), layer_ranks), len(kinds))
        if number == len(kinds):
            kinds.append((layer, layer_ranks, 0))
        if first is None and layer_ranks:
            first = number
        if first is not None:
            kinds[number] = (layer, layer_ranks, kinds[number][2] + 1)
    return Stack(tuple(kinds), first, number)


def peaks(
    decoder: Decoder, stack: Stack, run: Run, *, head_rank: int = 0, head_trained: bool = False
) -> list[Peak]:
    """The moments at which a step can need most, but for the optimizer's.

    ``head_rank`` is the rank of an adapter on the output head, ``head_trained`` says that the head
    itself is trained. Without checkpointing nothing is kept before the first adapter, since nothing
    there needs a gradient.
    """
    cost = regime(run)
    costs = [
        _layer_cost(layer_steps(decoder, layer, ranks, run, cost), ranks)
        for layer, ranks, _ in stack.kinds
    ]
    stream: float = cost.residual * decoder.hidden * run.tokens
    loss, outputs = _logits(decoder, run, cost)
    mask = _mask(run)
    moments = [Peak("end of backward", stream, 0.0, outputs, "all")]
    kept = 0.0
    if run.checkpointing:
        kept = len(decoder.layers) * stream + mask
        deepest = max((_recompute(layer, stream, cost) for layer in costs), default=0.0)
        where = "layer recompute"
        moments.append(Peak(where, kept + deepest, 0.0, outputs, "head"))
        moments.append(Peak(where, stream + mask + deepest, 0.0, outputs, "layers"))
    elif stack.first is not None:
        counted = list(zip(costs, (count for _, _, count in stack.kinds), strict=True))
        kept = mask - costs[stack.first].before
        kept += sum(count * layer.kept for layer, count in counted)
        last = costs[stack.last]
        before = kept - last.kept
        # In the forward the frames above hold the embeddings and the layer's input as well.
        ahead = Peak("layer forward", before + last.forward + 2 * stream, 0.0, 0.0, "none")
        deepest = mask + max(layer.backward for layer, count in counted if count)
        moments.append(ahead)
        moments.append(Peak("layer backward", before + last.backward, 0.0, outputs, "head"))
        moments.append(Peak("layer backward", deepest, 0.0, outputs, "layers"))
    kept += _kept_by_norm(decoder.norm, run, cost)
    if head_trained or head_rank:
        kept += _kept_by_head(decoder, run, cost, head_rank)
    if run.autocast and run.plain_bytes == 4:  # see _Adapters._weight_copy; never quantized
        kept += 2 * decoder.vocabulary * decoder.hidden
    moments.append(Peak("logits backward", kept, loss, outputs, "none"))
    return moments


class _LayerCost(NamedTuple):
    """A layer's sums: bytes it keeps in all and before its first adapter, its peaks, and the
    gradients that its backward makes before it needs anything kept.
    """

    kept: float
    before: float
    forward: float
    backward: float
    pending: float


def _layer_cost(steps: Sequence[Step], ranks: Ranks) -> _LayerCost:
    adapted = {name for name, _ in ranks}
    kept = before = forward = backward = 0.0
    met = False
    for step in steps:
        met = met or step.name in adapted
        kept += step.kept
        if not met:
            before = kept
        forward = max(forward, kept + step.forward)
        backward = max(backward, kept + step.backward)
    return _LayerCost(kept, before, forward, backward, steps[-1].pending)


def _recompute(kind: _LayerCost, stream: float, cost: Regime) -> float:
    """The peak of a layer that is computed again. Non-reentrant checkpointing, transformers'
    default since 5.0, starts when the backward first asks for a saved tensor, so the gradients
    made until then are alive during the second forward. Where the stream is fp32 the first norm
    keeps the checkpoint itself.
    """
    again = stream if cost.residual == 4 else 0.0
    return max(kind.forward + stream + kind.pending, kind.backward) - again


def layer_steps(decoder: Decoder, layer: Layer, ranks: Ranks, run: Run, cost: Regime) -> list[Step]:
    """The steps of one layer, in the order of its forward.

    Beside what each step needs on its own, a block's forward holds the residual stream and the
    block's normed input, the backward the residual's gradient and that of the block's input.
    """
    n = run.tokens
    adapters = _Adapters(run, cost, n, dict(ranks), layer.projections)
    residual = cost.residual * layer.hidden * n
    block = residual + cost.normed * layer.hidden * n
    kind = kernel(decoder, layer, run, cost)
    norms = [_norm_step(norm, run, cost, residual) for norm in layer.norms]
    steps = [norms[0]]
    steps += adapters.steps(("qkv", "q", "k", "v"), block, block)
    steps += [_norm_step(norm, run, cost, block) for norm in layer.head_norms]
    steps.append(_attention(decoder, layer, run, cost, (block, residual), kind))
    steps += adapters.steps(("o",), block, residual, kept=kind in ("flash", "efficient"))
    if layer.dropout:
        steps.append(_dropout(layer, run, cost, residual))
    steps.append(norms[1])
    inner = cost.linear * layer.inner * n
    acted = Step("act", layer.activation * inner, block + inner, block + 2 * inner)
    if layer.gated:
        reads = adapters.keeps_input(("gate_up", "gate"))
        steps += adapters.steps(("gate_up", "gate"), block, block)
        steps.append(acted)
        steps += adapters.steps(("up",), block + inner, residual + inner, kept=reads)
        steps.append(Step("product", 2 * inner, block + inner, residual + 3 * inner))
    else:
        steps += adapters.steps(("up",), block, residual)
        steps.append(acted)
    steps += adapters.steps(("down",), block + inner, residual)
    if layer.dropout:
        steps.append(_dropout(layer, run, cost, residual))
    return steps + norms[2:]


# Norms and dropout ------------------------------------------------------------------------------


def _kept_by_norm(norm: Norm, run: Run, cost: Regime) -> float:
    """HF's RMSNorm keeps its input in fp32 and the reciprocal root (4 bytes a vector): ``x.to(fp32)
    * rsqrt``, whose second product has a frozen factor. torch's LayerNorm keeps its input as it is,
    mean and reciprocal deviation; autocast runs it in fp32, on a copy unless the input is fp32.
    """
    values, vectors = norm.size * run.tokens, norm.vectors * run.tokens
    if norm.rms:
        return 4 * values + 4 * vectors
    return (4 if run.autocast else cost.residual) * values + 8 * vectors


def _norm_step(norm: Norm, run: Run, cost: Regime, around: float) -> Step:
    """RMSNorm's forward makes a square in fp32, then the product in fp32 and its casts; its
    backward adds four fp32 tensors: of the mean's gradient, the square's, twice the input's.
    """
    values = norm.size * run.tokens
    kept = _kept_by_norm(norm, run, cost)
    if norm.rms:
        return Step("norm", kept, around + 8 * values, around + 16 * values)
    return Step("norm", kept, around + cost.normed * values, around + 8 * values)


def _dropout(layer: Layer, run: Run, cost: Regime, around: float) -> Step:
    """Dropout keeps a mask of one byte a value."""
    values = layer.hidden * run.tokens
    return Step("dropout", values, around + cost.linear * values, around + cost.linear * values)


# Attention --------------------------------------------------------------------------------------


def kernel(decoder: Decoder, layer: Layer, run: Run, cost: Regime) -> str:
    """Which attention runs: ``flash``, ``efficient``, ``math`` or ``eager``.

    For ``sdpa`` torch takes the first that can (aten/src/ATen/native/transformers/cuda/
    sdp_utils.cpp): flash attention only without a mask, in 16 bit, from Ampere on, and when
    training with heads wider than 192 not on capability 8.6 and 8.9; the memory-efficient kernel
    only with as many key heads as query heads, which transformers repeats only where there is a
    mask; else the math kernel, which makes all scores.
    """
    if run.attention != "sdpa":
        return "eager" if run.attention == "eager" else "flash"
    if run.masked:
        return "efficient"
    width = layer.q // decoder.heads if decoder.heads else 128
    narrow = 192 if run.capability in ((8, 6), (8, 9)) else 256
    if cost.compute == 2 and run.capability >= (8, 0) and width <= narrow:
        return "flash"
    return "efficient" if layer.kv == layer.q or width > 256 else "math"


def _attention(
    decoder: Decoder,
    layer: Layer,
    run: Run,
    cost: Regime,
    around: tuple[float, float],
    kind: str,
) -> Step:
    """Rotation and attention.

    Rotated q and k are new tensors, v is the projection's output. The memory-efficient kernel and
    eager attention get k and v repeated to q's width (``repeat_kv``; of one head that is a view),
    flash attention reads them as they are. v from a fused projection is a view that keeps the whole
    output of q, k and v alive, unless it is repeated; GPT-2 rotates nothing, so all three are such
    views. torch turns a boolean mask into one of the query's dtype at each call (attention.cpp
    ``convert_boolean_attn_mask``), and the kernel keeps that for its backward: batch x length^2
    values a layer. The math kernel keeps q, k and v and softmax's output in fp32, eager attention
    softmax's output in fp32 and in the compute dtype; neither keeps its own output.
    """
    n, c = run.tokens, cost.compute
    q, kv = c * layer.q * n, c * layer.kv * n
    kept: float
    scores = (decoder.heads or layer.q // 128) * run.batch * run.length**2
    if kind == "math":
        kept = 12 * layer.q * n + 4 * scores
        return _around("attention", kept, around, 4 * scores, q + 8 * scores)
    heads = layer.kv * (decoder.heads or layer.q // 128) // layer.q
    repeats = layer.kv < layer.q and kind != "flash" and heads > 1
    fused = layer.has("qkv")
    if not decoder.rotary:
        read = q + 2 * kv
    elif repeats:
        read = 3 * q
    else:
        read = q + 2 * kv + (q + kv if fused else 0)
    if kind == "eager":
        kept = read + (4 + c) * scores
        return _around("attention", kept, around, 2 * c * scores, q + (8 - c) * scores)
    kept = read + q + 4 * scores / run.length
    if run.masked and kind == "efficient":
        kept += c * run.batch * run.length**2
    gradients = 3 * q if repeats else q + 2 * kv
    return _around("attention", kept, around, 3 * q, q + gradients)


def _around(
    name: str, kept: float, around: tuple[float, float], forward: float, backward: float
) -> Step:
    return Step(name, kept, around[0] + forward, around[1] + backward)


def _mask(run: Run) -> float:
    """The mask of batch x length^2 that all layers share, where attention gets one: boolean, or in
    the compute dtype for eager attention.
    """
    if run.attention == "eager":
        return 2 * run.batch * run.length**2
    return run.batch * run.length**2 if run.masked and run.attention == "sdpa" else 0


# Projections and their adapters -----------------------------------------------------------------


class _Adapters(NamedTuple):
    """The projections of one layer, with the adapters on them."""

    run: Run
    cost: Regime
    tokens: int
    ranks: Mapping[str, int]
    projections: Mapping[str, Projection]

    def steps(
        self, roles: Sequence[str], forward: float, backward: float, *, kept: bool = False
    ) -> list[Step]:
        """The steps of the projections of these roles, which read one and the same tensor.

        ``forward`` and ``backward`` are what else is alive then; ``kept`` says that something else
        keeps the tensor already.
        """
        chosen = [pair for pair in self.projections.items() if pair[1].role in roles]
        chosen.sort(key=lambda pair: roles.index(pair[1].role))
        read = 0.0
        if chosen and not kept and self.keeps_input(roles):
            first = chosen[0][1]
            width = self.cost.linear if first.role in ("down", "o") else self.cost.normed
            read = width * first.d_in * self.tokens
        return [
            self._step(name, projection, read if not index else 0.0, forward, backward)
            for index, (name, projection) in enumerate(chosen)
        ]

    def keeps_input(self, roles: Sequence[str]) -> bool:
        """Whether projections of these roles keep the tensor they read: as an adapter's ``shared``
        input, or for LLM.int8 (bitsandbytes 0.50 autograd/_functions.py ``MatMul8bitLt``).
        """
        if self.run.quantized == "int8":
            return True
        shared = self.cost.lora_inputs == "shared" and not self.run.dropout
        return shared and any(
            name in self.ranks for name, p in self.projections.items() if p.role in roles
        )

    def _step(
        self, name: str, projection: Projection, read: float, forward: float, backward: float
    ) -> Step:
        y, out = self.cost.linear, projection.d_out * self.tokens
        kept = read + self._weight_copy(projection)
        if name not in self.ranks:
            needs = y * out + self._base_backward(projection)
            return Step(name, kept, forward + y * out, backward + needs, y * out)
        own = self._adapter_keeps(projection, self.ranks[name])
        back, pending = self._adapter_backward(projection, own + read)
        return Step(
            name, kept + own, forward + self._adapter_forward(projection), backward + back, pending
        )

    def _adapter_keeps(self, projection: Projection, r: int) -> float:
        """lora_A keeps its input, lora_B lora_A's output; dropout gives each module an input of its
        own and keeps a mask of one byte a value.

        DoRA scales both terms by a trained magnitude and so keeps them: the base layer's output and
        lora_B's. With dropout it computes the base layer's output again with an fp32 copy of the
        weight, which the gradient of its input needs.
        """
        n, run, cost = self.tokens, self.run, self.cost
        into, out = projection.d_in * n, projection.d_out * n
        kept: float = cost.lora * r * n
        if run.dropout:
            kept += (cost.lora + 1) * into
        elif cost.lora_inputs != "shared":
            kept += (4 if cost.lora_inputs == "own4" else 2) * into
        if run.dora:
            kept += (cost.linear + cost.lora) * out
            if run.dropout and not self._same_dtype():
                kept += cost.lora * projection.d_in * projection.d_out
        return kept

    def _same_dtype(self) -> bool:
        """Whether DoRA finds the base weight in the adapter's dtype already."""
        return self.cost.lora == self.run.plain_bytes and not self.run.quantized

    def _adapter_forward(self, projection: Projection) -> float:
        """The base layer's output, lora_B's output, and that scaled; then their sum in its place.
        PEFT's fp32 copy of the input is alive too, where it is not the one that is kept.

        DoRA's makes an identity matrix of the input's width, to get lora_B @ lora_A by it, the
        weight in the adapter's dtype, the product scaled, and their sum, for the norm of its
        columns (dora.py ``get_lora_weight``, ``get_weight_norm``).
        """
        y, a, n = self.cost.linear, self.cost.lora, self.tokens
        out = projection.d_out * n
        cast = 4 * projection.d_in * n if self._casts_up(projection) else 0.0
        if not self.run.dora:
            return cast + y * out + 2 * max(y, a) * out
        weight = a * projection.d_in * projection.d_out
        held = a * projection.d_in**2 + weight + (0 if self._same_dtype() else weight)
        return cast + y * out + held + max(2 * weight, 4 * max(y, a) * out)

    def _casts_up(self, projection: Projection) -> bool:
        """Whether PEFT makes an fp32 copy of the input that is not what lora_A keeps."""
        reads = {"o": self.cost.compute, "down": self.cost.linear}
        narrow = reads.get(projection.role, self.cost.normed) == 2
        replaced = self.run.dropout or self.run.autocast
        return narrow and self.run.adapter_bytes == 4 and replaced

    def _adapter_backward(self, projection: Projection, own: float) -> tuple[float, float]:
        """What the backward needs, and the part that it makes before it needs anything kept.

        First the gradient of the sum in the adapter's dtype, that of the base layer's output, and
        the first one scaled. Then lora_A's gradient of its input, beside the base layer's incoming
        one; under autocast it is cast to fp32 once more. Then, what the adapter kept being freed,
        that of dropout's input, the base layer's gradient of its input, and at last the sum.
        """
        y, a = self.cost.linear, self.cost.lora
        into, out = projection.d_in * self.tokens, projection.d_out * self.tokens
        first = y * out + (2 * a * out if a != y else a * out)
        wide = 4 if self.run.autocast and self.run.adapter_bytes == 4 else 0
        second = y * out + (a + wide) * into
        third = max(y * into + y * out + self._base_backward(projection), 3 * y * into) - own
        dropped = y * out + 2 * (wide or a) * into - own if self.run.dropout else 0.0
        return max(first, second, third, dropped), y * out + (a * out if a != y else 0)

    def _base_backward(self, projection: Projection) -> float:
        """The gradient of the input. bitsandbytes makes the weight in the compute dtype for it,
        taken as 16 bit, and computes in that (autograd/_functions.py ``MatMul4Bit.backward``,
        ``MatMul8bitLt.backward``).
        """
        y, n = self.cost.linear, self.tokens
        into, out = projection.d_in * n, projection.d_out * n
        if not self.run.quantized:
            return y * into
        cast = 2 * out if y == 4 else 0
        return max(2.0 * projection.d_in * projection.d_out + 2 * into + cast, (y + 2) * into)

    def _weight_copy(self, projection: Projection) -> float:
        """Autocast casts an fp32 weight at each use; the copy is kept for the gradient of the
        input, since only weights that are trained are cached (autocast_mode.cpp).
        """
        if self.run.autocast and self.run.plain_bytes == 4 and not self.run.quantized:
            return 2 * projection.d_in * projection.d_out
        return 0.0


# Head and loss ----------------------------------------------------------------------------------


def _kept_by_head(decoder: Decoder, run: Run, cost: Regime, rank: int) -> float:
    """A trained head keeps its input, an adapted one also what its adapter keeps."""
    into = decoder.hidden * run.tokens
    if rank and cost.lora_inputs == "own4":
        return 4 * into + cost.lora * rank * run.tokens
    return min(cost.normed, cost.compute) * into + cost.lora * rank * run.tokens


def _logits(decoder: Decoder, run: Run, cost: Regime) -> tuple[float, float]:
    """Bytes that the loss makes of the logits at their peak, and those of the head's output.

    The loss casts logits to fp32 and keeps log_softmax's output; its backward holds that, the
    gradient of the negative log-likelihood and log_softmax's own gradient: three fp32 tensors, 12
    bytes a logit. An adapter on the head makes as much in its forward: lora_B's output, that
    scaled, and the sum. A fused loss works in chunks: Liger's makes no more than
    next_power_of_2(tokens / (V / h)) x V logits at a time, so at most twice tokens x h values, in
    the compute dtype and in fp32, beside the gradient of its input.
    """
    if run.fused_loss:
        inputs = decoder.hidden * run.tokens
        return (2 * (cost.logits + 4) + cost.normed) * inputs, 0.0
    values = decoder.vocabulary * run.tokens
    return 12.0 * values, float(cost.logits * values)
