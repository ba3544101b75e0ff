"""Modules that are trained in full beside the adapters, and single tokens of embeddings.

Source: utils/other.py (``ModulesToSaveWrapper``, ``TrainableTokensWrapper``, ``_set_trainable``,
``set_additional_trainable_modules``, ``_get_module_names_tied_with_embedding``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.injection.layers import ADAPTER, LoraLayer, base_of
from lora_lint.injection.matching import ends_with
from lora_lint.injection.simulation import Module, Parameter, Raised, Undecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lora_lint.injection.semantics import Semantics


class SavedWrapper(Module):
    """A ModulesToSaveWrapper: the frozen original and a trained copy."""

    __slots__ = ("semantics",)

    def __init__(
        self,
        original: Module,
        tied: Module | None,
        behaviour: Semantics,
        *,
        inference: bool = False,
    ) -> None:
        super().__init__("ModulesToSaveWrapper")
        self.semantics = behaviour
        self.children["original_module"] = original
        copies = self.children["modules_to_save"] = Module("ModuleDict", "container")
        if tied is not None:
            copies.children[ADAPTER] = Module("Linear", "Linear")
            copies.children[ADAPTER].parameters["weight"] = _weight(tied)
        else:
            copies.children[ADAPTER] = original.deepcopy()
        _refuse(original, "modules_to_save", behaviour)
        self.activate(inference=inference)

    def activate(self, *, inference: bool) -> None:
        """Train the copy and freeze the original, whatever is wrapped inside them
        (``set_adapter``).
        """
        self.children["original_module"].requires_grad_(not self.semantics.originals_frozen)
        self.copy.requires_grad_(not inference)

    def copy_again(self) -> None:
        """What saving a saved module once more does (``update``)."""
        if self.semantics.copied_again:
            copies = self.children["modules_to_save"]
            if isinstance(copies, SavedWrapper):  # the letter e of a string has wrapped it too
                text = "module name should be a string. Got torch.nn.modules.container.ModuleDict"
                raise Raised("TypeError", text)
            copies.children[ADAPTER] = self.children["original_module"].deepcopy()

    @property
    def copy(self) -> Module:
        """The trained copy."""
        return self.children["modules_to_save"].children[ADAPTER]

    def attribute(self, name: str) -> Module | None:
        """As torch's; what the wrapper lacks is looked up in the trained copy."""
        own = self.children.get(name)
        if own is not None or self.semantics.copies_forward != "all":
            return own
        return self.copy.attribute(name)


class TokensWrapper(Module):
    """A TrainableTokensWrapper: the original module and the rows that are trained."""

    __slots__ = ("in_graph", "tied")

    def __init__(
        self,
        original: Module,
        indices: Any,
        tied: TokensWrapper | None,
        behaviour: Semantics,
        *,
        inference: bool,
    ) -> None:
        super().__init__("TrainableTokensWrapper")
        self.tied = tied
        self.in_graph = False
        layer = self.children["token_adapter"] = Module("TrainableTokensLayer")
        layer.children["base_layer"] = original
        if tied is None:
            delta = Module("ParameterDict", "container")
            layer.children["trainable_tokens_delta"] = delta
            layer.children["trainable_tokens_original"] = Module("BufferDict")
            delta.parameters[ADAPTER] = _rows(original, indices, behaviour)
            trained = _weight(original).requires_grad
            self.in_graph = trained and behaviour.rows_copied == "in the graph"
            delta.parameters[ADAPTER].requires_grad = not inference
        else:
            for name in ("trainable_tokens_delta", "trainable_tokens_original"):
                layer.children[name] = tied.children["token_adapter"].children[name]
        _refuse(original, "trainable_token_indices", behaviour)

    def deepcopy(self, memo: dict[int, Any] | None = None, *, share: bool = False) -> Module:
        """As ``copy.deepcopy``, which fails on rows that are still part of a graph."""
        if self.in_graph:
            text = "Only Tensors created explicitly by the user (graph leaves) support the deepcopy"
            raise Raised("RuntimeError", text)
        return super().deepcopy(memo, share=share)

    def attribute(self, name: str) -> Module | None:
        """As torch's; ``original_module`` is what the token layer wraps."""
        if name == "original_module":
            return self.children["token_adapter"].children["base_layer"]
        return self.children.get(name)


def _refuse(original: Module, what: str, behaviour: Semantics) -> None:
    """``check_module`` of the wrappers."""
    if (behaviour.refuses_containers and original.kind == "container") or (
        behaviour.refuses_adapted and isinstance(original, LoraLayer)
    ):
        text = f"{what} cannot be applied to modules of type <class '{original.cls}'>"
        raise Raised("TypeError", text)


