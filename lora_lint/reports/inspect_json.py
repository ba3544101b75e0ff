"""``lora-lint inspect`` as JSON; the format is described in docs/json.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_lint.injection import Injection
    from lora_lint.inspection import Group, Inspection

VERSION = 1


def render(found: Inspection) -> str:
    """The inspection as one JSON object."""
    tree, resolution = found.tree, found.resolution
    answer = {
        "version": VERSION,
        "model": {
            "id": resolution.id,
            "known_as": resolution.known_as,
            "source": resolution.source,
            "class": tree.cls,
            "model_type": tree.model_type,
            "transformers": tree.transformers,
            "grade": tree.grade,
            "parameters": tree.parameter_count(),
            "dtype": tree.facts.get("checkpoint_dtype"),
            "quantization": tree.facts.get("checkpoint_quantization"),
            "counted": found.counted,
            "output_head": found.head,
            "tied": [list(names) for names in tree.tied],
        },
        "peft": found.peft,
        "r": found.r,
        "task_type": found.task,
        "groups": [_group(group, found) for group in found.groups],
        "default": {"target_modules": found.written_default, **_outcome(found.default)},
        "all_linear": _outcome(found.all_linear),
        "target_modules": found.target_modules,
        "stacks": dict(found.stacks),
        "others": [
            {"class": cls, "name": name, "count": count if found.counted else None}
            for (cls, name), count in found.others.items()
        ],
        "changed": found.changed._asdict(),
    }
    return json.dumps(answer, indent=2, ensure_ascii=False)


def _group(group: Group, found: Inspection) -> dict[str, Any]:
    return {
        "part": group.part,
        "name": group.name,
        "kind": group.kind,
        "count": len(group.members) if found.counted else None,
        "shapes": [list(shape) for shape in group.shapes],
        "trainable": group.trainable,
        "refused": group.refused,
        "reached": group.reached,
        "default": _reach(group.default, group),
        "all_linear": _reach(group.all_linear, group),
        "target_parameters": group.entry,
    }


def _reach(hits: int, group: Group) -> str:
    if not hits:
        return "none"
    return "all" if hits == len(group.members) else "some"


def _outcome(injection: Injection) -> dict[str, Any]:
    """An injection in figures, without the names."""
    known = injection.undecided is None and injection.error is None
    return {
        "modules": len(injection.modules) if known else None,
        "parameters": len(injection.parameters) if known else None,
        "saved": list(injection.saved),
        "trainable": injection.trainable,
        "total": injection.total,
        "error": injection.error._asdict() if injection.error else None,
        "undecided": injection.undecided,
    }
