"""Which names a config's patterns match.

Sources, all peft 0.21.2: tuners/tuners_utils.py ``check_target_module_exists`` and
``_find_minimal_target_modules``; utils/other.py ``match_target_against_key`` and
``get_pattern_key``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lora_lint.injection.patterns import compile_pattern
from lora_lint.injection.simulation import Raised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.injection.config import LoraSettings

# From this many entries on PEFT condenses a list of targets (utils/constants.py).
MIN_TARGETS_TO_CONDENSE = 20
EXCLUDED = "excluded"


class Matcher:
    """Decides for one config which module names are targeted, excluded or neither."""

    def __init__(self, settings: LoraSettings) -> None:
        self.settings = settings
        self.targets = EntrySet(settings.target_modules)
        self.excludes = EntrySet(settings.exclude_modules)
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
        if self.targets.pattern is not None or self.targets.is_exactly(key):
            return self.targets.has(key)
        return self.targets.has(key) and self._in_layers(key)

    def _in_layers(self, key: str) -> bool:
        """Whether ``layers_to_transform`` lets a module through: its first number counts."""
        indexes = self.settings.layers_to_transform
        if indexes is None or (isinstance(indexes, list) and not indexes):
            return True
        index = layer_index(key, self.settings.layers_pattern)
        if index is None:
            return False
        if isinstance(indexes, int):
            return index == indexes
        if isinstance(indexes, str):
            raise Raised("TypeError", "'in <string>' requires string as left operand, not int")
        return index in indexes


def layer_index(key: str, layers_pattern: Any) -> int | None:
    """The layer number of a module name, None where it has none."""
    if layers_pattern is None or len(layers_pattern) == 0:
        match = _FIRST_NUMBER.match(key)
    else:
        patterns = [layers_pattern] if isinstance(layers_pattern, str) else layers_pattern
        match = None
        for pattern in patterns:
            match = compile_pattern(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.").match(key)
            if match is not None:
                break
    return int(match.group("idx")) if match else None


_FIRST_NUMBER = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")


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


def dotted_suffixes(key: str) -> Iterator[str]:
    """``b.c`` and ``c`` of ``a.b.c``: what an entry may be compared with."""
    at = key.find(".")
    while at >= 0:
        yield key[at + 1 :]
        at = key.find(".", at + 1)


def pattern_key(patterns: Iterable[Any], name: str) -> Any:
    """The first pattern that matches the end of a name, else the name itself."""
    for pattern in patterns:
        if pattern_matches(pattern, name):
            return pattern
    return name


def pattern_matches(pattern: Any, name: str) -> bool:
    """Whether a rank_pattern or alpha_pattern key applies to a module name."""
    return compile_pattern(rf"(.*\.)?({pattern})$").match(name) is not None


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
