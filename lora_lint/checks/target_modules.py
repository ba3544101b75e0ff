"""TM: which modules and parameters a config reaches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.checks import names
from lora_lint.checks.registry import check
from lora_lint.diagnostics import DropItem, Finding, Note, Set, SetItem, Wish
from lora_lint.dialects.base import LoraKwargs
from lora_lint.facts import ALL_LINEAR, default_targets
from lora_lint.injection.matching import EntrySet, layer_index
from lora_lint.injection.patterns import pattern_problem
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.injection import Injection
    from lora_lint.models import ModuleNode, ModuleTree

# Characters that no module name holds but regular expressions are made of.
_REGEX_SIGNS: Final = re.compile(r"[*+?()\[\]{}|^$\\]")


def written_targets(subject: RecipeSubject) -> list[Any] | None:
    """The entries of target_modules as they are written, None unless they are a static list."""
    value = subject.value("target_modules")
    return value if isinstance(value, list) else None


def looks_like_regex(entry: object) -> bool:
    """Whether a list entry can only have been meant as a regular expression."""
    return isinstance(entry, str) and _REGEX_SIGNS.search(entry) is not None


def is_all_linear(value: object) -> bool:
    """Whether a value is PEFT's shorthand, in any case of letters."""
    return isinstance(value, str) and value.lower() == ALL_LINEAR


def reach(injection: Injection) -> str | None:
    """What an injection trains, in short; None where PEFT refuses it, or that is not known."""
    if injection.error or injection.trainable is None or not injection.total:
        return None
    share = 100 * injection.trainable / injection.total
    return f"{injection.trainable:,} trainable ({share:.2g} %)"


def quoted(entries: list[Any]) -> str:
    """Entries for a message."""
    return "[" + ", ".join(str(entry) for entry in entries) + "]"


def _failed(subject: RecipeSubject, start: str) -> bool:
    error = subject.injection.error
    return (
        error is not None
        and error.type == subject.behaviour.no_match_error
        and error.message.startswith(start)
    )


@check("TM101")
def target_modules_not_found(subject: RecipeSubject) -> Iterator[Finding]:
    """No entry exists in the model; PEFT raises."""
    entries = written_targets(subject)
    if not entries or not _failed(subject, "Target modules"):
        return
    tree = subject.tree
    assert tree is not None  # noqa: S101 - there is an injection
    replacement = list(
        dict.fromkeys(n for e in entries if (n := names.suggestion(str(e), tree)) is not None)
    )
    default = default_targets(tree.model_type, subject.peft)
    if not replacement:
        replacement = list(default) if isinstance(default, list) else []
    value: Any = replacement or ALL_LINEAR
    result = reach(subject.inject({"target_modules": value}))
    yield Finding(
        f"none of {quoted(entries)} exist in {subject.model_name}",
        field="target_modules",
        item=0,
        whole=True,
        label=_explain(entries, subject),
        help=f'PEFT stops with "Target modules {set_text(entries)} not found in the base model."',
        notes=tuple(Note("", "target_modules", i) for i in range(1, len(entries))),
        wishes=(
            Wish(
                f"target_modules: {quoted(value) if isinstance(value, list) else value}"
                + (f"    {result}" if result else ""),
                (Set("target_modules", value),),
            ),
        )
        if result
        else (),
    )


def set_text(entries: list[Any]) -> str:
    """Entries as PEFT prints them."""
    return "{" + ", ".join(repr(entry) for entry in entries) + "}"


def _explain(entries: list[Any], subject: RecipeSubject) -> str | None:
    tree = subject.tree
    assert tree is not None  # noqa: S101
    said = []
    if names.LLAMA_NAMES.issuperset(entries):
        said.append("those are Llama's names")
    fused = names.fused_attention(tree)
    wanted = {role for entry in entries for role in names.roles_of(str(entry))}
    if fused and wanted & {"query", "key", "value"}:
        said.append(f"{tree.model_type} fuses q, k and v into `{fused}`")
    elif not said:
        count = names.leaves(tree)
        common = sorted(count, key=lambda name: -count[name])[:4]
        said.append("its layers are called " + ", ".join(f"`{name}`" for name in common))
    return "; ".join(said)


