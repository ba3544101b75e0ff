"""Writes ``lora_lint/data/models``: the module trees of known models and of all architectures.

    python tools/catalogue.py --configs DIR

Needs torch and transformers, and no network: every model is built on the meta device. ``DIR`` holds
``configs/`` (config.json files as published) with ``index.jsonl`` beside it, one line per file, and
``configs_synth/`` (configs made from published dimensions) with its own ``index.jsonl``. An entry
that the index rejects, a diffusers model or a pipeline's text encoder is left out.

How far a tree can be trusted is its grade, and the grade follows from the index alone:

``exact``
    ``evidence`` (``level`` in configs_synth) says ``exact-count``: the parameter count of the tree
    equals, to the last digit, a published total that was noted before the tree was counted. The
    total is the second source. Or ``known_models.json`` has the count that keras-hub publishes for
    the same weights. Built here, the tree must have that count again, or the model is left out.
``dims``
    The dimensions come from two sources that agree. Either a second copy of the config in another
    repository (``2nd-copy-match``) or another project's table of dimensions (``gpu_poor-match``)
    says the same; or transformers' own defaults for the model type give the same tree, to the last
    shape; or the published total agreed only after its reading had been corrected
    (``exact-count-after-adjusted-reference``); or the entry's own config, or litgpt's dimensions
    for it, give the very tree of an *exact* model that it descends from or that descends from it
    (a tuned, renamed or quantized release, ``is_descendant``).
``named``
    One source only (``nominal-ok``: the size in the name agrees, within a tenth, which mistakes
    have passed). The tree keeps the names its own config gives and loses all sizes.

Files, all of them read lazily:

``index.json``         model id -> tree, grade, config facts; other classes of the same config
``trees/*.z``          one module tree each, as ``ModuleTree.to_json`` writes it
``dimensions.json.z``  the config fields that decide a class's shapes, and their values per tree
``architectures/*.z``  one model type each: its classes' templates, tasks, switches, parts
``classes.json``       model type -> the classes that are its own
``evidence.json.z``    model id -> where its dimensions come from; for people, not read on runs

Those that end in ``.z`` are compressed (``tools/packing.py``): plain, they would be most of the
package. ``known_models.json`` beside this file holds dimensions and counts of models that the
folder lacks, or a second source for those that it has. With ``parameters`` the count decides; with
two or more ``sources``, each read by a person, the values stand in both; with one the entry stays
*named*.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packing
import transformers
from catalogue_templates import (
    Architecture,
    architectures,
    changed,
    flat,
    value_pool,
    without_sizes,
)
from catalogue_templates import _alternatives as alternatives
from meta_models import build, config_of, numberless, read

from lora_lint.models import packed
from lora_lint.models.config_file import ConfigFile
from lora_lint.models.storage import write_nodes, write_ties

if TYPE_CHECKING:
    from lora_lint.models.module_tree import Grade, ModuleTree

KNOWN = Path(__file__).parent / "known_models.json"
DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "models"
# Facts of a config that decide no shape: kept per model, since models that differ in them share a
# tree.
OWN_FACTS = ("max_position_embeddings", "sliding_window", "num_experts_per_tok")
ALSO_CALLED = {"n_positions": "max_position_embeddings"}
# Models whose config.json was only found as that of their release in fewer bits.
COPIES_OF_QUANTIZED = ("meta-llama/Llama-4-Maverick-17B-128E",)
# Releases that descend from a model whose name theirs does not contain, as their model cards say.
LINEAGE = {
    "codellama/CodeLlama-7b-Python-hf": "meta-llama/Llama-2-7b-hf",
    "codellama/CodeLlama-13b-Python-hf": "meta-llama/Llama-2-13b-hf",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": "meta-llama/Llama-3.1-8B",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": "meta-llama/Llama-3.3-70B-Instruct",
    "garage-bAInd/Platypus2-7B": "meta-llama/Llama-2-7b-hf",
    "garage-bAInd/Platypus2-13B": "meta-llama/Llama-2-13b-hf",
    "garage-bAInd/Camel-Platypus2-13B": "meta-llama/Llama-2-13b-hf",
    "garage-bAInd/Camel-Platypus2-70B": "meta-llama/Llama-2-70b-hf",
    "garage-bAInd/Platypus2-70B-instruct": "meta-llama/Llama-2-70b-hf",
    "garage-bAInd/Stable-Platypus2-13B": "meta-llama/Llama-2-13b-hf",
    "google/codegemma-7b-it": "google/gemma-7b",
    "microsoft/Phi-3.5-mini-instruct": "microsoft/Phi-3-mini-128k-instruct",
    "microsoft/Phi-4-mini-reasoning": "microsoft/Phi-4-mini-instruct",
    "mistralai/Mistral-Large-Instruct-2411": "mistralai/Mistral-Large-Instruct-2407",
    "mistralai/mathstral-7B-v0.1": "mistralai/Mistral-7B-v0.3",
    "Qwen/QwQ-32B": "Qwen/Qwen2.5-32B",
    "Qwen/QwQ-32B-Preview": "Qwen/Qwen2.5-32B",
    "openlm-research/open_llama_7b": "decapoda-research/llama-7b-hf",
}


@dataclass
class Entry:
    """One model of the index, and what became of it."""

    id: str
    model_type: str
    cls: str
    values: dict[str, Any]
    count: int
    published: int | None
    evidence: list[str]
    source: str
    synthetic: bool
    counted: str = ""
    quantization: str | None = None
    tree: ModuleTree | None = None
    grade: Grade = "named"
    reason: str = ""
    others: dict[str, ModuleTree] = field(default_factory=dict)


# Reading the folder -------------------------------------------------------------------------------


def entries(folder: Path) -> tuple[list[Entry], dict[str, str]]:
    """The models that can be built, and why others are left out."""
    found: list[Entry] = []
    left_out: dict[str, str] = {}
    for row in _rows(folder / "index.jsonl"):
        name = row["model_id"]
        if "::" in name or row["model_type"] is None:
            left_out[name] = "part of a diffusion pipeline"
        elif not row["status"].startswith(("verified", "plausible")):
            left_out[name] = row["status"]
        else:
            values = json.loads((folder / row["file"]).read_text(encoding="utf-8"))
            source = f"{row['repo']}@{row['commit'][:12]}:{row['path']}"
            found.append(_entry(row, values, row["evidence"], source))
    for row in _rows(folder / "configs_synth" / "index.jsonl"):
        values = {}
        if row["file"] is not None:
            values = json.loads((folder / row["file"]).read_text(encoding="utf-8"))
        found.append(_entry(row, values, [row["level"]], row["from"]))
    by_id = {entry.id: entry for entry in found}
    known = json.loads(KNOWN.read_text(encoding="utf-8"))
    for name, count in known["counts"].items():
        by_id[name].evidence.append("exact-count")
        by_id[name].published = count["parameters"]
        by_id[name].source += f"; count: keras-hub 0.32.0 {count['preset']}"
    for model in known["models"]:
        for name in model["ids"]:
            if name not in by_id or "exact-count" not in by_id[name].evidence:
                by_id[name] = _known_entry(name, model, by_id)
                left_out.pop(name, None)
    return list(by_id.values()), left_out


def _known_entry(name: str, model: dict[str, Any], by_id: dict[str, Entry]) -> Entry:
    like = by_id.get(model.get("like", ""))
    values = dict(like.values) if like else dict(model["config"])
    cls = like.cls if like else model["class"]
    model_type = like.model_type if like else model["model_type"]
    if "sources" in model:
        return Entry(
            id=name,
            model_type=model_type,
            cls=cls,
            values={**values, "model_type": model_type},
            count=0,
            published=None,
            evidence=["2nd-copy-match"] if len(model["sources"]) > 1 else [],
            source="; ".join(model["sources"]),
            synthetic=like is None or name != like.id,
        )
    rest = model.get("rest", 0)
    return Entry(
        id=name,
        model_type=model_type,
        cls=cls,
        values={**values, "model_type": model_type},
        count=0,
        published=model["parameters"] + rest,
        evidence=["exact-count-after-adjusted-reference" if rest else "exact-count"],
        source=f"keras-hub 0.32.0 {model['preset']}" + (f", {model['because']}" if rest else ""),
        synthetic=True,
        counted=model.get("counted", ""),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _entry(row: dict[str, Any], values: dict[str, Any], evidence: list[str], source: str) -> Entry:
    quantization = ConfigFile(values).quantization
    if row["model_id"] in COPIES_OF_QUANTIZED:
        quantization = None
    values.pop("quantization_config", None)
    architecture = (values.get("architectures") or [None])[0]
    published = row["params_published"]
    return Entry(
        id=row["model_id"],
        model_type=row.get("model_type") or values.get("model_type", ""),
        cls=architecture if hasattr(transformers, str(architecture)) else _usual_class(row),
        values=values,
        count=row["params_computed"],
        published=int(published) if published and "exact" in " ".join(evidence) else None,
        evidence=evidence,
        source=source,
        synthetic=row.get("synthetic", False),
        quantization=quantization,
    )


def _usual_class(row: dict[str, Any]) -> str:
    """The class of a copy without ``architectures``: an encoder's is that of its pre-training."""
    cls = str(row["class"] or "")
    return cls.replace("LMHeadModel", "ForMaskedLM") if cls.startswith("Bert") else cls


