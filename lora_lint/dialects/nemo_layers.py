"""Which layers NeMo AutoModel adapts, and how PEFT would be asked for them.

Read in nemo_automodel 0.7.0: components/_peft/module_matcher.py ``ModuleMatcher``,
components/_peft/lora.py ``apply_lora_to_linear_modules``. NeMo RL uses the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint.dialects.base import LoraKwargs, Undecided
from lora_lint.dialects.layers import as_targets, has_stacked_experts, linear_names
from lora_lint.recipe import holds_unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora_lint.models import ModuleTree


class Patterns(NamedTuple):
    """What ``ModuleMatcher`` matches modules by."""

    targets: tuple[str, ...]
    excluded: tuple[str, ...]
    every: bool


@lru_cache(maxsize=256)
def _wildcards(pattern: str) -> re.Pattern[str] | None:
    """A pattern with ``*`` as the regular expression that NeMo makes of it; None where it is none.

    ``*`` takes any text. ``.*`` behind a whole step of a name takes what is below it, or nothing;
    behind a fragment of one it takes any text too.
    """
    made, done = "", 0
    for star in re.finditer(r"\.?\*", pattern):
        text = pattern[done : star.start()]
        below = star[0] == ".*" and _is_step(text, first=done == 0)
        made += text + (r"(?:\..*)?" if below else ".*")
        done = star.end()
    try:
        return re.compile(made + pattern[done:])
    except re.error:
        return None


def _is_step(text: str, *, first: bool) -> bool:
    """Whether the text before a wildcard is a whole step of a name, as NeMo sees it."""
    return text.startswith(".") or (first and text != "") or bool(re.search(r"\.\d+$", text))


def matched(name: str, patterns: Patterns) -> bool:
    """``ModuleMatcher.match`` for a linear layer."""
    if patterns.every:
        return True

    def hit(entries: tuple[str, ...]) -> bool:
        return any(
            name == entry or ((found := _wildcards(entry)) is not None and found.fullmatch(name))
            for entry in entries
        )

    return hit(patterns.targets) if patterns.targets else not hit(patterns.excluded)


def patterns_of(value: Callable[[str], Any], *, every: bool) -> Patterns | Undecided:
    """The patterns of a recipe, or why there are none."""
    wanted, excluded = value("target_modules"), value("exclude_modules")
    if holds_unknown(wanted) or holds_unknown(excluded):
        return Undecided("the patterns of the modules are not static")
    wanted = [] if wanted == "all-linear" else wanted
    excluded = [] if excluded is None else excluded
    if not all(isinstance(part, list) for part in (wanted, excluded)) or not all(
        isinstance(entry, str) for entry in (*wanted, *excluded)
    ):
        return Undecided("the patterns of the modules are no texts")
    if wanted and excluded:
        return Undecided("NeMo stops: target_modules and exclude_modules are mutually exclusive")
    if every and (wanted or excluded):
        return Undecided("NeMo stops: match_all_linear wants no patterns beside it")
    heavy = [entry for entry in (*wanted, *excluded) if _is_heavy(entry)]
    if heavy:
        return Undecided(f"`{heavy[0]}` holds a regular expression")
    return Patterns(tuple(wanted), tuple(excluded), every)


def _is_heavy(pattern: str) -> bool:
    """Whether a pattern repeats or groups anything but by its ``*``, which may take for ever."""
    return bool(set(pattern) & set("+?(){}|\\")) or pattern.count("*") > 6


def adapted(tree: ModuleTree, value: Callable[[str], Any], *, every: bool) -> list[str] | Undecided:
    """The linear layers that the patterns match, by their full names."""
    if has_stacked_experts(tree):
        return Undecided("NeMo adapts experts in its own way")
    patterns = patterns_of(value, every=every)
    if isinstance(patterns, Undecided):
        return patterns
    wanted = [name for name in linear_names(tree) if matched(name, patterns)]
    return wanted or Undecided("NeMo adapts no module of transformers' model")


def lowered(
    tree: ModuleTree, wanted: list[str], value: Callable[[str], Any]
) -> LoraKwargs | Undecided:
    """LoraConfig's keywords that adapt these modules in the same way."""
    names = as_targets(tree, wanted)
    if names is None:
        return Undecided("no list of names selects the same modules")
    return LoraKwargs(
        {
            "r": value("r"),
            "lora_alpha": value("lora_alpha"),
            "lora_dropout": value("lora_dropout"),
            "target_modules": names,
            "use_dora": value("use_dora"),
            "bias": "none",
        }
    )
