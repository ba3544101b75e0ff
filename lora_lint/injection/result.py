"""What PEFT does with a config on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from lora_lint.recipe import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping


class PeftWarning(NamedTuple):
    """A warning that PEFT emits."""

    category: str
    message: str


class PeftError(NamedTuple):
    """An exception that PEFT raises: when, its class, its message."""

    stage: Literal["config", "inject"]
    type: str
    message: str


class Adapted(NamedTuple):
    """What one module or parameter gets: ``parameters`` counts its adapter's parameters."""

    r: int
    alpha: float
    scale: float
    kind: str
    parameters: int


# The config fields whose entries may have no effect.
ENTRY_FIELDS = (
    "target_modules",
    "target_parameters",
    "modules_to_save",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
)
_ALL_MATCHED: Final[Mapping[str, tuple[object, ...]]] = dict.fromkeys(ENTRY_FIELDS, ())


class Injection(NamedTuple):
    """The outcome of ``get_peft_model(model, LoraConfig(**config))``.

    ``modules`` and ``parameters`` are the adapted ones by their names in the base model, ``saved``
    those under a ModulesToSaveWrapper, ``tokens`` those with trainable tokens. ``trainable`` and
    ``total`` are PeftModel.get_nb_trainable_parameters() on the unquantized model. ``unmatched``
    maps each field to its entries that had no effect. With an ``error`` the lists are empty and the
    counts None; ``undecided`` says why PEFT's answer can't be known.
    """

    modules: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    trainable: int | None = None
    total: int | None = None
    adapted: Mapping[str, Adapted] = NOTHING
    unmatched: Mapping[str, tuple[object, ...]] = _ALL_MATCHED
    warnings: tuple[PeftWarning, ...] = ()
    error: PeftError | None = None
    undecided: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The injection as the JSON of ``lora-lint show``."""
        return {
            "modules": list(self.modules),
            "parameters": list(self.parameters),
            "saved": list(self.saved),
            "tokens": list(self.tokens),
            "trainable": self.trainable,
            "total": self.total,
            "adapted": {name: entry._asdict() for name, entry in self.adapted.items()},
            "unmatched": {name: list(entries) for name, entries in self.unmatched.items()},
            "warnings": [warning._asdict() for warning in self.warnings],
            "error": self.error._asdict() if self.error else None,
            "undecided": self.undecided,
        }
