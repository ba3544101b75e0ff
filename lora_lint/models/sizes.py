"""The module tree of a config.json by formulas: every size as an expression of config fields.

``tools/catalogue_formulas.py`` makes the files, one per class, and describes them. A config
that a formula does not cover, whatever the cause, gives a reason and no tree: a field that is
left out and whose default is not the same in all releases, a switch nobody has built, a division
that leaves a rest, an absurd number.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.models import catalogue
from lora_lint.models.config_file import MISSING
from lora_lint.models.module_tree import KINDS, ModuleNode, ModuleTree
from lora_lint.models.storage import MAX_DEPTH, MAX_MODULES, read_ties

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.models.config_file import ConfigFile

# The longest lists of real models have a few hundred layers and some thousand experts; the largest
# dimension is a vocabulary's.
MAX_LAYERS: Final = 10_000
MAX_VALUE: Final = 2**31 - 1
LABELS: Final = "num_labels"
# The class of a module without parameters, where several fields decide which activation it is.
ACTIVATION: Final = "Activation"


class UncoveredError(Exception):
    """A config that the formulas do not cover; the reason for people."""


def sized(known: catalogue.Architecture, cls: str, config: ConfigFile) -> ModuleTree | str:
    """The tree that transformers builds of a class from a config.json, or why it is not known.

    It holds for the transformers release that the catalogue is made with; a tree's facts have the
    sizes that decide shapes and not those that say how the model runs.
    """
    data = catalogue.formulas(known.model_type, cls)
    if data is None:
        return f"the catalogue has no formulas for {cls}"
    try:
        return tree_of(data, cls, config)
    except UncoveredError as exc:
        return str(exc)


def tree_of(data: Mapping[str, Any], cls: str, config: ConfigFile) -> ModuleTree:
    """The tree by the formulas of a model type.

    Raises ``UncoveredError`` with the reason where they do not cover the config.
    """
    values = Values(data, cls, config)
    structure = next((s for s in data["trees"][cls] if values.meets(s)), None)
    if structure is None:
        raise UncoveredError(values.problem or "its switches are set in a way that was not built")
    for path in values.fields:
        values.number(path)
    for path in structure.get("acts", ()):
        values.activation(path)
    for path, state in structure.get("fixed", {}).items():
        if values.given(path) not in (MISSING, state):
            raise UncoveredError(f"{path} is not as usual")
    root = _Builder(data, values).root(structure["root"])
    sizes = {name: values.evaluate(number) for name, number in structure["config"].items()}
    facts = {**data["facts"], **structure.get("facts", {})}
    if sizes:
        facts["config"] = {name: int(size) for name, size in sizes.items()}
    return ModuleTree(
        root=root,
        cls=cls,
        model_type=structure.get("model_type", data["model_type"]),
        transformers=data["transformers"],
        grade="given",
        facts=facts,
        shared=structure.get("shared", {}),
        tied=read_ties(structure.get("tied", [])),
    )


class Need(NamedTuple):
    """A field of a formula: its least value, and the expressions that a config's silence and its
    null stand for (-1: not known).
    """

    least: float
    absent: int
    null: int


class Values:
    """The numbers and switches of a config, as transformers takes them."""

    def __init__(self, data: Mapping[str, Any], cls: str, config: ConfigFile) -> None:
        self.data = data
        self.config = config
        self.own_class = config.architecture == cls
        self.fields: Mapping[str, Any] = {}
        self.numbers: dict[str, Fraction] = {}
        self.expressions: dict[int, Fraction] = {}
        self.pending: set[str] = set()
        self.problem = ""
        for name in data.get("stop", ()):
            if config.get(name) is not MISSING:
                raise UncoveredError(f"{name} is a field of an older form")
        # A part that is left out has other defaults than one that says little.
        for part in data["parts"]:
            whole = data["flat"] and part == "text_config" and part not in config.values
            if not whole and not isinstance(config.values.get(part), dict):
                raise UncoveredError(f"it has no {part}")

    def given(self, path: str) -> Any:
        """The config's own value under any of the field's names, else ``MISSING``."""
        found = self.config.get(path)
        for other in self.data["also"].get(path, ()):
            value = self.config.get(other)
            if value is MISSING:
                continue
            if found is not MISSING and found != value:
                raise UncoveredError(f"{path} and {other} differ")
            found = value
        return found

    # Switches

    def meets(self, structure: Mapping[str, Any]) -> bool:
        """Whether a structure is that of this config: its switches, and which fields are equal."""
        if any(self.state(path) != state for path, state in structure["when"].items()):
            return False
        self.fields = self.data["needs"][structure["needs"]]
        self.numbers, self.expressions = {}, {}
        for wanted, pairs in ((True, "equal"), (False, "differ")):
            for first, second in structure.get(pairs, ()):
                if (self.number(first) == self.number(second)) != wanted:
                    self.problem = f"{first} and {second} are a pair that was not built"
                    return False
        return True

    def state(self, path: str) -> Any:
        """A switch's state: a truth value, null, ``=text``, ``=act`` for any activation, ``0``, or
        ``#`` for another number.
        """
        found = self._stated(path)
        if path in self.data["act_fields"] and self._activation(found):
            return "=act"
        return found

    def _stated(self, path: str) -> Any:
        value = self.given(path)
        return self.data["silent"].get(path, "?") if value is MISSING else state_of(value)

    def _activation(self, state: Any) -> Any:
        return self.data["acts"].get(state[1:]) if isinstance(state, str) else None

    def activation(self, path: str) -> str:
        """The class of the activation that a field names; where that follows from another field,
        a word that stands for all.
        """
        state = self._stated(path)
        found = self._activation(state)
        if found is None and state != "?":
            raise UncoveredError(f"{path} is no activation that was built")
        return found if isinstance(found, str) else ACTIVATION

    # Numbers

    def number(self, path: str) -> Fraction:
        """The number that a field has, or that transformers takes where it is left out or null."""
        if path not in self.numbers:
            if path in self.pending:
                raise UncoveredError(f"{path} depends on itself")
            self.pending.add(path)
            self.numbers[path] = self._number(path, Need(*self.fields[path]))
        return self.numbers[path]

    def _number(self, path: str, need: Need) -> Fraction:
        value = self._labels() if path == LABELS else self.given(path)
        if value is MISSING or value is None:
            number = need.absent if value is MISSING else need.null
            if number < 0:
                what = "left out" if value is MISSING else "null"
                raise UncoveredError(f"{path} is {what}, which has no one meaning")
            found = self.evaluate(number)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise UncoveredError(f"{path} is not a number: {value!r:.40}")
        elif isinstance(value, float) and not isinstance(need.least, float):
            raise UncoveredError(f"{path} is not a whole number: {value!r:.40}")
        else:
            try:
                found = Fraction(value)
            except (ValueError, OverflowError):  # nan, infinity
                raise UncoveredError(f"{path} is {value}") from None
        if not need.least <= found <= MAX_VALUE:
            raise UncoveredError(f"{path} is outside what was built")
        return found

    def _labels(self) -> Any:
        """The number of labels. A model that is yet to get its head has as many as the run says."""
        names = self.config.get("id2label")
        if isinstance(names, dict):
            return len(names)
        value = self.config.get(LABELS)
        if value is MISSING and not self.own_class:
            raise UncoveredError("it does not say how many labels there are")
        return value

    def evaluate(self, number: int) -> Fraction:
        """The value of an expression."""
        if number not in self.expressions:
            total = Fraction(0)
            for numerator, denominator, factors, divisors in self.data["expressions"][number]:
                term = Fraction(numerator, denominator)
                for path in factors:
                    term *= self.number(self.data["fields"][path])
                for path in divisors:
                    divisor = self.number(self.data["fields"][path])
                    if not divisor:
                        raise UncoveredError(f"{self.data['fields'][path]} is 0")
                    term /= divisor
                total += term
            self.expressions[number] = total
        return self.expressions[number]

    def size(self, number: int) -> int:
        """A dimension: as it stands, or the expression that a negative number stands for."""
        if number >= 0:
            return number
        value = self.evaluate(-1 - number)
        if value.denominator != 1:
            raise UncoveredError("a size is not a whole number")
        if not 0 <= value <= MAX_VALUE:
            raise UncoveredError("a size is out of bounds")
        return int(value)

    # Layers

    def variants(self, rule: Mapping[str, Any]) -> Iterator[int]:
        """For each layer of a list the variant it is of, by its number among the rule's keys."""
        count = self.size(rule["count"])
        if count > MAX_LAYERS:
            raise UncoveredError(f"{count} layers")
        keys = {tuple(key): kind for key, kind in zip(rule["keys"], rule["kinds"], strict=True)}
        tests = [self._test(test, count) for test in rule["tests"]]
        for index in range(count):
            key = tuple(outcome(test, values, index, count) for test, values in tests)
            if key not in keys:
                raise UncoveredError(f"layer {index} is of a kind that was not built")
            yield keys[key]

    def _test(self, test: list[Any], count: int) -> tuple[str, list[Any]]:
        kind, *paths = test
        if kind in ("in", "is"):
            value = self.given(paths[0])
            if value is MISSING or value is None:
                value = [] if kind == "in" else None
            good = (
                isinstance(value, list)
                and len(value) <= MAX_LAYERS
                and all(isinstance(v, int if kind == "in" else str) for v in value)
                and (kind == "in" or len(value) == count)
            )
            if not good:
                raise UncoveredError(f"{paths[0]} does not list the layers")
            return kind, [value]
        return kind, [int(self.number(path)) for path in paths]


