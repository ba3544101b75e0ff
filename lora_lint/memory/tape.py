"""What autograd keeps and frees, for tensors of which only the size is known.

A model's forward, written with a ``Tape``'s operations, makes tensors that hold no values: each has
a storage of so many bytes, and as in torch a storage lives as long as something refers to it. An
operation on a tensor that needs a gradient leaves a node, which refers to what its backward needs.
``backward`` then runs the nodes from the last to the first, as torch's engine does (torch 2.13
torch/csrc/autograd/engine.cpp: the ready node with the highest sequence number first). The bytes
alive at each local maximum are noted, so the peak follows from what each operation keeps, and from
nothing else.

Bytes are not numbers but coefficients: of 1, of the batch, of batch x length, of batch x length^2
and of length^2, and for adapters of the rank times the first three. One pass over a layer thus
serves every batch, length and rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What a storage's bytes are counted in.
ONE: Final = 0
BATCH: Final = 1
TOKENS: Final = 2
SCORES: Final = 3  # batch x length^2
SQUARE: Final = 4  # length^2
RANK: Final = 5
UNITS: Final = 8
# The unit of a tensor of r values where there was one of d, and back.
_LOW: Final = {ONE: RANK, BATCH: RANK + 1, TOKENS: RANK + 2}
_FULL: Final = {low: unit for unit, low in _LOW.items()}

Bytes = tuple[float, ...]
Size = tuple[int, float]
NOTHING: Final[Bytes] = (0.0,) * UNITS


def units(batch: int, length: int, rank: int) -> Bytes:
    """The values of the units for a batch of so many sequences of so many tokens, and a rank."""
    tokens = batch * length
    return (1, batch, tokens, tokens * length, length**2, rank, rank * batch, rank * tokens)


def total(size: Bytes, values: Bytes) -> float:
    """Bytes as a number."""
    return (
        size[0]
        + size[1] * values[1]
        + size[2] * values[2]
        + size[3] * values[3]
        + size[4] * values[4]
        + size[5] * values[5]
        + size[6] * values[6]
        + size[7] * values[7]
    )


def as_bytes(size: Size) -> Bytes:
    """A size as coefficients."""
    return tuple(size[1] if unit == size[0] else 0.0 for unit in range(UNITS))


def plus(one: Bytes, other: Bytes, times: float = 1) -> Bytes:
    """``one + times * other``."""
    return tuple(a + times * b for a, b in zip(one, other, strict=True))


class Storage:
    """Bytes that live as long as something refers to them."""

    __slots__ = ("holders", "size", "tape", "unit", "view")

    def __init__(self, tape: Tape, unit: int, size: float) -> None:
        self.tape, self.unit, self.size = tape, unit, size
        self.view = False  # of a gradient: it is a view
        self.holders = 0  # how many inputs of nodes a gradient is waiting at
        tape.live[unit] += size
        tape.rose = True

    def __del__(self) -> None:
        tape = self.tape
        if tape.rose:
            tape.moments.append(tuple(tape.live))
            tape.rose = False
        tape.live[self.unit] -= self.size


class Leaf:
    """A trained parameter or a layer's input: where a gradient ends and stays."""

    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer: Storage | None = None


class Node:
    """What an operation leaves for its backward.

    ``gives`` has the size of the gradient that the backward makes for each input, None where it
    hands on the very one that it got. ``needs`` lives only while it runs. ``parts`` are gradients
    of the pieces of a tensor that was split, which the backward puts together. ``view``: its first
    gradient is a view, to which torch adds nothing in place.
    """

    __slots__ = ("buffer", "edges", "gives", "needs", "parts", "saved", "view")

    def __init__(
        self,
        edges: Sequence[Node | Leaf | None],
        gives: Sequence[Size | None],
        saved: Sequence[Storage],
        needs: Sequence[Size],
    ) -> None:
        self.edges, self.gives, self.saved, self.needs = edges, gives, saved, needs
        self.buffer: Storage | None = None
        self.parts: list[Storage] | None = None
        self.view = False


class Tensor:
    """So many values (coefficient ``count`` of ``unit``) of so many bytes each."""

    __slots__ = ("count", "node", "storage", "unit", "width")

    def __init__(
        self, unit: int, count: float, width: int, storage: Storage, node: Node | Leaf | None
    ) -> None:
        self.unit, self.count, self.width = unit, count, width
        self.storage, self.node = storage, node

    @property
    def size(self) -> Size:
        """The bytes of its own values, which may be a part of its storage."""
        return self.unit, self.count * self.width


