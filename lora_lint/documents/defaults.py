"""Values that a user may override: defaults of command-line arguments, dataclasses, parameters.

``args.r`` where ``args = parser.parse_args()`` has the default of ``add_argument("--r", ...)``;
``model_args.r`` where ``model_args`` comes from transformers' ``HfArgumentParser`` has the default
of the dataclass's field. Nodes made here have ``origin`` default and say in their ``note`` whose
default it is. Where anything is in doubt, the value is unknown.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from lora_lint.documents.scopes import Binding, CallSite, Found, Frame, Names, Scope
    from lora_lint.documents.static import Static
    from lora_lint.documents.tree import Node

MAX_DEPTH: Final = 8
_NO_DEFAULT: Final = "a command-line argument without a default"
_PARSE: Final = frozenset({"parse_args", "parse_intermixed_args", "parse_known_args"})
_PARSE_DATACLASSES: Final = frozenset({"parse_args_into_dataclasses", "parse_args_and_config"})
# Callers that pass a function's parameters on from the command line.
_COMMAND_LINES: Final = frozenset({"fire.Fire", "typer.run", "tyro.cli"})
_CONVERSIONS: Final = {"int": int, "float": float, "str": str}


class Parsed(NamedTuple):
    """An ``argparse`` namespace."""


class Fields(NamedTuple):
    """The fields of a class of the file: of the class itself, of an object made by ``call``, or
    (``overridable``) of a dataclass that is filled from the command line.
    """

    definition: ast.ClassDef
    overridable: bool
    call: ast.Call | None = None
    frame: Frame | None = None


Holder = Parsed | Fields


class Defaults:
    """Finds the defaults behind attributes and parameters."""

    def __init__(self, static: Static) -> None:
        self.static = static

    @property
    def names(self) -> Names:
        """The file's names."""
        return self.static.names

    # Attributes ----------------------------------------------------------------------------------

    def attribute(self, expression: ast.Attribute, frame: Frame, depth: int) -> Node | None:
        """The node of ``args.r``, None where ``args`` is nothing that has defaults."""
        holder = self._holder(expression.value, frame, 0)
        if holder is None:
            return None
        reason = self._changed(expression)
        if reason is not None:
            return self.static.unknown(expression, reason)
        if isinstance(holder, Parsed):
            return self._argument(expression, depth)
        return self._field(expression, holder, depth)

    def _changed(self, expression: ast.Attribute) -> str | None:
        if self.names.stores.get(expression.attr):
            return f"an attribute `{expression.attr}` is assigned"
        if self.static.changes.sets_attributes:
            return "`setattr()` may change it"
        return self.static.changes.dynamic

    def _overridable(
        self, expression: ast.expr, value: ast.expr, frame: Frame, note: str, depth: int
    ) -> Node:
        """A node at an expression with the value of a default."""
        from lora_lint.documents.static import lock

        found = self.static.node(value, frame, depth + 1)
        if found.kind == "unknown":
            return self.static.unknown(expression, found.note or _NO_DEFAULT)
        node = self.static.reference(expression, found)
        if node.kind == "unknown":
            return node
        node.origin, node.note, node.home = "default", note, None
        node.locked = f"it is {note}"
        for item in (*node.items, *(entry.node for entry in node.entries)):
            lock(item, node.locked)
        return node

    # What an expression holds --------------------------------------------------------------------

    def _holder(self, expression: ast.expr, frame: Frame, depth: int) -> Holder | None:
        if depth > MAX_DEPTH:
            return None
        if not isinstance(expression, ast.Name):
            return self._of_value(expression, None, frame, depth)
        found = self.names.lookup(expression.id, frame.scope)
        if found is None:
            return None
        if len(found.bindings) > 1:
            holders = {self._of_binding(b, found, frame, depth) for b in found.bindings}
            return Parsed() if holders == {Parsed()} else None
        return self._of_binding(found.bindings[0], found, frame, depth)

    def _of_binding(
        self, binding: Binding, found: Found, frame: Frame, depth: int
    ) -> Holder | None:
        late = found.direct and binding.frame.order > frame.order
        if binding.kind == "class" and isinstance(binding.node, ast.ClassDef):
            return None if late else Fields(binding.node, overridable=False)
        if binding.kind == "parameter":
            given = self._given(found.scope, binding.name)
            return self._holder(*given, depth + 1) if given is not None else None
        if binding.kind != "assign" or binding.value is None:
            return None
        if late:
            return None
        return self._of_value(binding.value, binding.index, binding.frame, depth + 1)

    def _given(self, scope: Scope, name: str) -> tuple[ast.expr, Frame] | None:
        """The argument for a parameter of a function that the file calls in one place only."""
        if not isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef):
            return None
        sites = self._sites(scope)
        if sites is None or len(sites) != 1:
            return None
        value = _passed(sites[0].node, scope.node.args, name)
        return (value, sites[0].frame) if isinstance(value, ast.expr) else None

    def _sites(self, scope: Scope) -> list[CallSite] | None:
        """All calls of a plain function; None if it is also used in other ways."""
        function, outer = scope.node, scope.parent
        if outer is None or outer.kind == "class":
            return None
        bindings = outer.bindings.get(scope.name, [])
        if len(bindings) != 1 or bindings[0].node is not function:
            return None
        by_function = {site.node.func: site for site in self.names.calls_named(scope.name)}
        sites = []
        for use in self.names.uses_of(outer, scope.name):
            site = by_function.get(use.node)
            if site is not None:
                sites.append(site)
            elif not self._is_command_line(use.node, use.frame):
                return None
        return sites

    def _is_command_line(self, node: ast.Name, frame: Frame) -> bool:
        parent = self.names.parents.get(node)
        return (
            isinstance(parent, ast.Call)
            and self.static.callees.of(parent, frame) in _COMMAND_LINES
            and len(parent.args) == 1
        )

    def _of_value(
        self, value: ast.expr, index: int | None, frame: Frame, depth: int
    ) -> Holder | None:
        if depth > MAX_DEPTH:
            return None
        if isinstance(value, ast.Subscript) and index is None:
            key = value.slice
            if isinstance(key, ast.Constant) and isinstance(key.value, int):
                return self._of_value(value.value, key.value, frame, depth + 1)
            return None
        if isinstance(value, ast.Name) and index is None:
            return self._holder(value, frame, depth + 1)
        if not isinstance(value, ast.Call):
            return None
        callee = self.static.callees.of(value, frame)
        last = callee.rpartition(".")[2]
        if last in _PARSE and isinstance(value.func, ast.Attribute):
            wanted = 0 if last == "parse_known_args" else None
            return Parsed() if index == wanted and self._is_argparse(value, callee) else None
        if last in _PARSE_DATACLASSES and isinstance(value.func, ast.Attribute):
            return self._dataclass(value.func.value, index, frame)
        if callee == "tyro.cli" and index is None and value.args:
            return self._class(value.args[0], frame, overridable=True)
        if isinstance(value.func, ast.Name):
            return self._of_own_call(value, index, frame, depth)
        return None

    def _is_argparse(self, call: ast.Call, callee: str) -> bool:
        """Whether ``parser.parse_args(...)`` reads the user's command line with argparse."""
        given = call.args[0] if call.args else None
        given = next((k.value for k in call.keywords if k.arg == "args"), given)
        if any(k.arg != "args" for k in call.keywords) or len(call.args) > 1:
            return False
        if isinstance(given, ast.Call | ast.Constant) and not (
            isinstance(given, ast.Constant) and not given.value
        ):
            return False
        if isinstance(given, ast.List | ast.Tuple) and given.elts:
            return False
        if callee.startswith("?"):  # a parser that comes from elsewhere in the file
            return any(
                self.static.callees.of(site.node, site.frame) == "argparse.ArgumentParser"
                for site in self.names.calls_named("ArgumentParser")
            )
        return callee.startswith("argparse.ArgumentParser.")

    def _dataclass(self, parser: ast.expr, index: int | None, frame: Frame) -> Holder | None:
        """The dataclass that an ``HfArgumentParser`` fills at a position of its result."""
        if isinstance(parser, ast.Name):
            found = self.names.lookup(parser.id, frame.scope)
            if found is None or len(found.bindings) != 1 or found.bindings[0].value is None:
                return None
            parser, frame = found.bindings[0].value, found.bindings[0].frame
        if not isinstance(parser, ast.Call) or index is None:
            return None
        types = [k.value for k in parser.keywords if k.arg == "dataclass_types"]
        types = types or parser.args[:1]
        if not self.static.callees.of(parser, frame).endswith(("ArgumentParser", "TrlParser")):
            return None
        classes = types[0].elts if types and isinstance(types[0], ast.Tuple | ast.List) else types
        if not 0 <= index < len(classes):
            return None
        return self._class(classes[index], frame, overridable=True)

    def _class(self, expression: ast.expr, frame: Frame, *, overridable: bool) -> Fields | None:
        if not isinstance(expression, ast.Name):
            return None
        found = self.names.lookup(expression.id, frame.scope)
        if found is None or len(found.bindings) != 1:
            return None
        node = found.bindings[0].node
        return Fields(node, overridable) if isinstance(node, ast.ClassDef) else None

    def _of_own_call(
        self, call: ast.Call, index: int | None, frame: Frame, depth: int
    ) -> Holder | None:
        """What a function of the file returns, or an object of a class of the file."""
        found = self.names.lookup(call.func.id, frame.scope)  # type: ignore[attr-defined]
        if found is None or len(found.bindings) != 1:
            return None
        if found.direct and found.bindings[0].frame.order > frame.order:
            return None  # it is not there yet
        node = found.bindings[0].node
        if isinstance(node, ast.ClassDef) and index is None:
            return Fields(node, overridable=False, call=call, frame=frame)
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            return None
        holders = set()
        for statement, inner in self.names.returns.get(node, []):
            value = statement.value
            if index is not None and isinstance(value, ast.Tuple):
                value = value.elts[index] if 0 <= index < len(value.elts) else None
                holders.add(self._of_value(value, None, inner, depth + 1) if value else None)
            elif value is not None:
                holders.add(self._of_value(value, index, inner, depth + 1))
        return next(iter(holders)) if len(holders) == 1 else None

    # argparse ------------------------------------------------------------------------------------

    def _argument(self, expression: ast.Attribute, depth: int) -> Node:
        """The default of the one ``add_argument`` that gives the namespace this name."""
        name = expression.attr
        sites = [
            (site, found[1])
            for site in self.names.calls_named("add_argument")
            if (found := _destination(site.node)) is not None and found[0] == name
        ]
        if len(sites) != 1:
            count = "not defined in this file" if not sites else "defined more than once"
            return self.static.unknown(expression, f"a command-line argument that is {count}")
        for site in self.names.calls_named("set_defaults"):
            if any(k.arg in (None, name) for k in site.node.keywords):
                return self.static.unknown(expression, "`set_defaults()` may change it")
        site, flag = sites[0]
        keywords = {k.arg: k.value for k in site.node.keywords}
        required = keywords.get("required")
        if required is not None and not _is_false(required):
            return self.static.unknown(expression, _NO_DEFAULT)
        note = f"the default of {flag}"
        default = keywords.get("default") or _action_default(keywords.get("action"))
        if default is None or None in keywords:
            return self.static.unknown(expression, _NO_DEFAULT)
        node = self._overridable(expression, default, site.frame, note, depth)
        return self._converted(expression, node, keywords.get("type"), site.frame)

    def _converted(
        self, expression: ast.expr, node: Node, kind: ast.expr | None, frame: Frame
    ) -> Node:
        """argparse passes a default that is a string through ``type``."""
        if kind is None or not isinstance(node.value, str) or node.kind != "scalar":
            return node
        for name, convert in _CONVERSIONS.items():
            if self.names.is_builtin(kind, name, frame.scope):
                try:
                    node.value = convert(node.value)
                except ValueError:
                    break
                node.style = node.style if isinstance(node.value, str) else "plain"
                return node
        return self.static.unknown(expression, "a default that a function converts")

    # Classes -------------------------------------------------------------------------------------

    def _field(self, expression: ast.Attribute, fields: Fields, depth: int) -> Node:
        name = expression.attr
        definition = fields.definition
        if not self._is_plain_class(definition, with_bases=fields.overridable):
            return self.static.unknown(expression, f"an attribute of a `{definition.name}`")
        if fields.call is not None:
            given = self._given_to_class(fields, name)
            if isinstance(given, str):
                return self.static.unknown(expression, given)
            if given is not None and fields.frame is not None:
                found = self.static.node(given, fields.frame, depth + 1)
                return self._shown(expression, found)
        binding = self._class_binding(definition, name, 0)
        if binding is None or binding.value is None:
            reason = _NO_DEFAULT if fields.overridable else f"an attribute of `{definition.name}`"
            return self.static.unknown(expression, reason)
        value = self._field_default(binding.value, binding.frame)
        if value is None:
            reason = _NO_DEFAULT if fields.overridable else "the result of a function call"
            return self.static.unknown(expression, reason)
        if fields.overridable:
            note = f"the default of {definition.name}.{name}"
            return self._overridable(expression, value, binding.frame, note, depth)
        return self._shown(expression, self.static.node(value, binding.frame, depth + 1))

    def _shown(self, expression: ast.expr, found: Node) -> Node:
        """A value of an object, which other code may read as well."""
        if found.kind == "unknown":
            return self.static.unknown(expression, found.note or "not a plain value")
        node = self.static.reference(expression, found)
        node.locked = node.locked or "it is an attribute, which other code may read too"
        return node

    def _is_plain_class(
        self, definition: ast.ClassDef, *, with_bases: bool, depth: int = 0
    ) -> bool:
        """A class whose attributes are what its body says: no decorator but ``dataclass``, and no
        base class from elsewhere (the members of an enum are not their values).
        """
        frame = self.names.definitions[definition]
        for base in definition.bases if not with_bases else ():
            own = self._class(base, frame, overridable=False)
            if own is None or depth > MAX_DEPTH:
                return False
            if not self._is_plain_class(own.definition, with_bases=False, depth=depth + 1):
                return False
        for decorator in definition.decorator_list:
            callee = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.static.callees.dotted(callee, frame) not in (
                "dataclasses.dataclass",
                "dataclass",
            ):
                return False
        methods = {s.name for s in definition.body if isinstance(s, ast.FunctionDef)}
        return not definition.keywords and not methods & {"__getattr__", "__getattribute__"}

    def _class_binding(self, definition: ast.ClassDef, name: str, depth: int) -> Binding | None:
        """The binding of an attribute in a class's body, or in that of a base class of the file."""
        bindings = self.names.bodies[definition].bindings.get(name)
        if bindings:
            return bindings[0] if len(bindings) == 1 and bindings[0].unconditional else None
        if depth > MAX_DEPTH or len(definition.bases) != 1:
            return None
        base = self._class(
            definition.bases[0], self.names.definitions[definition], overridable=False
        )
        return self._class_binding(base.definition, name, depth + 1) if base else None

    def _field_default(self, value: ast.expr, frame: Frame) -> ast.expr | None:
        """The default in ``field(default=...)`` or ``field(default_factory=lambda: ...)``."""
        if not isinstance(value, ast.Call):
            return value
        callee = self.static.callees.of(value, frame)
        if callee.rpartition(".")[2] not in ("field", "HfArg"):
            return value
        keywords = {k.arg: k.value for k in value.keywords}
        factory = keywords.get("default_factory")
        if isinstance(factory, ast.Lambda):
            return factory.body
        for name, empty in (("list", ast.List([], ast.Load())), ("dict", ast.Dict([], []))):
            if factory is not None and self.names.is_builtin(factory, name, frame.scope):
                return ast.copy_location(empty, factory)
        return keywords.get("default") if factory is None else None

    def _given_to_class(self, fields: Fields, name: str) -> ast.expr | str | None:
        """What an object is made with: an expression, or why that is not known."""
        call, definition = fields.call, fields.definition
        if call is None:
            return None
        if any(isinstance(s, ast.FunctionDef) and s.name == "__init__" for s in definition.body):
            return f"an attribute of `{definition.name}`" if call.args or call.keywords else None
        if call.args or any(k.arg is None for k in call.keywords):
            return f"an attribute of `{definition.name}`"
        return next((k.value for k in call.keywords if k.arg == name), None)

    # Parameters ----------------------------------------------------------------------------------

    def parameter(self, expression: ast.Name, found: Found, depth: int) -> Node:
        """The node of a parameter: its default, if no call of the file passes another value."""
        scope, function = found.scope, found.scope.node
        name = expression.id
        note = f"the default of the parameter `{name}` of `{scope.name}`"
        reason = f"`{name}` is a parameter of `{scope.name}`"
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            return self.static.unknown(expression, f"`{name}` is a parameter")
        default = _parameter_default(function.args, name)
        if function.decorator_list:
            return self.static.unknown(expression, reason)
        if default is None or self._is_passed(scope, name):
            return self._passed_on(expression, scope, depth) or self.static.unknown(
                expression, reason
            )
        frame = self.names.definitions[function]
        node = self._overridable(expression, default, frame, note, depth)
        if node.kind in ("sequence", "mapping"):
            changed = self.static.changes.of(scope, name, nested=True)
            if changed is not None:
                return self.static.unknown(expression, changed)
        return node

    def _passed_on(self, expression: ast.Name, scope: Scope, depth: int) -> Node | None:
        """What the function's one call in the file passes; other files may pass something else.

        Of models and configs it is only said which calls they may be.
        """
        from lora_lint.documents.static import is_call, lock

        given = self._given(scope, expression.id)
        if given is None:
            return None
        found = self.static.node(*given, depth + 1)
        if found.kind == "unknown" or is_call(found):
            calls = [found.home or found] if is_call(found) else found.items
            reason = f"`{expression.id}` is a parameter of `{scope.name}`"
            return self.static.unknown(expression, reason, calls) if calls else None
        if found.kind != "scalar" and self.static.changes.of(scope, expression.id, nested=True):
            return None
        node = self.static.reference(expression, found)
        if node.kind == "unknown":
            return node
        if node.origin != "default":
            node.note = f"what the one call of `{scope.name}` passes for `{expression.id}`"
        node.origin, node.home = "default", None
        node.locked = node.locked or f"it is {node.note}"
        for item in (*node.items, *(entry.node for entry in node.entries)):
            lock(item, node.locked)
        return node

    def _is_passed(self, scope: Scope, name: str) -> bool:
        """Whether any call of the file may pass a parameter; methods may be called anywhere."""
        arguments = scope.node.args  # type: ignore[attr-defined]
        plain = self._sites(scope)
        if plain is None:
            return True
        return any(_passed(s.node, arguments, name) is not None for s in plain)


