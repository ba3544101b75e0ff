"""The shape of a dense decoder, read from its module tree.

Two grammars are known: Llama's (separate or fused q, k, v and gate, up; RMSNorm or LayerNorm;
rotary positions; optional norms on q and k) and GPT-2's (fused ``c_attn``, a plain MLP). A tree
that holds anything else is not described, rather than described wrongly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.models.module_tree import ModuleNode, ModuleTree

Role = Literal["q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down"]

# Names of projections by part of the layer. An attention must have an ``o`` and either q, k and v
# or a fused one; an MLP a ``down`` and either up, gate and up, or a fused one.
_ATTENTION: Final[dict[str, Role]] = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "qkv_proj": "qkv",
    "c_attn": "qkv",
    "o_proj": "o",
    "c_proj": "o",
}
_MLP: Final[dict[str, Role]] = {
    "gate_proj": "gate",
    "up_proj": "up",
    "gate_up_proj": "gate_up",
    "c_fc": "up",
    "down_proj": "down",
    "c_proj": "down",
}
# Tensors of the inner size that an activation function keeps for its backward: those of torch keep
# their input; transformers' NewGELU (activations.py) is written out in Python and keeps x, 0.5x,
# tanh(...) and 1 + tanh(...).
_ACTIVATIONS: Final = {
    "SiLUActivation": 1,
    "SiLU": 1,
    "GELUActivation": 1,
    "GELUTanh": 1,
    "PytorchGELUTanh": 1,
    "GELU": 1,
    "NewGELUActivation": 4,
}
# Families whose closed form agrees with the operations of a real step (tests/memory/test_traced.py;
# the sweep there asks every one of them).
TRACED: Final = frozenset(
    {
        "cwm",
        "emu3",
        "ernie4_5",
        "exaone4",
        "gemma",
        "gemma3_text",
        "glm",
        "glm4",
        "gpt-sw3",
        "gpt2",
        "gpt_bigcode",
        "granite",
        "helium",
        "hyperclovax",
        "internlm3",
        "llama",
        "ministral3",
        "mistral",
        "olmo2",
        "olmo3",
        "phi3",
        "qwen2",
        "qwen3",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
    }
)
# Soft-capped logits and attention scores cost tensors that the grammar does not show.
_CAPPED: Final = frozenset({"gemma2", "vaultgemma"})
# Families whose default configuration drops out the output of attention and MLP.
_DROPOUT: Final = frozenset({"gpt2", "gpt_bigcode"})


class Projection(NamedTuple):
    """A linear map of a layer: its part in it, and its sizes."""

    role: Role
    d_in: int
    d_out: int


class Norm(NamedTuple):
    """A normalization of so many values a token, as one vector or, head by head, as several.

    ``rms``: HF's RMSNorm, written out in Python; else torch's LayerNorm.
    """

    size: int
    rms: bool
    vectors: int = 1


class Layer(NamedTuple):
    """One decoder layer. ``projections`` goes by name within the layer (``self_attn.q_proj``).

    ``q`` and ``kv`` are the widths of the queries and of the keys (as of the values), ``inner``
    the MLP's. ``head_norms`` are those on q and k.
    """

    projections: Mapping[str, Projection]
    hidden: int
    q: int
    kv: int
    inner: int
    gated: bool
    norms: tuple[Norm, ...]
    head_norms: tuple[Norm, ...]
    activation: int
    dropout: bool

    def has(self, role: Role) -> bool:
        """Whether a projection of this role is there."""
        return any(projection.role == role for projection in self.projections.values())


class Decoder(NamedTuple):
    """A decoder with a language-modelling head.

    ``layers`` holds each layer's description, equal layers sharing one object; their modules are
    named ``{prefix}.{index}.…``. ``heads`` is None where the config's facts do not say it.
    ``traced`` tells whether this family was checked against a real step.
    """

    prefix: str
    layers: tuple[Layer, ...]
    hidden: int
    vocabulary: int
    heads: int | None
    norm: Norm
    rotary: bool
    head: str
    traced: bool


class _Unknown(Exception):  # noqa: N818 - not an error, a tree outside the grammar
    pass


def read_decoder(tree: ModuleTree) -> Decoder | str:
    """The decoder of a tree, or why it is not described."""
    try:
        return _read(tree)
    except _Unknown as exc:
        return str(exc)


def _read(tree: ModuleTree) -> Decoder:
    if not tree.cls.endswith(("ForCausalLM", "LMHeadModel")):
        raise _Unknown(f"activations of {tree.cls} are not modelled, only those of causal decoders")
    if tree.model_type in _CAPPED:
        raise _Unknown(f"activations of {tree.model_type} (soft-capped scores) are not modelled")
    head = tree.get(tree.facts.get("output_embeddings") or "")
    if head is None or head.kind != "Linear":
        raise _Unknown(f"{tree.cls} has no linear output head that its facts name")
    stacks: list[tuple[str, ModuleNode]] = []
    loose: list[tuple[str, ModuleNode]] = []
    for name, node in _outside_layers(tree.root, ""):
        (stacks if node.kind == "container" else loose).append((name, node))
    if len(stacks) != 1:
        raise _Unknown(f"{tree.cls} has not one stack of layers but {len(stacks)}")
    prefix, stack = stacks[0]
    dropout = tree.model_type in _DROPOUT
    different = {id(node): node for node in stack.children.values()}
    described = {key: _layer(node, dropout=dropout) for key, node in different.items()}
    layers = tuple(described[id(node)] for node in stack.children.values())
    norms = [_norm(node) for _, node in loose if _is_norm(node)]
    others = [name for name, node in loose if not _is_norm(node) and node is not head]
    if len(norms) != 1 or others:
        raise _Unknown(f"{tree.cls} has parts around its layers that are not modelled")
    vocabulary, hidden = head.parameters["weight"]
    if any(layer.hidden != hidden for layer in layers):
        raise _Unknown(f"{tree.cls} has layers of another width than its head")
    heads = tree.facts.get("config", {}).get("num_attention_heads")
    return Decoder(
        prefix=prefix,
        layers=layers,
        hidden=hidden,
        vocabulary=vocabulary,
        heads=heads,
        norm=norms[0],
        rotary=any("rotary" in name for name, _ in _named(tree.root)),
        head=tree.facts["output_embeddings"],
        traced=tree.model_type in TRACED,
    )


def _outside_layers(node: ModuleNode, name: str) -> Iterator[tuple[str, ModuleNode]]:
    """The stack of layers (a container that holds parameters), and all modules around it that
    compute: not embeddings, dropouts and other modules without parameters.
    """
    for key, child in node.children.items():
        full = f"{name}.{key}" if name else key
        if child.kind == "container":
            if any(_has_parameters(part) for part in child.children.values()):
                yield full, child
        elif child.parameters:
            if child.kind != "Embedding":
                yield full, child
        else:
            yield from _outside_layers(child, full)


def _named(node: ModuleNode) -> Iterator[tuple[str, ModuleNode]]:
    """Names and modules to the depth at which rotary embeddings sit, without the layers' insides
    but the first layer's.
    """
    for key, child in node.children.items():
        yield key, child
        if child.kind == "container":
            first = next(iter(child.children.values()), None)
            if first is not None:
                yield from _named(first)
        else:
            yield from _named(child)


def _has_parameters(node: ModuleNode) -> bool:
    return bool(node.parameters) or any(_has_parameters(c) for c in node.children.values())


def _is_norm(node: ModuleNode) -> bool:
    return (node.cls == "LayerNorm" or node.cls.endswith("RMSNorm")) and "weight" in node.parameters


def _norm(node: ModuleNode) -> Norm:
    if node.cls == "RMSNorm":  # torch's own keeps other tensors than HF's
        raise _Unknown("activations of torch's RMSNorm are not modelled")
    return Norm(node.parameters["weight"][0], node.cls != "LayerNorm")


def _layer(node: ModuleNode, *, dropout: bool) -> Layer:
    norms: list[Norm] = []
    attention = mlp = None
    for name, child in node.children.items():
        if _is_norm(child):
            norms.append(_norm(child))
        elif not _has_parameters(child):
            continue
        elif attention is None and child.cls.endswith("Attention"):
            attention = name, child
        elif mlp is None and child.cls.endswith("MLP"):
            mlp = name, child
        else:
            raise _Unknown(f"activations of {child.cls} are not modelled")
    if node.parameters or attention is None or mlp is None or len(norms) < 2:
        raise _Unknown(f"activations of {node.cls} are not modelled")
    projections: dict[str, Projection] = {}
    head_norms = _projections(*attention, _ATTENTION, projections)
    if _projections(*mlp, _MLP, projections):
        raise _Unknown(f"activations of {mlp[1].cls} are not modelled")
    by_role = {projection.role: projection for projection in projections.values()}
    q, kv = _attention_widths(node, by_role)
    widths = {"q_norm": q, "k_norm": kv}
    if not head_norms.keys() <= widths.keys():
        raise _Unknown(f"activations of {attention[1].cls} (its norms) are not modelled")
    inner, gated = _inner_width(node, by_role)
    return Layer(
        projections=projections,
        hidden=by_role["o"].d_out,
        q=q,
        kv=kv,
        inner=inner,
        gated=gated,
        norms=tuple(norms),
        head_norms=tuple(
            Norm(widths[name], norm.rms, widths[name] // norm.size)
            for name, norm in head_norms.items()
        ),
        activation=_activation(mlp[1]),
        dropout=dropout,
    )


def _projections(
    prefix: str, part: ModuleNode, roles: Mapping[str, Role], found: dict[str, Projection]
) -> dict[str, Norm]:
    """Add a part's projections to those found; return its norms by name."""
    norms = {}
    for name, child in part.children.items():
        if child.kind in ("Linear", "Conv1D") and name in roles and "weight" in child.parameters:
            rows, columns = child.parameters["weight"]
            d_in, d_out = (columns, rows) if child.kind == "Linear" else (rows, columns)
            found[f"{prefix}.{name}"] = Projection(roles[name], d_in, d_out)
        elif _is_norm(child):
            norms[name] = _norm(child)
        elif _has_parameters(child):
            raise _Unknown(f"activations of {part.cls} with a {name} are not modelled")
    if part.parameters:
        raise _Unknown(f"activations of {part.cls} are not modelled")
    return norms


