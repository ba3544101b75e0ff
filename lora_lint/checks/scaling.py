"""SC: rank, alpha, dropout, and the scale that follows from them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Set, Wish
from lora_lint.facts import ALL_LINEAR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

# The bounds within which all of the frameworks' own example configs lie, with room to spare.
LOW, HIGH = 0.25, 8.0


class Scale(NamedTuple):
    """An effective scale: of the whole adapter, or of the modules under one pattern key."""

    r: int
    alpha: float
    rslora: bool
    field: str = "lora_alpha"
    key: str | None = None

    @property
    def value(self) -> float:
        """alpha / r, or alpha / sqrt(r) with rsLoRA (peft tuners/lora/layer.py update_layer)."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    @property
    def formula(self) -> str:
        """The division, written out."""
        root = f"sqrt({self.r})" if self.rslora else f"{self.r}"
        return f"{self.alpha:g} / {root}"

    def alpha_for(self, scale: float) -> float:
        """The lora_alpha that gives a scale, an integer where one comes within a hundredth."""
        exact = scale * (math.sqrt(self.r) if self.rslora else self.r)
        return round(exact) if abs(round(exact) / exact - 1) < 0.01 else round(exact, 2)


def scales(subject: RecipeSubject) -> Iterator[Scale]:
    """The effective scales a recipe states: the general one, then one per pattern key."""
    r, alpha = subject.value("r"), subject.value("lora_alpha")
    rslora = subject.value("use_rslora")
    if not _is_rank(r) or not _is_number(alpha) or not isinstance(rslora, bool | None):
        return
    yield Scale(r, alpha, bool(rslora))
    patterns = [subject.value(name) for name in ("rank_pattern", "alpha_pattern")]
    ranks, alphas = ({} if pattern is None else pattern for pattern in patterns)
    if not isinstance(ranks, dict) or not isinstance(alphas, dict):
        return
    for key in dict.fromkeys([*ranks, *alphas]):
        own_r, own_alpha = ranks.get(key, r), alphas.get(key, alpha)
        if _is_rank(own_r) and _is_number(own_alpha):
            field = "alpha_pattern" if key in alphas else "rank_pattern"
            yield Scale(own_r, own_alpha, bool(rslora), field, key)


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _may_be_dora(subject: RecipeSubject) -> bool:
    """Whether the adapter may be a DoRA, which learns its own magnitude."""
    return subject.value("use_dora") not in (None, False)


def _may_reach_embeddings(subject: RecipeSubject) -> bool:
    """Whether an embedding may be among the adapted modules."""
    if subject.tree is not None and not subject.injection.undecided:
        kinds = {name: node.kind for name, node in subject.tree.named_modules()}
        return any(kinds.get(name) == "Embedding" for name in subject.injection.modules)
    targets = subject.value("target_modules")
    if isinstance(targets, str):
        return targets.lower() != ALL_LINEAR
    return not isinstance(targets, list) or any(
        isinstance(entry, str) and re.search("emb|wte|wpe", entry) for entry in targets
    )


def _is_eva(subject: RecipeSubject) -> bool:
    """Whether EVA chooses the adapter: its authors use ``lora_alpha: 1``."""
    return bool(subject.value("init_lora_weights") == "eva")


def _states_scale(subject: RecipeSubject) -> bool:
    """Whether the file says anything about the scale itself, so that advice about it is welcome."""
    fields = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
    return any(subject.recipe.written(name) for name in fields)


def _wish(subject: RecipeSubject, scale: Scale, target: float, why: str) -> tuple[Wish, ...]:
    if scale.key is not None:
        return ()
    alpha = scale.alpha_for(target)
    slot = subject.dialect.slots.get("lora_alpha")
    shown = f"lora_alpha: {alpha:g}"
    if slot is not None and slot.codec.within is not None:  # the framework has the scale itself
        shown = f"{slot.path[-1]}: {slot.codec.within(alpha, subject.recipe):g}"
    return (Wish(f"{shown} ({why})", (Set("lora_alpha", alpha),)),)


def _is_own_default(subject: RecipeSubject, scale: Scale) -> bool:
    """Whether a scale is the default of a framework that has the scale itself."""
    default = subject.dialect.defaults.get("scale")
    return default is not None and scale.value == default.value


