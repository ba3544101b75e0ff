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
from lora_lint.memory.fused import TILE, beside
from lora_lint.memory.images import see
from lora_lint.memory.passes import Figures, Ranks, Setting, layer_pass
from lora_lint.memory.projections import Projections
from lora_lint.memory.shape import Attention
from lora_lint.memory.tape import (
    BATCH,
    NOTHING,
    SCORES,
    SQUARE,
    TOKENS,
    Bytes,
    HeadPass,
    Pass,
    Storage,
    Tape,
    as_bytes,
    peaks_of,
    plus,
    total,
    units,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.memory.fused import Kind
    from lora_lint.memory.images import Images
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Head, Layer, Norm, Shape, Stack


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
    """A shape with what is trained on it: the rank, in multiples of it the ranks in each layer of
    each stack and those on modules beside the layers, whether the head and the input embeddings are
    trained, and the values of the latter; the ranks in each layer of the vision tower.
    """

    shape: Shape
    rank: int
    ranks: tuple[tuple[Ranks, ...], ...]
    others: Ranks = ()
    head_trained: bool = False
    embeddings: int = 0
    tower: tuple[Ranks, ...] = ()


def peaks(model: Model, run: Run) -> list[Peak]:
    """The moments at which a step can need most, but for the optimizer's."""
    return _Step(model, run).moments()


def _key(run: Run) -> Run:
    """What of a run decides a layer's pass."""
    return run._replace(
        batch=0, length=0, fused_loss=False, fused_by="liger", double_quant=False, images=0
    )


class _Step:
    def __init__(self, model: Model, run: Run) -> None:
        self.model, self.run, self.shape = model, run, model.shape
        self.images: Images | None = None
        tower = model.shape.tower
        if tower is not None and run.images:
            self.images = see(tower, model.tower, model.others, model.rank, run, _key(run))
            self.run = run = run._replace(masked=run.masked or tower.masked)
        self.key = _key(run)
        self.values = units(run.batch, run.length, model.rank)
        self.stream = run.plain_bytes
        self.own_code = run.code != "hf" and self.shape.head.kind == "lm"

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
        # torchtune's embeddings need no gradient for checkpoints that are not reentrant
        flows = run.checkpointing and run.code != "torchtune"
        flows = flows or self.model.embeddings > 0 or run.stable_embedding
        flows = flows or (self.images is not None and self.images.flows)
        memory: Stack | None = None
        memory_flows = False
        for stack, ranks in zip(shape.stacks, self.model.ranks, strict=True):
            passes.append(self.stack_passes(stack, ranks, flows, memory, memory_flows))
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
        """The pass of each layer; equal ones are looked up once."""
        result: list[Pass] = []
        met: dict[tuple[int, int, bool, int], Pass] = {}
        there = self.rows(memory) if memory is not None else None
        # A decoder's own tokens are not masked: collators give it no mask beside the labels.
        masked = self.run.masked and stack.length is None and memory is None
        width = _entry(stack, self.stream, autocast=self.run.autocast)
        for layer, own in zip(stack.layers, ranks, strict=True):
            key = id(layer), id(own), flows, width
            if key not in met:
                setting = Setting(
                    rows=self.rows(stack),
                    memory=there,
                    masked=masked or self.windowed(layer),
                    stream=width,
                    grad=flows,
                    memory_grad=memory_flows,
                    memory_hidden=memory.hidden if memory is not None else 0,
                    memory_masked=self.run.masked and memory is not None and memory.length is None,
                )
                met[key] = layer_pass(layer, own, self.key, setting)
            result.append(met[key])
            flows, width = flows or result[-1].flows, result[-1].width
        return result

    def windowed(self, layer: Layer) -> bool:
        """Whether a layer's window is shorter than the sequence, so that it gets a mask."""
        windows = [getattr(block.body, "window", None) for block in layer.blocks]
        return any(window is not None and window <= self.run.length for window in windows)

    def compose(self, passes: list[list[Pass]]) -> list[Peak]:
        """The moments of the step from the passes of its layers: in a layer's, what all before it
        keep is alive, and what the graph holds of those after it.
        """
        shape, run, number = self.shape, self.run, self.number
        different = {id(one): one for stack in passes for one in stack}
        figures = {identity: self.figures(one) for identity, one in different.items()}
        layers = [[figures[id(one)] for one in stack] for stack in passes]
        head = self.head(passes[-1][-1])
        embedded = self.model.embeddings * run.plain_bytes
        own = sum(figure.gradients for stack in layers for figure in stack)
        every = own + number(head.gradients) + embedded
        held = sum(figure.held for stack in layers for figure in stack)
        casts = 0.0
        if run.checkpointing:
            casts = sum(figure.casts for stack in layers for figure in stack)
        around = self.around()
        outputs = number(head.outputs)
        earlier = held + outputs if run.graph_kept else 0.0  # of the step before
        where = "layer recompute" if run.checkpointing else "layer backward"
        found: list[Peak] = []
        base, later, after = around + self.between(passes), own, held
        if self.images is not None:
            every += self.images.gradients
            casts += self.images.casts
            found += self.seen(self.images, base, every, own + number(head.gradients), held)
            base += self.images.kept
            held += self.images.held
        for index, (stack, figures_of) in enumerate(zip(shape.stacks, layers, strict=True)):
            # held by the frame above
            embeddings = 0.0 if self.own_code else self.tensor(stack, self.stream)
            embeddings += self.images.outputs if self.images is not None else 0.0
            shared = self.shared_gradient(index)
            ends = _ends(passes[index])
            for place, figure in enumerate(figures_of):
                later -= figure.gradients
                after -= figure.held
                if place in ends:
                    forward = base + figure.forward + embeddings + earlier
                    found.append(Peak("layer forward", forward, 0, 0, 0, every))
                if place in ends and passes[index][place].flows:
                    alive = later + number(head.gradients)
                    most = base + figure.backward + after + shared
                    rest = every - alive - figure.gradients
                    found.append(Peak(where, most, 0, outputs, alive, rest))
                base += figure.kept
        forward = base + casts + self.most(head.forward) + earlier
        found.append(Peak("forward of the head", forward, 0, 0, 0, every))
        logits = number(head.logits)
        most = base + self.most(head.backward)
        found.append(Peak("logits backward", most - logits, logits, outputs, 0, every))
        end = self.tensor(shape.stacks[0], self.stream) + around + held
        if run.stable_embedding:  # its new gradient, which is then added to the one that is there
            end += self.shape.stacks[0].hidden * self.shape.head.size * self.stream
        found.append(Peak("end of backward", end, 0, outputs, every, embedded))
        return found

    def seen(
        self, images: Images, base: float, every: float, done: float, held: float
    ) -> Iterator[Peak]:
        """The moments of the vision tower; ``done`` are the language model's gradients, ``held``
        what is left of its graph.
        """
        yield Peak("forward of the vision tower", base + images.forward, 0, 0, 0, every)
        for alive, complete, coming in images.backward:
            gradients = done + complete
            rest = every - gradients - coming
            yield Peak("backward of the vision tower", base + held + alive, 0, 0, gradients, rest)

    def figures(self, one: Pass) -> Figures:
        """A pass in bytes."""
        number = self.number
        return Figures(
            number(one.kept),
            number(one.held),
            number(one.gradients),
            number(one.casts),
            self.most(one.forward),
            self.most(one.backward),
        )

    def head(self, last: Pass) -> HeadPass:
        """The pass of the head on the last layer's output."""
        stack = self.shape.stacks[-1]
        if self.own_code and self.run.code == "torchtune":
            from lora_lint.memory import torchtune

            there = torchtune.stream(
                stack.final,
                flows=last.flows,
                width=last.width,
                length=self.run.length,
                linear=self.run.fused_loss,
            )
            return torchtune.head(self.shape.head, self.model.others, self.key, there)
        if self.own_code:
            from lora_lint.memory import litgpt

            what = litgpt.stream(
                stack.final, flows=last.flows, width=last.width, length=self.run.length
            )
            return litgpt.head(self.shape.head, self.model.others, self.key, what)
        run = self.run
        setting = HeadSetting(
            flows=last.flows,
            rows=self.rows(stack),
            stream=last.width,
            fused=run.fused_by if run.fused_loss else None,
            few=run.batch * run.length <= TILE[0],
            trained=self.model.head_trained,
        )
        final = stack.final, stack.final_dropout, stack.hidden
        return head_pass(self.shape.head, final, self.model.others, self.key, setting)

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

    def entry(self, stack: Stack) -> float:
        """What the embeddings keep where they need a gradient: their own output, the input of
        their norm, dropout's mask; of audio frames the two convolutions' inputs and outputs at
        twice and once the length.
        """
        compute = 2 if self.run.autocast else self.stream
        if stack.length is not None and len(self.shape.stacks) > 1:
            return 5 * self.tensor(stack, compute)
        size = 0.0
        if stack.entry is not None or stack.dropout:
            size += self.tensor(stack, self.stream)
        if stack.entry is not None:
            size += self.tensor(stack, 4 if self.run.autocast else self.stream)
        if stack.dropout:
            size += self.tensor(stack, 1)
        return size

    def around(self) -> float:
        """Masks and position biases that all layers of a stack share."""
        run, values = self.run, self.values
        size = 0.0
        for stack in self.shape.stacks:
            eager = run.attention == "eager" or self.shape.fixed == "eager"
            if stack.bias:  # a decoder has one for its cross attention as well
                biases = 1 if stack is self.shape.stacks[0] else 2
                size += biases * values[SQUARE] * stack.bias * run.plain_bytes
            if run.checkpointing or self.model.embeddings:
                size += self.entry(stack)
            if run.stable_embedding:
                size += self.tensor(stack, self.stream) + 8 * values[TOKENS]
            if run.code == "torchtune":
                from lora_lint.memory import torchtune

                size += torchtune.rotary(stack, run)
            if stack.length is not None:
                continue
            windows = {
                getattr(b.body, "window", None) for layer in stack.layers for b in layer.blocks
            }
            masks = len({w for w in windows if w is not None and w <= run.length}) + 1
            if eager and (stack.causal or run.masked):
                size += masks * values[SCORES] * run.plain_bytes
            elif run.attention == "sdpa" and (run.masked or _makes_its_mask(stack)):
                size += masks * values[SCORES]
            elif run.attention == "sdpa":
                size += (masks - 1) * values[SCORES]
        return size


def _ends(passes: Sequence[Pass]) -> set[int]:
    """The first and the last place of each pass: between them, what is kept and the gradients grow
    one against the other by the same steps.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, one in enumerate(passes):
        first.setdefault(id(one), place)
        last[id(one)] = place
    return {*first.values(), *last.values()}


def _makes_its_mask(stack: Stack) -> bool:
    """Falcon's mask is there even where every token sees all before it."""
    bodies = (block.body for block in stack.layers[0].blocks)
    return any(isinstance(body, Attention) and body.style == "falcon" for body in bodies)


def _entry(stack: Stack, stream: int, *, autocast: bool) -> int:
    """Bytes of a value of the embeddings: autocast runs LayerNorm in fp32."""
    return 4 if autocast and stack.entry is not None and stack.entry.kind == "layer" else stream


# Head and loss ----------------------------------------------------------------------------------


class HeadSetting(NamedTuple):
    """Whether the stream needs a gradient, its rows and width, which loss never holds all logits,
    if one does, whether tokens are no more than its tile has, and whether the head is trained.
    """

    flows: bool
    rows: Rows
    stream: int
    fused: Kind | None
    few: bool
    trained: bool


@lru_cache(maxsize=256)
def head_pass(
    head: Head,
    final: tuple[Norm | None, bool, int],
    others: Ranks,
    run: Run,
    setting: HeadSetting,
) -> HeadPass:
    """The loss casts logits to fp32 and keeps log_softmax's output; its backward holds that, the
    gradient of the negative log-likelihood and log_softmax's own gradient: three fp32 tensors. For
    a fused loss see ``fused``.
    """
    last_norm, drops, width = final
    tape = Tape(autocast=run.autocast)
    project = Projections(tape, run, dict(others))
    unit, factor = setting.rows
    x = tape.new(unit, factor * width, setting.stream, grad=setting.flows)
    start = x.node
    hidden = x
    if last_norm is not None:
        hidden = norm(tape, hidden, last_norm, run.plain_bytes)
    if drops:
        hidden = tape.dropout(hidden)
    if head.dropout and head.kind == "token":
        hidden = tape.dropout(hidden)
    del x
    linear = head.linears[-1]
    if setting.fused is not None:
        found = beside(setting.fused, run, hidden, linear, few=setting.few)
        forward, backward = (peaks_of(plus(tuple(tape.live), one) for one in way) for way in found)
        return HeadPass(forward, backward, NOTHING, NOTHING, NOTHING)
    if head.kind == "first":
        hidden = tape.result((hidden,), (BATCH, width, hidden.width))
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
    three = as_bytes((size[0], 3 * size[1]))
    return HeadPass(peaks_of(forward), backward, three, as_bytes(outputs), tuple(tape.live))