# Building and grading -----------------------------------------------------------------------------


def build_entries(found: list[Entry], failures: dict[str, str]) -> list[Entry]:
    """The entries with their trees; what does not build or has another count is a failure."""
    built = []
    for entry in found:
        if entry.synthetic and not entry.values:
            built.append(entry)  # no file: dimensions as its relatives, see ``grade_all``
            continue
        try:
            tree = read(entry.cls, config_of(entry.model_type, entry.values), "exact")
        except Exception as exc:  # noqa: BLE001 - whatever a class raises is listed
            failures[entry.id] = f"{type(exc).__name__}: {exc}".splitlines()[0][:160]
            continue
        count = tree.parameter_count() or 0
        counted = count
        if entry.counted:  # the published total is that of another class, without the head
            config = config_of(entry.model_type, entry.values)
            counted = read(entry.counted, config, "exact").parameter_count() or 0
        expected = {entry.count or count, entry.published or counted}
        if not expected <= {count, counted}:
            failures[entry.id] = f"{count:,} parameters, not {expected} as published"
            continue
        entry.tree, entry.count = tree, count
        built.append(entry)
    return built


def grade_all(found: list[Entry]) -> list[Entry]:
    """Give every entry its grade and the reason; see the module's docstring."""
    for entry in found:
        evidence = set(entry.evidence)
        if "exact-count" in evidence:
            entry.grade, entry.reason = "exact", "published parameter count"
        elif "2nd-copy-match" in evidence:
            entry.grade, entry.reason = "dims", "a second copy of the config agrees"
        elif "gpu_poor-match" in evidence:
            entry.grade, entry.reason = "dims", "RahulSChand/gpu_poor's dimensions agree"
        elif "exact-count-after-adjusted-reference" in evidence:
            entry.grade, entry.reason = "dims", "published parameter count, its reading corrected"
        elif entry.tree is not None and not entry.synthetic and as_by_default(entry):
            entry.grade, entry.reason = "dims", "transformers' defaults give the same tree"
    exact = [entry for entry in found if entry.grade == "exact"]
    shapes = {entry.id: signature(entry.tree) for entry in found if entry.tree}
    graded = []
    for entry in found:
        if entry.grade == "named":
            base = next(
                (
                    base
                    for base in exact
                    if base.cls == entry.cls
                    and base.count == entry.count
                    and (is_descendant(entry.id, base.id) or is_descendant(base.id, entry.id))
                    and (entry.tree is None or shapes[entry.id] == shapes[base.id])
                ),
                None,
            )
            if base is not None:
                entry.grade, entry.reason = "dims", f"its dimensions give the tree of {base.id}"
                entry.tree = entry.tree or base.tree
                if entry.synthetic:
                    entry.values = {**entry.values, **_published_facts(base)}
            elif entry.tree is not None:
                entry.reason = "one source"
        if entry.tree is not None:
            graded.append(entry)
    return graded


