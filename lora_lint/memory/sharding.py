"""What one GPU holds where several processes train together.

Pure functions from the sizes of a run in one process to those on its fullest GPU. What a framework
leaves open (which layers are gathered at the peak, what a bucket holds) is a range: the least and
the most. Read in torch 2.13 nn/parallel/distributed.py, distributed/fsdp, deepspeed 0.19.8
runtime/engine.py, runtime/zero, accelerate 1.15.0 accelerator.py, utils/fsdp_utils.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from lora_lint.memory.shape import matrices

if TYPE_CHECKING:
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Shape as ModelShape
    from lora_lint.memory.weights import Weights

Kind = Literal["ddp", "zero1", "zero2", "zero3", "fsdp1", "fsdp2"]

# deepspeed 0.19.8 runtime/zero/config.py, in parameters.
BUCKET: Final = 500_000_000
PREFETCH: Final = 50_000_000
LIVE: Final = 1_000_000_000


class Sharding(NamedTuple):
    """How processes share a run.

    ``processes``: how many, None where that is not known. ``half``: parameters are 16 bit in the
    step (DeepSpeed's ``bf16`` or ``fp16``, FSDP's mixed precision); None: as autocast is
    (``settled``).
    ``weights_on_host`` and ``states_on_host``: what offloading takes off the GPU. ``splits``: 4-bit
    weights are divided (``bnb_4bit_quant_storage`` is a floating dtype); None: not known. The
    others are DeepSpeed's: ``bucket`` (``reduce_bucket_size``), ``buckets`` of them,
    ``prefetch`` (``stage3_prefetch_bucket_size``) and ``live`` (``stage3_max_live_parameters``), in
    parameters; and FSDP's: ``reshards``, whether layers are freed after their forward, ``wraps``,
    whether each layer is a unit of its own.
    """

    kind: Kind
    processes: int | None = None
    half: bool | None = None
    weights_on_host: bool = False
    states_on_host: bool = False
    splits: bool | None = True
    bucket: int = BUCKET
    buckets: int = 1
    prefetch: int = PREFETCH
    live: int = LIVE
    reshards: bool = True
    wraps: bool = True

    @property
    def divides_weights(self) -> bool:
        """Whether base weights are divided at all; not by DDP, ZeRO-1 and ZeRO-2."""
        return self.kind in ("zero3", "fsdp1", "fsdp2")

    @property
    def deepspeed(self) -> bool:
        """Whether it is DeepSpeed's."""
        return self.kind.startswith("zero")


class Shape(NamedTuple):
    """Bytes of the base weights by place: of one ``layer``, the largest; of what is ``outer``,
    outside the layers (embeddings, head, last norm), of which the ``head``; of the matrices that
    are ``quantized``; of the ``largest`` of all.
    """

    layer: float
    outer: float
    head: float
    quantized: float
    largest: float


class Whole(NamedTuple):
    """A run's sizes in one process: base weights in bytes, ``trained`` parameters of adapters and
    of saved modules, parameters of ``frozen`` adapters, bytes of optimizer states of fp32
    parameters.
    """

    weights: float
    adapters: int
    saved: int
    frozen: int
    states: float


class Share(NamedTuple):
    """Bytes on one GPU. ``buffers`` are those for gradients that are there all the time;
    ``gradients`` is the part of a process's own gradients that it keeps.
    """

    weights: float
    adapters: float
    saved: float
    optimizer: float
    buffers: float
    gradients: float


def shape_of(model: ModelShape, weights: Weights, run: Run) -> Shape:
    """Where the base weights of a model are, in the precision of a run. bitsandbytes does not
    quantize experts' parameters.
    """
    values = sum(m.values * count for m, count in weights.matrices.items())
    whole = weights.size(
        weight_bytes=run.weight_bytes,
        plain_bytes=run.plain_bytes,
        quantized=run.quantized,
        double_quant=run.double_quant,
    )
    quantized = whole - weights.others * run.plain_bytes if run.quantized else 0
    rate = quantized / values if quantized else run.weight_bytes
    plain = run.plain_bytes if run.quantized else run.weight_bytes
    different = {id(layer): layer for stack in model.stacks for layer in stack.layers}
    sizes: dict[int, list[float]] = {}
    for identity, layer in different.items():
        maps, experts = matrices(layer)
        sizes[identity] = [*(rate * n for n in maps), *(float(plain * n) for n in experts)]
    inner = sum(sum(sizes[id(layer)]) for stack in model.stacks for layer in stack.layers)
    outer = max(0.0, whole - inner)
    head = run.plain_bytes * model.head.size * model.stacks[-1].hidden
    return Shape(
        layer=max(map(sum, sizes.values())),
        outer=outer,
        head=min(head, outer),
        quantized=quantized,
        largest=max(head, *map(max, sizes.values())),
    )


