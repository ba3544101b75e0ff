"""Diffusion models: a pipeline's components, and the module tree of the one that a LoRA goes on.

All files are made by ``tools/diffusion_models.py``, whose docstring describes them. A pipeline is
named by its id or folder, and its component by the class that is built (``UNet2DConditionModel``)
or by the component's name (``text_encoder``); where nothing says which, it is the denoiser.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.facts import DATA
from lora_lint.models.module_tree import ModuleTree
from lora_lint.models.resolve import Resolution, Unresolved, hint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lora_lint.models.resolve import _Search

FOLDER: Final = DATA / "models" / "diffusers"
# The components that a LoRA goes on when nothing else is said. Two of them (Wan 2.2 has a
# transformer for each end of the noise) do where their trees are the same.
DENOISERS: Final = ("unet", "transformer", "transformer_2", "prior", "decoder")


class Pipeline(NamedTuple):
    """A known pipeline: component -> its stored tree and grade, or its class of transformers."""

    id: str
    parts: Mapping[str, Mapping[str, str]]

    def classes(self) -> dict[str, str]:
        """Component -> the class that it is of."""
        return {
            name: part.get("class") or part["tree"].partition("-")[0]
            for name, part in self.parts.items()
        }


@lru_cache(maxsize=1)
def _index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads((FOLDER / "pipelines.json").read_text(encoding="utf-8"))
    return index


def find(name: str) -> Pipeline | None:
    """A pipeline by its id or another id of the same weights, in upper or lower case."""
    models, same = _index()["models"], _index()["same"]
    for table in (same, models):
        name = next((known for known in table if known.lower() == name.lower()), name)
        name = same.get(name, name)
    return Pipeline(name, models[name]) if name in models else None


def pipelines() -> list[Pipeline]:
    """All known pipelines."""
    return [Pipeline(name, parts) for name, parts in _index()["models"].items()]


def load_tree(name: str) -> ModuleTree:
    """A stored tree by its name, graded ``exact`` if it has sizes."""
    text = zlib.decompress((FOLDER / f"{name}.json.z").read_bytes())
    return ModuleTree.from_json(text.decode("utf-8"))


def template(cls: str) -> ModuleTree | None:
    """The names of a class of diffusers in its default config, None where it has no template."""
    name = _index()["classes"].get(cls)
    return load_tree(name) if name else None


def from_catalogue(search: _Search, asked: str) -> Resolution | Unresolved | None:
    """The tree of a known pipeline's component; None where no pipeline has this name."""
    pipeline = find(asked)
    if pipeline is None:
        return None

    def tree(component: str) -> Resolution | Unresolved:
        part = pipeline.parts[component]
        source = "catalogue" if pipeline.id == asked else f"catalogue, as {pipeline.id}"
        found = hint(part["class"]) if "class" in part else load_tree(part["tree"])
        if found is None:
            return Unresolved(f"the catalogue has no {part['class']} of {asked}", asked)
        if found.sized and part["grade"] != "exact":
            found = replace(found, grade="dims")
        source += f", its {component}" + ("" if found.sized else ", sizes unknown")
        known_as = None if pipeline.id == asked else pipeline.id
        if found.model_type is not None:
            settled = search._settle(found, asked, source, None)  # noqa: SLF001
            if isinstance(settled, Resolution):
                return settled._replace(known_as=known_as)
            return settled
        return Resolution(found, asked, source, known_as=known_as)

    return _chosen(asked, pipeline.classes(), search.wanted.cls, tree)


def from_folder(
    search: _Search, file: Path, values: Mapping[str, Any], name: str, where: str
) -> Resolution | Unresolved:
    """The tree of a pipeline's component by the pipeline's model_index.json, or by the config.json
    of a component of diffusers, which ``values`` are read from.
    """
    if file.name != "model_index.json":
        return _by_config(search, values, name, where)
    classes = {
        part: value[1]
        for part, value in values.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)
        if part.isidentifier()  # it becomes a path
    }

    def tree(component: str) -> Resolution | Unresolved:
        config = file.parent / component / "config.json"
        if config.is_file():
            wanted = search.wanted._replace(cls=classes[component])
            inner = search._replace(wanted=wanted)
            return inner.by_path(config, name, f"{where}, its {component}")
        found = template(classes[component]) or hint(classes[component])
        if found is None:
            return Unresolved(f"{name} has no {component}/config.json; pass --model", name)
        return Resolution(found, name, f"model_index.json {where}, its {component}, sizes unknown")

    return _chosen(name, classes, search.wanted.cls, tree)


def _by_config(
    search: _Search, values: Mapping[str, Any], name: str, where: str
) -> Resolution | Unresolved:
    cls, wanted = str(values["_class_name"]), search.wanted.cls
    if wanted is not None and wanted not in (cls, *DENOISERS, "AutoModel"):
        return Unresolved(f"config.json {where} is of a {cls:.80}, not of a {wanted}", name)
    for tree, known in _index()["configs"].items():
        if tree.partition("-")[0] == cls and _agrees(cls, values, known):
            return Resolution(replace(load_tree(tree), grade="dims"), name, f"config.json {where}")
    found = template(cls)
    if found is None:
        return Unresolved(f"config.json {where}: the catalogue has no {cls:.80}", name)
    return Resolution(found, name, f"architecture of config.json {where}, sizes unknown")


def _agrees(cls: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether a config has all values that a known tree was built with."""
    usual = _index()["defaults"][cls]
    return all(values.get(k, v) == known.get(k, v) for k, v in usual.items())


def _chosen(
    name: str,
    classes: Mapping[str, str],
    wanted: str | None,
    tree: Callable[[str], Resolution | Unresolved],
) -> Resolution | Unresolved:
    """The tree of the wanted component: the only one, or any of several that are the same."""
    if wanted is None or wanted == "AutoModel":
        parts = [part for part in DENOISERS if part in classes]
    else:
        parts = [part for part, cls in classes.items() if wanted in (part, cls)]
    if not parts:
        what = f"no {wanted}" if wanted else "neither a unet nor a transformer"
        return Unresolved(f"{name} is a diffusion model that has {what}", name)
    found = [tree(part) for part in parts]
    trees = {other.tree.to_json() for other in found if isinstance(other, Resolution)}
    if len(found) == 1 or (len(trees) == 1 and all(isinstance(o, Resolution) for o in found)):
        return found[0]
    several = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return Unresolved(f"{name} has {several}, and nothing says which is adapted", name)
