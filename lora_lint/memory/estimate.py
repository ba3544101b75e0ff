"""How much GPU memory a LoRA run needs, part by part, with a band and a verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from lora_lint.facts import newest_peft
from lora_lint.injection import inject
from lora_lint.memory.gpus import GIB, Gpu, parse_gpu
from lora_lint.memory.profile import OTHER_CODE_ERROR, PLAIN, Profile
from lora_lint.memory.settings import Given, read_settings
from lora_lint.memory.shapes import read_shape
from lora_lint.memory.sharding import Whole, settled, shape_of, shares, step_in
from lora_lint.memory.weights import (
    Trained,
    embedding_values,
    optimizer_bytes,
    read_trained,
    read_weights,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lora_lint.injection.result import Injection
    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Shape
    from lora_lint.memory.sharding import Sharding, Share
    from lora_lint.memory.step import Model, Peak
    from lora_lint.models.module_tree import ModuleTree

Verdict = Literal["fits", "risk", "oom", "unknown"]

PARTS: Final = (
    "weights",
    "adapters",
    "saved_modules",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "overhead",
)
# The band around the closed form: of families that were checked operation by operation, of others
# of the same grammar. What is left are the allocator's gaps and kernels' workspaces; PEFT's own
# measurements of Llama-3.2-3B lie within 3 % (tests/memory/test_published.py).
TRACED_ERROR: Final = 0.05
GRAMMAR_ERROR: Final = 0.10
# Around a trace of the real step: PEFT's own measurements lie within 2.3 % (docs/memory-form.md
# says how the trace is made), what is left are the allocator's gaps and kernels' workspaces.
TRACE_ERROR: Final = 0.05
# Where processes train together, NCCL has buffers that PyTorch does not see, and where weights are
# divided the allocator meets blocks of many sizes, freed and made again at each layer.
TOGETHER_ERROR: Final = 0.10
DIVIDED_ERROR: Final = 0.15
# What a process needs on the GPU beside its tensors: the CUDA context with its kernels. CUDA's
# out-of-memory messages state it, as memory in use less what PyTorch holds: 0.11 GiB (RTX 4060),
# 0.13 (T4), 0.22 (A10), 0.40 (A100), 0.41 and 0.51 (L40S), 0.44 to 0.49 (RTX 4090), 0.58 (RTX
# 5090), 0.66 (H100 NVL); the issues are linked in data/gpus.json.
CONTEXT_LOW: Final = int(0.1 * GIB)
CONTEXT: Final = int(0.45 * GIB)
CONTEXT_HIGH: Final = int(0.7 * GIB)
# Longer than any batch that could fit; where the search for the longest begins.
_LONGEST: Final = 2**24


class MemoryEstimate(NamedTuple):
    """The memory of one GPU at the run's peak.

    ``bytes`` are the parts alive at that moment and add up to ``peak``; a part that is not known is
    None. ``low`` and ``high`` bound the peak; ``low`` is given wherever the weights are known, as a
    bound that holds whatever the rest needs. ``site`` names the moment. ``assumed`` maps each
    setting that was not given to what was taken for it. ``reason`` says why there is no peak, or no
    verdict. ``parameters`` counts what is trained: adapters and saved modules. ``least_weights`` is
    the least that the base weights can be, whichever way open settings turn out. ``run`` is the
    likeliest of the runs that the settings allow, None where they are not known.
    """

    bytes: Mapping[str, int | None]
    low: int | None
    peak: int | None
    high: int | None
    site: str | None
    verdict: Verdict
    assumed: Mapping[str, object]
    gpu: Gpu | None = None
    reason: str | None = None
    parameters: Mapping[str, int] | None = None
    least_weights: int | None = None
    run: Run | None = None

    @property
    def weights_exceed(self) -> bool:
        """Whether the weights alone are more than the nominal size of one GPU: no driver and no
        setting of the batch helps. Offloading to the host is not looked at here.
        """
        if self.gpu is None or self.gpu.count > 1 or self.least_weights is None:
            return False
        return self.least_weights > self.gpu.nominal_bytes

    @property
    def tensors(self) -> int | None:
        """The peak of what PyTorch allocates (``torch.cuda.max_memory_allocated``)."""
        overhead = self.bytes["overhead"]
        return None if self.peak is None or overhead is None else self.peak - overhead

    def to_dict(self) -> dict[str, object]:
        """The estimate as in the JSON of ``lora-lint show``."""
        return {
            "bytes": dict(self.bytes),
            "low": self.low,
            "peak": self.peak,
            "high": self.high,
            "site": self.site,
            "verdict": self.verdict,
            "assumed": dict(self.assumed),
            "gpu": self.gpu.to_dict() if self.gpu else None,
            "reason": self.reason,
        }


def estimate_memory(
    tree: ModuleTree,
    config: Mapping[str, Any],
    *,
    dtype: object = None,
    quantization: object = None,
    max_length: object = None,
    per_device_train_batch_size: object = None,
    double_quant: object = None,
    gradient_checkpointing: object = None,
    gradient_accumulation_steps: object = None,
    optim: object = None,
    attn_implementation: object = None,
    packing: object = None,
    profile: Profile = PLAIN,
    gpu: Gpu | str | None = None,
    sharding: Sharding | None = None,
    injection: Injection | None = None,
    peft: str | None = None,
) -> MemoryEstimate:
    """The memory that training a LoRA config on the model of a tree needs.

    ``config`` maps LoraConfig keywords; the other settings have transformers' names. A setting that
    is None was not given, and its default is taken (``assumed`` says which); ``lora_lint.UNKNOWN``
    stands for one that is given but not known, and both ways enter the band. Batches are taken as
    ``per_device_train_batch_size`` sequences of ``max_length`` tokens, padding included: the
    largest that the settings allow. ``profile`` holds what no setting says. ``gpu`` is a ``Gpu`` or
    its name or size. ``sharding`` says how several processes share the run; the estimate is then
    that of the fullest GPU.

    Activations are estimated for the shapes of ``shapes.read_shape``; for others, and where
    the length is not known, the parts that are certain are given and no peak.

    Raises ``ValueError`` for an unknown GPU, ``TypeError`` if ``config`` is not a mapping.
    """
    card = parse_gpu(gpu) if isinstance(gpu, str) else gpu
    if not tree.sized:
        return _nothing(card, "the sizes of this model are not known")
    if injection is None:
        injection = inject(tree, config, peft=peft or newest_peft())
    given = Given(
        dtype=dtype,
        quantization=quantization,
        double_quant=double_quant,
        max_length=max_length,
        per_device_train_batch_size=per_device_train_batch_size,
        gradient_checkpointing=gradient_checkpointing,
        gradient_accumulation_steps=gradient_accumulation_steps,
        optim=optim,
        attn_implementation=attn_implementation,
        packing=packing,
    )
    return Estimator(tree, config, injection, given, profile, card, sharding).estimate()


def max_tokens_that_fit(
    tree: ModuleTree,
    config: Mapping[str, Any],
    *,
    gpu: Gpu | str,
    per_device_train_batch_size: int = 1,
    certain: bool = True,
    injection: Injection | None = None,
    peft: str | None = None,
    profile: Profile = PLAIN,
    sharding: Sharding | None = None,
    **settings: object,
) -> int | None:
    """The longest sequence, in tokens, with which a batch of this size fits the GPU.

    ``settings`` are those of ``estimate_memory``. ``certain`` asks that the whole band fits, else
    that its low end does: beyond that the run fails for certain. 0 if not even one token fits; None
    where activations are not estimated.
    """
    card = parse_gpu(gpu) if isinstance(gpu, str) else gpu
    if not tree.sized:
        return None
    if injection is None:
        injection = inject(tree, config, peft=peft or newest_peft())
    given = Given(max_length=1, per_device_train_batch_size=per_device_train_batch_size, **settings)
    estimator = Estimator(tree, config, injection, given, profile, card, sharding)
    if estimator.reason is not None:
        return None

    def fits(length: int) -> bool:
        low, _, high = estimator.band(length)
        return high <= card.least_bytes if certain else low <= card.usable_bytes

    if not fits(1):
        return 0
    lower, upper = 1, _LONGEST
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (middle, upper) if fits(middle) else (lower, middle)
    return lower


def whole_step(
    tree: ModuleTree,
    config: Mapping[str, Any],
    injection: Injection,
    run: Run,
    *,
    accumulates: bool = False,
    outputs_kept: bool = False,
) -> tuple[float, str] | str:
    """The bytes that PyTorch allocates at the peak of one run with nothing left open, with AdamW,
    and where that is; or why it is not described.
    """
    estimator = Estimator(tree, config, injection, Given(), PLAIN, None)
    if estimator.model.model is None:
        return estimator.model.reason or "not described"
    from lora_lint.memory.step import peaks

    moments = peaks(estimator.model.model, run)
    total = estimator.total(run, moments, accumulates=accumulates, outputs_kept=outputs_kept)
    return total.bytes, total.site


class _Total(NamedTuple):
    """The peak of one run: its parts in bytes, and where it is."""

    parts: dict[str, float]
    site: str

    @property
    def bytes(self) -> float:
        return sum(self.parts.values())


class _Held(NamedTuple):
    """What a GPU holds all the time, by part, and the share of its gradients that it keeps."""

    static: dict[str, float]
    gradients: float


def _held(share: Share) -> _Held:
    static = dict.fromkeys(PARTS, 0.0)
    static |= {
        "weights": share.weights,
        "adapters": share.adapters,
        "saved_modules": share.saved,
        "optimizer": share.optimizer,
        "gradients": share.buffers,
    }
    return _Held(static, share.gradients)


def _nothing(gpu: Gpu | None, reason: str) -> MemoryEstimate:
    return MemoryEstimate(
        dict.fromkeys(PARTS), None, None, None, None, "unknown", {}, gpu, reason, None
    )


# Tensors of a tower's width that are kept beside its layers' inputs: the patches, which are a leaf,
# in the order of windows, the norm's input, the projector's (traced of Qwen2-VL and Qwen2.5-VL).
_BESIDE_LAYERS: Final = 6


def _checkpoints(shape: Shape, run: Run) -> float:
    """The most that a frozen vision tower which is not described can keep: with checkpointing its
    patches need a gradient too (``images``), so that each layer keeps its input, and text's
    embeddings stay beside the sequence. As many patches as make a sequence of image tokens alone.
    """
    if shape.patches is None or not run.checkpointing:
        return 0.0
    layers, hidden, per_token, _ = shape.patches
    values = per_token * hidden * (layers + _BESIDE_LAYERS) + shape.stacks[-1].hidden
    return float(run.tokens * run.plain_bytes * values)


class _Trained(NamedTuple):
    """The model as it is trained; ``reason`` says why there is nothing to estimate. A model beside
    a reason is the part that is described, which bounds the need from below.
    """

    trained: Trained | None = None
    model: Model | None = None
    reason: str | None = None


def _read_model(
    tree: ModuleTree, config: Mapping[str, Any], injection: Injection, code: str
) -> _Trained:
    if injection.undecided:
        return _Trained(reason=f"what is adapted is not known: {injection.undecided}")
    if injection.error:
        return _Trained(reason=f"PEFT refuses this config ({injection.error.type})")
    trained = read_trained(tree, injection)
    shape = read_shape(tree)
    if isinstance(shape, str):
        return _Trained(trained, reason=shape)
    if code == "litgpt":
        from lora_lint.memory.litgpt import as_litgpt

        shape = as_litgpt(shape, tree)
        if any(".experts." in name for name in injection.modules):
            return _Trained(trained, reason="what LitGPT's adapted experts keep is not modelled")
    elif code == "torchtune":
        from lora_lint.memory.torchtune import as_torchtune

        shape = as_torchtune(shape, tree)
    if config.get("layer_replication"):
        return _Trained(trained, reason="activations of replicated layers are not modelled")
    found: list[list[list[tuple[str, int]]]] = [[[] for _ in s.layers] for s in shape.stacks]
    others: list[tuple[str, int]] = []
    stacks = list(shape.stacks)
    if shape.tower is not None:
        stacks.append(shape.tower.stack)
        found.append([[] for _ in shape.tower.stack.layers])
    ranks = {name: entry.r for name, entry in injection.adapted.items() if entry.r > 0}
    rank = math.gcd(*ranks.values())
    for name, r in ranks.items():
        for number, stack in enumerate(stacks):
            if name.startswith(f"{stack.prefix}."):
                index, _, inner = name[len(stack.prefix) + 1 :].partition(".")
                found[number][int(index)].append((inner, r // rank))
                break
        else:
            others.append((name, r // rank))
    known = {linear.name for linear in shape.head.linears}
    known |= {linear.name for linear in shape.tower.maps} if shape.tower else set()
    strange = [name for name, _ in others if name not in known and not _is_small(name)]
    reason = _unseen(shape, strange)
    if strange and reason is None:
        return _Trained(trained, reason=f"activations of an adapted {strange[0]} are not modelled")
    same: dict[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]] = {}
    layers = [tuple(same.setdefault(own, own) for own in map(tuple, stack)) for stack in found]
    from lora_lint.memory.step import Model

    model = Model(
        shape,
        rank,
        tuple(layers[: len(shape.stacks)]),
        tuple(others),
        head_trained=trained.head > 0,
        embeddings=trained.embeddings,
        tower=layers[-1] if shape.tower else (),
    )
    return _Trained(trained, model, reason)


def _unseen(shape: Shape, names: Sequence[str]) -> str | None:
    """Why there is no peak where adapted modules are those of a vision tower that is not described;
    None where they are others, or none.
    """
    of_images = tuple(f"{name}." for name in shape.patches.names) if shape.patches else ()
    if not names or not all(f"{name}.".startswith(of_images) for name in names):
        return None
    part = next(one for one in of_images if f"{names[0]}.".startswith(one)).rstrip(".")
    return (
        f"what the adapted {part} keeps depends on the images, of which nothing is known; with"
        " adapters on the language model alone there is an estimate"
    )


def _is_small(name: str) -> bool:
    """Whether a module works on one vector a sequence: a pooler's or classifier's map."""
    return any(
        part in ("pooler", "classifier", "pre_classifier", "score") for part in name.split(".")
    )


class Estimator:
    """One estimate in the making: the model as it is trained, and the runs that settings allow."""

    def __init__(
        self,
        tree: ModuleTree,
        config: Mapping[str, Any],
        injection: Injection,
        given: Given,
        profile: Profile,
        gpu: Gpu | None,
        sharding: Sharding | None = None,
    ) -> None:
        self.gpu = gpu
        self.sharding = sharding
        self.settings = read_settings(given, profile, tree, config, gpu.capability if gpu else None)
        self.weights = read_weights(tree, every_linear=profile.every_linear)
        self.model = _read_model(tree, config, injection, profile.code)
        self.embeddings = embedding_values(tree)
        self.buffers = profile.buffers
        self.sees = profile.images is not False
        described = self.model.model is not None and not self.sees  # text does not reach a tower
        self.reason = (None if described else self.model.reason) or self.settings.reason
        model = self.model.model
        known = model is not None and model.shape.traced and self.settings.usual
        error = TRACED_ERROR if known else GRAMMAR_ERROR
        self.error = error if profile.error is None else profile.error
        if profile.code != "hf" and not known:
            self.error = OTHER_CODE_ERROR
        if sharding is not None:
            least = DIVIDED_ERROR if sharding.divides_weights else TOGETHER_ERROR
            self.error = max(self.error, least)

    def _ways(self, run: Run) -> tuple[Run, _Held, _Held]:
        """A run as its step computes, and the least and the most that it holds beside activations
        and its own gradients.
        """
        if self.sharding is None:
            held = _Held(self._static(run), 1.0)
            return run, held, held
        sharding = settled(self.sharding, run)
        step = step_in(run, sharding)
        model = self.model.model
        shape = None if model is None else shape_of(model.shape, self.weights, step)
        low, high = shares(self._whole(step), sharding, shape, step)
        return step, _held(low), _held(high)

    def _whole(self, run: Run) -> Whole:
        """The sizes in one process, with an optimizer of fp32 parameters."""
        trained, kind = self.model.trained, self.settings.optimizer
        weights = self._static(run)["weights"]
        if trained is None:
            return Whole(weights, 0, 0, 0, 0.0)
        ddp = self.sharding is not None and self.sharding.kind == "ddp"
        adapter, saved = self._trained_bytes(run) if ddp else (4, 4)
        states = optimizer_bytes(kind, trained.adapters, adapter)
        states += optimizer_bytes(kind, trained.saved, saved)
        counts = trained.adapters.parameters, trained.saved.parameters
        return Whole(weights, *counts, trained.frozen, states)

    def _static(self, run: Run) -> dict[str, float]:
        parts = dict.fromkeys(PARTS, 0.0)
        parts["weights"] = self.weights.size(
            weight_bytes=run.weight_bytes,
            plain_bytes=run.plain_bytes,
            quantized=run.quantized,
            double_quant=run.double_quant,
        )
        parts["weights"] += self.buffers
        trained, kind = self.model.trained, self.settings.optimizer
        if trained is not None:
            adapter, saved = self._trained_bytes(run)
            parts["adapters"] = adapter * (trained.adapters.parameters + trained.frozen)
            parts["saved_modules"] = saved * trained.saved.parameters
            parts["optimizer"] = optimizer_bytes(kind, trained.adapters, adapter)
            parts["optimizer"] += optimizer_bytes(kind, trained.saved, saved)
        if run.stable_embedding:
            # LitGPT's ``main`` holds the embeddings that it replaces as long as training runs, and
            # no optimizer clears the new ones' gradient (litgpt 0.5.13 finetune/lora.py).
            parts["weights"] += self.embeddings * run.plain_bytes
            parts["gradients"] += self.embeddings * run.plain_bytes
        return parts

    def _trained_bytes(self, run: Run) -> tuple[int, int]:
        """Bytes a parameter of adapters, which PEFT makes fp32, and of saved modules, which are
        copies in the dtype of the module (peft 0.21.2 tuners_utils.py ``cast_adapter_dtype`` looks
        at adapter layers only).
        """
        return run.adapter_bytes, run.plain_bytes

    def _gradients(self, run: Run) -> float:
        """All gradients; they have their parameters' dtype."""
        trained = self.model.trained
        if trained is None:
            return 0.0
        adapter, saved = self._trained_bytes(run)
        return adapter * trained.adapters.parameters + saved * trained.saved.parameters

    def total(
        self, run: Run, moments: Sequence[Peak], *, accumulates: bool, outputs_kept: bool
    ) -> _Total:
        """The peak of one run."""
        return self._total(
            run,
            _Held(self._static(run), 1.0),
            moments,
            accumulates=accumulates,
            outputs_kept=outputs_kept,
        )

    def _total(
        self,
        run: Run,
        held: _Held,
        moments: Sequence[Peak],
        *,
        accumulates: bool,
        outputs_kept: bool,
    ) -> _Total:
        """The peak over all moments of a step. Accumulation keeps all gradients from the start."""
        static = held.static
        every = held.gradients * self._gradients(run)
        step = every * (1 + self.settings.optimizer.temporary)
        best = _Total({**static, "optimizer": step - every}, "optimizer step")
        best.parts["gradients"] += every
        best.parts["optimizer"] += static["optimizer"]
        most = step
        for moment in moments:
            gradients = moment.gradients + (moment.rest if accumulates else 0.0)
            gradients *= held.gradients
            logits = moment.logits + (moment.outputs if outputs_kept else 0.0)
            if moment.activations + logits + gradients > most:
                most = moment.activations + logits + gradients
                parts = {"activations": moment.activations, "logits": logits}
                parts["gradients"] = static["gradients"] + gradients
                best = _Total({**static, **parts}, moment.site)
        return best

    def band(self, length: int) -> tuple[float, _Total, float]:
        """The low end, the likeliest total without overhead, and the high end, at a length.

        The ends take each open setting both ways, then the closed form's error; the low end is at
        least what is certain to be there.
        """
        model = self.model.model
        if model is None:
            raise ValueError(self.reason)
        from lora_lint.memory.step import peaks

        error, kept = self.error, self.settings.outputs_kept
        totals, lows, highs = [], [], []
        for run in self.settings.runs:
            run = run if run.length == length else run._replace(length=length)
            run, least, most = self._ways(run)
            moments = peaks(model, run)
            dear = self._total(
                run,
                most,
                moments,
                accumulates=self.settings.accumulates is not False,
                outputs_kept=kept is not False,
            )
            if self.settings.optimizer.paged:
                least = least._replace(static={**least.static, "optimizer": 0.0})
            cheap = self._total(
                run,
                least,
                moments,
                accumulates=self.settings.accumulates is True,
                outputs_kept=kept is True,
            )
            totals.append(dear)
            unseen = _checkpoints(model.shape, run) if self.sees else 0.0
            highs.append(dear.bytes * (1 + error) + CONTEXT_HIGH + unseen)
            certain = sum(least.static.values())
            lows.append(max(certain, cheap.bytes * (1 - error)) + CONTEXT_LOW)
        return min(lows), totals[0], max(highs)

    def held_and_peak(self, run: Run) -> tuple[Run, float, float, float]:
        """A run as its step computes; what a GPU holds all the time, at least and at most; and the
        peak of the step, with the closed form's error, that goes with the latter.
        """
        model = self.model.model
        if model is None:
            raise ValueError(self.reason)
        from lora_lint.memory.step import peaks

        step, least, most = self._ways(run)
        top = self._total(
            step,
            most,
            peaks(model, step),
            accumulates=self.settings.accumulates is not False,
            outputs_kept=self.settings.outputs_kept is not False,
        )
        high = top.bytes * (1 + self.error)
        return step, self._certain(least.static), sum(most.static.values()), high

    def _certain(self, static: Mapping[str, float]) -> float:
        """Bytes that are there whatever the batch needs; paged states can move to the host."""
        return sum(static.values()) - (
            static["optimizer"] if self.settings.optimizer.paged else 0.0
        )

    def estimate(self) -> MemoryEstimate:
        """The estimate of the settings."""
        if self.reason is not None:
            return self._without_peak()
        low, likely, high = self.band(self.settings.runs[0].length)
        parts = {name: round(likely.parts[name]) for name in PARTS}
        parts["overhead"] = CONTEXT
        verdict, reason = self._verdict(low, high)
        return MemoryEstimate(
            bytes=parts,
            low=int(low),
            peak=sum(parts.values()),
            high=int(high),
            site=likely.site,
            verdict=verdict,
            assumed=self.settings.assumed,
            gpu=self.gpu,
            reason=reason,
            parameters=self._parameters(),
            least_weights=self._least_weights(),
            run=self.settings.runs[0],
        )

    def _least_weights(self) -> int:
        return min(round(self._ways(run)[1].static["weights"]) for run in self.settings.runs)

    def _without_peak(self) -> MemoryEstimate:
        run = self.settings.runs[0]
        known: dict[str, int | None] = dict.fromkeys(PARTS)
        low = least = None
        if self.settings.weighed:
            step, _, most = self._ways(run)
            known |= {name: round(most.static[name]) for name in PARTS[:5]}
            gradients = most.static["gradients"] + most.gradients * self._gradients(step)
            known["gradients"] = round(gradients)
            if self.model.trained is None:
                known |= dict.fromkeys(PARTS[1:5])
            low = (
                min(self._certain(self._ways(each)[1].static) for each in self.settings.runs)
                + CONTEXT_LOW
            )
            if self.model.model is not None and self.settings.reason is None:
                low = max(low, self.band(self.settings.runs[0].length)[0])
            least = self._least_weights()
        known["overhead"] = CONTEXT
        verdict, reason = self._verdict(low, None)
        return MemoryEstimate(
            bytes=known,
            low=None if low is None else int(low),
            peak=None,
            high=None,
            site=None,
            verdict=verdict,
            assumed=self.settings.assumed,
            gpu=self.gpu,
            reason=self.reason if reason is None else f"{self.reason}; {reason}",
            parameters=self._parameters(),
            least_weights=least,
            run=None if self.settings.reason else self.settings.runs[0],
        )

    def _parameters(self) -> dict[str, int] | None:
        if self.model.trained is None:
            return None
        return {
            "adapters": self.model.trained.adapters.parameters,
            "saved_modules": self.model.trained.saved.parameters,
        }

    def _verdict(self, low: float | None, high: float | None) -> tuple[Verdict, str | None]:
        return verdict_of(self.gpu, low, high, shared=self.sharding is not None)


def verdict_of(
    gpu: Gpu | None, low: float | None, high: float | None, *, shared: bool = False
) -> tuple[Verdict, str | None]:
    """The verdict for each of the GPUs, and why there is none. ``low`` and ``high`` bound one GPU's
    peak: its own part where it is known how they are ``shared``, else as if it held everything;
    what does not fit one of several may then still fit them together.
    """
    if gpu is None:
        return "unknown", None
    if low is not None and low > gpu.usable_bytes:
        if gpu.count == 1 or shared:
            return "oom", None
        return "unknown", f"how {gpu.count} GPUs share the model is not known"
    if high is None:
        return "unknown", None
    return ("fits" if high <= gpu.least_bytes else "risk"), None
