"""What of a model's structure decides what a training step keeps: the types.

Readers (``shapes``) make them from a ``ModuleTree``; ``blocks`` runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

NormKind = Literal["layer", "rms", "gemma", "t5"]
Activation = Literal["input", "output", "new_gelu", "quick_gelu", "bloom"]


class Linear(NamedTuple):
    """A linear map: its name within the layer and its sizes. ``quantized``: bitsandbytes replaces
    it in a quantized model.
    """

    name: str
    d_in: int
    d_out: int
    bias: bool = False
    quantized: bool = True


class Norm(NamedTuple):
    """A normalization of so many values a token, as one vector or, head by head, as several."""

    size: int
    kind: NormKind
    vectors: int = 1


class Attention(NamedTuple):
    """Attention with its projections ``into`` queries, keys and values (three, one for all, or
    DeepSeek's ``latent`` ones) and out of them (``o``).

    ``q_width``, ``k_width``, ``v_width``: of the queries, keys and values as projected; ``heads``
    and ``kv_heads``. ``rotary``: the share of each head that is rotated. ``scaled``: queries are
    scaled as a tensor of their own. ``style``: how its forward is written: ``interface`` as
    transformers' attention interface, and models that write their own. ``wide``: eager attention
    takes its softmax in fp32. ``window``: of sliding attention.
    """

    into: tuple[Linear, ...]
    o: Linear
    q_width: int
    k_width: int
    v_width: int
    heads: int
    kv_heads: int
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    rotary: float = 1.0
    scaled: bool = False
    style: str = "interface"
    wide: bool = True
    causal: bool = True
    cross: bool = False
    sinks: bool = False
    softcap: bool = False
    biased: bool = False
    dropout: bool = False
    window: int | None = None
    latent: Latent | None = None


class Latent(NamedTuple):
    """Multi-head latent attention (DeepSeek): queries and keys from low ranks, a part rotated."""

    q: Linear
    q_a: Linear | None
    q_norm: Norm | None
    kv_a: Linear
    kv_norm: Norm
    kv_b: Linear
    rank: int
    rope: int
    interleaved: bool
    complex_rotary: bool


class Mlp(NamedTuple):
    """A feed-forward: maps ``into`` its inner values (one, or gate and up; one for both if
    ``fused``), an activation, dropout if ``drops``, and ``down``.
    """

    into: tuple[Linear, ...]
    down: Linear
    activation: Activation
    fused: bool = False
    drops: bool = False


class Experts(NamedTuple):
    """A mixture: so many experts of ``inner`` width with ``top`` chosen for a token.

    ``router``: how its scores are made; ``wide_weights``: they weigh the experts' outputs in fp32.
    ``clamped``: gpt_oss's gate. ``shared``: an MLP that all tokens take, ``shared_gate`` its gate.
    ``up`` and ``down`` are the names of the experts' parameters.
    """

    number: int
    top: int
    hidden: int
    inner: int
    router: str
    wide_weights: bool
    activation: Activation
    up: str
    down: str
    clamped: bool = False
    biased: bool = False
    shared: Mlp | None = None
    shared_gate: Linear | None = None


class Block(NamedTuple):
    """A residual block: norm, body, norm of its output, dropout, sum, norm of the sum."""

    body: Attention | Mlp | Experts
    pre: Norm | None = None
    inner: Norm | None = None
    post: Norm | None = None
    dropout: bool = False


class Layer(NamedTuple):
    """Blocks one after the other, or ``parallel`` ones that read the same stream; with
    ``one_norm`` the first block's norm is the others' as well.
    """

    hidden: int
    blocks: tuple[Block, ...]
    parallel: bool = False
    one_norm: bool = False


def matrices(layer: Layer) -> tuple[list[int], list[int]]:
    """Values of a layer's linear maps, and of its experts' parameters."""
    maps: list[Linear] = []
    experts: list[int] = []
    for block in layer.blocks:
        body = block.body
        if isinstance(body, Attention):
            way = body.latent
            maps += [*body.into, body.o]
            if way is not None:
                maps += [way.q, way.kv_a, way.kv_b, *([way.q_a] if way.q_a else [])]
            continue
        if isinstance(body, Experts):
            experts += [body.number * body.inner * body.hidden * part for part in (2, 1)]
            maps += [body.shared_gate] if body.shared_gate else []
        mlp = body.shared if isinstance(body, Experts) else body
        maps += [*mlp.into, mlp.down] if mlp is not None else []
    different = {one.name: one.d_in * one.d_out for one in maps}
    return list(different.values()), experts


class Stack(NamedTuple):
    """Layers whose modules are named ``{prefix}.{index}.…``; equal ones share one object.

    ``length``: of its sequences where the model fixes that (audio frames, image patches).
    ``entry``: the norm of the embeddings, ``dropout`` theirs, ``final`` the norm of the output.
    ``bias``: heads of a position bias that all layers share (T5).
    """

    prefix: str
    layers: tuple[Layer, ...]
    hidden: int
    length: int | None = None
    entry: Norm | None = None
    dropout: bool = False
    final: Norm | None = None
    final_dropout: bool = False
    causal: bool = True
    bias: int = 0


class Head(NamedTuple):
    """What follows the last stack.

    ``kind``: ``lm`` for logits of all tokens, ``token`` for labels of all tokens, ``first`` for a
    label of the first token. ``linears``: the maps, the last one gives ``size`` values. ``capped``:
    logits are soft-capped; ``plain``: the loss takes them as they are, without a cast to fp32.
    """

    kind: str
    linears: tuple[Linear, ...]
    size: int
    capped: bool = False
    scaled: bool = False
    plain: bool = False
    dropout: bool = False


class Tower(NamedTuple):
    """A vision tower that takes images of one size, with what makes tokens of its output.

    ``stack``: its layers, ``length`` patches an image; the first ``used`` of them have a part in
    the loss. ``maps`` of the projector, by full names, with an activation between them; where
    patches are averaged before an only map, ``pooled`` is the norm of what that gives. ``tokens``:
    of an image in the sequence. ``masked``: an image's tokens see each other, so that attention
    gets a mask.
    """

    stack: Stack
    used: int
    maps: tuple[Linear, ...]
    tokens: int
    pooled: Norm | None = None
    masked: bool = False


class Patches(NamedTuple):
    """A vision tower that is not described: so many layers of ``hidden`` values a patch, and how
    many patches make a token of the sequence. ``names`` are the prefixes of what belongs to images.
    """

    layers: int
    hidden: int
    per_token: int
    names: tuple[str, ...]


class Shape(NamedTuple):
    """A model: an encoder's stack where it has one, the decoder's (or the only one), the head.

    ``names``: modules whose adapters the form knows, beside those in layers. ``traced`` tells
    whether this family was checked against real steps. ``fixed``: the attention that this family
    takes whatever the settings say. ``tower``: of an image-text model, where it is described, or
    ``patches``, where it is not.
    """

    stacks: tuple[Stack, ...]
    head: Head
    names: Mapping[str, Linear]
    traced: bool
    fixed: str | None = None
    tower: Tower | None = None
    patches: Patches | None = None
