"""What there is to know of a base model before writing ``target_modules``.

Which modules PEFT takes, and what they cost, is decided by ``inject``, never by a name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.checks.lines import OLDER_LINE
from lora_lint.facts import ALL_LINEAR, default_targets, expert_tables, version_key
from lora_lint.injection import inject
from lora_lint.injection.matching import entries_of
from lora_lint.injection.semantics import semantics
from lora_lint.models.module_tree import ADAPTABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lora_lint.injection import Injection
    from lora_lint.models.module_tree import ModuleNode, ModuleTree, Shape
    from lora_lint.models.resolve import Resolution

_LINEAR: Final = ("Linear", "Conv1D")
_USUAL: Final = (*_LINEAR, "Embedding")
_NUMBER: Final = re.compile(r"(?<![^.])\d+(?![^.])")
# More stacks of layers than an encoder, a decoder and what joins them: blocks of a UNet, which
# nobody adapts one by one.
_MAX_STACKS: Final = 4


class Group(NamedTuple):
    """The modules or parameters of one name in one part of the model.

    ``part`` is the path to them, its numbers as ``*``; ``members`` their full names. ``kind`` is
    the kind PEFT dispatches on, or ``Parameter``. ``shapes`` are the different ones, [in, out] of
    a Linear or Conv1D and the weight's own of others, none where sizes are unknown. ``trainable``
    counts the parameters of their adapters, None where that is unknown or they get none:
    ``refused`` is the exception that PEFT raises for them; they are not ``reached`` where PEFT
    takes their name for another's. ``default`` and ``all_linear`` count the members that PEFT's
    default and all-linear take. ``entry`` is what reaches a parameter from ``target_parameters``.
    """

    part: str
    name: str
    kind: str
    shapes: tuple[Shape, ...]
    members: tuple[str, ...]
    trainable: int | None = None
    refused: str | None = None
    reached: bool = True
    default: int = 0
    all_linear: int = 0
    entry: str | None = None

    @property
    def path(self) -> str:
        """The full name, its numbers as ``*``."""
        return f"{self.part}.{self.name}" if self.part else self.name


class Changed(NamedTuple):
    """How names changed from a release of transformers 4 to 5: ``gone`` and ``new`` last parts, and
    the same in words; all empty where nothing differs.
    """

    since: str
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    fused_experts: bool = False
    text: str = ""


class Inspection(NamedTuple):
    """A base model as seen with a release of PEFT, at a rank and for a task.

    ``written_default`` is PEFT's default for the model type, ``default`` what it does; None and an
    error where there is none. ``target_modules`` spells what all-linear takes, ``stacks`` the same
    for each stack of layers alone. ``others`` counts modules with parameters that no LoRA layer
    fits, by class and last name.
    """

    resolution: Resolution
    peft: str
    transformers: str | None
    r: int
    task: str | None
    groups: tuple[Group, ...]
    written_default: list[str] | str | None
    default: Injection
    all_linear: Injection
    target_modules: list[str] | str | None
    stacks: Mapping[str, str]
    others: Mapping[tuple[str, str], int]
    changed: Changed

    @property
    def tree(self) -> ModuleTree:
        """The model's module tree."""
        return self.resolution.tree

    @property
    def counted(self) -> bool:
        """Whether the numbers of modules are the model's own, not those of a default config."""
        return not self.tree.facts.get("template")

    @property
    def head(self) -> str | None:
        """The name of the output head."""
        name: str | None = self.tree.facts.get("output_embeddings")
        return name


def inspect(
    resolution: Resolution,
    *,
    peft: str,
    transformers: str | None = None,
    r: int = 16,
    task: str | None = None,
) -> Inspection:
    """Look at a base model; ``task`` is PEFT's task type."""
    tree = resolution.tree
    run = _Runner(tree, peft, transformers or tree.transformers, r, task)
    default, all_linear = run(), run(target_modules=ALL_LINEAR)
    taken = {*default.parameters, *all_linear.parameters}
    groups = tuple(
        group._replace(default=_hits(group, default), all_linear=_hits(group, all_linear))
        for group in _with_adapters(run, list(_groups(tree, taken)))
    )
    wanted = set(all_linear.modules) or _linear(tree)
    return Inspection(
        resolution,
        peft,
        transformers,
        r,
        task,
        groups,
        default_targets(tree.model_type, peft),
        default,
        all_linear,
        _spelled(run, groups, wanted),
        dict(_stacks(run, groups, wanted)),
        _others(tree, groups),
        changed(tree),
    )