def settled(sharding: Sharding, run: Run) -> Sharding:
    """The sharding of one run: without a word of its own, DeepSpeed's dtype ("auto") and FSDP's
    mixed precision are that of autocast (transformers 5.23.0 integrations/deepspeed.py
    ``trainer_config_process``, accelerate 1.15.0 utils/dataclasses.py ``set_mixed_precision``).
    """
    return sharding._replace(half=run.autocast) if sharding.half is None else sharding


def step_in(run: Run, sharding: Sharding) -> Run:
    """The run as its step computes there.

    DeepSpeed casts all parameters to its 16-bit dtype (engine.py ``_cast_module_mixed_precision``),
    what prepare_model_for_kbit_training made fp32 too, and runs without autocast; not where ZeRO-3
    made the parameters itself (``zero.Init``: an unquantized model), whose adapters come later and
    stay as they are. FSDP hands a 16-bit copy of each parameter to the step
    (``MixedPrecision.param_dtype``), so that adapters have the weights' dtype.
    """
    if not sharding.half or sharding.kind == "ddp":
        return run
    if sharding.kind == "zero3" and not run.quantized:
        return run._replace(autocast=False, prepared=False, weight_bytes=2)
    if sharding.deepspeed:
        return run._replace(autocast=False, prepared=False, weight_bytes=2, adapter_bytes=2)
    return run._replace(prepared=False, adapter_bytes=2)


def shares(whole: Whole, sharding: Sharding, shape: Shape | None, run: Run) -> tuple[Share, Share]:
    """The least and the most that the fullest GPU holds beside activations and own gradients.

    ``run`` is one of ``step_in``. Without a shape nothing is known of what is gathered at a time.
    """
    if sharding.kind == "ddp":
        share = _ddp(whole, run)
        return share, share
    if sharding.deepspeed:
        return _deepspeed(whole, sharding, shape, run)
    return _fsdp(whole, sharding, shape, run)


def _ddp(whole: Whole, run: Run) -> Share:
    """Every process holds all. The reducer's buckets hold all gradients once more, for
    ``gradient_as_bucket_view`` is False (csrc/distributed/c10d/reducer.cpp ``initialize_buckets``;
    frozen parameters are in none).
    """
    adapters = run.adapter_bytes * whole.adapters
    saved = run.plain_bytes * whole.saved
    return Share(
        weights=whole.weights,
        adapters=adapters + run.adapter_bytes * whole.frozen,
        saved=saved,
        optimizer=whole.states,
        buffers=adapters + saved,
        gradients=1.0,
    )


def _counts(sharding: Sharding) -> tuple[float, float]:
    """By how much a divided part is divided at least and at most."""
    if sharding.processes is None:
        return 1.0, float("inf")
    return float(sharding.processes), float(sharding.processes)


