"""Lays the trees of one structure under many configs on top of each other: what differs between
them becomes an expression or a rule, what does not is kept.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from formula_search import Expression, constant, find

from lora_lint.models.module_tree import ModuleNode, ModuleTree
from lora_lint.models.sizes import outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


# Fewer values than this may be any of many expressions.
ENOUGH = 8


class UnexplainedError(Exception):
    """A number or a list of layers for which no formula was found."""


class Sample(NamedTuple):
    """A config and the tree built of it.

    ``numbers``: its numeric fields as the formulas see them; ``lists``: its lists.
    ``changed``: the one field in which it differs from the first sample, if it was made so.
    """

    numbers: Mapping[str, Fraction]
    lists: Mapping[str, list[Any]]
    tree: ModuleTree
    changed: str | None = None


class Rule(NamedTuple):
    """The layers of one list: how many, the tests, and the outcomes that make each variant."""

    count: int
    tests: tuple[tuple[str, ...], ...]
    keys: tuple[tuple[Any, ...], ...]
    kinds: tuple[int, ...]


class Merger:
    """Merges the trees of samples; ``expressions`` and ``rules`` collect what they are made of."""

    def __init__(self, samples: list[Sample], expressions: list[Expression], rules: list[Rule]):
        self.samples = samples
        self.fields = sorted(samples[0].numbers)
        self.expressions = expressions
        self.rules = rules
        self.found: list[Expression] = []
        self.known: dict[Any, int] = {}
        self.done: dict[Any, ModuleNode] = {}

    def root(self) -> ModuleNode:
        """The one tree of all samples."""
        return self.node({i: s.tree.root for i, s in enumerate(self.samples)}, "")

    def number(self, vector: dict[int, int], where: str) -> int:
        """A constant, or -1 minus the number of an expression."""
        key = tuple(sorted(vector.items()))
        if key not in self.known:
            values = [Fraction(value) for _, value in key]
            if len(set(values)) == 1 and len(values) >= ENOUGH and values[0] >= 0:
                self.known[key] = int(values[0])
            else:
                self.known[key] = self.reference(self.search(vector, where))
        return self.known[key]

    def reference(self, expression: Expression) -> int:
        """The number under which an expression is kept."""
        if expression not in self.expressions:
            self.expressions.append(expression)
        return -1 - self.expressions.index(expression)

    def search(self, vector: dict[int, int], where: str) -> Expression:
        """The expression of a dimension's values; raises ``UnexplainedError``."""
        order = sorted(vector)
        values = [Fraction(vector[i]) for i in order]
        fitting = [e for e in self.found if self._fits(e, vector)]
        if len(fitting) == 1:
            return fitting[0]
        if len(order) < ENOUGH:
            raise UnexplainedError(f"{where}: seen too seldom")
        columns = {name: [self.samples[i].numbers[name] for i in order] for name in self.fields}
        depends = {
            self.samples[i].changed
            for i in order
            if self.samples[i].changed and 0 in vector and vector[i] != vector[0]
        }
        for names in (depends, self.fields if len(self.fields) <= 40 else ()):
            found = find(values, columns, names) if names else None
            if found:
                self.found.append(found)
                return found
        raise UnexplainedError(f"{where}: {values[:6]} by {sorted(depends)}")

    def _fits(self, expression: Expression, vector: dict[int, int]) -> bool:
        """Whether an expression gives all values. A few values fit many, so what explains other
        dimensions of the model comes first.
        """
        for i, value in vector.items():
            total = Fraction(0)
            for n, d, factors, divisors in expression:
                term = Fraction(n, d)
                for name in factors:
                    term *= self.samples[i].numbers[name]
                for name in divisors:
                    term /= self.samples[i].numbers[name] or 1
                total += term
            if total != value:
                return False
        return True

    def node(self, group: dict[int, ModuleNode], where: str) -> ModuleNode:
        """One node for the same node of several samples."""
        key = tuple((i, id(node)) for i, node in sorted(group.items()))
        if key not in self.done:
            self.done[key] = self._node(group, where)
        return self.done[key]

    def _node(self, group: dict[int, ModuleNode], where: str) -> ModuleNode:
        first = next(iter(group.values()))
        cls = first.cls
        if len({(n.cls, n.kind) for n in group.values()}) > 1:
            cls = self._activation(group, where)
        if len({tuple((k, len(s)) for k, s in n.parameters.items()) for n in group.values()}) > 1:
            raise UnexplainedError(f"{where}: other parameters")
        shapes = {
            name: tuple(
                self.number({i: n.parameters[name][d] for i, n in group.items()}, f"{where}.{name}")
                for d in range(len(shape))
            )
            for name, shape in first.parameters.items()
        }
        facts = self._facts({i: dict(n.facts) for i, n in group.items()}, where)
        return ModuleNode(cls, first.kind, shapes, self._children(group, where), facts)

    def _activation(self, group: dict[int, ModuleNode], where: str) -> str:
        """The field that names the activation which a module is; lists hold its class for each."""
        for name in self.samples[0].lists:
            if all(self.samples[i].lists.get(name) == [n.cls] for i, n in group.items()):
                return f"?{name}"
        if not any(n.parameters or n.children for n in group.values()):
            return "?"  # several fields decide
        raise UnexplainedError(f"{where}: {sorted({n.cls for n in group.values()})}")

    def _facts(self, group: dict[int, dict[str, Any]], where: str) -> dict[str, Any]:
        first = next(iter(group.values()))
        # One group is the usual case, and not written.
        if any("groups" in facts for facts in group.values()):
            for facts in group.values():
                facts.setdefault("groups", 1)
        if len({tuple(sorted(f)) for f in group.values()}) > 1:
            raise UnexplainedError(f"{where}: other facts")
        merged: dict[str, Any] = {}
        for name, value in first.items():
            values = {i: f[name] for i, f in group.items()}
            if isinstance(value, bool):
                if len(set(values.values())) > 1:
                    raise UnexplainedError(f"{where}: {name}")
                merged[name] = value
            elif isinstance(value, list):
                merged[name] = self._numbers(values, f"{where} {name}")
            elif isinstance(value, dict):
                merged[name] = {
                    k: self._numbers({i: v[k] for i, v in values.items()}, where) for k in value
                }
            else:
                merged[name] = self.number(values, f"{where} {name}")
        return merged

    def _numbers(self, values: dict[int, list[int]], where: str) -> list[int]:
        lengths = {len(v) for v in values.values()}
        if len(lengths) > 1:
            raise UnexplainedError(f"{where}: other lengths")
        return [
            self.number({i: v[d] for i, v in values.items()}, where) for d in range(lengths.pop())
        ]

    def _children(self, group: dict[int, ModuleNode], where: str) -> dict[str, ModuleNode]:
        names = {tuple(n.children) for n in group.values()}
        lists = all(_is_list(n) for n in group.values()) and any(n for n in names)
        problem: UnexplainedError | None = None
        if len(names) == 1:
            try:
                return {
                    name: self.node(
                        {i: n.children[name] for i, n in group.items()}, f"{where}.{name}"
                    )
                    for name in names.pop()
                }
            except UnexplainedError as exc:
                if not lists:
                    raise
                problem = exc
        if not lists:
            raise UnexplainedError(f"{where}: other children {sorted(names, key=len)[:2]}")
        try:
            return self._layers(group, where)
        except UnexplainedError as exc:
            raise problem or exc from exc

    def _layers(self, group: dict[int, ModuleNode], where: str) -> dict[str, ModuleNode]:
        count = self.number({i: len(n.children) for i, n in group.items()}, f"{where} count")
        problem: UnexplainedError | None = None
        for tests in self._tests(group):
            split = self._split(group, tests)
            if split is None:
                continue
            kinds = _kinds(split)
            try:
                nodes = [self.node(found, f"{where}.*") for _, found in kinds]
            except UnexplainedError as exc:
                problem = problem or exc
                continue
            of = {key: k for k, (keys, _) in enumerate(kinds) for key in keys}
            rule = Rule(count, tests, tuple(of), tuple(of.values()))
            if rule not in self.rules:
                self.rules.append(rule)
            number = self.rules.index(rule)
            return {f"*{number}:{k}": node for k, node in enumerate(nodes)}
        raise problem or UnexplainedError(f"{where}: no rule for its layers")

    def _split(
        self, group: dict[int, ModuleNode], tests: tuple[tuple[str, ...], ...]
    ) -> dict[tuple[Any, ...], dict[int, ModuleNode]] | None:
        """The layers by the outcomes of tests, None where equal outcomes have unequal layers."""
        found: dict[tuple[Any, ...], dict[int, ModuleNode]] = {}
        for i, node in group.items():
            count = len(node.children)
            values = [self._values(test, self.samples[i], count) for test in tests]
            if any(v is None for v in values):
                return None
            for index in range(count):
                key = tuple(
                    outcome(test[0], v, index, count)  # type: ignore[arg-type]
                    for test, v in zip(tests, values, strict=True)
                )
                child = node.children[str(index)]
                if found.setdefault(key, {}).setdefault(i, child) is not child:
                    return None
        return dict(sorted(found.items(), key=str))

    def _values(self, test: tuple[str, ...], sample: Sample, count: int) -> list[Any] | None:
        kind, *names = test
        if kind in ("in", "is"):
            value = sample.lists.get(names[0])
            if value is None:
                return [[]] if kind == "in" else None
            good = kind == "in" or len(value) == count
            return [value] if good else None
        numbers = [sample.numbers[name] for name in names]
        if any(n.denominator != 1 for n in numbers):
            return None
        if kind in ("every", "each", "offset") and numbers[0] < 1:
            return None
        return [int(n) for n in numbers]

    def _tests(self, group: dict[int, ModuleNode]) -> Iterator[tuple[tuple[str, ...], ...]]:
        yield ()
        texts = {n for s in self.samples for n, v in s.lists.items() if v and isinstance(v[0], str)}
        others = {n for s in self.samples for n in s.lists} - texts
        small = [
            n
            for n in self.fields
            if all(s.numbers[n].denominator == 1 and 0 <= s.numbers[n] <= 64 for s in self.samples)
        ]
        single: list[tuple[str, ...]] = [("is", name) for name in sorted(texts)]
        single += [("first",), ("last",)]
        for name in small:
            single += [("below", name), ("every", name), ("each", name), ("tail", name)]
        single += [("in", name) for name in sorted(others)]
        yield from ((test,) for test in single)
        offsets = [("offset", a, b) for a in small for b in small if a != b]
        yield from ((test,) for test in offsets)
        likely = [t for t in single if t[0] in ("is", "in", "below", "every", "each")]
        # A test says something only where it tells layers apart.
        useful = [t for t in (*likely, *offsets) if self._tells(group, t)][:24]
        yield from combinations(useful, 2)
        yield from combinations(useful[:8], 3)

    def _tells(self, group: dict[int, ModuleNode], test: tuple[str, ...]) -> bool:
        for i, node in group.items():
            count = len(node.children)
            values = self._values(test, self.samples[i], count)
            if values is None:
                return False
            if len({outcome(test[0], values, index, count) for index in range(count)}) > 1:
                return True
        return False


