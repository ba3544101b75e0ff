"""A whole training step: the moments at which it can need most.

Without checkpointing everything that layers keep is alive when the loss is made; the backward frees
it layer by layer while gradients come. With it, layers keep their inputs alone, and each is
computed again in its backward. In between stands the head with the logits. Sources: transformers
5.23 loss/loss_utils.py, modeling_layers.py ``GradientCheckpointingLayer``, models/t5, whisper,
bert.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from lora_lint.memory.attention import Rows
from lora_lint.memory.blocks import norm
from lora_lint.memory.passes import Ranks, Setting, layer_pass
from lora_lint.memory.projections import Projections
from lora_lint.memory.tape import (
    BATCH,
    NOTHING,
    SCORES,
    SQUARE,
    TOKENS,
    Bytes,
    Pass,
    Storage,
    Tape,
    peaks_of,
    total,
    units,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Head, Layer, Shape, Stack


class Peak(NamedTuple):
    """A moment of the training step: where it is, and the bytes alive beyond weights and states.

    ``logits`` is the head's part of them, ``outputs`` the head's output, which is alive as long as
    a variable holds the model's outputs. ``gradients`` are those of trained parameters alive then
    in a step that starts without any; ``rest`` those that an accumulating step has beside.
    """

    site: str
    activations: float
    logits: float
    outputs: float
    gradients: float
    rest: float


class Model(NamedTuple):
    """A shape with what is trained on it: the ranks in each layer of each stack, those on modules
    beside the layers, whether the head and the input embeddings are trained, and the values of the
    latter.
    """

    shape: Shape
    ranks: tuple[tuple[Ranks, ...], ...]
    others: Ranks = ()
    head_trained: bool = False
    embeddings: int = 0


def peaks(model: Model, run: Run) -> list[Peak]:
    """The moments at which a step can need most, but for the optimizer's."""
    return _Step(model, run).moments()


def _key(run: Run) -> Run:
    """What of a run decides a layer's pass."""
    return run._replace(batch=0, length=0, fused_loss=False, double_quant=False)


