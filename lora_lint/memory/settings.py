"""From settings as they are given to the runs that they allow."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.memory.regime import Run
from lora_lint.memory.shapes import read_shape
from lora_lint.memory.weights import FOUR_BIT, Optimizer, dtype_bytes, optimizer
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.memory.profile import Profile
    from lora_lint.models.module_tree import ModuleTree

_ATTENTIONS: Final = ("sdpa", "flash_attention_2", "eager")
# torch's behaviour where the GPU is not known: any from Ampere on.
_CAPABILITY: Final = (8, 0)


class Given(NamedTuple):
    """The settings as given: None where one is not, ``UNKNOWN`` where one is not known."""

    dtype: object = None
    quantization: object = None
    double_quant: object = None
    max_length: object = None
    per_device_train_batch_size: object = None
    gradient_checkpointing: object = None
    gradient_accumulation_steps: object = None
    optim: object = None
    attn_implementation: object = None
    packing: object = None


class Settings(NamedTuple):
    """What the settings allow.

    ``runs``: every way that the open ones leave, the likeliest first. ``accumulates`` and
    ``outputs_kept`` are None where they are open. ``assumed`` is what was taken for settings that
    were not given, ``reason`` why there can be no peak, ``weighed`` whether the size of the weights
    is known all the same, ``usual`` whether attention and quantization are ones that the closed
    form was checked with.
    """

    runs: tuple[Run, ...]
    optimizer: Optimizer
    accumulates: bool | None
    outputs_kept: bool | None
    assumed: Mapping[str, object]
    reason: str | None
    weighed: bool
    usual: bool


def read_settings(
    given: Given,
    profile: Profile,
    tree: ModuleTree,
    config: Mapping[str, Any],
    capability: tuple[int, int] | None,
) -> Settings:
    """The runs that settings allow, under a framework's profile, on a GPU of a capability."""
    return _Reader(given, profile, tree, config, capability or _CAPABILITY).read()


