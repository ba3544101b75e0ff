"""Which entries of a config have an effect, asked of real PEFT: each is tried alone.

An entry has an effect if PEFT, given nothing else in that field, does something that it would not
do without. What that is depends on the field:

- target_modules: a module is adapted, or a parameter where PEFT turns the name into one
- target_parameters: a parameter is adapted
- modules_to_save: a module is copied
- exclude_modules: a module is passed over, whether or not it is a target; PEFT warns where none is
- rank_pattern, alpha_pattern: an adapted module's rank or alpha changes
- layers_to_transform: other modules are adapted than with a layer that does not exist
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.oracle.oracle import Answer, nothing_matched

Config = dict[str, Any]
Ask = Callable[[Config], Answer]
MOST_ENTRIES = 8
NO_SUCH_LAYER = 10**6
_NONE_EXCLUDED = "but no modules were excluded"


def effects(config: Config, ask: Ask) -> Iterator[tuple[str, Any, bool]]:
    """Each entry that can be tried alone, with its field and whether it has an effect."""
    for field, has_effect in _FIELDS.items():
        value = config.get(field)
        if isinstance(value, int) and field == "layers_to_transform":
            value = [value]
        if not isinstance(value, list | dict) or len(value) > MOST_ENTRIES:
            continue
        for entry in dict.fromkeys(value):
            effect = has_effect(field, entry, config, ask)
            if effect is not None:
                yield field, entry, effect


def _adapts(field: str, entry: Any, config: Config, ask: Ask) -> bool | None:
    """None where PEFT refuses the entry alone, as half of a fused pair."""
    others = {name: value for name, value in config.items() if name != "target_parameters"}
    if field == "target_parameters":
        alone = ask({**others, "target_modules": [], field: [entry]})
        return None if _refused(alone) else bool(alone.parameters)
    alone = ask({**others, field: [entry]})
    return None if _refused(alone) else bool(alone.modules or alone.parameters)


def _saves(field: str, entry: Any, config: Config, ask: Ask) -> bool | None:
    # A task type saves its head as well.
    alone = ask({**config, "task_type": None, field: [entry]})
    return None if alone.error else bool(alone.saved)


def _excludes(field: str, entry: Any, config: Config, ask: Ask) -> bool | None:
    # Saved modules count as excluded.
    alone = ask({**config, "task_type": None, "modules_to_save": None, field: [entry]})
    if alone.error is None:
        return not any(_NONE_EXCLUDED in message for message in alone.warned)
    if not nothing_matched(alone):
        return None
    return "were excluded" in alone.message or "were targeted" in alone.message


def _changes_ranks(field: str, entry: Any, config: Config, ask: Ask) -> bool | None:
    patterns = ("rank_pattern", "alpha_pattern")
    plain = {name: value for name, value in config.items() if name not in patterns}
    r = config.get("r", 8)
    # Even, a multiple of r for convolutions in groups, and no rank that experts get anyway.
    unusual = 12.5 if field == "alpha_pattern" else 6 * r if isinstance(r, int) and r > 0 else 6
    without, alone = ask(plain), ask({**plain, field: {entry: unusual}})
    return None if without.error or alone.error else without.ranks != alone.ranks


def _moves(field: str, entry: Any, config: Config, ask: Ask) -> bool | None:
    without, alone = (ask({**config, field: [layer]}) for layer in (NO_SUCH_LAYER, entry))
    if _refused(without) or _refused(alone):
        return None
    return without.modules != alone.modules


def _refused(answer: Answer) -> bool:
    return answer.error is not None and not nothing_matched(answer)


_FIELDS: dict[str, Callable[[str, Any, Config, Ask], bool | None]] = {
    "target_modules": _adapts,
    "target_parameters": _adapts,
    "modules_to_save": _saves,
    "exclude_modules": _excludes,
    "rank_pattern": _changes_ranks,
    "alpha_pattern": _changes_ranks,
    "layers_to_transform": _moves,
}
