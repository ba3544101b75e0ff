"""Writes ``lora_lint/data/models/diffusers``: the module trees of diffusion models.

    python tools/diffusion_models.py --configs DIR

Needs torch and diffusers, and no network: every model is built on the meta device. ``DIR`` is that
of ``tools/catalogue.py``: its index has a line ``model_id::component`` for each part of a pipeline.
Models that it lacks are in ``known_diffusers.json`` beside this file, each with its sources.

Grades mean what they mean in ``tools/catalogue.py``. ``exact``: the index says ``exact-count``, and
the tree built here has the published count again. ``dims``: two projects give the same values, or
the tree is that of an *exact* model. ``named``: one source; the tree loses its sizes.

``pipelines.json``
                 ``models``: id -> component -> ``tree`` and ``grade``, or the transformers class
                 of a text encoder; ``same``: names of the same weights; ``classes``: class -> its
                 template; ``configs``: tree -> the values that it was built with; ``defaults``:
                 class -> those that a config may leave out
``*.z``          one module tree each, as ``ModuleTree.to_json`` writes it, compressed with zlib
``sources.json`` id -> where its values come from; for people, not read on runs
"""

from __future__ import annotations

import argparse
import inspect
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import diffusers
import meta_models  # noqa: F401 - which keeps the hub's client offline
import torch
from catalogue_templates import without_sizes

from lora_lint.models.from_model import read_model

if TYPE_CHECKING:
    from lora_lint.models.module_tree import ModuleTree

KNOWN = Path(__file__).parent / "known_diffusers.json"
DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "models" / "diffusers"
# Classes that LoRAs are made for, by diffusers' own training scripts and loaders/peft.py.
CLASSES = (
    "AuraFlowTransformer2DModel",
    "ChromaTransformer2DModel",
    "CogVideoXTransformer3DModel",
    "CogView4Transformer2DModel",
    "CosmosTransformer3DModel",
    "Flux2Transformer2DModel",
    "FluxTransformer2DModel",
    "HiDreamImageTransformer2DModel",
    "HunyuanImageTransformer2DModel",
    "HunyuanVideo15Transformer3DModel",
    "HunyuanVideoTransformer3DModel",
    "Krea2Transformer2DModel",
    "LTX2VideoTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "Lumina2Transformer2DModel",
    "MochiTransformer3DModel",
    "PixArtTransformer2DModel",
    "QwenImageTransformer2DModel",
    "SD3Transformer2DModel",
    "SanaTransformer2DModel",
    "UNet2DConditionModel",
    "WanTransformer3DModel",
    "ZImageTransformer2DModel",
)
# Values that decide neither a name nor a shape.
NO_SHAPE = {"sample_size", "flip_sin_to_cos", "freq_shift", "act_fn", "dropout"}


class Part(NamedTuple):
    """A component of a pipeline and what is known of it."""

    id: str
    component: str
    cls: str
    config: dict[str, Any]
    grade: str
    sources: list[str]
    published: int | None = None


def parts(folder: Path) -> tuple[list[Part], dict[str, dict[str, str]]]:
    """The components that diffusers builds, and the transformers classes of text encoders."""
    found: list[Part] = []
    encoders: dict[str, dict[str, str]] = {}
    for line in (folder / "index.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name, _, component = row["model_id"].partition("::")
        if not component:
            continue
        if component.startswith("text_encoder"):
            if row["class"]:
                encoders.setdefault(name, {})[component] = row["class"]
            continue
        values = json.loads((folder / row["file"]).read_text(encoding="utf-8"))
        exact = "exact-count" in row["evidence"]
        source = f"{row['repo']}@{row['commit'][:12]}:{row['path']}"
        found.append(
            Part(
                name,
                component,
                row["class"],
                {key: value for key, value in values.items() if not key.startswith("_")},
                "exact" if exact else "named",
                [source, *(["published parameter count"] if exact else [])],
                row["params_published"] if exact else None,
            )
        )
    for model in json.loads(KNOWN.read_text(encoding="utf-8"))["models"]:
        found += [
            Part(
                name,
                model["component"],
                model["class"],
                model["config"],
                model.get("grade", "dims"),
                model["sources"],
            )
            for name in model["ids"]
        ]
    return found, encoders


def build(cls: str, config: dict[str, Any]) -> ModuleTree:
    """The tree of a class of diffusers; its model type is none, its release diffusers' own."""
    model_class = getattr(diffusers, cls)
    with torch.device("meta"):
        tree = read_model(model_class.from_config(config), "exact")
    facts = {**tree.facts, "library": f"diffusers {diffusers.__version__}"}
    return replace(tree, facts=facts, transformers=None)


def defaults(cls: str) -> dict[str, Any]:
    """The values that a config of a class may leave out, as JSON has them."""
    signature = inspect.signature(getattr(diffusers, cls).__init__)
    values = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.default is not inspect.Parameter.empty and name not in NO_SHAPE
    }
    return dict(json.loads(json.dumps(values)))