@check("SC207")
def extreme_scaling(subject: RecipeSubject) -> Iterator[Finding]:
    """The effective scale lies outside what practice shows."""
    for scale in scales(subject):
        size = abs(scale.value)
        if scale.alpha == 0 or LOW <= size <= HIGH or not _states_scale(subject):
            continue
        if _is_own_default(subject, scale):
            continue  # mlx-lm's 20: SC208's advice
        where = f" under {scale.key!r}" if scale.key else ""
        yield Finding(
            f"the effective scale{where} is {scale.formula} = {scale.value:.4g}; "
            "common are 0.25 to 4",
            field=scale.field,
            key=scale.key,
            severity="info" if _may_be_dora(subject) or _is_eva(subject) else None,
            label="the adapter's output is multiplied by this",
            help="check lora_alpha and r for a slip; change them together with learning_rate",
            wishes=_wish(subject, scale, 2.0, "scale 2"),
        )


@check("SC208")
def alpha_ratio(subject: RecipeSubject) -> Iterator[Finding]:
    """The effective scale is not about 2."""
    ratio = subject.setting("SC208", "ratio", 2.0)
    tolerance = subject.setting("SC208", "tolerance", 0.25)
    if _may_be_dora(subject) or not _states_scale(subject):
        return
    for scale in scales(subject):
        if scale.alpha <= 0 or abs(scale.value / ratio - 1) <= tolerance:
            continue
        wanted = scale.alpha_for(ratio)
        where = f" under {scale.key!r}" if scale.key else ""
        default = subject.recipe["lora_alpha"]
        source = f" ({default.detail}'s default)" if default.origin == "default" else ""
        yield Finding(
            f"the effective scale{where} is {scale.formula} = {scale.value:.4g}, "
            f"not about {ratio:g}{source}",
            field=scale.field,
            key=scale.key,
            label=f"{wanted:g} would give {ratio:g}",
            help="a common start, not a law: 4 of 10 public example configs use another scale",
            wishes=_wish(subject, scale, ratio, f"scale {ratio:g}"),
        )


@check("SC201")
def alpha_is_zero(subject: RecipeSubject) -> Iterator[Finding]:
    """lora_alpha is 0, so the adapter does nothing."""
    if _may_be_dora(subject) or subject.value("alpha_pattern") not in (None, {}):
        return  # DoRA's magnitude, and modules with an alpha of their own, are trained
    if subject.value("lora_alpha") == 0 and subject.recipe.trains:
        yield Finding(
            "lora_alpha: 0 makes the scale 0: no LoRA matrix gets a gradient",
            field="lora_alpha",
            label="usual is about 2 * r",
            help="no PEFT release warns; the loss just stays where it is",
        )


@check("SC203")
def non_positive_rank(subject: RecipeSubject) -> Iterator[Finding]:
    """r is 0 or negative."""
    r = subject.value("r")
    if isinstance(r, int) and not isinstance(r, bool) and r <= 0:
        yield Finding(
            f"r must be a positive integer, not {r}",
            field="r",
            help='PEFT stops with "`r` should be a positive integer value"'
            if subject.behaviour.no_rank == "refused"
            else f"peft {subject.peft} leaves such layers without an adapter, and says nothing",
        )
    ranks = subject.value("rank_pattern")
    for key, value in ranks.items() if isinstance(ranks, dict) else ():
        if isinstance(value, int) and not isinstance(value, bool) and value <= 0:
            yield Finding(
                f"the rank under {key!r} must be a positive integer, not {value}",
                field="rank_pattern",
                key=key,
            )


@check("SC205")
def dropout_is_one(subject: RecipeSubject) -> Iterator[Finding]:
    """All of the adapter's input is dropped."""
    dropout = subject.value("lora_dropout")
    if _is_number(dropout) and dropout == 1 and subject.recipe.trains:
        if _may_reach_embeddings(subject):
            return  # PEFT applies no dropout to an embedding's adapter
        yield Finding(
            "lora_dropout: 1.0 drops the adapter's whole input: no LoRA matrix gets a gradient",
            field="lora_dropout",
            label="a share, usual are 0.0 to 0.1",
            help="no PEFT release warns; the loss just stays where it is",
        )