class _Step:
    def __init__(self, model: Model, run: Run) -> None:
        self.model, self.run, self.shape = model, run, model.shape
        self.key = _key(run)
        self.values = units(run.batch, run.length)
        self.stream = run.plain_bytes

    def number(self, size: Bytes) -> float:
        """Bytes as a number."""
        return total(size, self.values)

    def most(self, moments: Sequence[Bytes]) -> float:
        """The largest of some moments."""
        return max((total(moment, self.values) for moment in moments), default=0.0)

    def rows(self, stack: Stack) -> Rows:
        """The tokens of a stack's sequences."""
        return Rows(TOKENS, 1) if stack.length is None else Rows(BATCH, stack.length)

    def tensor(self, stack: Stack, width: float) -> float:
        """Bytes of a tensor of so many bytes a value of the stream."""
        unit, factor = self.rows(stack)
        return factor * stack.hidden * width * self.values[unit]

    def moments(self) -> list[Peak]:
        """All of them, from the first forward to the last backward."""
        run, shape = self.run, self.shape
        passes: list[list[Pass]] = []
        flows = run.checkpointing or self.model.embeddings > 0
        memory: Stack | None = None
        memory_flows = False
        for stack, ranks in zip(shape.stacks, self.model.ranks, strict=True):
            starts = flows if memory is None or stack.length is None else False
            if stack.length is not None and memory is None and len(shape.stacks) > 1:
                starts = False  # audio frames need no gradient
            passes.append(self.stack_passes(stack, ranks, starts, memory, memory_flows))
            memory, memory_flows = stack, passes[-1][-1].flows
        return self.compose(passes)

    def stack_passes(
        self,
        stack: Stack,
        ranks: Sequence[Ranks],
        flows: bool,
        memory: Stack | None,
        memory_flows: bool,
    ) -> list[Pass]:
        """The pass of each layer."""
        result = []
        there = self.rows(memory) if memory is not None else None
        masked = self.run.masked and stack.length is None
        width = _entry(stack, self.stream, autocast=self.run.autocast)
        for layer, own in zip(stack.layers, ranks, strict=True):
            setting = Setting(
                rows=self.rows(stack),
                memory=there,
                masked=masked or self.windowed(layer),
                stream=width,
                grad=flows,
                memory_grad=memory_flows,
                memory_hidden=memory.hidden if memory is not None else 0,
            )
            result.append(layer_pass(layer, own, self.key, setting))
            flows, width = flows or result[-1].flows, result[-1].width
        return result

    def windowed(self, layer: Layer) -> bool:
        """Whether a layer's window is shorter than the sequence, so that it gets a mask."""
        windows = [getattr(block.body, "window", None) for block in layer.blocks]
        return any(window is not None and window <= self.run.length for window in windows)

    def compose(self, passes: list[list[Pass]]) -> list[Peak]:
        """The moments of the step from the passes of its layers."""
        shape, run = self.shape, self.run
        number = self.number
        kept = [[number(p.kept) for p in stack] for stack in passes]
        gradients = [[number(p.gradients) for p in stack] for stack in passes]
        held = sum(number(p.held) for stack in passes for p in stack)
        head = head_pass(
            shape.head,
            shape.stacks[-1],
            self.model.others,
            self.key,
            HeadSetting(
                passes[-1][-1].flows,
                self.rows(shape.stacks[-1]),
                passes[-1][-1].width,
                run.fused_loss,
                self.model.head_trained,
            ),
        )
        embedded = self.model.embeddings * run.plain_bytes
        every = sum(map(sum, gradients)) + number(head.gradients) + embedded
        around = self.around()
        found = []
        before = around + self.between(passes)
        # Forward and backward of each layer: with what all before it keep, and, of LLM.int8,
        # all after it.
        casts = 0.0
        if run.checkpointing:
            casts = sum(number(p.casts) for stack in passes for p in stack)
        base, later, after = before, sum(map(sum, gradients)), held
        outputs = number(head.outputs)
        for index, stack in enumerate(shape.stacks):
            extra = self.tensor(stack, self.stream)  # the embeddings, held by the frame above
            seen: dict[int, int] = {}
            for place, one in enumerate(passes[index]):
                seen.setdefault(id(one), place)
            last = {id(one): place for place, one in enumerate(passes[index])}
            wanted = {*seen.values(), *last.values()}
            for place, one in enumerate(passes[index]):
                later -= gradients[index][place]
                after -= number(one.held)
                if place in wanted:
                    found.append(
                        Peak("layer forward", base + self.most(one.forward) + extra, 0, 0, 0, every)
                    )
                    if one.flows:
                        alive = later + number(head.gradients)
                        rest = every - alive - gradients[index][place]
                        shared = self.shared_gradient(index)
                        where = "layer recompute" if run.checkpointing else "layer backward"
                        found.append(
                            Peak(
                                where,
                                base + self.most(one.backward) + after + shared,
                                0,
                                outputs,
                                alive,
                                rest,
                            )
                        )
                base += kept[index][place]
        found.append(
            Peak("forward of the head", base + casts + self.most(head.forward), 0, 0, 0, every)
        )
        logits = number(head.logits)
        most = base + self.most(head.backward)
        found.append(Peak("logits backward", most - logits, logits, outputs, 0, every))
        end = self.tensor(shape.stacks[0], self.stream) + around + held
        found.append(Peak("end of backward", end, 0, outputs, every, embedded or 0))
        return found

    def shared_gradient(self, index: int) -> float:
        """The gradient of the encoder's output, alive during the decoder's backward."""
        if index == 0:
            return 0.0
        return self.tensor(self.shape.stacks[0], self.stream)

    def between(self, passes: list[list[Pass]]) -> float:
        """The encoder's output after its norm, which all layers of the decoder read."""
        if len(self.shape.stacks) == 1:
            return 0.0
        first = self.shape.stacks[0]
        tape = Tape(autocast=self.run.autocast)
        unit, factor = self.rows(first)
        flows = passes[0][-1].flows
        x = tape.new(unit, factor * first.hidden, self.stream, grad=flows)
        y = x
        if first.final is not None:
            y = norm(tape, y, first.final, self.run.plain_bytes)
        if first.final_dropout:
            y = tape.dropout(y)
        del x
        return self.number(tuple(tape.live))

    def around(self) -> float:
        """Masks and position biases that all layers of a stack share."""
        run, values = self.run, self.values
        size = 0.0
        for stack in self.shape.stacks:
            eager = run.attention == "eager" or self.shape.fixed == "eager"
            if stack.bias:
                size += values[SQUARE] * stack.bias * run.plain_bytes
            if stack.length is not None:
                continue
            windows = {
                getattr(b.body, "window", None) for layer in stack.layers for b in layer.blocks
            }
            masks = len({w for w in windows if w is not None and w <= run.length}) + 1
            if eager and (stack.causal or run.masked):
                size += masks * values[SCORES] * run.plain_bytes
            elif run.attention == "sdpa" and run.masked:
                size += masks * values[SCORES]
            elif run.attention == "sdpa":
                size += (masks - 1) * values[SCORES]
        return size


