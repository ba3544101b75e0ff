"""TM: names that another transformers release gives to the modules of the same model."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.checks import mixtures, names
from lora_lint.checks.registry import check
from lora_lint.checks.target_modules import is_all_linear, reach, written_targets
from lora_lint.diagnostics import DropItem, Finding, Set, SetItem, Wish
from lora_lint.facts import version_key
from lora_lint.injection.matching import EntrySet
from lora_lint.injection.patterns import pattern_problem
from lora_lint.models import lines
from lora_lint.models.module_tree import ADAPTABLE
from lora_lint.models.renamed import renames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.diagnostics import Change, Severity
    from lora_lint.models import ModuleTree

# A part of the modules that a name reached and still reaches, above which nothing is said where it
# is not known what became of the rest.
_FEW: Final = 0.5


class There(NamedTuple):
    """The same model in another transformers release."""

    release: str
    tree: ModuleTree


def elsewhere(subject: RecipeSubject) -> Iterator[There]:
    """The same model in the releases that a config may have been written for instead, where names
    are others than in the user's: of each naming the newest release, the newest first.
    """
    tree, own = subject.tree, subject.transformers
    if tree is None or (stored := lines.of_model_type(tree.model_type)) is None:
        return
    seen = {stored.number(tree.cls, lines.line_of(own))}
    for release in reversed(lines.measured()):
        number = stored.number(tree.cls, lines.line_of(release))
        first, last = sorted((release, own), key=version_key)
        if number in seen or renames(tree.model_type, tree.cls, first, last) is None:
            continue
        seen.add(number)
        other = subject.at(subject.line._replace(transformers=release)).tree
        if other is not None and other.cls == tree.cls:
            yield There(release, other)


def comparable(tree: ModuleTree, other: ModuleTree) -> bool:
    """Whether the numbers of modules in two trees are those of one config."""
    return bool(tree.facts.get("template")) == bool(other.facts.get("template"))


def _became(subject: RecipeSubject, there: There, leaf: str) -> tuple[str, ...]:
    """What a name of another release is called here; empty where that is not known."""
    tree, own = subject.tree, subject.transformers
    assert tree is not None  # noqa: S101 - there is another
    if version_key(there.release) < version_key(own):
        change = renames(tree.model_type, tree.cls, there.release, own)
        found = change.became.get(leaf, ()) if change else ()
    else:
        change = renames(tree.model_type, tree.cls, own, there.release)
        pairs = change.became.items() if change else ()
        found = tuple(old for old, new in pairs if leaf in new and old != leaf)
    return tuple(name for name in found if name in _parts(tree))


@lru_cache(maxsize=4)
def _parts(tree: ModuleTree) -> frozenset[str]:
    """The last parts of all names."""
    return frozenset(name.rpartition(".")[2] for name, _ in tree.named_modules())


def _may_be_dead(subject: RecipeSubject, field: str, entry: object) -> bool:
    """Whether an entry, or a pattern, may match nothing: a look that costs no walk."""
    return subject.injection.error is not None or entry in subject.injection.unmatched[field]


def _hits(tree: ModuleTree, has: Callable[[str], bool], *, all_kinds: bool = False) -> list[str]:
    return [
        name
        for name, node in tree.named_modules()
        if name and (all_kinds or node.kind in ADAPTABLE) and has(name)
    ]


def _leaves(hits: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[2] for name in hits))


def _severity(subject: RecipeSubject, there: There, worst: Severity = "error") -> Severity:
    """An info where the names are right for the newest release, and it is not known that the run
    has an older one.
    """
    assumed = subject.context.environment.transformers is None
    newer = version_key(there.release) > version_key(subject.transformers)
    return "info" if assumed and newer else worst


def _in_words(there: There, subject: RecipeSubject) -> str:
    return f"of transformers {there.release}, not of {subject.transformers}"


# A name of its own -------------------------------------------------------------------------------


@check("TM128")
def target_renamed(subject: RecipeSubject) -> Iterator[Finding]:
    """A target has another name in the user's transformers release."""
    value, tree = subject.value("target_modules"), subject.tree
    if tree is None or subject.recipe["target_modules"].origin == "computed":
        return
    if isinstance(value, str) and not is_all_linear(value) and not pattern_problem(value):
        yield from _renamed_in_pattern(subject, value)
    entries = written_targets(subject) or []
    experts = mixtures.stacked_experts(tree)
    for index, entry in enumerate(entries):
        named = subject.targets([entry])
        if not isinstance(entry, str) or not _may_be_dead(subject, "target_modules", entry):
            continue
        if _hits(tree, named.has, all_kinds=True):
            continue
        if mixtures.is_expert_name(entry, experts):
            continue  # TM111
        for there in elsewhere(subject):
            hits = _hits(there.tree, named.has)
            leaf = entry.rpartition(".")[2]
            new = _became(subject, there, leaf) if hits else ()
            if new and leaf not in names.leaves(tree):
                yield _renamed(subject, there, entries, index, new)
                break


