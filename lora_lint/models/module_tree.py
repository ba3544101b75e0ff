"""The module tree of a base model: all that PEFT reads of it, without torch.

Equal subtrees are stored once and equal numbered siblings as a range, so that a model of 126 layers
takes about as much room as its one layer. Order is that of ``named_modules()``, which decides what
PEFT meets first.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal[
    "Linear",
    "Conv1D",
    "Embedding",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "MultiheadAttention",
    "container",
    "other",
]
Grade = Literal["exact", "dims", "named", "live", "given"]
Shape = tuple[int, ...]

KINDS: Final[tuple[Kind, ...]] = (
    "other",
    "container",
    "Linear",
    "Conv1D",
    "Embedding",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "MultiheadAttention",
)
# Kinds for which PEFT has a LoRA layer (peft 0.21.2 tuners/lora/layer.py, dispatch_default).
ADAPTABLE: Final = frozenset(KINDS[2:])
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class ModuleNode:
    """A module: its class, the kind PEFT dispatches on, its own parameters, its children.

    ``parameters`` maps a name to its shape; in a tree of grade ``named`` its numbers are zeros.
    ``children`` maps each child's name to its node; equal children share one node. ``facts`` holds
    what the shapes do not tell: ``features`` ([in, out] where they differ from the weight's),
    ``groups`` and ``kernel`` of a convolution, ``same_embed`` of an attention, ``transposed`` of
    expert parameters, ``parametrized_shapes`` of parameters that torch computes from others.
    """

    cls: str
    kind: Kind
    parameters: Mapping[str, Shape]
    children: Mapping[str, ModuleNode]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ModuleTree:
    """A base model as PEFT sees it.

    ``facts`` are those of the model and its config that PEFT consults: ``tie_word_embeddings`` (of
    the config's dict) and ``tie_attribute`` (of the config object), ``input_embeddings`` and
    ``output_embeddings`` (module names), ``tied_keys`` (``_tied_weights_keys`` of all modules),
    ``pretrained`` (a transformers ``PreTrainedModel``), ``generates`` (has
    ``prepare_inputs_for_generation``), ``config`` (dimensions). ``shared`` maps the second name of
    a module object to its first, ``tied`` groups the names of one parameter object.
    """

    root: ModuleNode
    cls: str
    model_type: str | None
    transformers: str | None
    grade: Grade = "given"
    dtype: str = "float32"
    facts: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    tied: tuple[tuple[str, ...], ...] = ()

    @property
    def sized(self) -> bool:
        """Whether shapes and layer counts are known, not only names."""
        return self.grade != "named"

    def named_modules(self) -> Iterator[tuple[str, ModuleNode]]:
        """Every module with its full name, each object once, in torch's order; the root is
        ``""``.
        """
        shared = self.shared

        def walk(prefix: str, node: ModuleNode) -> Iterator[tuple[str, ModuleNode]]:
            yield prefix, node
            for name, child in node.children.items():
                full = f"{prefix}.{name}" if prefix else name
                if full not in shared:
                    yield from walk(full, child)

        yield from walk("", self.root)

    def get(self, name: str) -> ModuleNode | None:
        """The module of a full name, None where there is none."""
        node: ModuleNode | None = self.root
        for step in name.split(".") if name else ():
            node = node.children.get(step) if node else None
        return node

    def parameter_count(self) -> int | None:
        """Parameters of the base model, tied ones once; None where sizes are unknown."""
        if not self.sized:
            return None
        duplicates = {name for group in self.tied for name in group[1:]}
        total = 0
        for prefix, node in self.named_modules():
            for name, shape in node.parameters.items():
                full = f"{prefix}.{name}" if prefix else name
                if full not in duplicates:
                    total += math.prod(shape)
        return total

    # Construction and storage ---------------------------------------------------------------------

    @classmethod
    def from_model(cls, model: object) -> ModuleTree:
        """Read the tree of a live torch model, on any device, the meta device included.

        Raises ``ValueError`` for a model that already carries adapters.
        """
        from lora_lint.models.from_model import read_model

        return read_model(model)

    @classmethod
    def from_json(cls, text: str) -> ModuleTree:
        """Read what ``to_json`` wrote.

        Raises ``ValueError`` for anything else.
        """
        try:
            data = json.loads(text)
            if data.get("lora_lint_module_tree") != FORMAT_VERSION:
                raise ValueError("not a module tree of this version")
            return cls(
                root=_read_nodes(data["classes"], data["modules"]),
                cls=data["class"],
                model_type=data["model_type"],
                transformers=data["transformers"],
                grade=data["grade"],
                dtype=data["dtype"],
                facts=data["facts"],
                shared=data["shared"],
                tied=tuple(tuple(group) for group in data["tied"]),
            )
        except (KeyError, IndexError, TypeError, AttributeError, json.JSONDecodeError) as exc:
            msg = f"not a module tree: {exc}"
            raise ValueError(msg) from exc

    def to_json(self) -> str:
        """The tree as one line of JSON, of some kilobytes whatever the model's size."""
        classes, modules = _write_nodes(self.root)
        data = {
            "lora_lint_module_tree": FORMAT_VERSION,
            "class": self.cls,
            "model_type": self.model_type,
            "transformers": self.transformers,
            "grade": self.grade,
            "dtype": self.dtype,
            "facts": self.facts,
            "shared": self.shared,
            "tied": self.tied,
            "classes": classes,
            "modules": modules,
        }
        return json.dumps(data, separators=(",", ":"))


def _write_nodes(root: ModuleNode) -> tuple[list[str], list[list[Any]]]:
    """The nodes as rows, children before parents, the root last; equal rows are written once."""
    classes: dict[str, int] = {}
    rows: dict[str, int] = {}
    written: dict[int, int] = {}
    modules: list[list[Any]] = []

    def write(node: ModuleNode) -> int:
        if id(node) in written:
            return written[id(node)]
        children: list[list[Any]] = []
        for name, child in node.children.items():
            number = write(child)
            if _continues(children, name, number):
                children[-1] = [children[-1][0], int(name), number]
            else:
                children.append(
                    [int(name), int(name), number] if _is_index(name) else [name, number]
                )
        parameters = {name: list(shape) for name, shape in node.parameters.items()}
        row: list[Any] = [
            classes.setdefault(node.cls, len(classes)),
            KINDS.index(node.kind),
            parameters,
            children,
        ]
        if node.facts:
            row.append(dict(node.facts))
        key = json.dumps(row)
        if key not in rows:
            rows[key] = len(modules)
            modules.append(row)
        written[id(node)] = rows[key]
        return rows[key]

    write(root)
    return list(classes), modules


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")


def _continues(children: list[list[Any]], name: str, number: int) -> bool:
    last = children[-1] if children else None
    return (
        last is not None
        and len(last) == 3
        and _is_index(name)
        and last[1] == int(name) - 1
        and last[2] == number
    )


def _read_nodes(classes: list[str], modules: list[list[Any]]) -> ModuleNode:
    nodes: list[ModuleNode] = []
    for cls, kind, parameters, children, *facts in modules:
        pairs: dict[str, ModuleNode] = {}
        for child in children:
            if len(child) == 3:
                for index in range(child[0], child[1] + 1):
                    pairs[str(index)] = nodes[child[2]]
            else:
                pairs[child[0]] = nodes[child[1]]
        shapes = {name: tuple(shape) for name, shape in parameters.items()}
        nodes.append(
            ModuleNode(classes[cls], KINDS[kind], shapes, pairs, facts[0] if facts else {})
        )
    return nodes[-1]
