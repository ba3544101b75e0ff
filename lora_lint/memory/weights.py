"""Bytes that are there whatever the batch: base weights, adapters, saved copies, optimizer states.

All of it is counted, nothing estimated.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.facts import version_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.injection.result import Injection
    from lora_lint.models.module_tree import ModuleNode, ModuleTree

FOUR_BIT: Final = ("nf4", "fp4")
# Bytes per value of the dtypes that a base model is loaded in.
DTYPE_BYTES: Final = {
    "float64": 8,
    "float32": 4,
    "fp32": 4,
    "float": 4,
    "bfloat16": 2,
    "bf16": 2,
    "float16": 2,
    "fp16": 2,
    "half": 2,
}


class Matrix(NamedTuple):
    """A weight that bitsandbytes replaces: its values and its rows (output features)."""

    values: int
    rows: int


class Weights(NamedTuple):
    """The parameters of a base model: the matrices that bitsandbytes replaces, with how many there
    are of each, and the number of all other parameters. Tied parameters count once.
    """

    matrices: Mapping[Matrix, int]
    others: int

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.others + sum(m.values * count for m, count in self.matrices.items())

    def size(
        self, *, weight_bytes: int, plain_bytes: int, quantized: str | None, double_quant: bool
    ) -> int:
        """Bytes of the loaded model.

        4 bit: two values a byte and an fp32 scale for each block of 64 (0.5625 bytes a value); with
        double quantization a one-byte scale for each block and an fp32 one for 256 of those (0.5159
        bytes). 8 bit: a byte a value and an fp32 scale a row. Source: bitsandbytes 0.50
        functional.py ``quantize_4bit``, autograd/_functions.py ``MatMul8bitLt``.
        """
        if quantized is None:
            return self.parameters * weight_bytes
        return self.others * plain_bytes + sum(
            count * _quantized_size(matrix, quantized, double_quant=double_quant)
            for matrix, count in self.matrices.items()
        )


def _quantized_size(matrix: Matrix, kind: str, *, double_quant: bool) -> int:
    if kind == "int8":
        return matrix.values + 4 * matrix.rows
    blocks = -(-matrix.values // 64)
    scales = blocks + 4 * -(-blocks // 256) if double_quant else 4 * blocks
    return -(-matrix.values // 2) + scales


@lru_cache(maxsize=16)
def read_weights(tree: ModuleTree, *, every_linear: bool = False) -> Weights:
    """The parameters of a tree of known sizes.

    transformers hands bitsandbytes every ``nn.Linear`` and ``Conv1D``, of transformers 5 on no
    subclass of the former, but for the output head, tied ones, and the module of the last parameter
    (transformers 5.23 integrations/bitsandbytes.py ``replace_with_bnb_linear``, quantizers/base.py
    ``get_keys_to_not_convert``; 4.57 integrations/bitsandbytes.py). ``every_linear``: all of them
    instead, without an exception, and no weights are tied, as in LitGPT (0.5.13 model.py).
    """
    exact = not every_linear and (
        tree.transformers is None or version_key(tree.transformers) >= (5,)
    )
    memo: dict[int, tuple[Counter[Matrix], int]] = {}

    def count(node: ModuleNode) -> tuple[Counter[Matrix], int]:
        if id(node) in memo:
            return memo[id(node)]
        matrices: Counter[Matrix] = Counter()
        others = 0
        for key, shape in node.parameters.items():
            if key == "weight" and _is_replaced(node, exact=exact):
                matrices[Matrix(math.prod(shape), _rows(node))] += 1
            else:
                others += math.prod(shape)
        nodes = {id(child): child for child in node.children.values()}
        for identity, times in Counter(map(id, node.children.values())).items():
            inner, inner_others = count(nodes[identity])
            others += times * inner_others
            for matrix, number in inner.items():
                matrices[matrix] += times * number
        memo[id(node)] = matrices, others
        return memo[id(node)]

    matrices, others = count(tree.root)
    matrices = Counter(matrices)
    for name in () if every_linear else _kept_as_is(tree):
        node = tree.get(name)
        if node is not None and _is_replaced(node, exact=exact):
            values = math.prod(node.parameters["weight"])
            matrices[Matrix(values, _rows(node))] -= 1
            others += values
    for group in () if every_linear else tree.tied:
        for name in group[1:]:
            others -= _parameter_size(tree, name)
    return Weights({m: n for m, n in matrices.items() if n}, others)


def _is_replaced(node: ModuleNode, *, exact: bool) -> bool:
    if "weight" not in node.parameters or len(node.parameters["weight"]) != 2:
        return False
    return node.kind == "Conv1D" or (node.kind == "Linear" and (node.cls == "Linear" or not exact))


def _rows(node: ModuleNode) -> int:
    shape = node.parameters["weight"]
    return shape[1] if node.kind == "Conv1D" else shape[0]


def _kept_as_is(tree: ModuleTree) -> set[str]:
    names = {name.rpartition(".")[0] for group in tree.tied for name in group}
    names.add(tree.facts.get("output_embeddings") or "")
    names.add(_last_owner(tree.root, ""))
    return names - {""}


def _last_owner(node: ModuleNode, name: str) -> str:
    """The module that owns the last of ``named_parameters()``, which lists a module's own first."""
    for key, child in reversed(list(node.children.items())):
        owner = _last_owner(child, f"{name}.{key}" if name else key)
        if owner:
            return owner
    return name if node.parameters else ""


