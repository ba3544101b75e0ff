"""Whether a Python file may change a value after it was given a name."""

from __future__ import annotations

import ast
from functools import cached_property
from typing import TYPE_CHECKING, Final

from lora_lint.documents.callees import last_before, matters

if TYPE_CHECKING:
    from lora_lint.documents.callees import Callees
    from lora_lint.documents.scopes import Frame, Names, Scope, Store, Use

# Methods of lists and dicts that change nothing.
_READING: Final = frozenset({"copy", "count", "get", "index", "items", "keys", "values"})
# Builtins and packages whose functions change no list or dict that they are given.
_SAFE_BUILTINS: Final = frozenset(
    {
        "all", "any", "bool", "dict", "enumerate", "frozenset", "len", "list", "map", "max",
        "min", "print", "repr", "set", "sorted", "str", "sum", "tuple", "type", "zip",
    }
)  # fmt: skip
_SAFE_PACKAGES: Final = frozenset(
    {"datasets", "json", "logging", "peft", "pprint", "torch", "transformers", "trl", "unsloth",
     "wandb", "yaml"}
)  # fmt: skip
# Those of them that give the same items in a new collection.
_COPYING: Final = frozenset(
    {"dict", "enumerate", "list", "map", "max", "min", "sorted", "tuple", "zip"}
)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# What only looks at a value.
_HARMLESS: Final = (
    ast.Assert,
    ast.Compare,
    ast.Expr,
    ast.FormattedValue,
    ast.If,
    ast.UnaryOp,
    ast.While,
    ast.YieldFrom,
)
MAX_ALIASES: Final = 10


