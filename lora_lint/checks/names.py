"""Finds the name that someone meant: the same part of a layer under another architecture's name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from lora_lint.models.module_tree import ADAPTABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.models import ModuleNode, ModuleTree

# Parts of a layer, and the leaf names that architectures of transformers give them.
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "query": ("q_proj", "query", "q", "q_lin", "query_proj", "wq", "to_q", "q_b_proj"),
    "key": ("k_proj", "key", "k", "k_lin", "key_proj", "wk", "to_k", "kv_b_proj"),
    "value": ("v_proj", "value", "v", "v_lin", "value_proj", "wv", "to_v", "kv_b_proj"),
    "output": ("o_proj", "out_proj", "attn.c_proj", "dense", "o", "out_lin", "wo", "to_out.0"),
    "gate": ("gate_proj", "w1", "wi_0", "gate_up_proj", "up_gate_proj"),
    "up": ("up_proj", "w3", "wi_1", "c_fc", "fc1", "fc_in", "dense_h_to_4h", "wi", "gate_up_proj"),
    "down": ("down_proj", "w2", "mlp.c_proj", "fc2", "fc_out", "dense_4h_to_h", "wo"),
}
# Leaf names of layers that hold query, key and value in one weight.
FUSED: Final = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "W_pack", "qkv", "in_proj")
LLAMA_NAMES: Final = frozenset(
    {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
)
_ATTENTION: Final = ("query", "key", "value")


def adaptable(tree: ModuleTree) -> Iterator[tuple[str, ModuleNode]]:
    """The modules PEFT has a LoRA layer for, with their full names."""
    return ((name, node) for name, node in tree.named_modules() if node.kind in ADAPTABLE)


def leaves(tree: ModuleTree) -> dict[str, int]:
    """The leaf names of adaptable modules, with how many modules bear each."""
    counts: dict[str, int] = {}
    for name, _ in adaptable(tree):
        leaf = name.rpartition(".")[2]
        counts[leaf] = counts.get(leaf, 0) + 1
    return counts


def fused_attention(tree: ModuleTree) -> str | None:
    """The leaf name of the layer that fuses query, key and value, None if they are apart.

    The shape must bear it out: such a layer puts out more than it takes in.
    """
    for name, node in adaptable(tree):
        leaf = name.rpartition(".")[2]
        shape = node.parameters.get("weight", ())
        if leaf in FUSED and node.kind in ("Linear", "Conv1D") and len(shape) == 2:
            out, into = shape if node.kind == "Linear" else (shape[1], shape[0])
            if out > into or not tree.sized:
                return leaf
    return None


def roles_of(entry: str) -> list[str]:
    """The parts of a layer that a name stands for somewhere."""
    leaf = entry.rpartition(".")[2]
    return [role for role, names in ROLES.items() if leaf in names or entry in names]


def same_part(entry: str, tree: ModuleTree) -> str | None:
    """What this model calls the part that an entry names in another architecture."""
    names = leaves(tree)
    for role in roles_of(entry):
        if role in _ATTENTION and (fused := fused_attention(tree)):
            return fused
        for name in ROLES[role]:
            leaf = name.rpartition(".")[2]
            if leaf in names and (leaf == name or _has_suffix(tree, name)):
                return name
    return None


def _has_suffix(tree: ModuleTree, suffix: str) -> bool:
    return any(name.endswith(f".{suffix}") for name, _ in adaptable(tree))


def suggestion(entry: str, tree: ModuleTree) -> str | None:
    """The name that was most likely meant: the nearest spelling, else the same part of a layer."""
    names = leaves(tree)
    lowered = {name.lower(): name for name in names}
    if entry.lower() in lowered:
        return lowered[entry.lower()]
    # A slip of the fingers keeps the length; `o_proj` is not a slip of `q_proj`.
    near = difflib.get_close_matches(entry, names, n=1, cutoff=0.85)
    part = same_part(entry, tree)
    return part if part and roles_of(entry) else (near[0] if near else None)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The closest known spelling of a word, None where none is close."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return near[0] if near else None