def _deepspeed(
    whole: Whole, sharding: Sharding, shape: Shape | None, run: Run
) -> tuple[Share, Share]:
    """ZeRO divides what the optimizer holds: fp32 copies of the trained parameters where these are
    16 bit, and its states; stage 2 gradients too, stage 3 all parameters.

    The bucket of gradients is made in full, ``reduce_bucket_size`` parameters of the step's dtype,
    however few are trained: at each backward (stage_1_and_2.py ``setup_buckets``), twice with
    ``overlap_comm``, or for good (stage3.py ``_setup_for_real_optimizer``).

    At stage 3 a GPU gathers the parameters of a module as it comes to it and the next ``prefetch``
    ones; it frees them unless they are used again within ``stage3_max_reuse_distance``, and then
    keeps up to ``live`` ones (partitioned_param_coordinator.py ``__params_to_release``): most at
    the turn from forward to backward. Parameters of fewer than
    ``stage3_param_persistence_threshold`` values stay whole; most adapters are so small.
    """
    size = 2 if sharding.half else 4
    trained = whole.adapters + whole.saved
    masters = 4.0 * trained if size == 2 else 0.0
    optimizer = 0.0 if sharding.states_on_host else masters + whole.states
    least, most = _counts(sharding)
    buffers = float(size * sharding.bucket * (1 if sharding.kind == "zero3" else sharding.buckets))
    adapters = run.adapter_bytes * (whole.adapters + whole.frozen)
    saved = run.plain_bytes * whole.saved
    if sharding.kind != "zero3":
        parts = (whole.weights, adapters, saved)
        kept = {"zero1": (1.0, 1.0), "zero2": (1 / most, 1 / least)}[sharding.kind]
        if sharding.states_on_host and sharding.kind == "zero2":
            kept = (0.0, 0.0)
        low = Share(*parts, optimizer / most, buffers, kept[0])
        return low, low._replace(optimizer=optimizer / least, gradients=kept[1])
    gathered = (shape.largest, shape.largest) if shape is not None else (0.0, whole.weights)
    rest = 0.0 if sharding.weights_on_host else whole.weights
    low_weights = rest / most + min(whole.weights, gathered[0])
    element = 2.0 if run.quantized else float(run.weight_bytes)
    alive = element * (sharding.live + sharding.prefetch) + gathered[1]
    high_weights = rest / least + min(whole.weights, alive)
    if run.quantized and sharding.splits is not True:
        high_weights = max(high_weights, whole.weights)
        if sharding.splits is False:
            low_weights = whole.weights
    kept_low, kept_high = (0.0, 0.0) if sharding.states_on_host else (1 / most, 1 / least)
    low = Share(low_weights, adapters / most, saved / most, optimizer / most, buffers, kept_low)
    high = Share(
        high_weights, adapters, saved / least + saved, optimizer / least, buffers, kept_high
    )
    return low, high


def _fsdp(whole: Whole, sharding: Sharding, shape: Shape | None, run: Run) -> tuple[Share, Share]:
    """FSDP divides every parameter, gradient and state; trained parameters are fp32 on their shards
    (accelerator.py ``prepare_model``, fsdp_utils.py ``fsdp2_prepare_model``).

    Beside its shards a GPU holds the layer that it computes and, by the limit of two gathers at a
    time (fsdp/_limiter_utils.py), the next; FSDP2 copies a gathered layer out of the buffer that it
    came in (_fsdp_collectives.py ``foreach_all_gather_copy_out``), so that a third may be there.
    What is outside the layers is FSDP1's root unit, which is not freed between forward and
    backward; of FSDP2 only the head with the last norm is not. Units that are not freed
    (``SHARD_GRAD_OP``), or one that holds the whole model (``NO_WRAP``), are all there at once.

    FSDP2 leaves 4-bit weights out whose storage is not floating (``incompatible_params4bit``), so
    that every GPU holds them whole; FSDP1 stops at such.
    """
    least, most = _counts(sharding)
    rest = 0.0 if sharding.weights_on_host else whole.weights
    low_gathered, high_gathered = _gathered(whole, sharding, shape)
    low_weights, high_weights = rest / most + low_gathered, rest / least + high_gathered
    if run.quantized and sharding.splits is not True and shape is not None:
        rest = max(0.0, rest - shape.quantized)
        if sharding.splits is False:
            low_weights = shape.quantized + rest / most + shape.head
            high_weights = shape.quantized + rest / least + shape.outer
        else:
            high_weights = max(high_weights, shape.quantized + rest / least + shape.outer)
    size = 2 if sharding.half else 4
    adapters, saved = whole.adapters + whole.frozen, whole.saved
    own = (0.0, 0.0) if sharding.states_on_host else (1 / most, 1 / least)
    low = Share(
        weights=low_weights,
        adapters=4 * adapters * own[0],
        saved=4 * saved * own[0],
        optimizer=whole.states * own[0],
        buffers=0.0,
        gradients=own[0],
    )
    high = Share(
        weights=high_weights,
        adapters=4 * adapters * own[1] + size * adapters,
        saved=4 * saved * own[1] + size * saved,
        optimizer=whole.states * own[1],
        buffers=0.0,
        gradients=own[1],
    )
    return low, high


def _gathered(whole: Whole, sharding: Sharding, shape: Shape | None) -> tuple[float, float]:
    """Bytes of base weights that FSDP has made whole at the peak, at least and at most."""
    if shape is None:
        return 0.0, whole.weights
    if not sharding.reshards or not sharding.wraps:
        return whole.weights, whole.weights
    if sharding.kind == "fsdp1":
        return shape.outer + shape.layer, shape.outer + 2 * shape.layer
    return max(shape.head, shape.layer), shape.head + 3 * shape.layer
