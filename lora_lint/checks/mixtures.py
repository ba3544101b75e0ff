"""The experts and routers of a mixture, by their place in a module tree."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.models import ModuleTree

# What frameworks and papers call the three weights of an expert.
EXPERT_NAMES: Final = frozenset(
    ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3")
)
# Classes of routers whose place does not give them away (jetmoe, dbrx, switch_transformers).
_ROUTER_CLASS: Final = re.compile(r"(Router|TopKGating|MoeGate|MoEGate|MoEV1Gate)$")


@lru_cache(maxsize=4)
def stacked_experts(tree: ModuleTree) -> dict[str, tuple[str, ...]]:
    """The modules that hold all experts of a layer in parameters of three dimensions, with the
    names of these.
    """
    found = {}
    for name, node in tree.named_modules():
        if name.rpartition(".")[2] == "experts" and node.kind == "other":
            stacked = tuple(p for p, shape in node.parameters.items() if len(shape) == 3)
            if stacked:
                found[name] = stacked
    return found


def reached(holders: Iterable[str], names: Iterable[str]) -> bool:
    """Whether one of the names lies under one of the modules."""
    starts = tuple(f"{holder}." for holder in holders)
    return any(name.startswith(starts) for name in names)


def parameter_entries(experts: dict[str, tuple[str, ...]]) -> list[str]:
    """What target_parameters must hold to reach the experts: ``mlp.experts.gate_up_proj``."""
    ends = {
        ".".join(part for part in name.split(".")[-2:] if not part.isdigit()): parameters
        for name, parameters in experts.items()
    }
    entries = (f"{end}.{parameter}" for end, parameters in ends.items() for parameter in parameters)
    return list(dict.fromkeys(entries))


@lru_cache(maxsize=4)
def routers(tree: ModuleTree) -> frozenset[str]:
    """The modules that choose the experts of a layer: the routers, and what these are made of."""
    found: set[str] = set()
    beside = {
        name.rpartition(".")[0]
        for name, _ in tree.named_modules()
        if name.rpartition(".")[2] == "experts"
    }
    for name, node in tree.named_modules():
        parent, _, leaf = name.rpartition(".")
        by_place = parent in beside and leaf in ("gate", "router")
        if parent in found or by_place or _ROUTER_CLASS.search(node.cls):
            found.add(name)
    return frozenset(found)


def is_expert_name(entry: object, experts: dict[str, tuple[str, ...]]) -> bool:
    """Whether an entry of target_modules names the weights of experts, as far as can be told:
    ``shared_expert.up_proj`` does not, ``up_proj`` does.
    """
    if not isinstance(entry, str):
        return False
    before, _, leaf = entry.rpartition(".")
    if "shared" in before:
        return False
    return leaf in EXPERT_NAMES or any(leaf in parameters for parameters in experts.values())


def given(subject: RecipeSubject, name: str) -> bool:
    """Whether a field holds anything, known or not."""
    value = subject.value(name)
    return value is UNKNOWN or bool(value)
