"""``peft.LoraConfig``: its fields by version, and what it refuses when it is constructed.

Source: tuners/lora/config.py ``LoraConfig.__post_init__`` and config.py ``PeftConfigMixin``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, Literal

from lora_lint.facts import field_defaults, init_methods, known_fields, newest_peft, task_types
from lora_lint.injection import messages
from lora_lint.injection.semantics import semantics
from lora_lint.injection.simulation import Raised, Undecided
from lora_lint.recipe import holds_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.injection.semantics import Semantics

Source = Literal["kwargs", "adapter_config"]

# Fields that do not change what is injected.
INERT: Final = frozenset(
    {"auto_mapping", "base_model_name_or_path", "peft_type", "peft_version", "revision"}
)
# Fields whose value decides counts and scales, but neither what is matched nor the construction.
FIGURES: Final = frozenset(
    {
        "alpha_pattern",
        "bias",
        "fan_in_fan_out",
        "inference_mode",
        "lora_alpha",
        "lora_dropout",
        "r",
        "rank_pattern",
        "use_rslora",
    }
)
# Variants that bring code of their own; what they do is not reproduced here.
UNPREDICTED: Final = (
    "arrow_config",
    "kasa_config",
    "megatron_config",
    "monteclora_config",
    "use_bdlora",
    "velora_config",
)
# Fields that hold names, or numbers of layers.
_NAMES: Final = frozenset(
    {
        "exclude_modules",
        "layers_pattern",
        "layers_to_transform",
        "modules_to_save",
        "target_modules",
        "target_parameters",
    }
)
_SUBCONFIGS: Final = (
    "velora_config",
    "kasa_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "arrow_config",
    "use_bdlora",
)


class LoraSettings:
    """A constructed LoraConfig of a release whose behaviour is ``semantics``; fields that it lacks
    have the values that mean nothing. PEFT changes it while it injects, so this does too.
    """

    semantics: Semantics
    inits: frozenset[str]
    task_type: Any
    inference_mode: Any
    r: Any
    target_modules: Any
    exclude_modules: Any
    lora_alpha: Any
    lora_dropout: Any
    fan_in_fan_out: Any
    bias: Any
    use_rslora: Any
    modules_to_save: Any
    init_lora_weights: Any
    layers_to_transform: Any
    layers_pattern: Any
    rank_pattern: Any
    alpha_pattern: Any
    trainable_token_indices: Any
    use_dora: Any
    alora_invocation_tokens: Any
    layer_replication: Any
    lora_bias: Any
    target_parameters: Any
    ensure_weight_tying: Any

    def __init__(self, values: Mapping[str, Any], behaviour: Semantics) -> None:
        self.__dict__.update(values)
        self.semantics = behaviour
        self.modules_to_tie: set[str] | None = None
        self.target_modules_to_tie: set[str] | None = None
        self.warnings: list[tuple[str, str]] = []

    def warn(self, message: str, category: str = "UserWarning") -> None:
        """Note a warning, once however often PEFT repeats it."""
        if (category, message) not in self.warnings:
            self.warnings.append((category, message))


def plain(config: object) -> dict[str, Any]:
    """A config as a mapping of plain values: sub-configs as mappings, enums as their values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        names = [f.name for f in dataclasses.fields(config) if f.init]
        return {name: _plain_value(getattr(config, name)) for name in names}
    if isinstance(config, dict) or hasattr(config, "items"):
        return {name: _plain_value(value) for name, value in config.items()}
    msg = f"a mapping of LoraConfig keywords is expected, not {type(config).__name__}"
    raise TypeError(msg)


