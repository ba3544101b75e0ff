"""TM: parts of a model that a config's names reach besides: encoders, tied embeddings."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from lora_lint.checks.embeddings import ties
from lora_lint.checks.mixtures import given
from lora_lint.checks.names import LLAMA_NAMES
from lora_lint.checks.registry import check
from lora_lint.checks.target_modules import is_all_linear, written_targets
from lora_lint.diagnostics import DropItem, Finding, Note, Set, Wish
from lora_lint.facts import (
    default_targets,
    version_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.checks.subject import RecipeSubject

# What architectures of transformers call the part of a model that takes in pictures or sound.
_TOWER: Final = re.compile(
    r"visual|(high_res_)?vision|(vision|image|video|audio|speech)_(tower|model|encoder)"
)
# Frameworks that ask by a switch of their own whether such parts are trained.
_ASKING: Final = ("llama_factory", "llama_factory_v1", "ms_swift", "ms_swift_ray")
_ASKING_TOO: Final = ("unsloth", "unsloth_studio")
_EXCLUDES_SINCE: Final = "0.14.0"


def _entries(subject: RecipeSubject) -> list[Any] | None:
    """The entries of target_modules, PEFT's own where none are written; None for a string."""
    tree, value = subject.tree, subject.value("target_modules")
    if value is None and tree is not None:
        value = default_targets(tree.model_type, subject.peft)
    return value if isinstance(value, list) else None


def _tower(name: str) -> str | None:
    """The name of the encoder that a module is part of, None for one of the language model."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if _TOWER.fullmatch(part)), None)
    return ".".join(parts[: at + 1]) if at is not None else None


@check("TM109")
def target_hits_vision_tower(subject: RecipeSubject) -> Iterator[Finding]:
    """Names meant for the language model also match in an encoder of pictures or sound."""
    tree, modules = subject.tree, subject.injection.modules
    if tree is None or not tree.facts.get("generates") or not modules:
        return
    if subject.dialect.name in (*_ASKING, *_ASKING_TOO) or given(subject, "exclude_modules"):
        return
    inside = Counter(tower for name in modules if (tower := _tower(name)) is not None)
    hits = sum(inside.values())
    if not hits or hits == len(modules) or _means_towers(subject):
        return
    adapted = set(modules)
    whole = all(
        name in adapted
        for name, node in tree.named_modules()
        if node.kind in ("Linear", "Conv1D") and _tower(name) in inside
    )
    if whole:
        return
    towers = " and ".join(f"`{tower}`" for tower in inside)
    counted = f"{hits} of {len(modules)}" if subject.counts_known else "some"
    leaves = {name.rpartition(".")[2] for name in modules if _tower(name) in inside}
    yield Finding(
        f"{counted} adapted modules are in {towers}, which encodes pictures or sound, not text"
        if len(inside) == 1
        else f"{counted} adapted modules are in {towers}, which encode pictures or sound, not text",
        field="target_modules",
        label="these names are the language model's and the encoder's: "
        + ", ".join(f"`{leaf}`" for leaf in sorted(leaves)),
        help="the encoder is adapted in part; exclude it, or name the rest of its layers too",
        wishes=tuple(_without_towers(subject, [t.rpartition(".")[2] for t in inside])),
    )


def _means_towers(subject: RecipeSubject) -> bool:
    """Whether the config speaks of the encoder: an entry that matches there alone, or a pattern
    that spells it.
    """
    value = subject.value("target_modules")
    if isinstance(value, str):
        return is_all_linear(value) or re.search("vis|image|audio|video|tower", value) is not None
    names = subject.injection.modules
    for entry in _entries(subject) or ():
        named = subject.targets([entry])
        hits = [name for name in names if named.has(name)]
        if hits and entry not in LLAMA_NAMES and all(_tower(name) for name in hits):
            return True
    return False


def _without_towers(subject: RecipeSubject, towers: list[str]) -> Iterator[Wish]:
    named = "|".join(re.escape(tower) for tower in dict.fromkeys(towers))
    named = f"({named})" if len(set(towers)) > 1 else named
    if "exclude_modules" in subject.dialect.slots:
        if version_key(subject.peft) >= version_key(_EXCLUDES_SINCE):
            pattern = rf".*{named}\..*"
            if _leaves_towers(subject, {"exclude_modules": pattern}):
                yield Wish(f"exclude_modules: {pattern}", (Set("exclude_modules", pattern),))
        return
    entries = written_targets(subject)
    if entries and all(isinstance(entry, str) for entry in entries):
        pattern = rf"(?!.*{named}\.).*\.({'|'.join(map(re.escape, entries))})"
        if _leaves_towers(subject, {"target_modules": pattern}):
            yield Wish(f"target_modules: {pattern}", (Set("target_modules", pattern),))


def _leaves_towers(subject: RecipeSubject, changes: dict[str, object]) -> bool:
    """Whether nothing but the encoders is left out when some fields are written otherwise."""
    then = subject.inject(changes).modules
    return set(then) == {name for name in subject.injection.modules if _tower(name) is None}


# Embeddings --------------------------------------------------------------------------------------


@check("TM123")
def head_or_embedding_as_lora_target(subject: RecipeSubject) -> Iterator[Finding]:
    """LoRA on an embedding or a head that shares its weight with the other."""
    tree, injection = subject.tree, subject.injection
    if tree is None or not injection.modules:
        return
    ends = [tree.facts.get("input_embeddings"), tree.facts.get("output_embeddings")]
    adapted = [str(end) for end in ends if end in injection.modules]
    tied, notes = ties(subject)
    if not adapted or not tied:
        return
    entries = written_targets(subject) or []
    places = [
        index
        for index, entry in enumerate(entries)
        if any(subject.targets([entry]).has(end) for end in adapted)
    ]
    if not places and not isinstance(subject.value("target_modules"), str):
        return  # added by ensure_weight_tying, or by a default
    kept = subject.kwargs.get("ensure_weight_tying") is True and len(adapted) == len(ends)
    other = next((end for end in ends if end not in adapted), None)
    effect = "each gets an adapter of its own" if other is None else f"`{other}` gets none"
    yield Finding(
        f"LoRA on {_listed(adapted)}, whose weight {subject.model_name} shares between input and "
        f"output embeddings: {'merging adds the change twice' if kept else effect}",
        field="target_modules",
        item=places[0] if places else None,
        label="merging the adapter changes both uses of the weight",
        notes=(*notes, *(Note("", "target_modules", i) for i in places[1:])),
        help="the merged or exported model is not the one that was trained"
        + ("" if kept else "; ensure_weight_tying does not help, PEFT then merges both adapters"),
        wishes=_untargeted(entries, places),
    )


def _untargeted(entries: list[Any], places: list[int]) -> tuple[Wish, ...]:
    """The wish that some entries of target_modules go."""
    if not places or len(places) == len(entries):
        return ()
    title = f"drop {_listed(entries[i] for i in places)}"
    if len(places) == 1:
        return (Wish(title, (DropItem("target_modules", places[0]),)),)
    left = [entry for i, entry in enumerate(entries) if i not in places]
    return (Wish(title, (Set("target_modules", left),)),)


def _listed(entries: Iterable[Any]) -> str:
    return ", ".join(f"`{entry}`" for entry in entries)
