"""TM: experts and routers of a mixture, and what transformers 5 and PEFT make of their names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.checks import mixtures
from lora_lint.checks.mixtures import given
from lora_lint.checks.moved import comparable, elsewhere
from lora_lint.checks.registry import check
from lora_lint.checks.target_modules import is_all_linear, quoted, reach, written_targets
from lora_lint.diagnostics import Change, Finding, Note, Set, Wish
from lora_lint.dialects.base import LoraKwargs
from lora_lint.facts import default_targets, expert_tables, known_fields, version_key
from lora_lint.injection import messages
from lora_lint.injection.config import construct
from lora_lint.injection.matching import Matcher
from lora_lint.models.module_tree import ADAPTABLE
from lora_lint.models.renamed import renames
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.models import ModuleTree

_PARAMETERS_SINCE: Final = "0.17.0"


@check("TM110")
def moe_router_targeted(subject: RecipeSubject) -> Iterator[Finding]:
    """A shorthand or a pattern also takes the router, which nobody named."""
    tree, value, injection = subject.tree, subject.value("target_modules"), subject.injection
    if tree is None or not isinstance(value, str):
        return
    if not is_all_linear(value) and re.search(r"router|gat(e(?!_)|ing)", value):
        return
    routers = mixtures.routers(tree)
    by_module = [name for name in injection.modules if name in routers]
    by_parameter = [n for n in injection.parameters if n.rpartition(".")[0] in routers]
    if not by_module and not by_parameter:
        return
    hit = [*by_module, *by_parameter]
    count = f"all {len(hit)}" if subject.counts_known else "the"
    wanted = _names_without(subject, {*by_module, *by_parameter})
    result = reach(subject.inject({"target_modules": wanted})) if wanted else None
    yield Finding(
        f"`{value}` adapts {count} routers of {subject.model_name} too"
        if is_all_linear(value)
        else f"this pattern adapts {count} routers of {subject.model_name} too",
        field="target_modules",
        label=f"`{hit[0]}` decides which experts a token goes to",
        help="training the router can upset how tokens are spread over the experts; name the other "
        "layers if that is not meant",
        wishes=(
            Wish(
                f"target_modules: {quoted(wanted)}" + (f"    {result}" if result else ""),
                (Set("target_modules", wanted),),
            ),
        )
        if wanted
        else (),
    )


def _names_without(subject: RecipeSubject, unwanted: set[str]) -> list[str]:
    """The names that reach what is adapted but for some of it; empty where none do."""
    tree, injection = subject.tree, subject.injection
    assert tree is not None  # noqa: S101 - there is an injection
    adapted = {*injection.modules} - unwanted
    leaves = [name.rpartition(".")[2] for name, _ in tree.named_modules() if name in adapted]
    tables = expert_tables(tree.model_type, subject.peft, subject.transformers)
    if tables is not None:
        became = {name.rpartition(".")[2] for name in injection.parameters if name not in unwanted}
        leaves += [old for old, new in tables[0].items() if new in became]
    wanted = list(dict.fromkeys(leaves))
    then = subject.inject({"target_modules": wanted})
    kept = {*injection.modules, *injection.parameters} - unwanted
    same = {*then.modules, *then.parameters} == kept
    return wanted if wanted and not then.error and same else []


@check("TM111")
def moe_experts_not_adapted(subject: RecipeSubject) -> Iterator[Finding]:
    """Names of experts reach none, since these are stacked in parameters."""
    entries, tree, injection = written_targets(subject), subject.tree, subject.injection
    if not entries or tree is None or given(subject, "target_parameters"):
        return
    if injection.error is not None and not injection.error.message.startswith("Target modules"):
        return
    experts = mixtures.stacked_experts(tree)
    if not experts or mixtures.reached(experts, injection.parameters):
        return
    meant = [i for i, entry in enumerate(entries) if mixtures.is_expert_name(entry, experts)]
    alive = [i for i in meant if _matches(subject, entries[i])]
    dead = [i for i in meant if i not in alive]
    if injection.error is not None and len(dead) < len(entries):
        return  # TM101: more is wrong than the experts
    if injection.error is not None:
        wishes = _target_parameters(subject, experts, dead)
        yield _unreached(subject, entries, dead, wishes, crash=True)
        return
    for index in dead:
        wishes = _target_parameters(subject, experts, dead)
        yield _unreached(subject, entries, [index], wishes, crash=False)
    if alive:
        named = [entries[i] for i in alive]
        targets = subject.targets(named)
        there = [name for name in injection.modules if targets.has(name)]
        yield Finding(
            f"{_listed(named)} reach{'' if len(named) > 1 else 'es'} "
            f"{_count(subject, there)}modules outside the experts, and no expert of "
            f"{subject.model_name}",
            field="target_modules",
            item=alive[0],
            severity="warning" if _were_modules(subject) else "info",
            label=f"its experts are stacked in parameters such as `{_example(experts)}`",
            help=_before(subject, named) + _how_to_reach(subject),
            notes=tuple(Note("", "target_modules", i) for i in alive[1:]),
            wishes=_target_parameters(subject, experts, dead),
        )


def _unreached(
    subject: RecipeSubject,
    entries: list[Any],
    dead: list[int],
    wishes: tuple[Wish, ...],
    *,
    crash: bool,
) -> Finding:
    assert subject.tree is not None  # noqa: S101 - there are experts
    example = _example(mixtures.stacked_experts(subject.tree))
    effect = 'PEFT stops with "Target modules ... not found in the base model."'
    named = _listed(entries[i] for i in dead)
    return Finding(
        f"{named} {'reach' if len(dead) > 1 else 'reaches'} no expert of {subject.model_name}: "
        "they are stacked in parameters, which target_modules does not reach",
        field="target_modules",
        item=dead[0],
        whole=crash,
        label=f"such a parameter is called `{example}`",
        help=effect if crash else f"PEFT says nothing; {_how_to_reach(subject)}",
        notes=tuple(Note("", "target_modules", i) for i in dead[1:]),
        wishes=wishes,
    )


def _were_modules(subject: RecipeSubject) -> bool:
    """Whether names reached these experts in transformers 4, so that a config may rely on it."""
    tree = subject.tree
    change = renames(tree.model_type, tree.cls) if tree is not None else None
    return change is not None and change.fused_experts


def _matches(subject: RecipeSubject, entry: Any) -> bool:
    assert subject.tree is not None  # noqa: S101
    named = subject.targets([entry])
    return any(named.has(name) for name, _ in subject.tree.named_modules())


def _example(experts: dict[str, tuple[str, ...]]) -> str:
    name, parameters = next(iter(experts.items()))
    return f"{name}.{parameters[0]}"


def _listed(entries: Iterable[Any]) -> str:
    return ", ".join(f"`{entry}`" for entry in entries)


def _count(subject: RecipeSubject, names: list[str]) -> str:
    """A number and a blank, nothing where the number is not known."""
    return f"{len(names)} " if subject.counts_known else ""


def _before(subject: RecipeSubject, named: list[Any]) -> str:
    """How many modules the names reached with transformers 4, where that is known."""
    tree, targets = subject.tree, subject.targets(named)
    for there in elsewhere(subject) if _were_modules(subject) else ():
        older = version_key(there.release) < version_key(subject.transformers)
        if older and tree is not None and comparable(tree, there.tree) and subject.counts_known:
            found = sum(1 for name, _ in there.tree.named_modules() if targets.has(name))
            if found > sum(1 for name in subject.injection.modules if targets.has(name)):
                return f"with transformers {there.release} they reached {found}; "
    return ""


def _how_to_reach(subject: RecipeSubject) -> str:
    if version_key(subject.peft) < version_key(_PARAMETERS_SINCE):
        return f"target_parameters reaches them, from peft {_PARAMETERS_SINCE} on"
    return "target_parameters reaches them, or leave these names out to train the rest alone"


def _target_parameters(
    subject: RecipeSubject, experts: dict[str, tuple[str, ...]], dead: Iterable[int]
) -> tuple[Wish, ...]:
    """The wish that the experts be reached, if the user's PEFT can; a dropout must go with it."""
    if "target_parameters" not in known_fields(subject.peft):
        return ()
    entries = mixtures.parameter_entries(experts)
    gone = set(dead)
    changes: list[Change] = [Set("target_parameters", entries)]
    written = written_targets(subject)
    if gone and written is not None:
        left = [entry for i, entry in enumerate(written) if i not in gone]
        changes.append(Set("target_modules", left))
    title = f"target_parameters: {quoted(entries)}"
    if subject.kwargs.get("lora_dropout") not in (None, 0, UNKNOWN):
        changes.append(Set("lora_dropout", 0.0))
        title += ", lora_dropout: 0.0"
    return (Wish(title, tuple(changes)),)


