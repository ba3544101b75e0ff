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
GRADES: Final[tuple[Grade, ...]] = ("exact", "dims", "named", "live", "given")
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
    ``prepare_inputs_for_generation``), ``encodes`` (has
    ``_prepare_encoder_decoder_kwargs_for_generation``; of transformers before 5.18), ``config``
    (dimensions, and of a tree that was read from a model ``dropouts``: probabilities above 0),
    ``checkpoint_dtype`` (where the published weights' dtype is known). ``shared``
    maps the second name of a module object to its first, ``tied`` groups the names of one
    parameter object.

    A tree of grade ``named`` was built from its class's default config, and another config may
    change more than sizes: ``also`` and ``maybe`` list the last parts of the names that other
    configs add or lack, ``open`` says that a part of the model may be of any architecture,
    ``template`` that not even the number of layers is the model's own.
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

    def may_have(self, part: str) -> bool:
        """Whether a model that this tree stands for may have a module or parameter whose name ends
        in this part (``q_proj``) although the tree has none. Never so where sizes are known.
        """
        return not self.sized and (
            bool(self.facts.get("open")) or part in self.facts.get("also", ())
        )

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
        from lora_lint.models.storage import read_nodes, read_ties

        try:
            data = json.loads(text)
            if data.get("lora_lint_module_tree") != FORMAT_VERSION:
                raise ValueError("not a module tree of this version")
            tree = cls(
                root=read_nodes(data)[-1],
                cls=data["class"],
                model_type=data["model_type"],
                transformers=data["transformers"],
                grade=data["grade"],
                dtype=data["dtype"],
                facts=data["facts"],
                shared=data["shared"],
                tied=read_ties(data["tied"]),
            )
            _check(tree)
        except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as exc:
            msg = f"not a module tree: {type(exc).__name__}: {exc}"
            raise ValueError(msg) from exc
        return tree

    def to_json(self) -> str:
        """The tree as one line of JSON, of some kilobytes whatever the model's size."""
        from lora_lint.models.storage import write_nodes, write_ties

        tables, _ = write_nodes([self.root])
        data = {
            "lora_lint_module_tree": FORMAT_VERSION,
            "class": self.cls,
            "model_type": self.model_type,
            "transformers": self.transformers,
            "grade": self.grade,
            "dtype": self.dtype,
            "facts": dict(self.facts),
            "shared": dict(self.shared),
            "tied": write_ties(self.tied),
            **tables,
        }
        return json.dumps(data, separators=(",", ":"))


_FACTS: Final[dict[str, tuple[type, ...]]] = {
    "has_config": (bool,),
    "pretrained": (bool,),
    "generates": (bool,),
    "has_input_embeddings": (bool,),
    "input_embeddings": (str,),
    "input_embeddings_error": (str,),
    "output_embeddings": (str,),
    "output_embeddings_error": (str,),
    "checkpoint_dtype": (str,),
    "checkpoint_quantization": (str,),
    "tied_keys": (dict, list),
    "config": (dict,),
    "also": (list,),
    "maybe": (list,),
    "open": (bool,),
}


def _check(tree: ModuleTree) -> None:
    """Raise ``ValueError`` where a file holds another type than the class promises."""
    text = [tree.cls, tree.dtype]
    text += [value for value in (tree.model_type, tree.transformers) if value is not None]
    if not all(isinstance(value, str) for value in text) or tree.grade not in GRADES:
        raise ValueError("not a module tree: its class, type, version, dtype or grade is odd")
    names = [*tree.shared, *tree.shared.values()]
    keys = tree.facts.get("tied_keys", ())
    names += [*keys, *keys.values()] if isinstance(keys, dict) else list(keys)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("not a module tree: a module's name is not text")
    for name, value in tree.facts.items():
        if not isinstance(value, _FACTS.get(name, (object,))):
            msg = f"not a module tree: the fact {name} is odd"
            raise ValueError(msg)  # noqa: TRY004 - one error for a file that is not one of ours