class Changes:
    """Looks for what may change lists, dicts and config objects."""

    def __init__(self, names: Names, callees: Callees) -> None:
        self.names = names
        self.callees = callees
        self._later: dict[ast.Call, list[Store]] | None = None

    @cached_property
    def dynamic(self) -> str | None:
        """Why any name of the file may have another value than the text says."""
        names = self.names
        for site in names.calls_named("exec"):
            if names.is_builtin(site.node.func, "exec", site.frame.scope):
                return "`exec()` may change it"
        for site in names.calls_named("globals"):
            parent = names.parents.get(site.node)
            written = isinstance(parent, ast.Subscript) and not isinstance(parent.ctx, ast.Load)
            if written or (isinstance(parent, ast.Attribute) and parent.attr == "update"):
                return "`globals()` may change it"
        return None

    @cached_property
    def sets_attributes(self) -> bool:
        """Whether the file sets attributes by a name that is not written: ``setattr``."""
        return bool(self.names.calls_named("setattr"))

    def of(self, scope: Scope, name: str, *, nested: bool, depth: int = 0) -> str | None:
        """What may change the list or dict that a name stands for, None if nothing does.

        ``nested``: it holds lists or dicts, so that whoever gets an item can change it too.
        """
        if depth > MAX_ALIASES:
            return _elsewhere(name)
        for use in self.names.uses_of(scope, name):
            reason = self._by_use(use, scope, nested=nested, depth=depth)
            if reason is not None:
                return reason
        return None

    def _by_use(self, use: Use, owner: Scope, *, nested: bool, depth: int) -> str | None:
        """What the place where a value is used does to it, or to what holds it."""
        name = use.node.id
        node: ast.AST = use.node
        while True:
            parent = self.names.parents.get(node)
            if isinstance(parent, ast.keyword | ast.IfExp | ast.BoolOp | ast.Starred):
                if isinstance(parent, ast.keyword) and parent.arg is None:
                    return _elsewhere(name) if nested else None
            elif isinstance(parent, ast.List | ast.Tuple | ast.Set | ast.Dict):
                nested = True
            elif isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Load):
                if parent.value is not node or not nested:
                    return None
            elif isinstance(parent, ast.Assign | ast.AnnAssign):
                return self._by_alias(parent, use.frame, name, nested=nested, depth=depth)
            elif isinstance(parent, ast.Call) and _is_dict_item(parent, node):
                nested = True
            elif isinstance(parent, ast.Call) and parent.func is not node:
                return self._by_call(parent, use.frame, name, nested=nested)
            else:
                return self._by_parent(parent, node, use, owner, nested=nested)
            node = parent

    def _by_parent(
        self, parent: ast.AST | None, node: ast.AST, use: Use, owner: Scope, *, nested: bool
    ) -> str | None:
        """What a statement or operator does with a value that is one of its parts."""
        name = use.node.id
        if isinstance(parent, ast.Subscript):
            return f"an item of `{name}` is assigned"
        if isinstance(parent, ast.AugAssign) and parent.target is node:
            return f"`{name}` is changed in place by an operator such as `+=`"
        if isinstance(parent, ast.Attribute):
            called = self.names.parents.get(parent)
            if not isinstance(called, ast.Call) or called.func is not parent:
                return _elsewhere(name)
            if parent.attr not in _READING or (nested and parent.attr not in ("keys", "index")):
                return f"`{name}` is changed by `.{parent.attr}()`"
            return None
        if isinstance(parent, ast.Return):
            return _elsewhere(name) if owner is not use.frame.scope else None
        iterated = isinstance(parent, ast.For | ast.AsyncFor | ast.BinOp | ast.AugAssign)
        if isinstance(parent, _COMPREHENSIONS):
            iterated = all(getattr(parent, part, None) is not node for part in ("elt", "value"))
            if not iterated:
                return _elsewhere(name)
        if iterated:
            return _elsewhere(name) if nested else None
        harmless = isinstance(parent, _HARMLESS)
        return None if harmless else _elsewhere(name)

    def _by_call(self, call: ast.Call, frame: Frame, name: str, *, nested: bool) -> str | None:
        callee = self.callees.of(call, frame)
        if matters(callee) or callee.partition(".")[0] in _SAFE_PACKAGES:
            return None
        if callee.removeprefix("?") in (_SAFE_BUILTINS - _COPYING if nested else _SAFE_BUILTINS):
            return None
        return f"`{name}` is passed to a function, which may change it"

    def _by_alias(
        self,
        assignment: ast.Assign | ast.AnnAssign,
        frame: Frame,
        name: str,
        *,
        nested: bool,
        depth: int,
    ) -> str | None:
        """A second name for the value: what is done to that one counts as well."""
        targets = assignment.targets if isinstance(assignment, ast.Assign) else [assignment.target]
        for target in targets:
            if isinstance(target, ast.Tuple | ast.List) and not nested:
                continue
            found = None
            if isinstance(target, ast.Name):
                found = self.names.lookup(target.id, frame.scope)
            if found is None or not isinstance(target, ast.Name):
                return _elsewhere(name)
            if any(binding.kind == "other" for binding in found.bindings):
                return _elsewhere(name)
            reason = self.of(found.scope, target.id, nested=nested, depth=depth + 1)
            if reason is not None:
                return reason
        return None

    # Config objects ------------------------------------------------------------------------------

    def later_stores(self, call: ast.Call) -> list[Store]:
        """The assignments to attributes of the object that a call gives."""
        if self._later is None:
            self._later = {}
            for stores in self.names.stores.values():
                for store in stores:
                    for value in self._objects(store.node.value, store.frame):
                        self._later.setdefault(value, []).append(store)
        return self._later.get(call, [])

    def setters(self, call: ast.Call) -> list[ast.Call]:
        """The ``setattr`` calls on the object that a call gives."""
        return [
            site.node
            for site in self.names.calls_named("setattr")
            if site.node.args and call in self._objects(site.node.args[0], site.frame)
        ]

    def _objects(self, base: ast.expr, frame: Frame) -> list[ast.Call]:
        """The calls whose result a name may be where an attribute of it is assigned."""
        if not isinstance(base, ast.Name):
            return []
        found = self.names.lookup(base.id, frame.scope)
        if found is None:
            return []
        bindings = last_before(found.bindings, frame) if found.direct else found.bindings
        return [b.value for b in bindings if isinstance(b.value, ast.Call) and not b.index]


def _is_dict_item(call: ast.Call, node: ast.AST) -> bool:
    """Whether a value becomes an item of ``dict(key=value)``."""
    function = call.func
    is_dict = isinstance(function, ast.Name) and function.id == "dict"
    return is_dict and isinstance(node, ast.keyword)


def _elsewhere(name: str) -> str:
    return f"`{name}` may be changed through another name"