@check("TM126")
def all_linear_leaves_out_experts(subject: RecipeSubject) -> Iterator[Finding]:
    """``all-linear`` takes modules, and the experts are none."""
    tree, injection = subject.tree, subject.injection
    if tree is None or not is_all_linear(subject.value("target_modules")) or injection.error:
        return
    experts = mixtures.stacked_experts(tree)
    if not experts or given(subject, "target_parameters"):
        return
    if mixtures.reached(experts, injection.parameters) or not injection.modules:
        return
    share = _share(tree, experts)
    yield Finding(
        f"all-linear leaves out the experts of {subject.model_name}"
        + (f", {share:.0%} of its parameters" if share else ""),
        field="target_modules",
        severity="warning" if _were_modules(subject) else "info",
        label=f"they are stacked in parameters such as `{_example(experts)}`; all-linear takes "
        "linear layers",
        help=_how_to_reach(subject).replace("leave these names out", "name the layers you mean"),
        wishes=_target_parameters(subject, experts, ()),
    )


def _share(tree: ModuleTree, experts: dict[str, tuple[str, ...]]) -> float | None:
    """The part of all parameters that the experts hold; None where sizes are not known."""
    if not tree.sized:
        return None
    inside = total = 0
    for name, node in tree.named_modules():
        for parameter, shape in node.parameters.items():
            count = 1
            for length in shape:
                count *= length
            total += count
            inside += count if parameter in experts.get(name, ()) else 0
    return inside / total if total else None


