"""What became of each name of an older release's tree in the newest one, as far as it is proven.

Two proofs are taken. The newest release's own table of checkpoint conversions
(``transformers/conversion_mapping.py``), by which it loads weights saved under the older names,
turns a parameter's name into one that the newest tree has, with the same shape or, for an expert,
as a slice of a fused parameter. Or a module that is gone stood in the same parent as one that is
new, both have the same kind and shapes, and no other module there has them. Trees are those of the
default configs of both releases.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from meta_models import numberless
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from lora_lint.models.module_tree import ADAPTABLE

if TYPE_CHECKING:
    from lora_lint.models.module_tree import ModuleTree

Shape = tuple[int, ...]


class Place(NamedTuple):
    """Something that PEFT can adapt: a module by its weight, or a parameter of its own."""

    parameter: str
    shape: Shape
    kind: str

    @property
    def leaf(self) -> str:
        """The last part of the name that a target would have."""
        return self.name.rpartition(".")[2]

    @property
    def name(self) -> str:
        """The name that a target would have."""
        return self.parameter.rpartition(".")[0] if self.kind != "parameter" else self.parameter


def places(tree: ModuleTree) -> dict[str, Place]:
    """Name without numbers -> the first place that has it."""
    found: dict[str, Place] = {}
    seen: set[tuple[str, int]] = set()
    for prefix, node in tree.named_modules():
        pattern = numberless(prefix)
        if (pattern, id(node)) in seen:
            continue
        seen.add((pattern, id(node)))
        for key, shape in node.parameters.items():
            name = f"{prefix}.{key}" if prefix else key
            if node.kind in ADAPTABLE:
                if key == "weight":
                    found.setdefault(pattern, Place(name, shape, node.kind))
            elif len(shape) > 1:
                found.setdefault(numberless(name), Place(name, shape, "parameter"))
    return found


def became(
    old: ModuleTree, new: ModuleTree, model: Any
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Last part -> last parts in the newest release, where they differ; an expert's last part ->
    the fused parameter. ``model`` is the newest release's, of the same class.
    """
    before, after = places(old), places(new)
    by_name = {place.parameter: place for place in after.values()}
    by_pattern = {numberless(place.parameter): place for place in after.values()}
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state = dict.fromkeys(by_name, True)

    targets: dict[str, Place | None] = {}
    for pattern, place in before.items():
        if pattern in after and after[pattern].shape == place.shape:
            targets[pattern] = after[pattern]
            continue
        renamed, converter = rename_source_key(
            place.parameter, renamings, converters, model.base_model_prefix, state
        )
        target = by_pattern.get(numberless(renamed))
        if target is not None and (
            _is_slice(place, target) if converter is not None else target.shape == place.shape
        ):
            targets[pattern] = target
        else:
            targets[pattern] = None
    _by_place(before, after, targets)

    leaves: dict[str, set[str]] = defaultdict(set)
    fused: dict[str, set[str]] = defaultdict(set)
    unproven = {before[pattern].leaf for pattern, target in targets.items() if target is None}
    for pattern, target in targets.items():
        place = before[pattern]
        if target is None or place.leaf == "weight":  # no name that a person would write
            continue
        if target.kind == "parameter" and place.kind != "parameter":
            fused[place.leaf].add(".".join(target.name.split(".")[-2:]))
        else:
            leaves[place.leaf].add(target.leaf)
    changed = {
        leaf: sorted(new_leaves)
        for leaf, new_leaves in sorted(leaves.items())
        if leaf not in unproven and new_leaves != {leaf}
    }
    slices = {
        leaf: next(iter(names))
        for leaf, names in sorted(fused.items())
        if len(names) == 1 and leaf not in unproven
    }
    return changed, slices


def _is_slice(place: Place, target: Place) -> bool:
    """Whether a matrix can be a part of a parameter that holds those of all experts."""
    if target.shape == place.shape:
        return True
    if len(target.shape) != 3 or len(place.shape) != 2:
        return False
    rows, columns = place.shape
    return any(
        wide % rows == 0 and narrow == columns
        for wide, narrow in (target.shape[1:], target.shape[:0:-1])
    )


def _by_place(
    before: dict[str, Place], after: dict[str, Place], targets: dict[str, Place | None]
) -> None:
    """Pair what is gone with what is new in the same parent, where only one has its shape."""
    taken = {numberless(target.name) for target in targets.values() if target is not None}
    gone: dict[tuple[str, str, Shape], list[str]] = defaultdict(list)
    new: dict[tuple[str, str, Shape], list[str]] = defaultdict(list)
    for pattern, target in targets.items():
        if target is None:
            place = before[pattern]
            gone[pattern.rpartition(".")[0], place.kind, place.shape].append(pattern)
    for pattern, place in after.items():
        if pattern not in taken:
            new[pattern.rpartition(".")[0], place.kind, place.shape].append(pattern)
    for key, patterns in gone.items():
        if len(patterns) == 1 and len(new.get(key, ())) == 1:
            targets[patterns[0]] = after[new[key][0]]
