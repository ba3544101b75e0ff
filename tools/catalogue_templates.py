"""Architecture templates: what each class of transformers is made of, whatever its size.

A template is built from its model type's default config, so its names are right and its numbers
mean nothing: they are dropped. Some config fields change names too (``q_lora_rank`` of DeepSeek,
``feed_forward_proj`` of T5); these *switches* are found by changing one field after the other and
looking at what is built.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from meta_models import (
    auto_classes,
    build,
    config_of,
    limit_process,
    patterns,
    read,
    time_limit,
)
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.models.module_tree import ModuleNode, ModuleTree

# What the default configs of these model types leave out and their classes need. The numbers
# appear in no template; transformers 5.23.0.
MISSING: dict[str, dict[str, Any]] = {
    "aya_vision": {
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "num_attention_heads": 16,
        }
    },
    "chameleon": {"vocabulary_map": {"<image>": 8711}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense"] + ["sparse"] * 63}},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 1}},
    "esm": {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {"text_config": {"head_dim": 128}},
    "hunyuan_vl_text": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 48},
    "qwen3_omni_moe": {
        "talker_config": {
            "text_config": {"shared_expert_intermediate_size": 768},
            "spatial_merge_size": 2,
        },
    },
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
}
# Fields that say how a model runs or starts, not what it is made of.
IRRELEVANT = re.compile(
    r"(_token|token_id|token_ids|token_index|_id|_ids)$|dropout|initializer|_std$|_eps$|epsilon"
    r"|theta|rope|^use_cache$|^output_|^return_|label|problem_type|dtype|_version$|^model_type$"
    r"|^_|^architectures$|^hidden_act$|activation|_coef$|loss|^chunk_size|pretraining_tp|seed"
)
# A count of layers; a model without layers says nothing.
LAYERS = re.compile(r"layers?$|^depths?$")


@dataclass(frozen=True)
class Switch:
    """A config field that changes names.

    ``rule`` says which values of another config leave the template as it is: ``value`` the default
    alone, ``zero`` those that are zero where it is, ``none`` those that are None where it is, and
    ``absent`` no value at all, for lists, which differ with the number of layers.
    """

    default: Any
    rule: str
    adds: list[str]
    drops: list[str]


@dataclass(frozen=True)
class Architecture:
    """The templates of one model type.

    ``parts`` names the sub-models that may be of any architecture, with the one they have by
    default; ``tasks`` the auto classes that lead to each class; ``failures`` what could not be
    built, with the error.
    """

    model_type: str
    trees: dict[str, ModuleTree]
    tasks: dict[str, list[str]]
    parts: dict[str, str] = field(default_factory=dict)
    switches: dict[str, Switch] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def without_sizes(tree: ModuleTree) -> ModuleTree:
    """The tree as a template: grade ``named``, every number of a shape zero."""
    facts = {name: value for name, value in tree.facts.items() if name != "config"}
    return replace(tree, root=_zeroed(tree.root, {}), grade="named", dtype="float32", facts=facts)


def _zeroed(node: ModuleNode, done: dict[int, ModuleNode]) -> ModuleNode:
    if id(node) not in done:
        facts = dict(node.facts)
        if "features" in facts:
            facts["features"] = [0, 0]
        if "parametrized_shapes" in facts:
            shapes = facts["parametrized_shapes"]
            facts["parametrized_shapes"] = {name: [0] * len(shapes[name]) for name in shapes}
        shapes = {name: (0,) * len(shape) for name, shape in node.parameters.items()}
        children = {name: _zeroed(child, done) for name, child in node.children.items()}
        done[id(node)] = replace(node, parameters=shapes, children=children, facts=facts)
    return done[id(node)]


def architectures(jobs: int, *, switches: bool) -> Iterator[Architecture]:
    """All model types that transformers has models for, sorted."""
    tasks = auto_classes()
    pool = value_pool() if switches else None
    with ProcessPoolExecutor(jobs, initializer=limit_process) as executor:
        names = sorted(tasks)
        yield from executor.map(
            architecture, names, [tasks[n] for n in names], [pool] * len(names), chunksize=1
        )


def architecture(
    model_type: str, tasks: dict[str, list[str]], pool: dict[str, list[Any]] | None
) -> Architecture:
    """The templates of a model type; its switches if a pool of values is given."""
    result = Architecture(model_type, {}, tasks)
    for cls in tasks:
        try:
            config = default_config(model_type)
            result.trees[cls] = without_sizes(read(cls, config, "named"))
        except Exception as exc:  # noqa: BLE001, PERF203 - whatever a class raises is listed
            result.failures[cls] = f"{type(exc).__name__}: {exc}".strip().splitlines()[0][:160]
    if result.trees:
        config = default_config(model_type)
        result.parts.update(_parts(config))
        if pool is not None:
            result.switches.update(_switches(model_type, _largest(result), pool))
    return result


def default_config(model_type: str) -> Any:
    """The default config of a model type, made whole where need be."""
    return config_of(model_type, MISSING.get(model_type))


def _largest(result: Architecture) -> str:
    """The class with the most names, which shows the most of a switch."""

    def count(cls: str) -> int:
        return sum(1 for _ in result.trees[cls].named_modules())

    return max(result.trees, key=count)


def _parts(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, cls in config.sub_configs.items():
        part = getattr(config, name, None)
        if part is None or not hasattr(part, "sub_configs"):
            continue
        if cls is AutoConfig:
            yield prefix + name, part.model_type
        yield from _parts(part, f"{prefix}{name}.")


# Switches ----------------------------------------------------------------------------------------


def value_pool() -> dict[str, list[Any]]:
    """Field -> the texts and lists that the default config of some model type has there."""
    pool: dict[str, list[Any]] = defaultdict(list)
    for model_type in sorted(CONFIG_MAPPING.keys()):
        try:
            values = default_config(model_type).to_dict()
        except Exception:  # noqa: BLE001 - listed when its classes are built
            continue
        for path, value in flat(values):
            name = path.rpartition(".")[2]
            if isinstance(value, str | list) and value not in pool[name]:
                pool[name].append(value)
    return dict(pool)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries, with their dotted paths."""
    for name, value in values.items():
        if isinstance(value, dict) and all(isinstance(key, str) for key in value) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted path."""
    name, _, rest = path.partition(".")
    return {**values, name: changed(values[name], rest, value) if rest else value}


def _alternatives(name: str, value: Any, pool: dict[str, list[Any]]) -> Iterator[Any]:
    """Other values a field may have, of all kinds that could matter."""
    if isinstance(value, bool):
        yield not value
    elif value is None:
        yield from (True, 1, 16, *pool.get(name, [])[:8])
    elif isinstance(value, int):
        yield from (None, 2 * value, 1) if LAYERS.search(name) else (None, 0, 1, 2 * value)
    elif isinstance(value, str):
        yield from [other for other in pool.get(name, []) if isinstance(other, str)][:16]
    elif isinstance(value, list) and value:
        kinds = {item for item in value if isinstance(item, str)}
        for other in pool.get(name, []):
            kinds |= {item for item in other if isinstance(item, str)} if kinds else set()
        for kind in sorted(kinds)[:12]:
            yield [kind] * len(value)
        yield None


def _switches(
    model_type: str, cls: str, pool: dict[str, list[Any]]
) -> Iterator[tuple[str, Switch]]:
    config = default_config(model_type)
    usual = patterns(build(cls, config))
    values = config.to_dict()
    for path, default in flat(values):
        name = path.rpartition(".")[2]
        if IRRELEVANT.search(name) or isinstance(default, float | dict):
            continue
        effects: list[tuple[Any, set[str]]] = []
        for value in _alternatives(name, default, pool):
            if value == default and type(value) is type(default):
                continue
            names = _names_with(model_type, cls, values, path, value)
            if names:
                effects.append((value, names))
        deviating = [value for value, names in effects if names != usual]
        if deviating:
            adds = set().union(*(names - usual for _, names in effects))
            drops = set().union(*(usual - names for _, names in effects))
            rule = _rule(default, deviating)
            kept = None if rule == "absent" else default
            yield path, Switch(kept, rule, last(adds), last(drops))


def _names_with(
    model_type: str, cls: str, values: dict[str, Any], path: str, value: Any
) -> set[str] | None:
    """What a class is made of when a field has another value, None if it can't be built.

    First with the rest left to the defaults, as people write configs, so that what follows from the
    field follows; else with all other values as they are.
    """
    for whole in (_sparse(model_type, values, path, value), changed(values, path, value)):
        try:
            with time_limit(20):
                return patterns(build(cls, config_of(model_type, whole)))
        except Exception:  # noqa: BLE001, PERF203 - no model, so no other names
            continue
    return None


def _sparse(model_type: str, values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A config that says nothing but one field, and the model types of the parts on the way."""
    sparse: dict[str, Any] = copy.deepcopy(MISSING.get(model_type, {}))
    here = sparse
    *steps, name = path.split(".")
    for step in steps:
        values = values[step]
        here = here.setdefault(step, {})
        if "model_type" in values:
            here["model_type"] = values["model_type"]
    here[name] = value
    return sparse


def _rule(default: Any, deviating: list[Any]) -> str:
    if isinstance(default, list):
        return "absent"
    if all((value is None) != (default is None) for value in deviating):
        return "none"
    if all(bool(value) != bool(default) for value in deviating):
        return "zero"
    return "value"


def last(names: set[str]) -> list[str]:
    """The last parts of names, sorted, numbers left out."""
    return sorted({name.rpartition(".")[2] for name in names} - {"*"})