@check("TM127")
def conversion_changes_targets(subject: RecipeSubject) -> Iterator[Finding]:
    """PEFT rewrites a mixture's targets for transformers 5, and hits other modules than written."""
    tree, injection, lowered = subject.tree, subject.injection, subject.lowered
    value = subject.kwargs.get("target_modules")
    if tree is None or injection.error or not value or not isinstance(lowered, LoraKwargs):
        return
    tables = expert_tables(tree.model_type, subject.peft, subject.transformers)
    if tables is None:
        return
    matched = _matched(subject, lowered, tree)
    lost = [name for name in matched if name not in {*injection.modules, *injection.saved}]
    shorthand = is_all_linear(subject.value("target_modules"))
    if isinstance(value, list) and not shorthand:
        yield from _renamed_entries(subject, tables[0], lost)
        return
    gained = [name for name in injection.modules if name not in set(matched)]
    if shorthand:
        if lost:
            yield Finding(
                f"all-linear adapts the experts of {subject.model_name} and leaves out "
                f"{_some(subject, lost)}",
                field="target_modules",
                severity="warning",
                label="layers outside the experts bear the experts' names",
                help=f"peft {subject.peft} rewrites {_listed(tables[0])} to the experts' "
                "parameters, wherever they stand",
            )
        return
    if gained or lost:
        what = (
            f"{_some(subject, gained)} {'do' if len(gained) > 1 else 'does'} not match and "
            f"{'are' if len(gained) > 1 else 'is'} adapted too"
            if gained
            else f"{_some(subject, lost)} match{'' if len(lost) > 1 else 'es'} and "
            f"get{'' if len(lost) > 1 else 's'} no adapter"
        )
        yield Finding(
            f"peft {subject.peft} does not adapt what this pattern matches in "
            f"{subject.model_name}: {what}",
            field="target_modules",
            label="of each name that matches it keeps the last part, and adapts all modules that "
            "end so",
            help="a list of names is kept; layers_to_transform chooses layers",
        )


def _matched(subject: RecipeSubject, lowered: LoraKwargs, tree: ModuleTree) -> list[str]:
    """The modules that the targets match as they are written."""
    if is_all_linear(lowered.values.get("target_modules")):
        head = tree.facts.get("output_embeddings")
        linear = ("Linear", "Conv1D")
        return [n for n, node in tree.named_modules() if node.kind in linear and n != head]
    known = known_fields(subject.peft)
    values = {name: value for name, value in lowered.values.items() if name in known}
    matcher = Matcher(construct(values, subject.peft, lowered.source))
    return [
        name
        for name, node in tree.named_modules()
        if name and node.kind in ADAPTABLE and matcher(name) is True
    ]


def _renamed_entries(
    subject: RecipeSubject, renamed: dict[str, str], lost: list[str]
) -> Iterator[Finding]:
    """List entries that PEFT takes for experts although other modules bear the name."""
    entries = written_targets(subject)
    if not lost or entries is None:
        return
    by_entry = {
        index: hits
        for index, entry in enumerate(entries)
        if isinstance(entry, str)
        and entry.rpartition(".")[2] in renamed
        and (hits := [name for name in lost if subject.targets([entry]).has(name)])
    }
    for precise in (True, False):
        indexes = [i for i in by_entry if ("." in entries[i]) == precise]
        if not indexes:
            continue
        named = _listed(entries[i] for i in indexes)
        hits = list(dict.fromkeys(name for i in indexes for name in by_entry[i]))
        yield Finding(
            f"peft {subject.peft} takes {named} for the experts of {subject.model_name} and "
            f"adapts those; {_some(subject, hits)} get no adapter",
            field="target_modules",
            item=indexes[0],
            severity="error" if precise else "warning",
            label="with transformers 5 these names are rewritten to the experts' parameters, "
            "wherever they stand",
            help=_as_parameters(subject, entries, indexes),
            notes=tuple(Note("", "target_modules", i) for i in indexes[1:]),
            wishes=_weights(subject, entries, indexes) if precise else (),
        )


