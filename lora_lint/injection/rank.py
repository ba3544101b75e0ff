"""The same injection with another rank, where nothing but sizes follows from the rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.injection.result import Adapted, Injection

_DEFAULT_RANK: Final = 8
# Layers whose adapter is two matrices with r rows or columns, stacked experts with r for each; a
# convolution of groups refuses some ranks. Experts that transformers 5 fused have multiples of r.
_PLAIN_KINDS: Final = frozenset(("Linear", "Conv1D", "Embedding", "Parameter"))
# Fields that give ranks of their own, more than two matrices, or matrices that are not trained or
# are another layer's.
_FURTHER: Final = (
    "rank_pattern",
    "use_dora",
    "lora_bias",
    "inference_mode",
    "ensure_weight_tying",
    "layer_replication",
)


def with_rank(injection: Injection, config: Mapping[str, Any], r: int) -> Injection | None:
    """What ``inject`` gives for ``{**config, "r": r}``, from what it gave for ``config``; None
    where more than sizes may change, so that it has to be asked.
    """
    old = config.get("r", _DEFAULT_RANK)
    init = config.get("init_lora_weights", True)
    if not _is_rank(old) or not _is_rank(r) or any(config.get(name) for name in _FURTHER):
        return None
    if not (init is True or init is False or init == "gaussian"):
        return None
    if injection.error or injection.undecided:
        return None
    if injection.trainable is None or injection.total is None:
        return None
    entries = set(injection.adapted.values())
    if any(entry.r % old or entry.kind not in _PLAIN_KINDS for entry in entries):
        return None
    root = bool(config.get("use_rslora"))
    changed = {entry: _resized(entry, entry.r // old * r, root=root) for entry in entries}
    adapted = {name: changed[entry] for name, entry in injection.adapted.items()}
    more = sum(changed[e].parameters - e.parameters for e in injection.adapted.values())
    return injection._replace(
        adapted=adapted, trainable=injection.trainable + more, total=injection.total + more
    )


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _resized(entry: Adapted, r: int, *, root: bool) -> Adapted:
    return entry._replace(
        r=r,
        scale=entry.alpha / (math.sqrt(r) if root else r),
        parameters=entry.parameters // entry.r * r,
    )