def _rows(original: Module, indices: Any, behaviour: Semantics) -> Parameter:
    """The rows of a weight that are trained.

    Raises ``Raised("IndexError")`` for a row that is not there.
    """
    weight = _weight(original)
    module = base_of(original.copy if isinstance(original, SavedWrapper) else original)
    if behaviour.token_kinds is not None and module.kind not in behaviour.token_kinds:
        raise Raised("AttributeError", f"'{module.cls}' object has no attribute 'embedding_dim'")
    count = weight.shape[0]
    rows = list(indices) if isinstance(indices, list | tuple) else [indices]
    if any(isinstance(row, bool) or not isinstance(row, int) for row in rows):
        raise Undecided("trainable_token_indices holds something else than numbers")
    for row in rows:
        if not -count <= row < count:
            text = f"index {row} is out of bounds for dimension 0 with size {count}"
            raise Raised("IndexError", text)
    if rows == [indices]:
        return Parameter(weight.shape[1:])
    return Parameter((len(rows), *weight.shape[1:]))


def _weight(module: Module) -> Parameter:
    """The weight that torch's attribute lookup finds."""
    module = base_of(module)
    if isinstance(module, SavedWrapper):
        return _weight(module.copy)
    if module.weight is None:
        raise Raised("AttributeError", f"'{module.cls}' object has no attribute 'weight'")
    return module.weight


def set_trainable(
    model: Module,
    names: Iterable[Any],
    wrap: Callable[[Module], Module],
    cls: type[Module],
    behaviour: Semantics,
    *,
    inference: bool,
) -> list[str]:
    """Wrap every module whose name ends in one of ``names``, without regard to dots
    (``_set_trainable``).

    Returns the keys that were hit.
    """
    names = list(names)
    twice = behaviour.names_twice
    keys = [key for key, _ in model.named_modules(remove_duplicate=not twice)]
    found = []
    for key in keys:
        if not any(ends_with(key, name) for name in names):
            continue
        parent_name, _, target_name = key.rpartition(".")
        parent = model.get_submodule(parent_name)
        grandparent = _grandparent(model, key)
        target = model.get_submodule(key)
        if behaviour.refuses_inside_adapter and isinstance(grandparent, LoraLayer):
            raise Raised("ValueError", f"{key} is part of an adapter")
        found.append(key)
        around = (grandparent, target) if behaviour.finds_copies_inside else (target,)
        wrapper = next((module for module in around if isinstance(module, cls)), None)
        if wrapper is None:
            parent.children[target_name] = wrap(target)
        elif isinstance(wrapper, SavedWrapper):
            wrapper.copy_again()
            wrapper.activate(inference=inference)
    return found


def _grandparent(model: Module, key: str) -> Module | None:
    try:
        return model.get_submodule(".".join(key.split(".")[:-2]))
    except Raised:
        return None


def tied_module_names(
    model: Module,
    facts: Mapping[str, Any],
    input_embeddings: Callable[[], Module | None],
    style: str,
) -> list[str]:
    """The modules tied to the input embeddings (``_get_module_names_tied_with_embedding``); with
    the style ``list`` all that the model calls tied.
    """
    if "tied_keys" not in facts or (style == "if tied" and facts.get("tie_attribute") is False):
        return []
    keys = facts["tied_keys"]
    if not isinstance(keys, dict) or style == "list":
        return sorted({name.rpartition(".")[0] for name in keys})
    if not facts.get("has_input_embeddings"):
        text = "The supplied model implements `_tied_weights_keys` as a dict but doesn't implement "
        raise Raised("ValueError", text + "'get_input_embeddings'")
    embeddings = input_embeddings()
    if embeddings is None:
        raise Raised("AttributeError", "'NoneType' object has no attribute 'parameters'")
    own = {id(parameter) for parameter in embeddings.all_parameters()}
    candidates = [
        name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in own
    ]
    present = {_BASE_LAYER.sub("", name): name for name in candidates}
    present |= {name.replace("base_layer.", ""): name for name in candidates}
    tied = [str(present.get(k, k)) for k, v in keys.items() if present.get(v, v) in candidates]
    return sorted({name.rpartition(".")[0] for name in tied})


_BASE_LAYER = re.compile(r"[^.]+\.base_layer\.")
# Steps of names that PEFT's wrappers put into them.
WRAPPING_STEPS: Final = frozenset(
    ("base_layer", "original_module", "modules_to_save", "token_adapter", ADAPTER)
)
_WRAPPING = re.compile(
    r"\.(?:original_module|modules_to_save(?:\.default)?|token_adapter|base_layer)(?=\.|$)"
)


def base_name(name: str) -> str:
    """A module's name in the base model: without the steps that wrappers put into it."""
    return _WRAPPING.sub("", f".{name}")[1:]