class _Runner(NamedTuple):
    """Injections of one model that differ in their targets alone."""

    tree: ModuleTree
    peft: str
    transformers: str | None
    r: int
    task: str | None

    def __call__(self, **targets: Any) -> Injection:
        config = {"r": self.r, **targets}
        if self.task is not None:
            config["task_type"] = self.task
        return inject(self.tree, config, peft=self.peft, transformers=self.transformers)


def _hits(group: Group, injection: Injection) -> int:
    taken = injection.parameters if group.kind == "Parameter" else injection.modules
    return len(set(group.members) & set(taken))


# Groups ------------------------------------------------------------------------------------------


def _groups(tree: ModuleTree, taken: set[str]) -> Iterator[Group]:
    """The groups in the model's order, not yet adapted; ``taken`` parameters are among them."""
    found: dict[tuple[str, str], tuple[dict[Shape, None], list[str]]] = {}
    for name, kind, shape in _adaptable(tree, taken):
        path = _NUMBER.sub("*", name)
        shapes, members = found.setdefault((path, kind), ({}, []))
        members.append(name)
        if tree.sized and shape:
            shapes[shape] = None
    for (path, kind), (shapes, members) in found.items():
        part, _, leaf = path.rpartition(".")
        yield Group(part, leaf, kind, tuple(shapes), tuple(members))


def _adaptable(tree: ModuleTree, taken: set[str]) -> Iterator[tuple[str, str, Shape]]:
    """Modules that PEFT has a LoRA layer for, the stacked parameters of layers, and what else PEFT
    has ``taken``: name, kind, shape.

    A stacked parameter has three dimensions and stands in a numbered layer, as experts do; the
    class token and the position embeddings of a vision model have three and stand outside.
    """
    for name, node in tree.named_modules():
        if node.kind in ADAPTABLE and name:
            yield name, node.kind, _shape(node)
        elif node.kind == "other" and _NUMBER.search(name):
            for parameter, shape in node.parameters.items():
                full = f"{name}.{parameter}"
                if (len(shape) == 3 and shape[0] != 1) or full in taken:
                    yield full, "Parameter", shape


def _shape(node: ModuleNode) -> Shape:
    computed: Mapping[str, Shape] = node.facts.get("parametrized_shapes", {})
    every = {**computed, **node.parameters}
    shape = tuple(every.get("weight", every.get("in_proj_weight", ())))
    if node.kind not in _LINEAR:
        return shape
    if "features" in node.facts:
        return tuple(node.facts["features"])
    return shape[::-1] if node.kind == "Linear" else shape


def _with_adapters(run: _Runner, groups: list[Group]) -> list[Group]:
    """The groups with what their adapters cost, or why PEFT refuses them."""
    usual = [g for g in groups if g.kind in _USUAL]
    # An attention wraps its own output layer: asked for together, the two would count once.
    others = [g for g in groups if g.kind not in (*_USUAL, "Parameter")]
    found = {(g.path, g.kind): g for part in (usual, others) for g in _together(run, part)}
    return [found.get((g.path, g.kind)) or _parameter(run, g) for g in groups]


def _together(run: _Runner, groups: list[Group]) -> Iterator[Group]:
    """Groups adapted by one injection; halved until the refused ones are alone."""
    if not groups:
        return
    injection = run(target_modules=[name for group in groups for name in group.members])
    if injection.error is None or len(groups) == 1:
        yield from (_adapted(group, injection) for group in groups)
        return
    middle = len(groups) // 2
    yield from _together(run, groups[:middle])
    yield from _together(run, groups[middle:])


def _adapted(group: Group, injection: Injection) -> Group:
    if injection.error is not None:
        error = injection.error
        return group._replace(refused=f"{error.type}: {error.message}")
    hits = _hits(group, injection)
    if injection.undecided is not None and not (injection.modules or injection.parameters):
        return group  # not for want of sizes alone
    if hits < len(group.members):
        return group._replace(reached=False)
    if injection.trainable is None:
        return group
    counts = (injection.adapted[n].parameters for n in group.members if n in injection.adapted)
    return group._replace(trainable=sum(counts))