def _renamed(
    subject: RecipeSubject, there: There, entries: list[Any], index: int, new: tuple[str, ...]
) -> Finding:
    entry = entries[index]
    rest = [*entries[:index], *(n for n in new if n not in entries), *entries[index + 1 :]]
    now = subject.injection
    effect = (
        'PEFT stops with "Target modules ... not found in the base model."'
        if now.error is not None
        else "PEFT ignores the entry without a warning"
    )
    then = None if now.error is not None else reach(subject.inject({"target_modules": rest}))
    change: Change = (
        SetItem("target_modules", index, new[0])
        if len(new) == 1 and new[0] not in entries
        else Set("target_modules", rest)
    )
    return Finding(
        f"`{entry}` is a name {_in_words(there, subject)}: {subject.model_name} calls it "
        f"{_listed(new)}",
        field="target_modules",
        item=index,
        severity=_severity(subject, there),
        help=effect,
        wishes=(
            Wish(
                f"replace `{entry}` by {_listed(new)}" + (f"    {then}" if then else ""), (change,)
            ),
        ),
    )


def _renamed_in_pattern(subject: RecipeSubject, pattern: str) -> Iterator[Finding]:
    tree = subject.tree
    assert tree is not None  # noqa: S101
    named = EntrySet(pattern)
    if not _may_be_dead(subject, "target_modules", pattern) or _hits(
        tree, named.has, all_kinds=True
    ):
        return
    for there in elsewhere(subject):
        hits = _hits(there.tree, named.has)
        gone = [leaf for leaf in _leaves(hits) if leaf not in names.leaves(tree)]
        if not hits or len(gone) < len(_leaves(hits)):
            continue  # TM131
        new = {leaf: _became(subject, there, leaf) for leaf in gone}
        yield Finding(
            f"the names in this pattern are {_in_words(there, subject)}: it matches nothing in "
            f"{subject.model_name}",
            field="target_modules",
            severity=_severity(subject, there),
            label=", ".join(f"`{old}` is {_listed(to)}" for old, to in new.items() if to) or None,
            help='PEFT stops with "Target modules ... not found in the base model."',
            wishes=tuple(_other_pattern(subject, _with_names(pattern, new), len(hits))),
        )
        return


def _with_names(pattern: str, new: dict[str, tuple[str, ...]]) -> str:
    """A pattern with other names in it."""
    for old, to in new.items():
        other = to[0] if len(to) == 1 else f"({'|'.join(to)})"
        if to:
            pattern = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", other, pattern)
    return pattern


def _other_pattern(subject: RecipeSubject, pattern: str, count: int) -> Iterator[Wish]:
    """The wish that target_modules be another pattern, if that reaches as much as before."""
    if pattern_problem(pattern) or pattern == subject.value("target_modules"):
        return
    then = subject.inject({"target_modules": pattern})
    if then.error is None and len(then.modules) == count:
        result = reach(then)
        title = f"target_modules: {pattern}" + (f"    {result}" if result else "")
        yield Wish(title, (Set("target_modules", pattern),))


def _listed(entries: Iterable[str]) -> str:
    return ", ".join(f"`{entry}`" for entry in entries)


