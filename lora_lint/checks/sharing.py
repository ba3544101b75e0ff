"""How several processes share a run, by the settings of DeepSpeed, FSDP and accelerate around it.

Read in transformers 5.23.0 training_args.py ``_process_fsdp_args``, integrations/deepspeed.py,
accelerate 1.15.0 utils/dataclasses.py and utils/launch.py, deepspeed 0.19.8 runtime/zero/config.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lora_lint.memory.sharding import BUCKET, LIVE, PREFETCH, Sharding
from lora_lint.neighbours import Missing, Section
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.memory import Gpu
    from lora_lint.memory.sharding import Kind

_UNSET: Final[tuple[object, ...]] = (None, False, "", [], {})
# What a dtype of 4-bit weights' storage must be for them to be divided.
_FLOATING: Final = ("bfloat16", "float16", "float32")
# Frameworks that store 4-bit weights so: llamafactory 0.9.5 model/model_utils/quantization.py,
# axolotl 0.19.0 loaders/model.py (where FSDP is on); and that start a process on each GPU:
# llamafactory 0.9.5 launcher.py, axolotl 0.19.0 cli/train.py.
_STORED: Final = ("llama_factory", "axolotl")
_EACH_GPU: Final = ("llama_factory", "axolotl")
# The settings that come with ms-swift (4.6.0 config/*.json), by their names: the stage, and what is
# offloaded. At stages 1 and 2 a bucket is of 2e8 parameters, at stage 3 all is "auto".
_SHIPPED: Final[dict[str, tuple[int, bool, bool]]] = {
    "zero1": (1, False, False),
    "zero2": (2, False, False),
    "zero2_offload": (2, True, False),
    "zero3": (3, False, False),
    "zero3_offload": (3, True, True),
}
_SHIPPED_BUCKET: Final = 200_000_000
# Options of ``accelerate launch`` (1.15.0 commands/launch.py) that turn on what else is in others.
_OPTIONS: Final = {"use_fsdp", "use_deepspeed", "use_megatron_lm"}
_COUNTS: Final = ("num_processes", "nproc_per_node", "num_gpus")


class _NotStatic(Exception):  # noqa: N818 - an answer, not a fault
    pass


def sharing(subject: RecipeSubject, gpu: Gpu | None) -> Sharding | str | None:
    """How processes share the run on such GPUs, None where there is one process, or why that is not
    known.
    """
    try:
        found = _found(subject, gpu)
    except _NotStatic:
        return "how processes share the run is not static"
    if not isinstance(found, Sharding):
        return found
    processes = _processes(subject, gpu)
    if processes is None and found.divides_weights:
        return "how many GPUs share the weights is not known; --gpu NAME:COUNT says it"
    return found._replace(processes=processes, splits=_splits(subject))


def _known(value: object) -> Any:
    if value is UNKNOWN:
        raise _NotStatic
    return value


def _found(subject: RecipeSubject, gpu: Gpu | None) -> Sharding | str | None:
    if _known(subject.value("deepspeed")) not in _UNSET:
        return _deepspeed(subject)
    launched = subject.accelerate
    if isinstance(launched, Missing):
        return f"accelerate's settings ({launched.name}) are not here"
    stated = _known(subject.value("fsdp")) not in _UNSET
    if isinstance(launched, Section) and not stated:
        return _accelerate(subject, launched)
    if _oumi_divides(subject):
        return "how Oumi's FSDP or DeepSpeed shares the model is not estimated"
    if stated:
        settings = subject.fsdp_settings
        if isinstance(settings, Missing):
            return f"FSDP's settings ({settings.name}) are not here"
        return _fsdp(subject, settings, "version")
    around = subject.document.parts[subject.recipe.part].launchers
    if any(node.note == "accelerate launch" and _OPTIONS & {*node.keys()} for node in around):
        return "accelerate may divide the model, or keep it in main memory"
    if any(node.get("config_file") is not None for node in around):
        return "accelerate's settings are not static"
    gpus = gpu.count if gpu is not None else 1
    told = _told(subject)
    if (told or 1) > 1 or (gpus > 1 and subject.dialect.name in _EACH_GPU):
        return Sharding("ddp")
    if gpus > 1 and isinstance(subject.value("device_map"), str):
        return f"device_map puts layers on {gpus} GPUs"
    return None


def _oumi_divides(subject: RecipeSubject) -> bool:
    """Whether an Oumi file turns FSDP or DeepSpeed on, in sections of their own (oumi 0.9
    core/configs/params/fsdp_params.py, deepspeed_params.py), or may.
    """
    if subject.dialect.name != "oumi":
        return False
    root = subject.document.parts[subject.recipe.part].node
    for section in ("fsdp", "deepspeed"):
        settings = root.get(section)
        switch = settings.get(f"enable_{section}") if settings is not None else None
        if switch is not None and switch.value is not False:
            return True
    return False


def _told(subject: RecipeSubject) -> int | None:
    """The number of processes that a launcher is told."""
    for node in subject.document.parts[subject.recipe.part].launchers:
        for key in _COUNTS:
            found = node.get(key)
            value = found.value if found is not None else None
            if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
                return int(value)
    return None


def _processes(subject: RecipeSubject, gpu: Gpu | None) -> int | None:
    """How many processes there are: a launcher's, accelerate's, or the user's GPUs."""
    told = _told(subject)
    launched = subject.accelerate
    if told is None and isinstance(launched, Section):
        named = launched.value("num_processes")
        told = named if isinstance(named, int) else None
    if told is None and gpu is not None and gpu.count > 1:
        told = gpu.count
    return told


