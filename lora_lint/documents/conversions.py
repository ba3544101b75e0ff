"""Conversions whose result is certain where what they are given is: ``int(x)``, ``list(x)``,
``text.split(",")``, and comprehensions that only tidy up a list of texts.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, Final

from lora_lint.documents.constants import MAX_TEXT
from lora_lint.documents.tree import Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.documents.scopes import Frame
    from lora_lint.documents.static import Static

_SCALARS: Final = {"int": int, "float": float, "str": str, "bool": bool}
_SEQUENCES: Final = ("list", "tuple", "set", "sorted")
# Methods of texts by the numbers of arguments that they are known with.
_METHODS: Final = {
    "lower": (0,),
    "upper": (0,),
    "strip": (0, 1),
    "lstrip": (0, 1),
    "rstrip": (0, 1),
    "removeprefix": (1,),
    "removesuffix": (1,),
    "replace": (2,),
    "split": (0, 1),
}
MAX_PARTS: Final = 1_000


class NotStatic(Exception):  # noqa: N818 - it is an answer, not a fault
    """The value is not certain."""


def converted(static: Static, call: ast.Call, frame: Frame, depth: int) -> Node | None:
    """The node of a call that only converts a value that is static; None for any other call."""
    function = call.func
    if call.keywords:
        return None
    if isinstance(function, ast.Attribute) and function.attr in _METHODS:
        return _method(static, call, function, frame, depth)
    if len(call.args) != 1 or isinstance(call.args[0], ast.Starred):
        return None
    for name, convert in _SCALARS.items():
        if static.names.is_builtin(function, name, frame.scope):
            given = static.node(call.args[0], frame, depth + 1)
            if given.kind != "scalar":
                return static.unknown(call, given.note or "the result of a function call")
            try:
                value = convert(given.value)
            except (TypeError, ValueError, OverflowError):
                return None
            return _made(static, call, value, [given])
    for name in _SEQUENCES:
        if static.names.is_builtin(function, name, frame.scope):
            given = static.node(call.args[0], frame, depth + 1)
            if given.kind == "unknown":
                return static.unknown(call, given.note or "the result of a function call")
            return _collected(static, call, given, name)
    return None


def _method(
    static: Static, call: ast.Call, function: ast.Attribute, frame: Frame, depth: int
) -> Node | None:
    if len(call.args) not in _METHODS[function.attr]:
        return None
    parts = [static.node(part, frame, depth + 1) for part in (function.value, *call.args)]
    if not isinstance(parts[0].value, str):
        return static.unknown(call, parts[0].note) if parts[0].note else None
    try:
        value = _called(function.attr, [part.value for part in parts])
    except NotStatic:
        return None
    return _made(static, call, value, parts)


def _collected(static: Static, call: ast.Call, given: Node, name: str) -> Node | None:
    """``list``, ``tuple``, ``set`` or ``sorted`` of a list that is written out."""
    if given.kind != "sequence" or any(item.kind != "scalar" for item in given.items):
        return None
    items = list(given.items)
    if name == "sorted":
        try:
            items.sort(key=lambda item: item.value)  # type: ignore[arg-type,return-value]
        except TypeError:
            return None
    return _sequence(static, call, items, [given])


def comprehension(static: Static, node: ast.ListComp, frame: Frame, depth: int) -> Node | None:
    """``[part.strip() for part in text.split(",") if part]`` over texts that are static."""
    if len(node.generators) != 1:
        return None
    generator = node.generators[0]
    if generator.is_async or not isinstance(generator.target, ast.Name):
        return None
    given = static.node(generator.iter, frame, depth + 1)
    if given.kind != "sequence" or len(given.items) > MAX_PARTS:
        return static.unknown(node, given.note) if given.note else None
    name, values = generator.target.id, []
    try:
        for item in given.items:
            if not isinstance(item.value, str):
                return None
            if all(_text(test, name, item.value) for test in generator.ifs):
                values.append(_text(node.elt, name, item.value))
            if sum(map(len, map(str, values))) > MAX_TEXT:
                return None
    except NotStatic:
        return None
    return _made(static, node, values, [given])


def _text(expression: ast.expr, name: str, value: str) -> Any:
    """The value of a name, of constants, and of methods called on them.

    Raises ``NotStatic`` for anything else.
    """
    if isinstance(expression, ast.Name) and expression.id == name:
        return value
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return expression.value
    if isinstance(expression, ast.JoinedStr):
        return "".join(_text(part, name, value) for part in expression.values)
    if isinstance(expression, ast.FormattedValue) and expression.format_spec is None:
        if expression.conversion == -1:
            return _text(expression.value, name, value)
        raise NotStatic
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Attribute):
        method, arguments = expression.func.attr, expression.args
        if not expression.keywords and len(arguments) in _METHODS.get(method, ()):
            parts = [_text(part, name, value) for part in (expression.func.value, *arguments)]
            return _called(method, parts)
    raise NotStatic


def _called(method: str, parts: Sequence[object]) -> Any:
    """The result of a text's method. Raises ``NotStatic`` where it can't be called so."""
    if not all(isinstance(part, str) for part in parts):
        raise NotStatic
    if sum(len(str(part)) for part in parts) > MAX_TEXT:
        raise NotStatic
    if method == "replace":
        text, old, new = map(str, parts)
        if len(text) + text.count(old) * len(new) > MAX_TEXT:
            raise NotStatic
    try:
        result = getattr(str, method)(*parts)
    except ValueError:
        raise NotStatic from None
    if len(result) > MAX_TEXT or (isinstance(result, list) and len(result) > MAX_PARTS):
        raise NotStatic
    return result


def _made(static: Static, expression: ast.expr, value: object, parts: list[Node]) -> Node:
    """A node for a value that follows from others."""
    if not isinstance(value, list):
        return static.computed(expression, value, parts)
    items = [static.computed(expression, item, parts) for item in value]
    return _sequence(static, expression, items, parts)


def _sequence(static: Static, expression: ast.expr, items: list[Node], parts: list[Node]) -> Node:
    node = static.computed(expression, None, parts)
    made = Node("sequence", node.span, items=items, style="flow", locked=node.locked)
    made.origin, made.note = node.origin, node.note
    return static.finish(made, expression)
