"""``lora-lint models``: the list of known models, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lora_lint.reports.summary import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lora_lint.models.listing import Listed


def as_text(models: Sequence[Listed]) -> Iterator[str]:
    """A line for each: id, parameters, grade, class; then how many there are of each grade."""
    width = max((len(model.id) for model in models), default=0)
    for model in models:
        count = f"{model.parameters:,}" if model.parameters is not None else ""
        built = model.cls or f"({model.model_type})"
        yield f"{model.id:<{width}}  {count:>17}  {model.grade:<5}  {built}"
    number = len(models)
    sized = sum(model.parameters is not None for model in models)
    yield f"{number:,} {plural('model', number)}, {sized:,} with sizes (exact or dims)"


def as_json(models: Sequence[Listed]) -> str:
    """One object; its ``models`` have the keys of ``Listed``, with ``class`` for ``cls``."""
    rows = [
        {
            "id": model.id,
            "class": model.cls,
            "model_type": model.model_type,
            "grade": model.grade,
            "parameters": model.parameters,
        }
        for model in models
    ]
    return json.dumps({"version": 1, "models": rows}, indent=2)