def _destination(call: ast.Call) -> tuple[str, str] | None:
    """The namespace's name for an ``add_argument`` call, and the argument as a user types it."""
    flags = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if not flags:
        return None
    shown = next((flag for flag in flags if flag.startswith("--")), flags[0])
    for keyword in call.keywords:
        if keyword.arg == "dest":
            dest = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            return (dest, shown) if isinstance(dest, str) else None
    return shown.lstrip("-").replace("-", "_") if shown[0] == "-" else shown, shown


def _action_default(action: ast.expr | None) -> ast.expr | None:
    """The default that an action brings along."""
    values = {"store_true": False, "store_false": True}
    if isinstance(action, ast.Constant) and action.value in values:
        return ast.copy_location(ast.Constant(values[action.value]), action)
    return None


def _is_false(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Constant) and not expression.value


def _parameter_default(arguments: ast.arguments, name: str) -> ast.expr | None:
    positional = [*arguments.posonlyargs, *arguments.args]
    first = len(positional) - len(arguments.defaults)
    for index, argument in enumerate(positional):
        if argument.arg == name:
            return arguments.defaults[index - first] if index >= first else None
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if argument.arg == name:
            return default
    return None


def _passed(call: ast.Call, arguments: ast.arguments, name: str) -> ast.expr | str | None:
    """What a call passes for a parameter: the expression, None for nothing, a text where it can't
    be told.
    """
    if any(isinstance(a, ast.Starred) for a in call.args):
        return "unpacked"
    positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    for position, value in enumerate(call.args):
        if position < len(positional) and positional[position] == name:
            return value
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return "unpacked" if any(k.arg is None for k in call.keywords) else None