def _kinds(
    split: dict[tuple[Any, ...], dict[int, ModuleNode]],
) -> list[tuple[list[tuple[Any, ...]], dict[int, ModuleNode]]]:
    """Outcomes put together that make the same kind of layer, as far as the samples tell."""
    kinds: list[tuple[list[tuple[Any, ...]], dict[int, ModuleNode], Any]] = []
    for key, found in split.items():
        frame = _frame(next(iter(found.values())))
        for keys, nodes, other in kinds:
            if frame == other and all(nodes.get(i, node) is node for i, node in found.items()):
                keys.append(key)
                nodes.update(found)
                break
        else:
            kinds.append(([key], dict(found), frame))
    kinds.sort(key=lambda kind: -len(kind[1]))  # what is seen most explains the rest
    return [(keys, nodes) for keys, nodes, _ in kinds]


def _frame(node: ModuleNode) -> Any:
    """A module without its numbers."""
    return (
        node.cls,
        tuple((name, len(shape)) for name, shape in node.parameters.items()),
        tuple((name, _frame(child)) for name, child in node.children.items()),
    )


def _is_list(node: ModuleNode) -> bool:
    return list(node.children) == [str(i) for i in range(len(node.children))]


__all__ = ["Merger", "Rule", "Sample", "UnexplainedError", "constant"]