def _attention_widths(node: ModuleNode, by_role: Mapping[Role, Projection]) -> tuple[int, int]:
    if "o" not in by_role:
        raise _Unknown(f"activations of {node.cls} are not modelled")
    q = by_role["o"].d_in
    if {"q", "k", "v"} <= by_role.keys() and "qkv" not in by_role:
        kv = by_role["k"].d_out
        same = by_role["q"].d_out == q and by_role["v"].d_out == kv
    elif "qkv" in by_role and not {"q", "k", "v"} & by_role.keys():
        kv, rest = divmod(by_role["qkv"].d_out - q, 2)
        same = not rest
    else:
        same = False
        kv = 0
    if not same or not 0 < kv <= q:
        raise _Unknown(f"activations of {node.cls} (its attention) are not modelled")
    return q, kv


def _inner_width(node: ModuleNode, by_role: Mapping[Role, Projection]) -> tuple[int, bool]:
    mlp = by_role.keys() & {"gate", "up", "gate_up", "down"}
    if mlp not in ({"gate", "up", "down"}, {"gate_up", "down"}, {"up", "down"}):
        raise _Unknown(f"activations of {node.cls} (its MLP) are not modelled")
    inner = by_role["down"].d_in
    wide = by_role["gate_up"].d_out // 2 if "gate_up" in mlp else by_role["up"].d_out
    if wide != inner:
        raise _Unknown(f"activations of {node.cls} (its MLP) are not modelled")
    return inner, mlp != {"up", "down"}


def _activation(mlp: ModuleNode) -> int:
    kinds = [_ACTIVATIONS.get(c.cls) for c in mlp.children.values() if _acts(c)]
    if len(kinds) != 1 or kinds[0] is None:
        raise _Unknown(f"activations of {mlp.cls} (its activation function) are not modelled")
    return kinds[0]


def _acts(node: ModuleNode) -> bool:
    return node.kind == "other" and not node.parameters and node.cls not in ("Dropout", "Identity")