@check("TM129")
def saved_module_renamed(subject: RecipeSubject) -> Iterator[Finding]:
    """A module to save has another name in the user's transformers release."""
    entries, tree = subject.value("modules_to_save"), subject.tree
    if not isinstance(entries, list) or subject.injection.error or tree is None:
        return
    for index, entry in enumerate(entries):
        if entry not in subject.injection.unmatched["modules_to_save"]:
            continue
        if not isinstance(entry, str):
            continue
        for there in elsewhere(subject):
            if not any(name.endswith(entry) for name, _ in there.tree.named_modules()):
                continue
            new = _became(subject, there, entry.rpartition(".")[2])
            if not new:
                continue
            change: Change = SetItem("modules_to_save", index, new[0])
            if new[0] in entries:
                change = DropItem("modules_to_save", index)
            yield Finding(
                f"modules_to_save `{entry}` is a name {_in_words(there, subject)}: "
                f"{subject.model_name} calls it {_listed(new)}",
                field="modules_to_save",
                item=index,
                severity=_severity(subject, there),
                help="PEFT says nothing and trains nothing there",
                wishes=(Wish(f"replace `{entry}` by `{new[0]}`", (change,)),)
                if len(new) == 1
                else (),
            )
            break


# A name in another place -------------------------------------------------------------------------


@check("TM131")
def target_path_moved(subject: RecipeSubject) -> Iterator[Finding]:
    """A path in the config leads to its modules in another transformers release only."""
    tree = subject.tree
    if tree is None:
        return
    for field in ("target_modules", "exclude_modules"):
        if subject.recipe[field].origin == "computed":
            continue
        value = subject.value(field)
        if isinstance(value, str) and not is_all_linear(value) and not pattern_problem(value):
            if _may_be_dead(subject, field, value):
                yield from _moved(subject, field, None, EntrySet(value).has)
            continue
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            if isinstance(entry, str) and "." in entry and _may_be_dead(subject, field, entry):
                named = subject.targets([entry]) if field == "target_modules" else EntrySet([entry])
                yield from _moved(subject, field, index, named.has)
    yield from _moved_layers(subject)


def _moved(
    subject: RecipeSubject, field: str, index: int | None, has: Callable[[str], bool]
) -> Iterator[Finding]:
    tree = subject.tree
    assert tree is not None  # noqa: S101
    if _hits(tree, has, all_kinds=True):
        return
    for there in elsewhere(subject):
        hits = _hits(there.tree, has)
        kept = [leaf for leaf in _leaves(hits) if leaf in names.leaves(tree)]
        if not hits or not kept:
            continue
        excluded = field == "exclude_modules"
        moves = _moves(hits, [name for name, _ in tree.named_modules()])
        old, new = next(iter(moves)) if len(moves) == 1 else ("", "")
        said = f": what was under `{old}` is under `{new}`" if old and new else ""
        what = f"{field} names" if excluded else "this names"
        yield Finding(
            f"{what} a path {_in_words(there, subject)}; in {subject.model_name} it leads "
            f"nowhere{said}",
            field=field,
            item=index,
            severity=_severity(subject, there, "warning" if excluded else "error"),
            label=f"there it led to `{hits[0]}`",
            help=_effect(subject, field),
            wishes=tuple(_with_path(subject, field, index, (old, new), len(hits))),
        )
        return


def _effect(subject: RecipeSubject, field: str) -> str:
    if field == "exclude_modules":
        return "nothing is excluded, and PEFT warns of that at most"
    if subject.injection.error is not None:
        return 'PEFT stops with "Target modules ... not found in the base model."'
    return "PEFT ignores the entry without a warning"


def _moves(hits: list[str], names_here: list[str]) -> set[tuple[str, str]]:
    """The beginnings that differ between names of another release and those of the same here."""
    by_end: dict[str, list[str]] = {}
    for name in names_here:
        by_end.setdefault(".".join(name.split(".")[-2:]), []).append(name)
    found = set()
    for hit in hits[:50]:
        parts = hit.split(".")
        ends = by_end.get(".".join(parts[-2:]), [""])
        same = max(ends, key=partial(_likeness, parts))
        length = _common_end(parts, same.split("."))
        found.add((".".join(parts[: len(parts) - length]), ".".join(same.split(".")[:-length])))
    return found


