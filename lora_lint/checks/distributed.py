"""TR, CF: what DeepSpeed, FSDP and several processes ask of the run, in the files it names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Note
from lora_lint.neighbours import Missing, Section, zero_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.diagnostics import Severity

# Folders of settings that come with a framework, and stand where it is started, not here:
# `axolotl fetch deepspeed_configs`, a checkout of LLaMA-Factory.
_SHIPPED: Final = ("deepspeed_configs", "examples")


class _Pair(NamedTuple):
    """A value of DeepSpeed's and the argument that it must agree with.

    ``default`` is what TrainingArguments takes where the argument is not written, None where that
    is not compared.
    """

    key: tuple[str, ...]
    fields: tuple[str, ...]
    default: object = None


# transformers 5.23.0 integrations/deepspeed.py, trainer_config_process and trainer_config_finalize;
# 4.57.6 compares the same. What depends on the number of processes or of steps is not here.
_PAIRS: Final = (
    _Pair(("train_micro_batch_size_per_gpu",), ("per_device_train_batch_size",), 8),
    _Pair(("gradient_accumulation_steps",), ("gradient_accumulation_steps",), 1),
    _Pair(("gradient_clipping",), ("max_grad_norm",), 1.0),
    _Pair(("optimizer", "params", "lr"), ("learning_rate",), 5e-5),
    _Pair(("optimizer", "params", "betas"), ("adam_beta1", "adam_beta2")),
    _Pair(("optimizer", "params", "eps"), ("adam_epsilon",), 1e-8),
    _Pair(("optimizer", "params", "weight_decay"), ("weight_decay",), 0.0),
    _Pair(("scheduler", "params", "warmup_max_lr"), ("learning_rate",), 5e-5),
    _Pair(("scheduler", "params", "warmup_num_steps"), ("warmup_steps",)),
    _Pair(("fp16", "enabled"), ("fp16",), False),
    _Pair(("bf16", "enabled"), ("bf16",), False),
)
# Arguments beside which these are not compared as they stand.
_LOOSENS: Final = {
    "per_device_train_batch_size": ("auto_find_batch_size",),
    "fp16": ("full_eval",),
    "bf16": ("full_eval", "bfloat16:"),
}
# Dialects whose files are TrainingArguments themselves, so that what they leave out is known.
_PLAIN_ARGUMENTS: Final = ("llama_factory",)


@check("CF012")
def referenced_file_missing(subject: RecipeSubject) -> Iterator[Finding]:
    """A file of settings that the run names is not there."""
    for field, settings in (
        ("deepspeed", subject.deepspeed),
        ("fsdp_config", subject.fsdp_settings),
    ):
        if not isinstance(settings, Missing):
            continue
        path = Path(settings.name)
        if path.is_absolute() or path.parts[0] in _SHIPPED:
            continue
        yield Finding(
            f"{field}: {settings.name} is not there, neither beside this file nor above it",
            field=field,
            severity=None if settings.near or (settings.folder and len(path.parts) > 1) else "info",
            label=f"did you mean `{path.parent / settings.near}`?" if settings.near else None,
            help="a relative path starts from the folder that the run is started in",
        )
    if isinstance(subject.accelerate, Missing):
        from lora_lint.neighbours import accelerate_option

        missing, option = subject.accelerate, accelerate_option(subject.document, subject.recipe)
        yield Finding(
            f"config_file: {missing.name} is not there, neither beside this file nor above it",
            span=option.span if option is not None else None,
            severity=None if missing.near else "info",
            label=f"did you mean `{missing.near}`?" if missing.near else None,
            help="a relative path starts from the folder that the run is started in",
        )


@check("TR609")
def deepspeed_and_fsdp(subject: RecipeSubject) -> Iterator[Finding]:
    """DeepSpeed and FSDP are both on."""
    if not _is_on(subject, "deepspeed") or not _is_on(subject, "fsdp"):
        return
    yield Finding(
        "deepspeed and fsdp are both set",
        field="deepspeed",
        severity=None if subject.run_is_certain else "warning",
        notes=(Note("", "fsdp"),),
        help='transformers stops with "Using --fsdp xxx together with --deepspeed is not possible"',
    )


def _is_on(subject: RecipeSubject, name: str) -> bool:
    """Whether the file states a field and it is not empty or false."""
    return subject.states(name) and subject.value(name) not in (None, False, "", [], {})


@check("TR610")
def deepspeed_value_mismatch(subject: RecipeSubject) -> Iterator[Finding]:
    """DeepSpeed's settings and the training arguments say different things."""
    settings = subject.deepspeed
    if not isinstance(settings, Section):
        return
    for pair in _PAIRS:
        wanted = settings.value(*pair.key)
        if wanted is None or wanted == "auto" or not _is_plain(wanted):
            continue
        if settings.inline and isinstance(wanted, str):
            continue  # 1e-4 is a number or a text, by the framework's loader
        values = [_argument(subject, pair, name) for name in pair.fields]
        ours: object = values[0] if len(values) == 1 else values
        if None in values or wanted == ours:
            continue
        yield _mismatch(subject, settings, pair.key, pair.fields[0], (wanted, ours))
    yield from _batch(subject, settings)


