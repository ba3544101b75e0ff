"""``get_peft_model``, step by step, on a module tree.

Sources: mapping_func.py ``get_peft_model``; peft_model.py ``PeftModel*.__init__``;
tuners/tuners_utils.py ``BaseTuner.inject_adapter``; tuners/lora/model.py ``LoraModel``; up to 0.5
tuners/lora.py. The methods below stand in the order in which PEFT runs them; what differs between
releases is asked of ``semantics``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lora_lint.facts import (
    ALL_LINEAR,
    EMBEDDING_LAYER_NAMES,
    ENCODES_BEFORE,
    SEQ_CLS_HEAD_NAMES,
    default_targets,
    expert_tables,
    known_release,
    unpredicted,
    version_key,
)
from lora_lint.injection import experts, folding, messages, saved
from lora_lint.injection.config import construct, plain, unpredicted_value, without_unknowns
from lora_lint.injection.layers import ADAPTER, Builder, LoraLayer
from lora_lint.injection.matching import (
    EXCLUDED,
    MIN_TARGETS_TO_CONDENSE,
    EntrySet,
    Matcher,
    SuffixSet,
    condense,
    dotted_suffixes,
    ends_with,
    entries_of,
    layer_index,
    pattern_keys,
    pattern_matches,
    pattern_regex,
)
from lora_lint.injection.patterns import refuse_slow_patterns
from lora_lint.injection.result import Adapted, Injection, PeftError, PeftWarning
from lora_lint.injection.simulation import Module, NothingMatched, Raised, Undecided, build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lora_lint.injection.config import LoraSettings, Source
    from lora_lint.injection.simulation import Parameter
    from lora_lint.models.module_tree import ModuleTree

# What is no regular expression.
_NAME = re.compile(r"[\w.-]*")
_MAMBA_REFUSED = ("out_proj", "conv1d")
# What PeftModelFor... adds to modules_to_save, by task type.
_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


def inject(
    tree: ModuleTree,
    config: object,
    *,
    peft: str,
    transformers: str | None = None,
    source: Source = "kwargs",
) -> Injection:
    """What ``get_peft_model(model, LoraConfig(**config))`` does on the model of a tree.

    ``config`` maps LoraConfig keywords to values; an absent key is not None. ``lora_lint.UNKNOWN``
    as a value, or inside one, leaves undecided what depends on it. ``source="adapter_config"``
    treats unknown keys as loading an adapter_config.json does. Exact for the released versions from
    ``facts.EXACT_SINCE`` on, undecided for others.

    Raises ``TypeError`` if ``config`` is not a mapping.
    """
    values, unknown, only_figures = without_unknowns(plain(config))
    odd = unpredicted(peft) or unpredicted_value(values)
    if odd is not None or (unknown and not only_figures):
        return Injection(undecided=odd or unknown)
    peft = known_release(peft)
    stage: Any = "config"
    run = None
    try:
        settings = construct(values, peft, source)
        fold = folding.fold(tree) if folding.allows(settings, tree, peft) else None
        run = _Run(tree, settings, peft, transformers or tree.transformers, fold)
        stage = "inject"
        run.run()
    except Raised as exc:
        error = PeftError(stage, exc.type, str(exc))
        if unknown and not isinstance(exc, NothingMatched):
            return Injection(undecided=unknown)
        return Injection(error=error, warnings=_warnings(run))
    except Undecided as exc:
        return Injection(undecided=str(exc))
    return run.result(unknown)


def _warnings(run: _Run | None) -> tuple[PeftWarning, ...]:
    return tuple(PeftWarning(*entry) for entry in run.settings.warnings) if run else ()


class _Run:
    """One injection: the model being changed, and what has been hit so far."""

    def __init__(
        self,
        tree: ModuleTree,
        settings: LoraSettings,
        peft: str,
        transformers: str | None,
        fold: folding.Fold | None = None,
    ) -> None:
        self.fold = fold
        self.tree = tree = fold.tree if fold else tree
        self.settings = settings
        self.semantics = settings.semantics
        self.peft = peft
        self.transformers = transformers
        self.model = build(tree)
        self.peft_model = Module("PeftModel")
        self.peft_model.children["base_model"] = Module("LoraModel")
        self.peft_model.children["base_model"].children["model"] = self.model
        self.builder = Builder(settings, tree.dtype, sized=tree.sized)
        self.tables = expert_tables(tree.model_type, peft, transformers)
        self.converted: dict[str, list[str]] = {}
        self.written_targets = settings.target_modules
        self.written_parameters = list(settings.target_parameters or ())
        self.written_saved = settings.modules_to_save
        self.written_patterns = {
            name: getattr(settings, name) for name in ("rank_pattern", "alpha_pattern")
        }
        self.modules: dict[str, LoraLayer] = {}
        self.parameters: dict[str, LoraLayer] = {}
        self.excluded: list[str] = []
        self.passed: list[str] = []
        self.saved_hits: set[Any] = set()
        self.names: list[str] = []

    def run(self) -> None:
        """Everything ``get_peft_model`` does."""
        settings = self.settings
        task = settings.task_type
        if isinstance(task, list | dict):  # get_peft_model looks it up in a table
            raise Raised("TypeError", f"unhashable type: '{type(task).__name__}'")
        if task == "SEQ_CLS" and self.semantics.heads == "seq_cls before":
            self._add_heads(task)
        self.names = [name for name, _ in self.model.named_modules()]
        self._refuse_layer_numbers()
        refuse_slow_patterns(self._patterns(), self.names)
        self._inject_adapter()
        if task in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
            self._require_generation(task)
        if task in ("TOKEN_CLS", "QUESTION_ANS") or (
            task == "SEQ_CLS" and self.semantics.heads != "seq_cls before"
        ):
            self._add_heads(task)
        if task in _HEADS:
            self._save_modules(under_peft_model=True)

    def _require_generation(self, task: str) -> None:
        facts = self.tree.facts
        text = "'{cls}' object has no attribute '{name}'"
        if not facts.get("generates"):
            name = "prepare_inputs_for_generation"
            raise Raised("AttributeError", text.format(cls=self.tree.cls, name=name))
        if task == "SEQ_2_SEQ_LM" and self.semantics.seq2seq_needs_encoder_kwargs:
            there = version_key(self.transformers or "") < ENCODES_BEFORE
            if not facts.get("encodes", there):
                name = "_prepare_encoder_decoder_kwargs_for_generation"
                raise Raised("AttributeError", text.format(cls=self.tree.cls, name=name))

    def _refuse_layer_numbers(self) -> None:
        """Without sizes the number of layers is unknown, and so is what a layer's number hits."""
        settings = self.settings
        if self.tree.sized:
            return
        numbered = (settings.target_modules, settings.exclude_modules, settings.target_parameters)
        if (
            settings.layers_to_transform is not None
            or settings.layer_replication
            or any(map(_may_count, numbered))
        ):
            raise Undecided("the model's number of layers is not known")
        if settings.trainable_token_indices is not None:
            raise Undecided("the model's vocabulary size is not known")

    # PeftModelFor...
    # --------------------------------------------------------------------------------

    def _add_heads(self, task: str) -> None:
        settings = self.settings
        if settings.modules_to_save is None:
            settings.modules_to_save = list(_HEADS[task])
        elif isinstance(settings.modules_to_save, list) or self.semantics.heads == "after":
            settings.modules_to_save = [*_iterate(settings.modules_to_save), *_HEADS[task]]
        else:
            kind = type(settings.modules_to_save).__name__
            raise Raised("AttributeError", f"'{kind}' object has no attribute 'extend'")

    # BaseTuner.inject_adapter
    # -----------------------------------------------------------------------

    def _inject_adapter(self) -> None:
        settings = self.settings
        if self.tables is not None:
            linear = self._linear_names()
            self.converted = experts.convert(settings, self.model, self.tables, linear)
        if self.semantics.tying != "none":
            self._check_tied_modules()
        self._prepare_adapter_config()
        if settings.layer_replication:
            _replicate_layers(self.model, settings.layer_replication)
            if not self.tree.facts.get("has_config"):
                raise Raised(
                    "AttributeError", f"'{self.tree.cls}' object has no attribute 'config'"
                )
        targets = settings.target_modules
        shorthand = isinstance(targets, str) and targets.lower() == ALL_LINEAR
        if shorthand and self.semantics.all_linear != "pattern":
            settings.target_modules = self._linear_names()
        self._condense_targets()
        self._wrap_modules()
        self._check_anything_matched()
        self._mark_trainable()
        if settings.inference_mode and self.semantics.inference_freezes_names:
            for name, parameter in self.model.named_parameters():
                if ADAPTER in name:
                    parameter.requires_grad = False
        self._set_additional_trainable_modules()

    def _input_embeddings(self) -> Module | None:
        """What ``model.get_input_embeddings()`` gives, wrapped or not."""
        facts = self.tree.facts
        if "input_embeddings" in facts:
            return self.model.get_submodule(facts["input_embeddings"])
        if "input_embeddings_error" in facts:
            text = f"`get_input_embeddings` of {self.tree.cls} fails"
            raise Raised(facts["input_embeddings_error"], text)
        return None

    def _require_input_embeddings(self) -> Module:
        module = self._input_embeddings()
        if module is None:
            raise Raised("AttributeError", f"'{self.tree.cls}' has no get_input_embeddings")
        return module

    def _tied_names(self) -> list[str]:
        names = self.semantics.tied_names
        return saved.tied_module_names(self.model, self.tree.facts, self._input_embeddings, names)

    def _check_tied_modules(self) -> None:
        settings = self.settings
        to_save = list(dict.fromkeys(_iterate(settings.modules_to_save or ())))
        if self.semantics.tying == "saved":
            self._check_tied_saved(to_save)
            return
        saves = any(_leaf(name) in EMBEDDING_LAYER_NAMES for name in to_save)
        if isinstance(settings.target_modules, str):
            entries = EntrySet(settings.target_modules)
            targets = any(entries.has(name) for name in EMBEDDING_LAYER_NAMES)
        else:
            listed = _iterate(settings.target_modules or ())
            targets = any(_leaf(name) in EMBEDDING_LAYER_NAMES for name in listed)
        tied = self._tied_names()
        if settings.ensure_weight_tying:
            self._ensure_tying(tied, saves=saves, targets=targets)
        elif (saves or targets) and tied:
            settings.warn(messages.TIED_NOT_ENSURED)

    def _check_tied_saved(self, to_save: list[Any]) -> None:
        """As the releases did that tie saved modules only."""
        settings = self.settings
        saves = any(name in EMBEDDING_LAYER_NAMES for name in to_save)
        tied = self._tied_names()
        if not settings.ensure_weight_tying:
            if saves and tied:
                settings.warn(messages.TIED_NOT_ENSURED)
        elif saves and tied:
            settings.modules_to_tie = set(tied) - set(to_save)
        else:
            settings.warn(messages.TIED_NOT_ADDED if tied else messages.NOTHING_TIED)

    def _ensure_tying(self, tied: list[str], *, saves: bool, targets: bool) -> None:
        settings = self.settings
        if not tied:
            settings.warn(messages.NOTHING_TIED)
        elif saves:
            settings.modules_to_tie = set(tied)
            names = list(_iterate(settings.modules_to_save or ()))
            embeddings = self._name_of(self._require_input_embeddings())
            settings.modules_to_save = _untie(names, embeddings, tied)
        elif targets:
            settings.target_modules_to_tie = set(tied)
            embeddings = self._name_of(self._require_input_embeddings())
            if isinstance(settings.target_modules, str):
                pattern = rf"(?:{settings.target_modules}|^{re.escape(embeddings)}$)"
                settings.target_modules = pattern
            else:
                names = list(settings.target_modules or ())
                settings.target_modules = _untie(names, embeddings, tied)
        else:
            settings.warn(messages.TIED_NOT_ADDED)

    def _name_of(self, module: Module) -> str:
        return next(name for name, other in self.model.named_modules() if other is module)

    def _prepare_adapter_config(self) -> None:
        settings = self.settings
        if settings.target_modules is not None:
            return
        model_type = self.tree.model_type
        if model_type is None and self.tree.facts.get("has_config"):
            raise Raised("KeyError", "'model_type'")
        targets = default_targets(model_type, self.peft)
        if targets is not None:
            settings.target_modules = targets
        elif not settings.target_parameters:
            text = "Please specify `target_modules` or `target_parameters`in `peft_config`"
            raise Raised("ValueError", text)

    def _linear_names(self) -> list[str]:
        """What ``all-linear`` stands for (``_maybe_include_all_linear_layers``)."""
        style = self.semantics.all_linear
        facts = self.tree.facts
        names = [n for n, m in self.model.named_modules() if m.kind in ("Linear", "Conv1D")]
        if not facts.get("pretrained"):
            if style != "names":
                raise Raised("ValueError", messages.ALL_LINEAR_CUSTOM)
            return names
        if style != "names":
            names = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
        if "output_embeddings_error" in facts:
            text = f"`get_output_embeddings` of {self.tree.cls} fails"
            raise Raised(facts["output_embeddings_error"], text)
        head = facts.get("output_embeddings")
        if head is None and self.settings.task_type == "SEQ_CLS" and style != "leaves":
            heads = (h for h in SEQ_CLS_HEAD_NAMES if h in self.model.children)
            head = next(heads, None)
        return [name for name in names if name != head]

    def _condense_targets(self) -> None:
        settings = self.settings
        targets = settings.target_modules
        style = self.semantics.condensed
        if (
            style == "never"
            or not isinstance(targets, list)
            or len(targets) < MIN_TARGETS_TO_CONDENSE
        ):
            return
        entries = EntrySet(targets) if style == "by name" else SuffixSet(targets)
        others = {name for name, _ in self.model.named_modules() if not entries.has(name)}
        fewer = condense(set(targets), others)
        if len(fewer) < len(targets):
            settings.target_modules = sorted(fewer)

    # Matching and wrapping
    # --------------------------------------------------------------------------

    def _wrap_modules(self) -> None:
        settings = self.settings
        matcher = Matcher(settings)
        tie = settings.target_modules_to_tie or set()
        to_tie: list[str] = []
        for key in [name for name, _ in self.model.named_modules()]:
            if not key and not self.semantics.root_can_match:
                continue
            if self._save_during(key):
                continue
            hit = matcher(key)
            if key in tie or any(suffix in tie for suffix in dotted_suffixes(key)):
                to_tie.append(key)
            elif hit is EXCLUDED:
                self.excluded.append(key)
            elif not hit:
                self.passed.append(key)
            else:
                self._wrap_module(key)
        if settings.target_parameters:
            self._wrap_parameters()
        for key in to_tie:
            self._wrap_module(key)

    def _save_during(self, key: str) -> bool:
        """Whether a module is copied where it would be adapted, as peft 0.6.2 to 0.15 do."""
        names = self.settings.modules_to_save
        if self.semantics.saved_modules != "during" or names is None:
            return False
        if not any(ends_with(key, name) for name in _iterate(names)):
            return False
        parent_name, _, leaf = key.rpartition(".")
        parent = self.model.get_submodule(parent_name)
        target = self.model.get_submodule(key)
        if isinstance(target, saved.SavedWrapper):
            target.copy_again()
        else:
            parent.children[leaf] = saved.SavedWrapper(target, None, self.semantics)
        return True

    def _wrap_module(self, key: str) -> None:
        parent_name, _, leaf = key.rpartition(".")
        parent = self.model.get_submodule(parent_name)
        target = self.model.get_submodule(key)
        self._refuse_mamba(leaf)
        r, alpha = self._rank_and_alpha(key)
        tied_to = (
            self._tied_adapter() if leaf in (self.settings.target_modules_to_tie or ()) else None
        )
        layer = self.builder.wrap(target, r, alpha, tied_to)
        parent.children[leaf] = layer
        self.modules[key] = layer

    def _tied_adapter(self) -> LoraLayer:
        embeddings = self._require_input_embeddings()
        if isinstance(embeddings, LoraLayer) and embeddings.children["lora_embedding_A"].parameters:
            return embeddings
        text = f"'{embeddings.cls}' object has no attribute 'lora_embedding_A'"
        raise Raised("AttributeError", text)

    def _refuse_mamba(self, leaf: str) -> None:
        if self.tree.model_type in self.semantics.mamba_types and leaf in _MAMBA_REFUSED:
            text = (
                f"[PEFT:LORA] Module '{leaf}' is incompatible with Mamba-based models "
                f"(model_type='{self.tree.model_type}')."
            )
            raise Raised("ValueError", text)

    def _rank_and_alpha(self, key: str) -> tuple[Any, Any]:
        settings = self.settings
        for patterns in (settings.rank_pattern, settings.alpha_pattern):
            if not isinstance(patterns, dict):
                kind = type(patterns).__name__
                raise Raised("AttributeError", f"'{kind}' object has no attribute 'keys'")
        rank_key, alpha_key = pattern_keys(settings, key)
        r = settings.rank_pattern.get(rank_key, settings.r)
        return r, settings.alpha_pattern.get(alpha_key, settings.lora_alpha)

    def _wrap_parameters(self) -> None:
        names = _sorted(set(_iterate(self.settings.target_parameters)))
        wanted = EntrySet(names)
        for module_name, module in self.model.named_modules():
            if "parametrized_shapes" in module.facts:
                self._wrap_parametrized(module_name, module, names)
                continue
            plain_name = _strip_base_layer(module_name)
            for parameter_name in list(module.parameters):
                key = f"{plain_name}.{parameter_name}"
                if wanted.has(key):
                    self._wrap_parameter(module_name, key, parameter_name)

    def _wrap_parametrized(self, module_name: str, module: Module, names: list[Any]) -> None:
        for key in names:
            holder, _, parameter_name = key.rpartition(".")
            there = (
                parameter_name in module.facts["parametrized_shapes"]
                or parameter_name in module.parameters
            )
            if holder == module_name and there:
                self._wrap_parameter(module_name, key, parameter_name)

    def _wrap_parameter(self, module_name: str, key: str, parameter_name: str) -> None:
        if not module_name and self.semantics.root_parameters == "refused":
            text = (
                "Targeting an nn.Parameter on the top-level module is not supported (parameter "
                f"'{parameter_name}'). "
            )
            raise Raised("ValueError", text)
        parent_name, _, leaf = module_name.rpartition(".")
        parent = self.model.get_submodule(parent_name)
        target = self.model.get_submodule(module_name)
        unwrapped = self.model.get_submodule(_strip_base_layer(module_name))
        if isinstance(unwrapped, LoraLayer) and unwrapped.cls != "lora.ParamWrapper":
            text = messages.TARGETED_PARAMETER.format(
                name=_strip_base_layer(module_name), cls=target.cls
            )
            raise Raised("ValueError", text)
        self._refuse_mamba(leaf)
        r, alpha = self._rank_and_alpha(key)
        layer = self.builder.wrap_parameter(target, parameter_name, r, alpha)
        parent.children[leaf] = layer
        self.parameters[key] = layer

    def _check_anything_matched(self) -> None:
        settings = self.settings
        if self.modules or self.parameters:
            if settings.exclude_modules and not self.excluded:
                settings.warn(messages.NOTHING_EXCLUDED.format(value=settings.exclude_modules))
            elif settings.target_modules and not self.modules:
                text = (
                    f"target_modules={settings.target_modules} were set but no module was matched."
                )
                settings.warn(text, "RuntimeWarning")
            elif settings.target_parameters and not self.parameters:
                text = (
                    f"target_parameters={settings.target_parameters} were set but no parameter was "
                    "matched."
                )
                settings.warn(text, "RuntimeWarning")
            if self.semantics.unmatched_patterns_warn:
                self._warn_unmatched_patterns()
            return
        if settings.target_modules == "dummy-target-modules":
            return
        written = (self.written_targets, self.written_parameters)
        if any(self._may_be_there(entry) for value in written for entry in _listed(value)):
            raise Undecided("whether the model has the modules that are targeted is not known")
        raise NothingMatched(self.semantics.no_match_error, self._no_match_message())

    def _no_match_message(self) -> str:
        settings = self.settings
        explains = self.semantics.explains_no_match
        if explains == "never":
            return messages.NO_MATCH.format(targets=settings.target_modules)
        if self.excluded and not self.passed:
            return messages.ALL_EXCLUDED
        nothing_asked = not settings.target_modules and explains == "nothing passed"
        if not self.excluded and self.passed and nothing_asked:
            return messages.NOTHING_PASSED
        if not self.excluded and self.passed:
            targets = settings.target_modules
            if not isinstance(targets, str):
                targets = "{" + ", ".join(map(repr, targets)) + "}"
            message = messages.NO_MATCH.format(targets=targets)
        else:
            message = messages.NOTHING_TARGETED
        if settings.layers_to_transform is not None:
            message += (
                f" Note: You specified 'layers_to_transform': {settings.layers_to_transform}."
            )
        if settings.layers_pattern is not None:
            message += f" You also specified 'layers_pattern': {settings.layers_pattern}."
        return message

    def _warn_unmatched_patterns(self) -> None:
        style = self.semantics.pattern_keys
        for field in ("rank_pattern", "alpha_pattern"):
            patterns = getattr(self.settings, field)
            missed = sorted(
                p
                for p in patterns
                if not any(pattern_matches(p, name, style) for name in self.modules)
            )
            if missed:
                text = messages.PATTERNS_UNMATCHED.format(field=field, keys=missed)
                self.settings.warn(text, "RuntimeWarning")

    # What is trained
    # --------------------------------------------------------------------------------

    def _mark_trainable(self) -> None:
        settings = self.settings
        adapters = self._adapter_parameters()
        for parameter in self.model.all_parameters():
            parameter.requires_grad = adapters.get(id(parameter), False)
        if settings.bias == "none":
            return
        if settings.bias == "all":
            ends = self.semantics.bias_all == "ends"
            for name, parameter in self.model.named_parameters():
                if (name == "bias" or name.endswith(".bias")) if ends else "bias" in name:
                    parameter.requires_grad = True
            return
        self._check_bias(settings.bias)
        if not self.semantics.sees_bias:
            return
        for module in list(self.model.modules()):
            if isinstance(module, LoraLayer) and module.bias is not None:
                module.bias.requires_grad = True

    def _check_bias(self, bias: Any) -> None:
        text = f"Requested bias: {bias}, is not implemented."
        if self.semantics.bias_only == "lora_only":
            if bias != "lora_only":
                raise Raised("NotImplementedError", text)
        elif not isinstance(bias, str):
            kind = type(bias).__name__
            raise Raised("AttributeError", f"'{kind}' object has no attribute 'endswith'")
        elif not bias.endswith("_only"):
            raise Raised("NotImplementedError", text)

    def _adapter_parameters(self) -> dict[int, bool]:
        """Adapter parameters by identity, and whether each is trained."""
        trained = not self.settings.inference_mode
        result: dict[int, bool] = {}
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                frozen = {
                    id(p) for holder in module.frozen for p in _below(module.children[holder])
                }
                for parameter in module.adapter:
                    result[id(parameter)] = trained and id(parameter) not in frozen
        return result

    def _set_additional_trainable_modules(self) -> None:
        settings = self.settings
        if settings.modules_to_save is not None:
            self._save_modules(under_peft_model=self.semantics.saved_modules != "shielded")
        if settings.modules_to_tie is not None:
            embeddings = self._require_input_embeddings()
            if not isinstance(embeddings, saved.SavedWrapper):
                text = f"'{embeddings.cls}' object has no attribute 'modules_to_save'"
                raise Raised("AttributeError", text)
            self._save_modules(settings.modules_to_tie, tied=embeddings.copy)
        if settings.trainable_token_indices is not None:
            self._train_tokens()

    def _save_modules(
        self,
        names: Any = None,
        tied: Module | None = None,
        *,
        under_peft_model: bool = False,
    ) -> None:
        names = self.settings.modules_to_save if names is None else names
        if not names:
            return
        inference = self._copies_frozen
        model = self.peft_model if under_peft_model else self.model
        hits = saved.set_trainable(
            model,
            _iterate(names),
            lambda target: saved.SavedWrapper(target, tied, self.semantics, inference=inference),
            saved.SavedWrapper,
            self.semantics,
            inference=inference,
        )
        self.saved_hits |= {name for name in _iterate(names) if any(h.endswith(name) for h in hits)}
        if isinstance(self.written_saved, list):  # where tied names replace what was written
            self.saved_hits |= {
                name for name in self.written_saved if any(ends_with(hit, name) for hit in hits)
            }

    @property
    def _copies_frozen(self) -> bool:
        return bool(self.settings.inference_mode) and self.semantics.inference_freezes_copies

    def _train_tokens(self) -> None:
        settings = self.settings
        indices = settings.trainable_token_indices
        if isinstance(indices, dict):
            layers = indices
        else:
            embeddings = self._input_embeddings()
            layers = {self._name_of(embeddings) if embeddings else "embed_tokens": indices}
        for name in layers:
            if settings.modules_to_save is not None and name in settings.modules_to_save:
                text = "The embedding layer is already marked to be trained fully, either specify "
                raise Raised(
                    "ValueError", text + "`modules_to_save` or `trainable_tokens` but not both."
                )
        is_tied = self.tree.facts.get("tie_word_embeddings", False)
        compared = is_tied and self.semantics.tied_rows == "indices"
        skipped, mismatch = self._tied_token_layers(layers) if compared else (set(), False)
        for name, rows in layers.items():
            if name not in skipped:
                self._wrap_tokens([name], rows, None)
        if not is_tied and settings.ensure_weight_tying:
            settings.warn(messages.TOKENS_NOT_TIED)
        if is_tied and (settings.ensure_weight_tying or not mismatch):
            embeddings = self._require_input_embeddings()
            if isinstance(embeddings, saved.TokensWrapper):
                self._wrap_tokens(self._tied_names(), (), embeddings)

    def _tied_token_layers(self, layers: dict[str, Any]) -> tuple[set[str], bool]:
        """The layers whose tokens follow the tied embeddings', and whether their indices differ."""
        if len(layers) < 2:
            return set(), False
        tied_names = set(self._tied_names())
        embeddings = self._name_of(self._require_input_embeddings())
        tied = [
            name
            for name in layers
            if embeddings.endswith(name)
            or any(other.endswith(name) or name in other.split(".") for other in tied_names)
        ]
        if len(tied) < 2:
            return set(), False
        if any(layers[name] != layers[tied[0]] for name in tied):
            if self.settings.ensure_weight_tying:
                raise Raised("ValueError", messages.TOKENS_DIFFER)
            return set(), True
        return set(tied) & tied_names, False

    def _wrap_tokens(self, names: list[str], rows: Any, tied: saved.TokensWrapper | None) -> None:
        inference = self._copies_frozen
        model = self.model if self.semantics.saved_modules == "shielded" else self.peft_model
        hits = saved.set_trainable(
            model,
            names,
            lambda target: saved.TokensWrapper(
                target, rows, tied, self.semantics, inference=inference
            ),
            saved.TokensWrapper,
            self.semantics,
            inference=inference,
        )
        if names and not hits:
            text = (
                f"Target modules {set(names)} not found in the base model. Please check the target "
                "modules and try again."
            )
            raise Raised("ValueError", text)

    # The outcome
    # ------------------------------------------------------------------------------------

    def result(self, unknown: str | None) -> Injection:
        """The injection; without figures where they are unknown or the tree has no sizes."""
        unsized = None if self.tree.sized else "the model's sizes are not known"
        figures = not (unknown or unsized)
        trainable = total = 0
        if figures:
            for parameter, times in self._counted():
                count = times * parameter.numel()
                total += count
                trainable += count if parameter.requires_grad else 0
        wrapped: dict[type, set[str]] = {saved.SavedWrapper: set(), saved.TokensWrapper: set()}
        settings = self.settings
        if settings.modules_to_save is not None or settings.trainable_token_indices is not None:
            for name, module in self.peft_model.get_submodule("base_model.model").named_modules():
                if type(module) in wrapped:
                    wrapped[type(module)].add(saved.base_name(name))
        return Injection(
            modules=self._spread(self.modules),
            parameters=self._spread(self.parameters),
            saved=self._spread(wrapped[saved.SavedWrapper]),
            tokens=self._spread(wrapped[saved.TokensWrapper]),
            trainable=trainable if figures else None,
            total=total if figures else None,
            adapted=dict(self._adapted()) if figures else {},
            unmatched=self.unmatched(),
            warnings=_warnings(self),
            undecided=unknown or unsized,
        )

    def _counted(self) -> Iterable[tuple[Parameter, int]]:
        """Every parameter once, and how many there are of it."""
        if self.fold is not None:
            return self.fold.counted(self.peft_model)
        return ((parameter, 1) for parameter in self.peft_model.all_parameters())

    def _spread(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names of the whole model, sorted."""
        if self.fold is None:
            return tuple(sorted(names))
        return tuple(sorted(full for name in names for full in self.fold.spread(name)))

    def _adapted(self) -> Iterator[tuple[str, Adapted]]:
        if self.fold is None:
            yield from sorted(self._adapted_here())
            return
        found = self._adapted_here()
        yield from sorted((full, entry) for name, entry in found for full in self.fold.spread(name))

    def _adapted_here(self) -> Iterator[tuple[str, Adapted]]:
        for name, layer in {**self.modules, **self.parameters}.items():
            kind = "Parameter" if layer.parameter_name else layer.base.kind
            count = layer.numel()
            if layer.cls == "lora.MultiheadAttention":
                inner = layer.base.children["out_proj"]
                count += inner.numel() if isinstance(inner, LoraLayer) else 0
            yield name, Adapted(layer.r, layer.alpha, layer.scale, kind, count)

    def unmatched(self) -> dict[str, tuple[object, ...]]:
        """For each field, the written entries that had no effect."""
        return {
            field: tuple(entry for entry in entries if not self._may_be_there(entry))
            for field, entries in self._unmatched_here().items()
        }

    def _may_be_there(self, entry: Any) -> bool:
        """Whether another model that the tree stands for may have what an entry names."""
        if not isinstance(entry, str) or self.tree.sized:
            return False
        return self.tree.may_have(_leaf(entry)) or (
            not _NAME.fullmatch(entry) and bool(self.tree.facts.get("also"))
        )

    def _unmatched_here(self) -> dict[str, tuple[object, ...]]:
        hit = [*self.modules, *self.parameters]
        settings = self.settings
        return {
            "target_modules": tuple(self._dead_targets()),
            "target_parameters": tuple(
                entry
                for entry in self.written_parameters
                if not any(EntrySet([entry]).has(name) for name in self.parameters)
            ),
            "modules_to_save": tuple(
                name
                for name in _written_list(self.written_saved)
                if not (name in self.saved_hits or self._ties(name, settings.modules_to_tie))
            ),
            "exclude_modules": tuple(
                entry
                for entry in _written_list(settings.exclude_modules)
                if not any(EntrySet(_like(settings, entry)).has(name) for name in self.names)
            ),
            **{
                field: tuple(
                    key
                    for key in (patterns if isinstance(patterns, dict) else ())
                    if not any(self._pattern_matches(key, name) for name in hit)
                )
                for field, patterns in self.written_patterns.items()
            },
            "layers_to_transform": tuple(self._dead_layers()),
        }

    def _pattern_matches(self, pattern: Any, name: str) -> bool:
        if pattern == name:
            return True  # what PEFT falls back to where no key matches
        try:
            return pattern_matches(pattern, name, self.semantics.pattern_keys)
        except Raised:
            return False

    def _ties(self, name: Any, tied: set[str] | None) -> bool:
        """Whether a name makes PEFT add the tied embeddings, whatever those are called."""
        both = self.semantics.tying == "saved and targets"
        return both and tied is not None and _leaf(name) in EMBEDDING_LAYER_NAMES

    def _dead_targets(self) -> Iterator[Any]:
        written = self.written_targets
        if isinstance(written, str):
            if not self.modules and not self.parameters:
                yield written
            return
        entries = entries_of(written, self.semantics)
        alive = {entry for name in self.modules for entry in entries.hits(name)}
        tied = self.settings.target_modules_to_tie
        alive |= {entry for entry in written or () if self._ties(entry, tied)}
        for entry in written or ():
            became = self.converted.get(entry, ())
            if entry in alive or any(EntrySet(became).has(name) for name in self.parameters):
                continue
            yield entry

    def _dead_layers(self) -> Iterator[int]:
        indexes = self.settings.layers_to_transform
        if indexes is None or isinstance(indexes, str):
            return
        pattern = self.settings.layers_pattern
        targets = entries_of(self.settings.target_modules, self.semantics)
        # Patterns, and names written in full, are adapted in any layer.
        anywhere = targets.is_exactly if self.semantics.exact_names_skip_layers else lambda _: False
        bound = [] if targets.pattern is not None else [n for n in self.modules if not anywhere(n)]
        alive = {layer_index(name, pattern, self.semantics) for name in bound}
        for index in _written_list(indexes):
            if index not in alive:
                yield index

    def _patterns(self) -> list[str]:
        """Every regular expression of the config, as PEFT will use it."""
        settings = self.settings
        patterns = [
            v for v in (settings.target_modules, settings.exclude_modules) if isinstance(v, str)
        ]
        names = settings.modules_to_save or ()
        patterns += [
            rf"(^|.*\.){name}($|\..*)" for name in (names if isinstance(names, list) else ())
        ]
        for field in ("rank_pattern", "alpha_pattern"):
            keys = getattr(settings, field)
            patterns += [
                pattern_regex(key, self.semantics.pattern_keys)
                for key in (keys if isinstance(keys, dict) else ())
            ]
        layers = settings.layers_pattern
        for pattern in [layers] if isinstance(layers, str) else layers or ():
            patterns.append(self.semantics.layer_number.replace("{pattern}", str(pattern)))
        return patterns


def _listed(value: Any) -> list[Any]:
    """The entries of a list, or a pattern by itself."""
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


def _may_count(value: Any) -> bool:
    """Whether names may be chosen by a layer's number: by a digit of a pattern, or by an entry of a
    list that has a number for one of its steps. ``fc1`` is a name.
    """
    if isinstance(value, str):
        return re.search(r"\d", value) is not None
    if not isinstance(value, list | tuple | set | frozenset):
        return False
    return any(step.isdigit() for entry in value for step in str(entry).split("."))


def _iterate(value: Any) -> Any:
    try:
        return iter(value)
    except TypeError as exc:
        raise Raised("TypeError", str(exc)) from None


def _written_list(value: Any) -> list[Any]:
    """The entries of a field that is a list, or a single value."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _like(settings: LoraSettings, entry: Any) -> Any:
    return entry if isinstance(settings.exclude_modules, str) else [entry]


def _leaf(name: Any) -> str:
    if not isinstance(name, str):
        kind = type(name).__name__
        raise Raised("AttributeError", f"'{kind}' object has no attribute 'split'")
    return name.split(".")[-1]


def _sorted(names: set[Any]) -> list[Any]:
    try:
        return sorted(names)
    except TypeError as exc:
        raise Raised("TypeError", str(exc)) from None


def _untie(names: list[Any], embeddings: str, tied: list[str]) -> list[Any]:
    """Add the embeddings, and drop for each tied module the first entry that covers it."""
    if embeddings not in names:
        names.append(embeddings)
    for key in tied:
        for name in names:
            if re.match(rf"(^|.*\.){name}($|\..*)", key):
                names.remove(name)
                break
    return names


def _strip_base_layer(name: str) -> str:
    while ".base_layer" in name:
        before, _, after = name.rpartition(".base_layer")
        name = before + after
    return name


def _below(module: Module) -> Iterator[Parameter]:
    yield from module.all_parameters()


def _replicate_layers(model: Module, layer_map: Any) -> None:
    """``replicate_layers`` of tuners/tuners_utils.py: copies of layers that share their weights."""
    while "model" in model.children:
        model = model.children["model"]
    model = model.children.get("bert", model)
    holder, name = model, ""
    if "layers" in model.children:
        name = "layers"
    elif "encoder" in model.children and "layer" in model.children["encoder"].children:
        holder, name = model.children["encoder"], "layer"
    elif "h" in model.children:
        name = "h"
    layers = holder.children.get(name)
    if layers is None or layers.cls != "ModuleList":
        raise Raised("ValueError", "Could not locate the layers attribute in the model. ")
    copies = Module("ModuleList", "container")
    try:
        wanted = [i for start, end in layer_map for i in range(start, end)]
    except (TypeError, ValueError) as exc:
        raise Raised(type(exc).__name__, str(exc)) from None
    count = len(layers.children)
    for index in wanted:
        if not -count <= index < count:
            raise Raised("IndexError", f"index {index} is out of range")
        layer = layers.children[str(index % count)]
        copies.children[str(len(copies.children))] = layer.deepcopy(share=True)
    holder.children[name] = copies
