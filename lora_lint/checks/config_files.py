"""CF: the file itself, its syntax, its keys and the types of its values."""

from __future__ import annotations

import ast
import math
import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.checks.names import nearest
from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Note, Remove, RenameKey, Replace, Set, Wish
from lora_lint.dialects import dialect
from lora_lint.facts import init_methods, init_word, newest_peft, peft_facts, task_types
from lora_lint.recipe import UNKNOWN, holds_unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.checks.subject import DocumentSubject, RecipeSubject
    from lora_lint.diagnostics import KeyPath
    from lora_lint.dialects import Dialect
    from lora_lint.documents.tree import Entry, Node
    from lora_lint.recipe import StrayKey

# What people call LoraConfig's fields when they write from memory.
ALIASES: Final = {
    "alpha": "lora_alpha",
    "lora_r": "r",
    "rank": "r",
    "lora_rank": "r",
    "dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "modules": "target_modules",
}
# Numbers that YAML 1.1 reads as strings, for want of a dot (1e-4) or of a sign (1.0e4).
_EXPONENT: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
# Fields and what PEFT and transformers take for them.
_INTEGERS: Final = ("r",)
_NUMBERS: Final = ("lora_alpha", "lora_dropout")
_TRAINING_NUMBERS: Final = ("learning_rate",)
_BOOLEANS: Final = (
    "fan_in_fan_out",
    "use_rslora",
    "use_dora",
    "inference_mode",
    "lora_bias",
    "use_qalora",
    "ensure_weight_tying",
)
_MAPPINGS: Final = ("rank_pattern", "alpha_pattern")
_LISTS: Final = ("target_parameters",)
_BIAS: Final = ("none", "all", "lora_only")
_WHOLE: Final = (
    "r",
    "lora_alpha",
    "max_length",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
_TEXTS: Final = ("task_type", "bias", *_INTEGERS, *_NUMBERS, *_BOOLEANS, "modules_to_save")


@check("CF001", scope="document")
def unreadable_config(subject: DocumentSubject) -> Iterator[Finding]:
    """The file does not parse."""
    problem = subject.document.problem
    if problem is not None:
        yield Finding(f"cannot parse this file: {problem.message}", span=problem.span)


@check("CF002", scope="document")
def duplicate_key(subject: DocumentSubject) -> Iterator[Finding]:
    """A key is set twice in one mapping; loaders keep the last without a word."""
    if not subject.recipes or subject.document.format not in ("yaml", "json"):
        return
    spelling = dialect(subject.recipes[0].dialect)
    refusing = spelling.title if spelling.refuses_duplicates else None
    for number, part in enumerate(subject.document.parts):
        for path, first, last in _duplicates(part.node, (), set()):
            same = first.node.plain() == last.node.plain()
            line = subject.document.location(first.key_span.start)[0]
            effect, mild = "the loader keeps the last without a word", same
            if refusing and subject.document.format == "yaml":
                effect, mild = f"{refusing} stops with a ConstructorError", False
            yield Finding(
                f"`{last.key}` is set twice: {_short(first.node)} on line {line}, "
                f"{_short(last.node)} here; {effect}",
                path=path,
                span=last.key_span,
                part=number,
                severity="warning" if mild else None,
                label=None if refusing else "this one counts",
                notes=(Note("here for the first time", span=first.key_span),),
                wishes=(Wish(f"delete line {line}", (Remove(path, 0),)),),
            )


def _duplicates(
    node: Node, path: KeyPath, seen: set[int]
) -> Iterator[tuple[KeyPath, Entry, Entry]]:
    """Pairs of entries with one key, everywhere below a node."""
    holder = id(node.items if node.kind == "sequence" else node.entries)
    if holder in seen:
        return
    seen.add(holder)
    written: dict[object, Entry] = {}
    for entry in node.entries:
        key = str(entry.key)
        if not entry.merged:
            if entry.key in written:
                yield (*path, key), written[entry.key], entry
            written.setdefault(entry.key, entry)
            yield from _duplicates(entry.node, (*path, key), seen)
    for index, item in enumerate(node.items):
        yield from _duplicates(item, (*path, index), seen)


def _short(node: Node) -> str:
    value = node.plain()
    text = "a list" if node.kind == "sequence" else "a mapping" if node.kind == "mapping" else value
    return str(text)[:30]


@check("CF003")
def scientific_notation_is_string(subject: RecipeSubject) -> Iterator[Finding]:
    """A number in a form that YAML 1.1 reads as a string."""
    if subject.document.format != "yaml" or subject.dialect.parses_numbers:
        return
    for name in (*_NUMBERS, *_TRAINING_NUMBERS):
        value = subject.value(name)
        if not isinstance(value, str) or not _EXPONENT.fullmatch(value):
            continue
        fixed = _with_dot(float(value))
        ours = name in _NUMBERS
        yield Finding(
            f"`{value}` is not a number in YAML 1.1, it is a string of {len(value)} characters",
            field=name,
            severity=None if ours else "warning",
            label=f"write {fixed}",
            help="PEFT stops with a TypeError"
            if ours
            else 'an optimizer stops at `0.0 <= "1e-4"`, unless the program converts it',
            wishes=(Wish(f"{name}: {fixed}", (Set(name, float(value)),), "safe"),),
        )


def _with_dot(value: float) -> str:
    mantissa, mark, exponent = repr(value).partition("e")
    return mantissa + ("" if "." in mantissa else ".0") + mark + exponent


@check("CF004")
def null_spelled_none(subject: RecipeSubject) -> Iterator[Finding]:
    """``None`` is a string in YAML."""
    if subject.document.format != "yaml":
        return
    for name in _TEXTS:
        if subject.value(name) != "None" or not subject.recipe.written(name):
            continue
        meant = "none" if name == "bias" else None
        shown = "none" if meant else "null"
        yield Finding(
            f'`None` is the string "None" in YAML; {name} is then that text',
            field=name,
            label=f"write {shown}",
            wishes=(Wish(f"{name}: {shown}", (Set(name, meant),), "safe"),),
        )


@check("CF005")
def yaml_bool_in_string_field(subject: RecipeSubject) -> Iterator[Finding]:
    """A word that YAML reads as true, false or null, where PEFT wants a text."""
    value = subject.value("bias")
    if not subject.recipe.written("bias") or isinstance(value, str) or value is UNKNOWN:
        return
    if isinstance(value, bool) or (value is None and subject.document.format == "yaml"):
        shown = str(value).lower() if value is not None else "empty"
        off = not value
        yield Finding(
            f"bias is {shown}, not a text" + ("; `none` is what trains no bias" if off else ""),
            field="bias",
            label="YAML reads no, off and false as a boolean"
            if subject.document.format == "yaml" and value is False
            else "PEFT wants none, all or lora_only",
            help="PEFT stops with an AttributeError",
            wishes=(Wish("bias: none", (Set("bias", "none"),), "safe"),) if off else (),
        )


@check("CF006")
def octal_or_padded_integer(subject: RecipeSubject) -> Iterator[Finding]:
    """A whole number in a form that YAML 1.1 reads as another, or as a text."""
    if subject.document.format != "yaml":
        return
    for name in _WHOLE:
        path = subject.recipe[name].path
        node = subject.document.node(subject.recipe.part, path) if path else None
        if node is None or node.style != "plain" or subject.value(name) != node.value:
            continue
        text = subject.document.text[node.span.start : node.span.end]
        if not re.fullmatch(r"0[0-9]+|[0-9]+(:[0-9]+)+", text):
            continue
        meant = int(text) if ":" not in text else None
        read = "the string " + repr(text) if isinstance(node.value, str) else node.value
        if node.value == meant:
            continue
        yield Finding(
            f"{name}: `{text}` is {read} in YAML 1.1" + (f", not {meant}" if meant else ""),
            field=name,
            label="a leading 0 means base 8" if meant is not None else "base 60",
            wishes=(Wish(f"{name}: {meant}", (Set(name, meant),), "safe"),) if meant else (),
        )


@check("CF007")
def unknown_key(subject: RecipeSubject) -> Iterator[Finding]:
    """A key that the framework does not know."""
    spelling = subject.dialect
    for stray in subject.recipe.stray:
        if stray.complete and stray.name in peft_facts()["fields"]:
            continue  # a field of another release: VR306
        if _meant(subject, stray) is not None:
            continue  # CF008
        alias = ALIASES.get(stray.name)
        near = alias if alias in stray.known else nearest(stray.name, stray.known, cutoff=0.82)
        if near is None and not (stray.complete and stray.effect != "unclear"):
            continue  # a key of the user's own, or of a release we do not know
        if stray.effect != "rejected" and subject.recipe.written(_field_of(spelling, near or "")):
            continue
        effects = {
            "rejected": f'{spelling.title} stops with "{stray.words or spelling.refusal}"',
            "ignored": _ignored(spelling),
            "unclear": "LoraConfig does not take it",
        }
        free = near is not None and not subject.recipe.written(_field_of(spelling, near))
        yield Finding(
            f"unknown key `{stray.name}`" + (f"; did you mean `{near}`?" if near else ""),
            path=stray.path,
            on_key=True,
            severity=None if stray.effect == "rejected" else "warning",
            label=effects[stray.effect],
            wishes=(
                Wish(
                    f"rename it to {near}",
                    (RenameKey(stray.path, near),),
                    "safe" if stray.effect == "rejected" else "unsafe",
                ),
            )
            if near is not None and free
            else (),
        )


# What frameworks call the same thing: other words than PEFT's and transformers' own, by field.
_WORDS: Final = {
    "r": ("r", "lora_r", "lora_rank", "rank", "dim", "network_dim", "lora_dim"),
    "lora_alpha": ("lora_alpha", "alpha", "network_alpha", "linear_alpha"),
    "lora_dropout": ("lora_dropout", "dropout", "network_dropout"),
    "target_modules": ("target_modules", "lora_target_modules", "lora_target", "lora_modules"),
    "modules_to_save": ("modules_to_save", "lora_modules_to_save", "additional_target"),
    "max_length": ("max_length", "max_seq_length", "sequence_len", "cutoff_len", "max_seq_len"),
    "per_device_train_batch_size": ("per_device_train_batch_size", "micro_batch_size"),
    "base_model": ("base_model", "model_name_or_path", "model_name", "base_model_name_or_path"),
    "learning_rate": ("learning_rate", "lr"),
    "optim": ("optim", "optimizer"),
    "packing": ("packing", "sample_packing"),
}
_FIELDS: Final = {word: name for name, words in _WORDS.items() for word in words}


def _meant(subject: RecipeSubject, stray: StrayKey) -> str | None:
    """The framework's own key for what another framework calls by a stray key's name."""
    name = _FIELDS.get(stray.name)
    slot = subject.dialect.slots.get(name) if name else None
    if slot is None or name is None or not subject.dialect.certain:
        return None
    own = str(slot.path[-1])
    beside = stray.path[:-1] == subject.recipe.path + slot.path[:-1]
    return own if beside and own != stray.name and own in stray.known else None


@check("CF008")
def wrong_dialect_key(subject: RecipeSubject) -> Iterator[Finding]:
    """A key of another framework."""
    spelling = subject.dialect
    for stray in subject.recipe.stray:
        right = _meant(subject, stray)
        if right is None or subject.recipe.written(_field_of(spelling, right)):
            continue
        node = subject.document.node(subject.recipe.part, stray.path)
        effect = (
            f'{spelling.title} stops with "{stray.words or spelling.refusal}"'
            if stray.effect == "rejected"
            else _ignored(spelling)
        )
        simple = node is not None and node.kind == "scalar"
        yield Finding(
            f"`{stray.name}` is a key of other frameworks; {spelling.title} calls it `{right}`",
            path=stray.path,
            on_key=True,
            label=effect,
            wishes=(_in_own_words(subject, stray, right),) if simple else (),
        )


def _ignored(spelling: Dialect) -> str:
    how = "only warns that it is not used" if spelling.warns else "ignores it without a word"
    return f"{spelling.title} {how}"


def _in_own_words(subject: RecipeSubject, stray: StrayKey, right: str) -> Wish:
    """The framework's own key in the place of another framework's, and what the value means there:
    an alpha is ``scale`` times the rank.
    """
    slot = subject.dialect.slots[_FIELDS[stray.name]]
    node = subject.document.node(subject.recipe.part, stray.path)
    rename = RenameKey(stray.path, right)
    value = node.value if node is not None else None
    if slot.codec.within is None or not isinstance(value, int | float):
        return Wish(f"rename it to {right}", (rename,))
    r = subject.value("r")
    if not isinstance(r, int) or r <= 0:
        return Wish(f"rename it to {right}, which is alpha / r", (rename,), "display")
    own = slot.codec.within(value, subject.recipe)
    title = f"write {right}: {own:g}, which is alpha / r"
    return Wish(title, (rename, Replace(stray.path, own)))


def _field_of(spelling: Dialect, key: str) -> str:
    """The field whose value a key of the dialect holds."""
    return next((s.field for s in spelling.slots.values() if s.path[-1] == key), key)


@check("CF009")
def wrong_type(subject: RecipeSubject) -> Iterator[Finding]:
    """A value of a type that the framework or PEFT can't use."""
    for misfit in subject.recipe.misfits:
        if not misfit.choices and not (
            isinstance(misfit.value, str) and _EXPONENT.fullmatch(misfit.value)
        ):
            yield Finding(
                f"{misfit.name} must be {_types(misfit.types)}, not {_described(misfit.value)}",
                path=misfit.path,
                label=f"{subject.dialect.title} stops",
            )
    if subject.dialect.applied_by != "PEFT":
        return
    refused = {misfit.path for misfit in subject.recipe.misfits}
    for name, wanted, fixed in _type_problems(subject):
        value = subject.value(name)
        if value == "None" or (isinstance(value, str) and _EXPONENT.fullmatch(value)):
            continue  # CF004, CF003
        if (subject.recipe[name].path or ()) in refused:
            continue
        wishes: tuple[Wish, ...] = ()
        if fixed is not None:
            wishes = (Wish(f"{name}: {fixed}", (Set(name, fixed),), "safe"),)
        yield Finding(
            f"{name} must be {wanted}, not {_described(value)}",
            field=name,
            label=_consequence(subject, name, value),
            wishes=wishes,
        )


_TYPE_WORDS: Final = {
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _types(types: Sequence[str]) -> str:
    """JSON Schema's types in words; null is understood."""
    words = [_TYPE_WORDS[kind] for kind in types if kind in _TYPE_WORDS]
    return " or ".join(words) if words else "empty"


def _described(value: Any) -> str:
    kinds = {str: "the string", bool: "the boolean", list: "the list", dict: "the mapping"}
    kind = kinds.get(type(value), "")
    shown = "null" if value is None else repr(value) if isinstance(value, str) else str(value)
    return f"{kind} {shown}".strip()


def _consequence(subject: RecipeSubject, name: str, value: Any) -> str:
    if name in _BOOLEANS and value:
        return "any text counts as true"
    if name in _NUMBERS and isinstance(value, bool):
        return f"{str(value).lower()} counts as {int(value)}"
    own = subject.dialect.checks_types and value is not None  # schemas take null
    title = subject.dialect.title if own else "PEFT"
    return f"{title} stops"


def _type_problems(subject: RecipeSubject) -> Iterator[tuple[str, str, Any]]:
    """Fields whose value has a wrong type: the field, what it should be, the lossless cast."""
    for name in (*_INTEGERS, *_NUMBERS):
        value = subject.value(name)
        if not _is_stated(subject, name) or _is_number(value, whole=name in _INTEGERS):
            continue
        wanted = "an integer" if name in _INTEGERS else "a number"
        yield name, wanted, _as_number(value, whole=name in _INTEGERS)
    for name in _BOOLEANS:
        value = subject.value(name)
        if _is_stated(subject, name) and isinstance(value, str):
            meant = {"true": True, "false": False}.get(value.lower())
            yield name, "true or false", meant
    for name in _MAPPINGS:
        value = subject.value(name)
        if _is_stated(subject, name) and not isinstance(value, dict) and value is not None:
            yield name, "a mapping", None
    for name in _LISTS:
        value = subject.value(name)
        if _is_stated(subject, name) and isinstance(value, str) and value:
            yield name, "a list", [value]


def _is_stated(subject: RecipeSubject, name: str) -> bool:
    value = subject.value(name)
    if not subject.recipe.written(name) or value is UNKNOWN or holds_unknown(value):
        return False
    return not (isinstance(value, str) and ("${" in value or "{{" in value))


def _is_number(value: Any, *, whole: bool) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)


def _as_number(value: Any, *, whole: bool) -> Any:
    """The number a value plainly stands for, None where that is not certain."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
    elif isinstance(value, float):
        number = value
    else:
        return None
    if not math.isfinite(number):
        return None
    if number == int(number) and (whole or "." not in str(value)):
        return int(number)
    return None if whole else number


@check("CF010")
def stringified_list(subject: RecipeSubject) -> Iterator[Finding]:
    """A list in quotes, which is a string."""
    for name in ("target_modules", "exclude_modules"):
        value = subject.value(name)
        if not isinstance(value, str) or value.strip()[:1] not in ("[", "("):
            continue
        try:
            entries = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        entries = list(entries) if isinstance(entries, list | tuple) else []
        if entries and all(isinstance(entry, str) for entry in entries):
            shown = "[" + ", ".join(entries) + "]"
            yield Finding(
                f"{name} is a string that looks like a list; PEFT takes it for one pattern",
                field=name,
                label="without the quotes it is a list",
                wishes=(Wish(f"{name}: {shown}", (Set(name, entries),), "safe"),),
            )


@check("CF011")
def invalid_enum_value(subject: RecipeSubject) -> Iterator[Finding]:
    """A value that is none of those the framework or PEFT knows."""
    for misfit in subject.recipe.misfits:
        if misfit.choices:
            known = [str(choice) for choice in misfit.choices]
            near = nearest(str(misfit.value).lower(), known)
            yield Finding(
                f"invalid {misfit.name} {misfit.value!r}"
                + (f"; did you mean {near!r}?" if near else ""),
                path=misfit.path,
                label=f"{subject.dialect.title} stops",
                help="known are " + ", ".join(known),
                wishes=(Wish(f"{misfit.name}: {near}", (Replace(misfit.path, near),), "safe"),)
                if near
                else (),
            )
    if subject.dialect.applied_by != "PEFT":
        return
    yield from _one_of(subject, "task_type", task_types(subject.peft), since=(0, 14))
    yield from _one_of(subject, "bias", _BIAS)
    init = subject.value("init_lora_weights")
    known = sorted(init_methods(subject.peft))
    if not isinstance(init, str) or "${" in init or not subject.recipe.written("init_lora_weights"):
        return
    if subject.behaviour.init_strings == "truth":
        return  # any word counts as true
    if init_word(init) in init_methods(newest_peft()):
        return  # what only a later release knows is VR308's
    injection = subject.injection
    if injection.undecided is None and injection.error is None:
        return  # embeddings take any string
    yield _invalid("init_lora_weights", init, known, nearest(init.lower(), known))


def _one_of(
    subject: RecipeSubject, name: str, known: Any, since: tuple[int, int] | None = None
) -> Iterator[Finding]:
    from lora_lint.facts import version_key

    value = subject.value(name)
    if not isinstance(value, str) or value in known or value == "None" or "${" in value:
        return
    if name == "bias" and value.endswith("_only") and subject.behaviour.bias_only == "any":
        return  # PEFT takes every such word for lora_only
    if not subject.recipe.written(name) or (since and version_key(subject.peft) < since):
        return
    same = next((entry for entry in known if entry.lower() == value.lower()), None)
    yield _invalid(
        name, value, known, same or nearest(value.upper() if known[0].isupper() else value, known)
    )


def _invalid(name: str, value: str, known: Any, near: str | None) -> Finding:
    return Finding(
        f"invalid {name} {value!r}" + (f"; did you mean {near!r}?" if near else ""),
        field=name,
        label="PEFT stops",
        help="known are " + ", ".join(known),
        wishes=(Wish(f"{name}: {near}", (Set(name, near),), "safe"),) if near else (),
    )


@check("CF014")
def refused_by_peft(subject: RecipeSubject) -> Iterator[Finding]:
    """PEFT raises, for a reason that no other rule puts into better words."""
    error = subject.injection.error
    if error is None:
        return
    if "preprocess_corda" in error.message and "preprocess_corda(" in subject.document.text:
        return  # the program takes the step that PEFT asks for
    field = next((name for name in subject.kwargs if f"`{name}`" in error.message), None)
    written = field if field and subject.recipe.written(field) else None
    missing = [name for name in ("r", "lora_alpha") if subject.kwargs.get(name, 0) is None]
    text = f"{missing[0]} is not set: " if missing else ""
    yield Finding(
        f"{text}PEFT {subject.peft} stops with {error.type}: {error.message[:200]}", field=written
    )
