"""Module nodes as JSON: equal nodes once, equal neighbours together, numbered ones as a range.

    {"classes": ["LlamaMLP", ["Linear", "Linear"]],        a class; with its kind, unless "other"
     "parameters": [{"weight": [64, 32]}, {"weight": 2}],  a number: that many unknown dimensions
     "modules": [[1, 0, []],                               class, parameters, children, facts
                 [0, 1, [[0, "up_proj", [0, 31]]]]]}       children: module, then its names

A module's children stand before it. All that is read here may come from a stranger's file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from lora_lint.models.module_tree import KINDS, ModuleNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lora_lint.models.module_tree import Shape

# Far beyond real models (256 unfused experts in 60 layers are 80,000 modules, 20 deep), and small
# enough that a hostile file can't exhaust the memory.
MAX_MODULES: Final = 1_000_000
MAX_DEPTH: Final = 100

_NODE_FACTS: Final[dict[str, type]] = {
    "features": list,
    "kernel": list,
    "groups": int,
    "same_embed": bool,
    "transposed": bool,
    "parametrized_shapes": dict,
}


def write_nodes(roots: Iterable[ModuleNode]) -> tuple[dict[str, Any], list[int]]:
    """The nodes as JSON values, and the number of each root among ``modules``."""
    writer = _Writer()
    numbers = [writer.write(root) for root in roots]
    tables = {
        "classes": [json.loads(key) for key in writer.classes],
        "parameters": [json.loads(key) for key in writer.parameters],
        "modules": writer.modules,
    }
    return tables, numbers


class _Writer:
    def __init__(self) -> None:
        self.classes: dict[str, int] = {}
        self.parameters: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.modules: list[list[Any]] = []
        self.written: dict[int, int] = {}

    def write(self, node: ModuleNode) -> int:
        if id(node) in self.written:
            return self.written[id(node)]
        cls = node.cls if node.kind == "other" else [node.cls, node.kind]
        parameters = {name: _write_shape(shape) for name, shape in node.parameters.items()}
        row: list[Any] = [
            _number(self.classes, cls),
            _number(self.parameters, parameters),
            self.children(node),
        ]
        if node.facts:
            row.append(dict(node.facts))
        known = len(self.rows)
        number = _number(self.rows, row)
        if number == known:
            self.modules.append(row)
        self.written[id(node)] = number
        return number

    def children(self, node: ModuleNode) -> list[list[Any]]:
        groups: list[list[Any]] = []
        for name, child in node.children.items():
            number = self.write(child)
            if not groups or groups[-1][0] != number:
                groups.append([number])
            group = groups[-1]
            if not _is_index(name):
                group.append(name)
            elif isinstance(group[-1], list) and group[-1][1] == int(name) - 1:
                group[-1][1] = int(name)
            else:
                group.append([int(name), int(name)])
        return groups


def _number(table: dict[str, int], value: Any) -> int:
    return table.setdefault(json.dumps(value, separators=(",", ":")), len(table))


def _write_shape(shape: Shape) -> int | list[int]:
    return list(shape) if any(shape) or not shape else len(shape)


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")


def read_nodes(data: Mapping[str, Any]) -> list[ModuleNode]:
    """All modules that ``write_nodes`` wrote, under the numbers it gave them.

    Raises ``ValueError`` for anything that it would not have written.
    """
    classes = [_read_class(entry) for entry in _list(data["classes"])]
    parameters = [_read_parameters(entry) for entry in _list(data["parameters"])]
    nodes: list[ModuleNode] = []
    counts: list[int] = []
    depths: list[int] = []
    for row in _list(data["modules"]):
        cls, own, groups, *facts = _list(row)
        children: dict[str, ModuleNode] = {}
        count, depth = 1, 1
        for group in _list(groups):
            number, *items = _list(group)
            child = nodes[_index(number)]
            names = list(_names(items))
            children.update(dict.fromkeys(names, child))
            count += counts[number] * len(names)
            depth = max(depth, depths[number] + 1)
        if count > MAX_MODULES or depth > MAX_DEPTH:
            raise ValueError("more or deeper modules than any model has")
        name, kind = classes[_index(cls)]
        shapes = parameters[_index(own)]
        nodes.append(ModuleNode(name, kind, shapes, children, _read_facts(facts)))
        counts.append(count)
        depths.append(depth)
    return nodes


def _names(items: list[Any]) -> Iterable[str]:
    for item in items:
        if isinstance(item, str):
            yield item
        else:
            first, last = (_index(number) for number in item)
            if last - first >= MAX_MODULES:
                raise ValueError("more modules than any model has")
            yield from map(str, range(first, last + 1))


def _read_class(entry: Any) -> tuple[str, Any]:
    name, kind = (entry, "other") if isinstance(entry, str) else entry
    if not isinstance(name, str) or kind not in KINDS:
        raise ValueError(f"not a class and its kind: {entry!r:.80}")
    return name, kind


def _read_parameters(entry: Any) -> dict[str, Shape]:
    return {name: _read_shape(shape) for name, shape in entry.items()}


def _read_shape(shape: Any) -> Shape:
    if isinstance(shape, list):
        return tuple(_index(number) for number in shape)
    if _index(shape) > 8:
        raise ValueError(f"not a number of dimensions: {shape}")
    return (0,) * int(shape)


def _read_facts(rest: list[Any]) -> dict[str, Any]:
    facts = rest[0] if rest else {}
    for name, value in facts.items():
        if not isinstance(value, _NODE_FACTS.get(name, object)):
            raise ValueError(f"not a fact of a module: {name}")  # noqa: TRY004 - one error
    for shape in (facts.get("features", []), *facts.get("parametrized_shapes", {}).values()):
        _read_shape(shape)
    return dict(facts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list is expected, not {value!r:.80}")  # noqa: TRY004 - one error
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"a number from 0 is expected, not {value!r:.80}")
    return value


def write_ties(groups: Iterable[Iterable[str]]) -> list[list[list[str]]]:
    """Groups of tied parameters as [modules, parameters]: neighbours that tie the same modules
    are one, so that 9 copies of a block of 20 parameters take 29 names and not 180.
    """
    written: list[list[list[str]]] = []
    for group in groups:
        parts = [name.split(".") for name in group]
        common = 0
        while common < min(map(len, parts)) - 1 and len({p[-1 - common] for p in parts}) == 1:
            common += 1
        modules = [".".join(p[: len(p) - common]) for p in parts]
        parameter = ".".join(parts[0][len(parts[0]) - common :])
        if written and parameter and written[-1][0] == modules and written[-1][1][0]:
            written[-1][1].append(parameter)
        else:
            written.append([modules, [parameter]])
    return written


def read_ties(written: Any) -> tuple[tuple[str, ...], ...]:
    """What ``write_ties`` wrote; raises ``ValueError`` for anything else."""
    groups = []
    for modules, parameters in _list(written):
        if not all(isinstance(name, str) for name in (*_list(modules), *_list(parameters))):
            raise ValueError("a tied parameter is not a name")
        groups += [
            tuple(f"{module}.{name}" if name else module for module in modules)
            for name in parameters
        ]
    return tuple(groups)