class _Reader:
    """Reads settings one by one and notes what it has to assume."""

    def __init__(
        self,
        given: Given,
        profile: Profile,
        tree: ModuleTree,
        config: Mapping[str, Any],
        capability: tuple[int, int],
    ) -> None:
        self.given = given
        self.profile = profile
        self.tree = tree
        self.config = config
        self.capability = capability
        self.assumed: dict[str, object] = {}
        self.reason: str | None = None
        self.weighed = self.usual = True

    def read(self) -> Settings:
        """All of them."""
        runs, kind, accumulates = self._runs(), self._optimizer(), self._accumulates()
        if self.profile.outputs_kept is None:
            self.assumed["outputs_kept"] = True
        return Settings(
            runs=tuple(runs),
            optimizer=kind,
            accumulates=accumulates,
            outputs_kept=self.profile.outputs_kept,
            assumed=self.assumed,
            reason=self.reason,
            weighed=self.weighed,
            usual=self.usual,
        )

    def _ways(self, name: str, default: Any, others: tuple[Any, ...] = ()) -> list[Any]:
        """The values that a setting may have, the likeliest first."""
        value = getattr(self.given, name)
        if value is not None and value is not UNKNOWN:
            return [value]
        self.assumed[name] = default
        return [default, *(others if value is UNKNOWN else ())]

    def _switch(self, name: str, value: bool | None, likely: bool) -> list[bool]:
        """The values that a switch of the profile may have, the likeliest first."""
        if value is not None:
            return [value]
        self.assumed[name] = likely
        return [likely, not likely]

    def _give_up(self, reason: str) -> None:
        self.reason = self.reason or reason

    def _runs(self) -> list[Run]:
        """Defaults are transformers' (training_args.py, modeling_utils.py)."""
        profile, config = self.profile, self.config
        quantized = self._quantization()
        length = self._count(self.given.max_length, "sequence length")
        batch = self._count(self._ways("per_device_train_batch_size", 8)[0], "batch size")
        batch *= profile.sequences
        if profile.sequences > 1:
            self.assumed["sequences_per_sample"] = profile.sequences
        if profile.undescribed is not None:
            self._give_up(profile.undescribed)
        if self.given.per_device_train_batch_size is UNKNOWN:
            self._give_up("the batch size is not known")
        dtypes = self._dtypes(quantized)
        doubles, prepared = [False], [False]
        if quantized in FOUR_BIT:
            doubles = self._ways("double_quant", default=False, others=(True,))
        if quantized:
            prepared = self._switch("kbit_preparation", profile.kbit_preparation, likely=True)
        likely = profile.checkpointing
        checkpointing = self._ways("gradient_checkpointing", default=likely, others=(not likely,))
        attentions = self._ways("attn_implementation", "sdpa", others=_ATTENTIONS[1:])
        familiar = {*_ATTENTIONS, "flash_attention_3"}
        self.usual = familiar.issuperset(map(str, attentions))
        packed = any(self._ways("packing", default=False, others=(True,)))
        masked = [False]
        if "sdpa" not in attentions:
            pass  # no other attention gets a mask that it keeps
        elif packed:  # the samples of a row must not see each other
            masked = self._switch("attention_mask", None, likely=True)
        elif batch > 1:
            masked = self._switch("padded", profile.padded, likely=True)
        autocast = self._switch("autocast", profile.autocast, likely=False)
        fused = self._switch("fused_loss", profile.fused_loss, likely=False)
        reentrant = [False]
        if any(checkpointing):
            reentrant = self._switch("reentrant", profile.reentrant, likely=False)
        images = self._images(length)
        return [
            Run(
                batch=batch,
                length=length,
                weight_bytes=size,
                quantized=quantized,
                double_quant=bool(double),
                prepared=prepare,
                autocast=auto,
                adapter_bytes=profile.adapter_bytes if quantized or size == 2 else 4,
                dropout=_is_on(config.get("lora_dropout")),
                dora=_is_on(config.get("use_dora")),
                checkpointing=bool(check),
                attention=str(attention),
                masked=mask,
                fused_loss=fuse,
                fused_by=profile.fused_by,
                capability=self.capability,
                reentrant=bool(check) and again,
                keeps_inputs=profile.keeps_inputs,
                graph_kept=profile.graph_kept,
                code=profile.code,
                stable_embedding=profile.stable_embedding and quantized is not None,
                images=image,
            )
            for size, double, prepare, auto, check, again, attention, mask, fuse, image in product(
                dtypes,
                doubles,
                prepared,
                autocast,
                checkpointing,
                reentrant,
                attentions,
                masked,
                fused,
                images,
            )
        ]

    def _images(self, length: int) -> list[int]:
        """How many images a sequence has, the likeliest first: no setting says, and text alone is
        possible. Their tokens are part of the length.
        """
        shape = read_shape(self.tree)
        if isinstance(shape, str) or not (shape.tower or shape.patches):
            return [0]
        if self.profile.images is False:
            return [0]
        self.assumed["image_tokens"] = "within max_length"
        if shape.tower is None or shape.tower.tokens > length:
            return [0]
        self.assumed["images_per_sequence"] = 1
        return [1, 0]

    def _count(self, value: object, name: str) -> int:
        if isinstance(value, int) and value > 0:
            return value
        self._give_up(f"the {name} is not known")
        return 1

    def _dtypes(self, quantized: str | None) -> list[int]:
        """Bytes per parameter that the base model may be loaded in, the likeliest first.

        Not given: the checkpoint's dtype, which transformers takes since 5.0, or what it took
        before: float32, and float16 with bitsandbytes.
        """
        given, assumed = self.given.dtype, self.assumed
        if quantized and given is None:
            assumed["dtype"] = "float16"
            return [2]
        if given is None or given is UNKNOWN or str(given) == "auto":
            checkpoint = str(self.tree.facts.get("checkpoint_dtype") or self.tree.dtype)
            likely = dtype_bytes(checkpoint) or 2
            assumed["dtype"] = checkpoint
            others = [] if given is not None and given is not UNKNOWN else [2, 4]
            return [likely, *(size for size in others if size != likely)]
        size = dtype_bytes(given)
        if size is None:
            self._give_up(f"the dtype {given} is not known")
            self.weighed = False
        return [size or 2]

    def _quantization(self) -> str | None:
        kind = self.given.quantization
        if kind is None or str(kind).lower() in ("none", "false", ""):
            return None
        if self.profile.code == "litgpt" and str(kind).lower() == "int8":
            # lightning's class keeps the weights in float16 for training (2.6.6
            # fabric/plugins/precision/bitsandbytes.py ``_Linear8bitLt.quantize``)
            self._give_up("what LitGPT's 8-bit layers keep is not modelled")
            self.weighed = False
            return None
        if self.profile.code == "torchtune" and not self._is_torchtunes_nf4():
            self._give_up("what torchtune quantizes of such a run is not described")
            self.weighed = False
            return None
        if str(kind).lower() in (*FOUR_BIT, "int8"):
            return str(kind).lower()
        what = "the quantization" if kind is UNKNOWN else f"the size of {kind} weights"
        self._give_up(f"{what} is not known")
        self.weighed = False
        return None

    def _is_torchtunes_nf4(self) -> bool:
        """Every layer's maps in NF4, and the rest in 16 bit. In Qwen2 those without an adapter stay
        as they are (torchtune 0.6.1 models/qwen2/_component_builders.py).
        """
        sixteen = dtype_bytes(self.given.dtype) == 2
        return self.given.quantization == "nf4" and sixteen and self.tree.model_type != "qwen2"

    def _optimizer(self) -> Optimizer:
        """The optimizer; of one that is not known, AdamW's states, which the low end leaves out."""
        name = self.given.optim
        if name is not None and name is not UNKNOWN:
            kind = optimizer(str(name))
            if kind is not None:
                return kind
        self.assumed["optim"] = "adamw_torch_fused"
        return Optimizer(2, paged=name is not None)

    def _accumulates(self) -> bool | None:
        """Whether gradients of an earlier micro-batch are alive; None where it is not known."""
        steps = self.given.gradient_accumulation_steps
        if isinstance(steps, int):
            return steps > 1
        self.assumed["gradient_accumulation_steps"] = "more than 1"
        return None


def _is_on(value: object) -> bool:
    """Whether a LoraConfig value is there; where it is not known the injection is undecided."""
    return value is not UNKNOWN and bool(value)