def state_of(value: Any) -> Any:
    """How a structure's conditions call a value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return "#" if value else 0
    if isinstance(value, str):
        return f"={value}"
    return "[]" if isinstance(value, list) else "?"


def outcome(kind: str, values: list[Any], index: int, count: int) -> Any:
    """What a test says of a layer: true or false, or for ``is`` the text that its list has."""
    if kind == "is":
        return values[0][index]
    if kind == "in":
        return index in values[0]
    if kind == "first":
        return index == 0
    if kind == "last":
        return index == count - 1
    number = values[0]
    if kind == "below":
        return index < number
    if kind == "tail":
        return index < count - number
    if number < 1:
        raise UncoveredError("layers of every 0th kind")
    if kind == "every":
        return (index + 1) % number == 0
    if kind == "each":
        return index % number == 0
    return index % number == values[1]  # "offset"


class _Builder:
    """Makes the nodes of one tree; a row of the table becomes one node."""

    def __init__(self, data: Mapping[str, Any], values: Values) -> None:
        self.data = data
        self.values = values
        self.done: dict[int, tuple[ModuleNode, int, int]] = {}

    def root(self, number: int) -> ModuleNode:
        return self._node(number)[0]

    def _node(self, number: int) -> tuple[ModuleNode, int, int]:
        if number in self.done:
            return self.done[number]
        cls, own, groups, *facts = self.data["modules"][number]
        children: dict[str, ModuleNode] = {}
        count, depth = 1, 1
        for group, names in self._children(groups):
            child, its_count, its_depth = self._node(group)
            children.update(dict.fromkeys(names, child))
            count += its_count * len(names)
            depth = max(depth, its_depth + 1)
        if count > MAX_MODULES or depth > MAX_DEPTH:
            raise UncoveredError("more modules than any model has")
        if children and any(name.isdigit() for name in children):
            children = _in_order(children)
        entry = self.data["classes"][cls]
        name, kind = (entry, KINDS[0]) if isinstance(entry, str) else entry
        if name[0] == "?":
            name = self.values.activation(name[1:]) if name[1:] else ACTIVATION
        shapes = {key: self._shape(shape) for key, shape in self.data["parameters"][own].items()}
        node = ModuleNode(name, kind, shapes, children, self._facts(facts))
        self.done[number] = node, count, depth
        return self.done[number]

    def _children(self, groups: list[Any]) -> Iterator[tuple[int, list[str]]]:
        lists: dict[int, list[list[str]]] = {}
        for number, *items in groups:
            names: list[str] = []
            for item in items:
                if isinstance(item, list):
                    names += map(str, range(item[0], item[1] + 1))
                elif item[0] != "*":
                    names.append(item)
                else:
                    rule, _, key = item[1:].partition(":")
                    names += self._listed(int(rule), int(key), lists)
            if names:
                yield number, names

    def _listed(self, rule: int, key: int, lists: dict[int, list[list[str]]]) -> list[str]:
        if rule not in lists:
            found = self.data["rules"][rule]
            lists[rule] = [[] for _ in set(found["kinds"])]
            for index, variant in enumerate(self.values.variants(found)):
                lists[rule][variant].append(str(index))
        return lists[rule][key]

    def _shape(self, shape: Any) -> tuple[int, ...]:
        if isinstance(shape, int):
            return (0,) * shape
        return tuple(self.values.size(number) for number in shape)

    def _facts(self, rest: list[Any]) -> dict[str, Any]:
        facts = dict(rest[0]) if rest else {}
        for name, value in facts.items():
            if isinstance(value, list):
                facts[name] = list(self._shape(value))
            elif isinstance(value, dict):
                facts[name] = {key: list(self._shape(shape)) for key, shape in value.items()}
            elif not isinstance(value, bool):
                facts[name] = self.values.size(value)
        return facts


def _in_order(children: dict[str, ModuleNode]) -> dict[str, ModuleNode]:
    """Numbered children by their number, as a list of modules has them."""
    if not all(re.fullmatch(r"\d+", name) for name in children):
        return children
    return {name: children[name] for name in sorted(children, key=int)}