def _splits(subject: RecipeSubject) -> bool | None:
    """Whether 4-bit weights are stored in a floating dtype; None where that is not known."""
    if subject.value("quantization") not in ("nf4", "fp4") or subject.dialect.name in _STORED:
        return True
    field = subject.recipe["bnb_4bit_quant_storage"]
    if field.origin == "unset":
        return False if subject.dialect.name == "trl" else None
    if field.origin == "unknown":
        return None
    return str(field.value).removeprefix("torch.") in _FLOATING


# DeepSpeed ----------------------------------------------------------------------------------------


def _deepspeed(subject: RecipeSubject) -> Sharding | str | None:
    settings = subject.deepspeed
    if isinstance(settings, Missing):
        return f"DeepSpeed's settings ({settings.name}) are not here"
    if isinstance(settings, Section):
        return _zero(subject, settings.value)
    shipped = _SHIPPED.get(str(subject.value("deepspeed")))
    if subject.dialect.name not in ("ms_swift", "ms_swift_ray") or shipped is None:
        return "DeepSpeed's settings are not static"
    stage, states, weights = shipped
    found = _stage(stage)
    bucket = _squared(subject)
    if found is None or bucket is None:
        return "DeepSpeed's buckets go by a width that is not known"
    return Sharding(
        found,
        states_on_host=states,
        weights_on_host=weights,
        bucket=bucket if stage == 3 else _SHIPPED_BUCKET,
        prefetch=int(0.9 * bucket),
    )


def _stage(stage: object) -> Kind | None:
    kinds: dict[object, Kind] = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}
    return kinds.get(stage)


def _zero(subject: RecipeSubject, value: Callable[..., Any]) -> Sharding | str:
    """DeepSpeed's own settings; "auto" is filled in by transformers."""

    def zero(*steps: str) -> Any:
        return _known(value("zero_optimization", *steps))

    kind = _stage(zero("stage") or 0)
    if kind is None:
        return "the ZeRO stage is not known"
    for other in ("zero_hpz_partition_size", "zero_quantized_weights", "mics_shard_size"):
        if zero(other) not in (None, False, 1, -1):
            return f"what {other} does is not estimated"
    if value("tensor_parallel") is not None or value("tensor_parallel", "autotp_size") is not None:
        return "tensor parallelism is not estimated"
    hidden = _squared(subject)

    def count(name: str, default: int, automatic: float) -> int | None:
        given = zero(name)
        if given is None:
            return default
        if given == "auto":
            return int(automatic * hidden) if hidden is not None else None
        return int(given) if isinstance(given, int | float) else None

    bucket = count("reduce_bucket_size", BUCKET, 1)
    prefetch = count("stage3_prefetch_bucket_size", PREFETCH, 0.9)
    live = count("stage3_max_live_parameters", LIVE, 0)
    if bucket is None or prefetch is None or live is None:
        return "the sizes of DeepSpeed's buckets are not known"
    contiguous = zero("contiguous_gradients") is not False
    return Sharding(
        kind,
        half=_half(value),
        states_on_host=zero("offload_optimizer", "device") in ("cpu", "nvme"),
        weights_on_host=kind == "zero3" and zero("offload_param", "device") in ("cpu", "nvme"),
        bucket=bucket if contiguous else 0,
        buckets=2 if zero("overlap_comm") is True else 1,
        prefetch=prefetch,
        live=live,
    )


