"""One walk through a Python file that notes who binds, reads, calls and stores what."""

from __future__ import annotations

import ast
from itertools import count
from typing import TYPE_CHECKING, Final

from lora_lint.documents.scopes import Binding, CallSite, Frame, Names, Scope, Store, Use

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.documents.scopes import BindingKind, Place

_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def collect(tree: ast.Module) -> Names:
    """The names of a file."""
    names = Names(tree)
    _Collector(names).block(tree.body, names.module, ())
    return names


class _Collector:
    """Walks a file once: statements by recursion, which Python's own limit of a hundred
    indentation levels bounds, and expressions with a stack of its own.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.blocks = count(1)
        self.orders = count(1)
        self.is_marimo = _is_marimo(names.module.node)

    # Statements ----------------------------------------------------------------------------------

    def block(
        self, body: Sequence[ast.stmt], scope: Scope, prefix: Place, *, fallback: bool = False
    ) -> None:
        """Visit a body of statements."""
        self._run(body, scope, prefix, [next(self.blocks), 0], fallback)

    def _run(
        self,
        body: Sequence[ast.stmt],
        scope: Scope,
        prefix: Place,
        position: list[int],
        fallback: bool,
    ) -> None:
        for statement in body:
            position[1] += 1
            place = (*prefix, (position[0], position[1]))
            frame = Frame(scope, place, next(self.orders))
            if isinstance(statement, ast.With | ast.AsyncWith):
                for item in statement.items:
                    self._expression(item.context_expr, frame, statement)
                    if item.optional_vars is not None:
                        self._bind_other(item.optional_vars, frame, "set by `with`")
                self._run(statement.body, scope, prefix, position, fallback)
            elif isinstance(statement, ast.If) and _is_main(statement):
                self._run(statement.body, scope, prefix, position, fallback)
            elif self.is_marimo and scope.kind == "module" and _is_cell(statement):
                self._run(_cell_body(statement), scope, prefix, position, fallback)
            else:
                self._statement(statement, frame, fallback=fallback)

    def _nested(self, body: Sequence[ast.stmt], frame: Frame, *, fallback: bool) -> None:
        self.block(body, frame.scope, frame.place, fallback=fallback)

    def _statement(self, node: ast.stmt, frame: Frame, *, fallback: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(node, frame, fallback=fallback)
        elif isinstance(node, ast.ClassDef):
            self._class(node, frame, fallback=fallback)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            self._assignment(node, frame, fallback=fallback)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, frame, fallback=fallback)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            kind = "global" if isinstance(node, ast.Global) else "nonlocal"
            frame.scope.declared.update(dict.fromkeys(node.names, kind))
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                self._bind_other(target, frame, "deleted")
        elif isinstance(node, ast.Return):
            holder = _function_around(frame.scope)
            self.names.returns.setdefault(holder.node, []).append((node, frame))
            self._children(node, frame)
        else:
            self._compound(node, frame, fallback=fallback)

    def _compound(self, node: ast.stmt, frame: Frame, *, fallback: bool) -> None:
        if isinstance(node, ast.If):
            self._branches(node, frame, fallback=fallback)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self._expression(node.iter, frame, node)
            self._bind_other(node.target, frame, "set by a `for` loop")
            self._nested(node.body, frame, fallback=fallback)
            self._nested(node.orelse, frame, fallback=fallback)
        elif isinstance(node, ast.While):
            self._expression(node.test, frame, node)
            self._nested(node.body, frame, fallback=fallback)
            self._nested(node.orelse, frame, fallback=fallback)
        elif isinstance(node, ast.Match):
            self._expression(node.subject, frame, node)
            for case in node.cases:
                self._pattern(case.pattern, frame)
                if case.guard is not None:
                    self._expression(case.guard, frame, node)
                self._nested(case.body, frame, fallback=fallback)
        elif hasattr(node, "handlers"):  # Try and, from Python 3.11, TryStar
            self._nested(node.body, frame, fallback=fallback)  # type: ignore[attr-defined]
            for handler in node.handlers:
                if handler.name:
                    self._bind(handler.name, "other", frame, handler, reason="set by `except`")
                if handler.type is not None:
                    self._expression(handler.type, frame, handler)
                self._nested(handler.body, frame, fallback=True)
            self._nested(node.orelse, frame, fallback=fallback)  # type: ignore[attr-defined]
            self._nested(node.finalbody, frame, fallback=fallback)  # type: ignore[attr-defined]
        elif type(node).__name__ == "TypeAlias":
            self._bind_other(node.name, frame, "a type")  # type: ignore[attr-defined]
        else:
            self._children(node, frame)

    def _branches(self, node: ast.If, frame: Frame, *, fallback: bool) -> None:
        """An ``if`` with its ``elif``s, which Python nests as deeply as there are any."""
        while True:
            self._expression(node.test, frame, node)
            self._nested(node.body, frame, fallback=fallback)
            if len(node.orelse) != 1 or not isinstance(node.orelse[0], ast.If):
                self._nested(node.orelse, frame, fallback=fallback)
                return
            node = node.orelse[0]

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, frame: Frame, *, fallback: bool
    ) -> None:
        for decorator in node.decorator_list:
            self._expression(decorator, frame, node)
        self._arguments(node.args, frame, node)
        if node.returns is not None:
            self._expression(node.returns, frame, node)
        self._bind(node.name, "function", frame, node, fallback=fallback)
        self.names.definitions[node] = frame
        inner = Scope("function", node.name, node, frame.scope)
        self._parameters(node.args, inner)
        self.block(node.body, inner, ())

    def _class(self, node: ast.ClassDef, frame: Frame, *, fallback: bool) -> None:
        for expression in (*node.decorator_list, *node.bases):
            self._expression(expression, frame, node)
        for keyword in node.keywords:
            self._expression(keyword.value, frame, node)
        self._bind(node.name, "class", frame, node, fallback=fallback)
        self.names.definitions[node] = frame
        body = Scope("class", node.name, node, frame.scope)
        self.names.bodies[node] = body
        self.block(node.body, body, ())

    def _arguments(self, arguments: ast.arguments, frame: Frame, parent: ast.AST) -> None:
        """Defaults and annotations, which are evaluated outside the function."""
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self._expression(default, frame, parent)
        for argument in _all_arguments(arguments):
            if argument.annotation is not None:
                self._expression(argument.annotation, frame, parent)

    def _parameters(self, arguments: ast.arguments, scope: Scope) -> None:
        frame = Frame(scope, ((0, 0),), next(self.orders))
        for argument in _all_arguments(arguments):
            self._bind(argument.arg, "parameter", frame, argument)

    def _import(self, node: ast.Import | ast.ImportFrom, frame: Frame, *, fallback: bool) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                name = alias.asname or alias.name.partition(".")[0]
                source = alias.name if alias.asname else name
            elif alias.name == "*":
                module = "." * node.level + (node.module or "")
                self.names.stars.append((module, frame.order))
                continue
            else:
                name = alias.asname or alias.name
                module = "." * node.level + (node.module or "")
                source = module + ("" if module.endswith(".") else ".") + alias.name
            self._bind(name, "import", frame, node, source=source, fallback=fallback)

    # Bindings ------------------------------------------------------------------------------------

    def _assignment(
        self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, frame: Frame, *, fallback: bool
    ) -> None:
        if node.value is not None:
            self._expression(node.value, frame, node)
        after = frame._replace(order=next(self.orders))
        if isinstance(node, ast.Assign):
            for target in node.targets:
                shared = len(node.targets) > 1
                self._bind_target(target, node.value, after, fallback=fallback, shared=shared)
        elif isinstance(node, ast.AugAssign):
            self._bind_other(node.target, after, "changed in place by an operator such as `+=`")
            if frame.scope.kind == "class" and isinstance(node.target, ast.Name):
                # The class gets a name of its own, but a list from outside is changed in place.
                outer = after._replace(scope=frame.scope.parent or frame.scope)
                self.names.uses.setdefault(node.target.id, []).append(Use(node.target, outer))
                self.names.parents[node.target] = node
        else:
            self._expression(node.annotation, frame, node)
            if node.value is not None:
                self._bind_target(node.target, node.value, after, fallback=fallback, shared=False)

    def _bind_target(
        self, target: ast.expr, value: ast.expr, frame: Frame, *, fallback: bool, shared: bool
    ) -> None:
        if isinstance(target, ast.Name):
            self._bind(
                target.id, "assign", frame, target, value=value, fallback=fallback, shared=shared
            )
            return
        if not isinstance(target, ast.Tuple | ast.List):
            self._bind_other(target, frame, "assigned")
            return
        starred = any(isinstance(item, ast.Starred) for item in target.elts)
        values: Sequence[ast.expr] = ()
        if isinstance(value, ast.Tuple | ast.List):
            values = value.elts
        if (
            len(values) == len(target.elts)
            and not starred
            and not any(isinstance(item, ast.Starred) for item in values)
        ):
            for item, part in zip(target.elts, values, strict=True):
                self._bind_target(item, part, frame, fallback=fallback, shared=shared)
            return
        for index, item in enumerate(target.elts):
            if isinstance(item, ast.Name) and not starred:
                self._bind(item.id, "assign", frame, item, value=value, index=index, shared=True)
            else:
                self._bind_other(item, frame, "unpacked from another value")

    def _bind_other(self, target: ast.expr, frame: Frame, reason: str) -> None:
        """Bind all names of a target to something that is not static."""
        stack = [target]
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Name):
                self._bind(node.id, "other", frame, node, reason=reason)
            elif isinstance(node, ast.Tuple | ast.List):
                stack += node.elts
            elif isinstance(node, ast.Starred):
                stack.append(node.value)
            else:
                self._expression(node, frame, node)

    def _pattern(self, pattern: ast.AST, frame: Frame) -> None:
        for node in ast.walk(pattern):
            name = getattr(node, "name", None) or getattr(node, "rest", None)
            if isinstance(name, str):
                self._bind(name, "other", frame, node, reason="set by `match`")

    def _bind(
        self,
        name: str,
        kind: BindingKind,
        frame: Frame,
        node: ast.AST,
        *,
        value: ast.expr | None = None,
        index: int | None = None,
        source: str = "",
        reason: str = "",
        fallback: bool = False,
        shared: bool = False,
    ) -> None:
        scope = frame.scope
        declared = scope.declared.get(name)
        if declared is not None:
            scope = self._declared_scope(name, scope, declared)
            kind, reason = "other", f"assigned through `{declared}` in `{frame.scope.name}`"
        binding = Binding(name, kind, frame, node, value, index, source, reason, fallback, shared)
        scope.bindings.setdefault(name, []).append(binding)

    def _declared_scope(self, name: str, scope: Scope, declared: str) -> Scope:
        outer = scope.parent
        if declared == "nonlocal":
            while outer is not None and outer.kind != "module":
                if outer.kind == "function" and name in outer.bindings:
                    return outer
                outer = outer.parent
        return self.names.module

    # Expressions ---------------------------------------------------------------------------------

    def _children(self, node: ast.stmt, frame: Frame) -> None:
        for child in ast.iter_child_nodes(node):
            self._expression(child, frame, node)

    def _expression(self, node: ast.AST, frame: Frame, parent: ast.AST) -> None:
        """Visit an expression and all inside it, in reading order."""
        names, place = self.names, frame.place
        stack: list[tuple[ast.AST, ast.AST, Scope, bool]] = [(node, parent, frame.scope, False)]
        while stack:
            current, above, scope, embedded = stack.pop()
            names.parents[current] = above
            here = Frame(scope, place, next(self.orders))
            if isinstance(current, ast.Name):
                if isinstance(current.ctx, ast.Load):
                    names.uses.setdefault(current.id, []).append(Use(current, here))
                continue
            if isinstance(current, ast.Lambda):
                inner = Scope("lambda", "<lambda>", current, scope)
                self._parameters(current.args, inner)
                stack.append((current.body, current, inner, embedded))
                defaults = (*current.args.defaults, *current.args.kw_defaults)
                stack += [(d, current, scope, embedded) for d in defaults if d is not None]
                continue
            if isinstance(current, _COMPREHENSIONS):
                stack += self._comprehension(current, scope, place, embedded=embedded)
                continue
            if isinstance(current, ast.NamedExpr):
                self._bind_walrus(current, here)
            elif isinstance(current, ast.Call):
                names.calls.append(CallSite(current, here, embedded))
            elif isinstance(current, ast.Attribute) and not isinstance(current.ctx, ast.Load):
                names.stores.setdefault(current.attr, []).append(Store(current, here))
            inside = embedded or isinstance(current, ast.JoinedStr)
            children = [(c, current, scope, inside) for c in ast.iter_child_nodes(current)]
            stack += reversed(children)

    def _comprehension(
        self, node: ast.AST, scope: Scope, place: Place, *, embedded: bool
    ) -> Iterator[tuple[ast.AST, ast.AST, Scope, bool]]:
        """The parts of a comprehension, last first, each with the scope it belongs to."""
        inner = Scope("comprehension", "<comprehension>", node, scope)
        frame = Frame(inner, place, next(self.orders))
        parts: list[tuple[ast.AST, Scope]] = []
        generators: list[ast.comprehension] = node.generators  # type: ignore[attr-defined]
        for number, generator in enumerate(generators):
            self._bind_other(generator.target, frame, "set by a comprehension")
            parts.append((generator.iter, inner if number else scope))
            parts += [(condition, inner) for condition in generator.ifs]
        for name in ("elt", "key", "value"):
            if (part := getattr(node, name, None)) is not None:
                parts.append((part, inner))
        for part, owner in reversed(parts):
            yield part, node, owner, embedded

    def _bind_walrus(self, node: ast.NamedExpr, frame: Frame) -> None:
        scope = frame.scope
        while scope.kind == "comprehension" and scope.parent is not None:
            scope = scope.parent
        self._bind_other(node.target, frame._replace(scope=scope), "assigned inside an expression")


def _all_arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from (extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None)


def _function_around(scope: Scope) -> Scope:
    current = scope
    while current.kind in ("comprehension", "lambda") and current.parent is not None:
        current = current.parent
    return current


def _is_marimo(tree: ast.AST) -> bool:
    """Whether a file is a marimo notebook: ``app = marimo.App()`` beside ``import marimo``."""
    body: Sequence[ast.stmt] = getattr(tree, "body", ())
    return any(
        isinstance(node, ast.Import) and any(alias.name == "marimo" for alias in node.names)
        for node in body
    ) and any(
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "marimo.App"
        and ast.unparse(node.targets[0]) == "app"
        for node in body
    )


def _is_cell(node: ast.stmt) -> bool:
    """Whether a function is a cell of a marimo notebook: what it takes and returns is global."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    called = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return len(called) == 1 and ast.unparse(called[0]) == "app.cell"


def _cell_body(node: ast.stmt) -> Sequence[ast.stmt]:
    """The statements of a cell without the ``return`` that lists its names."""
    body: Sequence[ast.stmt] = getattr(node, "body", ())
    return body[:-1] if body and isinstance(body[-1], ast.Return) else body


def _is_main(node: ast.If) -> bool:
    """Whether it is ``if __name__ == "__main__":``, the body of every script."""
    test = node.test
    return (
        not node.orelse
        and isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and len(test.ops) == 1
        and isinstance(test.ops[0], ast.Eq)
    )