def _argument(subject: RecipeSubject, pair: _Pair, name: str) -> object:
    """The value of a training argument, None where it is not known."""
    field, value = subject.recipe[name], subject.value(name)
    if any(word in subject.document.text for word in _LOOSENS.get(name, ())):
        return None
    if name == "fp16" and subject.dialect.name == "axolotl":
        other = subject.value("bf16")  # fp16 and not bf16 (axolotl 0.19.0 core/builders/base.py)
        return value and not other if isinstance(value, bool) and isinstance(other, bool) else None
    if subject.states(name):
        if name == "warmup_steps" and (not isinstance(value, int) or value < 1):
            return None  # a share of the steps, or none
        return value if _is_plain(value) and not isinstance(value, str) else None
    if field.origin == "unknown" or subject.dialect.name not in _PLAIN_ARGUMENTS:
        return None
    return pair.default


def _batch(subject: RecipeSubject, settings: Section) -> Iterator[Finding]:
    """``train_batch_size`` must be a multiple of what one process trains in a step."""
    whole = settings.value("train_batch_size")
    parts = [
        _argument(subject, pair, pair.fields[0])
        for pair in _PAIRS
        if pair.key[0] in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    ]
    if not _is_count(whole) or not all(_is_count(part) for part in parts):
        return
    product = math.prod(part for part in parts if isinstance(part, int))
    if isinstance(whole, int) and whole % product:
        key, field = ("train_batch_size",), "per_device_train_batch_size"
        yield _mismatch(subject, settings, key, field, (whole, f"processes x {product}"))


def _mismatch(
    subject: RecipeSubject,
    settings: Section,
    key: tuple[str, ...],
    field: str,
    values: tuple[object, object],
) -> Finding:
    told = _spelled(subject, field)
    dotted = ".".join(key)
    stated = subject.states(field)
    ours = _short(values[1]) if stated else f"{_short(values[1])}, its default"
    return Finding(
        f"{dotted}: {_short(values[0])} in {settings.name} contradicts {told}: {ours}",
        field=field if stated else "deepspeed",
        severity=_severity(subject, settings),
        notes=(settings.note(f"{dotted} here", *key),),
        help='transformers stops with "Please correct the following DeepSpeed config values that '
        'mismatch TrainingArguments values"; "auto" there takes the argument\'s value',
    )


def _severity(subject: RecipeSubject, settings: Section) -> Severity | None:
    return None if settings.sure and subject.run_is_certain else "warning"


def _spelled(subject: RecipeSubject, field: str) -> str:
    """A field in the words of the file."""
    path = subject.recipe[field].path
    slot = subject.dialect.slots.get(field)
    return str(path[-1] if path else slot.path[-1] if slot else field)


def _short(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_plain(value: object) -> bool:
    """Whether a value is a number, a boolean, a text or a list of these: known throughout."""
    if isinstance(value, list):
        return all(_is_plain(part) for part in value)
    return isinstance(value, bool | int | float | str)


@check("TR606")
def reentrant_checkpointing_ddp(subject: RecipeSubject) -> Iterator[Finding]:
    """Reentrant checkpointing under DDP, which looks for unused parameters."""
    settings = subject.value("gradient_checkpointing_kwargs")
    reentrant = isinstance(settings, dict) and settings.get("use_reentrant") is True
    if not reentrant or subject.value("gradient_checkpointing") in (None, False):
        return
    if any(_is_on(subject, name) for name in ("deepspeed", "fsdp", "device_map")):
        return
    if subject.value("ddp_find_unused_parameters") is not True:
        return
    yield Finding(
        "use_reentrant: true with ddp_find_unused_parameters: true stops a run of several "
        "processes",
        field="gradient_checkpointing_kwargs",
        notes=(Note("", "ddp_find_unused_parameters"),),
        help='DDP says "Expected to mark a variable ready only once"; use_reentrant: false works',
    )


@check("TR607")
def zero3_non_reentrant_qlora(subject: RecipeSubject) -> Iterator[Finding]:
    """ZeRO-3, 4-bit weights and checkpointing that is not reentrant."""
    if subject.dialect.name != "axolotl":
        return  # TRL turns it back
    settings = subject.value("gradient_checkpointing_kwargs")
    reentrant = settings.get("use_reentrant") if isinstance(settings, dict) else None
    if reentrant is not False or subject.value("gradient_checkpointing") in (None, False):
        return
    if subject.value("quantization") in ("nf4", "fp4") and zero_stage(subject.deepspeed) == 3:
        yield Finding(
            "4-bit weights under ZeRO-3 with use_reentrant: false",
            field="gradient_checkpointing_kwargs",
            notes=_stage_note(subject.deepspeed),
            help="Axolotl warns of a CheckpointError about recomputed values here",
        )


def _stage_note(settings: Section | Missing | None) -> tuple[Note, ...]:
    if not isinstance(settings, Section):
        return ()
    return (settings.note("ZeRO stage 3", "zero_optimization", "stage"),)
