"""The layers of a transformer as they run, on a tape: norms, feed-forwards, mixtures, residuals.

Written as transformers 5.23 writes them (models/llama, gemma2, t5, mixtral, qwen2_moe, deepseek_v3,
gpt_oss, bert: modeling_*.py; integrations/moe.py ``grouped_mm_experts_forward``), so that a
variable which holds a tensor there holds it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.memory.attention import Place, attend, rotate
from lora_lint.memory.projections import Projections
from lora_lint.memory.shape import Attention, Experts, Mlp
from lora_lint.memory.tape import ONE, RANK, Tape, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Block, Latent, Layer, Norm


class Blocks:
    """One layer's parts; ``ranks`` are its adapters'."""

    def __init__(
        self,
        tape: Tape,
        run: Run,
        ranks: Mapping[str, int],
        place: Place,
        memory: Place | None = None,
    ) -> None:
        self.tape, self.run, self.place = tape, run, place
        self.memory = memory
        self.inner: Tensor | None = None
        self.project = Projections(tape, run, ranks)

    def layer(self, x: Tensor, layer: Layer, memory: Tensor | None = None) -> Tensor:
        """A layer's output; ``memory`` is the encoder's output for cross attention."""
        if layer.parallel:
            return self._parallel(x, layer)
        for block in layer.blocks:
            x = self._block(x, block, memory)
        return x

    def _block(self, x: Tensor, block: Block, memory: Tensor | None) -> Tensor:
        hidden = self._norm(x, block.pre) if block.pre else x
        hidden = self._body(hidden, block.body, memory)
        if block.inner:
            hidden = self._norm(hidden, block.inner)
        if block.dropout:
            hidden = self.tape.dropout(hidden)
        hidden = self.tape.add(x, hidden)
        if block.post:
            hidden = self._norm(hidden, block.post)
        self.inner = None
        return hidden

    def _parallel(self, x: Tensor, layer: Layer) -> Tensor:
        """Blocks that read the same stream (falcon, gpt_neox, gptj, phi)."""
        outputs = []
        hidden = x
        for index, block in enumerate(layer.blocks):
            if block.pre and not (index and layer.one_norm):
                hidden = self._norm(x, block.pre)
            output = self._body(hidden, block.body, None)
            outputs.append(self.tape.dropout(output) if block.dropout else output)
        total = outputs[0]
        for output in outputs[1:]:
            total = self.tape.add(total, output)
        return self.tape.add(total, x)

    def _norm(self, x: Tensor, n: Norm) -> Tensor:
        return norm(self.tape, x, n, self.run.plain_bytes)

    def _body(self, x: Tensor, body: Attention | Mlp | Experts, memory: Tensor | None) -> Tensor:
        if isinstance(body, Attention):
            return self._attention(x, body, memory)
        if isinstance(body, Mlp):
            return self._mlp(x, body)
        return self._mixture(x, body)

    # Attention ----------------------------------------------------------------------------------

    def _attention(self, x: Tensor, a: Attention, memory: Tensor | None) -> Tensor:
        tape, stream = self.tape, self.place.stream
        if a.latent is not None:
            q, k, v = self._latent(x, a, a.latent)
        else:
            q, k, v = self._queries_keys_values(x, a, memory if a.cross else None)
        if a.q_norm:
            q = self._norm(q, a.q_norm)
        if a.k_norm:
            k = self._norm(k, a.k_norm)
        if a.scaled:
            q = tape.scale(q)
        if a.rotary and a.latent is None:
            q = rotate(tape, q, a.rotary, stream)
            k = rotate(tape, k, a.rotary, stream)
        place = self.memory if a.cross and self.memory is not None else self.place
        out = attend(tape, self.run, a, place, q, k, v)
        return self.project(out, a.o)

    def _queries_keys_values(
        self, x: Tensor, a: Attention, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        source = x if memory is None else memory
        if len(a.into) > 1:
            q, k, v = (self.project(t, p) for t, p in zip((x, source, source), a.into, strict=True))
            return q, k, v
        fused = self.project(x, a.into[0])
        rows = fused.count / a.into[0].d_out
        widths = [rows * width for width in (a.q_width, a.k_width, a.v_width)]
        if a.style == "falcon":
            q, k, v = (self.tape.part(fused, width) for width in widths)
            if a.kv_heads < a.heads:  # picked by a list of indices, which copies
                k, v = self.tape.scale(k), self.tape.scale(v)
            return q, k, v
        if a.style in ("slices", "bloom"):
            q, k, v = (self.tape.part(fused, width) for width in widths)
            return q, k, v
        q, k, v = self.tape.split(fused, *widths)
        return q, k, v

    def _latent(self, x: Tensor, a: Attention, way: Latent) -> tuple[Tensor, Tensor, Tensor]:
        """DeepSeek's: queries and keys with a rotated part, joined; keys' and values' other parts
        from a low rank. Keys are copied into a new tensor (``expand_kv``).
        """
        tape, project, stream = self.tape, self.project, self.place.stream
        low = x
        if way.q_a is not None and way.q_norm is not None:
            low = self._norm(project(x, way.q_a), way.q_norm)
        q = project(low, way.q)
        rows = q.count / way.q.d_out
        head = a.q_width // a.heads
        turned = rows * a.heads * way.rope
        q_pass, q_rot = tape.split(q, q.count - turned, turned)
        compressed = project(x, way.kv_a)
        nope, k_rot = tape.split(compressed, rows * way.rank, rows * way.rope)
        nope = self._norm(nope, way.kv_norm)
        q_rot, k_rot = (self._turn(t, way, stream) for t in (q_rot, k_rot))
        q = tape.join((q_pass, q_rot))
        both = project(nope, way.kv_b)
        keys = rows * a.heads * (head - way.rope)
        k_nope, v = tape.split(both, keys, both.count - keys)
        k_rot = tape.result((k_rot,), (k_rot.unit, 0, k_nope.width))
        k = tape.result(
            (k_nope, k_rot),
            (k_nope.unit, rows * a.heads * head, k_nope.width),
            gives=(k_nope.size, (k_nope.unit, turned * k_nope.width)),
        )
        return q, k, v

    def _turn(self, x: Tensor, way: Latent, stream: int) -> Tensor:
        tape = self.tape
        if way.complex_rotary:  # in fp32, as complex numbers
            wide = tape.scale(tape.cast(x, 4))
            return tape.cast(wide, x.width)
        if not way.interleaved:
            return rotate(tape, x, 1.0, stream)
        half = x.count / 2
        one, two = tape.part(x, half), tape.part(x, half)
        first = tape.add(tape.times_parameter(one, stream), tape.times_parameter(two, stream))
        second = tape.add(tape.times_parameter(two, stream), tape.times_parameter(one, stream))
        return tape.join((first, second))

    # Feed-forward -------------------------------------------------------------------------------

    def _mlp(self, x: Tensor, mlp: Mlp) -> Tensor:
        tape, project = self.tape, self.project
        first = project(x, mlp.into[0])
        if mlp.fused:
            gate, up = tape.split(first, first.count / 2, first.count / 2)
            del first
            inner = tape.multiply(up, activate(tape, gate, mlp.activation))
            del gate, up
        elif len(mlp.into) > 1:
            first = activate(tape, first, mlp.activation)
            inner = tape.multiply(first, project(x, mlp.into[1]))
            del first
        else:
            inner = activate(tape, first, mlp.activation)
            del first
        if mlp.drops:
            inner = tape.dropout(inner)
        if mlp.down.name == "output.dense":  # BERT's layer holds it until its norm is done
            self.inner = inner
        return project(inner, mlp.down)

    # Mixtures -----------------------------------------------------------------------------------

    def _mixture(self, x: Tensor, experts: Experts) -> Tensor:
        if experts.shared is None:
            return self._experts(x, experts, self._router(x, experts))
        if experts.shared_gate is None:
            out = self._experts(x, experts, self._router(x, experts))
            return self.tape.add(out, self._mlp(x, experts.shared))
        shared = self._mlp(x, experts.shared)  # qwen2_moe computes it first
        out = self._experts(x, experts, self._router(x, experts))
        gate = self.tape.keeps_output(self.project(x, experts.shared_gate))
        return self.tape.add(out, self.tape.multiply(gate, shared))

    def _router(self, x: Tensor, experts: Experts) -> Tensor:
        """Scores of all experts in fp32, of which the chosen ones' weights are taken (``topk`` and
        ``gather`` keep indices of eight bytes) and divided by their sum.
        """
        tape, run = self.tape, self.run
        rows = x.count / experts.hidden
        wide = experts.router == "wide"
        if wide:
            x = tape.cast(x, 4)
            copied = run.plain_bytes != 4
            logits = tape.linear(x, experts.hidden, experts.number, 4, copied=copied)
        else:
            logits = tape.linear(x, experts.hidden, experts.number, run.plain_bytes)
        scores = logits
        if experts.router != "chosen":
            scores = tape.softmax(logits, wide=True)
        indices = tape.scratch(x.unit, 8 * rows * experts.top)
        chosen = tape.result((scores,), (x.unit, rows * experts.top, scores.width), (indices,))
        if experts.router == "chosen":
            chosen = tape.softmax(chosen)
        else:
            chosen = tape.multiply(chosen, tape.scale(chosen, rows))
        return chosen if experts.wide_weights else tape.cast(chosen, logits.width)

    def _experts(self, x: Tensor, experts: Experts, weights: Tensor) -> Tensor:
        """Each token is copied for each of its experts, in the experts' order; one grouped product
        for all. An adapter on the experts' parameters makes the whole adapted weight, which is kept
        for the gradient of the input, and whose own gradient is as large (``ParamWrapper``).
        """
        tape, run, e = self.tape, self.run, experts
        rows = x.count / e.hidden
        chosen = rows * e.top
        order = tape.scratch(x.unit, 8 * 3 * chosen)
        width = run.plain_bytes
        picked = tape.result((x,), (x.unit, chosen * e.hidden, x.width))
        picked = tape.cast(picked, width)
        weight = self._expert_weight(e.up, e, 2 * e.inner * e.hidden, e.hidden + 2 * e.inner)
        both = self._grouped(picked, weight, e.hidden, 2 * e.inner)
        if e.clamped:
            inner = self._clamped(both)
        else:
            gate, up = tape.split(both, both.count / 2, both.count / 2)
            inner = tape.multiply(activate(tape, gate, e.activation), up)
            del gate, up
        del both
        inner = tape.cast(inner, width)
        weight = self._expert_weight(e.down, e, e.inner * e.hidden, e.hidden + e.inner)
        out = self._grouped(inner, weight, e.inner, e.hidden)
        weighed = tape.multiply(
            out, tape.result((weights,), (weights.unit, weights.count, weights.width))
        )
        del out, inner
        ordered = tape.result((weighed,), (x.unit, weighed.count, weighed.width))
        total = tape.result((ordered,), (x.unit, x.count, ordered.width), gives=(None,))
        del order, picked
        return tape.cast(total, x.width)

    def _expert_weight(self, name: str, e: Experts, values: int, ends: int) -> Tensor | None:
        r = self.project.ranks.get(name)
        if r is None:
            return None
        tape, width = self.tape, self.run.plain_bytes
        low = e.number * r * ends
        factors = Tensor(
            RANK, low, self.run.adapter_bytes, tape.scratch(RANK, 0), self.project.leaf()
        )
        factors = tape.cast(factors, width)
        return tape.result((factors,), (ONE, e.number * values, width), (factors.storage,))

    def _grouped(self, x: Tensor, weight: Tensor | None, d_in: int, d_out: int) -> Tensor:
        out = (x.unit, x.count / d_in * d_out, x.width)
        if weight is None:
            return self.tape.result((x,), out)
        return self.tape.result((x, weight), out, (x.storage, weight.storage))

    def _clamped(self, both: Tensor) -> Tensor:
        """gpt_oss: gate and up are every second value, clamped, which keeps what was clamped;
        then ``(up + 1) * (gate * sigmoid(gate * alpha))``.
        """
        tape = self.tape
        gate, up = (tape.keeps_input(tape.part(both, both.count / 2)) for _ in range(2))
        glow = tape.multiply(gate, tape.keeps_output(tape.scale(gate)))
        return tape.multiply(tape.copy(up), glow)


def activate(tape: Tape, x: Tensor, kind: str) -> Tensor:
    """An activation function. SiLU and torch's GELUs keep their input, ReLU its output;
    transformers' NewGELU is written out in Python, quick GELU is ``x * sigmoid(1.702 * x)``.
    """
    if kind == "output":
        return tape.keeps_output(x)
    if kind == "quick_gelu":
        return tape.multiply(x, tape.keeps_output(tape.scale(x)))
    if kind == "bloom":  # computes tanh again in its backward
        size = x.size
        return tape.result((x,), (x.unit, x.count, x.width), (x.storage,), needs=(size, size, size))
    if kind != "new_gelu":
        return tape.keeps_input(x)
    half = tape.scale(x)
    inner = tape.scale(tape.add(x, tape.scale(tape.power(x))))
    return tape.multiply(half, tape.copy(tape.keeps_output(inner)))


def norm(tape: Tape, x: Tensor, n: Norm, width: int) -> Tensor:
    """A normalization. torch's LayerNorm keeps its input, mean and reciprocal deviation; autocast
    runs it in fp32. HF's RMSNorm is written out in Python: the input in fp32 and the reciprocal
    root are kept. T5's multiplies the input as it is. ``width``: bytes of a value of the norm's
    weight.
    """
    vectors = x.count * n.vectors / n.size
    if n.kind == "layer":
        if tape.autocast:
            x = tape.cast(x, 4)
        stats = tape.scratch(x.unit, 8 * vectors)
        return tape.result((x,), (x.unit, x.count, x.width), (x.storage, stats))
    wide = tape.cast(x, 4)
    mean = tape.scale(tape.power(wide), vectors)
    root = tape.keeps_output(mean)
    if n.kind == "t5":
        del wide, mean
        out = tape.multiply(x, root)
        if width == 2:
            out = tape.cast(out, 2)
        return tape.times_parameter(out, width)
    out = tape.multiply(wide, root)
    del wide, mean, root
    if n.kind == "gemma":
        return tape.cast(tape.times_parameter(out, 4), x.width)
    out = tape.cast(out, x.width)
    return tape.times_parameter(out, width)
