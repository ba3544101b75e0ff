"""A base model as objects that can be wrapped, as torch modules are, but without tensors.

PEFT changes the model while it walks it, and several of its quirks come from that order. They are
reproduced by doing the same on modules that hold nothing but names and sizes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.models.module_tree import Kind, ModuleNode, ModuleTree


class Raised(Exception):  # noqa: N818 - PEFT raised it
    """PEFT, or torch beneath it, raises an exception of this class."""

    def __init__(self, type_: str, message: str) -> None:
        super().__init__(message)
        self.type = type_


class NothingMatched(Raised):
    """No module is a target."""


class Undecided(Exception):  # noqa: N818 - it is an answer
    """PEFT's answer depends on something that is not known here; the message says on what."""


class Parameter:
    """A parameter: how many numbers it holds and whether it is trained. Identity is what counts."""

    __slots__ = ("requires_grad", "shape")

    def __init__(self, shape: tuple[int, ...], *, requires_grad: bool = True) -> None:
        self.shape = shape
        self.requires_grad = requires_grad

    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class Module:
    """A module with its own parameters and children in order of registration."""

    __slots__ = ("children", "cls", "facts", "kind", "parameters")

    def __init__(self, cls: str, kind: Kind = "other", facts: Any = None) -> None:
        self.cls = cls
        self.kind = kind
        self.facts: dict[str, Any] = facts or {}
        self.parameters: dict[str, Parameter] = {}
        self.children: dict[str, Module] = {}

    def attribute(self, name: str) -> Module | None:
        """The submodule that ``getattr(module, name)`` gives, None where there is none."""
        return self.children.get(name)

    def named_modules(
        self, memo: set[int] | None = None, prefix: str = "", *, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """As torch's: depth first, each object once unless duplicates are wanted, lazily."""
        if memo is None:
            memo = set()
        if id(self) in memo:
            return
        if remove_duplicate:
            memo.add(id(self))
        yield prefix, self
        open_ = [(prefix, iter(self.children.items()))]
        while open_:
            above, children = open_[-1]
            for name, child in children:
                if id(child) in memo:
                    continue
                if remove_duplicate:
                    memo.add(id(child))
                below = f"{above}.{name}" if above else name
                yield below, child
                if child.children:
                    open_.append((below, iter(child.children.items())))
                    break
            else:
                open_.pop()

    def modules(self) -> Iterator[Module]:
        """Every module once, in the order of ``named_modules``, lazily too."""
        memo: set[int] = set()
        waiting = [self]
        while waiting:
            module = waiting.pop()
            if id(module) not in memo:
                memo.add(id(module))
                yield module
                waiting += reversed(module.children.values())

    def named_parameters(self, *, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its full name, each object once unless duplicates are wanted."""
        seen: set[int] = set()
        for prefix, module in self.named_modules(remove_duplicate=remove_duplicate):
            for name, parameter in module.parameters.items():
                if remove_duplicate and id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                yield (f"{prefix}.{name}" if prefix else name), parameter

    def all_parameters(self) -> Iterable[Parameter]:
        """Every parameter once, as they are now."""
        every = (parameter for module in self.modules() for parameter in module.parameters.values())
        return {id(parameter): parameter for parameter in every}.values()

    def get_submodule(self, target: str) -> Module:
        """As torch's.

        Raises ``Raised("AttributeError")`` where the path leads nowhere.
        """
        module: Module = self
        for item in target.split(".") if target else ():
            below = module.attribute(item)
            if below is None:
                raise Raised("AttributeError", f"{module.cls} has no attribute `{item}`")
            module = below
        return module

    def requires_grad_(self, value: bool) -> None:
        """Set the flag of every parameter below."""
        for parameter in self.all_parameters():
            parameter.requires_grad = value

    def deepcopy(self, memo: dict[int, Any] | None = None, *, share: bool = False) -> Module:
        """As ``copy.deepcopy``; with ``share`` the copy keeps the parameters themselves."""
        memo = {} if memo is None else memo
        if id(self) in memo:
            copied: Module = memo[id(self)]
            return copied
        new = object.__new__(type(self))
        memo[id(self)] = new
        for cls in type(self).__mro__:
            for slot in getattr(cls, "__slots__", ()):
                if slot not in ("children", "parameters") and hasattr(self, slot):
                    setattr(new, slot, getattr(self, slot))
        new.children = {
            name: child.deepcopy(memo, share=share) for name, child in self.children.items()
        }
        new.parameters = {
            name: parameter if share else _copy_parameter(parameter, memo)
            for name, parameter in self.parameters.items()
        }
        return new

    @property
    def features(self) -> tuple[int, int]:
        """Input and output features as PEFT reads them.

        Source: peft 0.21.2 tuners/tuners_utils.py ``_get_in_out_features``.
        """
        if "features" in self.facts:
            first, second = self.facts["features"]
            return first, second
        shape = self.parameters["weight"].shape
        return (shape[1], shape[0]) if self.kind == "Linear" else (shape[0], shape[1])

    @property
    def weight(self) -> Parameter | None:
        """The parameter called weight, None where there is none."""
        return self.parameters.get("weight")


def _copy_parameter(parameter: Parameter, memo: dict[int, Any]) -> Parameter:
    if id(parameter) not in memo:
        memo[id(parameter)] = Parameter(parameter.shape, requires_grad=parameter.requires_grad)
    copied: Parameter = memo[id(parameter)]
    return copied


def build(tree: ModuleTree) -> Module:
    """The model of a tree, each shared module and tied parameter one object."""
    tied = {name: group[0] for group in tree.tied for name in group}
    parameters: dict[str, Parameter] = {}
    modules: dict[str, Module] = {}

    def make(node: ModuleNode, prefix: str) -> Module:
        if prefix in tree.shared:
            return modules[tree.shared[prefix]]
        module = Module(node.cls, node.kind, node.facts)
        if tree.shared:
            modules[prefix] = module
        for name, shape in node.parameters.items():
            full = f"{prefix}.{name}" if prefix else name
            if full in tied:
                parameter = parameters.get(tied[full])
                if parameter is None:
                    parameter = parameters[tied[full]] = Parameter(shape)
            else:
                parameter = Parameter(shape)
            module.parameters[name] = parameter
        for name, child in node.children.items():
            module.children[name] = make(child, f"{prefix}.{name}" if prefix else name)
        return module

    return make(tree.root, "")
