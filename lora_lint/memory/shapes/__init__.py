"""Reads from a module tree the shape that decides what a training step keeps.

A grammar, not a list of model types: stacks of layers, in a layer attention and a feed-forward or a
mixture by the names and sizes of their projections and norms. A tree that holds anything else is
not described, rather than described wrongly. ``facts`` has what a tree does not show.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lora_lint.memory.shape import Head, Shape, Stack
from lora_lint.memory.shapes import facts
from lora_lint.memory.shapes.layers import (
    LayerReader,
    Unknown,
    has_parameters,
    is_norm,
    read_linear,
    read_norm,
)
from lora_lint.memory.shapes.towers import read_patches, read_tower

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.memory.shape import Layer, Norm
    from lora_lint.models.module_tree import ModuleNode, ModuleTree

# Families whose shape agrees with the operations of real steps (docs/memory-form.md).
TRACED: Final = frozenset(
    {
        "bart",
        "bert",
        "bloom",
        "cwm",
        "deepseek_v2",
        "deepseek_v3",
        "distilbert",
        "electra",
        "emu3",
        "ernie4_5",
        "exaone4",
        "falcon",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt-sw3",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "gpt_oss",
        "gptj",
        "granite",
        "granitemoe",
        "helium",
        "hyperclovax",
        "idefics3",
        "internlm3",
        "internvl",
        "llama",
        "llava",
        "llava_next",
        "ministral3",
        "mistral",
        "mistral3",
        "mixtral",
        "mt5",
        "olmo2",
        "olmo3",
        "olmoe",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_5_vl",
        "qwen2_moe",
        "qwen2_vl",
        "qwen3",
        "qwen3_moe",
        "qwen3_vl",
        "qwen3_vl_moe",
        "roberta",
        "seed_oss",
        "smollm3",
        "smolvlm",
        "stablelm",
        "starcoder2",
        "t5",
        "vit",
        "whisper",
    }
)
_FIRST: Final = ("ForSequenceClassification", "ForImageClassification")
_CAUSAL: Final = ("ForCausalLM", "LMHeadModel")
_IMAGE_TEXT: Final = ("ForConditionalGeneration", "ForImageTextToText")


@lru_cache(maxsize=16)
def read_shape(tree: ModuleTree) -> Shape | str:
    """The shape of a tree, or why it is not described; read once for a tree."""
    try:
        return _read(tree)
    except Unknown as exc:
        return str(exc)


def _read(tree: ModuleTree) -> Shape:
    cls = tree.cls
    containers = [pair for pair in _stacks(tree.root, "") if pair[1].children]
    head = _head(tree)
    family = tree.model_type or ""
    stacks: tuple[Stack, ...]
    if cls.endswith("ForConditionalGeneration") and _has(tree, "encoder", "decoder"):
        encoder = _one(tree, containers, "encoder")
        decoder = _one(tree, containers, "decoder")
        length = 1500 if family == "whisper" else None
        stacks = (
            _stack(tree, *encoder, causal=False, length=length),
            _stack(tree, *decoder, causal=True, cross=True),
        )
    elif cls.endswith((*_CAUSAL, *_IMAGE_TEXT)):
        stacks = (_stack(tree, *_language(tree, containers), causal=True),)
    elif cls.endswith((*_FIRST, "ForTokenClassification")):
        length = _patches(tree) if cls.endswith("ForImageClassification") else None
        causal = tree.facts.get("generates") is True and _is_causal(tree)
        stacks = (_stack(tree, *_language(tree, containers), causal=causal, length=length),)
    else:
        raise Unknown(f"activations of {cls} are not modelled")
    if head.linears[-1].d_in != stacks[-1].hidden:
        raise Unknown(f"{cls} has layers of another width than its head")
    fixed = "eager" if family in facts.EAGER else None
    tower, patches = None, None
    if cls.endswith(_IMAGE_TEXT) and len(stacks) == 1:
        tower = read_tower(tree)
        patches = None if tower else read_patches(tree, stacks[0].prefix)
    return Shape(stacks, head, {}, family in TRACED, fixed, tower, patches)


def _is_causal(tree: ModuleTree) -> bool:
    return "score" in tree.root.children


def _has(tree: ModuleTree, *names: str) -> bool:
    model = tree.root.children.get("model", tree.root)
    return all(name in model.children for name in names)


def _stacks(node: ModuleNode, name: str) -> Iterator[tuple[str, ModuleNode]]:
    """Containers of several modules with parameters, that are in no other."""
    for key, child in node.children.items():
        full = f"{name}.{key}" if name else key
        if child.kind == "container":
            if any(map(has_parameters, child.children.values())):
                yield full, child
        elif not child.parameters:
            yield from _stacks(child, full)
        else:
            yield from _stacks(child, full)


def _one(
    tree: ModuleTree, containers: list[tuple[str, ModuleNode]], part: str
) -> tuple[str, ModuleNode]:
    found = [pair for pair in containers if part in pair[0].split(".")]
    if len(found) != 1:
        raise Unknown(f"{tree.cls} has not one stack of layers in its {part} but {len(found)}")
    return found[0]


def _language(tree: ModuleTree, containers: list[tuple[str, ModuleNode]]) -> tuple[str, ModuleNode]:
    """The stack beside the input embeddings: other towers are not run, or run without keeping."""
    if len(containers) == 1:
        return containers[0]
    parent = (tree.facts.get("input_embeddings") or "").rpartition(".")[0]
    found = [pair for pair in containers if parent and pair[0].rpartition(".")[0] == parent]
    if len(found) != 1:
        raise Unknown(f"{tree.cls} has not one stack of layers but {len(containers)}")
    return found[0]


def _stack(
    tree: ModuleTree,
    prefix: str,
    container: ModuleNode,
    *,
    causal: bool,
    cross: bool = False,
    length: int | None = None,
) -> Stack:
    family = tree.model_type or ""
    period = facts.SLIDING.get(family)
    window = tree.facts.get("config", {}).get("sliding_window", facts.WINDOWS.get(family))
    read: dict[tuple[int, int | None], Layer] = {}
    layers: list[Layer] = []
    for index, node in enumerate(container.children.values()):
        slides = period is not None and _slides(index, period)
        key = id(node), window if slides else None
        if key not in read:
            reader = LayerReader(tree, node, cross=cross, causal=causal)
            read[key] = reader.read(window=key[1])
        layers.append(read[key])
    hidden = layers[0].hidden
    parent = tree.get(prefix.rpartition(".")[0]) or tree.root
    final = [read_norm(c) for n, c in parent.children.items() if is_norm(c) and "emb" not in n]
    entry: list[Norm] = [
        read_norm(c) for n, c in parent.children.items() if is_norm(c) and "emb" in n
    ]
    if not final and not entry:  # distilbert.transformer, bert.encoder: one step further out
        above = tree.get(prefix.rpartition(".")[0].rpartition(".")[0]) or tree.root
        embeddings = above.children.get("embeddings")
        if embeddings is not None:
            entry = [read_norm(c) for c in embeddings.children.values() if is_norm(c)]
        final = [read_norm(c) for c in above.children.values() if is_norm(c)]
    if len(final) > 1 or len(entry) > 1:
        raise Unknown(f"{tree.cls} has parts around its layers that are not modelled")
    bias = tree.facts.get("config", {}).get("num_attention_heads", 0)
    biased = family in ("t5", "mt5", "umt5")
    return Stack(
        prefix=prefix,
        layers=tuple(layers),
        hidden=hidden,
        length=length,
        entry=entry[0] if entry else None,
        dropout=facts.dropouts(tree).embeddings,
        final=final[0] if final else None,
        final_dropout=biased,
        causal=causal,
        bias=bias if biased else 0,
    )


def _slides(index: int, period: int) -> bool:
    """Whether a layer's window slides: every second one from the first, or all but every sixth
    (models/*/configuration_*.py ``layer_types``).
    """
    if period == 2:
        return index % 2 == 0
    return bool((index + 1) % period)


def _patches(tree: ModuleTree) -> int:
    for name, node in tree.named_modules():
        if name.endswith("embeddings") and "position_embeddings" in node.parameters:
            return node.parameters["position_embeddings"][1]
    raise Unknown(f"{tree.cls} does not tell its number of patches")


def _head(tree: ModuleTree) -> Head:
    cls, family = tree.cls, tree.model_type or ""
    name = tree.facts.get("output_embeddings")
    if cls.endswith((*_FIRST, "ForTokenClassification")):
        node = next(
            (n for key, n in tree.root.children.items() if key in ("classifier", "score")), None
        )
        if node is None:
            raise Unknown(f"{cls} has no classifier that is known")
        if node.kind != "Linear":
            parts = [c for c in node.children.values() if c.kind == "Linear"]
            if not parts:
                raise Unknown(f"{cls} has no classifier that is known")
            node = parts[-1]
        linear = read_linear(node, "classifier")
        kind = "token" if cls.endswith("ForTokenClassification") else "first"
        return Head(kind, (linear,), linear.d_out, plain=True, dropout=facts.dropouts(tree).hidden)
    node = tree.get(name or "")
    if node is None or node.kind != "Linear":
        raise Unknown(f"{cls} has no linear output head that its facts name")
    linear = read_linear(node, name or "")._replace(quantized=False)
    plain = cls.endswith("ForConditionalGeneration") and _has(tree, "encoder", "decoder")
    return Head(
        "lm",
        (linear,),
        linear.d_out,
        capped=family in facts.CAPPED_LOGITS,
        scaled=family in facts.SCALED_LOGITS,
        plain=plain,
    )
