"""Runs real PEFT on a case and compares its answer with ``lora_lint.inject``."""

from __future__ import annotations

import copy
import json
import re
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lora_lint.injection import Injection

_STEPS = re.compile(
    r"\.(?:original_module|modules_to_save(?:\.default)?|token_adapter|base_layer)(?=\.|$)"
)
_UNMATCHED_PATTERNS = re.compile(r"The following (\w+) keys did not match any targeted module")
# Sets and lists in a message, whose order is not fixed, and the whole of what quotes them.
_LISTED = re.compile(r"target_modules=.*? were set|Target modules .*? not found|: [\[{].*?[\]}]")
# What releases word differently.
_WORDING = re.compile(
    r" You may also have only targeted modules .*?\(`modules_to_save`\)\."
    r"| Check your `target_modules`.*? configuration\."
)
NOTHING_MATCHED = (
    "not found in the base model. Please check",
    "All modules were excluded.",
    "No `target_modules` passed",
    "No modules were targeted",
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
    ranks: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)


def ask_peft(model: nn.Module, config: dict[str, Any], source: str = "kwargs") -> Answer:
    """The answer of the installed PEFT; the model is changed.

    With the source ``adapter_config`` the config is written to a file that PEFT loads.
    """
    from peft import LoraConfig, get_peft_model

    config = copy.deepcopy(config)
    stage = "config"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            lora = _loaded(config) if source == "adapter_config" else LoraConfig(**config)
            stage = "inject"
            peft_model = get_peft_model(model, lora)
        except Exception as exc:  # noqa: BLE001 - whatever it raises is the answer
            return Answer(error=type(exc).__name__, message=str(exc), stage=stage)
    answer = _read(peft_model)
    answer.warned = sorted({str(warning.message) for warning in caught})
    return answer


def _loaded(config: dict[str, Any]) -> Any:
    from peft import LoraConfig

    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps({"peft_type": "LORA", **config})
        Path(folder, "adapter_config.json").write_text(text, encoding="utf-8")
        return LoraConfig.from_pretrained(folder)


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
    layers = ((n, m) for n, m in tuner.model.named_modules() if isinstance(m, _layer_class()))
    return Answer(
        modules=sorted(targeted),
        parameters=sorted(getattr(tuner, "targeted_parameter_names", ())),
        saved=sorted(saved),
        tokens=sorted(tokens),
        trainable=trainable,
        total=total,
        scales=scales,
        ranks={n: (m.r.get("default"), m.lora_alpha.get("default")) for n, m in layers},
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
    inner = tuner
    while type(inner).__name__ == "ModulesToSaveWrapper":  # where "model" is to be saved
        inner = inner.original_module
    if "targeted_module_names" in inner.__dict__:
        return list(inner.targeted_module_names)
    names = (n for n, m in tuner.model.named_modules() if isinstance(m, _layer_class()))
    originals = (name for name in names if ".modules_to_save" not in f".{name}")
    return list(dict.fromkeys(_STEPS.sub("", f".{name}")[1:] for name in originals))


def _layer_class() -> Any:
    from peft.tuners import lora

    return getattr(lora, "LoraLayer", None) or lora.layer.LoraLayer


def nothing_matched(answer: Answer) -> bool:
    """Whether PEFT raised since nothing is a target."""
    return answer.error is not None and any(text in answer.message for text in NOTHING_MATCHED)


def differences(real: Answer, predicted: Injection) -> list[str]:
    """How a prediction differs from PEFT's answer; none if it is right.

    Each begins with the name of what differs.
    """
    if predicted.undecided:
        return [f"undecided: {predicted.undecided}"]
    error = predicted.error.type if predicted.error else None
    if real.error or error:
        return _different_errors(real, predicted)
    found = []
    for name in ("modules", "parameters", "saved", "tokens", "trainable", "total"):
        theirs, ours = getattr(real, name), getattr(predicted, name)
        ours = list(ours) if isinstance(ours, tuple) else ours
        if theirs != ours:
            found.append(f"{name}: peft {_short(theirs)}, predicted {_short(ours)}")
    for name, (r, alpha, scale) in real.scales.items():
        entry = predicted.adapted.get(name)
        if entry is None or (entry.r, entry.alpha) != (r, alpha) or abs(entry.scale - scale) > 1e-9:
            found.append(f"scales: of {name} peft {(r, alpha, scale)}, predicted {entry}")
            break
    theirs, ours = (
        {m.group(1) for m in map(_UNMATCHED_PATTERNS.match, messages) if m}
        for messages in (real.warned, [w.message for w in predicted.warnings])
    )
    if theirs != ours:
        found.append(f"warnings: peft of {sorted(theirs)}, predicted of {sorted(ours)}")
    return found


def _different_errors(real: Answer, predicted: Injection) -> list[str]:
    if predicted.error is None or real.error is None:
        text = f"peft {real.error} ({real.message[:200]}), predicted {predicted.error}"
        return [f"verdict: {text}"]
    if real.error != predicted.error.type:
        text = f"peft {real.error} ({real.message[:200]}), predicted {predicted.error}"
        return [f"exception: {text}"]
    stage = predicted.error.stage
    if stage != real.stage:
        return [f"exception: peft raises at {real.stage}, predicted at {stage}"]
    # Why nothing matched is what a user reads, so it is compared too.
    if nothing_matched(real):
        theirs, ours = (
            _WORDING.sub("", _LISTED.sub("", message)).strip()
            for message in (real.message, predicted.error.message)
        )
        if theirs != ours:
            return [f"exception: peft says {theirs!r}, predicted {ours!r}"]
    return []


def _short(value: Any) -> str:
    return str(value) if not isinstance(value, list) else f"{len(value)} {value[:6]}"
