"""VR: what the user's PEFT release knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.checks.registry import check
from lora_lint.checks.target_modules import is_all_linear
from lora_lint.diagnostics import Finding, Remove, Unset, Wish
from lora_lint.facts import peft_facts, version_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

ALL_LINEAR_SINCE = "0.8.0"


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
                help=f"PEFT stops with \"got an unexpected keyword argument '{name}'\"",
            )


@check("VR302")
def adapter_config_newer_than_installed(subject: RecipeSubject) -> Iterator[Finding]:
    """An adapter_config.json with keys that the user's PEFT refuses."""
    version = subject.peft
    if subject.recipe.trains or not _older(version, "0.14.0"):
        return  # since 0.14.0 unknown keys are dropped with a warning
    newer = [
        (name, str(life["since"]))
        for name, life in _written_keywords(subject)
        if life["since"] is not None and _older(version, life["since"])
    ]
    if not newer:
        return
    if _older(version, "0.6.0"):
        effect, severity = "drops them without a word", "warning"
    else:
        effect, severity = "stops with a TypeError", "error"
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
        severity="warning" if severity == "warning" else None,
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
        yield Finding(
            f"`all-linear` needs peft>={ALL_LINEAR_SINCE}; {_where(subject)}",
            field="target_modules",
            label="older releases take it for a pattern, which matches nothing",
            help='PEFT stops with "Target modules all-linear not found in the base model."',
        )


@check("VR306")
def removed_field(subject: RecipeSubject) -> Iterator[Finding]:
    """A field that the user's PEFT has no longer."""
    for name, life in peft_facts()["fields"].items():
        removed = life["removed"]
        known = subject.context.environment.peft
        gone = removed is not None and (known is None or not _older(known.version, removed))
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
