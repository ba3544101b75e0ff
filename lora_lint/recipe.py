"""One LoRA run as it is written, in PEFT's and transformers' own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.diagnostics import KeyPath

Origin = Literal["written", "default", "computed", "unset", "unknown"]

# Fields beside peft.LoraConfig's own, under transformers' names.
RUN_FIELDS: Final = (
    "base_model",
    "dtype",
    "quantization",
    "double_quant",
    "max_length",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "optim",
    "learning_rate",
    "attn_implementation",
    "packing",
    "deepspeed",
    "fsdp",
    "device_map",
    "trust_remote_code",
)


class Unknown:
    """The type of ``UNKNOWN``: a value that is there but cannot be known without running it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        msg = "UNKNOWN is neither true nor false"
        raise TypeError(msg)

    def __reduce__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


def holds_unknown(value: object) -> bool:
    """Whether a value, or any part of it, is ``UNKNOWN``."""
    if isinstance(value, dict):
        return any(holds_unknown(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(holds_unknown(part) for part in value)
    return value is UNKNOWN


class Field(NamedTuple):
    """A value of a recipe with its origin.

    ``written``: stands in the file, at ``path``. ``default``: the framework's own, ``detail`` names
    the source. ``computed``: follows from other written values, ``path`` names one of them.
    ``unset``: absent and without a default. ``unknown``: cannot be known statically, ``detail``
    says why. ``value`` is None for the last two. ``sure`` is False where the run may have another
    value: the default of a command-line option, the only model that a file loads.
    """

    value: object
    origin: Origin
    path: KeyPath | None = None
    detail: str | None = None
    sure: bool = True


# The default of mappings that nobody changes.
NOTHING: Final[Mapping[str, Any]] = {}
UNSET: Final = Field(None, "unset")


class StrayKey(NamedTuple):
    """A written key that the framework does not know.

    ``effect`` says what the framework does with it; ``known`` are the keys it could have been,
    ``complete`` whether these are all keys of all releases. ``words`` are those of its refusal
    where they are not the dialect's.
    """

    path: KeyPath
    name: str
    effect: Literal["rejected", "ignored", "unclear"]
    known: tuple[str, ...] = ()
    complete: bool = False
    words: str = ""


class Misfit(NamedTuple):
    """A written value that the framework's own loader refuses.

    ``types`` are the ones it takes, in JSON Schema's words; ``choices`` the values, if it names
    them.
    """

    path: KeyPath
    name: str
    value: object
    types: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Recipe:
    """One LoRA run, framework-independent.

    ``part`` is the document of a YAML stream or the cell of a notebook in which it stands, ``path``
    leads to its mapping or call. ``model_class`` is the class or Auto class that the file names for
    its model. ``trains`` is False for an ``adapter_config.json``, which describes a finished
    adapter. ``switch`` is the key that turns LoRA on and ``adapter`` is False where it is off, so
    that the LoRA settings do nothing. ``stray`` and ``misfits`` are keys and values that the
    framework does not take. ``objective`` is what is trained for where the file says so
    (``sft``, ``dpo``, ``grpo``, ``rm``, ...). ``private`` holds what only the dialect's own
    ``lower`` needs to know, and what is otherwise in its runs than in others'.
    """

    dialect: str
    part: int
    path: KeyPath
    fields: Mapping[str, Field]
    stray: tuple[StrayKey, ...] = ()
    misfits: tuple[Misfit, ...] = ()
    model_class: str | None = None
    trains: bool = True
    adapter: bool = True
    switch: str | None = None
    objective: str | None = None
    private: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Field:
        return self.fields.get(name, UNSET)

    def value(self, name: str) -> object:
        """The value a field has, ``None`` where it is unset, ``UNKNOWN`` where it is not static."""
        found = self.fields.get(name, UNSET)
        return UNKNOWN if found.origin == "unknown" else found.value

    def written(self, name: str) -> bool:
        """Whether the file itself states this field."""
        return self.fields.get(name, UNSET).origin in ("written", "computed")
