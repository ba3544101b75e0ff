"""LoRA layers that a framework puts into a model itself, as PEFT would be asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from lora_lint.models import ModuleTree


def linear_names(tree: ModuleTree) -> list[str]:
    """The full names of a model's linear layers, in the order of ``named_modules()``."""
    return [name for name, node in tree.named_modules() if node.kind == "Linear"]


def has_stacked_experts(tree: ModuleTree) -> bool:
    """Whether a mixture's experts are stacked parameters, which are no linear layers
    (transformers 5: ``MixtralExperts.gate_up_proj``).
    """
    return any(
        "Expert" in node.cls and any(len(shape) == 3 for shape in node.parameters.values())
        for _, node in tree.named_modules()
    )


def as_targets(tree: ModuleTree, wanted: Collection[str]) -> list[str] | None:
    """``target_modules`` with which PEFT adapts exactly these modules, None where no list does.

    Last parts of names where these say it, else full names: PEFT takes an entry for the end of a
    name (peft 0.21.2 tuners/tuners_utils.py ``check_target_module_exists``).
    """
    chosen = set(wanted)
    names = [name for name, _ in tree.named_modules() if name]
    leaves = list(dict.fromkeys(name.rpartition(".")[2] for name in names if name in chosen))
    short = set(leaves)
    if all((name.rpartition(".")[2] in short) == (name in chosen) for name in names):
        return leaves
    if any(name.endswith("." + one) for one in chosen for name in names if name not in chosen):
        return None
    return [name for name in names if name in chosen]
