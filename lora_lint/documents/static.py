"""What the expressions of a Python file are worth, as far as that is certain without running it.

A value that is certain becomes a node as in YAML or JSON; anything else becomes an ``unknown`` node
that says why in plain words. A name stands for its value only where it is assigned once, always
before it is read, and nothing can change the value in between.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.diagnostics import Span
from lora_lint.documents.callees import PASS_THROUGH, Callees, last_before, matters
from lora_lint.documents.changes import Changes
from lora_lint.documents.constants import MAX_TEXT, UNARY, constant_of, is_enum, operate
from lora_lint.documents.conversions import comprehension, converted
from lora_lint.documents.defaults import Defaults
from lora_lint.documents.tree import Entry, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lora_lint.documents.scopes import Binding, Found, Frame, Names
    from lora_lint.documents.source import Source

# Names that lead to names, calls in calls: real files need five.
MAX_DEPTH: Final = 40
MAX_VALUES: Final = 10_000
UNKNOWN_LOCK: Final = "its value is not known without running the file"
COMPUTED_LOCK: Final = "it is computed from other values"
FUNCTION_CALL: Final = "the result of a function call"
CONDITION: Final = "it depends on a condition"

_REASONS: Final[dict[type, str]] = {
    ast.BoolOp: CONDITION,
    ast.IfExp: CONDITION,
    ast.Compare: "the result of a comparison",
    ast.Lambda: "a function",
    ast.SetComp: "the result of a comprehension",
    ast.DictComp: "the result of a comprehension",
    ast.GeneratorExp: "the result of a comprehension",
    ast.Await: "the result of `await`",
    ast.Yield: "the result of `yield`",
    ast.YieldFrom: "the result of `yield`",
}


class Static:
    """Turns expressions into nodes. Each call that matters has one node, however it is reached."""

    def __init__(
        self,
        source: Source,
        names: Names,
        tainted: frozenset[str] = frozenset(),
        part_of: Callable[[int], int] = lambda _: 0,
    ) -> None:
        self.source = source
        self.part_of = part_of
        self.names = names
        self.callees = Callees(names)
        self.defaults = Defaults(self)
        self.changes = Changes(names, self.callees)
        self.tainted = tainted
        self._calls: dict[ast.Call, Node] = {}
        self._values: dict[Binding, Node] = {}
        self._open: set[Binding] = set()
        self._open_functions: set[ast.FunctionDef] = set()
        # The calls that functions may return, at an index of their tuples.
        self._results: dict[tuple[ast.FunctionDef, int | None], list[Node]] = {}
        # Height and number of values of each node that holds others.
        self._sizes: dict[Node, tuple[int, int]] = {}

    # Expressions ---------------------------------------------------------------------------------

    def node(self, expression: ast.expr, frame: Frame, depth: int = 0) -> Node:
        """The node of an expression."""
        if depth > MAX_DEPTH:
            return self.unknown(expression, "it is nested too deeply")
        read = _READERS.get(type(expression))
        if read is not None:
            return read(self, expression, frame, depth)
        reason = _REASONS.get(type(expression), "not a plain value")
        return self.unknown(expression, reason)

    def unknown(self, expression: ast.AST, note: str, items: Sequence[Node] = ()) -> Node:
        """A node for a value that is not static; ``items`` are the calls that it may come from."""
        span = self.source.span(expression)
        node = Node("unknown", span, locked=UNKNOWN_LOCK, note=note, items=list(items))
        self._measure(node)
        return node

    def _constant(self, expression: ast.Constant, frame: Frame, depth: int) -> Node:  # noqa: ARG002
        value = expression.value
        if value is not None and not isinstance(value, bool | int | float | str):
            return self.unknown(expression, "not a plain value")
        span = self.source.span(expression)
        style = self.source.string_style(span) if isinstance(value, str) else "plain"
        return Node("scalar", span, value, style=style)

    def _collection(
        self, expression: ast.List | ast.Tuple | ast.Set, frame: Frame, depth: int
    ) -> Node:
        span = self.source.span(expression)
        node = Node("sequence", span, style="flow")
        end = span.end - (not isinstance(expression, ast.Tuple) or self._bracketed(expression))
        for element in expression.elts:
            if isinstance(element, ast.Starred):
                inner = self.node(element.value, frame, depth + 1)
                if inner.kind != "sequence":
                    return self.unknown(expression, "it unpacks a value that is not static")
                node.items += inner.items
                node.locked = "it is put together with `*`"
            else:
                node.items.append(self._part(element, frame, end, depth))
        return self.finish(node, expression)

    def _bracketed(self, expression: ast.Tuple) -> bool:
        """Whether a tuple is written in brackets of its own: ``((1), 2)``, not ``(1), 2``."""
        span, text = self.source.span(expression), self.source.text
        if text[span.start] != "(" or text[span.end - 1] != ")":
            return False
        if not expression.elts:
            return True
        first = self.source.span(expression.elts[0])
        at, closed = self.source.skip(first.end), 0
        while at < span.end and text[at] == ")":
            at, closed = self.source.skip(at + 1), closed + 1
        opened, at = 0, span.start
        while at < first.start and text[at] == "(":
            at, opened = self.source.skip(at + 1), opened + 1
        return opened > closed

    def _dict(self, expression: ast.Dict, frame: Frame, depth: int) -> Node:
        span = self.source.span(expression)
        node = Node("mapping", span, style="flow")
        for key, value in zip(expression.keys, expression.values, strict=True):
            inner = self._part(value, frame, span.end - 1, depth)
            if key is None:
                start = self.source.skip_back(inner.span.start) - 2
                self._spread(node, Span(start, start + 2), inner)
                continue
            name = self._part(key, frame, span.end - 1, depth)
            if name.kind != "scalar":
                return self.unknown(expression, "it has a key that is not static")
            node.entries.append(Entry(name.value, name.span, inner))
        return self.finish(node, expression)

    def _spread(self, node: Node, span: Span, inner: Node) -> None:
        """Add what ``**inner`` brings in: an entry for the unpacking itself, and one for each key
        where those are known.
        """
        node.entries.append(Entry("**", span, inner))
        if inner.kind == "mapping":
            node.entries += [
                Entry(entry.key, entry.key_span, entry.node, merged=True) for entry in inner.entries
            ]

    def _unary(self, expression: ast.UnaryOp, frame: Frame, depth: int) -> Node:
        operand = self.node(expression.operand, frame, depth + 1)
        if operand.kind != "scalar":
            note = operand.note if operand.kind == "unknown" else "not a plain value"
            return self.unknown(expression, note or CONDITION)
        if not isinstance(operand.value, int | float) and not isinstance(expression.op, ast.Not):
            return self.unknown(expression, "a sign before something that is no number")
        if isinstance(expression.op, ast.Invert) and not isinstance(operand.value, int):
            return self.unknown(expression, "a sign before something that is no number")
        value = UNARY[type(expression.op)](operand.value)
        literal = isinstance(expression.operand, ast.Constant)
        if literal and isinstance(expression.op, ast.USub | ast.UAdd):
            return Node("scalar", self.source.span(expression), value)
        return self.computed(expression, value, [operand])

    def _binary(self, expression: ast.BinOp, frame: Frame, depth: int) -> Node:
        left = self.node(expression.left, frame, depth + 1)
        right = self.node(expression.right, frame, depth + 1)
        for side in (left, right):
            if side.kind == "unknown":
                return self.unknown(expression, side.note or "not a plain value")
        if left.kind == right.kind == "sequence" and isinstance(expression.op, ast.Add):
            node = Node("sequence", self.source.span(expression), style="flow")
            node.items = left.items + right.items
            node.locked, node.origin = COMPUTED_LOCK, "computed"
            return self.finish(node, expression)
        if left.kind != "scalar" or right.kind != "scalar":
            return self.unknown(expression, "an operation on lists or mappings")
        try:
            value = operate(expression.op, left.value, right.value)
        except (ArithmeticError, TypeError, ValueError) as exc:
            return self.unknown(expression, f"an operation that is not static: {exc}")
        return self.computed(expression, value, [left, right])

    def _fstring(self, expression: ast.JoinedStr, frame: Frame, depth: int) -> Node:
        parts: list[Node] = []
        texts: list[str] = []
        for part in expression.values:
            if isinstance(part, ast.Constant):
                texts.append(str(part.value))
                continue
            value = part.value if isinstance(part, ast.FormattedValue) else None
            if value is None or part.format_spec is not None:  # type: ignore[attr-defined]
                return self.unknown(expression, "a formatted string")
            inner = self.node(value, frame, depth + 1)
            if inner.kind != "scalar" or part.conversion not in (-1, ord("s")):  # type: ignore[attr-defined]
                return self.unknown(expression, inner.note or "a formatted string")
            parts.append(inner)
            texts.append(str(inner.value))
        text = "".join(texts)
        if len(text) > MAX_TEXT:
            return self.unknown(expression, "a very long text")
        return self.computed(expression, text, parts)

    def computed(self, expression: ast.expr, value: object, parts: list[Node]) -> Node:
        """A scalar that follows from other nodes."""
        span = self.source.span(expression)
        style = self.source.string_style(span) if isinstance(value, str) else "plain"
        node = Node("scalar", span, value, style=style, locked=COMPUTED_LOCK, origin="computed")
        if any(part.origin == "default" for part in parts):
            node.origin = "default"
            node.note = next(part.note for part in parts if part.origin == "default")
        return node

    def _walrus(self, expression: ast.NamedExpr, frame: Frame, depth: int) -> Node:
        return self.node(expression.value, frame, depth + 1)

    def _choice(self, expression: ast.IfExp | ast.BoolOp, frame: Frame, depth: int) -> Node:
        """One of several values. Where it is not known which, the calls among them are."""
        if isinstance(expression, ast.IfExp):
            branches = [expression.body, expression.orelse]
            test = self.node(expression.test, frame, depth + 1)
            if test.kind == "scalar":
                return self._chosen(expression, branches[not test.value], test, frame, depth)
        else:
            branches = expression.values
            test = self.node(branches[0], frame, depth + 1)
            if test.kind == "scalar" and len(branches) == 2:
                first = bool(test.value) == isinstance(expression.op, ast.Or)
                return self._chosen(expression, branches[not first], test, frame, depth)
        nodes = [self.node(branch, frame, depth + 1) for branch in branches]
        return self.unknown(expression, CONDITION, _calls_among(nodes))

    def _chosen(
        self, expression: ast.expr, branch: ast.expr, test: Node, frame: Frame, depth: int
    ) -> Node:
        """The branch that a static test takes; a default where the test is one."""
        found = self.node(branch, frame, depth + 1)
        if is_call(found) or found.kind == "unknown":
            return self.unknown(expression, found.note or CONDITION, _calls_among([found]))
        node = self.reference(expression, found)
        if node.kind == "unknown":
            return node
        node.home, node.locked = None, node.locked or CONDITION
        for item in (*node.items, *(entry.node for entry in node.entries)):
            lock(item, CONDITION)
        if test.origin == "default":
            node.origin, node.note = "default", test.note
        elif node.origin == "written":
            node.origin = "computed"
        return node

    # Names ---------------------------------------------------------------------------------------

    def _name(self, expression: ast.Name, frame: Frame, depth: int) -> Node:
        name = expression.id
        found = self.names.lookup(name, frame.scope)
        if found is None:
            return self.unknown(expression, self._unbound(name))
        reason = self._doubt(found, name, frame)
        if reason is None:
            return self._single(expression, found, depth)
        return self._several(expression, found, frame, reason, depth)

    def _unbound(self, name: str) -> str:
        if name in self.tainted:
            return f"`{name}` stands in a cell that does not parse"
        if name == "_":
            return "the result of an IPython command"
        if self.names.stars:
            return f"`{name}` may come from a star import"
        return f"`{name}` is not assigned in this file"

    def _doubt(self, found: Found, name: str, frame: Frame) -> str | None:
        """Why a name's value is not certain at a use, None where it is."""
        bindings = found.bindings
        other = next((binding for binding in bindings if binding.reason), None)
        if self.changes.dynamic is not None:
            return self.changes.dynamic
        if name in self.tainted:
            return f"`{name}` stands in a cell that does not parse"
        if other is not None:
            return f"`{name}` is {other.reason}"
        if len(bindings) > 1 and bindings[0].kind == "parameter":
            return f"`{name}` is a parameter that is assigned again"
        if len(bindings) > 1:
            times = "twice" if len(bindings) == 2 else f"{len(bindings)} times"
            return f"`{name}` is assigned {times}"
        binding = bindings[0]
        if binding.kind != "assign":
            return None
        later = [module for module, order in self.names.stars if order > binding.frame.order]
        if later and found.scope is self.names.module:
            return f"a later `from {later[0]} import *` may change `{name}`"
        if found.direct and binding.frame.order >= frame.order:
            return f"`{name}` is assigned after it is used"
        if not (binding.precedes(frame) if found.direct else binding.unconditional):
            return f"`{name}` is assigned in a branch, a loop or a `try`"
        return None

    def _single(self, expression: ast.Name, found: Found, depth: int) -> Node:
        binding = found.bindings[0]
        if binding.kind == "import":
            return self._imported(expression, binding)
        if binding.kind == "parameter":
            return self.defaults.parameter(expression, found, depth)
        if binding.kind != "assign" or binding.value is None:
            return self.unknown(expression, f"`{expression.id}` is a {binding.kind}")
        return self._of_binding(expression, found, binding, depth)

    def _latest(self, found: Found, name: str, frame: Frame) -> Binding | None:
        """The assignment that a use in its scope's own body surely sees, of several; None where
        that is not one: nothing in a loop is decided here, as what follows comes again.
        """
        bindings = found.bindings
        if frame.scope is not found.scope or len(frame.place) != 1 or name in self.tainted:
            return None
        if any(binding.kind != "assign" or binding.reason for binding in bindings):
            return None
        if self.changes.dynamic is not None or (
            self.names.stars and found.scope is self.names.module
        ):
            return None
        cells = {self.part_of(self.source.span(binding.node).start) for binding in bindings}
        if len(cells) > 1:
            return None  # cells of a notebook may be run in any order
        before = last_before(bindings, frame)
        return before[0] if len(before) == 1 and before[0].precedes(frame) else None

    def _of_binding(self, expression: ast.Name, found: Found, binding: Binding, depth: int) -> Node:
        """The node of a name that has the value of one assignment."""
        target = self._bound(found, binding, depth)
        changed = None
        if target.kind in ("sequence", "mapping") and not is_call(target):
            changed = self.changes.of(found.scope, expression.id, nested=holds_mutable(target))
        if changed is not None:
            return self.unknown(expression, changed)
        return self.reference(expression, target)

    def _imported(self, expression: ast.Name, binding: Binding) -> Node:
        constant = constant_of(binding.source)
        if constant is not None:
            return Node("scalar", self.source.span(expression), constant)
        module = binding.source.rpartition(".")[0] or binding.source
        return self.unknown(expression, f"it is imported from `{module}`")

    def _bound(self, found: Found, binding: Binding, depth: int) -> Node:
        """The value that a binding gives its name, with the lock that its uses demand."""
        if binding in self._values:
            return self._values[binding]
        assert binding.value is not None  # noqa: S101 - only assignments come here
        if binding in self._open:
            return self.unknown(binding.value, f"`{binding.name}` refers to itself")
        self._open.add(binding)
        node = self.node(binding.value, binding.frame, depth + 1)
        self._open.discard(binding)
        if binding.index is not None:
            node = self._item(binding, node)
        uses = len(self.names.uses_of(found.scope, binding.name))
        if not is_call(node):
            times = "twice" if uses == 2 else f"{uses} times"
            if binding.shared:
                lock(node, f"the value of `{binding.name}` is given to other names too")
            elif uses != 1:
                lock(node, f"the name `{binding.name}` is used {times}")
        self._values[binding] = node
        return node

    def _item(self, binding: Binding, node: Node) -> Node:
        """The item of an unpacked value. ``model, tokenizer = ...from_pretrained()`` gives its
        model first, as unsloth's loaders do.
        """
        index = binding.index
        assert binding.value is not None  # noqa: S101
        assert index is not None  # noqa: S101
        if is_call(node):
            if index == 0:
                return node
            return self.unknown(binding.value, FUNCTION_CALL)
        if node.kind == "sequence" and index < len(node.items):
            return node.items[index]
        if isinstance(binding.value, ast.Call) and node.kind == "unknown":
            returned = self._returned(binding.value, index, binding.frame, 0)
            return self.unknown(binding.value, FUNCTION_CALL, returned)
        return self.unknown(binding.value, node.note or "unpacked from another value")

    def _several(
        self, expression: ast.Name, found: Found, frame: Frame, reason: str, depth: int
    ) -> Node:
        """A name that is bound more than once, or not for certain.

        Constants are then unknown. A model that goes through several hands (``model =
        get_peft_model(model, config)``) is followed to the last call before the use; where
        branches stand between, the node is unknown and its items are the calls it may come from.
        """
        latest = self._latest(found, expression.id, frame)
        if latest is not None:
            return self._of_binding(expression, found, latest, depth)
        before = last_before(found.bindings, frame) if found.direct else found.bindings
        nodes = [
            self._bound(found, binding, depth)
            for binding in before
            if binding.kind == "assign" and isinstance(binding.value, ast.expr)
        ]
        calls = _calls_among(nodes)
        certain = len(before) == 1 and before[0].precedes(frame)
        if certain and len(calls) == 1 and is_call(nodes[0]) and found.direct:
            return self.reference(expression, calls[0])
        return self.unknown(expression, reason, calls)

    def reference(self, expression: ast.expr, target: Node) -> Node:
        """A node that stands where a name is used and has the value of another node.

        Its ``home`` is the node of the value itself, where edits go.
        """
        height, values = self._sizes.get(target, (0, 1))
        if height > MAX_DEPTH or values > MAX_VALUES:
            return self.unknown(expression, "it is nested too deeply")
        span = self.source.span(expression)
        node = Node(
            target.kind,
            span,
            target.value,
            target.entries,
            target.items,
            target.style,
            target.locked,
            target.note,
            target.origin,
            target.home or target,
        )
        self._sizes[node] = (height, values)
        return node

    # Attributes and items ------------------------------------------------------------------------

    def _attribute(self, expression: ast.Attribute, frame: Frame, depth: int) -> Node:
        dotted = self.callees.dotted(expression, frame)
        plain = dotted.removesuffix(".value")
        constant = constant_of(plain if is_enum(plain) else dotted)
        if constant is not None:
            return Node("scalar", self.source.span(expression), constant)
        node = self.defaults.attribute(expression, frame, depth)
        if node is not None:
            return node
        if not _is_dotted(expression.value):
            return self.unknown(expression, "an attribute of another value")
        return self.unknown(expression, f"an attribute of `{ast.unparse(expression.value)}`")

    def _subscript(self, expression: ast.Subscript, frame: Frame, depth: int) -> Node:
        if self.callees.dotted(expression.value, frame) == "os.environ":
            return self.unknown(expression, "an environment variable")
        holder = self.node(expression.value, frame, depth + 1)
        if holder.kind == "unknown":
            return self.unknown(expression, holder.note or "not a plain value")
        key = self.node(expression.slice, frame, depth + 1)
        found: Node | None = None
        if key.kind == "scalar" and holder.kind == "mapping" and not is_call(holder):
            found = None if holder.get("**") else holder.get(key.value)
        elif isinstance(key.value, int) and holder.kind == "sequence":
            count = len(holder.items)
            found = holder.items[key.value] if -count <= key.value < count else None
        if found is None:
            return self.unknown(expression, "an item that is not static")
        return self.reference(expression, found)

    # Calls ---------------------------------------------------------------------------------------

    def _call(self, expression: ast.Call, frame: Frame, depth: int) -> Node:
        callee = self.callees.of(expression, frame)
        if matters(callee):
            return self.call(expression, frame, depth)
        if self.names.is_builtin(expression.func, "dict", frame.scope) and not expression.args:
            return self.call(expression, frame, depth)
        if callee in ("os.getenv", "os.environ.get"):
            return self.unknown(expression, "an environment variable")
        function = expression.func
        if isinstance(function, ast.Attribute) and function.attr in PASS_THROUGH:
            inner = self.node(function.value, frame, depth + 1)
            if is_call(inner):
                return self.reference(expression, inner)
            return self.unknown(expression, FUNCTION_CALL, inner.items)
        if callee == "torch.compile" and expression.args:
            inner = self.node(expression.args[0], frame, depth + 1)
            if is_call(inner):
                return self.reference(expression, inner)
        found = converted(self, expression, frame, depth)
        return found or self.unknown(
            expression, FUNCTION_CALL, self._returned(expression, None, frame, depth)
        )

    def _returned(
        self, call: ast.Call, index: int | None, frame: Frame, depth: int
    ) -> Sequence[Node]:
        """The calls whose results a function of the file may return, at an index of its tuple."""
        if not isinstance(call.func, ast.Name) or depth > MAX_DEPTH // 2:
            return ()
        found = self.names.lookup(call.func.id, frame.scope)
        function = found.bindings[0].node if found and len(found.bindings) == 1 else None
        if not isinstance(function, ast.FunctionDef) or function.decorator_list:
            return ()
        if (function, index) in self._results:
            return self._results[function, index]
        if function in self._open_functions:
            return ()
        self._open_functions.add(function)
        nodes = []
        for statement, inner in self.names.returns.get(function, []):
            value = statement.value
            if index is not None and isinstance(value, ast.Tuple):
                value = value.elts[index] if 0 <= index < len(value.elts) else None
            elif isinstance(value, ast.Tuple):
                value = None
            if value is not None:
                nodes.append(self.node(value, inner, depth + 1))
        self._open_functions.discard(function)
        self._results[function, index] = _calls_among(nodes)
        return self._results[function, index]

    def _comprehension(self, expression: ast.ListComp, frame: Frame, depth: int) -> Node:
        found = comprehension(self, expression, frame, depth)
        return found or self.unknown(expression, "the result of a comprehension")

    def call(self, expression: ast.Call, frame: Frame, depth: int = 0) -> Node:
        """The node of a call, the same whenever it is asked for."""
        if expression in self._calls:
            return self._calls[expression]
        span = self.source.span(expression)
        is_dict = self.names.is_builtin(expression.func, "dict", frame.scope)
        note = "dict" if is_dict else self.callees.of(expression, frame)
        node = Node("mapping", span, style="call", note=note)
        self._calls[expression] = node
        if depth > MAX_DEPTH:
            depth = MAX_DEPTH  # a call that stands deep in others has its own entry in the tree
        starred = False
        for position, argument in enumerate(expression.args):
            starred = starred or isinstance(argument, ast.Starred)
            inner = self._part(argument, frame, span.end - 1, depth)
            key_span = Span(inner.span.start, inner.span.start)
            node.entries.append(Entry("*" if starred else position, key_span, inner))
        for keyword in expression.keywords:
            inner = self._part(keyword.value, frame, span.end - 1, depth)
            start = self.source.offset(keyword.lineno, keyword.col_offset)
            if keyword.arg is None:
                self._spread(node, Span(start, start + 2), inner)
            else:
                end = self._name_end(start)
                if is_dict and keyword.arg == "type" and inner.kind == "unknown":
                    inner.value = self.callees.dotted(keyword.value, frame)
                node.entries.append(Entry(keyword.arg, Span(start, end), inner))
        self._set_later(expression, node)
        self._measure(node)
        return node

    def _part(self, expression: ast.expr, frame: Frame, end: int, depth: int) -> Node:
        """The node of an argument or item; its place takes in round brackets that close before
        ``end``, so that text can be put behind it.
        """
        if isinstance(expression, ast.Starred):
            return self.unknown(expression, "it unpacks a value")
        node = self.node(expression, frame, depth + 1)
        if node.span.end > end:  # f(x for x in y): the brackets are the call's own
            return node
        span = self.source.with_brackets(node.span, end)
        if span != node.span and is_call(node) and node.home is None:
            node = self.reference(expression, node)
        node.span = span
        return node

    def _name_end(self, start: int) -> int:
        match = re.compile(r"\w+").match(self.source.text, start)
        return match.end() if match else start

    def _set_later(self, expression: ast.Call, node: Node) -> None:
        """Keywords that the file sets on the object afterwards: ``config.r = 8``."""
        last = (node.note or "").rpartition(".")[2]
        if not last.endswith(("Config", "Arguments")):
            return
        for setter in self.changes.setters(expression):
            inner = self.unknown(setter, "`setattr()` may set more")
            node.entries.append(Entry("**", self.source.span(setter), inner, merged=True))
        for store in self.changes.later_stores(expression):
            name = store.node.attr
            value = self.unknown(store.node, f"`{name}` is assigned after the call")
            entry = node.entry(name)
            if entry is not None:
                value.span = entry.node.span
                entry.node = value
            else:
                node.entries.append(Entry(name, self.source.span(store.node), value, merged=True))

    # Bounds --------------------------------------------------------------------------------------

    def finish(self, node: Node, expression: ast.expr) -> Node:
        """A collection with the origin of what it holds, or unknown if it grows too big."""
        height, values = self._measure(node)
        if values > MAX_VALUES or height > MAX_DEPTH:
            return self.unknown(expression, f"it holds more than {MAX_VALUES:,} values")
        children = _children(node)
        origins = {child.origin for child in children}
        if "default" in origins:
            node.origin = "default"
            node.note = next(c.note for c in children if c.origin == "default")
        elif "computed" in origins:
            node.origin = "computed"
        unknown = next((child for child in children if child.kind == "unknown"), None)
        if unknown is not None:
            node.note = unknown.note
        return node

    def _measure(self, node: Node) -> tuple[int, int]:
        sizes = [self._sizes.get(child, (0, 1)) for child in _children(node)]
        height = 1 + max((size[0] for size in sizes), default=0)
        self._sizes[node] = (height, 1 + sum(size[1] for size in sizes))
        return self._sizes[node]