def as_by_default(entry: Entry) -> bool:
    """Whether a model type's own default config gives the tree that a copy of the config gives."""
    try:
        usual = read(entry.cls, config_of(entry.model_type), "exact")
    except Exception:  # noqa: BLE001 - whatever a class raises: it has no usable defaults
        return False
    return entry.tree is not None and signature(usual) == signature(entry.tree)


def _published_facts(base: Entry) -> dict[str, Any]:
    names = ("torch_dtype", "dtype")
    return {name: base.values[name] for name in names if name in base.values}


def is_descendant(name: str, base: str) -> bool:
    """Whether a model's name says that it is a release of another: all parts of the other's name,
    in order (``Qwen2.5-Coder-7B-Instruct`` of ``Qwen2.5-7B``), or the lineage is stated.
    """
    if LINEAGE.get(name) == base:
        return True
    parts = iter(_name_parts(name))
    return all(part in parts for part in _name_parts(base))


def _name_parts(name: str) -> list[str]:
    bare = name.rpartition("/")[2].lower()
    return [part for part in re.split(r"[-_]", bare) if part not in ("hf", "meta", "base")]


def signature(tree: ModuleTree) -> str:
    """What makes two trees the same: all but the facts that decide no shape."""
    return canonical(tree).to_json()


def canonical(tree: ModuleTree) -> ModuleTree:
    """The tree as it is stored: without what differs between models that share it."""
    facts = dict(tree.facts)
    kept = {k: v for k, v in facts.pop("config", {}).items() if k not in OWN_FACTS}
    if kept and tree.sized:
        facts["config"] = kept
    grade: Grade = "exact" if tree.sized else "named"
    return replace(tree, grade=grade, dtype="float32", facts=facts)