def _as_parameters(subject: RecipeSubject, entries: list[Any], indexes: list[int]) -> str | None:
    if "target_parameters" not in known_fields(subject.peft):
        return None
    entry = entries[indexes[0]] if "." in entries[indexes[0]] else None
    if entry is None:
        return (
            "target_parameters reaches such a layer by its weight (`shared_experts.up_proj.weight`)"
        )
    return f"target_parameters reaches such a layer by its weight: `{entry}.weight`"


def _weights(subject: RecipeSubject, entries: list[Any], indexes: list[int]) -> tuple[Wish, ...]:
    if given(subject, "target_parameters"):
        return ()
    weights = [f"{entries[i]}.weight" for i in indexes]
    left = [entry for i, entry in enumerate(entries) if i not in indexes]
    changes: list[Change] = [Set("target_parameters", weights), Set("target_modules", left)]
    title = f"target_parameters: {quoted(weights)}"
    if subject.kwargs.get("lora_dropout") not in (None, 0, UNKNOWN):
        changes.append(Set("lora_dropout", 0.0))
        title += ", lora_dropout: 0.0"
    return (Wish(title, tuple(changes)),)


def _some(subject: RecipeSubject, names: list[str]) -> str:
    """Modules for a message: how many, and the first."""
    if not subject.counts_known:
        return f"modules such as `{names[0]}`"
    return f"`{names[0]}`" + (f" and {len(names) - 1} more modules" if len(names) > 1 else "")


@check("TM130")
def default_targets_lost(subject: RecipeSubject) -> Iterator[Finding]:
    """PEFT has a default for this mixture, and its own rewriting loses it."""
    error, tree = subject.injection.error, subject.tree
    if error is None or tree is None or error.message != messages.NOTHING_PASSED:
        return
    default = default_targets(tree.model_type, subject.peft)
    tables = expert_tables(tree.model_type, subject.peft, subject.transformers)
    if subject.value("target_modules") is not None or not isinstance(default, list):
        return
    if tables is None or given(subject, "target_parameters"):
        return
    result = reach(subject.inject({"target_modules": default}))
    yield Finding(
        f"target_modules is not set, and peft {subject.peft} does not reach its own default for "
        f"{tree.model_type} with transformers 5",
        field="target_modules",
        help=f'PEFT stops with "{error.message[:64]}"',
        wishes=(
            Wish(
                f"target_modules: {quoted(default)}" + (f"    {result}" if result else ""),
                (Set("target_modules", default),),
                "safe",
            ),
        ),
    )


@check("TM133")
def expert_halves_apart(subject: RecipeSubject) -> Iterator[Finding]:
    """One of two weights is a target that transformers 5 keeps as one."""
    error, tree, entries = subject.injection.error, subject.tree, written_targets(subject)
    if error is None or tree is None or not error.message.startswith("Cannot convert PEFT target"):
        return
    tables = expert_tables(tree.model_type, subject.peft, subject.transformers)
    value = entries if entries is not None else subject.value("target_modules")
    if tables is None or not value:
        return
    for fused, halves in tables[1].items():
        written = [
            next((e for e in entries or () if str(e).rpartition(".")[2] == half), None)
            for half in halves
        ]
        missing = [half for half, entry in zip(halves, written, strict=True) if entry is None]
        there = [entry for entry in written if entry is not None]
        if entries is None or not missing or not there:
            missing, there = [], []
        wanted = [*(entries or ()), *missing]
        result = reach(subject.inject({"target_modules": wanted})) if missing else None
        yield Finding(
            f"{_listed(there)} cannot be adapted without {_listed(missing)} with transformers 5"
            if missing
            else f"the two halves of `{fused}` cannot be adapted apart with transformers 5",
            field="target_modules",
            item=entries.index(there[0]) if entries and there else None,
            label=f"in {subject.model_name} they are one parameter, `{fused}`",
            help=f'PEFT stops with "{error.message[:120]}"',
            wishes=(
                Wish(
                    f"target_modules: {quoted(wanted)}" + (f"    {result}" if result else ""),
                    (Set("target_modules", wanted),),
                ),
            )
            if missing
            else (),
        )