class Trees:
    """The distinct trees, each under a readable name."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def name(self, tree: ModuleTree) -> str:
        """The name that a tree is stored under, stored now if need be."""
        text = tree.to_json()
        stem = f"{tree.cls}-{tree.parameter_count() if tree.sized else 'names'}"
        name, number = stem, 1
        while self.texts.setdefault(name, text) != text:
            number += 1
            name = f"{stem}-{number}"
        return name


def template(cls: str) -> ModuleTree | None:
    """The names of a class in its default config, of which others have more and fewer."""
    try:
        tree = without_sizes(build(cls, {}))
    except (TypeError, ValueError):  # a class without usable defaults
        return None
    return replace(tree, facts={**tree.facts, "template": True, "open": True})


def main() -> None:
    """Build everything, write the files, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=Path, required=True, help="folder of configs")
    found, encoders = parts(parser.parse_args().configs)
    trees = Trees()
    built = [(part, build(part.cls, part.config)) for part in found]
    for part, tree in built:
        if part.published not in (None, tree.parameter_count()):
            raise SystemExit(f"{part.id}: {tree.parameter_count()}, published {part.published}")
    sure = {tree.to_json() for part, tree in built if part.grade != "named"}
    models: dict[str, dict[str, Any]] = {}
    sources: dict[str, dict[str, Any]] = {}
    configs: dict[str, dict[str, Any]] = {}
    for part, tree in sorted(built, key=lambda pair: pair[0].id.lower()):
        grade = "dims" if part.grade == "named" and tree.to_json() in sure else part.grade
        name = trees.name(without_sizes(tree) if grade == "named" else tree)
        models.setdefault(part.id, {})[part.component] = {"tree": name, "grade": grade}
        sources.setdefault(part.id, {})[part.component] = part.sources
        if grade != "named":
            usual = defaults(part.cls)
            given = {key: value for key, value in part.config.items() if key in usual}
            configs.setdefault(name, {k: v for k, v in given.items() if usual[k] != v})
    for model, classes in encoders.items():
        for component, cls in classes.items():
            if model in models:
                models[model][component] = {"class": cls}
    classes = {cls: trees.name(tree) for cls in CLASSES if (tree := template(cls)) is not None}
    used = {name.partition("-")[0] for name in configs}
    index = {
        "models": models,
        "same": json.loads(KNOWN.read_text(encoding="utf-8"))["same"],
        "classes": classes,
        "configs": configs,
        "defaults": {cls: defaults(cls) for cls in sorted(used)},
    }
    DATA.mkdir(exist_ok=True)
    for old in DATA.glob("*.z"):
        old.unlink()
    for name, text in trees.texts.items():
        (DATA / f"{name}.json.z").write_bytes(zlib.compress(text.encode(), 9))
    for file, value in (("pipelines.json", index), ("sources.json", sources)):
        (DATA / file).write_text(_lines(value), encoding="utf-8", newline="\n")
    print(f"{len(models)} models, {len(trees.texts)} trees, {len(classes)} templates")
    for part, tree in built:
        print(f"{part.id} {part.component}: {tree.cls} {tree.parameter_count():,}")


def _lines(value: dict[str, Any]) -> str:
    """JSON with a line per entry of the first level, for readable changes."""
    compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
    body = ",\n".join(f"{json.dumps(k)}:{compact.encode(v)}" for k, v in value.items())
    return f"{{\n{body}\n}}\n"


if __name__ == "__main__":
    main()
