"""How PEFT rewrites the targets of mixtures of experts for transformers 5.

transformers 5 keeps a layer's experts in stacked parameters. PEFT turns the module names of
transformers 4 into the names of those parameters before it matches anything.

Source: utils/transformers_weight_conversion.py.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from lora_lint.facts import ALL_LINEAR
from lora_lint.injection import messages
from lora_lint.injection.matching import EXCLUDED, Matcher
from lora_lint.injection.simulation import Raised

if TYPE_CHECKING:
    from lora_lint.injection.config import LoraSettings
    from lora_lint.injection.simulation import Module

Tables = tuple[dict[str, str], dict[str, list[str]]]


def convert(
    settings: LoraSettings, model: Module, tables: Tables, linear_names: list[str]
) -> dict[str, list[str]]:
    """Rewrite the settings in place (``_convert_peft_config_moe``).

    Returns which written target became which parameter name.
    """
    renamed, fused = tables
    if isinstance(settings.target_modules, str) and settings.semantics.experts == "lists only":
        settings.target_modules = list(dict.fromkeys(settings.target_modules))
    elif isinstance(settings.target_modules, str):
        resolved = _resolve_string(settings, model, renamed, linear_names)
        if not resolved:
            return {}
        settings.target_modules = resolved
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(settings, field)
        setattr(settings, field, {} if patterns is None else copy.copy(patterns))
    parameters = list(dict.fromkeys(settings.target_parameters or []))
    remaining: list[Any] = []
    became: dict[str, list[str]] = {}
    present: dict[str, set[str]] = {name: set() for name in fused}
    for target in settings.target_modules or []:
        old = _old_name(target, renamed)
        if old is None:
            remaining.append(target)
            continue
        new = renamed[old]
        became.setdefault(target, []).append(new)
        if new not in parameters:
            parameters.append(new)
        if new in fused:
            present[new].add(old)
    for new, required in fused.items():
        if 0 < len(present[new]) < len(required):
            missing = ", ".join(sorted(set(required) - present[new]))
            given = ", ".join(sorted(present[new]))
            text = messages.FUSED_APART.format(given=given, missing=missing, fused=new)
            raise Raised("ValueError", text)
        if len(present[new]) == len(required) > 1:
            key = rf".*\.{re.escape(new)}"
            _put(settings.rank_pattern, key, _times(settings.r, len(required)))
            _put(settings.alpha_pattern, key, _times(settings.lora_alpha, len(required)))
    settings.target_parameters = parameters
    settings.target_modules = remaining
    return became


def _put(patterns: Any, key: str, value: Any) -> None:
    try:
        patterns[key] = value
    except TypeError as exc:
        raise Raised("TypeError", str(exc)) from None


def _times(value: Any, factor: int) -> Any:
    try:
        return value * factor
    except TypeError as exc:
        raise Raised("TypeError", str(exc)) from None


def _old_name(target: Any, renamed: dict[str, str]) -> str | None:
    for old in renamed:
        if target == old:
            return old
        if not isinstance(target, str):
            kind = type(target).__name__
            raise Raised("AttributeError", f"'{kind}' object has no attribute 'endswith'")
        if target.endswith(f".{old}"):
            return old
    return None


def _resolve_string(
    settings: LoraSettings, model: Module, renamed: dict[str, str], linear_names: list[str]
) -> list[str]:
    """The leaf names that a regex or ``all-linear`` targets
    (``_resolve_string_target_modules``).
    """
    if settings.target_modules.lower() == ALL_LINEAR:
        leaves = [name.rpartition(".")[2] for name in linear_names]
        return list(dict.fromkeys([*leaves, *renamed]))
    matcher = Matcher(settings)

    def hit(key: str) -> bool:
        result = matcher(key)
        return result is not EXCLUDED and bool(result)

    parameters = [name for name, _ in model.named_parameters()]
    keys = [*(name for name, _ in model.named_modules()), *parameters]
    matched = dict.fromkeys(key.rpartition(".")[2] for key in keys if hit(key))
    containers: dict[str, list[str]] = {}
    for name in parameters:
        container, _, leaf = name.rpartition(".")
        containers.setdefault(leaf, []).append(container)
    for old, new in renamed.items():
        if old not in matched and any(hit(f"{c}.{old}") for c in containers.get(new, ())):
            matched[old] = None
    return list(matched)