@check("TM102")
def target_module_not_found(subject: RecipeSubject) -> Iterator[Finding]:
    """Some entries match nothing; PEFT ignores them in silence."""
    entries = written_targets(subject)
    injection, tree = subject.injection, subject.tree
    if not entries or injection.error or tree is None:
        return
    unmatched = {*injection.unmatched["target_modules"]}
    if isinstance(subject.lowered, LoraKwargs):
        unmatched |= {*subject.lowered.unused}
    offered: set[str] = set()
    for index, entry in enumerate(entries):
        if entry not in unmatched or _exists(subject, entry, tree):
            continue
        wanted = names.suggestion(str(entry), tree)
        if wanted is not None and wanted not in entries and wanted not in offered:
            offered.add(wanted)  # q_proj, k_proj and v_proj may all be one qkv_proj
            changed = [wanted if e == entry else e for e in entries]
            wish = Wish(
                f"replace `{entry}` by `{wanted}`", (SetItem("target_modules", index, wanted),)
            )
        else:
            changed = [e for e in entries if e != entry]
            wish = Wish(f"drop `{entry}`", (DropItem("target_modules", index),))
        yield Finding(
            f"`{entry}` matches no module of {subject.model_name}; PEFT ignores it without a "
            "warning",
            field="target_modules",
            item=index,
            label=f"did you mean `{wanted}`?" if wanted and wanted not in entries else None,
            help=_what_is_lost(subject, changed),
            wishes=(wish,),
        )


def _exists(subject: RecipeSubject, entry: object, tree: ModuleTree) -> bool:
    """Whether an entry names modules all the same, which something else keeps from LoRA."""
    named = subject.targets([entry])
    return any(named.has(name) for name, _ in tree.named_modules())


def _what_is_lost(subject: RecipeSubject, changed: list[Any]) -> str | None:
    now, then = subject.injection, subject.inject({"target_modules": changed})
    if then.error or then.undecided or then.trainable == now.trainable or now.trainable is None:
        return None
    return (
        f"as written {len(now.modules)} modules are adapted, {now.trainable:,} trainable; "
        f"with the fix {len(then.modules)}, {then.trainable:,} trainable"
    )


@check("TM103")
def string_target_is_regex(subject: RecipeSubject) -> Iterator[Finding]:
    """A string is a regular expression for the whole name; this one matches nothing."""
    value = subject.value("target_modules")
    if not isinstance(value, str) or is_all_linear(value) or not _failed(subject, "Target modules"):
        return
    if subject.recipe["target_modules"].origin == "computed":
        return  # TM107
    parts = [part.strip(" '\"[]()") for part in re.split(r"[,|]", value)]
    tree = subject.tree
    known = names.leaves(tree) if tree else {}
    meant = [part for part in parts if part in known]
    wishes: tuple[Wish, ...] = ()
    if meant and len(meant) == len(parts):
        result = reach(subject.inject({"target_modules": meant}))
        title = f"target_modules: {quoted(meant)}" + (f"    {result}" if result else "")
        wishes = (Wish(title, (Set("target_modules", meant),), "safe"),)
    yield Finding(
        f"a string target_modules is a regular expression for the whole module name; {value!r} "
        f"matches nothing in {subject.model_name}",
        field="target_modules",
        label="write a list of names",
        help='PEFT stops with "Target modules ... not found in the base model."',
        wishes=wishes,
    )


@check("TM104")
def regex_inside_list(subject: RecipeSubject) -> Iterator[Finding]:
    """Entries of a list are compared as suffixes, never as regular expressions."""
    entries = written_targets(subject)
    if not entries or not any(map(looks_like_regex, entries)):
        return
    if subject.behaviour.list_entries == "regex":
        return  # the one release in which entries were regular expressions
    for index, entry in enumerate(entries):
        if not looks_like_regex(entry):
            continue
        yield Finding(
            "entries of a list are compared as names, not as regular expressions: "
            f"{entry!r} matches nothing",
            field="target_modules",
            item=index,
            label="a regular expression must be the whole value, as a string",
            wishes=_as_one_pattern(subject, entries),
        )