def _parameter_size(tree: ModuleTree, name: str) -> int:
    owner, _, leaf = name.rpartition(".")
    node = tree.get(owner)
    return math.prod(node.parameters[leaf]) if node is not None else 0


# What is trained ----------------------------------------------------------------------------------


class Group(NamedTuple):
    """Trained parameters of one kind: how many, and the sums of rows and columns of their matrices,
    which Adafactor keeps.
    """

    parameters: int
    sums: int


class Trained(NamedTuple):
    """The parameters that a LoRA run trains.

    ``adapters`` are the adapters' (of which ``frozen`` more are there but not trained), ``saved``
    those of modules_to_save's copies; ``head`` and ``embeddings`` count how many of the latter are
    the output head's and the input embeddings'.
    """

    adapters: Group
    frozen: int
    saved: Group
    head: int
    embeddings: int


def read_trained(tree: ModuleTree, injection: Injection) -> Trained:
    """What an injection without error trains.

    Trained biases and token rows count as adapters: they are few.
    """
    adapted = sum(entry.parameters for entry in injection.adapted.values())
    trainable = injection.trainable or 0
    sizes = {name: _module_size(tree, name) for name in injection.saved}
    saved = min(sum(sizes.values()), trainable)
    adapters = trainable - saved
    sums = sum(
        entry.parameters // entry.r + 2 * entry.r for entry in injection.adapted.values() if entry.r
    )
    saved_sums = sum(sum(shape) for name in injection.saved for shape in _shapes(tree.get(name)))
    return Trained(
        adapters=Group(adapters, sums),
        frozen=max(0, adapted - adapters),
        saved=Group(saved, saved_sums),
        head=sizes.get(tree.facts.get("output_embeddings") or "", 0),
        embeddings=sizes.get(tree.facts.get("input_embeddings") or "", 0),
    )


def embedding_values(tree: ModuleTree) -> int:
    """Parameters of the input embeddings, 0 where they are not known."""
    return _module_size(tree, tree.facts.get("input_embeddings") or "")


def _module_size(tree: ModuleTree, name: str) -> int:
    return sum(math.prod(shape) for shape in _shapes(tree.get(name)))


def _shapes(node: ModuleNode | None) -> Iterator[tuple[int, ...]]:
    if node is not None:
        yield from node.parameters.values()
        for child in node.children.values():
            yield from _shapes(child)


