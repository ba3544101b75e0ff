"""EM: modules that are trained in full, embeddings and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.checks import names
from lora_lint.checks.registry import check
from lora_lint.diagnostics import DropItem, Finding, Note, Set, SetItem, Wish
from lora_lint.facts import version_key
from lora_lint.injection.matching import EntrySet
from lora_lint.injection.messages import TIED_NOT_ENSURED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

TYING_SINCE = "0.18.0"


@check("EM801")
def modules_to_save_is_string(subject: RecipeSubject) -> Iterator[Finding]:
    """modules_to_save is a string, which PEFT reads letter by letter."""
    value = subject.value("modules_to_save")
    if not isinstance(value, str) or subject.dialect.checks_types:
        return
    letters = ", ".join(dict.fromkeys(value))
    injection = subject.injection
    label = f"unfreezes every module whose name ends in one of {letters}"
    effect = "silent since peft 0.16; older releases often crash"
    if injection.error is not None:
        label, effect = "", f"peft {subject.peft} stops with {injection.error.type}"
    elif injection.trainable and injection.total:
        effect = f"peft {subject.peft} says nothing"
        label += f": {injection.trainable:,} trainable of {injection.total:,}"
    yield Finding(
        f"modules_to_save must be a list; PEFT would read {value!r} letter by letter",
        field="modules_to_save",
        label=label or None,
        help=effect,
        wishes=(Wish(f"modules_to_save: [{value}]", (Set("modules_to_save", [value]),), "safe"),),
    )


@check("EM802")
def modules_to_save_not_found(subject: RecipeSubject) -> Iterator[Finding]:
    """An entry of modules_to_save matches nothing; PEFT says nothing."""
    entries, tree = subject.value("modules_to_save"), subject.tree
    injection = subject.injection
    if not isinstance(entries, list) or injection.error or tree is None:
        return
    for index, entry in enumerate(entries):
        if entry not in injection.unmatched["modules_to_save"]:
            continue
        near = names.nearest(str(entry), names.leaves(tree), cutoff=0.7)
        head = tree.facts.get("output_embeddings")
        wanted = near or (head.rpartition(".")[2] if head and "head" in str(entry) else None)
        wish = (
            Wish(f"replace `{entry}` by `{wanted}`", (SetItem("modules_to_save", index, wanted),))
            if wanted and wanted not in entries
            else Wish(f"drop `{entry}`", (DropItem("modules_to_save", index),))
        )
        yield Finding(
            f"modules_to_save `{entry}` matches no module of {subject.model_name}; PEFT says "
            "nothing and trains nothing there",
            field="modules_to_save",
            item=index,
            label=f"did you mean `{wanted}`?" if wanted and wanted not in entries else None,
            wishes=(wish,),
        )


@check("EM803")
def saved_module_is_also_target(subject: RecipeSubject) -> Iterator[Finding]:
    """A module is to be trained in full and by LoRA; the first wins."""
    targets, saves = subject.kwargs.get("target_modules"), subject.value("modules_to_save")
    if not isinstance(targets, list) or not isinstance(saves, list) or subject.tree is None:
        return
    saved = subject.injection.saved
    for index, entry in enumerate(saves):
        hit = next(
            (
                target
                for target in targets
                for name in saved
                if subject.targets([target]).has(name) and EntrySet([entry]).has(name)
            ),
            None,
        )
        if hit is not None:
            twice = subject.behaviour.saved_modules == "after"
            yield Finding(
                f"`{entry}` is in modules_to_save and `{hit}` in target_modules: it is trained in "
                f"full, and {'has an adapter beside that' if twice else 'gets no LoRA'}",
                field="modules_to_save",
                item=index,
                help="silent in PEFT; keep it in one of the two",
            )


@check("EM804")
def tied_embeddings_diverge(subject: RecipeSubject) -> Iterator[Finding]:
    """Tied embeddings get separate copies or adapters, which drift apart."""
    tied, notes = _own_config(subject)
    if tied is None:
        tied = any(warning.message == TIED_NOT_ENSURED for warning in subject.injection.warnings)
    if not tied:
        return
    if version_key(subject.peft) < version_key(TYING_SINCE):
        return
    if not notes and subject.tree is not None and subject.tree.facts.get("tie_attribute") is False:
        return  # peft 0.18 and 0.19 warn all the same
    ends = _ends(subject)
    if ends & {*subject.injection.modules} and not ends & {*subject.injection.saved}:
        return  # TM123
    in_saved = subject.value("modules_to_save")
    field = "modules_to_save" if in_saved else "target_modules"
    yield Finding(
        f"input and output embeddings are tied in {subject.model_name}, and this adapter changes "
        "them apart",
        field=field,
        label="merging or exporting the adapter keeps one of the two and loses the other",
        notes=notes,
        help="PEFT only warns; ensure_weight_tying (peft>=0.18) keeps them one",
        wishes=(Wish("ensure_weight_tying: true", (Set("ensure_weight_tying", True),)),),
    )


def _own_config(subject: RecipeSubject) -> tuple[bool | None, tuple[Note, ...]]:
    """Whether the base model's own config.json ties embeddings that the adapter changes apart, and
    where it says so; None where it says nothing, or the module tree is the model's own and PEFT's
    answer known.

    A template has its class's default, which a config may set otherwise.
    """
    tree = subject.tree
    if tree is None or subject.context.model is not None:
        return None, ()
    config = subject.model_config
    said = config.value("tie_word_embeddings") if config is not None else None
    if not isinstance(said, bool) or config is None:
        return None, ()
    note = config.note("tied here", "tie_word_embeddings")
    if not tree.facts.get("template"):
        return None, (note,) if said else ()
    changed = {*subject.injection.saved, *subject.injection.modules} & _ends(subject)
    apart = said and bool(changed) and subject.kwargs.get("ensure_weight_tying") in (None, False)
    return apart, (note,)


def _ends(subject: RecipeSubject) -> set[str]:
    """The input and the output embeddings, as far as the model has them."""
    facts = subject.tree.facts if subject.tree is not None else {}
    names = (facts.get(f"{end}put_embeddings") for end in ("in", "out"))
    return {name for name in names if name is not None}


def ties(subject: RecipeSubject) -> tuple[bool, tuple[Note, ...]]:
    """Whether the model's input and output embeddings are one weight, and where its own config.json
    says so, if it is that which says it.
    """
    said, notes = _own_config(subject)
    if said is not None or subject.tree is None:
        return bool(said), notes
    ends = _ends(subject)
    shared = ({name.rpartition(".")[0] for name in group} for group in subject.tree.tied)
    return len(ends) == 2 and any(ends <= names for names in shared), ()
