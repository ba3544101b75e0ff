"""VR: what the user's PEFT release knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.checks.registry import check
from lora_lint.checks.target_modules import is_all_linear
from lora_lint.diagnostics import Finding, Remove, Set, Unset, Wish
from lora_lint.dialects import Undecided
from lora_lint.facts import (
    compatibility_facts,
    field_defaults,
    init_methods,
    init_word,
    peft_facts,
    unpredicted,
    version_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

ALL_LINEAR_SINCE = "0.8.0"
STRINGS_SINCE = "0.2.0"
DEFAULTS_SINCE = "0.4.0"
LOADER_ARGUMENTS_UNTIL = (5,)


def _written_keywords(subject: RecipeSubject) -> Iterator[tuple[str, dict[str, str | None]]]:
    """The written fields that reach LoraConfig, with the releases that know them."""
    fields = peft_facts()["fields"]
    for name in subject.kwargs:
        if name in fields and subject.recipe.written(name):
            yield name, fields[name]


def _older(version: str, than: str) -> bool:
    return version_key(version) < version_key(than)


def _where(subject: RecipeSubject) -> str:
    known = subject.context.environment.peft
    if known is None:
        return f"peft {subject.peft}"
    return f"{known.source} {'has' if known.exact else 'allows'} {subject.peft}"


def _advice(subject: RecipeSubject, told: str) -> str | None:
    """The smallest release that takes the whole config, in words; None where that has been told
    already, or no known one does.
    """
    newer = [v for v in peft_facts()["versions"] if _older(subject.peft, v) and not unpredicted(v)]
    there = [subject.at(subject.line._replace(peft=release)) for release in newer]
    taken = [knows_words(subject, other.peft) and other.injection.error is None for other in there]
    if True not in taken or newer[taken.index(True)] == told:
        return None
    first = taken.index(True)
    since = f"peft>={newer[first]}" if all(taken[first:]) else f"peft {newer[first]}"
    if there[first].injection.undecided:
        return f"{since} knows all that this config writes"
    return f"{since} takes this config"


def knows_words(subject: RecipeSubject, release: str) -> bool:
    """Whether a release knows every field and shorthand that a config writes."""
    value = subject.kwargs.get("init_lora_weights")
    since = [str(life["since"]) for _, life in _written_keywords(subject)]
    if is_all_linear(subject.kwargs.get("target_modules")):
        since.append(ALL_LINEAR_SINCE)
    if (init := _init_since(value)) is not None:
        since.append(init)
    return not any(_older(release, first) for first in since)


@check("VR301")
def field_newer_than_installed(subject: RecipeSubject) -> Iterator[Finding]:
    """A field that the user's PEFT does not have yet."""
    if not subject.recipe.trains:
        return
    for name, life in _written_keywords(subject):
        since = life["since"]
        if since is not None and _older(subject.peft, since):
            yield Finding(
                f"`{name}` needs peft>={since}; {_where(subject)}",
                field=name,
                label="LoraConfig does not take it",
                help=_joined(
                    f"PEFT stops with \"got an unexpected keyword argument '{name}'\"",
                    _advice(subject, since),
                ),
            )


@check("VR302")
def adapter_config_newer_than_installed(subject: RecipeSubject) -> Iterator[Finding]:
    """An adapter_config.json with keys that the user's PEFT refuses."""
    version, unknown_keys = subject.peft, subject.behaviour.unknown_adapter_keys
    if subject.recipe.trains or unknown_keys == "warned":
        return
    newer = [
        (name, str(life["since"]))
        for name, life in _written_keywords(subject)
        if life["since"] is not None and _older(version, life["since"])
    ]
    if not newer:
        return
    dropped = unknown_keys == "dropped"
    effect = "drops them without a word" if dropped else "stops with a TypeError"
    needed = max((since for _, since in newer), key=version_key)
    droppable = [name for name, _ in newer if _says_nothing(subject.value(name))]
    wishes = (
        (
            Wish(
                f"drop {', '.join(droppable)} (they hold what is the default anyway)",
                tuple(Unset(name) for name in droppable),
                "safe",
            ),
        )
        if len(droppable) == len(newer)
        else ()
    )
    yield Finding(
        f"this adapter has {', '.join(name for name, _ in newer)}, which peft {version} does not "
        f"know: loading it {effect}",
        field=newer[0][0],
        severity="warning" if dropped else None,
        help=f"peft>={needed} knows them all; peft>=0.14.0 drops what it does not know",
        wishes=wishes,
    )


def _says_nothing(value: object) -> bool:
    return value in (None, False, {}, [])


@check("VR303")
def all_linear_needs_peft_0_8(subject: RecipeSubject) -> Iterator[Finding]:
    """The shorthand in a release that takes it for a pattern."""
    value = subject.kwargs.get("target_modules")
    if is_all_linear(value) and _older(subject.peft, ALL_LINEAR_SINCE):
        letters = _older(subject.peft, STRINGS_SINCE)
        stops = 'PEFT stops with "Target modules all-linear not found in the base model."'
        yield Finding(
            f"`all-linear` needs peft>={ALL_LINEAR_SINCE}; {_where(subject)}",
            field="target_modules",
            label=f"peft {subject.peft} goes through it letter by letter"
            if letters
            else "older releases take it for a pattern, which matches nothing",
            help=_joined(None if letters else stops, _advice(subject, ALL_LINEAR_SINCE)) or None,
        )


