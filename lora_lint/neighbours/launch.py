"""The settings of DeepSpeed and FSDP that a run names, in a file or inline.

Read in transformers 5.23.0: training_args.py (``deepspeed`` and ``fsdp_config`` are each a path of
a JSON file or a mapping; keys of ``fsdp_config`` may begin with ``fsdp_``) and
integrations/deepspeed.py; in accelerate 1.15.0: utils/launch.py for ``--config_file``. Axolotl
0.19.0, LLaMA-Factory 0.9.5 and TRL 1.16.0 pass both on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.neighbours.files import Missing, Section, find, names_file, read

if TYPE_CHECKING:
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.recipe import Recipe


def deepspeed(document: Document, recipe: Recipe) -> Section | Missing | None:
    """The DeepSpeed settings of a run; None where it has none or they can't be followed."""
    return _settings(document, recipe, "deepspeed")


def fsdp_settings(document: Document, recipe: Recipe) -> Section | Missing | None:
    """The ``fsdp_config`` of a run; None where it has none or it can't be followed."""
    return _settings(document, recipe, "fsdp_config")


def zero_stage(settings: Section | Missing | None) -> int | None:
    """The ZeRO stage of DeepSpeed settings, None where it is not known."""
    if not isinstance(settings, Section):
        return None
    stage = settings.value("zero_optimization", "stage")
    return stage if isinstance(stage, int) and not isinstance(stage, bool) else None


def _settings(document: Document, recipe: Recipe, name: str) -> Section | Missing | None:
    field = recipe[name]
    if field.path is None:
        return None
    node = document.node(recipe.part, field.path)
    if node is not None and node.kind == "mapping" and node.style != "call":
        return Section(document, recipe.part, field.path, inline=True)
    if not field.sure or not isinstance(field.value, str) or not names_file(field.value):
        return None
    return _named(field.value, document)


def accelerate(document: Document, recipe: Recipe) -> Section | Missing | None:
    """The configuration that ``accelerate launch --config_file`` gives to a command."""
    node = accelerate_option(document, recipe)
    if node is None or not isinstance(node.value, str) or not names_file(node.value):
        return None
    return _named(node.value, document)


def accelerate_option(document: Document, recipe: Recipe) -> Node | None:
    """The value of ``--config_file``, None where a command has none."""
    around = document.parts[recipe.part].launchers
    launcher = next((node for node in around if node.note == "accelerate launch"), None)
    return launcher.get("config_file") if launcher is not None else None


def _named(name: str, document: Document) -> Section | Missing | None:
    found = find(name, document.path)
    if isinstance(found, Missing):
        return found
    path, sure = found
    other = read(path)
    if other is None or other.parts[0].node.kind != "mapping":
        return None
    return Section(other, 0, (), sure=sure)
