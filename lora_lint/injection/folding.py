"""Layers that are alike are walked once.

A model of 126 equal layers gets in each what it gets in the first, unless the config tells layers
apart by their numbers. Where it can't, the injection runs on a tree that keeps the first of each
kind of numbered siblings, and its answer is spread over all of them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.facts import ALL_LINEAR, default_targets
from lora_lint.injection.saved import WRAPPING_STEPS
from lora_lint.models.module_tree import ModuleNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lora_lint.injection.config import LoraSettings
    from lora_lint.injection.simulation import Module
    from lora_lint.models.module_tree import ModuleTree

# A name in which no step is a number, as a literal or as PEFT's patterns of modules_to_save and
# rank_pattern take it.
_PLAIN: Final = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*", re.ASCII)
# A regular expression as tokens. What is none of them makes the expression one that is not folded.
_TOKEN: Final = re.compile(
    r"(?P<any>\.[*+])|(?P<step>(?:\\d|\\w|\[0-9\]|\[\^\\?\.\])[+])|(?P<dot>\\\.)|(?P<one>\.)"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<group>\(\?:|[()|^$])",
    re.ASCII,
)


class Fold(NamedTuple):
    """A tree with one of each kind of numbered siblings, and the names of the others.

    ``alike`` maps the name of a kept module to those of all that it stands for, itself first.
    """

    tree: ModuleTree
    alike: Mapping[str, tuple[str, ...]]

    def spread(self, name: str) -> Iterator[str]:
        """The names that a name in the folded tree stands for, in the order of the numbers."""
        steps = name.split(".")
        choices: list[tuple[str, ...]] = []
        for index, step in enumerate(steps):
            numbers = self.alike.get(".".join(steps[: index + 1])) if step.isdigit() else None
            choices.append(numbers or (step,))
        return (".".join(chosen) for chosen in product(*choices))

    def counted(self, model: Module) -> Iterator[tuple[Any, int]]:
        """Every parameter below a PeftModel once, and for how many it stands."""
        seen: set[int] = set()
        waiting: list[tuple[Module, tuple[str, ...], int]] = [(model, (), 1)]
        while waiting:
            module, path, times = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            for parameter in module.parameters.values():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter, times
            for name, child in module.children.items():
                if name in WRAPPING_STEPS:
                    waiting.append((child, path, times))
                    continue
                below = (*path, name)
                # The first two steps are PEFT's own.
                numbers = self.alike.get(".".join(below[2:])) if name.isdigit() else None
                waiting.append((child, below, times * len(numbers) if numbers else times))


@lru_cache(maxsize=16)
def fold(tree: ModuleTree) -> Fold | None:
    """The tree folded; None where nothing recurs, or where modules or parameters of numbered
    modules are shared.
    """
    names = [*tree.shared, *tree.shared.values(), *(name for group in tree.tied for name in group)]
    names += tree.facts.get("tied_keys") or ()
    names += [str(tree.facts.get(f"{end}_embeddings") or "") for end in ("input", "output")]
    if any(map(_has_number, names)):
        return None
    memo: dict[int, ModuleNode] = {}
    kept: dict[int, dict[str, tuple[str, ...]]] = {}

    def folded(node: ModuleNode) -> ModuleNode:
        if id(node) in memo:
            return memo[id(node)]
        groups: dict[int, list[str]] = {}
        for name, child in node.children.items():
            if name.isdigit():
                groups.setdefault(id(child), []).append(name)
        first = {numbers[0]: tuple(numbers) for numbers in groups.values()}
        children = {
            name: folded(child)
            for name, child in node.children.items()
            if not name.isdigit() or name in first
        }
        new = ModuleNode(node.cls, node.kind, node.parameters, children, node.facts)
        kept[id(new)] = {name: numbers for name, numbers in first.items() if len(numbers) > 1}
        memo[id(node)] = new
        return new

    root = folded(tree.root)
    alike: dict[str, tuple[str, ...]] = {}

    def note(node: ModuleNode, path: str) -> None:
        for name, child in node.children.items():
            full = f"{path}.{name}" if path else name
            if name in kept[id(node)]:
                alike[full] = kept[id(node)][name]
            note(child, full)

    note(root, "")
    return Fold(replace(tree, root=root), alike) if alike else None


def _has_number(name: str) -> bool:
    return any(step.isdigit() for step in name.split("."))


def allows(settings: LoraSettings, tree: ModuleTree, peft: str) -> bool:
    """Whether a config surely treats layers alike, whatever their numbers."""
    if (
        settings.layers_to_transform is not None
        or settings.layers_pattern is not None
        or settings.layer_replication
    ):
        return False
    targets, excluded = settings.target_modules, settings.exclude_modules
    if targets is None:
        targets = default_targets(tree.model_type, peft)
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        # Releases make a list of full names of it, which a message may repeat.
        if excluded or not tree.facts.get("pretrained"):
            return False
    elif not _uniform(targets):
        return False
    tokens = settings.trainable_token_indices
    return (
        _uniform(excluded)
        and _plain(settings.modules_to_save)
        and _plain(settings.target_parameters)
        and _plain(settings.rank_pattern)
        and _plain(settings.alpha_pattern)
        and (not isinstance(tokens, dict) or _plain(tokens))
    )


def _plain(names: Any) -> bool:
    """Whether a field holds names without numbers alone, or nothing."""
    if names is None:
        return True
    if not isinstance(names, list | tuple | dict | set | frozenset):
        return False
    return all(isinstance(name, str) and _PLAIN.fullmatch(name) for name in names)


def _uniform(value: Any) -> bool:
    """Whether a list of names, or a regular expression, hits alike siblings alike."""
    if isinstance(value, str):
        return _uniform_pattern(value)
    if value is None:
        return True
    if not isinstance(value, list | tuple | set | frozenset):
        return False
    return all(isinstance(name, str) and not _has_number(name) for name in value)


def _uniform_pattern(pattern: str) -> bool:
    """Whether an expression can't tell one number of a name from another.

    Numbers then can only be hit by ``.*`` and ``.+``, or by a step between two dots (``\\d+``). A
    single ``.`` stands for one character, and is taken for granted only beside words and ``.*``.
    """
    kinds: list[str] = []
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None or token.lastgroup is None:
            return False
        kinds.append(token.lastgroup)
        at = token.end()
    return all(_fits(kind, before, after) for before, kind, after in _neighbours(kinds))


def _neighbours(kinds: list[str]) -> Iterable[tuple[str, str, str]]:
    padded = ["end", *kinds, "end"]
    return zip(padded, kinds, padded[2:], strict=False)


def _fits(kind: str, before: str, after: str) -> bool:
    if kind == "one":
        return {before, after} <= {"word", "any"}
    if kind == "step":
        return {before, after} <= {"dot", "end"}
    return kind != "any" or "any" not in (before, after)
