"""The module tree of LitGPT's own model for that of Hugging Face's."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lora_lint.models.module_tree import ModuleNode, ModuleTree

if TYPE_CHECKING:
    from collections.abc import Mapping

# What each family that LitGPT has calls its fused queries, keys and values (litgpt 0.5.13
# scripts/convert_hf_checkpoint.py ``copy_weights_gpt_neox``, ``_falcon``, ``_phi``).
_FUSED: Final = {
    "gpt_neox": "query_key_value",
    "falcon": "query_key_value",
    "phi3": "qkv_proj",
}
# The map out of attention, which takes what the queries give.
_OUT: Final = ("o_proj", "dense")
_GATE_UP: Final = "gate_up_proj"
# The rows that LitGPT keeps of the embeddings of Gemma 3 models that see images (litgpt 0.5.13
# config.py ``vocab_size``, scripts/convert_hf_checkpoint.py ``copy_weights_gemma_3``).
_GEMMA_3_TOKENS: Final = 262144


@lru_cache(maxsize=32)
def litgpt_tree(tree: ModuleTree) -> ModuleTree:
    """A model as LitGPT has it, under Hugging Face's names.

    Read in litgpt 0.5.13 (model.py, lora.py): no weights are tied, every linear map is torch's own,
    of Gemma 3 there is the language model alone. Queries, keys and values are one map, of which
    LoRA gives each part matrices of its own (lora.py ``LoRAQKVLinear``: an A of so many rows as all
    parts have ranks, a B in groups): they stand here as three, and so do gate and up as two.
    Mixtures of experts stay as they are.
    """
    if tree.model_type == "gemma3":
        tree = _text_alone(tree)
    fused = _FUSED.get(tree.model_type or "")
    made: dict[int, ModuleNode] = {}

    def own(node: ModuleNode) -> ModuleNode:
        """The node with everything in it; equal ones stay one object."""
        if id(node) not in made:
            children = {name: own(child) for name, child in node.children.items()}
            if fused is not None:
                children = _apart(children, fused)
            cls = "Linear" if node.kind == "Linear" else node.cls
            same = all(
                a is b for a, b in zip(children.values(), node.children.values(), strict=False)
            )
            if cls == node.cls and same and len(children) == len(node.children):
                made[id(node)] = node
            else:
                made[id(node)] = replace(node, cls=cls, children=children)
        return made[id(node)]

    told = {name: False for name in ("tie_word_embeddings", "tie_attribute") if name in tree.facts}
    return replace(tree, root=own(tree.root), facts={**tree.facts, **told}, tied=())


def _apart(children: Mapping[str, ModuleNode], fused: str) -> dict[str, ModuleNode]:
    """An attention's or feed-forward's modules, with several in the place of a fused one."""
    parts: dict[str, ModuleNode] = {}
    for name, child in children.items():
        rows = child.parameters.get("weight", (0,))[0]
        if name == fused:
            queries = next(children[out].parameters["weight"][1] for out in _OUT if out in children)
            rest = (rows - queries) // 2
            parts |= {"q_proj": _part(child, queries)}
            parts |= dict.fromkeys(("k_proj", "v_proj"), _part(child, rest))
        elif name == _GATE_UP and child.kind == "Linear":
            parts |= dict.fromkeys(("gate_proj", "up_proj"), _part(child, rows // 2))
        else:
            parts[name] = child
    return parts


def _part(fused: ModuleNode, rows: int) -> ModuleNode:
    """So many rows of a linear map."""
    return replace(fused, parameters={n: (rows, *s[1:]) for n, s in fused.parameters.items()})


def _text_alone(tree: ModuleTree) -> ModuleTree:
    """The language model of a Gemma 3 that sees images, as the model that has no more."""
    inside = tree.facts["input_embeddings"].rpartition(".")[0]
    text, head = tree.get(inside), tree.root.children.get("lm_head")
    if text is None or head is None:
        return tree
    children = {**text.children, "embed_tokens": _cropped(text.children["embed_tokens"])}
    model = replace(text, children=children)
    root = ModuleNode("Gemma3ForCausalLM", "other", {}, {"model": model, "lm_head": _cropped(head)})
    facts = {
        **tree.facts,
        "input_embeddings": "model.embed_tokens",
        "output_embeddings": "lm_head",
        "tied_keys": {"lm_head.weight": "model.embed_tokens.weight"},
    }
    return replace(tree, root=root, cls=root.cls, model_type="gemma3_text", facts=facts, shared={})


def _cropped(node: ModuleNode) -> ModuleNode:
    rows, width = node.parameters["weight"]
    return replace(node, parameters={"weight": (min(rows, _GEMMA_3_TOKENS), width)})