def own_facts(entry: Entry) -> dict[str, Any]:
    """The facts of a model that its tree does not hold, as far as its own config states them."""
    facts: dict[str, Any] = {}
    dtype = entry.values.get("dtype") or entry.values.get("torch_dtype")
    if isinstance(dtype, str):
        facts["dtype"] = dtype.removeprefix("torch.")
    if entry.quantization:
        facts["quantization"] = entry.quantization
    if not entry.synthetic and entry.tree is not None and entry.grade != "named":
        config = entry.tree.facts.get("config", {})
        stated = {path.rpartition(".")[2] for path, _ in flat(entry.values)}
        stated |= {"max_position_embeddings"} & {ALSO_CALLED.get(name) for name in stated}
        own = {name: config[name] for name in OWN_FACTS if name in config and name in stated}
        if own:
            facts["config"] = own
    return facts


def shape_of(tree: ModuleTree) -> tuple[Any, ...]:
    """What a template says of a tree, numbers aside."""
    names = set()
    for prefix, node in tree.named_modules():
        names.add((numberless(prefix), node.cls, node.kind))
        for key, shape in node.parameters.items():
            names.add((numberless(f"{prefix}.{key}"), len(shape)))
    tied = {frozenset(numberless(name) for name in group) for group in tree.tied}
    return frozenset(names), frozenset(tied), tree.facts.get("tie_word_embeddings")


def add_other_classes(entry: Entry, templates: dict[str, Architecture]) -> None:
    """The trees of the model's other classes, where they differ from their templates.

    A class for text models on a multimodal config has the sizes of a part of the whole, and the
    head for text generation those of the vocabulary, so these are kept with sizes; the size of a
    classifier's head is not known.
    """
    known = templates.get(entry.model_type)
    if known is None or not entry.values:
        return
    for cls, tasks in known.tasks.items():
        if cls == entry.cls or cls not in known.trees:
            continue
        try:
            tree = read(cls, config_of(entry.model_type, entry.values), "dims")
        except Exception:  # noqa: BLE001 - this class does not take this config
            continue
        text_part = "CausalLM" in tasks and "ForConditionalGeneration" in entry.cls
        if (text_part or "Seq2SeqLM" in tasks) and entry.grade != "named":
            entry.others[cls] = tree
        elif shape_of(tree) != shape_of(known.trees[cls]):
            entry.others[cls] = without_sizes(tree)


# Dimensions ---------------------------------------------------------------------------------------


