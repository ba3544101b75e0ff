"""Finds the expression that a list of numbers is, from the fields of the configs they belong to.

The grammar: a sum of up to three terms; a term is a rational number times up to two fields, divided
by up to one. A number that is none of these is not explained, and its class gets no formulas.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement
from math import gcd
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# [numerator, denominator, [fields], [fields divided by]]
Term = tuple[int, int, tuple[str, ...], tuple[str, ...]]
Expression = tuple[Term, ...]
CONSTANT: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def constant(value: int) -> Expression:
    """A number that depends on no field."""
    return ((value, 1, (), ()),)


def find(
    vector: Sequence[Fraction], columns: Mapping[str, Sequence[Fraction]], names: Iterable[str]
) -> Expression | None:
    """The simplest expression in these fields with these values, None where there is none."""
    if len(set(vector)) == 1:
        value = vector[0]
        return ((value.numerator, value.denominator, (), ()),)
    vector = _whole(vector)
    monomials = _monomials(tuple((name, tuple(_whole(columns[name]))) for name in sorted(names)))
    exact = _one(vector, monomials)
    if exact:
        return (exact,)
    if len(monomials.plain) > 700:
        return None
    simple = [
        (m, values) for m, values in monomials.plain if len(m[0]) + len(m[1]) <= 2 or len(m[1]) == 2
    ]
    for m, values in simple:
        for factor in (1, 2, 3, 4, -1, -2):
            rest = [v - factor * w for v, w in zip(vector, values, strict=True)]
            other = _one(rest, monomials)
            if other:
                return _sum((_term(Fraction(factor), m), other))
    if len(simple) > 60:
        return None
    for (m, first), (n, second) in combinations_with_replacement(simple, 2):
        for a in (1, 2, -1, 3):
            for b in (1, 2, -1, 3):
                rest = [v - a * w - b * u for v, w, u in zip(vector, first, second, strict=True)]
                other = _one(rest, monomials)
                if other:
                    return _sum((_term(Fraction(a), m), _term(Fraction(b), n), other))
    return None


def _whole(values: Sequence[Fraction]) -> Sequence[Any]:
    """Plain integers where all are, which are much faster."""
    return [int(v) for v in values] if all(v.denominator == 1 for v in values) else values


def _sum(terms: Iterable[Term]) -> Expression:
    return tuple(sorted(terms, key=lambda term: (term[3], term[2], term[0])))


class _Table:
    def __init__(self, plain: list[Any]) -> None:
        self.plain = plain
        self.by_direction: dict[tuple[int, ...], tuple[Any, Fraction]] = {}
        for m, values in plain:
            direction, size = _direction(values)
            self.by_direction.setdefault(direction, (m, size))


@lru_cache(maxsize=64)
def _monomials(columns: tuple[tuple[str, tuple[Fraction, ...]], ...]) -> _Table:
    values = dict(columns)
    length = len(columns[0][1]) if columns else 0
    found: list[Any] = [(CONSTANT, [1] * length)] if length else []
    found += [(((a,), ()), list(values[a])) for a in values]
    found += [
        (((a,), (b,)), quotient)
        for a in values
        for b in values
        if a != b and (quotient := _divided(values[a], values[b]))
    ]
    found += [
        (((a, a), (b, b)), [v * v for v in quotient])
        for a in values
        for b in values
        if a != b and (quotient := _divided(values[a], values[b]))
    ]
    pairs = list(combinations_with_replacement(values, 2))
    products = {
        pair: [v * w for v, w in zip(values[pair[0]], values[pair[1]], strict=True)]
        for pair in pairs
    }
    found += [((pair, ()), product) for pair, product in products.items()]
    if len(values) <= 6:
        found += [
            ((three, ()), [v * w * u for v, w, u in zip(*(values[n] for n in three), strict=True)])
            for three in combinations_with_replacement(values, 3)
        ]
    if len(values) <= 14:
        found += [
            ((pair, (c,)), quotient)
            for pair, product in products.items()
            for c in values
            if c not in pair and (quotient := _divided(product, values[c]))
        ]
    return _Table(found)


def _divided(values: Sequence[Fraction], divisors: Sequence[Fraction]) -> list[Fraction] | None:
    """Quotients rounded down, as classes divide; formulas are used only where nothing is left."""
    if not all(divisors):
        return None
    return [v // w for v, w in zip(values, divisors, strict=True)]


def _direction(values: Sequence[Fraction]) -> tuple[tuple[int, ...], Fraction]:
    """The values without their common factor, and the factor."""
    common = 1
    for value in values:
        common = common * value.denominator // gcd(common, value.denominator)
    whole = [int(value * common) for value in values]
    size = gcd(*whole)
    if not size:
        return tuple(whole), Fraction(0)
    if next(v for v in whole if v) < 0:
        size = -size
    return tuple(v // size for v in whole), Fraction(size, common)


def _one(vector: Sequence[Fraction], table: _Table) -> Term | None:
    direction, size = _direction(vector)
    found = table.by_direction.get(direction)
    if found is None or not size or not found[1]:
        return None
    factor = size / found[1]
    if factor.numerator > 64 and found[0] != CONSTANT:
        return None
    return _term(factor, found[0])


def _term(factor: Fraction, monomial: Any) -> Term:
    return factor.numerator, factor.denominator, monomial[0], monomial[1]


def fields_of(expression: Expression) -> Iterator[str]:
    """The fields in an expression."""
    for _, _, factors, divisors in expression:
        yield from factors
        yield from divisors
