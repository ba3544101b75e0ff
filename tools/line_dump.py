"""Writes the module trees of every class of the installed transformers release to one file.

    PYTHONPATH=RELEASE:. python tools/line_dump.py OUT.json.z --jobs JOBS.json

To be run in a process of its own for each release (``tools/transformers_lines.py`` does so). Trees
are those of the default configs, with sizes; ``JOBS.json`` (``known_jobs`` there) says which known
models to build besides. Without ``--whole`` no weight is given a first value, which changes no name
and no shape and takes half of the time.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meta_models  # first: it keeps transformers off the network
import torch
import transformers
from catalogue_templates import MISSING
from name_patterns import OLDER
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from lora_lint.models.storage import write_nodes, write_ties

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from lora_lint.models.module_tree import ModuleTree

SECONDS = 60


def leave_weights_as_they_are() -> None:
    """Let models be built without first values for their weights."""

    def keep(*args: Any, **named: Any) -> Any:
        return args[0] if args else named["tensor"]

    for name in dir(torch.nn.init):
        if name.endswith("_") and not name.startswith("_"):
            setattr(torch.nn.init, name, keep)
    transformers.PreTrainedModel._initialize_weights = lambda *_, **__: None


def config_for(model_type: str) -> Any:
    """The default config of a model type, with what this or an older release needs besides."""
    values = {**MISSING, **OLDER}.get(model_type)
    return meta_models.config_of(model_type, values)


def read_or_say(cls: str, model_type: str, values: dict[str, Any] | None) -> ModuleTree | str:
    """The tree of a class, or in one line why it does not build."""
    try:
        with meta_models.time_limit(SECONDS):
            if values is None:
                config = config_for(model_type)
            else:
                config = meta_models.config_of(model_type, values)
            tree = meta_models.read(cls, config, "live")
            json.dumps(dict(tree.facts))
            return tree
    except Exception as exc:  # noqa: BLE001 - whatever a class raises is listed
        return f"{type(exc).__name__}: {exc}".strip().splitlines()[0][:160]


def tables(trees: Mapping[str, ModuleTree]) -> dict[str, Any]:
    """Trees as JSON, with one table of modules for all."""
    nodes, roots = write_nodes(tree.root for tree in trees.values())
    entries = {
        name: {
            "root": root,
            "class": tree.cls,
            "model_type": tree.model_type,
            "facts": dict(tree.facts),
            "shared": dict(tree.shared),
            "tied": write_ties(tree.tied),
        }
        for (name, tree), root in zip(trees.items(), roots, strict=True)
    }
    return {"trees": entries, **nodes}


def default_trees(wanted: Container[str] | None) -> dict[str, Any]:
    """Model type -> its classes' trees under the default config, tasks and failures."""
    found: dict[str, Any] = {}
    for model_type, classes in sorted(meta_models.auto_classes().items()):
        if wanted is not None and model_type not in wanted:
            continue
        trees: dict[str, ModuleTree] = {}
        failures: dict[str, str] = {}
        for cls in classes:
            tree = read_or_say(cls, model_type, None)
            if isinstance(tree, str):
                failures[cls] = tree
            else:
                trees[cls] = tree
        found[model_type] = {"tasks": classes, "failures": failures, **tables(trees)}
    return found


def known_trees(jobs: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Stored tree -> the tree of the same model in this release, and what did not build."""
    trees: dict[str, ModuleTree] = {}
    failures: dict[str, str] = {}
    for name, (cls, model_type, values) in jobs.items():
        tree = read_or_say(cls, model_type, values)
        if isinstance(tree, str):
            failures[name] = tree
        else:
            trees[name] = tree
    return {"failures": failures, **tables(trees)}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=Path, help="known models to build besides")
    parser.add_argument("--types", type=Path, help="the model types to build; else all")
    parser.add_argument("--whole", action="store_true", help="give the weights first values too")
    options = parser.parse_args()
    meta_models.limit_process()
    if not options.whole:
        leave_weights_as_they_are()
    wanted = json.loads(options.types.read_text(encoding="utf-8")) if options.types else None
    data = {
        "transformers": transformers.__version__,
        "model_types": sorted(CONFIG_MAPPING_NAMES),
        "wanted": wanted,
        "types": default_trees(wanted),
    }
    if options.jobs:
        data["known"] = known_trees(json.loads(options.jobs.read_text(encoding="utf-8")))
    options.out.write_bytes(zlib.compress(json.dumps(data).encode(), 6))


if __name__ == "__main__":
    main()