def deciding_fields(entry: Entry, pool: dict[str, list[Any]]) -> set[str]:
    """The config fields of which another value gives other parameters.

    A value that gives no model says nothing, unless every other value does so.
    """
    values = config_of(entry.model_type, entry.values).to_dict()
    usual = _parameters(entry.cls, entry.model_type, values)
    fields = set()
    for path, value in flat(values):
        name = path.rpartition(".")[2]
        if NO_SHAPE.search(name) or isinstance(value, float | dict) or name == "model_type":
            continue
        others = [v for v in alternatives(name, value, pool) if v != value]
        results = [
            _parameters(entry.cls, entry.model_type, changed(values, path, other))
            for other in others
        ]
        built = [result for result in results if result is not None]
        if others and (not built or any(result != usual for result in built)):
            fields.add(path)
    return fields


# Fields that say how a model runs. Wider than it need be would be an error here, so it is short.
NO_SHAPE = re.compile(
    r"(_token|token_id|token_ids|token_index)$|dropout|initializer|_eps$|rope|label|dtype|^_"
    r"|^use_cache$|^output_|^return_|^architectures$|^transformers_version$|activation|hidden_act"
    r"|problem_type|is_encoder_decoder|chunk_size|pretraining_tp|max_window_layers|_coef$"
)


def _parameters(cls: str, model_type: str, values: dict[str, Any]) -> object:
    try:
        model = build(cls, config_of(model_type, values))
    except Exception:  # noqa: BLE001 - no model, which is an answer too
        return None
    first: dict[int, str] = {}
    return [
        (name, tuple(p.shape), first.setdefault(id(p), name))
        for name, p in model.named_parameters(remove_duplicate=False)
    ]


def dimensions_of(entry: Entry, fields: set[str]) -> dict[str, Any]:
    """The values that decide this tree, and the fields a config may leave out (``absent``) or
    leave null (``null``) since the class then comes to the same value.
    """
    values = config_of(entry.model_type, entry.values).to_dict()
    leaves = dict(flat(values))
    usual = _parameters(entry.cls, entry.model_type, values)
    known = {path: leaves[path] for path in sorted(fields) if path in leaves}
    absent, null = [], []
    for path, value in known.items():
        without = _removed(values, path)
        if _parameters(entry.cls, entry.model_type, without) == usual:
            absent.append(path)
        if value is not None:
            with_null = changed(values, path, None)
            if _parameters(entry.cls, entry.model_type, with_null) == usual:
                null.append(path)
    return {"values": known, "absent": absent, "null": null}


def _removed(values: dict[str, Any], path: str) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if rest:
        return {**values, name: _removed(values[name], rest)}
    return {key: value for key, value in values.items() if key != name}


# Writing ------------------------------------------------------------------------------------------


class Trees:
    """The distinct trees, each under a readable name: the class and its parameter count."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def name(self, tree: ModuleTree) -> str:
        """The name a tree is stored under, stored now if need be."""
        text = canonical(tree).to_json()
        if text not in self.names:
            stem = f"{tree.cls}-{tree.parameter_count() if tree.sized else 'names'}"
            name, number = stem, 1
            while name in self.texts:
                number += 1
                name = f"{stem}-{number}"
            self.texts[name] = text
            self.names[text] = name
        return self.names[text]

    def keep(self, name: str, text: str) -> None:
        """Count a stored tree among them."""
        self.texts[name], self.names[text] = text, name


def architecture_file(known: Architecture) -> dict[str, Any]:
    """A model type's templates as JSON: one table of modules, facts that all share said once."""
    trees = known.trees
    tables, roots = write_nodes(tree.root for tree in trees.values())
    facts = [dict(tree.facts) for tree in trees.values()]
    shared = {
        name: value for name, value in facts[0].items() if all(f.get(name) == value for f in facts)
    }
    classes = {}
    for (cls, tree), root, own in zip(trees.items(), roots, facts, strict=True):
        entry: dict[str, Any] = {"root": root}
        if known.tasks[cls]:
            entry["tasks"] = known.tasks[cls]
        if rest := {name: value for name, value in own.items() if name not in shared}:
            entry["facts"] = rest
        if tree.model_type != known.model_type:
            entry["model_type"] = tree.model_type
        if tree.shared:
            entry["shared"] = dict(tree.shared)
        if tree.tied:
            entry["tied"] = write_ties(tree.tied)
        classes[cls] = entry
    data: dict[str, Any] = {"transformers": transformers.__version__, "trees": classes}
    if known.switches:
        data["switches"] = {path: asdict(switch) for path, switch in known.switches.items()}
    if known.parts:
        data["parts"] = known.parts
    return {**data, "facts": shared, **tables}


