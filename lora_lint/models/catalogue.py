"""The shipped catalogue: module trees of known models and of every architecture of transformers.

All files are made by ``tools/catalogue.py``, whose docstring describes them and the grades. Each is
read when it is first needed; a tree is one small file.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from lora_lint.models import packed
from lora_lint.models.module_tree import ModuleTree
from lora_lint.models.storage import read_nodes, read_ties

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.models.module_tree import Grade

MODELS: Final = packed.MODELS


class Entry(NamedTuple):
    """A known model: the tree of its own class, that tree's grade, and what only it has.

    ``others`` maps further classes of the same config to their trees, where those differ from the
    class's template; ``dtype`` is that of the published weights, None where it is not known;
    ``quantization`` how they are held where they are quantized (``ConfigFile.quantization``).
    """

    id: str
    tree: str
    grade: Grade
    others: Mapping[str, str]
    dtype: str | None
    config: Mapping[str, Any]
    quantization: str | None = None

    def load(self, cls: str | None = None) -> ModuleTree:
        """The module tree of the model's own class, or of another in ``others``."""
        tree = load_tree(self.tree if cls is None else self.others[cls])
        facts = dict(tree.facts)
        if tree.sized and self.config:
            facts["config"] = {**facts.get("config", {}), **self.config}
        if self.dtype:
            facts["checkpoint_dtype"] = self.dtype
        if self.quantization:
            facts["checkpoint_quantization"] = self.quantization
        grade: Grade = "named" if not tree.sized else self.grade if cls is None else "dims"
        return replace(tree, grade=grade, dtype=self.dtype or tree.dtype, facts=facts)

    @property
    def cls(self) -> str:
        """The class of the model's own config."""
        return class_of(self.tree)


class Architecture(NamedTuple):
    """What transformers builds for one model type.

    ``parts`` names the sub-models that may be of any architecture, with the one the templates have;
    ``switches`` the config fields that change names (``tools/catalogue_templates.py``).
    """

    model_type: str
    data: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """The classes that have a template."""
        return list(self.data["trees"])

    def tasks(self, cls: str) -> list[str]:
        """The auto classes that lead to a class, without ``AutoModelFor``."""
        return list(self.data["trees"][cls].get("tasks", ()))

    def class_for(self, task: str) -> str | None:
        """The class that ``AutoModelFor<task>`` gives, ``AutoModel`` for an empty task."""
        return next((c for c, d in self.data["trees"].items() if task in d.get("tasks", ())), None)

    @property
    def switches(self) -> Mapping[str, Mapping[str, Any]]:
        """Config field -> ``default``, ``rule``, and the names it ``adds`` and ``drops``."""
        return cast("Mapping[str, Mapping[str, Any]]", self.data.get("switches", {}))

    @property
    def parts(self) -> Mapping[str, str]:
        """Path in the config -> the model type that the templates have there."""
        return cast("Mapping[str, str]", self.data.get("parts", {}))

    def tree(self, cls: str) -> ModuleTree:
        """The template of a class, grade ``named``: as the default config has it."""
        entry = self.data["trees"][cls]
        return ModuleTree(
            root=read_nodes(self.data)[entry["root"]],
            cls=cls,
            model_type=entry.get("model_type", self.model_type),
            transformers=self.data["transformers"],
            grade="named",
            facts={**self.data["facts"], **entry.get("facts", {})},
            shared=entry.get("shared", {}),
            tied=read_ties(entry.get("tied", [])),
        )


@lru_cache(maxsize=8)
def _read(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(packed.read(name))
    return data


def model(name: str) -> Entry | None:
    """A model by its id, upper and lower case alike as on the hub; None where it is not known."""
    index = _read("index.json")
    data = index.get(name)
    if data is None:
        name = _lower_case().get(name.lower(), "")
        data = index.get(name)
    return _entry(name, data) if data else None


@lru_cache(maxsize=1)
def _lower_case() -> dict[str, str]:
    return {name.lower(): name for name in _read("index.json")}


def models() -> Iterator[Entry]:
    """All known models."""
    for name, data in _read("index.json").items():
        yield _entry(name, data)


def _entry(name: str, data: dict[str, Any]) -> Entry:
    return Entry(
        name,
        data["tree"],
        data["grade"],
        data.get("others", {}),
        data.get("dtype"),
        data.get("config", {}),
        data.get("quantization"),
    )


def class_of(tree: str) -> str:
    """The class in a stored tree's name."""
    return tree.partition("-")[0]


def load_tree(name: str) -> ModuleTree:
    """A stored tree by its name."""
    return ModuleTree.from_json(packed.read(f"trees/{name}.json").decode("utf-8"))


def best_entry(tree: str) -> Entry:
    """The model with the best grade among those that have this tree."""
    order = ("exact", "dims", "named")
    return min((e for e in models() if e.tree == tree), key=lambda entry: order.index(entry.grade))


def dimensions(cls: str) -> dict[str, dict[str, Any]]:
    """Stored trees of a class -> the config values that decide its shapes."""
    found: dict[str, dict[str, Any]] = _read("dimensions.json").get(cls, {})
    return found


def model_types() -> list[str]:
    """The model types that have templates."""
    return sorted(path.name.partition(".json")[0] for path in (MODELS / "architectures").iterdir())


@lru_cache(maxsize=8)
def architecture(model_type: str) -> Architecture | None:
    """The templates of a model type, None where the catalogue has none."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*(\.[\w-]+)*", model_type, re.ASCII):
        return None  # may come from a stranger's config.json, and becomes a path
    try:
        return Architecture(model_type, _read(f"architectures/{model_type}.json"))
    except OSError:
        return None


def formulas(model_type: str, cls: str) -> dict[str, Any] | None:
    """The formulas of a class's sizes (``sizes.py``), None where the catalogue has none."""
    try:
        return _read(f"formulas/{model_type}.{cls}.json")
    except OSError:
        return None


def model_type_of(cls: str) -> str | None:
    """The model type that a class belongs to, None for a class that has no template."""
    members: dict[str, list[str]] = _read("classes.json")
    return next((name for name, names in members.items() if cls in names), None)
