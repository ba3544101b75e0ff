"""Runs real PEFT on a case and compares its answer with ``lora_lint.inject``."""

from __future__ import annotations

import copy
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lora_lint.injection import Injection

_STEPS = re.compile(
    r"\.(?:original_module|modules_to_save|default|token_adapter|base_layer)(?=\.|$)"
)


@dataclass
class Answer:
    """What PEFT did, reduced to what is compared."""

    error: str | None = None
    message: str = ""
    stage: str | None = None
    modules: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    trainable: int | None = None
    total: int | None = None
    scales: dict[str, tuple[Any, Any, float]] = field(default_factory=dict)


def ask_peft(model: nn.Module, config: dict[str, Any], source: str = "kwargs") -> Answer:
    """The answer of the installed PEFT; the model is changed."""
    from peft import LoraConfig, PeftConfig, get_peft_model

    config = copy.deepcopy(config)
    stage = "config"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if source == "adapter_config":
                lora = PeftConfig.from_peft_type(**{"peft_type": "LORA", **config})
            else:
                lora = LoraConfig(**config)
            stage = "inject"
            peft_model = get_peft_model(model, lora)
        except Exception as exc:  # noqa: BLE001 - whatever it raises is the answer
            return Answer(error=type(exc).__name__, message=str(exc), stage=stage)
    return _read(peft_model)


def _read(peft_model: Any) -> Answer:
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    tuner = peft_model.base_model
    trainable, total = peft_model.get_nb_trainable_parameters()
    wrapped: dict[type, set[str]] = {ModulesToSaveWrapper: set(), TrainableTokensWrapper: set()}
    for name, module in tuner.model.named_modules():
        if type(module) in wrapped:
            wrapped[type(module)].add(_STEPS.sub("", f".{name}")[1:])
    scales = {}
    for name in tuner.targeted_module_names:
        try:
            layer = tuner.model.get_submodule(name)
        except AttributeError:
            continue
        if hasattr(layer, "scaling"):
            key = "default"
            scales[name] = (layer.r[key], layer.lora_alpha[key], layer.scaling[key])
    return Answer(
        modules=sorted(tuner.targeted_module_names),
        parameters=sorted(tuner.targeted_parameter_names),
        saved=sorted(wrapped[ModulesToSaveWrapper]),
        tokens=sorted(wrapped[TrainableTokensWrapper]),
        trainable=trainable,
        total=total,
        scales=scales,
    )


def differences(real: Answer, predicted: Injection) -> list[str]:
    """How a prediction differs from PEFT's answer; none if it is right."""
    if predicted.undecided:
        return [f"undecided: {predicted.undecided}"]
    error = predicted.error.type if predicted.error else None
    if real.error or error:
        if real.error != error:
            return [
                f"raises: peft {real.error} ({real.message[:200]}), predicted {predicted.error}"
            ]
        stage = predicted.error.stage if predicted.error else None
        return [] if stage == real.stage else [f"stage: peft {real.stage}, predicted {stage}"]
    found = []
    for name in ("modules", "parameters", "saved", "tokens", "trainable", "total"):
        theirs, ours = getattr(real, name), getattr(predicted, name)
        ours = list(ours) if isinstance(ours, tuple) else ours
        if theirs != ours:
            found.append(f"{name}: peft {_short(theirs)}, predicted {_short(ours)}")
    for name, (r, alpha, scale) in real.scales.items():
        entry = predicted.adapted.get(name)
        if entry is None or (entry.r, entry.alpha) != (r, alpha) or abs(entry.scale - scale) > 1e-9:
            found.append(f"scale of {name}: peft {(r, alpha, scale)}, predicted {entry}")
            break
    return found


def _short(value: Any) -> str:
    return str(value) if not isinstance(value, list) else f"{len(value)} {value[:6]}"