def is_call(node: Node) -> bool:
    """Whether a node is a call that matters, or stands for one."""
    return node.kind == "mapping" and node.style == "call" and node.note != "dict"


def holds_mutable(node: Node) -> bool:
    """Whether a list or mapping holds lists or mappings."""
    return any(child.kind in ("sequence", "mapping") for child in _children(node))


def lock(node: Node, reason: str) -> None:
    """Lock a value and all inside it, calls that matter excepted."""
    stack, seen = [node], set()
    while stack:
        current = stack.pop()
        if current in seen or is_call(current):
            continue
        seen.add(current)
        current.locked = current.locked or reason
        stack += _children(current)


def _children(node: Node) -> list[Node]:
    return [*node.items, *(entry.node for entry in node.entries if not entry.merged)]


def _calls_among(nodes: list[Node]) -> list[Node]:
    """The calls that stand behind nodes, each once."""
    calls: dict[Node, None] = {}
    for node in nodes:
        if is_call(node):
            calls[node.home or node] = None
        elif node.kind == "unknown":
            calls.update(dict.fromkeys(node.items))
    return list(calls)


def _is_dotted(expression: ast.expr) -> bool:
    while isinstance(expression, ast.Attribute):
        expression = expression.value
    return isinstance(expression, ast.Name)


_READERS: Final[dict[type, Callable[[Static, Any, Frame, int], Node]]] = {
    ast.Constant: Static._constant,  # noqa: SLF001
    ast.List: Static._collection,  # noqa: SLF001
    ast.Tuple: Static._collection,  # noqa: SLF001
    ast.Set: Static._collection,  # noqa: SLF001
    ast.Dict: Static._dict,  # noqa: SLF001
    ast.UnaryOp: Static._unary,  # noqa: SLF001
    ast.BinOp: Static._binary,  # noqa: SLF001
    ast.JoinedStr: Static._fstring,  # noqa: SLF001
    ast.NamedExpr: Static._walrus,  # noqa: SLF001
    ast.IfExp: Static._choice,  # noqa: SLF001
    ast.BoolOp: Static._choice,  # noqa: SLF001
    ast.Name: Static._name,  # noqa: SLF001
    ast.Attribute: Static._attribute,  # noqa: SLF001
    ast.Subscript: Static._subscript,  # noqa: SLF001
    ast.Call: Static._call,  # noqa: SLF001
    ast.ListComp: Static._comprehension,  # noqa: SLF001
}