# Optimizers ---------------------------------------------------------------------------------------


class Optimizer(NamedTuple):
    """What an optimizer keeps: so many states of so many bytes a parameter (None: in the
    parameter's own dtype); ``factored`` ones keep row and column sums; ``paged`` ones can be moved
    to the host; ``temporary`` copies exist during its step.
    """

    states: float
    value_bytes: float | None = None
    factored: bool = False
    paged: bool = False
    temporary: int = 0


# bitsandbytes 0.50 optim/optimizer.py: one byte a value and an fp32 scale for a block of 256.
_EIGHT_BIT: Final = 1 + 4 / 256
# torchao optim/subclass_4bit.py: half a byte and an fp32 scale for a block of 128.
_FOUR_BIT: Final = 0.5 + 4 / 128
# transformers 5.23 training_args.py ``OptimizerNames``, and names of other frameworks.
_OPTIMIZERS: Final[dict[str, Optimizer]] = {
    # torch's foreach loop makes the root of the second moment for all parameters at once.
    "adamw_torch": Optimizer(2, temporary=1),
    "adamw_torch_fused": Optimizer(2),
    "adamw_torch_npu_fused": Optimizer(2),
    "adamw_torch_xla": Optimizer(2),
    "adamw_apex_fused": Optimizer(2),
    "adamw_hf": Optimizer(2),
    "adamw_torch_8bit": Optimizer(2, _EIGHT_BIT),
    "adamw_torch_4bit": Optimizer(2, _FOUR_BIT),
    "adamw_8bit": Optimizer(2, _EIGHT_BIT),
    "adamw_bnb_8bit": Optimizer(2, _EIGHT_BIT),
    "paged_adamw_32bit": Optimizer(2, 4, paged=True),
    "paged_adamw_8bit": Optimizer(2, _EIGHT_BIT, paged=True),
    "ademamix": Optimizer(3, 4),
    "ademamix_8bit": Optimizer(3, _EIGHT_BIT),
    "paged_ademamix_32bit": Optimizer(3, 4, paged=True),
    "paged_ademamix_8bit": Optimizer(3, _EIGHT_BIT, paged=True),
    "lion_32bit": Optimizer(1, 4),
    "lion_8bit": Optimizer(1, _EIGHT_BIT),
    "paged_lion_32bit": Optimizer(1, 4, paged=True),
    "paged_lion_8bit": Optimizer(1, _EIGHT_BIT, paged=True),
    "sgd": Optimizer(0),
    "adagrad": Optimizer(1),
    "rmsprop": Optimizer(1),
    "rmsprop_bnb": Optimizer(1, 4),
    "rmsprop_bnb_32bit": Optimizer(1, 4),
    "rmsprop_bnb_8bit": Optimizer(1, _EIGHT_BIT),
    "adafactor": Optimizer(1, 4, factored=True),
    "schedule_free_adamw": Optimizer(2),
    "schedule_free_sgd": Optimizer(1),
    "stable_adamw": Optimizer(2),
}


def optimizer(name: str | None) -> Optimizer | None:
    """An optimizer by transformers' name; None for one that is not known."""
    return _OPTIMIZERS.get(name or "adamw_torch_fused")


def optimizer_bytes(kind: Optimizer, group: Group, parameter_bytes: int) -> int:
    """Bytes of an optimizer's states for parameters of so many bytes each."""
    if kind.factored:
        return 4 * group.sums
    value_bytes = parameter_bytes if kind.value_bytes is None else kind.value_bytes
    return int(kind.states * value_bytes * group.parameters)


def dtype_bytes(dtype: Any) -> int | None:
    """Bytes per value of a dtype as configs write it (``bfloat16``, ``torch.float16``); None for
    others.
    """
    return DTYPE_BYTES.get(str(dtype).removeprefix("torch.").lower())
