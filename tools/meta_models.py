"""Builds transformers models on the meta device, where they have shapes and no memory."""

from __future__ import annotations

import os
import re
import resource
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pytorch_utils import Conv1D

from lora_lint.models.from_model import read_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.models.module_tree import Grade, ModuleTree

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
warnings.filterwarnings("ignore")


def limit_process() -> None:
    """Let a model that can't be built fail alone: at 8 GiB of memory, not the whole machine's."""
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise ``TimeoutError`` where a block takes longer."""

    def stop(*_: object) -> None:
        msg = f"more than {seconds} s"
        raise TimeoutError(msg)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def config_of(model_type: str, values: dict[str, Any] | None = None) -> Any:
    """A config object of a model type, the default one without values."""
    cls = CONFIG_MAPPING[model_type]
    return cls() if values is None else cls.from_dict(values)


def build(cls: str, config: Any) -> Any:
    """A model of a class on the meta device.

    As transformers 5.23 ``_BaseAutoModelClass.from_config`` does, a class for text models takes the
    text part of a multimodal config. Raises whatever the class raises.
    """
    model_class = getattr(transformers, cls)
    if model_class.config_class == getattr(config, "sub_configs", {}).get("text_config"):
        config = config.get_text_config()
    with torch.device("meta"):
        model = model_class._from_config(config)
    if transformers.__version__.startswith("5.0."):
        # This release alone ties nothing on the meta device (modeling_utils.py ``init_weights``),
        # and from_pretrained does so later.
        model.tie_weights(recompute_mapping=False)
    return model


def read(cls: str, config: Any, grade: Grade) -> ModuleTree:
    """The module tree of a class under a config."""
    return read_model(build(cls, config), grade)


def auto_classes() -> dict[str, dict[str, list[str]]]:
    """Model type -> class -> the auto classes that lead to it, without ``AutoModelFor``.

    Where an auto class offers several classes for a model type it takes the first, unless the
    config's ``architectures`` names another.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(dir(transformers)):
        auto = getattr(transformers, name) if name.startswith("AutoModel") else None
        names = getattr(getattr(auto, "_model_mapping", None), "_model_mapping", {})
        task = name.removeprefix("AutoModel").removeprefix("For")
        for model_type, classes in names.items():
            for index, cls in enumerate((classes,) if isinstance(classes, str) else classes):
                tasks = found.setdefault(model_type, {}).setdefault(cls, [])
                if index == 0:
                    tasks.append(task)
    return found


def patterns(model: Any) -> set[str]:
    """What PEFT can adapt in a model: module and parameter names, numbers as ``*``."""
    return set(_adaptable(model))


def _adaptable(model: Any) -> Iterator[str]:
    adaptable = (
        torch.nn.Linear,
        torch.nn.Embedding,
        torch.nn.Conv1d,
        torch.nn.Conv2d,
        torch.nn.Conv3d,
        torch.nn.MultiheadAttention,
        Conv1D,
    )
    for name, module in model.named_modules():
        if isinstance(module, adaptable):
            yield numberless(name)
        else:
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.ndim > 1:
                    yield numberless(f"{name}.{key}")


def numberless(name: str) -> str:
    """A module's name with ``*`` for its numbers."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)