def like(x: Tensor, width: int | None = None) -> tuple[int, float, int]:
    """What a tensor of a tensor's shape is made of."""
    return x.unit, x.count, width or x.width


class Pass(NamedTuple):
    """What a piece of a model keeps and needs.

    ``kept`` after its forward, of which ``held`` is not freed by the backward but with the graph;
    ``forward`` and ``backward`` are the moments that can be the peak; ``gradients`` are those of
    the trained parameters. ``casts`` are autocast's copies of those, which live until the whole
    forward ends. ``flows`` tells whether its output needs a gradient, ``width`` is its values'.
    """

    kept: Bytes
    held: Bytes
    forward: tuple[Bytes, ...]
    backward: tuple[Bytes, ...]
    gradients: Bytes
    casts: Bytes
    flows: bool
    width: int


class HeadPass(NamedTuple):
    """The head's forward and backward moments, what of the latter are ``logits`` and their
    gradients, its output, and its gradients.
    """

    forward: tuple[Bytes, ...]
    backward: tuple[Bytes, ...]
    logits: Bytes
    outputs: Bytes
    gradients: Bytes


class Tape:
    """Runs operations on tensors without values.

    ``autocast``: linear maps, products and attention run in 16 bit whatever they get, and norms,
    powers and softmax in fp32 (torch 2.13 aten/src/ATen/autocast_mode.h).
    """

    def __init__(self, *, autocast: bool = False) -> None:
        self.autocast = autocast
        self.live = [0.0] * UNITS
        self.rose = False
        self.moments: list[Bytes] = []
        self.nodes: list[Node] = []
        self.saves = 0  # how many moments there were when something was last kept
        self.held: list[Storage] = []
        self.casts: list[Storage] = []  # autocast's copies of trained parameters

    # Tensors ------------------------------------------------------------------------------------

    def new(self, unit: int, count: float, width: int, *, grad: bool = False) -> Tensor:
        """A tensor that comes from elsewhere."""
        return Tensor(
            unit, count, width, Storage(self, unit, count * width), Leaf() if grad else None
        )

    def scratch(self, unit: int, size: float) -> Storage:
        """Bytes of something without a gradient."""
        return Storage(self, unit, size)

    def result(
        self,
        inputs: Sequence[Tensor],
        kind: tuple[int, float, int],
        saved: Iterable[Storage] = (),
        gives: Sequence[Size | None] | None = None,
        needs: Sequence[Size] = (),
    ) -> Tensor:
        """The result of an operation, with its node if an input needs a gradient.

        ``gives``: as ``Node.gives``, by default one gradient of each input's size.
        """
        unit, count, width = kind
        storage = Storage(self, unit, count * width)
        edges = [tensor.node for tensor in inputs]
        if not any(edges):
            return Tensor(unit, count, width, storage, None)
        kept = tuple(saved)
        if gives is None:
            gives = [tensor.size for tensor in inputs]
        node = Node(edges, gives, kept, needs)
        self.nodes.append(node)
        if kept:
            self.saves = len(self.moments) + 1
        return Tensor(unit, count, width, storage, node)

    # Elementwise --------------------------------------------------------------------------------

    def cast(self, x: Tensor, width: int) -> Tensor:
        """In another type; the same tensor where it has that already."""
        if x.width == width:
            return x
        return self.result((x,), (x.unit, x.count, width))

    def copy(self, x: Tensor) -> Tensor:
        """A copy; the backward hands its gradient on."""
        return self.result((x,), (x.unit, x.count, x.width), gives=(None,))

    def scale(self, x: Tensor, count: float | None = None) -> Tensor:
        """Times a number, or a sum or mean over so many values that ``count`` are left."""
        return self.result((x,), (x.unit, x.count if count is None else count, x.width))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum, in the wider type; the backward hands its gradient on where types agree."""
        width = max(x.width, y.width)
        count = max(x.count, y.count)
        gives = [None if t.width == width and t.count == count else t.size for t in (x, y)]
        return self.result((x, y), (x.unit, count, width), gives=gives)

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """The product keeps each factor for the other's gradient. A factor of fewer values is
        spread; its gradient is made whole before it is summed.
        """
        width, count = max(x.width, y.width), max(x.count, y.count)
        saved = [a.storage for a, b in ((x, y), (y, x)) if b.node is not None]
        needs = [(x.unit, count * width) for t in (x, y) if t.count < count and t.node is not None]
        return self.result((x, y), (x.unit, count, width), saved, needs=needs)

    def times_parameter(self, x: Tensor, width: int, parameter: Leaf | None = None) -> Tensor:
        """Times a vector of the model; kept for the vector's gradient only if that is trained."""
        out = (x.unit, x.count, max(width, x.width))
        if parameter is None:
            return self.result((x,), out)
        vector = Tensor(ONE, 0, width, x.storage, parameter)
        return self.result((x, vector), out, (x.storage,), needs=((x.unit, x.count * out[2]),))

    def keeps_input(self, x: Tensor) -> Tensor:
        """A function whose backward needs its input: SiLU, torch's GELU."""
        return self.result((x,), (x.unit, x.count, x.width), (x.storage,))

    def keeps_output(self, x: Tensor) -> Tensor:
        """A function whose backward needs its output: ReLU, tanh, sigmoid."""
        y = self.result((x,), (x.unit, x.count, x.width))
        self.also_keeps(y, y.storage)
        return y

    def also_keeps(self, y: Tensor, *storages: Storage) -> None:
        """What a result's backward needs beside: the result itself, a mask made for it."""
        if isinstance(y.node, Node):
            y.node.saved = (*y.node.saved, *storages)
            self.saves = len(self.moments) + 1

    def power(self, x: Tensor) -> Tensor:
        """A square or cube keeps its input; its backward makes the lower power and its multiple.
        In fp32 under autocast.
        """
        if self.autocast:
            x = self.cast(x, 4)
        size = x.size
        return self.result((x,), (x.unit, x.count, x.width), (x.storage,), needs=(size, size))

    def softmax(self, x: Tensor, *, wide: bool = False) -> Tensor:
        """Keeps its output; in fp32 if ``wide`` or under autocast."""
        if wide or self.autocast:
            x = self.cast(x, 4)
        return self.keeps_output(x)

    def dropout(self, x: Tensor) -> Tensor:
        """Keeps a mask of one byte a value (native_dropout)."""
        mask = Storage(self, x.unit, x.count)
        return self.result((x,), (x.unit, x.count, x.width), (mask,))

    # Pieces -------------------------------------------------------------------------------------

    def part(self, x: Tensor, count: float) -> Tensor:
        """A slice: a view, whose backward makes a gradient of the whole."""
        if x.node is None:
            return Tensor(x.unit, count, x.width, x.storage, None)
        node = Node((x.node,), (x.size,), (), ())
        self.nodes.append(node)
        return Tensor(x.unit, count, x.width, x.storage, node)

    def split(self, x: Tensor, *counts: float) -> list[Tensor]:
        """Views of the pieces, whose gradients the backward joins into one."""
        node = None
        if x.node is not None:
            node = Node((x.node,), (x.size,), (), ())
            node.parts = []
            self.nodes.append(node)
        return [Tensor(x.unit, count, x.width, x.storage, node) for count in counts]

    def join(self, pieces: Sequence[Tensor], count: float | None = None) -> Tensor:
        """Pieces copied into one; the gradients of the pieces are views (``cat``)."""
        first = pieces[0]
        whole = sum(piece.count for piece in pieces) if count is None else count
        return self.result(pieces, (first.unit, whole, first.width), gives=[None] * len(pieces))

    # Products -----------------------------------------------------------------------------------

    def linear(
        self,
        x: Tensor,
        d_in: int,
        d_out: int,
        width: int,
        *,
        weight: Leaf | None = None,
        copied: bool = False,
    ) -> Tensor:
        """A linear map keeps its input for its weight's gradient if that is trained, and nothing
        new of a frozen weight.

        ``width``: of the weight's values; ``copied``: the weight is a tensor made for this product,
        which is kept for the gradient of the input, or autocast's copy of it in its place. Autocast
        makes a 16-bit copy of an fp32 weight, of a frozen one at each use (only trained ones are
        cached: autocast_mode.cpp ``cached_cast``).
        """
        out = (x.unit, x.count / d_in * d_out)
        return self._linear(x, (ONE, d_in * d_out), out, width, weight, copied=copied)

    def low(self, x: Tensor, d_in: int, r: int, width: int, weight: Leaf) -> Tensor:
        """A trained linear map to r times the rank, an adapter's first."""
        out = (_LOW[x.unit], x.count / d_in * r)
        return self._linear(x, (RANK, d_in * r), out, width, weight)

    def high(
        self, x: Tensor, r: int, d_out: int, width: int, weight: Leaf, *, groups: int = 1
    ) -> Tensor:
        """A trained linear map from r times the rank, an adapter's second; in ``groups``, each part
        of the output is of its own part of the input.
        """
        out = (_FULL[x.unit], x.count / r * d_out)
        return self._linear(x, (RANK, r * d_out / groups), out, width, weight)

    def _linear(
        self,
        x: Tensor,
        size: Size,
        out: Size,
        width: int,
        weight: Leaf | None,
        *,
        copied: bool = False,
    ) -> Tensor:
        """A linear map by a weight of so many values, to so many values: see ``linear``."""
        unit, values = size
        made: list[Storage] = []
        needs: tuple[Size, ...] = ()
        if self.autocast:
            x = self.cast(x, 2)
            if width == 4:
                made.append(Storage(self, unit, 2 * values))
                if weight is not None:
                    self.casts.append(made.pop())
                    needs = ((unit, 2 * values),)
        if copied and not made:
            made.append(Storage(self, unit, x.width * values))
        kind = (*out, x.width)
        if weight is None:
            return self._viewed(self.result((x,), kind, made if x.node is not None else ()))
        parameter = Tensor(unit, values, width, x.storage, weight)
        if x.node is None:
            made = []
        gives = (x.size, (unit, values * width))
        return self._viewed(
            self.result((x, parameter), kind, (x.storage, *made), gives=gives, needs=needs)
        )

    def _viewed(self, y: Tensor) -> Tensor:
        """The input of a linear map is flattened, so that its gradient is a view."""
        if isinstance(y.node, Node):
            y.node.view = True
        return y

    def matmul(self, x: Tensor, y: Tensor, out: tuple[int, float]) -> Tensor:
        """A product of two activations keeps both."""
        if self.autocast:
            x, y = self.cast(x, 2), self.cast(y, 2)
        saved = [a.storage for a, b in ((x, y), (y, x)) if b.node is not None]
        return self.result((x, y), (*out, max(x.width, y.width)), saved)

    # Passes -------------------------------------------------------------------------------------

    def _join_parts(self, node: Node) -> None:
        made = Storage(self, *(node.gives[0] or (ONE, 0)))
        made.holders = 1
        node.parts = None
        _give(node.edges[0], made)

    def backward(self, root: Node | Leaf | None, first: list[Storage]) -> Bytes | None:
        """Run the nodes from the last to the first, from a gradient of the root's output, which is
        taken out of ``first``.

        Gives what was alive when a node first needed something kept.
        """
        pending = None
        nodes = self.nodes
        if root is None:
            return None
        root.buffer = first.pop()
        root.buffer.holders = 1
        while nodes:
            node = nodes.pop()
            grad = node.buffer
            if node.parts:
                self._join_parts(node)
                continue
            if grad is None:
                continue
            node.buffer = None
            grad.holders -= 1
            if pending is None and node.saved:
                pending = tuple(self.live)
            made_all = [
                None if edge is None else (grad if size is None else Storage(self, *size))
                for edge, size in zip(node.edges, node.gives, strict=True)
            ]
            for one in made_all:
                if one is not None:
                    one.holders += 1
            if node.needs:
                extra = [Storage(self, *size) for size in node.needs]
                del extra
            node.saved = ()
            if node.view and made_all[0] is not None:
                made_all[0].view = True
            one = grad = None
            for edge in node.edges:
                _give(edge, made_all.pop(0))
        return pending


