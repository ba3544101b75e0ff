"""``lora-lint show`` for machines; the format is versioned and documented in docs/json.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_lint.dialects import Undecided
from lora_lint.facts import known_fields, newest_peft
from lora_lint.models.resolve import Resolution
from lora_lint.recipe import RUN_FIELDS, UNKNOWN
from lora_lint.reports.json import FORMAT_VERSION, dumps, environment, span

if TYPE_CHECKING:
    from lora_lint.checks import RecipeSubject
    from lora_lint.engine import Report

# LoraConfig's own name of the base model is `base_model` here, its type is always LORA.
_NOT_SHOWN = frozenset({"base_model_name_or_path", "peft_type"})


def render(report: Report) -> str:
    """All recipes of a report as JSON text."""
    recipes = [
        _recipe(subject, index)
        for file in report.files
        for index, subject in enumerate(file.subjects)
    ]
    data = {"version": FORMAT_VERSION, "recipes": recipes}
    return dumps(data)


def field_names() -> list[str]:
    """Every field a recipe can have: LoraConfig's, then those of the run."""
    own = sorted(known_fields(newest_peft()) - _NOT_SHOWN)
    return ["base_model", *own, *(name for name in RUN_FIELDS if name != "base_model")]


def _recipe(subject: RecipeSubject, index: int) -> dict[str, Any]:
    from lora_lint.engine import Place

    recipe, document = subject.recipe, subject.document
    number = document.parts[recipe.part].index
    return {
        "path": document.path,
        "recipe": index,
        "document": number if document.document_parts else None,
        "cell": number if document.cell_parts else None,
        "dialect": recipe.dialect,
        "span": span(Place(document, recipe).anchor(), document),
        "environment": environment(subject),
        "fields": {
            name: {"value": known(recipe[name].value), "origin": recipe[name].origin}
            for name in dict.fromkeys([*field_names(), *recipe.fields])
        },
        "lora_kwargs": _kwargs(subject),
        "model": _model(subject),
        "injection": _injection(subject) if recipe.adapter else None,
        "memory": subject.memory.to_dict() if subject.memory is not None else None,
    }


def known(value: Any) -> Any:
    """A value for JSON: what is not static is null."""
    if value is UNKNOWN:
        return None
    if isinstance(value, dict):
        return {str(key): known(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [known(part) for part in value]
    return value


def _injection(subject: RecipeSubject) -> dict[str, Any]:
    """What PEFT does; no names where the number of layers is a default config's."""
    injection = subject.injection
    if injection.error is None and subject.tree is not None and not subject.counts_known:
        injection = injection._replace(modules=(), parameters=(), saved=(), tokens=(), adapted={})
    return injection.to_dict()


def _kwargs(subject: RecipeSubject) -> dict[str, Any]:
    lowered = subject.lowered
    if isinstance(lowered, Undecided):
        return {"undecided": lowered.reason}
    return {name: known(value) for name, value in lowered.values.items()}


def _model(subject: RecipeSubject) -> dict[str, Any] | None:
    resolution = subject.resolution
    if not isinstance(resolution, Resolution):
        return None
    tree = resolution.tree
    return {
        "id": resolution.id,
        "source": resolution.source,
        "class": tree.cls,
        "transformers": tree.transformers,
        "grade": tree.grade,
    }
