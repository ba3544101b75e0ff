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
_MIXTURES: Final = frozenset({"mixtral", "qwen3_moe"})
# The class of an expert in these trees, which tells them from those of Hugging Face.
EXPERT: Final = "LLaMAMLP"
# Of Gemma 3 models that see images: the rows that LitGPT keeps of the embeddings, and the window of
# their layers (litgpt 0.5.13 config.py ``vocab_size``, ``sliding_window_size``;
# scripts/convert_hf_checkpoint.py ``copy_weights_gemma_3``).
_GEMMA_3_TOKENS: Final = 262144
_GEMMA_3_WINDOW: Final = 1024


@lru_cache(maxsize=32)
def litgpt_tree(tree: ModuleTree) -> ModuleTree:
    """A model as LitGPT has it, under Hugging Face's names.

    Read in litgpt 0.5.13 (model.py, lora.py): no weights are tied, every linear map is torch's own,
    of Gemma 3 there is the language model alone. Queries, keys and values are one map, of which
    LoRA gives each part matrices of its own (lora.py ``LoRAQKVLinear``: an A of so many rows as all
    parts have ranks, a B in groups): they stand here as three, and so do gate and up as two. Each
    expert of a mixture has maps of its own, and so has what chooses them (``LLaMAMoE``).
    """
    if tree.model_type == "gemma3":
        tree = _text_alone(tree)
    family = tree.model_type or ""
    made: dict[int, ModuleNode] = {}

    def own(node: ModuleNode) -> ModuleNode:
        """The node with everything in it; equal ones stay one object."""
        if id(node) not in made:
            children = {name: own(child) for name, child in node.children.items()}
            if family in _FUSED:
                children = apart(children, _FUSED[family])
            elif family in _MIXTURES and {"gate", "experts"} <= children.keys():
                children = _mixture(children)
            cls = "Linear" if node.kind == "Linear" else node.cls
            made[id(node)] = replace(node, cls=cls, children=children)
        return made[id(node)]

    told = {name: False for name in ("tie_word_embeddings", "tie_attribute") if name in tree.facts}
    return replace(tree, root=own(tree.root), facts={**tree.facts, **told}, tied=())


def apart(children: Mapping[str, ModuleNode], fused: str) -> dict[str, ModuleNode]:
    """An attention's or feed-forward's modules, with several in the place of a fused one."""
    out = next((c for name, c in children.items() if name in _OUT and _is_map(c)), None)
    parts: dict[str, ModuleNode] = {}
    for name, child in children.items():
        if name == fused and _is_map(child) and out is not None:
            rows, queries = child.parameters["weight"][0], out.parameters["weight"][1]
            parts["q_proj"] = _part(child, queries)
            parts |= dict.fromkeys(("k_proj", "v_proj"), _part(child, (rows - queries) // 2))
        elif name == _GATE_UP and _is_map(child):
            half = child.parameters["weight"][0] // 2
            parts |= dict.fromkeys(("gate_proj", "up_proj"), _part(child, half))
        else:
            parts[name] = child
    return parts


def _mixture(children: Mapping[str, ModuleNode]) -> dict[str, ModuleNode]:
    """A mixture's modules: the experts, each a feed-forward under LitGPT's names, and the map that
    chooses them. LitGPT calls that ``gate``, which PEFT takes for a parameter of Hugging Face's.
    """
    experts = children["experts"]
    if _GATE_UP in experts.parameters:  # since transformers 5 they are two parameters
        number, rows, columns = experts.parameters[_GATE_UP]
        into, out = (rows // 2, columns), (columns, experts.parameters["down_proj"][2])
        others = dict(experts.children)
    else:
        one = next(iter(experts.children.values()), experts)
        number = len(experts.children)
        maps = [child for child in one.children.values() if _is_map(child)]
        if len(maps) != 3:
            return dict(children)
        rows, columns = maps[0].parameters["weight"]
        into, out = (rows, columns), (columns, rows)
        others = {name: child for name, child in one.children.items() if child.kind != "Linear"}
    first, last = (ModuleNode("Linear", "Linear", {"weight": size}, {}) for size in (into, out))
    expert = ModuleNode(EXPERT, "other", {}, {"fc_1": first, "fc_2": first, "proj": last, **others})
    every = dict.fromkeys(map(str, range(number)), expert)
    return {
        "router": ModuleNode("Linear", "Linear", children["gate"].parameters, {}),
        "experts": ModuleNode("ModuleList", "container", {}, every),
    }


def _is_map(node: ModuleNode) -> bool:
    return node.kind == "Linear" and len(node.parameters.get("weight", ())) == 2


def _part(fused: ModuleNode, rows: int) -> ModuleNode:
    """So many rows of a linear map."""
    return replace(fused, parameters={n: (rows, *s[1:]) for n, s in fused.parameters.items()})


def _text_alone(tree: ModuleTree) -> ModuleTree:
    """The language model of a Gemma 3 that sees images, as the model that has no more."""
    inside = tree.facts.get("input_embeddings", "").rpartition(".")[0]
    text, head = tree.get(inside), tree.get(tree.facts.get("output_embeddings", ""))
    if not inside or text is None or head is None:
        return tree
    children = {**text.children, "embed_tokens": _cropped(text.children["embed_tokens"])}
    model = replace(text, children=children)
    root = ModuleNode("Gemma3ForCausalLM", "other", {}, {"model": model, "lm_head": _cropped(head)})
    facts = {
        **tree.facts,
        "config": {"sliding_window": _GEMMA_3_WINDOW, **tree.facts.get("config", {})},
        "input_embeddings": "model.embed_tokens",
        "output_embeddings": "lm_head",
        "tied_keys": {"lm_head.weight": "model.embed_tokens.weight"},
    }
    return replace(tree, root=root, cls=root.cls, model_type="gemma3_text", facts=facts, shared={})


def _cropped(node: ModuleNode) -> ModuleNode:
    rows, width = node.parameters["weight"]
    return replace(node, parameters={"weight": (min(rows, _GEMMA_3_TOKENS), width)})
