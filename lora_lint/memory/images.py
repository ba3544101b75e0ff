"""What images add to a training step: the pass of the vision tower and its projector.

The tower runs before the language model and its backward comes last, so what it keeps is alive at
every moment between. It keeps nothing while nothing in it needs a gradient; with checkpointing its
patch embeddings do, even of a frozen tower (transformers 5.23.0 modeling_utils.py
``enable_input_require_grads`` hooks those of every part of a model).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from lora_lint.memory.attention import Rows
from lora_lint.memory.blocks import activate, norm
from lora_lint.memory.passes import Figures, Ranks, Setting, layer_pass
from lora_lint.memory.projections import Projections
from lora_lint.memory.tape import BATCH, NOTHING, Storage, Tape, peaks_of, total, units

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Tower
    from lora_lint.memory.tape import Bytes, Pass, Tensor


class Moment(NamedTuple):
    """Bytes alive in the tower's part of the backward beside what was there before the tower ran,
    and those of its own gradients that are complete and that come then.
    """

    alive: float
    gradients: float
    coming: float


class Images(NamedTuple):
    """What images add, in bytes: ``kept`` from the tower's forward to its backward, of which
    ``held`` lives as long as the graph; ``casts``, autocast's copies of its adapters; ``outputs``,
    what the frame of the model above holds while its layers run, with what layers without a part
    in the loss keep; the most in its ``forward``; the moments of its
    ``backward``; all its ``gradients``. ``flows``: what it gives needs a gradient.
    """

    kept: float
    held: float
    casts: float
    outputs: float
    forward: float
    backward: tuple[Moment, ...]
    gradients: float
    flows: bool


def see(
    tower: Tower, layers: Sequence[Ranks], others: Ranks, rank: int, run: Run, key: Run
) -> Images:
    """The pass of ``run.images`` images in each sequence; ``key`` is the run with whatever does not
    decide a layer's pass taken out, ``layers`` and ``others`` the ranks in the tower's layers and
    beside layers.
    """
    return _Seeing(tower, rank, run, key).see(layers, others)


class _Seeing:
    def __init__(self, tower: Tower, rank: int, run: Run, key: Run) -> None:
        self.tower, self.run, self.key = tower, run, key
        self.values = units(run.batch * run.images, 1, rank)
        self.stack = tower.stack
        self.length = tower.stack.length or 1

    def number(self, size: Bytes) -> float:
        """Bytes as a number."""
        return total(size, self.values)

    def most(self, moments: Iterable[Bytes]) -> float:
        """The largest of some moments."""
        return max((self.number(moment) for moment in moments), default=0.0)

    def see(self, layers: Sequence[Ranks], others: Ranks) -> Images:
        """All of it."""
        kept = self._entry()
        passes = self._passes(layers)
        different = {id(one): one for one in passes}
        figures = {key: self._figures(one) for key, one in different.items()}
        each = [figures[id(one)] for one in passes]
        last = passes[self.tower.used - 1]
        names = {one.name for one in self.tower.maps}
        mine = tuple(pair for pair in others if pair[0] in names)
        projected = project(self.tower, mine, self.key, last.flows, last.width)
        forward, before = 0.0, [kept]
        for figure in each:
            forward = max(forward, before[-1] + figure.forward)
            before.append(before[-1] + figure.kept)
        used = each[: self.tower.used]
        start = before[len(used)]
        forward = max(forward, start + self.most(projected.forward))
        leaf, mask = self._merged(flows=last.flows or bool(mine))
        own = self.number(projected.gradients)
        moments = [Moment(start + leaf + self.most(projected.backward), 0.0, own)]
        done, after = own, 0.0
        first = next((place for place, one in enumerate(passes) if one.flows), len(passes))
        for place in reversed(range(first, len(used))):
            figure = used[place]
            alive = before[place] + leaf + after + figure.backward
            moments.append(Moment(alive, done, figure.gradients))
            done += figure.gradients
            after += figure.held
        return Images(
            kept=start + self.number(projected.kept) + leaf + mask,
            held=after,
            casts=sum(figure.casts for figure in used) if self.run.checkpointing else 0.0,
            outputs=self._outputs(passes[-1].width) + before[-1] - start,
            forward=forward,
            backward=_highest(moments) if projected.flows else (),
            gradients=done,
            flows=projected.flows,
        )

    def _passes(self, layers: Sequence[Ranks]) -> list[Pass]:
        """The pass of each layer; equal ones are looked up once."""
        flows, width = self.run.checkpointing, self._width()
        rows = Rows(BATCH, self.length)
        met: dict[tuple[int, int, bool, int], Pass] = {}
        passes = []
        for layer, own in zip(self.stack.layers, layers, strict=True):
            key = id(layer), id(own), flows, width
            if key not in met:
                setting = Setting(rows, None, masked=False, stream=width, grad=flows)
                met[key] = layer_pass(layer, own, self.key, setting)
            passes.append(met[key])
            flows, width = flows or passes[-1].flows, passes[-1].width
        return passes

    def _figures(self, one: Pass) -> Figures:
        return Figures(
            self.number(one.kept),
            self.number(one.held),
            self.number(one.gradients),
            self.number(one.casts),
            self.most(one.forward),
            self.most(one.backward),
        )

    def _tensor(self, width: int) -> float:
        """Bytes of a tensor of a value of so many bytes for each of the tower's."""
        return self.values[BATCH] * self.length * self.stack.hidden * width

    def _outputs(self, width: int) -> float:
        """The tower's output; where it is not the last layer's, those of all."""
        layers = len(self.stack.layers)
        return self._tensor(width) * (1 if self.tower.used == layers else layers + 1)

    def _width(self) -> int:
        """Bytes of a value of what the first layer gets: autocast runs LayerNorm in fp32."""
        wide = self.run.autocast and self.stack.entry is not None
        return 4 if wide else self.run.plain_bytes

    def _entry(self) -> float:
        """What is kept of the embeddings, with checkpointing: the convolution's output, which is a
        leaf; and before a norm its input.
        """
        run = self.run
        if not run.checkpointing:
            return 0.0
        kept = self._tensor(2 if run.autocast else run.plain_bytes)
        return kept + (self._tensor(self._width()) if self.stack.entry is not None else 0.0)

    def _merged(self, *, flows: bool) -> tuple[float, float]:
        """Text's embeddings, which with checkpointing stay as a leaf beside the sequence that
        images were put into, and the mask that tells where.
        """
        run = self.run
        leaf = run.tokens * self.tower.maps[-1].d_out * run.plain_bytes
        return float(leaf) if run.checkpointing else 0.0, float(run.tokens) if flows else 0.0


