"""Reads a layer: its projections and norms by their names, and how they are wired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.memory.shape import Attention, Block, Experts, Latent, Layer, Linear, Mlp, Norm
from lora_lint.memory.shapes import facts
from lora_lint.models.litgpt import EXPERT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.memory.shape import Activation, NormKind
    from lora_lint.models.module_tree import ModuleNode, ModuleTree


class Unknown(Exception):  # noqa: N818 - not an error, a tree outside the grammar
    """The message says what is not modelled."""


# Last parts of names, by role. Attention and feed-forward are told apart by the names above them.
_ATTENTION: Final = {
    **dict.fromkeys(("q_proj", "query", "q_lin", "q", "q_b_proj"), "q"),
    **dict.fromkeys(("k_proj", "key", "k_lin", "k"), "k"),
    **dict.fromkeys(("v_proj", "value", "v_lin", "v"), "v"),
    **dict.fromkeys(("qkv_proj", "c_attn", "query_key_value"), "qkv"),
    **dict.fromkeys(("o_proj", "out_proj", "c_proj", "dense", "out_lin", "o"), "o"),
    "q_a_proj": "q_a",
    "kv_a_proj_with_mqa": "kv_a",
    "kv_b_proj": "kv_b",
}
_MLP: Final = {
    **dict.fromkeys(("gate_proj", "wi_0"), "gate"),
    **dict.fromkeys(("up_proj", "fc1", "c_fc", "wi", "wi_1", "lin1", "fc_in"), "up"),
    **dict.fromkeys(("dense_h_to_4h", "intermediate.dense"), "up"),
    "gate_up_proj": "gate_up",
    **dict.fromkeys(("down_proj", "fc2", "c_proj", "wo", "lin2", "fc_out"), "down"),
    **dict.fromkeys(("dense_4h_to_h", "output.dense"), "down"),
}
_HEAD_NORMS: Final = {
    **dict.fromkeys(("q_norm", "q_layernorm", "query_layernorm"), "q_norm"),
    **dict.fromkeys(("k_norm", "k_layernorm", "key_layernorm"), "k_norm"),
    "q_a_layernorm": "q_a_norm",
    "kv_a_layernorm": "kv_a_norm",
}
# Tensors of the inner size that an activation function keeps for its backward.
_ACTIVATIONS: Final[dict[str, Activation]] = {
    **dict.fromkeys(("SiLUActivation", "SiLU", "GELUActivation", "GELUTanh", "GELU"), "input"),
    "PytorchGELUTanh": "input",
    "ReLU": "output",
    "NewGELUActivation": "new_gelu",
    "QuickGELUActivation": "quick_gelu",
    "BloomGelu": "bloom",
}
_SILENT: Final = frozenset({"Dropout", "Identity"})
# Attention that fuses q, k and v and takes them apart in other ways than ``split``.
_STYLES: Final = {"falcon": "falcon", "bloom": "bloom", "phi3": "slices", "gptj": "gptj"}


def is_norm(node: ModuleNode) -> bool:
    """Whether a module normalizes."""
    return (node.cls == "LayerNorm" or node.cls.endswith(("RMSNorm", "T5LayerNorm"))) and (
        "weight" in node.parameters
    )


def read_norm(node: ModuleNode, width: int | None = None) -> Norm:
    """A norm; ``width``: of the tensor it is given, where it works head by head."""
    if node.cls == "RMSNorm":  # torch's own keeps other tensors than HF's
        raise Unknown("activations of torch's RMSNorm are not modelled")
    size = node.parameters["weight"][0]
    kind: NormKind = "rms"
    if node.cls == "LayerNorm":
        kind = "layer"
    elif node.cls.endswith("T5LayerNorm"):
        kind = "t5"
    elif node.cls.startswith(("Gemma", "VaultGemma", "GptOss", "Olmo2", "Olmo3")):
        kind = "gemma"
    return Norm(width or size, kind, (width or size) // size)


def read_linear(node: ModuleNode, name: str) -> Linear:
    """A linear map; bitsandbytes replaces nn.Linear and Conv1D, no subclass of the former."""
    rows, columns = node.parameters["weight"]
    d_in, d_out = (columns, rows) if node.kind == "Linear" else (rows, columns)
    quantized = node.cls in ("Linear", "Conv1D")
    return Linear(name, d_in, d_out, "bias" in node.parameters, quantized)


def has_parameters(node: ModuleNode) -> bool:
    """Whether a module or one in it has parameters."""
    return bool(node.parameters) or any(map(has_parameters, node.children.values()))


def _parts(node: ModuleNode, prefix: str = "") -> Iterator[tuple[str, ModuleNode]]:
    for name, child in node.children.items():
        full = f"{prefix}{name}"
        if _is_mixture(child) or (child.parameters and not child.children):
            yield full, child
        elif child.children:
            if child.parameters:
                yield full, child
            yield from _parts(child, f"{full}.")
        else:
            yield full, child


def _is_mixture(node: ModuleNode) -> bool:
    return any(_is_experts(child) for child in node.children.values())


def _is_experts(node: ModuleNode) -> bool:
    first = next(iter(node.children.values()), None)
    if first is not None and first.cls == EXPERT:
        return True
    return {"gate_up_proj", "down_proj"} <= node.parameters.keys() and all(
        len(node.parameters[name]) == 3 for name in ("gate_up_proj", "down_proj")
    )


class LayerReader:
    """Reads one layer of a tree."""

    def __init__(self, tree: ModuleTree, node: ModuleNode, *, cross: bool, causal: bool) -> None:
        self.tree, self.node = tree, node
        self.cross, self.causal = cross, causal
        self.family = tree.model_type or ""
        self.drops = facts.dropouts(tree)
        self.config = tree.facts.get("config", {})

    def fail(self, what: str) -> Unknown:
        """Why this layer is not described."""
        return Unknown(f"activations of {what} are not modelled")

    def read(self, *, window: int | None) -> Layer:
        """The layer. Raises ``Unknown``."""
        attentions: dict[str, dict[str, Linear]] = {"self": {}, "cross": {}}
        head_norms: dict[str, dict[str, ModuleNode]] = {"self": {}, "cross": {}}
        mlp: dict[str, Linear] = {}
        mixture: tuple[str, ModuleNode] | None = None
        norms: dict[str, ModuleNode] = {}
        activations: list[str] = []
        sinks = False
        if self.node.parameters:  # gates of mllama's cross attention
            raise self.fail(self.node.cls)
        for name, part in _parts(self.node):
            leaf = name.rpartition(".")[2]
            scope = _scope(name)
            if _is_mixture(part):
                mixture = name, part
            elif is_norm(part):
                if leaf in _HEAD_NORMS and scope:
                    head_norms[scope][_HEAD_NORMS[leaf]] = part
                else:
                    norms[name] = part
            elif part.kind in ("Linear", "Conv1D") and len(part.parameters.get("weight", ())) == 2:
                role = self._role(name, leaf, scope)
                (attentions[scope] if scope else mlp)[role] = read_linear(part, name)
            elif part.kind == "Embedding" and leaf == "relative_attention_bias":
                continue
            elif part.parameters.keys() == {"sinks"}:
                sinks = True
            elif part.parameters:
                raise self.fail(part.cls)
            elif part.cls not in _SILENT and "otary" not in part.cls:
                activations.append(part.cls)
        bodies: list[Attention | Mlp | Experts] = [
            self._attention(attentions["self"], head_norms["self"], window, sinks=sinks)
        ]
        if attentions["cross"]:
            bodies.append(
                self._attention(attentions["cross"], head_norms["cross"], None, cross=True)
            )
        if mixture is not None:
            if mlp:
                raise self.fail(self.node.cls)
            bodies.append(self._mixture(*mixture))
        else:
            bodies.append(self._mlp(mlp, activations))
        return self._wire(bodies, norms)

    def _role(self, name: str, leaf: str, scope: str | None) -> str:
        two = ".".join(name.split(".")[-2:])
        role = _ATTENTION.get(leaf) if scope else _MLP.get(leaf) or _MLP.get(two)
        if role is None:
            raise self.fail(f"{self.node.cls} with a {leaf}")
        return role

    # Wiring -------------------------------------------------------------------------------------

    def _wire(self, bodies: list[Attention | Mlp | Experts], nodes: dict[str, ModuleNode]) -> Layer:
        norms = {name: read_norm(node) for name, node in nodes.items()}
        order = list(norms.values())
        hidden = bodies[0].o.d_out if isinstance(bodies[0], Attention) else 0
        if any(norm.size != hidden for norm in order):
            raise self.fail(self.node.cls)
        drop = self.drops.hidden
        blocks = [Block(body, dropout=drop) for body in bodies]
        if len(order) == 1 and len(bodies) == 2:
            blocks[0] = blocks[0]._replace(pre=order[0])
            return Layer(hidden, tuple(blocks), parallel=True, one_norm=True)
        names = {name.rpartition(".")[2] for name in norms}
        by_name = {name.rpartition(".")[2]: norm for name, norm in norms.items()}
        if "pre_feedforward_layernorm" in names:
            sandwich = (
                ("input_layernorm", "post_attention_layernorm"),
                ("pre_feedforward_layernorm", "post_feedforward_layernorm"),
            )
        elif "post_self_attn_layernorm" in names:
            sandwich = (
                ("input_layernorm", "post_self_attn_layernorm"),
                ("post_attention_layernorm", "post_mlp_layernorm"),
            )
        elif "post_norm1" in names:
            sandwich = (
                ("input_layernorm", "post_norm1"),
                ("post_attention_layernorm", "post_norm2"),
            )
        elif "post_feedforward_layernorm" in names:
            sandwich = (("", "post_attention_layernorm"), ("", "post_feedforward_layernorm"))
        else:
            return self._plain(hidden, blocks, order, names)
        known = {name for pair in sandwich for name in pair if name}
        if known != names or len(bodies) != 2:
            raise self.fail(self.node.cls)
        blocks = [
            block._replace(pre=by_name.get(pre), inner=by_name[inner])
            for block, (pre, inner) in zip(blocks, sandwich, strict=True)
        ]
        return Layer(hidden, tuple(blocks))

    def _plain(self, hidden: int, blocks: list[Block], order: list[Norm], names: set[str]) -> Layer:
        if len(order) != len(blocks):
            raise self.fail(f"{self.node.cls} with {len(order)} norms")
        post = self.family in facts.POST_NORM or names in (
            {"LayerNorm"},
            {"sa_layer_norm", "output_layer_norm"},
        )
        blocks = [
            block._replace(post=norm) if post else block._replace(pre=norm)
            for block, norm in zip(blocks, order, strict=True)
        ]
        parallel = self.family in facts.PARALLEL or names == {"ln_attn", "ln_mlp"}
        return Layer(hidden, tuple(blocks), parallel=parallel)

    # Attention ----------------------------------------------------------------------------------

    def _attention(
        self,
        found: dict[str, Linear],
        norms: dict[str, ModuleNode],
        window: int | None,
        *,
        cross: bool = False,
        sinks: bool = False,
    ) -> Attention:
        heads = self.config.get("num_attention_heads")
        if "o" not in found or not isinstance(heads, int):
            raise self.fail(f"{self.node.cls} (its attention)")
        o = found["o"]
        latent = None
        if "kv_a" in found:
            latent, q_width, k_width, v_width, kv_heads = self._latent(found, norms, heads)
        elif "qkv" in found and not {"q", "k", "v"} & found.keys():
            q_width = o.d_in
            k_width, rest = divmod(found["qkv"].d_out - q_width, 2)
            v_width, kv_heads = k_width, self._kv_heads(q_width, k_width, heads)
            if rest:
                raise self.fail(f"{self.node.cls} (its attention)")
        elif {"q", "k", "v"} <= found.keys() and "qkv" not in found:
            q_width, k_width = found["q"].d_out, found["k"].d_out
            v_width, kv_heads = found["v"].d_out, self._kv_heads(q_width, k_width, heads)
            if q_width != o.d_in or k_width != v_width:
                raise self.fail(f"{self.node.cls} (its attention)")
        else:
            raise self.fail(f"{self.node.cls} (its attention)")
        family = self.family
        has_rotary = not cross and (
            any("rotary" in name for name in _names(self.tree.root)) or family == "gptj"
        )
        style = _STYLES.get(family, "interface")
        biased = family in ("t5", "mt5", "umt5")
        return Attention(
            into=tuple(found[role] for role in ("qkv", "q", "k", "v") if role in found),
            o=o,
            q_width=q_width,
            k_width=k_width,
            v_width=v_width,
            heads=heads,
            kv_heads=kv_heads,
            q_norm=read_norm(norms["q_norm"], q_width) if "q_norm" in norms else None,
            k_norm=read_norm(norms["k_norm"], k_width) if "k_norm" in norms else None,
            rotary=facts.ROTARY.get(family, 1.0) if has_rotary else 0.0,
            scaled=family in facts.SCALED_QUERIES,
            style=style,
            wide=family not in facts.NARROW_SOFTMAX,
            causal=self.causal and not cross,
            cross=cross,
            sinks=sinks,
            softcap=family in facts.CAPPED_SCORES,
            biased=biased,
            dropout=self.drops.attention and style != "falcon",
            window=window,
            latent=latent,
        )

    def _kv_heads(self, q_width: int, k_width: int, heads: int) -> int:
        kv_heads, rest = divmod(k_width * heads, q_width)
        if rest or not 0 < kv_heads <= heads:
            raise self.fail(f"{self.node.cls} (its attention)")
        return kv_heads

    def _latent(
        self, found: dict[str, Linear], norms: dict[str, ModuleNode], heads: int
    ) -> tuple[Latent, int, int, int, int]:
        if not {"q", "kv_b", "o"} <= found.keys() or "kv_a_norm" not in norms:
            raise self.fail(f"{self.node.cls} (its attention)")
        kv_norm = read_norm(norms["kv_a_norm"])
        rope = found["kv_a"].d_out - kv_norm.size
        q_width, v_width = found["q"].d_out, found["o"].d_in
        k_width = found["kv_b"].d_out - v_width + heads * rope
        if q_width != k_width or ("q_a" in found) != ("q_a_norm" in norms):
            raise self.fail(f"{self.node.cls} (its attention)")
        latent = Latent(
            q=found["q"],
            q_a=found.get("q_a"),
            q_norm=read_norm(norms["q_a_norm"]) if "q_a_norm" in norms else None,
            kv_a=found["kv_a"],
            kv_norm=kv_norm,
            kv_b=found["kv_b"],
            rank=kv_norm.size,
            rope=rope,
            interleaved=self.family == "deepseek_v3",
            complex_rotary=self.family == "deepseek_v2",
        )
        return latent, q_width, k_width, v_width, heads

    # Feed-forward -------------------------------------------------------------------------------

    def _mlp(self, found: dict[str, Linear], activations: list[str]) -> Mlp:
        roles = found.keys()
        if roles not in ({"gate", "up", "down"}, {"gate_up", "down"}, {"up", "down"}):
            raise self.fail(f"{self.node.cls} (its MLP)")
        kinds = [_ACTIVATIONS.get(name) for name in activations]
        if len(kinds) != 1 or kinds[0] is None:
            raise self.fail(f"{self.node.cls} (its activation function)")
        return Mlp(
            into=tuple(found[role] for role in ("gate_up", "gate", "up") if role in found),
            down=found["down"],
            activation=kinds[0],
            fused="gate_up" in found,
            drops=self.drops.inner,
        )

    def _mixture(self, name: str, node: ModuleNode) -> Experts:
        experts = next((k, c) for k, c in node.children.items() if _is_experts(c))
        if experts[1].cls == "Llama4TextExperts":  # every token goes through all of them
            raise self.fail(experts[1].cls)
        path = f"{name}.{experts[0]}"
        parameters, modules = experts[1].parameters, experts[1].children
        transposed = self.family == "gpt_oss"
        if "down_proj" in parameters:
            count, inner, hidden = parameters["down_proj"]
        else:  # LitGPT's
            count, modules = len(modules), next(iter(modules.values())).children
            inner, hidden = modules["proj"].parameters["weight"]
        if not transposed:
            inner, hidden = hidden, inner
        top = self.config.get("num_experts_per_tok")
        if not isinstance(top, int):
            raise self.fail(f"{node.cls} (how many experts a token takes)")
        shared: dict[str, Linear] = {}
        gate = None
        silent = ("Linear", *_SILENT)
        activations = [c.cls for c in modules.values() if c.cls not in silent]
        router = False
        for key, child in node.children.items():
            if child is experts[1]:
                continue
            if key in ("shared_experts", "shared_expert"):
                for leaf, part in child.children.items():
                    if part.kind == "Linear":
                        shared[_MLP[leaf]] = read_linear(part, f"{name}.{key}.{leaf}")
            elif key == "shared_expert_gate":
                gate = read_linear(child, f"{name}.{key}")
            elif (key if child.cls == "Linear" else child.cls.lower()).endswith("router"):
                router = True
            elif has_parameters(child):
                raise self.fail(f"{node.cls} with a {key}")
        kind = _ACTIVATIONS.get(activations[0]) if activations else "input"
        if not router or kind is None:
            raise self.fail(node.cls)
        way = "wide" if self.family in facts.WIDE_ROUTER else "all"
        way = "chosen" if self.family in facts.CHOSEN_ROUTER else way
        clamped = self.family == "gpt_oss"
        return Experts(
            number=count,
            top=top,
            hidden=hidden,
            inner=inner,
            router=way,
            wide_weights=self.family in facts.WIDE_WEIGHTS,
            activation=kind,
            up=f"{path}.gate_up_proj",
            down=f"{path}.down_proj",
            clamped=clamped,
            biased="down_proj_bias" in parameters,
            shared=self._mlp(shared, ["SiLU"]) if shared else None,
            shared_gate=gate,
        )


def _scope(name: str) -> str | None:
    """The attention that a module belongs to by its name: ``self``, ``cross`` or none."""
    parts = name.split(".")[:-1]
    if any(part in ("encoder_attn", "EncDecAttention", "crossattention") for part in parts):
        return "cross"
    return "self" if any("attn" in p or "ttention" in p for p in parts) else None


def _names(node: ModuleNode) -> Iterator[str]:
    """Names to the depth at which rotary embeddings sit: of a stack's layers, the first one's."""
    for name, child in node.children.items():
        yield name
        if child.kind == "container":
            first = next(iter(child.children.values()), None)
            if first is not None:
                yield from _names(first)
        else:
            yield from _names(child)
