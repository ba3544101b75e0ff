"""Which names a config's patterns match.

Sources: tuners/tuners_utils.py ``check_target_module_exists`` and ``_find_minimal_target_modules``;
utils/other.py ``match_target_against_key`` and ``get_pattern_key``; before 0.6 tuners/lora.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lora_lint.injection.patterns import compile_pattern
from lora_lint.injection.simulation import Raised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.injection.config import LoraSettings
    from lora_lint.injection.semantics import Semantics

# From this many entries on PEFT condenses a list of targets (utils/constants.py).
MIN_TARGETS_TO_CONDENSE = 20
EXCLUDED = "excluded"


# Where peft 0.4 to 0.7 look for a layer's number (utils/constants.py COMMON_LAYERS_PATTERN).
COMMON_LAYER_NAMES = ("layers", "h", "block", "blocks", "layer")


class Matcher:
    """Decides for one config which module names are targeted, excluded or neither."""

    def __init__(self, settings: LoraSettings) -> None:
        self.settings = settings
        self.semantics = settings.semantics
        self.targets = entries_of(settings.target_modules, self.semantics)
        self.excludes = EntrySet(settings.exclude_modules)
        self.saved: list[Any] = []
        if self.semantics.saved_modules == "shielded":
            self.saved = list(settings.modules_to_save or ())

    def __call__(self, key: str) -> bool | str:
        """``EXCLUDED``, or whether the module of this name is a target."""
        settings = self.settings
        if settings.exclude_modules and self.excludes.has(key):
            return EXCLUDED
        for name in self.saved:
            if compile_pattern(rf"(^|.*\.){name}($|\..*)").match(key):
                return EXCLUDED
        if settings.target_modules is None and settings.target_parameters is not None:
            return False
        if self.targets.pattern is not None or not self.targets.has(key):
            return self.targets.has(key)
        if self.semantics.exact_names_skip_layers and self.targets.is_exactly(key):
            return True
        return self._in_layers(key)

    def _in_layers(self, key: str) -> bool:
        """Whether ``layers_to_transform`` lets a module through."""
        indexes, patterns = self.settings.layers_to_transform, self.settings.layers_pattern
        if indexes is None:
            return True
        if isinstance(indexes, list) and not indexes and self.semantics.empty_layers_means_all:
            return True
        if self.semantics.layer_number_anywhere is None and patterns == []:
            return True  # nothing was looked for
        index = layer_index(key, patterns, self.semantics)
        if index is None:
            return False
        if isinstance(indexes, int):
            return index == indexes
        if isinstance(indexes, str):
            raise Raised("TypeError", "'in <string>' requires string as left operand, not int")
        return index in indexes


def layer_index(key: str, layers_pattern: Any, behaviour: Semantics) -> int | None:
    """The layer number of a module name, None where it has none.

    Raises ``Raised`` where what a layers_pattern of the user's captures is no number.
    """
    if behaviour.layer_number_anywhere is None and layers_pattern is None:
        layers_pattern = COMMON_LAYER_NAMES
    match = None
    if layers_pattern is None or (len(layers_pattern) == 0 and behaviour.layer_number_anywhere):
        match = compile_pattern(behaviour.layer_number_anywhere or "").match(key)
    else:
        patterns = [layers_pattern] if isinstance(layers_pattern, str) else layers_pattern
        for pattern in patterns:
            number = behaviour.layer_number.replace("{pattern}", str(pattern))
            match = compile_pattern(number).match(key)
            if match is not None:
                break
    if match is None:
        return None
    captured = match.groupdict().get("idx", match.group(1))
    try:
        return int(captured)
    except (TypeError, ValueError) as exc:
        raise Raised(type(exc).__name__, str(exc)) from None


def entries_of(value: Any, behaviour: Semantics) -> EntrySet:
    """The entries of target_modules as a release compares them."""
    kind = {"suffix": SuffixSet, "regex": RegexSet, "dotted": EntrySet}
    return kind[behaviour.list_entries](value)


class EntrySet:
    """The entries of a target or exclude field: one regex, or names compared as dotted suffixes."""

    def __init__(self, value: Any) -> None:
        self.pattern = value if isinstance(value, str) else None
        self.entries: list[Any] = list(value) if isinstance(value, list | tuple | set) else []
        self._suffixes = {f"{entry}" for entry in self.entries}
        self._names = {entry for entry in self.entries if isinstance(entry, str)}

    def has(self, key: str) -> bool:
        """Whether the field matches a name."""
        if self.pattern is not None:
            return compile_pattern(self.pattern).fullmatch(key) is not None
        return key in self._names or any(s in self._suffixes for s in dotted_suffixes(key))

    def is_exactly(self, key: str) -> bool:
        """Whether a name stands in the list as it is."""
        return key in self._names

    def hits(self, key: str) -> Iterator[Any]:
        """The entries that match a name."""
        if self.pattern is not None:
            if self.has(key):
                yield self.pattern
            return
        suffixes = {key, *dotted_suffixes(key)}
        for entry in self.entries:
            if f"{entry}" in suffixes:
                yield entry


class SuffixSet(EntrySet):
    """Names compared as suffixes with no regard to dots, as in peft 0.4."""

    def has(self, key: str) -> bool:
        """Whether the field matches a name."""
        if self.pattern is not None:
            return super().has(key)
        return any(ends_with(key, entry) for entry in self.entries)

    def hits(self, key: str) -> Iterator[Any]:
        """The entries that match a name."""
        fields = [self.pattern] if self.pattern is not None else [[e] for e in self.entries]
        yield from (
            field if isinstance(field, str) else field[0]
            for field in fields
            if type(self)(field).has(key)
        )


class RegexSet(SuffixSet):
    """Names taken for regular expressions of what follows a dot, as in peft 0.5."""

    def has(self, key: str) -> bool:
        """Whether the field matches a name."""
        if self.pattern is not None:
            return super().has(key)
        found = (compile_pattern(rf".*\.{entry}$").match(key) for entry in self.entries)
        return any(match is not None for match in found) or key in self.entries


def ends_with(key: str, name: Any) -> bool:
    """``key.endswith(name)``, and the error where the name is no string."""
    if not isinstance(name, str):
        text = f"endswith first arg must be str or a tuple of str, not {type(name).__name__}"
        raise Raised("TypeError", text)
    return key.endswith(name)


def dotted_suffixes(key: str) -> Iterator[str]:
    """``b.c`` and ``c`` of ``a.b.c``: what an entry may be compared with."""
    at = key.find(".")
    while at >= 0:
        yield key[at + 1 :]
        at = key.find(".", at + 1)


def pattern_keys(settings: LoraSettings, name: str) -> tuple[Any, Any]:
    """The keys of rank_pattern and alpha_pattern that apply to a name, else the name itself.

    In each field the first that matches wins; where a release looks for both in one list, it is
    the first of either.
    """
    ranks, alphas = settings.rank_pattern, settings.alpha_pattern
    style = settings.semantics.pattern_keys
    if style == "chained":
        key = _first([*ranks, *alphas], name, style)
        return key, key
    return _first(ranks, name, style), _first(alphas, name, style)


def _first(patterns: Iterable[Any], name: str, style: str) -> Any:
    return next((pattern for pattern in patterns if pattern_matches(pattern, name, style)), name)


def pattern_matches(pattern: Any, name: str, style: str) -> bool:
    """Whether a rank_pattern or alpha_pattern key applies to a module name."""
    return compile_pattern(pattern_regex(pattern, style)).match(name) is not None


def pattern_regex(pattern: Any, style: str) -> str:
    """The regular expression that PEFT makes of a rank_pattern or alpha_pattern key."""
    return rf"(.*\.)?({pattern})$" if style == "anchored" else rf".*\.{pattern}$"


def condense(targets: set[Any], others: set[str]) -> set[Any]:
    """The shortest suffixes that still tell targets from other modules.

    PEFT does this with lists of twenty entries or more, which makes full names into suffixes.
    """
    if "" in targets:
        raise Raised("ValueError", "target_modules should not contain an empty string.")
    other_suffixes = {suffix for name in others for suffix in _suffixes(name)}
    required: set[str] = set()
    ordered = sorted((_suffixes(item), item) for item in targets)
    for suffixes, item in ordered:
        for suffix in suffixes:
            if suffix in required or suffix in other_suffixes:
                continue
            if not any(below in required for below in dotted_suffixes(item)):
                required.add(suffix)
                break
    return required or set(targets)


@lru_cache(maxsize=4096)
def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))][::-1]