def dump(path: Path, value: dict[str, Any]) -> None:
    """Write JSON, one line per top-level entry, for readable changes."""
    compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = ",\n".join(f"{json.dumps(k)}:{compact.encode(v)}" for k, v in value.items())
    path.write_text(f"{{\n{body}\n}}\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Write the files, print what could not be built, the counts and what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=Path, required=True, help="folder of configs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--keep-architectures", action="store_true", help="do not build the templates again"
    )
    parser.add_argument(
        "--added",
        action="store_true",
        help="build only models whose sources are not those of evidence.json, keep all else",
    )
    options = parser.parse_args()
    before = snapshot()
    failures: dict[str, str] = {}

    if options.keep_architectures or options.added:
        templates = stored_architectures()
    else:
        templates = {}
        for known in architectures(options.jobs, switches=True):
            templates[known.model_type] = known
            failures |= {f"class {cls}": why for cls, why in known.failures.items()}
            print(f"\r{len(templates)} model types", end="", file=sys.stderr)
        print(file=sys.stderr)

    found, left_out = entries(options.configs)
    if options.added:
        found = [entry for entry in found if not is_stored(entry)]
    graded = grade_all(build_entries(found, failures))
    for entry in graded:
        add_other_classes(entry, templates)
    write_models(graded, value_pool(), keep=options.added)
    if not (options.keep_architectures or options.added):
        write_architectures(templates)
        write_classes(templates)
    report(graded, left_out, failures, before)


def stored_architectures() -> dict[str, Architecture]:
    """The templates as they are stored."""
    from lora_lint.models.catalogue import architecture, model_types

    result = {}
    for model_type in model_types():
        known = architecture(model_type)
        assert known is not None
        trees = {cls: known.tree(cls) for cls in known.classes}
        tasks = {cls: list(known.tasks(cls)) for cls in known.classes}
        result[model_type] = Architecture(model_type, trees, tasks)
    return result


def is_stored(entry: Entry) -> bool:
    """Whether the files hold a model as its sources have it. A *named* one with a config of its
    own may have got a better grade since by a rule, so it counts as new.
    """
    stored = _stored("evidence.json").get(entry.id)
    if stored is None or (stored["grade"] == "named" and not entry.synthetic):
        return False
    return bool(stored["config"] == entry.source and stored["index"] == entry.evidence)