def _as_one_pattern(subject: RecipeSubject, entries: list[Any]) -> tuple[Wish, ...]:
    patterns = [e if looks_like_regex(e) else rf".*\.{re.escape(str(e))}" for e in entries]
    pattern = patterns[0] if len(patterns) == 1 else "(" + "|".join(patterns) + ")"
    result = subject.inject({"target_modules": pattern, "layers_to_transform": None})
    if result.error or (result.undecided and not result.modules):
        return ()
    gained = reach(result)
    title = f"target_modules: {pattern}" + (f"    {gained}" if gained else "")
    return (Wish(title, (Set("target_modules", pattern),)),)


@check("TM106")
def all_linear_inside_list(subject: RecipeSubject) -> Iterator[Finding]:
    """``all-linear`` is a shorthand only as a string of its own."""
    entries = written_targets(subject)
    for index, entry in enumerate(entries or ()):
        if not is_all_linear(entry):
            continue
        assert entries is not None  # noqa: S101
        others = [other for other in entries if other is not entry]
        if others:
            effect = f"only {quoted(others)} can match"
        else:
            effect = "no module is called so, and PEFT stops"
        yield Finding(
            f"`all-linear` only works as a bare string; in a list it is a module's name: {effect}",
            field="target_modules",
            item=index,
            label="in a list this is a name like any other",
            wishes=(
                Wish(
                    "target_modules: all-linear",
                    (Set("target_modules", ALL_LINEAR),),
                    "unsafe" if others else "safe",
                ),
            ),
        )


@check("TM105")
def invalid_regex(subject: RecipeSubject) -> Iterator[Finding]:
    """A pattern is not a valid regular expression."""
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = subject.value(name)
        patterns = [value] if isinstance(value, str) else []
        if name == "layers_pattern" and isinstance(value, list):
            patterns = [entry for entry in value if isinstance(entry, str)]
        for pattern in patterns:
            if (problem := pattern_problem(pattern)) and not is_all_linear(pattern):
                yield Finding(f"invalid regular expression in {name}: {problem}", field=name)
    for name in ("rank_pattern", "alpha_pattern"):
        keys = subject.value(name)
        for key in keys if isinstance(keys, dict) else ():
            if isinstance(key, str) and (problem := pattern_problem(rf"(.*\.)?({key})$")):
                yield Finding(
                    f"invalid regular expression in {name}: {problem}", field=name, key=key
                )


@check("TM107")
def trl_single_target_becomes_regex(subject: RecipeSubject) -> Iterator[Finding]:
    """TRL takes the only entry of a list out of it, and PEFT then reads it as a pattern."""
    value = subject.value("target_modules")
    computed = subject.recipe["target_modules"].origin == "computed"
    unwrapped = computed and subject.recipe.dialect == "trl"
    if not unwrapped or not isinstance(value, str) or not _failed(subject, "Target modules"):
        return
    pattern = rf".*\.{re.escape(value)}"
    result = reach(subject.inject({"target_modules": pattern}))
    title = f"lora_target_modules: [{pattern}]" + (f"    {result}" if result else "")
    yield Finding(
        f"TRL turns a list of one entry into a string; {value!r} is then a regular expression that "
        f"matches nothing in {subject.model_name}",
        field="target_modules",
        label="one entry is a pattern, two are names",
        help='PEFT stops with "Target modules ... not found in the base model."',
        wishes=(Wish(title, (Set("target_modules", [pattern]),), "safe"),) if result else (),
    )


@check("TM108")
def unsupported_target_type(subject: RecipeSubject) -> Iterator[Finding]:
    """A target is a module that LoRA can't wrap."""
    error, tree = subject.injection.error, subject.tree
    if error is None or tree is None or not error.message.startswith("Target module "):
        return
    targets = subject.targets(subject.kwargs.get("target_modules"))
    excluded = EntrySet(subject.kwargs.get("exclude_modules"))
    for name, node in tree.named_modules():
        if (
            node.kind in subject.behaviour.kinds
            or not name
            or not targets.has(name)
            or excluded.has(name)
        ):
            continue
        entries = written_targets(subject) or []
        hit = next(iter(targets.hits(name)), None)
        yield Finding(
            f"`{name}` is a {node.cls}, which LoRA cannot wrap",
            field="target_modules",
            item=entries.index(hit) if hit in entries else None,
            label=_what_it_holds(subject, node),
            help=f'PEFT stops with "Target module {node.cls}(...) is not supported."',
        )
        return


