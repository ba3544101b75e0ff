"""Who binds which name in a Python file, and who reads it; nothing is executed.

Scopes, bindings and uses as Python's own rules have them: function bodies see enclosing functions
and the module but no class bodies, comprehensions have a scope of their own, ``global`` and
``nonlocal`` move a binding. Every binding and use knows its statement, so that one can tell
whether a use always comes after an assignment.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

# A statement: block and number in it, from the scope's own body inwards.
Place = tuple[tuple[int, int], ...]
ScopeKind = Literal["module", "function", "class", "lambda", "comprehension"]
BindingKind = Literal["assign", "import", "class", "function", "parameter", "other"]


@dataclass(slots=True, eq=False)
class Scope:
    """A module, class, function, lambda or comprehension with the names it binds."""

    kind: ScopeKind
    name: str
    node: ast.AST
    parent: Scope | None = None
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)

    def qualified(self, name: str) -> str:
        """A name bound here with the classes and functions around it."""
        scope: Scope | None = self
        while scope is not None and scope.kind != "module":
            name = f"{scope.name}.{name}"
            scope = scope.parent
        return name


class Frame(NamedTuple):
    """Where an expression stands: its scope, its statement, its number in reading order."""

    scope: Scope
    place: Place
    order: int


@dataclass(slots=True, eq=False)
class Binding:
    """One way a name gets its value.

    ``value`` is the expression assigned, ``index`` its item where it is unpacked. ``source`` is
    the dotted name of an import. ``reason`` says in plain words why the value of an ``other``
    binding is not static. ``fallback``: it stands in an ``except`` block. ``shared``: the same
    expression is given to a second name (``a = b = 16``).
    """

    name: str
    kind: BindingKind
    frame: Frame
    node: ast.AST
    value: ast.expr | None = None
    index: int | None = None
    source: str = ""
    reason: str = ""
    fallback: bool = False
    shared: bool = False

    @property
    def unconditional(self) -> bool:
        """Whether it stands in its scope's own body, outside branches and loops."""
        return len(self.frame.place) == 1

    def precedes(self, frame: Frame) -> bool:
        """Whether a use in the same scope always comes after this binding."""
        mine, theirs = self.frame.place, frame.place
        depth = len(mine)
        return (
            len(theirs) >= depth
            and mine[:-1] == theirs[: depth - 1]
            and mine[-1][0] == theirs[depth - 1][0]
            and mine[-1][1] < theirs[depth - 1][1]
        )


class Use(NamedTuple):
    """A name that is read."""

    node: ast.Name
    frame: Frame


class CallSite(NamedTuple):
    """A call. ``embedded``: inside an f-string, where older Pythons give no exact places."""

    node: ast.Call
    frame: Frame
    embedded: bool


class Store(NamedTuple):
    """An assignment to an attribute: ``base.name = ...``."""

    node: ast.Attribute
    frame: Frame


class Found(NamedTuple):
    """A name's owner and bindings. ``direct``: read in the same run of code that binds it."""

    scope: Scope
    bindings: list[Binding]
    direct: bool


class Names:
    """All that is bound, read, called and stored in one file."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = Scope("module", "", tree)
        self.calls: list[CallSite] = []
        self.parents: dict[ast.AST, ast.AST] = {}
        self.uses: dict[str, list[Use]] = {}
        self.stores: dict[str, list[Store]] = {}
        self.stars: list[tuple[str, int]] = []
        self.returns: dict[ast.AST, list[tuple[ast.Return, Frame]]] = {}
        # The place of each function and class definition, in the scope around it.
        self.definitions: dict[ast.AST, Frame] = {}
        # The scope that each class's body is.
        self.bodies: dict[ast.ClassDef, Scope] = {}
        self._resolved: dict[tuple[int, str], list[Use]] = {}
        self._calls_by_name: dict[str, list[CallSite]] | None = None

    def lookup(self, name: str, scope: Scope) -> Found | None:
        """The scope that a name read in ``scope`` belongs to; None if nobody in the file binds
        it.
        """
        current: Scope | None = scope
        direct = True
        while current is not None:
            visible = current.kind != "class" or current is scope
            declared = current.declared.get(name)
            if declared == "global":
                current = self.module
                direct = direct and scope.kind == "module"
                bindings = current.bindings.get(name)
                return Found(current, bindings, direct) if bindings else None
            if visible and declared is None and name in current.bindings:
                return Found(current, current.bindings[name], direct)
            if current.kind in ("function", "class"):
                direct = False
            current = current.parent
        return None

    def uses_of(self, scope: Scope, name: str) -> list[Use]:
        """Where a name of a scope is read."""
        key = (id(scope), name)
        if key not in self._resolved:
            self._resolved[key] = [
                use
                for use in self.uses.get(name, ())
                if (found := self.lookup(name, use.frame.scope)) and found.scope is scope
            ]
        return self._resolved[key]

    def calls_named(self, name: str) -> list[CallSite]:
        """The calls whose callee ends in this name."""
        if self._calls_by_name is None:
            self._calls_by_name = {}
            for site in self.calls:
                self._calls_by_name.setdefault(last_name(site.node.func), []).append(site)
        return self._calls_by_name.get(name, [])

    def is_builtin(self, expression: ast.expr, name: str, scope: Scope) -> bool:
        """Whether an expression is the builtin of this name, which nobody in the file binds."""
        return (
            isinstance(expression, ast.Name)
            and expression.id == name
            and self.lookup(name, scope) is None
        )


def last_name(expression: ast.expr) -> str:
    """The last name of a dotted expression, empty for anything else."""
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