def _entry(stack: Stack, stream: int, *, autocast: bool) -> int:
    """Bytes of a value of the embeddings: autocast runs LayerNorm in fp32."""
    return 4 if autocast and stack.entry is not None and stack.entry.kind == "layer" else stream


# Head and loss ----------------------------------------------------------------------------------


class HeadSetting(NamedTuple):
    """Whether the stream needs a gradient, its rows and width, whether the loss is fused and the
    head trained.
    """

    flows: bool
    rows: Rows
    stream: int
    fused: bool
    trained: bool


class HeadPass(NamedTuple):
    """The head's forward and backward moments, what of the latter are ``logits`` and their
    gradients, its output, and its gradients.
    """

    forward: tuple[Bytes, ...]
    backward: tuple[Bytes, ...]
    logits: Bytes
    outputs: Bytes
    gradients: Bytes


@lru_cache(maxsize=256)
def head_pass(head: Head, stack: Stack, others: Ranks, run: Run, setting: HeadSetting) -> HeadPass:
    """The loss casts logits to fp32 and keeps log_softmax's output; its backward holds that, the
    gradient of the negative log-likelihood and log_softmax's own gradient: three fp32 tensors. A
    fused loss works in chunks: Liger's makes no more than next_power_of_2(tokens / (V / h)) x V
    logits at a time, so at most twice tokens x h values, in the compute dtype and in fp32, beside
    the gradient of its input.
    """
    tape = Tape(autocast=run.autocast)
    project = Projections(tape, run, dict(others))
    unit, factor = setting.rows
    x = tape.new(unit, factor * stack.hidden, setting.stream, grad=setting.flows)
    start = x.node
    hidden = x
    if stack.final is not None:
        hidden = norm(tape, hidden, stack.final, run.plain_bytes)
    if stack.final_dropout:
        hidden = tape.dropout(hidden)
    if head.dropout and head.kind == "token":
        hidden = tape.dropout(hidden)
    del x
    linear = head.linears[-1]
    if setting.fused:
        inputs = hidden.count
        width = 2 if run.autocast else hidden.width
        chunk = tape.scratch(unit, 2 * (width + 4) * inputs + hidden.width * inputs)
        chunked = (tuple(tape.live),)
        del chunk
        return HeadPass(chunked, chunked, NOTHING, NOTHING, NOTHING)
    if head.kind == "first":
        hidden = tape.result((hidden,), (BATCH, stack.hidden, hidden.width))
    if head.scaled:
        hidden = tape.scale(hidden)
    if setting.trained or head.kind != "lm":
        logits = project.trained(hidden, linear, run.plain_bytes)
    else:
        logits = project(hidden, linear)
    if head.capped:
        logits = tape.scale(tape.keeps_output(tape.scale(logits)))
    outputs = (logits.unit, logits.count * logits.width)
    wide = logits if head.plain and not run.autocast else tape.cast(logits, 4)
    scores = tape.keeps_output(wide)
    root, size = scores.node, scores.size
    logits_bytes = _bytes((size[0], 3 * size[1]))
    forward = (*tape.moments, tuple(tape.live))
    del logits, wide, scores, hidden
    tape.moments.clear()
    if root is not None:
        tape.backward(root, [Storage(tape, *size)])
    tape.moments.append(tuple(tape.live))
    backward = peaks_of(tape.moments)
    if start is not None:
        start.buffer = None
    tape.casts.clear()
    return HeadPass(peaks_of(forward), backward, logits_bytes, _bytes(outputs), tuple(tape.live))


def _bytes(size: tuple[int, float]) -> Bytes:
    return tuple(size[1] if unit == size[0] else 0.0 for unit in range(len(NOTHING)))
