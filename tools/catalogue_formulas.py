"""Writes ``lora_lint/data/models/formulas``: every size of a class as a formula of config fields.

    python tools/catalogue_formulas.py [MODEL_TYPE[:CLASS] ...] [--jobs N] [--again N]

Needs torch and transformers, no network, and the configuration files of older releases
(``old_defaults.py``): a default that is not the same in all of them stands for nothing. For each
class it builds small models on the meta device, changes one config field after the other and then
many at once, and looks for the formula that explains each number (``formula_search.py``) and each
list of layers (``formula_trees.py``).
Fields that change more than numbers are switches; each setting of them that is found gets formulas
of its own. What is not explained is not written, and what is written has been compared, by the code
that users run (``lora_lint/models/sizes.py``), with real models of random configs: fields left out,
null, 0, 1 or equal to each other, switches set otherwise. One difference, and the class is not
written.

A file ``MODEL_TYPE.CLASS.json.z`` holds, besides the tables of modules of ``storage.py``, where a
negative size is the number of an expression and a name ``*3:1`` stands for the layers of the
second kind by rule 3:

``trees``        class -> its structures: the switches' states (``when``), the root's number, which
                 fields must be equal or must not (``equal``, ``differ``) or as usual (``fixed``)
``expressions``  sums of [numerator, denominator, fields, fields it is divided by]
``rules``        of a list of layers: their count, the tests of a layer, the outcomes per kind
``needs``        field -> least value, and the expressions for a field that is left out and for null
``acts``         the classes of activations; ``act_fields``: the fields that name one
``also``         field -> its other names;  ``silent``: switch -> its state where it is left out
``stop``         fields of older forms, of which another value would count
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import os
import random
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packing
import torch
import transformers
from catalogue_templates import LAYERS, auto_classes, default_config, flat, value_pool
from formula_search import fields_of, find
from formula_trees import Merger, Sample, UnexplainedError
from huggingface_hub.errors import StrictDataclassError
from meta_models import build, config_of, limit_process, numberless, read, time_limit
from old_defaults import differing_defaults
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from lora_lint.models import from_model
from lora_lint.models.catalogue import formulas as formulas_file
from lora_lint.models.config_file import MISSING as NOTHING
from lora_lint.models.config_file import ConfigFile
from lora_lint.models.sizes import LABELS, UncoveredError, state_of, tree_of
from lora_lint.models.storage import write_nodes, write_ties

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.models.module_tree import ModuleNode, ModuleTree

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "models" / "formulas"
# Facts that decide no shape; a resolution reads them from the config itself.
OWN_FACTS = ("max_position_embeddings", "sliding_window", "num_experts_per_tok")
NO_SHAPE = re.compile(
    r"(_token|token_id|token_ids|token_index|_id)$|dropout|initializer|_eps$|epsilon|^rope_|rope_theta|rope_scaling|label2id"
    r"|id2label|dtype|^_name_or_path$|^_attn|^_commit|^use_cache$|^output_|^return_"
    r"|^architectures$|^transformers_version$"
    r"|problem_type|chunk_size|pretraining_tp|max_window_layers|_coef$|^model_type$|layerdrop"
    r"|^finetuning_task$|^tokenizer_class$|^is_encoder_decoder$"
)
MAX_STRUCTURES = 16
SAMPLES = 9
PROOFS = 45
SECONDS = 45
POOL: dict[str, list[Any]] = {}
# Fields that change too much; only their usual value is covered.
FIXED = {"falcon": ("num_ln_in_parallel_attn",)}
MANY = 8  # layers take time to build


transformers.logging.set_verbosity(50)
from_model._transformers_version = lambda: transformers.__version__  # it reads a file each time
for _module in (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d):
    # Nothing is to be filled on the meta device, and trying takes half of the time.
    _module.reset_parameters = lambda _: None  # type: ignore[method-assign]


# Values -------------------------------------------------------------------------------------------


def get(values: dict[str, Any], path: str) -> Any:
    """The value at a dotted path, ``NOTHING`` where there is none."""
    for step in path.split("."):
        if not isinstance(values, dict) or step not in values:
            return NOTHING
        values = values[step]
    return values


def put(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a path; ``NOTHING`` takes it away."""
    name, _, rest = path.partition(".")
    if rest:
        return {**values, name: put(values.get(name) or {}, rest, value)}
    if value is NOTHING:
        return {key: v for key, v in values.items() if key != name}
    return {**values, name: value}