@check("SC206")
def dropout_out_of_range(subject: RecipeSubject) -> Iterator[Finding]:
    """lora_dropout is no share."""
    dropout = subject.value("lora_dropout")
    if not _is_number(dropout) or 0 <= dropout <= 1:
        return
    if dropout > 1:
        yield Finding(
            f"lora_dropout is a share between 0 and 1, not {dropout:g}",
            field="lora_dropout",
            label=f"{dropout / 100:g}, if per cent was meant" if dropout <= 100 else None,
            help='torch stops with "dropout probability has to be between 0 and 1"',
        )
    else:
        yield Finding(
            f"lora_dropout {dropout:g} is negative: PEFT then uses no dropout at all",
            field="lora_dropout",
            severity="warning",
        )


@check("SC209")
def rslora_with_lora_alpha(subject: RecipeSubject) -> Iterator[Finding]:
    """rsLoRA with an alpha that was chosen for plain LoRA."""
    for scale in scales(subject):
        if not scale.rslora or scale.value <= HIGH:
            continue
        plain = scale.alpha / scale.r
        where = f" under {scale.key!r}" if scale.key else ""
        yield Finding(
            f"use_rslora turns lora_alpha {scale.alpha:g} and r {scale.r} into a scale of "
            f"{scale.value:.4g}{where}; plain LoRA would give {plain:.4g}",
            field=scale.field,
            key=scale.key,
            label=f"rsLoRA divides by sqrt(r): {scale.formula}",
            wishes=_wish(subject, scale, plain, f"the scale {plain:.4g} that plain LoRA has"),
        )


@check("SC210")
def high_rank_low_scale(subject: RecipeSubject) -> Iterator[Finding]:
    """A high rank whose scale stunts it."""
    rate = subject.value("learning_rate")
    if _is_number(rate) and rate >= 5e-4:
        return  # a high learning rate makes up for the scale
    for scale in scales(subject):
        if scale.rslora or scale.key or scale.r < 64 or not 0 < scale.value <= LOW:
            continue
        yield Finding(
            f"r {scale.r} with lora_alpha {scale.alpha:g} gives a scale of {scale.value:.4g}; "
            "dividing by r stunts high ranks",
            field=scale.field,
            label=f"{scale.formula}",
            help="QLoRA's own r=64, lora_alpha=16 is such a recipe; use_rslora divides by sqrt(r)",
        )


@check("SC211")
def rank_changed_alpha_kept(subject: RecipeSubject) -> Iterator[Finding]:
    """r is another one than at an earlier revision, lora_alpha is not, so the scale has changed."""
    before = subject.earlier
    if before is None or not subject.recipe.trains:
        return
    revision = subject.context.since.name if subject.context.since else ""
    old = {scale.key: scale for scale in scales(before)}
    for scale in scales(subject):
        was = old.get(scale.key)
        if was is None or was.r == scale.r or was.alpha != scale.alpha or scale.alpha == 0:
            continue
        if was.rslora != scale.rslora or not _same_spelling(subject, before, scale.field):
            continue
        where = f" under {scale.key!r}" if scale.key else ""
        written = subject.recipe.written("lora_alpha")
        kept = f"{scale.alpha:g}" if written else f"{scale.alpha:g}, the default"
        yield Finding(
            f"r changed {was.r} -> {scale.r}{where} but lora_alpha stayed {kept}: "
            f"scale {was.value:.4g} -> {scale.value:.4g}",
            field=scale.field if written or scale.key else "r",
            key=scale.key,
            severity="info" if _may_be_dora(subject) or _is_eva(subject) else None,
            label=f"the scale is {scale.formula}",
            help=f"at {revision} it was {was.formula} = {was.value:.4g}; a learning_rate that "
            "suited that scale may not suit this one",
            wishes=_wish(subject, scale, was.value, f"the scale {was.value:.4g} of {revision}"),
        )


def _same_spelling(subject: RecipeSubject, before: RecipeSubject, field: str) -> bool:
    """Whether a field is written as it was, or absent as it was.

    Not so where it follows from another key that was changed for the sake of the scale.
    """
    now, then = subject.recipe[field], before.recipe[field]
    if now.path is None or then.path is None:
        return now.path is then.path
    one = subject.document.node(subject.recipe.part, now.path)
    other = before.document.node(before.recipe.part, then.path)
    if one is None or other is None:
        return False
    return field.endswith("_pattern") or bool(one.plain() == other.plain())