def _likeness(parts: list[str], name: str) -> tuple[int, int]:
    """How much a name is like another: the end they share, then the parts."""
    other = name.split(".")
    return _common_end(parts, other), len({*parts} & {*other})


def _common_end(one: list[str], other: list[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _with_path(
    subject: RecipeSubject, field: str, index: int | None, move: tuple[str, str], count: int
) -> Iterator[Wish]:
    """The wish that a path begin otherwise, if it then leads to as many modules."""
    value, tree = subject.value(field), subject.tree
    written = value[index] if isinstance(value, list) and index is not None else value
    assert tree is not None  # noqa: S101
    for old, new in _shorter(*move):
        if not isinstance(written, str):
            return
        other = written.replace(old.replace(".", r"\."), new.replace(".", r"\."))
        if other == written:
            other = written.replace(old, new)
        if other == written or (index is None and pattern_problem(other)):
            continue
        hits = _hits(tree, EntrySet(other if index is None else [other]).has)
        if not hits or (subject.counts_known and len(hits) != count):
            continue
        change: Change = Set(field, other) if index is None else SetItem(field, index, other)
        yield Wish(f"replace `{written}` by `{other}`", (change,))
        return


def _shorter(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Two beginnings of names, then these without what both begin with, part by part."""
    before, after = old.split("."), new.split(".")
    while before != [""] and before:
        yield (".".join(before), ".".join(after)) if after else (".".join([*before, ""]), "")
        if before[0] != (after or [""])[0]:
            return
        before, after = before[1:], after[1:]


def _moved_layers(subject: RecipeSubject) -> Iterator[Finding]:
    """A layers_pattern that finds the layers' numbers in another release only."""
    if subject.value("layers_pattern") in (None, [], "") or subject.injection.error is None:
        return
    if not subject.injection.error.message.startswith(("Target modules", "No modules")):
        return
    for there in elsewhere(subject):
        other = subject.at(subject.line._replace(transformers=there.release)).injection
        if other.error is None and other.modules:
            yield Finding(
                f"layers_pattern is one {_in_words(there, subject)}: no layer of "
                f"{subject.model_name} is found by it",
                field="layers_pattern",
                severity=_severity(subject, there),
                label=f"there it led to `{other.modules[0]}`",
                help="PEFT stops: nothing is left",
            )
            return


# A part of what it was ---------------------------------------------------------------------------


def _outside_experts(tree: ModuleTree, has: Callable[[str], bool]) -> list[str]:
    return [name for name in _hits(tree, has) if ".experts." not in name]


@check("TM132")
def target_reaches_less(subject: RecipeSubject) -> Iterator[Finding]:
    """A name still matches, but only a part of what it did in another transformers release."""
    entries, tree, injection = written_targets(subject), subject.tree, subject.injection
    if not entries or tree is None or injection.error or not subject.names_changed:
        return
    places = [there for there in elsewhere(subject) if comparable(tree, there.tree)]
    for index, entry in enumerate(entries if places else ()):
        if not isinstance(entry, str):
            continue
        named = subject.targets([entry])
        now = _outside_experts(tree, named.has)
        if not now or not any(named.has(name) for name in injection.modules):
            continue
        for there in places:
            then = _outside_experts(there.tree, named.has)
            leaf = entry.rpartition(".")[2]
            new = tuple(name for name in _became(subject, there, leaf) if name != leaf)
            missing = tuple(name for name in new if name not in entries)
            if len(now) >= len(then) or (new and not missing):
                continue
            if not new and len(now) > _FEW * len(then):
                continue
            counts = f": {len(now)} modules, {len(then)} there" if subject.counts_known else ""
            yield Finding(
                f"`{entry}` reaches less of {subject.model_name} than with transformers "
                f"{there.release}{counts}",
                field="target_modules",
                item=index,
                severity=_severity(subject, there, "warning"),
                label=f"the rest is called {_listed(new)}" if new else None,
                help=f"still under this name: `{now[0]}`",
                wishes=(
                    Wish(
                        f"add {_listed(missing)}",
                        (Set("target_modules", [*entries, *missing]),),
                    ),
                )
                if missing
                else (),
            )
            break