def put_all(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with several values changed."""
    for path, value in changes.items():
        values = put(values, path, value)
    return values


def is_number(value: Any) -> bool:
    """Whether a value is a number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Reads:
    """Which fields of configs are read while a model is built."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.usual = PreTrainedConfig.__getattribute__

    def __enter__(self) -> set[str]:
        names, usual = self.names, self.usual

        def read_field(config: Any, name: str) -> Any:
            names.add(name)
            return usual(config, name)

        PreTrainedConfig.__getattribute__ = read_field  # type: ignore[method-assign]
        return names

    def __exit__(self, *_: object) -> None:
        PreTrainedConfig.__getattribute__ = self.usual  # type: ignore[method-assign]


def fields_read(builds: Builds, values: dict[str, Any]) -> set[str]:
    """The last parts of the fields that a build reads from its config."""
    config = config_of(builds.model_type, copy.deepcopy(values))
    aliases = {
        k: v for _, p in [("", config), *_sub_configs(config)] for k, v in p.attribute_map.items()
    }
    with Reads() as names, time_limit(20):
        build(builds.cls, config)
    names |= set(from_model._DIMENSIONS)  # facts of the tree
    return names | {aliases[n] for n in names if n in aliases} | {LABELS}


class Builds:
    """Builds trees of one class, each config once."""

    def __init__(self, model_type: str, cls: str) -> None:
        self.model_type, self.cls = model_type, cls
        self.known: dict[str, ModuleTree | None] = {}
        self.problem = ""

    def __call__(self, values: dict[str, Any]) -> ModuleTree | None:
        """The tree of a config, None where it can't be built; ``problem`` says why."""
        key = json.dumps(values, sort_keys=True, default=str)
        if key not in self.known:
            if len(self.known) > 3000:
                self.known.clear()
            try:
                with time_limit(60):
                    config = config_of(self.model_type, copy.deepcopy(values))
                    self.known[key] = read(self.cls, config, "given")
            except Exception as exc:  # noqa: BLE001 - a config that can't be built
                self.problem = f"{type(exc).__name__}: {exc}"
                self.known[key] = None
        return self.known[key]


def identity(tree: ModuleTree) -> str:
    """All of a tree that the formulas give."""
    facts = dict(tree.facts)
    facts["config"] = {k: v for k, v in facts.get("config", {}).items() if k not in OWN_FACTS}
    return replace(tree, facts=facts, dtype="float32").to_json()


def acts() -> dict[str, str]:
    """Name of an activation in a config -> the class of its module."""
    found = {}
    for name in ACT2FN:
        module = ACT2FN[name]
        if isinstance(module, torch.nn.Module) and not list(module.parameters()):
            found[name] = type(module).__name__
    return found


ACTS = acts()
ACT_CLASSES = frozenset(ACTS.values())


def without_acts(tree: ModuleTree) -> str:
    """A tree's identity without the classes of activations."""
    done: dict[int, ModuleNode] = {}

    def masked(node: ModuleNode) -> ModuleNode:
        if id(node) not in done:
            cls = "" if node.cls in ACT_CLASSES and not node.children else node.cls
            children = {name: masked(child) for name, child in node.children.items()}
            done[id(node)] = replace(node, cls=cls, children=children)
        return done[id(node)]

    return identity(replace(tree, root=masked(tree.root)))


def skeleton(tree: ModuleTree) -> frozenset[Any]:
    """Names and kinds, numbers aside."""
    return frozenset(
        (
            numberless(prefix),
            "" if node.cls in ACT_CLASSES else node.cls,
            tuple((k, len(s)) for k, s in node.parameters.items()),
        )
        for prefix, node in tree.named_modules()
    )


def agree(ours: ModuleTree, real: ModuleTree) -> str | None:
    """What is not the same in two trees, None where all is."""
    for what in ("cls", "model_type", "shared", "tied"):
        if getattr(ours, what) != getattr(real, what):
            return f"{what}: {getattr(ours, what)!r:.80} is {getattr(real, what)!r:.80}"
    mine, theirs = dict(ours.facts), dict(real.facts)
    sizes, true = mine.pop("config", {}), theirs.pop("config", {})
    if mine != theirs:
        return f"facts: {mine} are {theirs}"
    wrong = {k: (sizes.get(k), v) for k, v in true.items() if k not in OWN_FACTS}
    wrong = {k: v for k, v in wrong.items() if k in sizes and v[0] != v[1]}
    if wrong:
        return f"sizes: {wrong}"
    if write_nodes([ours.root]) != write_nodes([_like(real.root, ours.root)]):
        first, second = _rows(ours), _rows(real)
        return f"modules: {sorted(map(str, first ^ second))[:4]}"
    return None


def _like(real: ModuleNode, ours: ModuleNode) -> ModuleNode:
    """The real tree with the activations that ours leaves open."""
    if ours.cls == "Activation" and real.cls in ACT_CLASSES and not real.children:
        return replace(real, cls="Activation")
    done: dict[int, ModuleNode] = {}
    children = {}
    for name, child in real.children.items():
        if name in ours.children:
            if id(child) not in done:
                done[id(child)] = _like(child, ours.children[name])
            child = done[id(child)]
        children[name] = child
    return replace(real, children=children)


def _rows(tree: ModuleTree) -> set[Any]:
    return {
        (name, n.cls, n.kind, tuple(n.parameters.items()), str(n.facts))
        for name, n in tree.named_modules()
    }


# Where to start -----------------------------------------------------------------------------------


def starting_values(model_type: str, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """All values of a model type's default config (or another), with few layers."""
    config = config_of(model_type, base) if base else default_config(model_type)
    values = _plain(config.to_dict())
    values[LABELS] = 3
    for prefix, part in [("", config), *_sub_configs(config)]:
        for name in part.attribute_map:  # said twice, the second would win
            values = put(values, prefix + name, NOTHING)
    whole = values
    for path, value in list(flat(values)):
        name = path.rpartition(".")[2]
        if LAYERS.search(name) and isinstance(value, int) and value > 5:
            values = put(values, path, 4)
        elif isinstance(value, list) and len(value) > 5 and len(value) == length_of(whole, path):
            values = put(values, path, value[:4])  # one entry per layer
    return values


def _plain(values: Any) -> Any:
    """JSON's own types, as a config.json has them."""
    dropped = {"id2label", "label2id", "dtype", "torch_dtype", "transformers_version"}
    if isinstance(values, dict):
        return {str(k): _plain(v) for k, v in values.items() if str(k) not in dropped}
    if isinstance(values, list | tuple):
        return [_plain(v) for v in values]
    return values


def hidden_fields(builds: Builds, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values with the fields that only the source speaks of and that decide numbers, and those that
    decide more.
    """
    usual = builds(values)
    stop: list[str] = []
    if usual is None:
        return values, stop
    config = config_of(builds.model_type, copy.deepcopy(values))
    same, frame = identity(usual), skeleton(usual)
    for prefix, part in [("", config), *_sub_configs(config)]:
        known = {*part.to_dict(), *part.attribute_map, LABELS}
        for word in sorted(_words(type(part)) - known):
            if NO_SHAPE.search(word):
                continue
            for value in (48, 3, True, [1]):
                tree = builds(put(values, prefix + word, value))
                if tree is None or identity(tree) == same:
                    continue
                if is_number(value) and skeleton(tree) == frame:
                    values = put(values, prefix + word, value)
                    same = identity(tree)
                else:
                    stop.append(prefix + word)
                break
    return values, stop


@lru_cache(maxsize=64)
def _words(cls: type) -> frozenset[str]:
    """Names that a config's own source and its model's read from it."""
    found: set[str] = set()
    module = sys.modules[cls.__module__]
    found |= set(re.findall(r"""["']([a-z]\w*)["']""", inspect.getsource(cls)))
    folder = Path(str(module.__file__)).parent
    for path in folder.glob("modeling_*.py"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"""config, ["'](\w+)["']""", text))
    return frozenset(found)


def length_of(values: dict[str, Any], path: str) -> int | None:
    """How many entries a list with one entry per layer has."""
    folder = path.rpartition(".")[0]
    part = get(values, folder) if folder else values
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        if isinstance(part.get(name), int):
            return int(part[name])
    return None


# One structure ------------------------------------------------------------------------------------


@dataclass
class Structure:
    """What is known of a class under one setting of its switches."""

    values: dict[str, Any]
    fields: dict[str, list[Any]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    indices: list[str] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    switches: dict[str, list[Any]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, list[Any]] = field(default_factory=dict)
    equal: list[tuple[str, str]] = field(default_factory=list)
    differ: list[tuple[str, str]] = field(default_factory=list)
    tree: ModuleTree | None = None
    alone: Any = None
    root: Any = None
    config: dict[str, int] = field(default_factory=dict)
    needs: dict[str, list[Any]] = field(default_factory=dict)


def pool_of(name: str, value: float) -> list[Any]:
    """Other values of a numeric field to try."""
    if isinstance(value, float):
        return [value * 2, value * 3, value / 2]
    if LAYERS.search(name):
        return [3, 5, 2, 6, 7, 1]
    if re.search(r"head|group", name) and value > 1:
        small = [value // 2, value // 4, value * 2, value // 8]
        return [v for v in dict.fromkeys(small) if v > 0 and v != value] or [2, 3]
    if value == 0:
        return [2, 1, 4, 48]
    if value <= 16:
        small = [2 * value, 3 * value, value + 1, 1, 2, 3, 4, 6]
        return [v for v in dict.fromkeys(small) if v > 0 and v != value]
    return [2 * value, 3 * value, 5 * value, value // 2, 4 * value]


def discover(
    builds: Builds, values: dict[str, Any], pool: dict[str, list[Any]]
) -> Structure | None:
    """Which fields decide the tree of a config, and how."""
    usual = builds(values)
    if usual is None:
        return None
    found = Structure(values, tree=usual)
    same, frame = identity(usual), skeleton(usual)
    for path, value in flat(values):
        if isinstance(value, list) and not NO_SHAPE.search(path.rpartition(".")[2]):
            _discover_list(builds, found, path, value, pool, same)
    values = found.values
    read_fields = fields_read(builds, values)
    plain = _plain(config_of(builds.model_type, copy.deepcopy(values)).to_dict())
    for path, value in flat(values):
        name = path.rpartition(".")[2]
        if NO_SHAPE.search(name) or isinstance(value, dict | list):
            continue
        if name in FIXED.get(builds.model_type, ()):
            found.fixed[path] = value
            continue
        plain_dict = in_dict(builds, values, path)
        if (
            not plain_dict
            and name not in read_fields
            and not _leads_on(builds, values, path, plain, pool)
        ):
            found.ignored[path] = _others(name, value, pool)
            continue
        others, failed, changes = _others(name, value, pool), 0, False
        if is_number(value) and value == 0:
            trees = [builds(put(values, path, other)) for other in others]
            good = [
                other
                for other, tree in zip(others, trees, strict=True)
                if tree is not None and skeleton(tree) != frame
            ]
            if good:
                found.switches[path] = good[:1]
                continue
        if is_number(value):
            for other in others[:3]:
                tree = builds(put(values, path, other))
                failed += tree is None
                if tree is not None and identity(tree) != same:
                    changes = True
                    break
            if changes or failed == len(others[:3]):
                found.fields[path] = others
                for state in (0, None):
                    if state == 0 and (isinstance(value, float) or not _may_be_none(name, value)):
                        continue
                    tree = builds(put(values, path, state))
                    if tree is not None and skeleton(tree) != frame:
                        found.switches.setdefault(path, []).append(state)
            else:
                found.ignored[path] = others
            continue
        promoted = False
        for other in others:
            tree = builds(put(values, path, other))
            if tree is None:
                failed += 1
                continue
            if identity(tree) == same:
                continue
            if other in ACTS and value in ACTS and without_acts(tree) == without_acts(usual):
                if path not in found.acts:
                    found.acts.append(path)
                continue
            if value is None and is_number(other) and skeleton(tree) == frame:
                promoted = True
                found.values = put(found.values, path, other)
                break
            states = [state_of(o) for o in found.switches.get(path, [])]
            if state_of(other) not in states:
                found.switches.setdefault(path, []).append(other)
        if promoted:
            return discover(builds, found.values, pool)
        if path not in found.switches and path not in found.acts:
            if others and failed == len(others) and value is not None:
                found.switches[path] = []  # must stay as it is
            else:
                found.ignored[path] = others
    _discover_equals(builds, found, frame)
    text = json.dumps(found.values)
    for path, states in found.switches.items():
        value = get(found.values, path)
        if path in found.lists or is_number(value) or NOTHING in states:
            continue
        if derived(builds.model_type, path, text):
            states.append(NOTHING)
            found.derived.append(path)
    return found


@lru_cache(maxsize=512)
def derived(model_type: str, path: str, text: str) -> bool:
    """Whether a field that is left out takes a value that follows from another field."""
    values = put(json.loads(text), path, NOTHING)
    seen = set()
    changes: list[tuple[str, Any]] = [("", None)]
    for other, value in flat(values):
        name = other.rpartition(".")[2]
        if not NO_SHAPE.search(name) and not isinstance(value, list | dict):
            changes += [(other, v) for v in _others(name, value, POOL)[:8]]
    for other, value in changes:
        try:
            config = config_of(model_type, put(values, other, value) if other else values)
            seen.add(str(get(_plain(config.to_dict()), path)))
        except Exception:  # noqa: BLE001, PERF203 - says nothing
            continue
    return len(seen) > 1


def in_dict(builds: Builds, values: dict[str, Any], path: str) -> bool:
    """Whether a field stands in a plain dictionary of the config, which may be read as a whole."""
    here: Any = config_of(builds.model_type, copy.deepcopy(values))
    for step in path.split(".")[:-1]:
        here = here.get(step) if isinstance(here, dict) else getattr(here, step, None)
    return isinstance(here, dict)


def _discover_equals(builds: Builds, found: Structure, frame: frozenset[Any]) -> None:
    """Fields that are equal, where the model has other parts if they are not."""
    for path in list(found.fields):
        value = get(found.values, path)
        if path not in found.fields:
            continue
        tree = next(
            filter(None, (builds(put(found.values, path, v)) for v in found.fields[path])), None
        )
        if path not in found.fields or tree is None or skeleton(tree) == frame:
            continue
        for other in found.fields:
            if other == path or get(found.values, other) != value:
                continue
            for new in found.fields[path]:
                both = builds(put(put(found.values, path, new), other, new))
                if both is not None and skeleton(both) == frame:
                    found.equal.append((path, other))
                    break
            if (path, other) in found.equal:
                del found.fields[other]
                break


def _leads_on(
    builds: Builds, values: dict[str, Any], path: str, plain: Any, pool: dict[str, list[Any]]
) -> bool:
    """Whether another value of a field changes another field of the config."""
    for other in _others(path.rpartition(".")[2], get(values, path), pool):
        try:
            config = config_of(builds.model_type, copy.deepcopy(put(values, path, other)))
        except Exception:  # noqa: BLE001 - what it refuses says nothing
            continue
        now = _plain(config.to_dict())
        if put(now, path, 0) != put(plain, path, 0):
            return True
    return False


def _may_be_none(name: str, value: float) -> bool:
    if LAYERS.search(name):
        return False
    return value < 64 or re.search(r"expert|rank|shared|num_|_size$", name) is not None


def _others(name: str, value: Any, pool: dict[str, list[Any]]) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if value is None:
        texts = [v for v in pool.get(name, []) if isinstance(v, str)][:6]
        return [True, 16, 96, 2, *texts]
    if is_number(value):
        return pool_of(name, value)
    if isinstance(value, str) and value in ACTS:
        texts = [v for v in pool.get(name, []) if isinstance(v, str) and v not in ACT2FN][:6]
        return [v for v in ("silu", "gelu", "relu", "gelu_new", "tanh") if v != value] + texts
    if isinstance(value, str):
        return [v for v in pool.get(name, []) if isinstance(v, str) and v != value][:12]
    return []


def _discover_list(
    builds: Builds,
    found: Structure,
    path: str,
    value: list[Any],
    pool: dict[str, list[Any]],
    same: str,
) -> None:
    name = path.rpartition(".")[2]
    length = length_of(found.values, path)
    texts = [v for v in value if isinstance(v, str)]
    if texts and len(texts) == len(value) == length:
        kinds = dict.fromkeys(
            [*texts, *(t for o in pool.get(name, []) for t in o if isinstance(t, str))]
        )
        good = []
        matters = False
        for kind in kinds:
            tree = builds(put(found.values, path, [kind] * len(value)))
            mixed = builds(put(found.values, path, [kind, *value[1:]]))
            if tree is not None or mixed is not None:
                good.append(kind)
            matters |= any(t is not None and identity(t) != same for t in (tree, mixed))
        if matters:
            found.lists[path] = good
            found.switches.setdefault(path, []).append(NOTHING)
        else:
            _leave_out(builds, found, path, same)
        return
    if len(value) == length and value and all(isinstance(v, int) for v in value):
        trees = [builds(put(found.values, path, [v] * len(value))) for v in (0, 1, 2)]
        if all(t is None or identity(t) == same for t in trees):
            _leave_out(builds, found, path, same)
            return
    if all(isinstance(v, int) for v in value) and name.endswith("layers"):
        trees = [builds(put(found.values, path, other)) for other in ([0], [1, 2], [])]
        if any(t is not None and identity(t) != same for t in trees):
            found.indices.append(path)
        return
    others: list[Any] = [[]]
    if value and all(is_number(v) for v in value):
        others = [[v * 2 for v in value], value[:-1], [*value, value[-1]]]
    elif texts:
        others = [v for v in pool.get(name, []) if isinstance(v, list) and v != value][:4]
    elif not value:
        others = [[1], [0], ["x"]]
    trees = [builds(put(found.values, path, other)) for other in (*others, None)]
    if any(t is not None and identity(t) != same for t in trees) or not any(trees):
        found.fixed[path] = value


def _leave_out(builds: Builds, found: Structure, path: str, same: str) -> None:
    """Take away a list that decides nothing, so that it need not follow the layers."""
    without = put(found.values, path, NOTHING)
    tree = builds(without)
    if tree is not None and identity(tree) == same:
        found.values = without
    else:
        found.ignored[path] = []


def sampled(found: Structure, rng: random.Random, share: float) -> dict[str, Any]:
    """A random config of a structure; ``share`` of its fields have another value than usual."""
    values = found.values
    for path, others in found.fields.items():
        if rng.random() < share:
            values = put(values, path, rng.choice(others))
    for first, second in found.equal:
        values = put(values, second, get(values, first))
    return _with_lists(found, values, rng)


def _with_lists(found: Structure, values: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    for path, kinds in found.lists.items():
        length = length_of(values, path) or 0
        values = put(values, path, [rng.choice(kinds) for _ in range(length)])
    for path in found.acts:
        values = put(values, path, rng.choice(["silu", "gelu", "relu", "tanh", "gelu_new"]))
    for path in found.indices:
        values = put(values, path, sorted(rng.sample(range(6), rng.randint(0, 3))))
    return values


def sample_of(
    found: Structure, values: dict[str, Any], tree: ModuleTree, changed: str | None
) -> Sample:
    """A sample as the merger wants it."""
    numbers = {path: Fraction(get(values, path)) for path in found.fields}
    lists = {path: get(values, path) for path in (*found.lists, *found.indices)}
    lists |= {path: [ACTS[get(values, path)]] for path in found.acts}
    return Sample(numbers, lists, tree, changed)


def samples_of(builds: Builds, found: Structure, rng: random.Random) -> list[Sample]:
    """The usual config, one more for every field, and random ones."""
    assert found.tree is not None
    frame = (found.tree.tied, found.tree.shared)
    result = [sample_of(found, found.values, found.tree, None)]
    for path, others in found.fields.items():
        done = 0
        for other in others:
            values = put(found.values, path, other)
            values = _following(found, values)
            if done:
                values = _with_lists(found, values, rng)
            tree = builds(values)
            if tree is not None and (tree.tied, tree.shared) == frame:
                result.append(sample_of(found, values, tree, path))
                done += 1
                if done == 2:
                    break
    wanted, tries = len(result) + SAMPLES, 0
    while len(result) < wanted and tries < 12 * SAMPLES:
        tries += 1
        share = 0.8 if tries < 3 * SAMPLES else 0.4 if tries < 7 * SAMPLES else 0.2
        values = sampled(found, rng, share)
        tree = builds(values)
        if tree is not None:
            if (tree.tied, tree.shared) != frame:
                raise UnexplainedError("ties depend on sizes")
            result.append(sample_of(found, values, tree, None))
    return result


def _following(found: Structure, values: dict[str, Any]) -> dict[str, Any]:
    """What follows from a changed field: its equals, and lists with one entry per layer."""
    for first, second in found.equal:
        values = put(values, second, get(values, first))
    for path in (*found.lists, *found.ignored):
        value = get(values, path)
        if isinstance(value, list) and value and isinstance(value[0], str):
            length = length_of(values, path) or len(value)
            values = put(values, path, (value * length)[:length])
    return values


# One class ----------------------------------------------------------------------------------------


class Formulas:
    """What is found for the classes of one model type; the tables are common to all."""

    def __init__(self, model_type: str) -> None:
        self.model_type = model_type
        self.expressions: list[Any] = []
        self.rules: list[Any] = []
        self.trees: dict[str, list[Structure]] = {}
        self.silent: dict[str, dict[str, Any]] = {}
        self.stop: list[str] = []
        self.also: dict[str, list[str]] = {}
        self.flat = False
        self.act_fields: set[str] = set()

    def write(self, only: str | None = None) -> dict[str, Any]:
        """The file's content; of one class alone if asked."""
        trees = {c: s for c, s in self.trees.items() if only in (None, c)}
        structures = [s for group in trees.values() for s in group]
        tables, roots = write_nodes(s.root for s in structures)
        fields: dict[str, int] = {}
        expressions = [
            [
                [
                    n,
                    d,
                    [fields.setdefault(f, len(fields)) for f in fs],
                    [fields.setdefault(f, len(fields)) for f in gs],
                ]
                for n, d, fs, gs in expression
            ]
            for expression in self.expressions
        ]
        common = dict(structures[0].tree.facts)
        common = {
            k: v
            for k, v in common.items()
            if k != "config" and all(s.tree.facts.get(k) == v for s in structures)
        }
        needs: list[Any] = []
        data: dict[str, list[Any]] = {cls: [] for cls in trees}
        silent: dict[str, Any] = {}
        for (cls, s), root in zip(
            [(c, s) for c, group in trees.items() for s in group], roots, strict=True
        ):
            if s.needs not in needs:
                needs.append(s.needs)
            entry: dict[str, Any] = {
                "when": {p: self.state(s, p) for p in s.switches},
                "root": root,
                "needs": needs.index(s.needs),
                "config": {k: -1 - v if v < 0 else self.number(v) for k, v in s.config.items()},
            }
            facts = {k: v for k, v in s.tree.facts.items() if k not in (*common, "config")}
            optional = {
                "acts": s.acts,
                "facts": facts,
                "fixed": s.fixed,
                "equal": s.equal,
                "differ": s.differ,
                "shared": dict(s.tree.shared),
                "tied": write_ties(s.tree.tied),
            }
            entry |= {k: v for k, v in optional.items() if v}
            if s.tree.model_type != self.model_type:
                entry["model_type"] = s.tree.model_type
            data[cls].append(entry)
            silent |= {p: self.silent[cls].get(p, "?") for p in (*s.switches, *s.acts)}
        expressions += [
            [
                [
                    n,
                    d,
                    [fields.setdefault(f, len(fields)) for f in fs],
                    [fields.setdefault(f, len(fields)) for f in gs],
                ]
                for n, d, fs, gs in e
            ]
            for e in self.expressions[len(expressions) :]
        ]
        names = {
            f
            for s in structures
            for f in (*s.needs, *s.switches, *s.fixed, *s.lists, *s.indices, *s.acts)
        }
        parts = sorted({n.partition(".")[0] for n in names if "." in n})
        return {
            "model_type": self.model_type,
            "transformers": transformers.__version__,
            "facts": common,
            "fields": list(fields),
            "expressions": expressions,
            "rules": [
                {"count": r.count, "tests": r.tests, "keys": r.keys, "kinds": r.kinds}
                for r in self.rules
            ],
            "needs": needs,
            "also": {k: v for k, v in self.also.items() if k in names},
            "silent": silent,
            "stop": self.stop,
            "acts": ACTS if self.act_fields else {},
            "act_fields": sorted(self.act_fields),
            "flat": self.flat,
            "parts": parts,
            "trees": data,
            **tables,
        }

    def number(self, value: int) -> int:
        """The expression of a constant."""
        expression = ((value, 1, (), ()),)
        if expression not in self.expressions:
            self.expressions.append(expression)
        return self.expressions.index(expression)

    def state(self, found: Structure, path: str) -> Any:
        """A switch's state in a structure."""
        value = get(found.values, path)
        if value is NOTHING:
            return "~"
        return "=act" if path in self.act_fields and value in ACTS else state_of(value)


def explain(
    formulas: Formulas, cls: str, pool: dict[str, list[Any]], say: Any, bases: list[dict[str, Any]]
) -> str | None:
    """Find a class's formulas and prove them; the reason where that fails."""
    POOL.update(pool)
    builds = Builds(formulas.model_type, cls)
    rng = random.Random(f"{cls}")
    structures: list[Structure] = []
    seen: set[str] = set()
    problems: list[str] = []
    queue: list[tuple[dict[str, Any], list[tuple[str, str]], set[str]]] = []
    for base in bases:
        values, stop = hidden_fields(builds, starting_values(formulas.model_type, base))
        formulas.stop = sorted({*formulas.stop, *stop})
        queue.append((values, [], set()))
    first = queue[0][0]
    if builds(first) is None:
        return f"its default config with few layers does not build: {builds.problem}"
    end = time.time() + SECONDS
    while (
        queue
        and time.time() < end
        and len(structures) < MAX_STRUCTURES
        and len(seen) < 2 * MAX_STRUCTURES
    ):
        values, equal, held = queue.pop(0)
        for a, b in equal:
            values = put(values, b, get(values, a))
        try:
            found = discover(builds, values, pool)
        except StrictDataclassError as exc:
            problems.append(str(exc)[:150])
            continue
        if found is None:
            continue
        formulas.act_fields |= set(found.acts)
        for path in held:  # what led here tells this structure from the others
            found.switches.setdefault(path, [])
        key = json.dumps(
            [sorted((p, str(formulas.state(found, p))) for p in found.switches), found.equal]
        )
        if key in seen:
            continue
        seen.add(key)
        for a, b in found.equal:  # and where they are not
            values = put(found.values, b, 2 * get(found.values, a))
            queue.append((values, equal, held))
        found.equal = [*equal, *(pair for pair in found.equal if pair not in equal)]
        for _, b in equal:
            found.fields.pop(b, None)
        try:
            derive(builds, formulas, found, rng)
        except UnexplainedError as exc:
            problems.append(str(exc)[:150])
            say(f"  {cls}: {exc}"[:200])
            if not structures and not queue and not found.switches:
                return str(exc)
        else:
            structures.append(found)
            queue += [(found.values, [*equal, (a, b)], held) for a, b in found.differ]
        for path, others in found.switches.items():
            queue += [(put(found.values, path, other), equal, {*held, path}) for other in others]
    if not structures:
        return problems[0] if problems else "nothing builds"
    formulas.silent[cls] = silent_states(formulas.model_type, structures)
    formulas.trees[cls] = structures
    hints: dict[Any, int] = {}
    for s in structures:
        fallbacks(builds, formulas, s, rng, hints)
    return prove(builds, formulas, cls, structures, rng, pool)


def derive(builds: Builds, formulas: Formulas, found: Structure, rng: random.Random) -> None:
    """The formulas of one structure."""
    samples = samples_of(builds, found, rng)
    if len(samples) < 6 and found.fields:
        raise UnexplainedError("too few configs build")
    for path in list(found.fields):
        if len({s.numbers[path] for s in samples}) == 1:
            found.fixed[path] = get(found.values, path)
            if default_of(builds.model_type, found.values, path) != found.fixed[path]:
                raise UnexplainedError(f"{path} can't be varied")
            del found.fields[path]
    samples = [s._replace(numbers={p: s.numbers[p] for p in found.fields}) for s in samples]
    merger = Merger(samples, formulas.expressions, formulas.rules)
    found.root = merger.root()
    sizes = [s.tree.facts.get("config", {}) for s in samples]
    found.config = {}
    for name in sizes[0]:
        if name not in OWN_FACTS and all(name in size for size in sizes):
            vector = {i: size[name] for i, size in enumerate(sizes)}
            number = merger.number(vector, f"config {name}")
            found.config[name] = number
    constant = {k for k in samples[0].tree.facts if k != "config"}
    for s in samples:
        if any(s.tree.facts.get(k) != samples[0].tree.facts.get(k) for k in constant):
            raise UnexplainedError("facts depend on sizes")
    used = _used(formulas, found) | {path for pair in found.equal for path in pair}
    found.needs = {path: [least_of(found, path), -1, -1] for path in sorted(used)}
    _limits(builds, formulas, found)


def _used(formulas: Formulas, found: Structure) -> set[str]:
    """The fields that a structure's expressions and rules speak of."""
    text = json.dumps(write_nodes([found.root])[0])
    numbers = {int(n) for n in re.findall(r"(?<![\w.])-\d+", text)}
    rules = {int(n) for n in re.findall(r'"\*(\d+):', text)}
    used: set[str] = set()
    for rule in rules:
        numbers.add(formulas.rules[rule].count)
        for kind, *paths in formulas.rules[rule].tests:
            if kind not in ("is", "in"):
                used |= set(paths)
    numbers |= set(found.config.values())
    for number in numbers:
        if number < 0:
            used |= set(fields_of(formulas.expressions[-1 - number]))
    return used


def least_of(found: Structure, path: str) -> float:
    """The least value of a field: a float says that it may be one."""
    return 1e-6 if isinstance(get(found.values, path), float) else 1


def predicted(
    formulas: Formulas, cls: str, found: Structure, values: dict[str, Any]
) -> ModuleTree | str:
    """The tree by one structure's formulas alone."""
    key = id(found.root), tuple(need[0] for need in found.needs.values()), tuple(found.differ)
    if found.alone is None or found.alone[0] != key:
        alone = Formulas(formulas.model_type)
        alone.expressions, alone.rules = formulas.expressions, formulas.rules
        alone.trees, alone.silent = {cls: [found]}, {cls: {}}
        alone.act_fields = formulas.act_fields
        found.alone = key, alone.write()
    try:
        return tree_of(found.alone[1], cls, ConfigFile({**values, "architectures": [cls]}))
    except UncoveredError as exc:
        return str(exc)


def _limits(builds: Builds, formulas: Formulas, found: Structure) -> None:
    """Fields at 1 and 0, and fields that are equal: where the formulas still hold."""
    for path, need in found.needs.items():
        if isinstance(need[0], float) or path in {b for _, b in found.equal}:
            continue
        for least in (2, 1, 0):
            values = _following(found, put(found.values, path, least))
            real = builds(values)
            if real is None:
                if least == 0:
                    break
                continue
            need[0] = min(need[0], least)
            ours = predicted(formulas, builds.cls, found, values)
            if not isinstance(ours, str) and agree(ours, real):
                need[0] = least + 1
                break
    tied = {second for _, second in found.equal}
    paths = [p for p, n in found.needs.items() if not isinstance(n[0], float) and p not in tied]
    for i, a in enumerate(paths):
        for b in paths[i + 1 :]:
            if (
                a.rpartition(".")[0] != b.rpartition(".")[0]
                and "." in a
                and "." in b
                and not (a.endswith("size") and b.endswith("size"))
            ):
                continue
            for one, other in ((a, b), (b, a)):
                if LAYERS.search(one) or (LAYERS.search(other) and get(found.values, one) > MANY):
                    continue  # no size is so small
                values = _following(found, put(found.values, other, get(found.values, one)))
                real = builds(values)
                if real is None:
                    continue
                ours = predicted(formulas, builds.cls, found, values)
                if not isinstance(ours, str) and (wrong := agree(ours, real)):
                    if skeleton(real) == skeleton(found.tree):
                        raise UnexplainedError(f"{a} equal to {b}: {wrong}")
                    found.differ.append((a, b))
                break


# What a config leaves out -------------------------------------------------------------------------


def silent_states(model_type: str, structures: list[Structure]) -> dict[str, Any]:
    """Switch -> its state where a config leaves it out."""
    values = structures[0].values
    states: dict[str, Any] = {}
    for path in {p for s in structures for p in (*s.switches, *s.acts)}:
        if any(path in s.lists or path in s.derived for s in structures):
            states[path] = "~"
            continue
        value = default_of(model_type, values, path)
        follows = derived(model_type, path, json.dumps(values))
        known = value is not NOTHING and not follows
        if known and differing_defaults(model_type, path, value):
            known = False
        states[path] = state_of(value) if known else "?"
    return states


def default_of(model_type: str, values: dict[str, Any], path: str) -> Any:
    """What a field is when a config says all but it."""
    try:
        config = config_of(model_type, copy.deepcopy(put(values, path, NOTHING)))
    except Exception:  # noqa: BLE001 - it can't be left out
        return NOTHING
    return get(_plain(config.to_dict()), path)


def follows_words(model_type: str, found: Structure, path: str, silence: Any) -> bool:
    """Whether the number that a silent field stands for depends on fields that are no numbers."""
    seen = set()
    changes: list[tuple[str, Any]] = [("", None)]
    for other, others in found.ignored.items():
        if not is_number(get(found.values, other)):
            changes += [(other, v) for v in others[:8]]
    for other, value in changes:
        values = put(found.values, path, silence)
        try:
            config = config_of(model_type, put(values, other, value) if other else values)
            seen.add(str(get(_plain(config.to_dict()), path)))
        except Exception:  # noqa: BLE001 - says nothing
            continue
    return len(seen) > 1


def fallbacks(
    builds: Builds,
    formulas: Formulas,
    found: Structure,
    rng: random.Random,
    hints: dict[Any, int],
) -> None:
    """The expressions for fields that are left out or null; ``hints``: other structures'."""
    for path, need in found.needs.items():
        if path == LABELS:
            need[1] = formulas.number(2)
            continue
        for position, silence in ((1, NOTHING), (2, None)):
            key = path, position
            number = -1
            if not follows_words(builds.model_type, found, path, silence):
                number = _fallback(builds, formulas, found, path, silence, rng, hints.get(key))
            if number >= 0:
                hints[key] = number
            if position == 1 and number >= 0:
                expression = formulas.expressions[number]
                value = Fraction(expression[0][0], expression[0][1])
                plain = len(expression) == 1 and not expression[0][2] and not expression[0][3]
                default = float(value) if value.denominator != 1 else int(value)
                if differing_defaults(builds.model_type, path, default if plain else None):
                    number = -1
            need[position] = number


def _fallback(
    builds: Builds,
    formulas: Formulas,
    found: Structure,
    path: str,
    silence: Any,
    rng: random.Random,
    hint: int | None,
) -> int:
    """The number of the expression that a silent field stands for, -1 where it has none."""
    cases: list[tuple[dict[str, Any], Any, ModuleTree]] = []
    for attempt in range(24):
        values = (
            found.values if attempt == 0 else sampled(found, rng, 0.5 if attempt < 12 else 0.25)
        )
        without = put(values, path, silence)
        tree = builds(without)
        if tree is None:
            if attempt > 8 and not cases:
                return -1
            continue
        config = config_of(builds.model_type, copy.deepcopy(without))
        cases.append((values, get(_plain(config.to_dict()), path), tree))
        if len(cases) == 3 and hint is not None:
            expression = formulas.expressions[hint]
            if _holds(builds, formulas, found, path, expression, cases):
                return hint
        if len(cases) == 8:
            break
    if len(cases) < 3:
        return -1
    others = {p for p in found.fields if p != path}
    columns = {p: [Fraction(get(v, p)) for v, _, _ in cases] for p in others}
    candidates: list[Any] = []
    if all(is_number(value) for _, value, _ in cases):
        vector = [Fraction(value) for _, value, _ in cases]
        near = {p for p in others if p.rpartition(".")[0] == path.rpartition(".")[0]}
        for names in (near, others):
            if len(names) <= 24 and (expression := find(vector, columns, names)):
                candidates.append(expression)
                break
    elif all(value in (None, NOTHING) for _, value, _ in cases):
        near = sorted(p for p in others if p.rpartition(".")[0] == path.rpartition(".")[0])
        candidates += [((1, 1, (a,), ()),) for a in near]
        candidates += [((1, 1, (a,), (b,)),) for a in near for b in near if a != b]
        candidates += [((factor, 1, (a,), ()),) for a in near for factor in (4, 2, 3)]
        candidates += [((n, 1, (), ()),) for n in (1, 2, 64, 128)]
    for expression in candidates:
        if not _always(builds, found, path, expression, silence, rng):
            continue
        if _holds(builds, formulas, found, path, expression, cases):
            if expression not in formulas.expressions:
                formulas.expressions.append(expression)
            return formulas.expressions.index(expression)
    return -1


def _always(
    builds: Builds, found: Structure, path: str, expression: Any, silence: Any, rng: random.Random
) -> bool:
    """Whether a config's own value is the expression's in many configs, where it has one."""
    for _ in range(30):
        values = sampled(found, rng, rng.choice((0.2, 0.5, 0.9)))
        try:
            without = copy.deepcopy(put(values, path, silence))
            value = get(_plain(config_of(builds.model_type, without).to_dict()), path)
        except Exception:  # noqa: BLE001 - a config that is refused says nothing
            continue
        total = _value(expression, values)
        if is_number(value) and total.denominator == 1 and total != value:
            return False
    return True


def _value(expression: Any, values: dict[str, Any]) -> Fraction:
    total = Fraction(0)
    for n, d, factors, divisors in expression:
        term = Fraction(n, d)
        for name in factors:
            term *= Fraction(get(values, name))
        for name in divisors:
            term /= Fraction(get(values, name)) or 1
        total += term
    return total


def _holds(
    builds: Builds,
    formulas: Formulas,
    found: Structure,
    path: str,
    expression: Any,
    cases: list[Any],
) -> bool:
    good = 0
    for values, _, tree in cases:
        same = _stands_for(builds, formulas, found, path, expression, values, tree)
        if same is False:
            return False
        good += same is True
    return good >= 2


def _stands_for(
    builds: Builds,
    formulas: Formulas,
    found: Structure,
    path: str,
    expression: Any,
    values: dict[str, Any],
    tree: ModuleTree,
) -> bool | None:
    total = _value(expression, values)
    if total.denominator != 1 and not isinstance(get(values, path), float):
        return None  # refused
    value: Any = int(total) if total.denominator == 1 else float(total)
    ours = predicted(formulas, builds.cls, found, put(values, path, value))
    return None if isinstance(ours, str) else agree(ours, tree) is None


# Other names --------------------------------------------------------------------------------------


def other_names(formulas: Formulas, cls: str) -> None:
    """Other spellings of fields, and fields of older forms that change what is built."""
    model_type = formulas.model_type
    builds = Builds(model_type, cls)
    values = formulas.trees[cls][0].values
    usual = builds(values)
    if usual is None:
        return
    config = config_of(model_type, copy.deepcopy(values))
    for prefix, part in [("", config), *_sub_configs(config)]:
        names = part.attribute_map
        for other, name in names.items():
            formulas.also.setdefault(prefix + name, [])
            if prefix + other not in formulas.also[prefix + name]:
                formulas.also[prefix + name].append(prefix + other)
    if isinstance(values.get("text_config"), dict):
        formulas.flat = _reads_flat_form(builds, formulas.trees[cls][0])


def _reads_flat_form(builds: Builds, found: Structure) -> bool:
    rng = random.Random(1)
    good = 0
    for _ in range(12):
        values = sampled(found, rng, 0.4)
        real = builds(values)
        if real is None:
            continue
        flat_form = {**{k: v for k, v in values.items() if k != "text_config"}}
        text = {k: v for k, v in values["text_config"].items() if k != "model_type"}
        if set(text) & set(flat_form) - {LABELS, "tie_word_embeddings"}:
            text = {k: v for k, v in text.items() if k not in flat_form or is_number(v)}
        tree = builds({**flat_form, **text})
        if tree is None or agree(tree, real):
            return False
        good += 1
    return good > 3


def _sub_configs(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if part is not None and hasattr(part, "sub_configs"):
            yield f"{prefix}{name}.", part
            yield from _sub_configs(part, f"{prefix}{name}.")


# The proof ----------------------------------------------------------------------------------------


def prove(
    builds: Builds,
    formulas: Formulas,
    cls: str,
    structures: list[Structure],
    rng: random.Random,
    pool: dict[str, list[Any]],
) -> str | None:
    """Compare with real models of random configs; the first difference where there is one."""
    other_names(formulas, cls)
    data = json.loads(json.dumps(formulas.write(cls)))
    same = refused = 0
    end = time.time() + 40
    for attempt in range(20 * PROOFS):
        if time.time() > end:
            break
        found = structures[attempt % len(structures)]
        values = mutated(found, rng, pool, attempt)
        try:
            ours = tree_of(data, cls, ConfigFile({**values, "architectures": [cls]}))
        except UncoveredError:
            refused += 1
            continue
        real = builds(values)
        if real is None:
            continue
        wrong = agree(ours, real)
        if wrong:
            plain = {p: v for p, v in flat(values) if get(found.values, p) != v}
            gone = [p for p, _ in flat(found.values) if get(values, p) is NOTHING]
            return f"with {plain} without {gone}: {wrong}"[:600]
        same += 1
        if same >= max(PROOFS, 5 * len(structures)):
            return None
    return None if same >= 25 else f"only {same} configs agree, {refused} are refused"


def mutated(
    found: Structure, rng: random.Random, pool: dict[str, list[Any]], attempt: int
) -> dict[str, Any]:
    """A config as strangers write them: other numbers, fields left out, null, 0, 1, equal."""
    values = sampled(found, rng, (0.1, 0.3, 0.7)[attempt % 3])
    if attempt % 4 == 1:
        return values
    for path, value in list(flat(values)):
        name = path.rpartition(".")[2]
        if name == "model_type" or "token" in name:
            continue
        draw = rng.random()
        if draw < (0.15 if attempt % 2 else 0.02):
            values = put(values, path, NOTHING)
        elif draw < 0.17:
            values = put(values, path, None)
        elif draw < 0.19 and path in found.fields:
            values = put(values, path, rng.choice([0, 1, 1]))
        elif draw < 0.22 and path in found.fields:
            other = get(found.values, rng.choice(list(found.fields)))
            if not LAYERS.search(name) or other <= MANY:
                values = put(values, path, other)
        elif draw < (0.26 if is_number(value) else 0.34):
            others = _others(name, value, pool) if not isinstance(value, list | dict) else []
            if others:
                values = put(values, path, rng.choice(others))
    return values


def prove_again(model_type: str, cls: str, pool: dict[str, list[Any]], count: int) -> str | None:
    """Compare a written file with real models of many more configs, most of them with silent
    fields; the first difference where there is one.
    """
    data = formulas_file(model_type, cls)
    POOL.update(pool)
    builds, rng = Builds(model_type, cls), random.Random(f"again {cls}")
    values, _ = hidden_fields(builds, starting_values(model_type))
    found = discover(builds, values, pool)
    if data is None or found is None:
        return "its usual config does not build"
    fields = sorted({path for needs in data["needs"] for path in needs} | set(data["silent"]))
    same = 0
    end = time.time() + 90
    for attempt in range(20 * count):
        values = sampled(found, rng, rng.choice((0.2, 0.5, 0.9)))
        if attempt % 3 == 0:
            values = mutated(found, rng, pool, attempt)
        for path in fields:
            draw = rng.random()
            if draw < 0.2:
                values = put(values, path, NOTHING if draw < 0.15 else None)
            elif draw < 0.3 and isinstance(get(values, path), bool):
                values = put(values, path, not get(values, path))
        try:
            ours = tree_of(data, cls, ConfigFile({**values, "architectures": [cls]}))
        except UncoveredError:
            continue
        real = builds(values)
        if real is None:
            continue
        if wrong := agree(ours, real):
            plain = {p: v for p, v in flat(values) if get(found.values, p) != v}
            gone = [p for p, _ in flat(found.values) if get(values, p) is NOTHING]
            return f"with {plain} without {gone}: {wrong}"[:700]
        same += 1
        if same == count or time.time() > end:
            break
    print(f"{model_type} {cls}: {same} more configs agree", flush=True)
    return None


# Running ------------------------------------------------------------------------------------------


def formulas_of(
    model_type: str, cls: str, pool: dict[str, list[Any]]
) -> tuple[str, str | None, int]:
    """A class's file or why there is none, and its structures."""
    formulas = Formulas(model_type)
    try:
        why = explain(formulas, cls, pool, lambda _: None, [None])
        if why:
            return "", why, 0
        text = json.dumps(formulas.write(), separators=(",", ":"))
    except Exception as exc:  # noqa: BLE001 - the tool goes on with the next class
        return "", f"{type(exc).__name__}: {exc}", 0
    return text, None, len(formulas.trees[cls])


def everything_again(
    pool: dict[str, list[Any]], jobs: int, count: int, wanted: set[tuple[str, str]]
) -> None:
    """Prove files again, and take away those that are not right."""
    with ProcessPoolExecutor(jobs, initializer=limit_process) as executor:
        running = {}
        for path in sorted(DATA.glob("*.json*")):
            model_type, _, cls = path.name.partition(".json")[0].rpartition(".")
            if (model_type, cls) not in wanted:
                continue
            running[executor.submit(prove_again, model_type, cls, pool, count)] = path
        for job in as_completed(running):
            if why := job.result():
                print(f"wrong: {running[job].name}: {why}", flush=True)
                running[job].unlink()


def main() -> None:
    """Write the files of the classes that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="MODEL_TYPE or MODEL_TYPE:CLASS")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--again", type=int, metavar="N", help="prove files with N more configs")
    parser.add_argument("--missing", action="store_true", help="leave files that are there")
    options = parser.parse_args()
    if not os.environ.get("OLD_TRANSFORMERS"):
        parser.error("OLD_TRANSFORMERS names no folder of older releases")
    tasks = auto_classes()
    wanted: list[tuple[str, str]] = []
    for name in options.names or sorted(tasks):
        model_type, _, cls = name.partition(":")
        wanted += [(model_type, c) for c in ([cls] if cls else sorted(tasks[model_type]))]
    if options.missing:
        there = {path.name.partition(".json")[0] for path in DATA.glob("*")}
        wanted = [(m, c) for m, c in wanted if f"{m}.{c}" not in there]
    pool = value_pool()
    DATA.mkdir(parents=True, exist_ok=True)
    if options.again:
        everything_again(pool, options.jobs, options.again, set(wanted))
        return
    with ProcessPoolExecutor(options.jobs, initializer=limit_process) as executor:
        jobs = {executor.submit(formulas_of, m, c, pool): (m, c) for m, c in wanted}
        for job in as_completed(jobs):
            model_type, cls = jobs[job]
            text, why, count = job.result()
            name = f"{model_type}.{cls}.json"
            (DATA / f"{name}.z").unlink(missing_ok=True)
            if why:
                print(f"not offered: {model_type} {cls}: {why}"[:700], flush=True)
                continue
            print(f"{model_type} {cls}: {count} structures", flush=True)
            (DATA / name).write_text(text, encoding="utf-8")
    packing.pack_folder("formulas")


if __name__ == "__main__":
    main()
