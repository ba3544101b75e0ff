"""What changed between PEFT's releases: one row per behaviour, one entry per change.

The rest of this room asks the table instead of comparing versions, so that the whole history can
be read here. An entry is the first release that behaves so; each row says what its values mean and
which function of PEFT holds them. ``tools/oracle_releases.py`` compares every row with every
release.

Fields, default targets, task types and init methods by version are facts of the wheels and come
from ``lora_lint.facts``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from lora_lint.facts import version_key


class Semantics(NamedTuple):
    """The behaviour of one PEFT release; ``HISTORY`` explains the values."""

    # What a name matches
    list_entries: Literal["suffix", "regex", "dotted"]
    exact_names_skip_layers: bool
    layer_number: str
    layer_number_anywhere: str | None
    empty_layers_means_all: bool
    pattern_keys: Literal["chained", "apart", "anchored"]
    root_can_match: bool
    saved_modules: Literal["after", "during", "shielded"]
    # What a shorthand stands for
    all_linear: Literal["pattern", "leaves", "leaves but heads", "names"]
    condensed: Literal["never", "by suffix", "by name"]
    experts: Literal["never", "lists only", "all"]
    # What is refused
    no_match_error: str
    explains_no_match: Literal["never", "excluded", "nothing passed"]
    checks_task_type: bool
    strings_refuse_layers: bool
    pattern_needs_layers: Literal["never", "some", "set"]
    checks_subconfigs: bool
    unknown_adapter_keys: Literal["dropped", "refused", "warned"]
    refuses_containers: bool
    refuses_adapted: bool
    refuses_inside_adapter: bool
    mamba_types: tuple[str, ...]
    seq2seq_needs_encoder_kwargs: bool
    unmatched_patterns_warn: bool
    # Layers
    layers_wrap: bool
    kinds: frozenset[str]
    dora_kinds: frozenset[str]
    dora_refused: str
    magnitude: Literal["parameter", "module"]
    dora_transposes: bool
    pissa_transposes: bool
    no_rank: Literal["no adapter", "refused"]
    init_strings: Literal["truth", "checked"]
    variants: Literal["dora", "alora for linear", "alora first", "exclusive"]
    attention_bias: bool
    conv_groups: Literal["weight", "module", "groups"]
    flat_parameter_error: str
    root_parameters: Literal["adapted", "refused"]
    token_kinds: frozenset[str] | None
    rows_copied: Literal["in the graph", "detached"]
    # What is trained
    bias_all: Literal["contains", "ends"]
    bias_only: Literal["lora_only", "any"]
    sees_bias: bool
    inference_freezes_copies: bool
    inference_freezes_names: bool
    heads: Literal["after", "after, extended", "seq_cls before"]
    names_twice: bool
    copies_forward: Literal["weights", "all"]
    copied_again: bool
    originals_frozen: bool
    finds_copies_inside: bool
    tying: Literal["none", "saved", "saved and targets"]
    tied_names: Literal["list", "keys", "all keys", "if tied"]
    tied_rows: Literal["follow", "indices"]


_KINDS: Final = frozenset({"Linear", "Conv1D", "Embedding", "Conv2d"})
_DORA_KINDS: Final = frozenset({"Linear", "Conv1D"})

# behaviour -> (first release, value), oldest first.
HISTORY: Final[dict[str, tuple[tuple[str, Any], ...]]] = {
    # A name of a list matches the end of a module's name: with no regard to dots; as a regular
    # expression behind a dot; behind a dot. (lora.py, then check_target_module_exists)
    "list_entries": (("0.0.1", "suffix"), ("0.5.0", "regex"), ("0.6.0", "dotted")),
    # An entry that is a module's whole name is adapted whatever layers_to_transform says.
    "exact_names_skip_layers": (("0.0.1", False), ("0.8.0", True)),
    # Where the layer's number stands, behind a layers_pattern, and where there is none (None: the
    # usual names of COMMON_LAYERS_PATTERN are tried). Up to 0.19 the last number counts.
    "layer_number": (
        ("0.0.1", r".*.{pattern}\.(\d+)\.*"),
        ("0.8.0", r".*\.{pattern}\.(\d+)\."),
        ("0.20.0", r".*?\.{pattern}\.(\d+)\."),
        ("0.21.0", r"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\."),
    ),
    "layer_number_anywhere": (
        ("0.0.1", None),
        ("0.8.0", r".*\.[^.]*\.(\d+)\."),
        ("0.20.0", r".*?\.[^.]*\.(\d+)\."),
    ),
    "empty_layers_means_all": (("0.0.1", False), ("0.8.0", True)),
    # A key of rank_pattern or alpha_pattern: looked for behind a dot in both fields' keys together,
    # so that a rank can hide an alpha; in each field; anchored, so that ^ and | mean what they say.
    # (LoraModel._create_and_replace, then get_pattern_key)
    "pattern_keys": (("0.6.0", "chained"), ("0.14.0", "apart"), ("0.15.0", "anchored")),
    # The model itself, whose name is empty, is tried too.
    "root_can_match": (("0.0.1", True), ("0.14.0", False)),
    # modules_to_save: copied when all adapters are in place, adapters included; copied when their
    # turn comes, and no targets; no targets at all. (inject_adapter, check_target_module_exists)
    "saved_modules": (("0.0.1", "after"), ("0.6.2", "during"), ("0.16.0", "shielded")),
    # all-linear: a pattern that matches nothing; the last parts of the linear layers' names, of
    # which the head's full name is taken away; the heads of classifiers too; full names, on any
    # model. (_maybe_include_all_linear_layers)
    "all_linear": (
        ("0.0.1", "pattern"),
        ("0.8.0", "leaves"),
        ("0.13.0", "leaves but heads"),
        ("0.15.0", "names"),
    ),
    # Twenty names or more are replaced by the shortest endings that tell them from other modules;
    # at first "other" disregarded dots. (_find_minimal_target_modules)
    "condensed": (("0.0.1", "never"), ("0.13.0", "by suffix"), ("0.13.2", "by name")),
    # With transformers 5 the names of experts become parameters; at first a string was taken apart
    # into letters. (transformers_weight_conversion.py)
    "experts": (("0.0.1", "never"), ("0.19.0", "lists only"), ("0.20.0", "all")),
    "no_match_error": (("0.0.1", "ValueError"), ("0.21.0", "NoMatchingPeftModuleError")),
    # Whether the message says what was excluded, and that nothing was asked for.
    "explains_no_match": (
        ("0.0.1", "never"),
        ("0.14.0", "excluded"),
        ("0.17.0", "nothing passed"),
    ),
    # LoraConfig.__post_init__ and PeftConfigMixin
    "checks_task_type": (("0.0.1", False), ("0.14.0", True)),
    "strings_refuse_layers": (("0.0.1", False), ("0.6.0", True)),
    "pattern_needs_layers": (("0.0.1", "never"), ("0.14.0", "some"), ("0.21.0", "set")),
    "checks_subconfigs": (("0.0.1", False), ("0.21.0", True)),
    # Keys of an adapter_config.json that this release does not know. (from_pretrained)
    "unknown_adapter_keys": (("0.0.1", "dropped"), ("0.6.0", "refused"), ("0.14.0", "warned")),
    # What modules_to_save can't copy: lists and dicts of modules; modules with an adapter; what
    # lies inside an adapter. (ModulesToSaveWrapper.check_module, _set_trainable)
    "refuses_containers": (("0.0.1", False), ("0.9.0", True)),
    "refuses_adapted": (("0.0.1", False), ("0.13.0", True)),
    "refuses_inside_adapter": (("0.0.1", False), ("0.18.0", True)),
    # Models whose out_proj and conv1d are refused. (_check_lora_target_modules_mamba)
    "mamba_types": (
        ("0.0.1", ()),
        ("0.16.0", ("falcon_h1", "mamba", "mamba2", "falcon_mamba")),
        ("0.20.0", ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")),
    ),
    # PeftModelForSeq2SeqLM asks for a method that transformers dropped.
    "seq2seq_needs_encoder_kwargs": (("0.0.1", True), ("0.21.2", False)),
    "unmatched_patterns_warn": (("0.0.1", False), ("0.21.0", True)),
    # A LoRA layer wraps the module as its base_layer; before, it takes its place and its weights.
    "layers_wrap": (("0.0.1", False), ("0.7.0", True)),
    # Modules that a LoRA layer exists for, and those that DoRA can be used on. (dispatch_default)
    "kinds": (
        ("0.4.0", _KINDS),
        ("0.14.0", _KINDS | {"Conv3d"}),
        ("0.15.0", _KINDS | {"Conv3d", "Conv1d", "MultiheadAttention"}),
    ),
    "dora_kinds": (
        ("0.9.0", _DORA_KINDS),
        ("0.10.0", _DORA_KINDS | {"Conv2d"}),
        ("0.13.0", _DORA_KINDS | {"Conv2d", "Embedding"}),
        ("0.14.0", _DORA_KINDS | {"Conv2d", "Embedding", "Conv3d"}),
        ("0.16.0", _DORA_KINDS | {"Conv2d", "Embedding", "Conv3d", "Conv1d"}),
    ),
    # DoRA's magnitudes: a ParameterDict where there are any; a ModuleDict in every layer.
    "magnitude": (("0.9.0", "parameter"), ("0.12.0", "module")),
    "dora_refused": (("0.9.0", "ValueError"), ("0.15.0", "NotImplementedError")),
    # Whether DoRA knows that a Conv1D's weight is transposed. (LoraLayer.dora_init)
    "dora_transposes": (("0.9.0", False), ("0.11.0", True)),
    # The same for PiSSA, whose factors then have the wrong sizes for DoRA. (LoraLayer.pissa_init)
    "pissa_transposes": (("0.10.0", False), ("0.14.0", True)),
    # What a rank of 0 or less does. (LoraLayer.update_layer)
    "no_rank": (("0.0.1", "no adapter"), ("0.6.0", "refused")),
    # init_lora_weights: any true value; names that are known. (reset_lora_parameters)
    "init_strings": (("0.0.1", "truth"), ("0.7.0", "checked")),
    # aLoRA: unknown; only for linear layers, where it wins over DoRA; ignored elsewhere; never
    # beside another variant. (resolve_lora_variant)
    "variants": (
        ("0.0.1", "dora"),
        ("0.18.0", "alora for linear"),
        ("0.19.0", "alora first"),
        ("0.20.0", "exclusive"),
    ),
    # lora_bias has an effect on a MultiheadAttention. (MultiheadAttention.update_layer)
    "attention_bias": (("0.0.1", False), ("0.19.0", True)),
    # Convolutions in groups: the adapter takes the weight's input channels, the module's, or is one
    # in groups too. (_ConvNd.update_layer)
    "conv_groups": (("0.0.1", "weight"), ("0.7.0", "module"), ("0.16.0", "groups")),
    # target_parameters of the model itself. (BaseTuner._inject_parameters)
    "root_parameters": (("0.17.0", "adapted"), ("0.20.0", "refused")),
    # A parameter of one dimension. (ParamWrapper.__init__)
    "flat_parameter_error": (("0.0.1", "IndexError"), ("0.21.0", "ValueError")),
    # Modules that trainable_token_indices work on (None: any with a weight), and whether the
    # original rows can be copied where the weight is trained. (TrainableTokensLayer.update_layer)
    "token_kinds": (
        ("0.15.0", None),
        ("0.16.0", frozenset({"Embedding"})),
        ("0.18.0", frozenset({"Embedding", "Linear"})),
    ),
    "rows_copied": (("0.15.0", "in the graph"), ("0.21.0", "detached")),
    # What bias "all" finds by name, and which other words are known: with time any that ends in
    # "_only" is taken for lora_only. (_mark_only_adapters_as_trainable)
    "bias_all": (("0.0.1", "contains"), ("0.21.0", "ends")),
    "bias_only": (("0.0.1", "lora_only"), ("0.18.0", "any")),
    # lora_only finds the bias of an adapted layer; where it does not, it trains none.
    "sees_bias": (("0.0.1", True), ("0.7.0", False), ("0.10.0", True)),
    # inference_mode freezes the copies of modules_to_save too; it freezes whatever has the
    # adapter's name in its own.
    "inference_freezes_copies": (("0.0.1", False), ("0.18.0", True)),
    "inference_freezes_names": (("0.0.1", True), ("0.21.0", False)),
    # The head that a task_type trains: added when all is done; and written into modules_to_save;
    # for SEQ_CLS beforehand. (PeftModelFor...)
    "heads": (("0.0.1", "after"), ("0.11.0", "after, extended"), ("0.16.0", "seq_cls before")),
    # A module with two names is looked for under both. (_set_trainable)
    "names_twice": (("0.0.1", False), ("0.15.0", True)),
    # What is found behind a copied module: its weight and bias; all. (ModulesToSaveWrapper)
    "copies_forward": (("0.0.1", "weights"), ("0.14.0", "all")),
    # A module that is saved twice is copied anew. (ModulesToSaveWrapper.update)
    "copied_again": (("0.0.1", True), ("0.15.0", False)),
    # The original of a copied module is frozen.
    "originals_frozen": (("0.0.1", False), ("0.6.0", True)),
    # A name inside a copied module means the copied module. (_set_trainable)
    "finds_copies_inside": (("0.0.1", False), ("0.19.0", True)),
    # ensure_weight_tying. (BaseTuner._check_tied_modules)
    "tying": (("0.0.1", "none"), ("0.18.0", "saved"), ("0.19.0", "saved and targets")),
    # Which modules are tied to the embeddings. (_get_module_names_tied_with_embedding)
    "tied_names": (
        ("0.0.1", "list"),
        ("0.18.0", "keys"),
        ("0.18.1", "all keys"),
        ("0.20.0", "if tied"),
    ),
    # trainable_token_indices of tied layers: follow the input embeddings; compared first.
    "tied_rows": (("0.0.1", "follow"), ("0.19.0", "indices")),
}


@lru_cache(maxsize=64)
def semantics(version: str) -> Semantics:
    """The behaviour of a PEFT release; before a row begins its oldest value stands."""
    key = version_key(version)
    values = {}
    for name, changes in HISTORY.items():
        known = [value for since, value in changes if version_key(since) <= key]
        values[name] = known[-1] if known else changes[0][1]
    return Semantics(**values)
