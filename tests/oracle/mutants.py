"""Deliberate faults in the prediction, which the quick slice must catch.

Each function plants one and returns the features whose cases should notice it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from lora_lint import facts
from lora_lint.injection import config, layers, matching, saved
from lora_lint.injection.semantics import semantics
from lora_lint.injection.simulation import Module

# The package has a function of that name.
module = import_module("lora_lint.injection.inject")
Mutant = Callable[[pytest.MonkeyPatch], tuple[str, ...]]


def _behave(patch: pytest.MonkeyPatch, **values: Any) -> None:
    """Let every release behave otherwise."""
    patch.setattr(config, "semantics", lambda version: semantics(version)._replace(**values))


def no_dot_boundary(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Entries match as bare suffixes, as in peft 0.4."""
    _behave(patch, list_entries="suffix")
    return ("list",)


def last_layer_index(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The last number of a name is the layer index, as before peft 0.20."""
    _behave(patch, layer_number_anywhere=r".*\.[^.]*\.(\d+)\.")
    return ("layers_to_transform",)


def regex_matches_a_part(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A string target searches instead of matching the whole name."""

    def has(self: Any, key: str) -> bool:
        if self.pattern is not None:
            return matching.compile_pattern(self.pattern).search(key) is not None
        return key in self._names or any(s in self._suffixes for s in matching.dotted_suffixes(key))

    patch.setattr(matching.EntrySet, "has", has)
    return ("regex",)


def all_linear_takes_the_head(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """all-linear adapts the output embeddings too."""

    def linear_names(self: Any) -> list[str]:
        return [n for n, m in self.model.named_modules() if m.kind in ("Linear", "Conv1D")]

    patch.setattr(module._Run, "_linear_names", linear_names)
    return ("all-linear",)


def exclusion_ignored(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """exclude_modules has no effect."""
    original = matching.Matcher.__init__

    def init(self: Any, settings: Any) -> None:
        original(self, settings)
        self.excludes = matching.EntrySet(None)

    patch.setattr(matching.Matcher, "__init__", init)
    return ("exclude_modules",)


def saved_modules_need_a_dot(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """modules_to_save respects dots."""

    def ends_with(key: str, name: Any) -> bool:
        return key == name or key.endswith(f".{name}")

    patch.setattr(saved, "ends_with", ends_with)
    return ("modules_to_save",)


def saved_copy_not_counted(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The trained copy of a saved module is the module itself."""
    patch.setattr(Module, "deepcopy", lambda self, memo=None, share=False: self)
    return ("modules_to_save",)


def saved_modules_can_be_targets(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """modules_to_save does not shield modules from LoRA, as before peft 0.16."""
    _behave(patch, saved_modules="after")
    return ("modules_to_save",)


def last_pattern_wins(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Of several patterns the last that matches counts."""
    original = matching._first
    patch.setattr(matching, "_first", lambda keys, *rest: original(list(keys)[::-1], *rest))
    return ("rank/alpha_pattern",)


def rslora_divides_by_r(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """rsLoRA scales like plain LoRA."""

    def set_scale(self: Any, layer: Any, r: Any, alpha: Any) -> None:
        layer.r, layer.alpha, layer.scale = r, alpha, alpha / r

    patch.setattr(layers.Builder, "_set_scale", set_scale)
    return ("rsLoRA",)


def dora_has_no_magnitude(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """DoRA costs nothing."""
    patch.setattr(layers.Builder, "_add_dora", lambda self, layer, size: None)
    return ("DoRA",)


def experts_keep_their_rank(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A fused expert parameter does not double its rank."""
    from lora_lint.injection import experts

    patch.setattr(experts, "_times", lambda value, factor: value)
    return ("target_parameters",)


def experts_not_converted(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Targets of mixtures are left as they are, as before peft 0.19."""
    patch.setattr(module, "expert_tables", lambda *_: None)
    return ("target_parameters", "default targets")


def one_rank_for_all_experts(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A stacked parameter gets one adapter instead of one per expert."""
    original = layers.Builder._update_dense

    def update(self: Any, *args: Any, experts: int = 1, **kwargs: Any) -> None:
        original(self, *args, experts=1, **kwargs)

    patch.setattr(layers.Builder, "_update_dense", update)
    return ("target_parameters",)


def bias_of_adapted_layers_only(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """bias: all trains what lora_only trains."""
    original = module._Run._mark_trainable

    def mark(self: Any) -> None:
        kept = self.settings.bias
        self.settings.bias = "lora_only" if kept == "all" else kept
        original(self)
        self.settings.bias = kept

    patch.setattr(module._Run, "_mark_trainable", mark)
    return ("bias",)


def tied_parameters_count_twice(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Tied weights are separate parameters."""
    import dataclasses

    original = module.build
    patch.setattr(module, "build", lambda tree: original(dataclasses.replace(tree, tied=())))
    return ("list", "trainable_token_indices")


def default_table_of_another_version(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The default targets are those of peft 0.0.1."""
    patch.setattr(module, "default_targets", lambda kind, _: facts.default_targets(kind, "0.0.1"))
    return ("default targets",)


MUTANTS: list[Mutant] = [
    no_dot_boundary,
    last_layer_index,
    regex_matches_a_part,
    all_linear_takes_the_head,
    exclusion_ignored,
    saved_modules_need_a_dot,
    saved_copy_not_counted,
    saved_modules_can_be_targets,
    last_pattern_wins,
    rslora_divides_by_r,
    dora_has_no_magnitude,
    experts_keep_their_rank,
    experts_not_converted,
    one_rank_for_all_experts,
    bias_of_adapted_layers_only,
    tied_parameters_count_twice,
    default_table_of_another_version,
]
