"""From the name of a base model to its module tree, without torch and without the network."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from lora_lint.models import catalogue
from lora_lint.models.module_tree import ModuleTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lora_lint.models.catalogue import Architecture, Entry
    from lora_lint.models.config_file import ConfigFile

__all__ = [
    "OFFLINE",
    "Effort",
    "Resolution",
    "Unresolved",
    "class_for",
    "hint",
    "renamed_since_4",
    "resolve",
]


class Resolution(NamedTuple):
    """A base model's module tree.

    ``id`` is the name as asked, ``known_as`` the catalogue's id where that is another; ``source``
    says to people where the tree comes from; ``remote_code`` whether the repository brings code of
    its own, None where that is not known; ``config`` is the config.json that the tree is of.
    """

    tree: ModuleTree
    id: str
    source: str
    remote_code: bool | None = None
    known_as: str | None = None
    config: ConfigFile | None = None


class Unresolved(NamedTuple):
    """Why there is no module tree, in plain words."""

    reason: str
    id: str = ""
    remote_code: bool | None = None


class Effort(NamedTuple):
    """What may be done beyond reading what is on this disk.

    ``online``: config.json is fetched from the hub where nothing else gives sizes. ``live``: models
    are built with transformers, those whose sizes are ``missing`` or ``always``, in at most
    ``seconds``.
    """

    online: bool = False
    live: Literal["no", "missing", "always"] = "no"
    seconds: float = 120


OFFLINE: Final = Effort()


class _Wanted(NamedTuple):
    """What the tree is for: the class that is built, and the transformers release."""

    task: str | None
    cls: str | None
    transformers: str | None


# The auto classes that PEFT's task types stand for (peft 0.21.2 mapping), without AutoModelFor.
_TASKS: Final = {
    "CAUSAL_LM": "CausalLM",
    "SEQ_CLS": "SequenceClassification",
    "TOKEN_CLS": "TokenClassification",
    "QUESTION_ANS": "QuestionAnswering",
    "SEQ_2_SEQ_LM": "Seq2SeqLM",
    "FEATURE_EXTRACTION": "",
}
# Auto classes whose classes generate text. Frameworks load a multimodal model by the class its
# config names and still call the task CAUSAL_LM.
_GENERATIVE: Final = frozenset(
    ("CausalLM", "ImageTextToText", "MultimodalLM", "Seq2SeqLM", "SpeechSeq2Seq", "TextToWaveform")
)
# What a config without ``architectures`` most likely is.
_USUAL: Final = ("ImageTextToText", "Seq2SeqLM", "MaskedLM", "CausalLM", "SpeechSeq2Seq", "")
# How a class's name ends that is surely what the task wants: no file is read to find out.
_ENDINGS: Final = {
    "CAUSAL_LM": ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"),
    "SEQ_CLS": ("ForSequenceClassification",),
    "TOKEN_CLS": ("ForTokenClassification",),
    "QUESTION_ANS": ("ForQuestionAnswering",),
    "SEQ_2_SEQ_LM": ("ForConditionalGeneration",),
}
# Loaders of other libraries that build the class the config names.
_LOADERS: Final = re.compile(
    r"Fast(Language|Vision)?Model|AutoPeftModel\w*|AutoLigerKernelForCausalLM|Auto\w+WithValueHead"
)
_OLD_NAMES: Final = {"AutoModelForVision2Seq": "ImageTextToText", "AutoModelWithLMHead": "CausalLM"}
_MAX_ADAPTERS: Final = 4


def resolve(
    name: str,
    *,
    folder: Path | None = None,
    transformers: str | None = None,
    task: str | None = None,
    cls: str | None = None,
    given: str | None = None,
    aliases: Mapping[str, str] | None = None,
    revision: str | None = None,
    effort: Effort = OFFLINE,
) -> Resolution | Unresolved:
    """The module tree of a base model, or why there is none.

    Looked for in this order: ``given``, the value of ``--model`` (a directory, a config.json, a
    saved module tree, or a name); ``name`` as a path relative to ``folder``; the Hugging Face cache
    on this disk; the user's ``aliases`` (patterns of private names -> known names); the catalogue.
    A directory that holds an adapter leads to the adapter's base model.

    The class is ``cls`` (a class or an auto class of transformers), else the one that ``task``
    (PEFT's task type) wants, else the one the model's config names. ``transformers`` is the user's
    release: where names were others then, there is no tree. ``effort`` says what may be done beyond
    reading.
    """
    wanted = _Wanted(task, cls, transformers)
    if given is None:
        return _Search(folder, aliases or {}, wanted, effort).by_name(name, revision)
    search = _Search(None, aliases or {}, wanted, effort)
    path = search.existing(given)
    found = search.by_path(path, given) if path else search.by_name(given, None)
    if isinstance(found, Resolution):
        return found._replace(id=name or found.id, source=f"{found.source}, given with --model")
    return found._replace(reason=f"--model: {found.reason}")


def hint(architecture_name: str) -> ModuleTree | None:
    """The template of a class of transformers (``LlamaForCausalLM``), None where it has none."""
    model_type = catalogue.model_type_of(architecture_name)
    known = catalogue.architecture(model_type) if model_type else None
    return _template(known, architecture_name) if known else None


def class_for(
    model_type: str,
    tasks: Mapping[str, Sequence[str]],
    architecture: str | None,
    *,
    cls: str | None,
    task: str | None,
) -> str | Unresolved:
    """The class that is built of a model type, by the rules of ``resolve``.

    ``tasks`` maps the type's classes to the auto classes that lead to them, without
    ``AutoModelFor``; ``architecture`` is the class that the model's config names.
    """
    known = catalogue.Architecture(
        model_type, {"trees": {name: {"tasks": list(auto)} for name, auto in tasks.items()}}
    )
    return _class_for(known, architecture, _Wanted(task, cls, None))


def renamed_since_4(model_type: str | None, cls: str | None = None) -> bool:
    """Whether names changed between transformers 4 and 5; see ``renamed.renamed_since_4``."""
    from lora_lint.models import renamed

    return renamed.renamed_since_4(model_type, cls)


class _Search(NamedTuple):
    """One search; ``adapters`` counts the adapters it came through."""

    folder: Path | None
    aliases: Mapping[str, str]
    wanted: _Wanted
    effort: Effort = OFFLINE
    adapters: int = 0

    def by_name(self, name: str, revision: str | None) -> Resolution | Unresolved:
        """The tree of a model by its path or name."""
        from lora_lint.models.hub_cache import is_repository, snapshot

        path = self.existing(name)
        if path is not None and (_holds_model(path) or not is_repository(name)):
            return self.by_path(path, name)
        cached = snapshot(name, revision)
        if cached is not None and _holds_model(cached):
            return self.by_path(cached, name, "in the Hugging Face cache")
        for pattern, target in self.aliases.items():
            if fnmatchcase(name, pattern) and target != name:
                found = self._replace(aliases={}).by_name(target, None)
                if isinstance(found, Resolution):
                    return found._replace(id=name, source=f"{found.source}, as the settings say")
                return found._replace(id=name)
        if not is_repository(name):
            what = "is a template" if re.search(r"[${}<>]", name) else "is not on this disk"
            return Unresolved(f"{name!r:.200} {what}; pass --model", name)
        if self.effort.live == "always":
            return self._of_the_hub(Unresolved(f"{name} is not on this disk", name), name, revision)
        return self._of_the_hub(self.in_catalogue(name), name, revision)

    def _of_the_hub(
        self, found: Resolution | Unresolved, name: str, revision: str | None
    ) -> Resolution | Unresolved:
        """What was found for an id, or where it has no sizes what the hub knows."""
        if found.tree.sized if isinstance(found, Resolution) else found.remote_code:
            return found
        from lora_lint.models import further

        return further.of_the_hub(self, found, name, revision)

    def existing(self, name: str) -> Path | None:
        """The file or directory that a name means, None where there is none."""
        try:
            path = Path(name).expanduser()
            path = path if path.is_absolute() or self.folder is None else self.folder / path
            return path if name and path.exists() else None
        except (OSError, ValueError, RuntimeError):  # too long, null characters, no such user
            return None

    def by_path(self, path: Path, name: str, where: str | None = None) -> Resolution | Unresolved:
        """The tree of a model on this disk: a directory, a config.json, a saved module tree."""
        from lora_lint.models.config_file import ConfigFile, UnreadableError, read_object

        try:
            if path.is_dir():
                file = next((f for n in _FILES if (f := path / n).is_file()), None)
                if file is None:
                    return Unresolved(f"{name} has no config.json; pass --model", name)
                path = file
            values = read_object(path)
        except (OSError, UnreadableError) as exc:
            return Unresolved(str(exc), name)
        where = where or f"in {name}"
        if "lora_lint_module_tree" in values:
            return self._saved_tree(path, name)
        if "peft_type" in values and "model_type" not in values:
            return self._adapter(values, path, name)
        if "_class_name" in values:
            from lora_lint.models.diffusers import from_folder

            return from_folder(self, path, values, name, where)
        return self._of_config(ConfigFile(values), name, where)

    def _of_config(self, config: ConfigFile, name: str, where: str) -> Resolution | Unresolved:
        """The tree of a config.json, by the catalogue or where that has no sizes by a build."""
        if self.effort.live != "always":
            found = self.by_config(config, name, where)
            if isinstance(found, Resolution) and found.tree.sized:
                return found
        from lora_lint.models import further

        if self.effort.live == "always":
            return further.built(self, config, name, where)
        return further.of_a_build(self, found, config, name, where)

    def _saved_tree(self, path: Path, name: str) -> Resolution | Unresolved:
        from lora_lint.models.config_file import UnreadableError, read_text

        try:
            tree = ModuleTree.from_json(read_text(path))
        except (ValueError, UnreadableError) as exc:
            return Unresolved(f"{name}: {exc}", name)
        tree = replace(tree, grade="given") if tree.sized else tree
        return Resolution(tree, name, f"module tree file {name}")

    def _adapter(self, values: dict[str, Any], path: Path, name: str) -> Resolution | Unresolved:
        base = values.get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            return Unresolved(f"the adapter in {name} does not name its base model", name)
        if self.adapters >= _MAX_ADAPTERS:
            return Unresolved(f"{name} is an adapter of an adapter of an adapter ...", name)
        # PEFT takes a path as the working folder has it; an adapter that was moved lies beside it.
        search = self._replace(adapters=self.adapters + 1)
        if (near := self._replace(folder=path.parent)).existing(base) is not None:
            search = near._replace(adapters=self.adapters + 1)
        revision = values.get("revision")  # the base model's (peft 0.21.2 config.py)
        found = search.by_name(base, revision if isinstance(revision, str) else None)
        if isinstance(found, Resolution):
            return found._replace(id=name, source=f"{found.source}, base of the adapter in {name}")
        return found._replace(id=name)

    # A config.json
    # ------------------------------------------------------------------------------------

    def by_config(self, config: ConfigFile, name: str, where: str) -> Resolution | Unresolved:
        """The tree that transformers builds from a config.json."""
        model_type = config.model_type
        if model_type is None:
            return Unresolved(f"config.json {where} names no model_type", name)
        known = catalogue.architecture(model_type)
        if known is None:
            own = ", it brings its own code" if config.remote_code else ""
            reason = f"config.json {where}: the catalogue has no model type {model_type!r:.80}{own}"
            return Unresolved(reason, name, remote_code=config.remote_code)
        cls = _class_for(known, config.architecture, self.wanted)
        if isinstance(cls, Unresolved):
            return cls._replace(id=name)
        for tree_name, values in catalogue.dimensions(cls).items():
            if config.agrees(values):
                tree = _with_own_facts(catalogue.best_entry(tree_name).load(), config)
                source = f"config.json {where}"
                return self._settle(tree, name, source, config.remote_code, tree_name)
        for part, usual in known.parts.items():
            if config.get(f"{part}.model_type") not in (usual, *_absent()):
                reason = f"config.json {where}: {part} is of another model type than {usual}"
                return Unresolved(reason, name, remote_code=config.remote_code)
        from lora_lint.models.sizes import sized

        found = sized(known, cls, config)
        if isinstance(found, ModuleTree):
            tree = _with_own_facts(found, config)
            return self._settle(tree, name, f"config.json {where}", config.remote_code)
        tree = _template(known, cls, config.deviating(known.switches), open_parts=False)
        source = f"architecture of config.json {where}, sizes unknown: {found}"
        settled = self._settle(tree, name, source, config.remote_code)
        return settled._replace(config=config) if isinstance(settled, Resolution) else settled

    # The catalogue
    # ------------------------------------------------------------------------------------

    def in_catalogue(self, asked: str) -> Resolution | Unresolved:
        """The tree that the catalogue has under this name or another for the same modules."""
        from lora_lint.models.names import find

        found = find(asked)
        if found is None:
            from lora_lint.models.diffusers import from_catalogue

            if (of_pipeline := from_catalogue(self, asked)) is not None:
                return of_pipeline
            reason = f"{asked} is not in the catalogue and not on this disk; pass --model"
            return Unresolved(reason, asked)
        if found.remote_code is not None:
            reason = f"{asked} brings its own code ({found.remote_code}), which is not run here"
            return Unresolved(f"{reason}; pass --model", asked, remote_code=True)
        stored = None
        if found.entry is not None:
            tree, stored = self._tree_of(found.entry)
            if found.tuned and isinstance(tree, ModuleTree) and tree.sized:
                tree = replace(tree, grade="dims")
        else:
            model_type = found.model_type or catalogue.model_type_of(found.cls or "")
            known = catalogue.architecture(model_type) if model_type else None
            if known is None:
                return Unresolved(f"{asked} has no template in the catalogue; pass --model", asked)
            cls = _class_for(known, found.cls, self.wanted)
            tree = cls if isinstance(cls, Unresolved) else _template(known, cls)
        if isinstance(tree, Unresolved):
            return tree._replace(id=asked)
        tree = _held_as_named(tree, asked)
        source = "catalogue" if found.id == asked else f"catalogue, as {found.id}"
        if not tree.sized:
            source += ", sizes unknown"
        settled = self._settle(tree, asked, source, None, stored)
        if isinstance(settled, Resolution) and found.id != asked:
            return settled._replace(known_as=found.id)
        return settled

    def _tree_of(self, entry: Entry) -> tuple[ModuleTree | Unresolved, str | None]:
        """The tree of a known model for the class that is wanted, and the name it is stored by."""
        own = entry.cls
        plain = self.wanted.cls is None and self.wanted.task is None
        if plain or self.wanted.cls == own or _ends_so(own, self.wanted):
            return entry.load(), entry.tree
        tree = entry.load()
        known = catalogue.architecture(tree.model_type or "")
        if known is None:
            return tree, entry.tree
        cls = _class_for(known, own, self.wanted)
        if isinstance(cls, Unresolved):
            return cls, None
        if cls == own:
            return tree, entry.tree
        if cls in entry.others:
            return entry.load(cls), entry.others[cls]
        # Its own config makes of this class what the template has, else it would be in ``others``.
        return _template(known, cls, (), open_parts=False), None

    def _settle(
        self,
        tree: ModuleTree,
        name: str,
        source: str,
        remote_code: bool | None,
        stored: str | None = None,
    ) -> Resolution | Unresolved:
        """The resolution with the tree as the user's transformers release builds it, as far as that
        is known. ``stored``: the name under which the catalogue has the tree.
        """
        if self.wanted.transformers is not None:
            from lora_lint.models import lines

            found = lines.at(tree, stored, self.wanted.transformers)
            if isinstance(found, str):
                return Unresolved(f"{name}: {found}", name, remote_code)
            if tree.sized and not found.sized:
                source += f", sizes with transformers {self.wanted.transformers} unknown"
            tree = found
        return Resolution(tree, name, source, remote_code)


def _held_as_named(tree: ModuleTree, name: str) -> ModuleTree:
    """A known tree with the quantization of the weights that an upload's name speaks of."""
    from lora_lint.models.names import quantization

    said, facts = quantization(name), dict(tree.facts)
    held = facts.pop("checkpoint_quantization", None)
    if said is None or (said and held):
        return tree
    return replace(tree, facts={**facts, "checkpoint_quantization": said} if said else facts)


_FILES: Final = ("config.json", "adapter_config.json", "model_index.json")


def _holds_model(path: Path) -> bool:
    try:
        return path.is_file() or any((path / name).is_file() for name in _FILES)
    except OSError:
        return False


def _absent() -> tuple[object, ...]:
    from lora_lint.models.config_file import MISSING

    return (MISSING, None)


def _ends_so(cls: str, wanted: _Wanted) -> bool:
    if wanted.cls is None:
        return cls.endswith(_ENDINGS.get(wanted.task or "", ("?",)))
    return wanted.cls == "AutoModelForCausalLM" and cls.endswith(("ForCausalLM", "LMHeadModel"))


def _class_for(known: Architecture, architecture: str | None, wanted: _Wanted) -> str | Unresolved:
    """The class that is built of a model type: the wanted one, else the config's own."""
    model_type = known.model_type
    own = architecture if architecture in known.classes else None
    if wanted.cls is not None and not _LOADERS.fullmatch(wanted.cls):
        if wanted.cls in known.classes:
            return wanted.cls
        if not wanted.cls.startswith("AutoModel"):
            return Unresolved(f"the catalogue has no {wanted.cls} for {model_type} models")
        task = _OLD_NAMES.get(wanted.cls)
        if task is None:
            task = wanted.cls.removeprefix("AutoModel").removeprefix("For")
        found = known.class_for(task)
        if found is None:
            return Unresolved(f"{wanted.cls} has no class for {model_type} models")
        return found
    task = _TASKS.get(wanted.task) if wanted.task is not None else None
    if task is not None:
        suited = _GENERATIVE if task in _GENERATIVE else {task}
        if own is not None and suited & set(known.tasks(own)):
            return own
        also = ("SpeechSeq2Seq",) if task == "Seq2SeqLM" else ()
        found = next((cls for name in (task, *also) if (cls := known.class_for(name))), None)
        if found is None:
            return Unresolved(f"transformers has no {model_type} class for task {wanted.task}")
        return found
    if own is not None:
        return own
    if architecture is not None:
        return Unresolved(f"the catalogue has no {architecture} for {model_type} models")
    return next((found for task in _USUAL if (found := known.class_for(task))), known.classes[0])


def _template(
    known: Architecture,
    cls: str,
    switched: Iterable[Mapping[str, Any]] | None = None,
    *,
    open_parts: bool = True,
) -> ModuleTree:
    """The template of a class, and which of its names depend on a config that is not known.

    ``switched``: the switches that the config is known to set otherwise; None where there is no
    config, so that any may be set. ``open_parts``: whether parts may be of another architecture.
    """
    tree = known.tree(cls)
    also: set[str] = set()
    maybe: set[str] = set()
    for switch in known.switches.values() if switched is None else switched:
        also.update(switch["adds"])
        maybe.update(switch["drops"])
    facts: dict[str, Any] = {**tree.facts, "template": True}
    if also:
        facts["also"] = sorted(also)
    if maybe:
        facts["maybe"] = sorted(maybe)
    if open_parts and known.parts:
        facts["open"] = True
    return replace(tree, facts=facts)


def _with_own_facts(tree: ModuleTree, config: ConfigFile) -> ModuleTree:
    """A known tree with the facts that decide no shape as this config has them."""
    facts = dict(tree.facts)
    sizes = dict(facts.get("config", {}))
    for name in ("max_position_embeddings", "sliding_window", "num_experts_per_tok"):
        value = config.get(f"text_config.{name}")
        if isinstance(value, int) and not isinstance(value, bool):
            sizes[name] = value
        else:
            sizes.pop(name, None)
    facts["config"] = sizes
    facts.pop("checkpoint_dtype", None)
    if config.dtype:
        facts["checkpoint_dtype"] = config.dtype
    facts.pop("checkpoint_quantization", None)
    if config.quantization:
        facts["checkpoint_quantization"] = config.quantization
    return replace(tree, facts=facts, dtype=config.dtype or "float32")
