"""ai-toolkit's YAML and JSON, for models that make images and videos.

Read in ostris/ai-toolkit (no releases): toolkit/config_modules.py ``NetworkConfig``,
``TrainConfig`` and ``ModelConfig`` for keys and defaults, which take any other key in silence;
toolkit/lora_special.py ``LoRASpecialNetwork``: with a model that is a transformer the scale is
always 1, whatever alpha says; jobs/process/BaseSDTrainProcess.py: the model is loaded in the dtype
of training. Each process of a job is a run of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.dialects.base import (
    AS_WRITTEN,
    Codec,
    Default,
    Dialect,
    LoraKwargs,
    Slot,
    Undecided,
    plain_float,
    read_node,
    read_slots,
)
from lora_lint.recipe import UNSET, Field, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.documents.tree import Node
    from lora_lint.models import ModuleTree

_DTYPES: Final = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "float": "float32",
}
_OPTIMIZERS: Final = {"adamw": "adamw_torch", "adamw8bit": "adamw_8bit", "adafactor": "adafactor"}


def _of(names: dict[str, str]) -> Codec:
    """A codec between ai-toolkit's words and transformers'."""
    back = {long: short for short, long in reversed(names.items())}

    def decode(value: Any) -> Any:
        return names.get(value.lower(), value) if isinstance(value, str) else value

    return Codec(decode, lambda value: back.get(value, value))


_KEYS: Final[dict[str, tuple[KeyPath, Codec]]] = {
    "r": (("network", "linear"), AS_WRITTEN),
    "lora_alpha": (("network", "linear_alpha"), AS_WRITTEN),
    "lora_dropout": (("network", "dropout"), AS_WRITTEN),
    "base_model": (("model", "name_or_path"), AS_WRITTEN),
    "dtype": (("train", "dtype"), _of(_DTYPES)),
    "per_device_train_batch_size": (("train", "batch_size"), AS_WRITTEN),
    "gradient_accumulation_steps": (("train", "gradient_accumulation_steps"), AS_WRITTEN),
    "gradient_checkpointing": (("train", "gradient_checkpointing"), AS_WRITTEN),
    "optim": (("train", "optimizer"), _of(_OPTIMIZERS)),
    "learning_rate": (("train", "lr"), AS_WRITTEN),
}
_CONFIG: Final = "ai-toolkit toolkit/config_modules.py"
_DEFAULTS: Final = {
    "r": Default(4, _CONFIG),
    "lora_dropout": Default(0.0, _CONFIG),
    "dtype": Default("float32", _CONFIG),
    "per_device_train_batch_size": Default(1, _CONFIG),
    "gradient_accumulation_steps": Default(1, _CONFIG),
    "gradient_checkpointing": Default(True, _CONFIG),
    "optim": Default("adamw_torch", _CONFIG),
    "learning_rate": Default(1e-6, _CONFIG),
}
_JOBS: Final = ("extension", "train")
# Models with a U-Net, for which alpha counts, by the keys of the section ``model`` that say so.
_UNET_SWITCHES: Final = ("is_v2", "is_xl", "is_ssd", "is_vega")
_UNET_ARCHS: Final = ("sd", "sd1", "sd2", "sdxl", "ssd", "vega")


def find(document: Document) -> Iterator[tuple[int, KeyPath]]:
    """The processes of a job that train a LoRA network."""
    if document.format not in ("yaml", "json"):
        return
    for part, root in enumerate(document.parts):
        job, processes = root.node.get("job"), root.node.at(("config", "process"))
        if job is None or job.value not in _JOBS or processes is None:
            continue
        for number, process in enumerate(processes.items):
            network = process.get("network")
            if network is None or network.kind != "mapping" or process.get("model") is None:
                continue
            kind = network.get("type")
            if kind is None or str(kind.value).lower() in ("lora", "locon"):
                yield part, ("config", "process", number)


def read(document: Document, part: int, path: KeyPath) -> Recipe:
    """A recipe of a process."""
    process = document.parts[part].node.at(path)
    assert process is not None  # noqa: S101 - find() gave the path
    fields = read_slots(process, path, DIALECT.slots, DIALECT.defaults, null_is_absent=True)
    rank = process.at(("network", "rank"))
    if rank is not None and rank.value is not None:  # which wins over `linear`
        fields["r"] = read_node(rank, (*path, "network", "rank"))
    fields["lora_alpha"] = _alpha(process, path, fields.get("lora_alpha", UNSET))
    fields["learning_rate"] = plain_float(fields["learning_rate"], process.at(("train", "lr")))
    fields["quantization"] = _quantization(process, path)
    return Recipe(dialect="ai_toolkit", part=part, path=path, fields=fields)


def _alpha(process: Node, path: KeyPath, written: Field) -> Field:
    model = process.get("model")
    if model is None or not _has_unet(model):
        why = "ai-toolkit takes no alpha for a transformer: the scale is 1"
        return Field(None, "unknown", written.path, why)
    if written.origin != "unset":
        return written
    older = process.at(("network", "alpha"))
    if older is not None:
        return read_node(older, (*path, "network", "alpha"))
    return Field(1.0, "default", None, _CONFIG)


def _has_unet(model: Node) -> bool:
    """Whether a model is one of Stable Diffusion's; one that says nothing is."""
    arch = model.get("arch")
    if arch is not None and arch.value is not None:
        return arch.value in _UNET_ARCHS
    others = [key for key in model.keys() if key.startswith("is_") and key not in _UNET_SWITCHES]
    return not any((node := model.get(key)) is not None and node.value for key in others)


def _quantization(process: Node, path: KeyPath) -> Field:
    switch = process.at(("model", "quantize"))
    if switch is None or switch.value in (None, False):
        return Field("none", "default", None, _CONFIG)
    return Field(None, "unknown", (*path, "model", "quantize"), "quantized with optimum-quanto")


def lower(recipe: Recipe, tree: ModuleTree | None) -> LoraKwargs | Undecided:  # noqa: ARG001
    """ai-toolkit has its own LoRA modules, and its own list of classes that get them."""
    return Undecided("ai-toolkit chooses the layers itself, by their classes")


DIALECT: Final = Dialect(
    name="ai_toolkit",
    title="ai-toolkit",
    find=find,
    read=read,
    lower=lower,
    slots={name: Slot(name, path, codec) for name, (path, codec) in _KEYS.items()},
    defaults=_DEFAULTS,
    applied_by="ai-toolkit",
)
