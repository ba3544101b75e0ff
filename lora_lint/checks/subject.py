"""What a check may look at; each part is computed when it is first asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.checks.lines import Line, lines
from lora_lint.dialects import LoraKwargs, Undecided, dialect
from lora_lint.dialects.base import UNCERTAIN
from lora_lint.environment import Environment
from lora_lint.facts import known_fields
from lora_lint.injection import Injection, inject
from lora_lint.injection.matching import entries_of
from lora_lint.injection.rank import with_rank
from lora_lint.injection.semantics import semantics
from lora_lint.models.resolve import OFFLINE, Effort, Resolution, Unresolved, resolve
from lora_lint.recipe import NOTHING, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.checks.setup import Setup
    from lora_lint.dialects import Dialect
    from lora_lint.documents.document import Document
    from lora_lint.injection.matching import EntrySet
    from lora_lint.injection.semantics import Semantics
    from lora_lint.memory import Evaluation, Gpu, MemoryEstimate, Sharding
    from lora_lint.models import ModuleTree
    from lora_lint.neighbours import Missing, Section, Tokenizer
    from lora_lint.recipe import Recipe
    from lora_lint.revisions import Revision


class Context(NamedTuple):
    """What holds for every file of a run.

    ``model`` is the user's ``--model``, ``aliases`` maps private model names to known ones,
    ``rules`` holds the settings of single rules by code. ``resolution`` is the base model itself
    where the caller has it. ``since`` is the git revision to compare with, ``effort`` what may be
    done to find a model's modules. ``trace``: memory comes from a trace of the real step.
    ``around``: the files around a config may be read for versions.
    """

    environment: Environment = Environment()
    model: str | None = None
    aliases: Mapping[str, str] = NOTHING
    rules: Mapping[str, Mapping[str, Any]] = NOTHING
    resolution: Resolution | None = None
    since: Revision | None = None
    effort: Effort = OFFLINE
    trace: bool = False
    around: bool = False


# Frameworks whose fused loss is Liger's forward alone, which holds all logits where the model does
# not train (liger_kernel 0.8.5 transformers/model/llama.py ``lce_forward``: ``skip_logits``).
_LIGER: Final = ("llama_factory",)
# Architectures of transformers whose repositories on the hub bring code of their own as well
# (``auto_map`` in their config.json), which runs where trust_remote_code allows it.
_ALSO_REMOTE: Final = frozenset(
    ("deepseek_v3", "falcon", "kimi_k25", "minicpm3", "minimax_m2", "nemotron_h", "phi3", "phimoe")
)
_OWN_CODE: Final = (
    "transformers' own code for {}, in place of which trust_remote_code lets the repository's run"
)


class DocumentSubject:
    """A file, for rules that need no recipe."""

    def __init__(self, document: Document, recipes: list[Recipe], context: Context) -> None:
        self.document = document
        self.recipes = recipes
        self.context = context


class RecipeSubject:
    """One LoRA run, with all that follows from it."""

    def __init__(
        self, document: Document, recipe: Recipe, context: Context, line: Line | None = None
    ) -> None:
        self.document = document
        self.recipe = recipe
        self.context = context
        self.line = line or lines(context.environment)[0]

    def at(self, line: Line) -> RecipeSubject:
        """The same recipe with other versions."""
        return RecipeSubject(self.document, self.recipe, self.context, line)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The versions that findings are decided for, the newest first."""
        return lines(self.context.environment)

    @cached_property
    def siblings(self) -> tuple[RecipeSubject, ...]:
        """The recipe on the other lines of versions that it may be trained with."""
        return tuple(self.at(line) for line in self.lines if line != self.line)

    def value(self, name: str) -> Any:
        """The value of a field; None where it is unset, ``UNKNOWN`` where it is not static."""
        return self.recipe.value(name)

    def states(self, name: str) -> bool:
        """Whether the file itself states a field, in a way that is static."""
        return self.recipe.written(name) and self.recipe[name].path is not None

    def setting(self, code: str, name: str, default: Any) -> Any:
        """The user's setting of a rule, else the rule's own."""
        return self.context.rules.get(code, {}).get(name, default)

    @cached_property
    def dialect(self) -> Dialect:
        """The framework whose spelling the recipe is in."""
        return dialect(self.recipe.dialect)

    def unsure(self, name: str | None, *, model: bool) -> Field | None:
        """A field that a finding rests on and that the run may have otherwise, if there is one.

        ``model``: the finding rests on the base model's modules, hence on all that selects them.
        """
        names = [name] if name else []
        if model and self.context.model is None:
            names += ["base_model"]
        if model:
            names += self.dialect.slots
        fields = (self.recipe[name] for name in names)
        found = next((field for field in fields if not field.sure), None)
        if found is None and model and self.tree is not None and self._may_be_remote(self.tree):
            found = Field(None, "unknown", None, _OWN_CODE.format(self.tree.model_type))
        return found

    def _may_be_remote(self, tree: ModuleTree) -> bool:
        """Whether the repository's own code may define the model's modules."""
        return self.value("trust_remote_code") is True and tree.model_type in _ALSO_REMOTE

    def not_static(self) -> str | None:
        """The LoRA settings that can't be known without running the file, with the reasons."""
        reasons: dict[str, list[str]] = {}
        for name in dict.fromkeys(("base_model", *self.dialect.slots)):
            field = self.recipe[name]
            if field.origin == "unknown":
                reasons.setdefault(field.detail or "", []).append(name)
        if not reasons:
            return None
        parts = (
            f"{_listed(names)}{f' ({reason})' if reason else ''}"
            for reason, names in reasons.items()
        )
        return f"not static: {'; '.join(parts)}"

    # Before ------------------------------------------------------------------------------------

    @property
    def earlier(self) -> RecipeSubject | None:
        """The recipe at the revision of --since; None where it is not there, or there is none."""
        return self._before[0]

    @cached_property
    def _before(self) -> tuple[RecipeSubject | None, str]:
        """The recipe at the revision of --since, or why it can't be had."""
        if self.context.since is None:
            return None, ""
        from lora_lint.revisions import NotComparable

        try:
            earlier = self.context.since.earlier(self.document, self.recipe)
        except NotComparable as exc:
            return None, str(exc)
        return (RecipeSubject(*earlier, self.context), "") if earlier is not None else (None, "")

    # Versions ----------------------------------------------------------------------------------

    @property
    def peft(self) -> str:
        """The PEFT release that findings are decided for."""
        return self.line.peft

    @property
    def behaviour(self) -> Semantics:
        """What that PEFT version does where releases differ."""
        return semantics(self.peft)

    def targets(self, value: Any) -> EntrySet:
        """Entries of target_modules, as that PEFT version compares them with names."""
        return entries_of(value, self.behaviour)

    @property
    def transformers(self) -> str:
        """The transformers release that findings are decided for."""
        return self.line.transformers

    @property
    def names_changed(self) -> bool:
        """Whether the model's module names differ between transformers 4 and 5."""
        from lora_lint.models.resolve import renamed_since_4

        return self.tree is not None and renamed_since_4(self.tree.model_type)

    @property
    def counts_known(self) -> bool:
        """Whether the numbers of modules are the model's own, not those of a default config."""
        return self.tree is not None and not self.tree.facts.get("template")

    # The model -----------------------------------------------------------------------------------

    @cached_property
    def resolution(self) -> Resolution | Unresolved:
        """Where the base model's module tree comes from, or why there is none."""
        if self.context.resolution is not None:
            return self.context.resolution
        name = self.value("base_model")
        if self.context.model is None and not isinstance(name, str):
            reason = "the config does not name its base model; pass --model"
            if self.recipe["base_model"].origin == "unknown":
                reason = "the base model is not static; pass --model"
            return Unresolved(reason)
        task = self.value("task_type")
        return resolve(
            name if isinstance(name, str) else "",
            folder=Path(self.document.path).parent,
            transformers=self.transformers,
            task=task if isinstance(task, str) else None,
            cls=self.recipe.model_class,
            given=self.context.model,
            aliases=self.context.aliases,
            effort=self.context.effort,
        )

    @cached_property
    def tree(self) -> ModuleTree | None:
        """The base model's module tree, None where it is not known."""
        if not isinstance(self.resolution, Resolution):
            return None
        return self.dialect.model(self.resolution.tree)

    @property
    def run_is_certain(self) -> bool:
        """Whether the settings beside LoRA's own mean what transformers means by these names: not
        in a home-made file, whose program may do anything with them.
        """
        return self.dialect.certain and self.dialect.name != "peft"

    # The files around it --------------------------------------------------------------------------

    @cached_property
    def deepspeed(self) -> Section | Missing | None:
        """The DeepSpeed settings that the run names; None where there are none to follow."""
        from lora_lint.neighbours import deepspeed

        return deepspeed(self.document, self.recipe)

    @cached_property
    def fsdp_settings(self) -> Section | Missing | None:
        """The FSDP settings that the run names; None where there are none to follow."""
        from lora_lint.neighbours import fsdp_settings

        return fsdp_settings(self.document, self.recipe)

    @cached_property
    def accelerate(self) -> Section | Missing | None:
        """The configuration that ``accelerate launch`` is given; None where there is none."""
        from lora_lint.neighbours import accelerate

        return accelerate(self.document, self.recipe)

    @cached_property
    def model_config(self) -> Section | None:
        """The base model's own config.json, None where it is not on this disk."""
        from lora_lint.neighbours import model_config

        return model_config(self.document.path, self.recipe)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The base model's tokenizer, None where it is not on this disk."""
        from lora_lint.neighbours import tokenizer

        return tokenizer(self.document.path, self.recipe)

    @property
    def model_name(self) -> str:
        """The base model's name for people."""
        if isinstance(self.resolution, Resolution):
            return self.resolution.id
        name = self.value("base_model")
        return name if isinstance(name, str) else "the model"

    # What the framework passes to PEFT, and what PEFT does ----------------------------------------

    @cached_property
    def lowered(self) -> LoraKwargs | Undecided:
        """What LoraConfig receives."""
        return self.dialect.lower(self.recipe, self.tree)

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """What LoraConfig receives; empty where that is undecided."""
        return self.lowered.values if isinstance(self.lowered, LoraKwargs) else {}

    @cached_property
    def injection(self) -> Injection:
        """What PEFT does with it; ``undecided`` says why that is not known."""
        return self._inject(self.lowered)

    def inject(self, changes: Mapping[str, Any]) -> Injection:
        """What PEFT would do if some fields were written otherwise."""
        return self._inject(self._lower(changes))

    def _lower(self, changes: Mapping[str, Any]) -> LoraKwargs | Undecided:
        fields = {name: Field(value, "written") for name, value in changes.items()}
        changed = replace(self.recipe, fields={**self.recipe.fields, **fields})
        return self.dialect.lower(changed, self.tree)

    def _inject(self, lowered: LoraKwargs | Undecided, tree: ModuleTree | None = None) -> Injection:
        if isinstance(self.resolution, Unresolved):
            return Injection(undecided=self.resolution.reason)
        if isinstance(lowered, Undecided):
            return Injection(undecided=lowered.reason)
        tree = tree or self.dialect.model(self.resolution.tree)
        if "clippable-linear" in lowered.patches and _has_class(tree, "Gemma4ClippableLinear"):
            title = self.dialect.title
            return Injection(undecided=f"{title} changes PEFT itself for this model")

        known = known_fields(self.peft)
        passed = {
            name: value
            for name, value in lowered.values.items()
            # A framework of that PEFT's age does not pass on what the config does not write.
            if name in known or self.dialect.name == "peft" or self.recipe.written(name)
        }
        if "no-wrapper" in lowered.patches:
            passed.pop("task_type", None)

        def run(values: Mapping[str, Any]) -> Injection:
            return inject(
                tree,
                values,
                peft=self.peft,
                transformers=self.transformers,
                source=lowered.source,
            )

        result = run(passed)
        patched = "dropout-beside-experts" in lowered.patches
        if patched and result.error and "lora_dropout" in result.error.message:
            result = run({**passed, "lora_dropout": 0.0})
        if self.dialect.applied_by != "PEFT" and result.error is not None:
            return Injection(undecided=f"{self.dialect.applied_by} applies LoRA itself")
        return result

    # Memory --------------------------------------------------------------------------------------

    @cached_property
    def gpu(self) -> Gpu | None:
        """The user's GPU."""
        from lora_lint.memory import parse_gpu

        name = self.context.environment.gpu
        return parse_gpu(name) if name else None

    @cached_property
    def memory(self) -> MemoryEstimate | None:
        """What the run needs on the GPU; None where the model or the keywords are not known."""
        estimate = self.estimate()
        if estimate is None or not self.context.trace:
            return estimate
        from lora_lint.checks.traced import traced

        return traced(self, estimate)

    @cached_property
    def weighed(self) -> tuple[ModuleTree | None, Injection]:
        """The model whose memory is estimated, and what PEFT does with it: that of the run, of a
        classifier with two labels where nobody says how many.
        """
        if isinstance(self.resolution, Unresolved) or self.resolution.tree.sized:
            return self.tree, self.injection
        from lora_lint.models.labels import with_labels

        tree = with_labels(self.resolution, self.transformers)
        if tree is None:
            return self.tree, self.injection
        return tree, self._inject(self.lowered, tree)

    @cached_property
    def setup(self) -> Setup:
        """How the run trains."""
        from lora_lint.checks.setup import Setup

        return Setup(self)

    @property
    def not_estimated(self) -> str | None:
        """Why the memory of such a run is not estimated, None if it is."""
        return self.setup.not_estimated

    @cached_property
    def shared(self) -> Sharding | str | None:
        """How several processes share the run, None where there is one, or why it is not known."""
        from lora_lint.checks.sharing import sharing

        return sharing(self, self.gpu)

    def _shared_on(self, gpu: Gpu | None) -> Sharding | str | None:
        """The same on other GPUs, of which there may be more or fewer."""
        from lora_lint.checks.sharing import sharing

        counts = [card.count if card is not None else 1 for card in (gpu, self.gpu)]
        return self.shared if counts[0] == counts[1] else sharing(self, gpu)

    def estimate(self, **changes: Any) -> MemoryEstimate | None:
        """The memory estimate with some settings changed: fields of ``setup.MEMORY_FIELDS``, of
        ``PROFILE_FIELDS``, or ``r``; on the user's GPU, or on ``gpu``.
        """
        if self.tree is None or not isinstance(self.lowered, LoraKwargs) or not self.recipe.adapter:
            return None
        if self.not_estimated is not None:
            return None
        from lora_lint.checks.setup import MEMORY_FIELDS
        from lora_lint.memory import estimate_memory

        tree, injection = self.weighed
        given = self.setup.fields()
        given |= {name: value for name, value in changes.items() if name in MEMORY_FIELDS}
        rank = {"r": changes["r"]} if "r" in changes else {}
        gpu = changes.get("gpu", self.gpu)
        shared = self._shared_on(gpu)
        if isinstance(shared, str):
            return None
        found = estimate_memory(
            tree or self.tree,
            {**self.kwargs, **rank},
            **given,
            profile=self.setup.profile(given["quantization"], changes),
            gpu=gpu,
            sharding=shared,
            injection=self._ranked(changes["r"]) if rank else injection,
            peft=self.peft,
        )
        told: dict[str, object] = {}
        if tree is not self.tree:
            from lora_lint.models.labels import LABELS

            told["num_labels"] = LABELS
        if self.recipe.objective is None and self.recipe.dialect == "trl":
            told["objective"] = "sft"  # which of TRL's trainers a file is for it does not say
        return found._replace(assumed={**found.assumed, **told}) if told else found

    def _ranked(self, r: Any) -> Injection:
        """What PEFT would do with another rank."""
        tree, injection = self.weighed
        sized = None
        if self.kwargs.get("r") == self.value("r"):
            sized = with_rank(injection, self.kwargs, r)
        return sized or self._inject(self._lower({"r": r}), tree)

    def evaluation(self, batch: int) -> Evaluation | None:
        """The memory of an evaluation step of so many sequences; None where that is not known."""
        tree, injection = self.weighed
        if tree is None or self.memory is None:
            return None
        from lora_lint.memory import evaluation_memory

        given = self.setup.fields()
        return evaluation_memory(
            tree,
            self.kwargs,
            batch,
            fused=self.dialect.name not in _LIGER,
            profile=self.setup.profile(given["quantization"], {}),
            gpu=self.gpu,
            sharding=self.shared if not isinstance(self.shared, str) else None,
            injection=injection,
            peft=self.peft,
            **given,
        )

    def longest(self) -> int | None:
        """The longest sequence, in tokens, with which the run fits the user's GPU for certain; None
        where that is not known.
        """
        memory, gpu = self.memory, self.gpu
        tree, injection = self.weighed
        if memory is None or gpu is None or tree is None:
            return None
        from lora_lint.memory import max_tokens_that_fit

        given = self.setup.fields()
        del given["max_length"]
        batch = given.pop("per_device_train_batch_size")
        most = tree.facts.get("config", {}).get("max_position_embeddings")
        found = max_tokens_that_fit(
            tree,
            self.kwargs,
            gpu=gpu,
            per_device_train_batch_size=batch if isinstance(batch, int) else 8,
            injection=injection,
            peft=self.peft,
            profile=self.setup.profile(given["quantization"], {}),
            sharding=self.shared if not isinstance(self.shared, str) else None,
            **given,
        )
        return min(found, most) if found is not None and most else found

    def unmet(self, needs: str) -> str | None:
        """Why a rule that needs this can't be decided here, None if it can; ``""`` if it is moot.

        ``config``: LoRA is on. ``lora-off``: it is not. ``peft``: PEFT applies it. ``model``:
        module names. ``injection``: what PEFT does with them. ``versions``: the user's PEFT.
        ``gpu``: the user's GPU. ``memory``: an estimate for such a run. ``earlier``: the recipe at
        an earlier revision.
        """
        if needs in ("peft", "versions", "injection") and not self.dialect.certain:
            return "" if needs == "versions" else UNCERTAIN
        if needs in ("peft", "versions") and self.dialect.applied_by != "PEFT":
            how = f"{self.dialect.applied_by} applies LoRA itself, without PEFT"
            return how if needs == "peft" else ""
        if needs in ("config", "lora-off") and self.recipe.adapter == (needs == "lora-off"):
            return ""
        if needs == "model" and isinstance(self.resolution, Unresolved):
            return self.resolution.reason
        if needs == "injection" and self.injection.undecided and not self.injection.modules:
            return self.injection.undecided
        if needs == "versions" and self.context.environment.peft is None:
            return "the PEFT version is not known; pass --peft-version"
        if needs == "memory":
            return self.not_estimated
        if needs == "gpu" and self.context.environment.gpu is None:
            return "the GPU is not known; pass --gpu"
        if needs == "earlier" and self.earlier is None:
            return self._before[1]
        return None


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and others"


def _has_class(tree: ModuleTree, name: str) -> bool:
    return any(node.cls == name for _, node in tree.named_modules())