@check("VR304")
def string_pattern_needs_peft_0_2(subject: RecipeSubject) -> Iterator[Finding]:
    """A regular expression in a release that reads it letter by letter."""
    value = subject.kwargs.get("target_modules")
    if isinstance(value, str) and not is_all_linear(value) and _older(subject.peft, STRINGS_SINCE):
        yield Finding(
            f"a string of target modules needs peft>={STRINGS_SINCE}; {_where(subject)}",
            field="target_modules",
            label=f"peft {subject.peft} goes through it letter by letter",
            help=f"peft>={STRINGS_SINCE} takes it for a regular expression",
        )


@check("VR305")
def implicit_defaults_before_peft_0_4(subject: RecipeSubject) -> Iterator[Finding]:
    """A number left out in a release that has no default for it."""
    if not subject.recipe.trains or not _older(subject.peft, DEFAULTS_SINCE):
        return
    if isinstance(subject.lowered, Undecided):
        return
    missing = [name for name in ("lora_alpha", "lora_dropout") if name not in subject.kwargs]
    if not missing:
        return
    later = {name: field_defaults(DEFAULTS_SINCE)[name] for name in missing}
    written = ", ".join(f"{name}: {value}" for name, value in later.items())
    yield Finding(
        f"peft {subject.peft} has no default for {' and '.join(missing)}: it stops with a "
        "TypeError",
        help=f"{_where(subject)}; since {DEFAULTS_SINCE} the defaults are {written}",
        wishes=(Wish(f"write {written}", tuple(Set(n, v) for n, v in later.items()), "safe"),),
    )


@check("VR306")
def removed_field(subject: RecipeSubject) -> Iterator[Finding]:
    """A field that the user's PEFT has no longer."""
    for name, life in peft_facts()["fields"].items():
        removed = life["removed"]
        gone = removed is not None and not _older(subject.peft, removed)
        if not gone or not subject.recipe.trains:
            continue
        stray = next((key for key in subject.recipe.stray if key.name == name), None)
        if stray is not None or subject.recipe.written(name):
            yield Finding(
                f"`{name}` was removed in peft {removed}",
                field=None if stray else name,
                path=stray.path if stray else None,
                on_key=True,
                help=f"PEFT stops with \"got an unexpected keyword argument '{name}'\"",
                wishes=(
                    Wish(f"delete {name}", (Remove(stray.path) if stray else Unset(name),), "safe"),
                ),
            )


@check("VR307")
def incompatible_versions(subject: RecipeSubject) -> Iterator[Finding]:
    """A PEFT that does not import with the user's transformers."""
    known = subject.context.environment
    if known.peft is None or known.transformers is None or subject.line.assumed is not None:
        return
    lacks = _import_error(subject.peft, subject.transformers)
    if lacks is not None:
        yield Finding(
            f"peft {subject.peft} does not import with transformers {subject.transformers}: "
            f"{lacks}",
            label=f"peft from {known.peft.source}, transformers from {known.transformers.source}",
            help=f"peft {subject.peft} imports with transformers {_range(subject.peft)}",
        )


def _import_error(peft: str, transformers: str) -> str | None:
    """Why a pair does not import: a name that one of the measured releases on the same side of
    what imports lacks. None where it does, or where it lies between what was measured.
    """
    facts = compatibility_facts()
    if peft not in facts["peft"]:
        return None
    oldest, newest = map(version_key, facts["peft"][peft])
    at = version_key(transformers)
    for pair, lacks in facts["lacks"].items():
        release, tried = pair.split()
        measured = version_key(tried)
        if release == peft and (at <= measured < oldest or newest < measured <= at):
            reason: str = lacks
            return reason
    return None


def _range(peft: str) -> str:
    oldest, newest = compatibility_facts()["peft"][peft]
    return f"{oldest} to {newest}"


@check("VR308")
def value_newer_than_installed(subject: RecipeSubject) -> Iterator[Finding]:
    """An initialisation that the user's PEFT does not have yet."""
    value = subject.kwargs.get("init_lora_weights")
    since = _init_since(value)
    if since is None or not _older(subject.peft, since):
        return
    injection = subject.injection
    if subject.behaviour.init_strings == "truth":
        effect = f"peft {subject.peft} takes any word for true and initialises as usual"
    elif injection.undecided is None and injection.error is None:
        effect = f"peft {subject.peft} says nothing and initialises embeddings as usual"
    else:
        effect = 'PEFT stops with "Unknown initialization"'
    yield Finding(
        f"`init_lora_weights: {value}` needs peft>={since}; {_where(subject)}",
        field="init_lora_weights",
        help=_joined(effect, _advice(subject, since)),
    )


def _init_since(value: object) -> str | None:
    """The first release with an initialisation; None for what no release knows."""
    name = init_word(value)
    releases = peft_facts()["versions"]
    return next((release for release in releases if name in init_methods(release)), None)


@check("VR309")
def removed_loader_argument(subject: RecipeSubject) -> Iterator[Finding]:
    """``load_in_4bit=`` as an argument of from_pretrained, which transformers 5 does not take."""
    path = subject.recipe["quantization"].path
    if path is None or len(path) < 2 or not str(path[-2]).startswith("from_pretrained#"):
        return
    call = subject.document.node(subject.recipe.part, path[:-1])
    if call is not None and (call.note or "").startswith("unsloth."):
        return  # its loaders have these arguments themselves
    argument = str(path[-1])
    removed = argument in ("load_in_4bit", "load_in_8bit")
    if removed and version_key(subject.transformers) >= LOADER_ARGUMENTS_UNTIL:
        yield Finding(
            f"`{argument}` is no argument of from_pretrained in transformers 5: it stops with a "
            "TypeError",
            path=path,
            on_key=True,
            help=f"quantization_config=BitsAndBytesConfig({argument}=True) works in 4 and 5",
        )


def _joined(*parts: str | None) -> str:
    return "; ".join(part for part in parts if part)
