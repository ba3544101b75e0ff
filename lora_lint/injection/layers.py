"""LoRA layers: what wraps a module or parameter of each kind, and what they refuse.

Sources: tuners/lora/layer.py (``LoraLayer.update_layer`` and the classes below it),
tuners/lora/model.py ``_create_new_module``, tuners/lora/dora.py; up to 0.5 tuners/lora.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from lora_lint.injection import messages
from lora_lint.injection.simulation import Module, Parameter, Raised

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora_lint.injection.config import LoraSettings

ADAPTER: Final = "default"
_FLOATS: Final = frozenset({"float32", "float16", "bfloat16"})
# Variants each layer class has code for (its ``lora_variants``).
_LINEAR_VARIANTS: Final = frozenset({(), ("use_dora",), ("alora_invocation_tokens",), ("mica",)})
_EMBEDDING_VARIANTS: Final = frozenset({(), ("use_dora",), ("mica",)})
_CONV_VARIANTS: Final = frozenset({(), ("use_dora",)})
_PLAIN_VARIANTS: Final = frozenset({()})


class LoraLayer(Module):
    """A layer around a base layer, or in its place (``replaced``), with the containers that PEFT
    registers in it.
    """

    __slots__ = ("adapter", "alpha", "frozen", "parameter_name", "r", "replaced", "scale", "tied")

    def __init__(
        self, base: Module, kind: str, parameter_name: str | None = None, *, wraps: bool = True
    ) -> None:
        super().__init__(f"lora.{kind}")
        self.replaced = None if wraps else base
        self.parameter_name = parameter_name
        self.r: Any = 0
        self.alpha: Any = 0
        self.scale = 0.0
        self.frozen: tuple[str, ...] = ()
        self.adapter: list[Parameter] = []
        self.tied = False
        if wraps:
            self.children["base_layer"] = base
        else:
            self.parameters = base.parameters
        for name in ("lora_dropout", "lora_A", "lora_B"):
            self.children[name] = Module("ModuleDict", "container")
        for name in ("lora_embedding_A", "lora_embedding_B"):
            self.children[name] = Module("ParameterDict", "container")

    def deepcopy(self, memo: dict[int, Any] | None = None, *, share: bool = False) -> Module:
        """As ``copy.deepcopy``, which fails on factors that are views of the embeddings'
        factors.
        """
        if self.tied:
            text = "Only Tensors created explicitly by the user (graph leaves) support the deepcopy"
            raise Raised("RuntimeError", text)
        return super().deepcopy(memo, share=share)

    @property
    def base(self) -> Module:
        """The innermost wrapped module (``get_base_layer``)."""
        return base_of(self)

    @property
    def bias(self) -> Parameter | None:
        """The bias of the base layer."""
        holder = self.base if self.replaced is None else self
        return holder.parameters.get("bias")

    def attribute(self, name: str) -> Module | None:
        """As torch's; an attention's ``out_proj`` is the unwrapped one."""
        if name == "out_proj" and self.cls == "lora.MultiheadAttention":
            below = self.base.children.get("out_proj")
            return base_of(below) if below is not None else None
        return self.children.get(name)

    def add(self, holder: str, parameter: Parameter, *, under: str = "weight") -> None:
        """Register an adapter parameter in one of the containers."""
        container = self.children[holder]
        if container.cls == "ParameterDict":
            container.parameters[ADAPTER] = parameter
        else:
            layer = container.children.setdefault(ADAPTER, Module("Linear", "Linear"))
            layer.parameters[under] = parameter
        self.adapter.append(parameter)

    def drop_bias(self) -> None:
        """Take away what ``lora_bias`` has added."""
        factor = self.children["lora_B"].children.get(ADAPTER)
        if factor is not None and "bias" in factor.parameters:
            self.adapter.remove(factor.parameters.pop("bias"))

    def numel(self) -> int:
        """The adapter's parameters in this layer."""
        return sum(parameter.numel() for parameter in self.adapter)


def base_of(module: Module) -> Module:
    """What a wrapper wraps or replaces, down to the model's own module."""
    while True:
        if "base_layer" in module.children:
            module = module.children["base_layer"]
        elif isinstance(module, LoraLayer) and module.replaced is not None:
            module = module.replaced
        else:
            return module