def _highest(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    """Without the moments at which another has more alive, and more gradients."""
    best: list[Moment] = []
    for moment in sorted(moments, reverse=True):
        if not any(b.gradients + b.coming >= moment.gradients + moment.coming for b in best):
            best.append(moment)
    return tuple(best)


class Projected(NamedTuple):
    """A projector's forward and backward moments, what it keeps, and its gradients; whether what it
    gives needs a gradient.
    """

    forward: tuple[Bytes, ...]
    backward: tuple[Bytes, ...]
    kept: Bytes
    gradients: Bytes
    flows: bool


@lru_cache(maxsize=64)
def project(tower: Tower, ranks: Ranks, run: Run, flows: bool, width: int) -> Projected:
    """The pass of the projector; ``run`` as in ``passes.layer_pass``, ``flows`` and ``width`` of
    the tower's output.
    """
    tape = Tape(autocast=run.autocast)
    x = tape.new(BATCH, (tower.stack.length or 1) * tower.stack.hidden, width, grad=flows)
    start = x.node
    y = tape.cast(_mapped(tape, Projections(tape, run, dict(ranks)), x, tower), run.plain_bytes)
    del x
    root, size = y.node, y.size
    forward = peaks_of((*tape.moments, tuple(tape.live)))
    del y
    kept = tuple(tape.live)
    if root is None:
        return Projected(forward, (), kept, NOTHING, flows=False)
    tape.moments.clear()
    tape.backward(root, [Storage(tape, *size)])
    backward = peaks_of((*tape.moments, tuple(tape.live)))
    tape.casts.clear()
    tape.held.clear()
    if start is not None:
        start.buffer = None
    return Projected(forward, backward, kept, tuple(tape.live), flows=True)


def _mapped(tape: Tape, linear: Projections, x: Tensor, tower: Tower) -> Tensor:
    plain = linear.run.plain_bytes
    if tower.stack.final is not None:
        x = norm(tape, x, tower.stack.final, plain)
    if tower.pooled is None:  # without the class token
        first, second = tower.maps
        x = linear(tape.part(x, tower.tokens * first.d_in), first)
        x = linear(activate(tape, x, "input"), second)
        return tape.join((x,))  # of a list of images
    one = tower.maps[0]
    x = tape.copy(x)  # averaged by ``AvgPool2d``, which keeps its input
    x = tape.result((x,), (BATCH, tower.tokens * one.d_in, x.width), (x.storage,))
    x = norm(tape, x, tower.pooled, plain)
    return tape.linear(x, one.d_in, one.d_out, plain)