def _half(value: Callable[..., Any]) -> bool | None:
    """Whether the step is in 16 bit; None where that goes by the training arguments, as where
    nothing is said (accelerate 1.15.0 utils/dataclasses.py ``set_mixed_precision``).
    """
    told = [_known(value(name, "enabled")) for name in ("bf16", "fp16")]
    if True in told:
        return True
    return False if told == [False, False] else None


def _squared(subject: RecipeSubject) -> int | None:
    """The model's width times itself, which "auto" means."""
    config = subject.tree.facts.get("config", {}) if subject.tree is not None else {}
    hidden = config.get("hidden_size")
    if hidden is None and subject.tree is not None:
        head = subject.tree.get(subject.tree.facts.get("output_embeddings") or "")
        shape = head.parameters.get("weight") if head is not None else None
        hidden = shape[1] if shape else None
    return hidden * hidden if isinstance(hidden, int) else None


# accelerate and FSDP ------------------------------------------------------------------------------


def _accelerate(subject: RecipeSubject, launched: Section) -> Sharding | str | None:
    """The configuration of ``accelerate launch``."""
    kind = str(_known(launched.value("distributed_type")) or "NO").rpartition(".")[2].upper()
    if kind == "NO":
        return None
    if kind in ("MULTI_GPU", "DDP"):
        return Sharding("ddp")
    if kind == "FSDP":
        inner = launched._replace(path=(*launched.path, "fsdp_config"))
        return _fsdp(subject, inner, "fsdp_version")
    if kind != "DEEPSPEED":
        return f"how {kind} shares the model is not estimated"
    if launched.value("deepspeed_config", "deepspeed_config_file") is not None:
        return "DeepSpeed's settings stand in a further file"
    names = {
        ("zero_optimization", "stage"): "zero_stage",
        ("zero_optimization", "offload_optimizer", "device"): "offload_optimizer_device",
        ("zero_optimization", "offload_param", "device"): "offload_param_device",
    }

    def value(*steps: str) -> Any:
        # what accelerate writes itself: buckets "auto", and the stage that it takes (2)
        if steps[-1] in ("reduce_bucket_size", "stage3_prefetch_bucket_size"):
            return "auto"
        name = names.get(steps)
        found = _known(launched.value("deepspeed_config", name)) if name is not None else None
        return 2 if found is None and steps[-1] == "stage" else found

    return _zero(subject, value)


def _fsdp(subject: RecipeSubject, settings: Section | None, version_key: str) -> Sharding | str:
    """FSDP's settings, keys with or without their prefix."""

    def value(*names: str) -> Any:
        for name in names:
            for key in (name, f"fsdp_{name}"):
                found = _known(settings.value(key)) if settings is not None else None
                if found is not None:
                    return found
        return None

    version = value(version_key.removeprefix("fsdp_"))
    if version is None:
        stated = subject.value("fsdp_version")
        version = stated if stated is not None else _default_version(subject, version_key)
    if version not in (1, 2):
        return "FSDP's version is not known"
    words = str(subject.value("fsdp") or "").lower().split()
    strategy = str(value("sharding_strategy", "reshard_after_forward") or "").lower()
    if "hybrid" in strategy or strategy in ("4", "5") or any("hybrid" in word for word in words):
        return "hybrid sharding is not estimated"
    grad_op = ("shard_grad_op", "2", "false")
    if strategy in ("no_shard", "3"):
        return Sharding("ddp")
    if version == 1 and _splits(subject) is False:
        return "FSDP can't divide 4-bit weights that are stored as uint8"
    offload = value("offload_params", "cpu_offload")
    on_host = offload is True or str(offload).lower() == "true" or "offload" in words
    wrap = str(value("auto_wrap_policy") or "").upper()
    own = version_key == "fsdp_version"  # accelerate's default is no wrapping, transformers' is
    return Sharding(
        "fsdp1" if version == 1 else "fsdp2",
        weights_on_host=on_host,
        states_on_host=on_host,
        reshards=strategy not in grad_op and "shard_grad_op" not in words,
        wraps=wrap == "TRANSFORMER_BASED_WRAP" if wrap or own else True,
    )


def _default_version(subject: RecipeSubject, version_key: str) -> int:
    """1 of accelerate, of transformers before 5.10 and of Axolotl, else 2."""
    from lora_lint.facts import version_key as key

    if version_key == "fsdp_version" or subject.dialect.name == "axolotl":
        return 1
    return 1 if key(subject.transformers) < key("5.10.0") else 2