def _parameter(run: _Runner, group: Group) -> Group:
    """A group of parameters: the shortest entry that reaches it alone, and its adapters."""
    steps = group.path.rpartition("*.")[2].split(".")
    injection: Injection | None = None
    for length in range(2, len(steps) + 1):
        entry = ".".join(steps[-length:])
        injection = run(target_modules=[], target_parameters=[entry])
        if set(injection.parameters) == set(group.members):
            return _adapted(group, injection)._replace(entry=entry)
    return _adapted(group, injection) if injection and injection.error else group


def _others(tree: ModuleTree, groups: Iterable[Group]) -> dict[tuple[str, str], int]:
    holders = {n.rpartition(".")[0] for g in groups if g.kind == "Parameter" for n in g.members}
    counts: dict[tuple[str, str], int] = {}
    for name, node in tree.named_modules():
        if name and node.parameters and node.kind not in ADAPTABLE and name not in holders:
            key = node.cls, name.rpartition(".")[2]
            counts[key] = counts.get(key, 0) + 1
    return counts


# What to write -----------------------------------------------------------------------------------


def _linear(tree: ModuleTree) -> set[str]:
    """All linear layers but the output head."""
    head = tree.facts.get("output_embeddings")
    return {n for n, node in tree.named_modules() if node.kind in _LINEAR and n != head}


def _spelled(run: _Runner, groups: Iterable[Group], wanted: set[str]) -> list[str] | str | None:
    """``target_modules`` that reach just these modules: their last names, else a pattern."""
    chosen = [group for group in groups if wanted & set(group.members)]
    leaves = list(dict.fromkeys(group.name for group in chosen))
    if leaves and _reaches(run, leaves, wanted):
        return leaves
    parts: dict[str, dict[str, None]] = {}
    for group in chosen:
        parts.setdefault(group.part.replace("*", "[0-9]+"), {})[group.name] = None
    pattern = "|".join(_alternatives(part, list(names)) for part, names in parts.items())
    return pattern if pattern and _reaches(run, pattern, wanted) else None


def _alternatives(part: str, names: list[str]) -> str:
    last = names[0] if len(names) == 1 else f"({'|'.join(names)})"
    return (f"{part}.{last}" if part else last).replace("*", "[0-9]+")


def _stacks(run: _Runner, groups: Iterable[Group], wanted: set[str]) -> Iterator[tuple[str, str]]:
    """A pattern for each stack of layers, where there are several."""
    stacks: dict[str, list[Group]] = {}
    for group in groups:
        stack, numbered, _ = group.path.partition(".*")
        if numbered and wanted & set(group.members):
            stacks.setdefault(stack, []).append(group)
    if not 1 < len(stacks) <= _MAX_STACKS:
        return
    for stack, inside in stacks.items():
        leaves = "|".join(dict.fromkeys(group.name for group in inside))
        pattern = f"{stack}[.].*[.]({leaves})"
        if _reaches(run, pattern, {n for g in inside for n in g.members} & wanted):
            yield stack, pattern


def _reaches(run: _Runner, targets: list[str] | str, wanted: set[str]) -> bool:
    injection = run(target_modules=targets)
    converted = expert_tables(run.tree.model_type, run.peft, run.transformers) is not None
    if injection.undecided and not injection.modules and not converted:
        # For want of sizes: a digit in `fc1` could be a layer's number. Here the names decide.
        entries = entries_of(targets, semantics(run.peft))
        return {name for name, _ in run.tree.named_modules() if entries.has(name)} == wanted
    return set(injection.modules) == wanted and not injection.parameters


# Across releases ----------------------------------------------------------------------------------


def changed(tree: ModuleTree) -> Changed:
    """How the model's names differ between the last transformers 4 and 5."""
    from lora_lint.models.renamed import not_the_same, renames

    older = OLDER_LINE.transformers
    found = renames(tree.model_type, tree.cls)
    if found is None:
        return Changed(older, text=not_the_same(tree.model_type, tree.cls, older) or "")
    gone, new = found.gone, found.new
    new_names = version_key(tree.transformers or "") >= (5,)
    leaves = {name.rpartition(".")[2] for name, _ in tree.named_modules() if new_names}
    parts = []
    if found.fused_experts:
        parts.append("the experts were modules and are stacked parameters in 5")
    if gone:
        listed = (f"{name} (in part)" if name in leaves else name for name in gone)
        parts.append(f"gone: {', '.join(listed)}")
    if new:
        parts.append(f"new: {', '.join(new)}")
    if not parts:
        parts.append("the last parts are the same, the paths to them differ")
    return Changed(found.since, gone, new, found.fused_experts, "; ".join(parts))