def _what_it_holds(subject: RecipeSubject, node: ModuleNode) -> str | None:
    inside = [
        name for name, child in node.children.items() if child.kind in subject.behaviour.kinds
    ]
    return "it holds " + ", ".join(f"`{name}`" for name in inside[:4]) if inside else None


@check("TM112")
def moe_experts_with_dropout(subject: RecipeSubject) -> Iterator[Finding]:
    """Experts are adapted with a dropout, which their wrapper refuses."""
    error = subject.injection.error
    if error is None or "ParamWrapper does not work with lora_dropout" not in error.message:
        return
    yield Finding(
        "lora_dropout must be 0 when experts are adapted",
        field="lora_dropout",
        label=f'PEFT stops with "{error.message}"',
        help=f"the experts of {subject.model_name} are stacked parameters",
        notes=(Note("these reach the experts", "target_modules"),)
        if subject.recipe.written("target_modules")
        else (),
        wishes=(Wish("lora_dropout: 0.0", (Set("lora_dropout", 0.0),), "safe"),),
    )


@check("TM113")
def target_parameter_not_found(subject: RecipeSubject) -> Iterator[Finding]:
    """An entry of target_parameters matches no parameter."""
    entries = subject.value("target_parameters")
    injection, tree = subject.injection, subject.tree
    if not isinstance(entries, list) or tree is None:
        return
    nothing = _failed(subject, "No `target_modules` passed")
    for index, entry in enumerate(entries):
        if not nothing and entry not in injection.unmatched["target_parameters"]:
            continue
        known = _parameter_names(tree)
        near = names.nearest(str(entry), known, cutoff=0.6)
        wishes = (
            (
                Wish(
                    f"replace `{entry}` by `{near}`",
                    (SetItem("target_parameters", index, near),),
                ),
            )
            if near
            else ()
        )
        yield Finding(
            f"`{entry}` matches no parameter of {subject.model_name}",
            field="target_parameters",
            item=index,
            label=f"did you mean `{near}`?" if near else None,
            help=None if nothing else "PEFT only warns and trains the rest",
            wishes=wishes,
        )


def _parameter_names(tree: ModuleTree) -> list[str]:
    """The last two steps of the names of parameters that can be adapted."""
    found = {
        f"{name.rpartition('.')[2]}.{parameter}"
        for name, node in tree.named_modules()
        for parameter, shape in node.parameters.items()
        if name and len(shape) in (2, 3) and node.kind == "other"
    }
    return sorted(found)


@check("TM116")
def layer_index_out_of_range(subject: RecipeSubject) -> Iterator[Finding]:
    """Layers are asked for that the model does not have."""
    indexes = subject.value("layers_to_transform")
    listed = indexes if isinstance(indexes, list) else [indexes]
    numbers = [i for i in listed if isinstance(i, int) and not isinstance(i, bool)]
    if not numbers or subject.injection.undecided:
        return
    everything = subject.inject({"layers_to_transform": None, "layers_pattern": None})
    if everything.error or everything.undecided:
        return
    pattern = subject.value("layers_pattern")
    there = {layer_index(name, pattern, subject.behaviour) for name in everything.modules} - {None}
    missing = [i for i in numbers if i not in there]
    if not there or not missing:
        return
    count = max(i for i in there if i is not None) + 1
    silent = subject.injection.error is None
    yield Finding(
        f"layers_to_transform {missing if len(missing) > 1 else missing[0]} "
        f"{'do' if len(missing) > 1 else 'does'} not exist: {subject.model_name} has {count} "
        "layers",
        field="layers_to_transform",
        item=numbers.index(missing[0]) if isinstance(indexes, list) else None,
        label=f"layers count from 0 to {count - 1}",
        help="PEFT ignores them without a warning" if silent else "PEFT stops: nothing is left",
    )


