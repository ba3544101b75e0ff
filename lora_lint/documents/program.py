"""From a Python syntax tree to the tree of scopes and calls that matter."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from typing import TYPE_CHECKING

from lora_lint.diagnostics import Span
from lora_lint.documents.callees import matters
from lora_lint.documents.collect import collect
from lora_lint.documents.scopes import last_name
from lora_lint.documents.static import Static
from lora_lint.documents.tree import Entry, Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora_lint.documents.scopes import CallSite, Names, Scope
    from lora_lint.documents.source import Source

SCOPE_LOCK = "a scope of the program has no keys of its own"


class SyntaxProblem(Exception):  # noqa: N818
    """The text is not Python as far as this Python knows; ``span`` says where."""

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.span = span


def syntax_tree(source: Source) -> ast.Module:
    """The syntax tree of a text. Raises ``SyntaxProblem``."""
    version = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    whole = Span(source.shift, source.shift)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(
                source.text[source.shift :], "<config>", "exec", flags, dont_inherit=True
            )
    except SyntaxError as exc:
        message = f"it does not parse as {version}: {exc.msg}"
        raise SyntaxProblem(message, _error_span(exc, source)) from None
    except (RecursionError, MemoryError):
        message = "it is nested too deeply to be read"
        raise SyntaxProblem(message, whole) from None
    except ValueError as exc:
        message = f"it does not parse as {version}: {exc}"
        raise SyntaxProblem(message, whole) from None
    assert isinstance(tree, ast.Module)  # noqa: S101
    return tree


def _error_span(exc: SyntaxError, source: Source) -> Span:
    """The place of a syntax error, which Python gives as a line and a column in characters."""
    line = min(max(exc.lineno or 1, 1), len(source.starts))
    length = len(source.line(line).rstrip("\r\n"))
    column = min(max((exc.offset or 1) - 1, 0), length)
    start = source.starts[line - 1] + column
    return Span(start, min(start + 1, len(source.text)))


# What a file must say somewhere if it holds a call that matters.
_MAY_MATTER = re.compile(
    r"Config\b|Arguments\b|Trainer\b|PeftModel|from_pretrained|from_config|get_peft_model"
    r"|add_adapter|inject_adapter_in_model|prepare_model_for_"
)


def build(
    source: Source, tree: ast.Module, part_of: Callable[[int], int], tainted: frozenset[str]
) -> dict[int, Node]:
    """The mapping of scopes and calls for each part that has calls; ``part_of`` tells the part of
    an offset.
    """
    if not _MAY_MATTER.search(source.text):
        return {}
    names = collect(tree)
    static = Static(source, names, tainted, part_of)
    roots: dict[int, _Root] = {}
    for site in names.calls:
        callee = static.callees.of(site.node, site.frame)
        if site.embedded or not matters(callee) or _only_written(site, names):
            continue
        node = static.call(site.node, site.frame)
        root = roots.setdefault(part_of(node.span.start), _Root(source))
        root.add(site, callee, node)
    if any(name in names.module.bindings for name in _PLANS):
        _add_plans(source, static, part_of, roots)
    return {part: root.node for part, root in roots.items()}


# What a config of mmengine's calls the dicts that its runner builds things of
# (mmengine 0.10.7 runner/runner.py ``Runner.from_cfg``), and what XTuner builds for transformers'
# Trainer (xtuner 0.2.0 tools/train.py).
_PLANS = (
    "model",
    "lora",
    "train_dataloader",
    "train_dataset",
    "optim_wrapper",
    "training_args",
)


def _add_plans(
    source: Source, static: Static, part_of: Callable[[int], int], roots: dict[int, _Root]
) -> None:
    """Put mmengine's dicts (``model = dict(type=...)``) beside the calls, under their names."""
    names = static.names
    for name in _PLANS:
        found = names.module.bindings.get(name, [])
        value = found[0].value if len(found) == 1 and found[0].unconditional else None
        if not isinstance(value, ast.Call) or value.args:
            continue
        if not names.is_builtin(value.func, "dict", names.module):
            continue
        if static.changes.dynamic or static.changes.of(names.module, name, nested=True):
            continue
        node = static.call(value, found[0].frame)
        root = roots.setdefault(part_of(node.span.start), _Root(source))
        root.node.entries.append(Entry(name, source.span(found[0].node), node))


# What is made of a config that nothing is trained with: `LoraConfig(r=8).to_dict()`.
_WRITTEN = ("to_dict", "to_diff_dict", "to_json_string", "save_pretrained")


def _only_written(site: CallSite, names: Names) -> bool:
    """Whether a call makes a config whose only use is to be written to a file."""
    parent = names.parents.get(site.node)
    return isinstance(parent, ast.Attribute) and parent.attr in _WRITTEN


class _Root:
    """The mapping of scopes of one part, while it is built."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.node = Node("mapping", Span(0, 0), style="block", locked=SCOPE_LOCK)
        self.scopes: dict[Scope, Node] = {}

    def add(self, site: CallSite, callee: str, call: Node) -> None:
        """Put a call into its scope."""
        holder = self._holder(site.frame.scope)
        name = callee.rpartition(".")[2].lstrip("?")
        number = sum(str(entry.key).startswith(f"{name}#") for entry in holder.entries)
        span = self.source.span(site.node.func)
        shown = self.source.text[span.start : span.end]
        if not all(part.isidentifier() for part in shown.split(".")):
            span = Span(span.end - len(last_name(site.node.func)), span.end)
        holder.entries.append(Entry(f"{name}#{number}", span, call))

    def _holder(self, scope: Scope) -> Node:
        """The mapping of a scope, made when it first has a call."""
        while scope.kind in ("lambda", "comprehension") and scope.parent is not None:
            scope = scope.parent
        if scope.parent is None:
            return self.node
        if scope in self.scopes:
            return self.scopes[scope]
        outer = self._holder(scope.parent)
        taken = {entry.key for entry in outer.entries}
        key, number = scope.name, 2
        while key in taken:
            key, number = f"{scope.name}@{number}", number + 1
        span = self.source.span(scope.node)
        at = self.source.text.find(scope.name, span.start + 3)
        key_span = Span(at, at + len(scope.name)) if at >= 0 else span
        node = Node("mapping", span, style="block", locked=SCOPE_LOCK)
        outer.entries.append(Entry(key, key_span, node))
        self.scopes[scope] = node
        return node