def _give(edge: Node | Leaf | None, gradient: Storage | None) -> None:
    """Hand on a gradient. A second one is added in place to the first, or the first to it, where
    nothing else refers to that and it is no view; else their sum is new (torch 2.13
    torch/csrc/autograd/input_buffer.cpp ``can_accumulate_inplace``).
    """
    if edge is None or gradient is None:
        return
    if isinstance(edge, Node) and edge.parts is not None:
        edge.parts.append(gradient)
        return
    old = edge.buffer
    if old is None:
        edge.buffer = gradient
        return
    if not old.view and old.holders == 1:
        gradient.holders -= 1
    elif not gradient.view and gradient.holders == 1:
        old.holders -= 1
        edge.buffer = gradient
    else:
        old.holders -= 1
        gradient.holders -= 1
        edge.buffer = Storage(gradient.tape, gradient.unit, gradient.size)
        edge.buffer.holders = 1


# Units of a usual step, to look first at the moments that are the greatest there.
_TYPICAL: Final = units(4, 1024, 16)


def peaks_of(moments: Iterable[Bytes]) -> tuple[Bytes, ...]:
    """Those moments that are the greatest for some batch, length and rank."""
    ordered = sorted(set(moments), key=lambda m: total(m, _TYPICAL))
    best: list[Bytes] = []
    while ordered:
        moment = ordered.pop()
        if not any(all(a >= b for a, b in zip(other, moment, strict=True)) for other in best):
            best.append(moment)
    return tuple(best)