class Builder:
    """Makes LoRA layers for one config; ``dtype`` is that of the base weights, ``sized`` whether
    their sizes are known."""

    def __init__(self, settings: LoraSettings, dtype: str, *, sized: bool) -> None:
        self.settings = settings
        self.semantics = settings.semantics
        self.dtype = dtype
        self.sized = sized
        self.makers: dict[str, Callable[[Module, Any, Any, LoraLayer | None], LoraLayer]] = {
            "Embedding": self._embedding,
            "Conv1d": self._convolution,
            "Conv2d": self._convolution,
            "Conv3d": self._convolution,
            "MultiheadAttention": self._attention,
            "Linear": self._linear,
            "Conv1D": self._conv1d_linear,
        }

    def wrap(
        self, target: Module, r: Any, alpha: Any, tied_to: LoraLayer | None = None
    ) -> LoraLayer:
        """A LoRA layer around a module.

        Raises ``Raised("ValueError")`` for a kind PEFT has no layer for.
        """
        kind = base_of(target).kind
        maker = self.makers.get(kind)
        if maker is None or kind not in self.semantics.kinds:
            raise Raised("ValueError", messages.UNSUPPORTED.format(cls=base_of(target).cls))
        return maker(target, r, alpha, tied_to)

    def _layer(self, target: Module, kind: str, parameter_name: str | None = None) -> LoraLayer:
        layer = LoraLayer(target, kind, parameter_name, wraps=self.semantics.layers_wrap)
        if self.semantics.magnitude == "module":
            layer.children["lora_magnitude_vector"] = Module("ModuleDict", "container")
        return layer

    # Parts that all layers share, in the order in which PEFT runs them ----------------------------

    def _variant(self, supported: frozenset[tuple[str, ...]]) -> tuple[str, ...]:
        settings = self.settings
        if self.semantics.variants != "exclusive":
            if supported is _LINEAR_VARIANTS and settings.alora_invocation_tokens is not None:
                return ("alora_invocation_tokens",)
            return ("use_dora",) if settings.use_dora and ("use_dora",) in supported else ()
        requested = tuple(
            name
            for name, on in (
                ("alora_invocation_tokens", bool(settings.alora_invocation_tokens)),
                ("mica", settings.init_lora_weights == "mica"),
                ("use_dora", bool(settings.use_dora)),
            )
            if on
        )
        if requested not in supported:
            text = f"Invalid or unsupported variant combination: {requested}"
            raise Raised("ValueError", text)
        return requested

    def _check_alora(self, kind: str) -> None:
        alora = self.settings.alora_invocation_tokens is not None
        if alora and self.semantics.variants == "alora for linear":
            raise Raised("ValueError", f"aLoRA does not support adapting {kind} layers.")

    def _check_dora(self, kind: str) -> None:
        if self.settings.use_dora and kind not in self.semantics.dora_kinds:
            text = f"{kind} does not support DoRA yet, please set it to False"
            raise Raised(self.semantics.dora_refused, text)

    def _check_rank(self, r: Any) -> None:
        if self.semantics.no_rank == "refused" and _not_above_zero(r):
            text = f"`r` should be a positive integer value but the value passed is {r}"
            raise Raised("ValueError", text)

    def _check_dropout(self) -> None:
        dropout = self.settings.lora_dropout
        try:
            positive = dropout > 0.0
        except TypeError as exc:
            raise Raised("TypeError", str(exc)) from None
        if positive and dropout > 1:
            text = f"dropout probability has to be between 0 and 1, but got {dropout}"
            raise Raised("ValueError", text)

    def _warn_lora_bias(self, base: Module) -> None:
        if self.settings.lora_bias and "bias" not in base.parameters:
            text = messages.LORA_BIAS_UNMERGEABLE.format(cls=base.cls)
            self.settings.warn(text, "PeftWarning")

    def _stays_empty(self, layer: LoraLayer, r: Any, alpha: Any) -> bool:
        """Whether a rank of 0 or less leaves the layer without an adapter, as before peft 0.6."""
        if self.semantics.no_rank == "refused" or not _not_above_zero(r):
            return False
        layer.r, layer.alpha = r, alpha
        return True

    def _set_scale(self, layer: LoraLayer, r: Any, alpha: Any) -> None:
        layer.r, layer.alpha = r, alpha
        try:
            layer.scale = alpha / math.sqrt(r) if self.settings.use_rslora else alpha / r
        except TypeError as exc:
            raise Raised("TypeError", str(exc)) from None

    def _add_dora(self, layer: LoraLayer, size: int) -> None:
        if self.semantics.magnitude == "parameter":
            layer.children["lora_magnitude_vector"] = Module("ParameterDict", "container")
        layer.add("lora_magnitude_vector", Parameter((size,)))

    # Dense layers
    # -----------------------------------------------------------------------------------

    def _conv1d_linear(
        self, target: Module, r: Any, alpha: Any, tied_to: LoraLayer | None
    ) -> LoraLayer:
        if not self.settings.fan_in_fan_out:
            self.settings.warn(
                "fan_in_fan_out is set to False but the target module is `Conv1D`. Setting "
                "fan_in_fan_out to True."
            )
            self.settings.fan_in_fan_out = True
        return self._dense(target, r, alpha, tied_to)

    def _linear(self, target: Module, r: Any, alpha: Any, tied_to: LoraLayer | None) -> LoraLayer:
        if self.settings.fan_in_fan_out:
            self.settings.warn(
                "fan_in_fan_out is set to True but the target module is `torch.nn.Linear`. Setting "
                "fan_in_fan_out to False."
            )
            self.settings.fan_in_fan_out = False
        return self._dense(target, r, alpha, tied_to)

    def _dense(self, target: Module, r: Any, alpha: Any, tied_to: LoraLayer | None) -> LoraLayer:
        layer = self._layer(target, "Linear")
        into, out = layer.base.features
        self._update_dense(layer, into, out, r, alpha, _LINEAR_VARIANTS, tied_to)
        return layer

    def _update_dense(
        self,
        layer: LoraLayer,
        into: int,
        out: int,
        r: Any,
        alpha: Any,
        variants: frozenset[tuple[str, ...]],
        tied_to: LoraLayer | None = None,
        experts: int = 1,
    ) -> None:
        """``LoraLayer.update_layer``; ``experts`` multiplies the rank of a stacked parameter."""
        settings = self.settings
        self._check_rank(r)
        if layer.parameter_name is None:
            self._warn_lora_bias(layer.base)
        variant = self._variant(variants)
        self._check_dropout()
        if self._stays_empty(layer, r, alpha):
            return
        rank = r if layer.parameter_name is None else _times(r, experts)
        _require_size(rank)
        a, b = Parameter((rank, into)), Parameter((out, rank))
        if tied_to is not None:
            dim, embedding_r = tied_to.children["lora_embedding_B"].parameters[ADAPTER].shape
            count = tied_to.children["lora_embedding_A"].parameters[ADAPTER].shape[1]
            a, b = Parameter((embedding_r, dim)), Parameter((count, embedding_r))
            layer.tied = not settings.inference_mode
        self._set_scale(layer, r, alpha)
        a, b = self._initialised(layer, a, b, r)
        transposed = layer.base.kind == "Conv1D" and not self.semantics.dora_transposes
        weight = (into, out) if transposed else (out, into)
        magnitudes = out
        if transposed and 1 in weight and (b.shape[0], a.shape[1]) == weight[::-1]:
            magnitudes = max(weight)  # the two are broadcast to a square
        elif "use_dora" in variant and (b.shape[0], a.shape[1]) != weight:
            text = "the sizes of the weight and of lora_B @ lora_A differ"  # on a Conv1D
            raise Raised("RuntimeError", text)
        layer.add("lora_A", a)
        layer.add("lora_B", b)
        if settings.lora_bias:
            layer.add("lora_B", Parameter((out,)), under="bias")
        layer.children["lora_dropout"].children[ADAPTER] = Module("Dropout")
        if "use_dora" in variant:
            self._add_dora(layer, magnitudes)
        if "mica" in variant:
            layer.frozen = ("lora_B",)

    def _initialised(
        self, layer: LoraLayer, a: Parameter, b: Parameter, r: Any
    ) -> tuple[Parameter, Parameter]:
        """What the initialisation makes of the factors: an SVD or QR can't give more ranks than the
        weight has."""
        init = self.settings.init_lora_weights
        inits = self.settings.inits
        if self.semantics.init_strings == "truth":
            return a, b
        if isinstance(init, str):
            if "pissa" in inits and init.startswith("pissa"):
                return self._decomposed(layer, r, _check_pissa(init))
            if "corda" in inits and init.startswith("corda"):
                self._base_weight(layer)
                text = (
                    "`eigens` attribute not found for layer, please run `preprocess_corda` first. "
                )
                raise Raised("ValueError", text)
            if "olora" in inits and init.lower() == "olora":
                return self._decomposed(layer, r, None)
            if "mica" in inits and init.lower() == "mica" and layer.parameter_name is None:
                self._check_mica(self._base_weight(layer), r)
                return a, b
            if init == "eva" and init in inits:
                return a, b
            if init in inits & {"orthogonal", "lora_ga"}:
                self._check_weight(layer)
                if init == "orthogonal" and r % 2:
                    text = (
                        "Orthogonal initialization requires the LoRA rank to be even, got "
                        f"{r} instead."
                    )
                    raise Raised("ValueError", text)
                return a, b
        _check_default_init(init)
        return a, b

    def _check_weight(self, layer: LoraLayer) -> None:
        if _weight_of(layer) is None:
            raise Raised("AttributeError", f"'{layer.base.cls}' object has no attribute 'weight'")

    def _base_weight(self, layer: LoraLayer) -> tuple[int, ...]:
        weight = _weight_of(layer)
        if weight is None:
            raise Raised("AttributeError", f"'{layer.base.cls}' object has no attribute 'weight'")
        if self.dtype not in _FLOATS:
            raise Raised(
                "TypeError", f"Unsupported data type for the base layer. Got {self.dtype}."
            )
        return weight

    def _decomposed(
        self, layer: LoraLayer, r: int, error: Raised | None
    ) -> tuple[Parameter, Parameter]:
        shape = self._base_weight(layer)
        if error is not None:
            raise error
        if len(shape) != 2:
            raise Raised("RuntimeError", "the decomposition needs a matrix")
        olora = self.settings.init_lora_weights.lower() == "olora"
        if self.settings.fan_in_fan_out and not olora and self.semantics.pissa_transposes:
            shape = shape[::-1]
        rank = min(r, *shape)
        return Parameter((rank, shape[1])), Parameter((shape[0], rank))

    def _check_mica(self, shape: tuple[int, ...], r: int) -> None:
        if self.sized and r > min(shape):
            text = f"MiCA requires `r` <= min(in_features, out_features) but got r={r}"
            raise Raised("ValueError", text)

    # Embeddings, convolutions, attention, parameters
    # ------------------------------------------------

    def _embedding(
        self,
        target: Module,
        r: Any,
        alpha: Any,
        tied_to: LoraLayer | None,  # noqa: ARG002
    ) -> LoraLayer:
        settings = self.settings
        layer = self._layer(target, "Embedding")
        count, dim = layer.base.features
        self._check_dora("Embedding")
        if settings.lora_bias:
            text = f"lora_bias={settings.lora_bias} is not supported for Embedding."
            raise Raised("ValueError", text)
        self._check_rank(r)
        variant = self._variant(_EMBEDDING_VARIANTS)
        self._check_dropout()
        if self._stays_empty(layer, r, alpha):
            return layer
        _require_size(r)
        self._set_scale(layer, r, alpha)
        init = settings.init_lora_weights
        if isinstance(init, str) and "mica" in settings.inits and init.lower() == "mica":
            self._check_mica(self._base_weight(layer), r)
        layer.children["lora_dropout"].children[ADAPTER] = Module("Dropout")
        layer.add("lora_embedding_A", Parameter((r, count)))
        layer.add("lora_embedding_B", Parameter((dim, r)))
        if "use_dora" in variant:
            self._add_dora(layer, dim)
        if "mica" in variant:
            layer.frozen = ("lora_embedding_B",)
        return layer

    def _convolution(
        self,
        target: Module,
        r: Any,
        alpha: Any,
        tied_to: LoraLayer | None,  # noqa: ARG002
    ) -> LoraLayer:
        settings = self.settings
        layer = self._layer(target, base_of(target).kind)
        base = layer.base
        (into, out), kernel = base.features, base.facts["kernel"]
        groups = base.facts.get("groups", 1)
        late = layer.base.kind == "Conv1d"  # refused only when everything else is done
        if not late:
            self._check_dora(base.kind)
        self._check_alora(base.kind)
        if self.semantics.conv_groups == "weight":
            into //= groups
        undivided = groups if self.semantics.conv_groups == "module" else 1
        if self.semantics.conv_groups != "groups":
            groups = 1
        if groups > 1:
            settings.warn(
                "LoRA adapter added to ConvNd layer with groups > 1. Merging is not supported."
            )
        try:
            divisible = r % groups == 0
        except TypeError as exc:
            raise Raised("TypeError", str(exc)) from None
        if not divisible:
            text = f"Targeting a {base.cls} with groups={groups} and rank {r}."
            raise Raised("ValueError", text)
        self._check_rank(r)
        self._warn_lora_bias(base)
        variant = self._variant(_CONV_VARIANTS)
        self._check_dropout()
        if self._stays_empty(layer, r, alpha):
            return layer
        _require_size(r)
        layer.children["lora_dropout"].children[ADAPTER] = Module("Dropout")
        layer.add("lora_A", Parameter((r, into, *kernel)))
        layer.add("lora_B", Parameter((out, r // groups, *(1 for _ in kernel))))
        if settings.lora_bias:
            layer.add("lora_B", Parameter((out,)), under="bias")
        self._set_scale(layer, r, alpha)
        init = settings.init_lora_weights
        if self.semantics.init_strings == "checked" and init not in settings.inits & {"lora_ga"}:
            _check_default_init(init)
        if late:
            self._check_dora(base.kind)
        if "use_dora" in variant:
            if undivided > 1:
                raise Raised("RuntimeError", "the adapter's size is not that of the weight")
            self._add_dora(layer, out)
        return layer

    def _attention(
        self,
        target: Module,
        r: Any,
        alpha: Any,
        tied_to: LoraLayer | None,  # noqa: ARG002
    ) -> LoraLayer:
        base = base_of(target)
        if base.facts.get("same_embed") is False:
            text = (
                "Only same embed for query/key/value is supported as of now for MultiheadAttention."
            )
            raise Raised("ValueError", text)
        if self.settings.use_dora:
            text = "MultiheadAttention does not support DoRA (yet), please set use_dora to False"
            raise Raised("ValueError", text)
        self._check_alora("MultiheadAttention")
        layer = self._layer(target, "MultiheadAttention")
        into, out = base.features
        inner = self._dense(base.children["out_proj"], r, alpha, None)
        base.children["out_proj"] = inner
        self._update_dense(layer, into, out, r, alpha, _PLAIN_VARIANTS)
        if not self.semantics.attention_bias:
            for wrapped in (inner, layer):
                wrapped.drop_bias()
        return layer

    def wrap_parameter(self, target: Module, name: str, r: Any, alpha: Any) -> LoraLayer:
        """A ParamWrapper around a module, for one of its parameters."""
        settings = self.settings
        layer = self._layer(target, "ParamWrapper", name)
        parameter = layer.base.parameters.get(name)
        shape = (
            parameter.shape
            if parameter is not None
            else layer.base.facts["parametrized_shapes"][name]
        )
        if len(shape) not in (2, 3):
            text = messages.PARAMETER_DIMENSIONS.format(count=len(shape))
            flat = len(shape) < 2
            raise Raised(self.semantics.flat_parameter_error if flat else "ValueError", text)
        for on, what in (
            (settings.lora_dropout, "lora_dropout != 0"),
            (settings.fan_in_fan_out, "fan_in_fan_out"),
            (settings.lora_bias, "lora_bias=True"),
            (settings.use_dora, "use_dora=True"),
        ):
            if on:
                raise Raised("ValueError", f"lora.ParamWrapper does not work with {what}.")
        experts, into, out = shape if len(shape) == 3 else (1, shape[1], shape[0])
        if len(shape) == 3 and not layer.base.facts.get("transposed"):
            into, out = out, into
        self._update_dense(layer, into, out, r, alpha, _PLAIN_VARIANTS, experts=experts)
        return layer


def _not_above_zero(r: Any) -> bool:
    try:
        return bool(r <= 0)
    except TypeError as exc:
        raise Raised("TypeError", str(exc)) from None


def _times(r: Any, experts: int) -> Any:
    try:
        return r * experts
    except TypeError as exc:
        raise Raised("TypeError", str(exc)) from None


def _require_size(r: Any) -> None:
    if isinstance(r, bool) or not isinstance(r, int):
        text = messages.SIZE_NOT_INT.format(kind=type(r).__name__)
        raise Raised("TypeError", text)


def _weight_of(layer: LoraLayer) -> tuple[int, ...] | None:
    weight = layer.base.weight
    if weight is not None:
        return weight.shape
    shapes = layer.base.facts.get("parametrized_shapes", {})
    return tuple(shapes["weight"]) if "weight" in shapes else None


def _check_pissa(init: str) -> Raised | None:
    """The error that a pissa spelling gives, None for ``pissa`` and ``pissa_niter_<number>``."""
    if init == "pissa":
        return None
    parts = init.split("_niter_")
    if len(parts) == 2:
        try:
            int(parts[-1])
        except ValueError as exc:
            return Raised("ValueError", str(exc))
        return None
    text = (
        "init_lora_weights should be 'pissa' or 'pissa_niter_[number of iters]', got "
        f"{init} instead."
    )
    return Raised("ValueError", text)


def _check_default_init(init: Any) -> None:
    """``reset_lora_parameters`` for a layer with ``lora_A``."""
    if not init or init is True:
        return
    if not isinstance(init, str):
        raise Raised("AttributeError", f"'{type(init).__name__}' object has no attribute 'lower'")
    if init.lower() != "gaussian":
        raise Raised("ValueError", f"Unknown initialization init_lora_weights={init!r}")
