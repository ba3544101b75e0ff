"""Reads the vision tower of an image-text model: one that takes images of one size as it runs, of
another one what bounds it.

Sources: transformers 5.23.0 models/gemma3/modeling_gemma3.py ``Gemma3MultiModalProjector``,
models/llava/modeling_llava.py ``get_image_features``, models/siglip and models/clip modeling_*.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.memory.shape import Linear, Patches, Stack, Tower
from lora_lint.memory.shapes.layers import (
    LayerReader,
    Unknown,
    has_parameters,
    read_linear,
    read_norm,
)
from lora_lint.models.module_tree import ModuleTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.models.module_tree import ModuleNode

_TOWER: Final = "vision_tower"
_PROJECTOR: Final = "multi_modal_projector"
# Attention heads by the width of the published towers (SigLIP So400m, CLIP L/14): a module tree
# does not tell them.
_HEADS: Final = {"SiglipVisionModel": {1152: 16}, "CLIPVisionModel": {1024: 16}}
# Tokens of an image: Gemma 3's ``mm_tokens_per_image``, the same in all its sizes.
_GEMMA_TOKENS: Final = 256


def read_tower(tree: ModuleTree) -> Tower | None:
    """The vision tower of a tree, None where it has none that is described."""
    above = "model." if tree.get(f"model.{_TOWER}") else ""  # none before transformers 4.52
    node, projector = tree.get(f"{above}{_TOWER}"), tree.get(f"{above}{_PROJECTOR}")
    if node is None or projector is None or node.cls not in _HEADS:
        return None
    try:
        stack = _stack(node, f"{above}{_TOWER}")
        return _tower(stack, node, projector, f"{above}{_PROJECTOR}")
    except Unknown:
        return None


def read_patches(tree: ModuleTree, language: str) -> Patches | None:
    """The vision tower of a tree whose language model's layers have the prefix ``language``, by its
    layers and by how many patches the projector's first map takes; None where there is none.
    """
    node, above = tree.root, ""
    for step in language.split("."):
        beside = {f"{above}{k}": child for k, child in node.children.items() if k != step}
        stacks = [pair for name, part in beside.items() for pair in _containers(part, name)]
        if stacks:
            break
        node, above = node.children[step], f"{above}{step}."
    else:
        return None
    prefix, container = max(stacks, key=lambda pair: len(pair[1].children))
    layers = list(container.children.values())
    hidden = next((p["weight"][0] for p in _vectors(layers[0])), None)
    if hidden is None:
        return None
    head = tree.facts.get("output_embeddings")
    maps = (
        module.parameters["weight"][1]
        for name, module in tree.named_modules()
        if module.kind == "Linear" and not name.startswith(f"{prefix}.")
        if any(name.startswith(f"{part}.") for part in beside)
    )
    taken = next((width // hidden for width in maps if width % hidden == 0), 1)
    return Patches(len(layers), hidden, taken, tuple(n for n in beside if n != head))


def _containers(node: ModuleNode, name: str) -> Iterator[tuple[str, ModuleNode]]:
    """Containers of layers at or below a module."""
    if node.kind == "container" and all(map(has_parameters, node.children.values())):
        yield name, node
        return
    for key, child in node.children.items():
        yield from _containers(child, f"{name}.{key}")


def _vectors(node: ModuleNode) -> Iterator[Mapping[str, tuple[int, ...]]]:
    """The parameters of the norms of a layer."""
    for child in node.children.values():
        if len(child.parameters.get("weight", ())) == 1:
            yield child.parameters
        yield from _vectors(child)


def _stack(tower: ModuleNode, name: str) -> Stack:
    inner = tower.children.get("vision_model")  # up to transformers 4
    node, prefix = (tower, name) if inner is None else (inner, f"{name}.vision_model")
    container = node.children["encoder"].children["layers"]
    length, hidden = _weight(node.children["embeddings"].children["position_embedding"])
    heads = _HEADS[tower.cls].get(hidden)
    if heads is None:
        raise Unknown(f"the heads of a {tower.cls} of width {hidden} are not known")
    own = ModuleTree(node, node.cls, None, None, facts={"config": {"num_attention_heads": heads}})
    different = {id(layer): layer for layer in container.children.values()}
    read = {
        key: LayerReader(own, layer, cross=False, causal=False).read(window=None)
        for key, layer in different.items()
    }
    layers = tuple(read[id(layer)] for layer in container.children.values())
    entry = node.children.get("pre_layrnorm")
    return Stack(
        f"{prefix}.encoder.layers",
        layers,
        hidden,
        length=length,
        entry=None if entry is None else read_norm(entry),
        final=read_norm(node.children["post_layernorm"]),
        causal=False,
    )


def _tower(stack: Stack, node: ModuleNode, projector: ModuleNode, name: str) -> Tower | None:
    parts = projector.children
    if projector.cls == "Gemma3MultiModalProjector" and node.cls == "SiglipVisionModel":
        d_in, d_out = projector.parameters["mm_input_projection_weight"]
        one = Linear(f"{name}.mm_input_projection_weight", d_in, d_out, quantized=False)
        norm = read_norm(parts["mm_soft_emb_norm"])
        return Tower(stack, len(stack.layers), (one,), _GEMMA_TOKENS, pooled=norm, masked=True)
    if projector.cls == "LlavaMultiModalProjector" and node.cls == "CLIPVisionModel":
        maps = tuple(read_linear(parts[key], f"{name}.{key}") for key in ("linear_1", "linear_2"))
        if maps[0].d_in != stack.hidden:  # features of several layers
            return None
        # The last layer's output is not used, nor the class token's, and the norm is the pooler's.
        length = stack.length or 1
        return Tower(stack._replace(final=None), len(stack.layers) - 1, maps, length - 1)
    return None


def _weight(node: ModuleNode) -> tuple[int, int]:
    rows, columns = node.parameters["weight"]
    return rows, columns