@check("TM117")
def layers_to_transform_with_string(subject: RecipeSubject) -> Iterator[Finding]:
    """Layers can be chosen only for a list of names."""
    targets = subject.kwargs.get("target_modules")
    if not isinstance(targets, str):
        return
    refused = subject.behaviour.strings_refuse_layers
    for name in ("layers_to_transform", "layers_pattern"):
        if subject.value(name) not in (None, UNKNOWN):
            yield Finding(
                f"{name} cannot be used when target_modules is a string"
                if refused
                else f"{name} has no effect when target_modules is a string",
                field=name,
                label="put the layers into the pattern, or list the names",
                help=f'PEFT stops with "`{name}` cannot be used when `target_modules` is a str."'
                if refused
                else f"peft {subject.peft} ignores it without a warning",
            )


@check("TM120")
def pattern_key_matches_nothing(subject: RecipeSubject) -> Iterator[Finding]:
    """A key of rank_pattern or alpha_pattern reaches no adapted module."""
    injection = subject.injection
    if injection.error or subject.tree is None:
        return
    leaves = {name.rpartition(".")[2] for name in (*injection.modules, *injection.parameters)}
    for name in ("rank_pattern", "alpha_pattern"):
        written = subject.value(name)
        for key in injection.unmatched[name]:
            if not isinstance(written, dict) or key not in written:
                continue
            near = names.nearest(str(key), leaves, cutoff=0.7)
            anchored = str(key).startswith("^")
            label = (
                "a key is matched at the end of the name; ^ asks for the whole of it"
                if subject.behaviour.pattern_keys == "anchored"
                else f"peft {subject.peft} looks behind a dot, where ^ never matches"
            )
            yield Finding(
                f"{name} key {key!r} matches no adapted module of {subject.model_name}",
                field=name,
                key=str(key),
                label=label if anchored else (f"did you mean `{near}`?" if near else None),
                help="PEFT only warns"
                if subject.behaviour.unmatched_patterns_warn
                else f"peft {subject.peft} says nothing; 0.21.0 and newer warn",
            )


@check("TM122")
def attention_only_targets(subject: RecipeSubject) -> Iterator[Finding]:
    """Only attention is adapted, in a supervised fine-tune of a language model."""
    injection, tree = subject.injection, subject.tree
    if injection.error or tree is None or not subject.recipe.trains:
        return
    if subject.recipe.objective not in (None, "sft", "pt") or not tree.facts.get("generates"):
        return
    if "ForCausalLM" not in tree.cls and not tree.cls.endswith("LMHeadModel"):
        return
    adapted = {name.rpartition(".")[2] for name in injection.modules}
    roles = {role for leaf in adapted for role in names.roles_of(leaf)}
    attention = {"query", "key", "value", "output"}
    if injection.parameters or not adapted or not (roles or adapted & set(names.FUSED)):
        return
    others = [leaf for leaf in adapted if not names.roles_of(leaf) and leaf not in names.FUSED]
    if roles - attention or others or not subject.recipe.written("target_modules"):
        return
    rest = [leaf for leaf in names.leaves(tree) if leaf not in adapted and _is_mlp(leaf)]
    if rest:
        yield Finding(
            "only attention is adapted; at the same number of parameters adapting the MLP layers "
            "too has done better",
            field="target_modules",
            label="the rest: " + ", ".join(rest),
            help="evidence: arXiv 2405.09673, 2305.14314; less true for reinforcement learning",
        )


def _is_mlp(leaf: str) -> bool:
    return bool(set(names.roles_of(leaf)) & {"gate", "up", "down"})


@check("TM124")
def no_default_targets(subject: RecipeSubject) -> Iterator[Finding]:
    """No target is given, and PEFT has none of its own for this model."""
    error, tree = subject.injection.error, subject.tree
    if (
        error is None
        or tree is None
        or subject.value("target_modules")
        or (subject.value("target_parameters"))
    ):
        return
    missing = error.message.startswith("Please specify `target_modules`")
    if not missing and not error.message.startswith("No `target_modules` passed"):
        return
    if not missing and default_targets(tree.model_type, subject.peft) is not None:
        return  # TM130
    result = reach(subject.inject({"target_modules": ALL_LINEAR}))
    yield Finding(
        f"target_modules is not set, and PEFT {subject.peft} has no default for {tree.model_type}",
        field="target_modules",
        help=f'PEFT stops with "{error.message[:80]}"',
        wishes=(
            Wish(f"target_modules: all-linear    {result}", (Set("target_modules", ALL_LINEAR),)),
        )
        if result
        else (),
    )