def _plain_value(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    enum_value = getattr(value, "value", None)
    if type(value).__module__ not in ("builtins", "lora_lint.recipe") and isinstance(
        enum_value, str
    ):
        return enum_value
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return list(value) if isinstance(value, tuple) else value


def construct(config: Mapping[str, Any], version: str, source: Source) -> LoraSettings:
    """Construct a LoraConfig of a PEFT version.

    Raises ``Raised`` where PEFT would, ``Undecided`` where that depends on something unknown.
    """
    known = known_fields(version)
    behaviour = semantics(version)
    warnings: list[tuple[str, str]] = []
    given = dict(config)
    if source == "adapter_config":
        given = _without_strange_keys(given, known, behaviour, warnings)
    for name in given:
        if name not in known:
            text = f"LoraConfig.__init__() got an unexpected keyword argument '{name}'"
            raise Raised("TypeError", text)
    defaults = {**field_defaults(newest_peft()), **field_defaults(version)}
    settings = LoraSettings({**defaults, **given}, behaviour)
    settings.inits = init_methods(version)
    settings.warnings = warnings
    _post_init(settings, version)
    return settings


def _without_strange_keys(
    given: dict[str, Any],
    known: frozenset[str],
    behaviour: Semantics,
    warnings: list[tuple[str, str]],
) -> dict[str, Any]:
    """What loading an adapter_config.json makes of keys that LoraConfig does not have."""
    given.pop("runtime_config", None)
    if behaviour.unknown_adapter_keys == "refused":
        return given
    strange = sorted(name for name in given if name not in known)
    if strange and behaviour.unknown_adapter_keys == "warned":
        text = f"Unexpected keyword arguments {strange} for class LoraConfig, these are ignored."
        warnings.append(("UserWarning", text))
    return {name: value for name, value in given.items() if name in known}


def _post_init(settings: LoraSettings, version: str) -> None:
    behaviour = settings.semantics
    allowed = task_types(version)
    if behaviour.checks_task_type and settings.task_type not in (None, *allowed):
        text = (
            f"Invalid task type: '{settings.task_type}'. Must be one of the following task types: "
        )
        raise Raised("ValueError", f"{text}{', '.join(allowed)}.")
    settings.target_modules = _as_set(settings.target_modules)
    settings.exclude_modules = _as_set(settings.exclude_modules)
    for name in _SUBCONFIGS if behaviour.checks_subconfigs else ():
        _check_subconfig(name, getattr(settings, name))
    for name in UNPREDICTED:
        value = getattr(settings, name)
        if value is not None and (value or name != "megatron_config"):
            raise Undecided(f"what {name} does is not predicted")
    if isinstance(settings.target_parameters, str):
        raise Raised("TypeError", "`target_parameters` must be a list of strings or None.")
    _check_layers(settings)
    _check_init(settings)
    _check_lora_bias(settings)
    if settings.alora_invocation_tokens is not None and settings.task_type != "CAUSAL_LM":
        settings.warn("aLoRA is currently only supported for CAUSAL_LM task.")


def _check_layers(settings: LoraSettings) -> None:
    behaviour = settings.semantics
    for name in ("layers_to_transform", "layers_pattern"):
        if (
            behaviour.strings_refuse_layers
            and isinstance(settings.target_modules, str)
            and getattr(settings, name) is not None
        ):
            text = f"`{name}` cannot be used when `target_modules` is a str."
            raise Raised("ValueError", text)
    layers = settings.layers_to_transform
    missing = {"never": False, "some": not layers, "set": layers is None}
    if settings.layers_pattern and missing[behaviour.pattern_needs_layers]:
        text = "When `layers_pattern` is specified, `layers_to_transform` must also be specified. "
        raise Raised("ValueError", text)


def _as_set(value: Any) -> Any:
    """Lists become sets (since 0.6, before that a name twice changes nothing); their order is kept
    here, which PEFT's sets do not.
    """
    if not isinstance(value, list):
        return value
    unhashable = next((v for v in value if isinstance(v, list | dict | set)), None)
    if unhashable is not None:
        raise Raised("TypeError", f"unhashable type: '{type(unhashable).__name__}'")
    return list(dict.fromkeys(value))


def _check_subconfig(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, dict):
        raise Raised("TypeError", f"`{name}` must be its config class, a dict, or None.")
    if name == "eva_config" and value:
        if value.get("rho", 2.0) < 1.0:
            raise Raised("ValueError", "`rho` must be >= 1.0")
        if not 0.0 <= value.get("tau", 0.99) <= 1.0:
            raise Raised("ValueError", "`tau` must be between 0.0 and 1.0.")


def _check_init(settings: LoraSettings) -> None:
    init = settings.init_lora_weights
    if init == "loftq" and "loftq" in settings.inits:
        raise Undecided("init_lora_weights: loftq depends on whether scipy is installed")
    if settings.loftq_config:  # type: ignore[attr-defined]
        settings.warn(
            "`loftq_config` specified but will be ignored when `init_lora_weights` is not 'loftq'."
        )
        return
    for name in {"eva", "corda"} & settings.inits:
        given = getattr(settings, f"{name}_config") is not None
        if (init == name) != given:
            problem = "is not specified" if init == name else "specified but will be ignored"
            settings.warn(f"`{name}_config` {problem} (`init_lora_weights` is {init!r}).")
            return


def _check_lora_bias(settings: LoraSettings) -> None:
    if not settings.lora_bias:
        return
    if settings.init_lora_weights not in (True, False):
        text = messages.LORA_BIAS_INIT.format(init=settings.init_lora_weights)
        raise Raised("ValueError", text)
    if settings.use_dora:
        text = "The argument lora_bias=True is not supported for DoRA, please pass use_dora=False"
        raise Raised("ValueError", text)


def unpredicted_value(config: Mapping[str, Any]) -> str | None:
    """Why a value is of no kind that a LoraConfig is ever given, None if all are: PEFT may raise
    anything anywhere for it.
    """
    for name, value in config.items():
        if name in _NAMES:
            entries = value if isinstance(value, list) else [value]
            odd = any(isinstance(entry, bool | float | list | dict) for entry in entries)
            odd |= isinstance(value, int) and name != "layers_to_transform"
        elif name in ("rank_pattern", "alpha_pattern"):
            odd = isinstance(value, dict) and not all(isinstance(key, str) for key in value)
        else:
            odd = False
        if odd:
            return f"{name} has a value that no model's names can match"
    return None


def without_unknowns(config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, bool]:
    """A config without its unknown values.

    Returns the rest, why figures are undecided (None if they are not), and whether the unknown
    values bear on figures alone, so that what is matched is still certain.
    """
    unknown = [name for name, value in config.items() if name not in INERT and holds_unknown(value)]
    rest = {name: value for name, value in config.items() if not holds_unknown(value)}
    if not unknown:
        return rest, None, True
    names = ", ".join(unknown)
    reason = f"{names} {'is' if len(unknown) == 1 else 'are'} not statically known"
    return rest, reason, all(name in FIGURES for name in unknown)
