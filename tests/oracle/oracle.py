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
    r"\.(?:original_module|modules_to_save(?:\.default)?|token_adapter|base_layer)(?=\.|$)"
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
    from peft.utils import other

    tuner = peft_model.base_model
    trainable, total = _count(peft_model)
    saved, tokens = set(), set()
    for name, module in tuner.model.named_modules():
        if type(module) is other.ModulesToSaveWrapper:
            saved.add(_STEPS.sub("", f".{name}")[1:])
        elif type(module) is getattr(other, "TrainableTokensWrapper", None):
            tokens.add(_STEPS.sub("", f".{name}")[1:])
    targeted = _targeted(tuner)
    scales = {}
    for name in targeted:
        try:
            layer = tuner.model.get_submodule(name)
        except AttributeError:
            continue
        key = "default"
        if key in getattr(layer, "scaling", ()):  # before 0.6 a rank of 0 leaves no scale
            scales[name] = (layer.r[key], layer.lora_alpha[key], layer.scaling[key])
    return Answer(
        modules=sorted(targeted),
        parameters=sorted(getattr(tuner, "targeted_parameter_names", ())),
        saved=sorted(saved),
        tokens=sorted(tokens),
        trainable=trainable,
        total=total,
        scales=scales,
    )


def _count(peft_model: Any) -> tuple[int, int]:
    """Trainable and all parameters; PEFT 0.4 only prints them."""
    if hasattr(peft_model, "get_nb_trainable_parameters"):
        trainable, total = peft_model.get_nb_trainable_parameters()
        return trainable, total
    parameters = [(p.numel(), p.requires_grad) for _, p in peft_model.named_parameters()]
    return sum(n for n, trained in parameters if trained), sum(n for n, _ in parameters)


def _targeted(tuner: Any) -> list[str]:
    """The names of the adapted modules; before 0.8 PEFT keeps no list of them."""
    if "targeted_module_names" in tuner.__dict__:
        return list(tuner.targeted_module_names)
    from peft.tuners import lora

    layer = getattr(lora, "LoraLayer", None) or lora.layer.LoraLayer
    names = (n for n, m in tuner.model.named_modules() if isinstance(m, layer))
    originals = (name for name in names if ".modules_to_save" not in f".{name}")
    return list(dict.fromkeys(_STEPS.sub("", f".{name}")[1:] for name in originals))


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
