"""What one transformers release calls otherwise than another.

The names are those of the trees of both releases (``lora_lint/models/lines.py``); what became of a
name is generated with them (``tools/line_renames.py`` says what counts as proof).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.models import lines
from lora_lint.models.module_tree import ADAPTABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.models.module_tree import ModuleNode, ModuleTree

# The last release of transformers 4, with whose names most that is written was written.
LAST_4: Final = "4.57.6"


class Renamed(NamedTuple):
    """How the names of a model type changed after a release.

    ``gone`` and ``new`` are last parts of names of which some are gone or new (``query``,
    ``q_proj``), both empty where only the paths to them differ; ``fused_experts``: experts that
    were modules are parameters now.
    ``became`` says of a last part which ones the same weights have in the newer release, all of
    them (``dense`` of ViT -> ``fc1``, ``fc2``, ``o_proj``), and ``fused`` of a module of
    experts, or of their router, the parameter that holds its weights (``w1`` of Mixtral ->
    ``experts.gate_up_proj``); what is not proven stands in neither.
    """

    since: str
    gone: tuple[str, ...]
    new: tuple[str, ...]
    fused_experts: bool
    became: Mapping[str, tuple[str, ...]] = {}
    fused: Mapping[str, str] = {}


def always_built_in(model_type: str | None) -> bool:
    """Whether every release compared has a model type, so that any in use will have it."""
    return all(
        lines.has_model_type(model_type, lines.line_of(release)) for release in lines.measured()
    )


def renamed_since_4(model_type: str | None, cls: str | None = None) -> bool:
    """Whether module names of a model type, or of one of its classes, changed between the last
    transformers 4 and the release of the catalogue, so that a name which is right for one is wrong
    for the other.
    """
    return renames(model_type, cls) is not None


@lru_cache(maxsize=64)
def renames(
    model_type: str | None,
    cls: str | None = None,
    version: str | None = None,
    newer: str | None = None,
) -> Renamed | None:
    """How names differ between two releases of transformers, by default the last transformers 4
    and that of the catalogue; of all classes of a model type, or of one. None where they are the
    same, or where it is not known that they differ.
    """
    own = lines.of_model_type(model_type)
    if own is None or model_type is None:
        return None
    before = lines.line_of(version or LAST_4)
    after = lines.line_of(newer) if newer is not None else lines.newest()
    gone: set[str] = set()
    new: set[str] = set()
    became: dict[str, set[str]] = {}
    fused: dict[str, set[str]] = {}
    unproven: set[str] = set()
    differ = experts = False
    for name in [cls] if cls is not None else own.classes:
        if own.number(name, before) == own.number(name, after):
            continue
        old_tree = lines.template(model_type, name, before)
        new_tree = lines.template(model_type, name, after)
        if old_tree is None or new_tree is None:
            continue
        old_names, new_names = patterns(old_tree), patterns(new_tree)
        if old_names == new_names:
            continue
        differ = True
        lost, added = _last(old_names - new_names), _last(new_names - old_names)
        gone |= lost - added  # a part that is in both stands elsewhere, which is no other name
        new |= added - lost
        experts = experts or any("experts.*" in lost_name for lost_name in old_names - new_names)
        known = _between(own, name, before, after)
        for leaf, leaves in known.became.items():
            became.setdefault(leaf, set()).update(leaves)
        for leaf, parameter in known.fused.items():
            fused.setdefault(leaf, set()).add(parameter)
        unproven |= lost - known.became.keys() - known.fused.keys()
    if not differ:
        return None
    return Renamed(
        before.release,
        tuple(sorted(gone)),
        tuple(sorted(new)),
        experts,
        {leaf: tuple(sorted(to)) for leaf, to in became.items() if leaf not in unproven - gone},
        {leaf: next(iter(to)) for leaf, to in fused.items() if len(to) == 1},
    )


def not_the_same(model_type: str | None, cls: str, version: str | None) -> str | None:
    """Why the module names of the catalogue's own release do not hold for another, None if they
    do. Without a version nothing is known against it.
    """
    if version is None or (line := lines.line_of(version)).newest:
        return None
    reason = lines.why_none(model_type, cls, version)
    if reason is not None or renames(model_type, cls, version) is None:
        return reason
    newest = lines.newest().release
    other = "4 and 5" if line.key < (5,) else f"{version} and {newest}"
    return f"the module names of {model_type} models differ between transformers {other}"


class _Mapping(NamedTuple):
    became: Mapping[str, frozenset[str]]
    fused: Mapping[str, str]


def _between(own: lines.Lines, cls: str, before: lines.Line, after: lines.Line) -> _Mapping:
    """What became of names between two lines. Stored is what they are in the newest release; a name
    of a line in between is known by what it is there.
    """
    old, fused = _to_newest(own, cls, before)
    if after.newest:
        return _Mapping(old, fused)
    middle, fused_after = _to_newest(own, cls, after)
    found: dict[str, frozenset[str]] = {}
    for leaf, leaves in old.items():
        sources = {other for other, to in middle.items() if to <= leaves}
        if sources and frozenset().union(*(middle[other] for other in sources)) == leaves:
            if sources != {leaf}:
                found[leaf] = frozenset(sources)
        elif not middle.keys() & leaves and not any(to & leaves for to in middle.values()):
            found[leaf] = leaves  # nothing else was called so on the way
    return _Mapping(found, {leaf: to for leaf, to in fused.items() if leaf not in fused_after})


def _to_newest(
    own: lines.Lines, cls: str, line: lines.Line
) -> tuple[dict[str, frozenset[str]], Mapping[str, str]]:
    number = own.number(cls, line)
    if number is None or number < 0:
        return {}, {}
    return {k: frozenset(v) for k, v in own.became(number).items()}, own.fused(number)


def patterns(tree: ModuleTree) -> set[str]:
    """What PEFT can adapt in a tree: full names of modules and parameters, ``*`` for numbers."""
    memo: dict[int, frozenset[str]] = {}

    def below(node: ModuleNode) -> frozenset[str]:
        if id(node) not in memo:
            memo[id(node)] = frozenset(names(node))
        return memo[id(node)]

    def own(node: ModuleNode) -> Iterator[str]:
        if node.kind in ADAPTABLE:
            yield ""
        else:
            yield from (f".{key}" for key, shape in node.parameters.items() if len(shape) > 1)

    def names(node: ModuleNode) -> Iterator[str]:
        yield from own(node)
        for name, child in dict.fromkeys((_numberless(n), c) for n, c in node.children.items()):
            yield from (f".{name}{rest}" for rest in below(child))

    if tree.shared:  # a module that has two names counts under its first one
        return {
            ".".join((*map(_numberless, prefix.split(".")), *filter(None, rest.split("."))))
            for prefix, node in tree.named_modules()
            for rest in own(node)
        }
    return {name.removeprefix(".") for name in below(tree.root)}


def _numberless(name: str) -> str:
    return "*" if re.fullmatch(r"\d+", name) else name


def _last(names: set[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names} - {"*"}