@lru_cache
def _stored(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(packed.read(name))
    return data


def write_models(graded: list[Entry], pool: dict[str, list[Any]], *, keep: bool = False) -> None:
    """index.json, trees/, dimensions.json and evidence.json; ``keep``: beside what they hold."""
    trees = Trees()
    index: dict[str, Any] = {}
    evidence: dict[str, Any] = {}
    dimensions: dict[str, dict[str, Any]] = defaultdict(dict)
    fields: dict[str, set[str]] = defaultdict(set)
    sized: dict[str, Entry] = {}
    if keep:
        index, evidence = dict(_stored("index.json")), dict(_stored("evidence.json"))
        dimensions.update(_stored("dimensions.json"))
        for path in (DATA / "trees").glob("*.json*"):
            name = path.name.partition(".json")[0]
            trees.keep(name, packed.read(f"trees/{name}.json").decode().rstrip("\n"))
        for cls, known in dimensions.items():
            fields[cls] = {field for values in known.values() for field in values["values"]}
    decided = set(fields)
    for entry in sorted(graded, key=lambda entry: entry.id.lower()):
        assert entry.tree is not None
        tree = entry.tree if entry.grade != "named" else without_sizes(entry.tree)
        name = trees.name(tree)
        index[entry.id] = {"tree": name, "grade": entry.grade, **own_facts(entry)}
        if entry.others:
            index[entry.id]["others"] = {
                cls: trees.name(other) for cls, other in sorted(entry.others.items())
            }
        evidence[entry.id] = {
            "parameters": entry.count,
            **({"counted": entry.counted} if entry.counted else {}),
            **({"published": entry.published} if entry.published else {}),
            "grade": entry.grade,
            "because": entry.reason,
            "config": entry.source,
            "index": entry.evidence,
        }
        # A classifier's head has as many rows as it has labels, which no two configs share.
        plain = not re.search("Classification|QuestionAnswering", entry.cls)
        known_tree = name in sized or name in dimensions[entry.cls]
        if plain and tree.sized and not known_tree and entry.values.get("model_type"):
            sized[name] = entry
            if (
                entry.cls not in decided
                and sum(other.cls == entry.cls for other in sized.values()) <= 2
            ):
                fields[entry.cls] |= deciding_fields(entry, pool)
    for name, entry in sized.items():
        dimensions[entry.cls][name] = dimensions_of(entry, fields[entry.cls])
    used = {t for data in index.values() for t in (data["tree"], *data.get("others", {}).values())}
    texts = {name: text for name, text in trees.texts.items() if name in used}
    dimensions = {
        cls: {name: values for name, values in known.items() if name in used}
        for cls, known in sorted(dimensions.items())
        if known
    }
    index, evidence = (
        {name: data[name] for name in sorted(data, key=str.lower)} for data in (index, evidence)
    )
    for old in (DATA / "trees").glob("*.json*"):
        old.unlink()
    for name, text in texts.items():
        path = DATA / "trees" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
    packing.pack_folder("trees")
    dump(DATA / "index.json", index)
    packing.write("dimensions.json", json.dumps(dimensions, separators=(",", ":")).encode())
    packing.write("evidence.json", json.dumps(evidence, separators=(",", ":")).encode())


def write_architectures(templates: dict[str, Architecture]) -> None:
    """architectures/ and classes.json."""
    for old in (DATA / "architectures").glob("*"):
        old.unlink()
    built = {name: known for name, known in templates.items() if known.trees}
    for name, known in built.items():
        compact = json.dumps(architecture_file(known), separators=(",", ":"))
        packing.write(f"architectures/{name}.json", compact.encode())
    packing.pack_folder("architectures")


def write_classes(templates: dict[str, Architecture]) -> None:
    """classes.json: a class that serves several model types stands under that of its config."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, known in templates.items():
        for cls in known.trees:
            own = getattr(transformers, cls).config_class.model_type
            if own == name or cls not in getattr(templates.get(own), "trees", ()):
                owners[name].append(cls)
    dump(DATA / "classes.json", dict(sorted(owners.items())))


# The report ---------------------------------------------------------------------------------------


def snapshot() -> dict[str, str]:
    """What every model and class is now, for the comparison."""
    state: dict[str, str] = {}
    if (DATA / "index.json").exists():
        for name, entry in json.loads((DATA / "index.json").read_text(encoding="utf-8")).items():
            state[name] = f"{entry['grade']}, {entry['tree']}"
    for path in (DATA / "architectures").glob("*.z"):
        data = json.loads(packed.read(f"architectures/{path.name.removesuffix('.z')}"))
        for cls in data["trees"]:
            state[f"class {cls}"] = json.dumps([data["modules"], data["classes"]])
    return state


def report(
    graded: list[Entry], left_out: dict[str, str], failures: dict[str, str], before: dict[str, str]
) -> None:
    """Print what was built, what was not and why, and what changed."""
    for name, why in sorted(failures.items()):
        print(f"not built: {name}: {why}")
    for why, count in Counter(left_out.values()).most_common():
        print(f"left out: {count} ({why})")
    after = snapshot()
    for name in sorted({*before, *after}):
        if name not in after:
            print(f"removed: {name}")
        elif name not in before:
            print(f"added: {name}")
        elif before[name] != after[name]:
            print(f"changed: {name}" + (f": {after[name]}" if "/" in name else ""))
    grades = Counter(entry.grade for entry in graded)
    sizes = {p.name: p.stat().st_size for p in DATA.glob("*.json*")}
    for part in ("trees", "architectures"):
        files = list((DATA / part).iterdir())
        sizes[f"{part}/ ({len(files)} files)"] = sum(p.stat().st_size for p in files)
    print("models:", ", ".join(f"{grades[g]} {g}" for g in ("exact", "dims", "named")))
    print("bytes:", ", ".join(f"{name} {size:,}" for name, size in sorted(sizes.items())))


if __name__ == "__main__":
    main()
