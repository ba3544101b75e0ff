"""The process that builds a model for ``live.py``: a request on its input, the tree on its output.

It needs torch and transformers, and runs nothing that the request brings: classes are those of
transformers, weights and kernels are not looked for, connections are refused.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_lint.models.module_tree import ModuleTree


class _Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The request can't be fulfilled; the message says why."""


def main() -> None:
    """Answer one request: ``{"values", "cls", "task", "memory"}`` gives ``{"tree"}`` or
    ``{"reason"}``.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not the answer
    request = json.load(sys.stdin)
    sys.addaudithook(_no_network)
    _limit(request["memory"])
    try:
        answer = {"tree": build(request["values"], request["cls"], request["task"]).to_json()}
    except _Refused as exc:
        answer = {"reason": str(exc)}
    except MemoryError:
        answer = {"reason": f"it takes more than {request['memory'] / 2**30:.0f} GiB to build"}
    except Exception as exc:  # noqa: BLE001 - whatever a class of transformers raises
        answer = {"reason": f"transformers can't build it: {_in_words(exc)}"}
    json.dump(answer, answers)
    answers.close()


def _no_network(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise OSError("the build has no network")


def _limit(memory: int) -> None:
    """Let a model that can't be built fail alone; Windows has no such limit."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    except (ImportError, OSError, ValueError):
        return


def _in_words(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text[:300]}" if text else type(exc).__name__


def build(values: dict[str, Any], cls: str | None, task: str | None) -> ModuleTree:
    """The tree of a config for a class or PEFT's task type.

    Raises ``_Refused``, or whatever the model's class raises.
    """
    warnings.filterwarnings("ignore")
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from lora_lint.models.from_model import read_model
    from lora_lint.models.resolve import Unresolved, class_for

    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        message = f"transformers {transformers.__version__} has no model type {model_type!r:.80}"
        raise _Refused(message)
    config = CONFIG_MAPPING[model_type].from_dict(values)
    names = values.get("architectures")
    own = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    tasks = _tasks(model_type)
    for name in (cls, own):
        if name is not None and _builds(name, config):
            tasks.setdefault(name, [])
    chosen = class_for(model_type, tasks, own, cls=cls, task=task)
    if isinstance(chosen, Unresolved):
        release = f"transformers {transformers.__version__}"
        raise _Refused(chosen.reason.replace("the catalogue", release, 1))
    model_class = getattr(transformers, chosen)
    # As transformers 5.23 _BaseAutoModelClass.from_config: a text model takes the text part.
    if model_class.config_class == getattr(config, "sub_configs", {}).get("text_config"):
        config = config.get_text_config()
    with torch.device("meta"):
        return read_model(model_class._from_config(config))  # noqa: SLF001


def _tasks(model_type: str) -> dict[str, list[str]]:
    """The classes of a model type, with the auto classes that lead to each, without
    ``AutoModelFor``.
    """
    import transformers

    found: dict[str, list[str]] = {}
    for name in sorted(dir(transformers)):
        if not name.startswith("AutoModel"):
            continue
        mapping = getattr(getattr(transformers, name), "_model_mapping", None)
        classes = getattr(mapping, "_model_mapping", {}).get(model_type, ())
        task = name.removeprefix("AutoModel").removeprefix("For")
        for index, cls in enumerate((classes,) if isinstance(classes, str) else classes):
            tasks = found.setdefault(cls, [])
            if index == 0:
                tasks.append(task)
    return found


def _builds(name: str, config: Any) -> bool:
    """Whether a name is that of a model class of transformers for such a config."""
    import transformers

    cls = getattr(transformers, name, None)
    if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedModel):
        return False
    return cls.config_class is not None and isinstance(config, cls.config_class)
