"""Builds a model from its config, hands it to PEFT, and takes training steps."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTORCH_JIT"] = "0"  # a scripted function hides its calls
# Whether images' tokens are as many as their features is a question about values.
os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"

import torch
import transformers

from lora_lint.memory.tracer import quantized
from lora_lint.memory.tracer.cuda import AsOnCuda
from lora_lint.memory.tracer.inputs import inputs_of
from lora_lint.memory.tracer.storages import Storages, rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# transformers asks for the flash-attn package where a name holds "flash".
_FLASH = "traced_fa2"


class Request(NamedTuple):
    """One run to trace.

    ``config`` are the values of the model's config.json, ``cls`` the class of transformers that is
    built; ``lora`` are LoraConfig's keywords. ``dtype`` of the base weights; ``compute_dtype`` of
    quantized products; ``prepared``: PEFT's prepare_model_for_kbit_training is called.
    ``checkpointing``: None, ``reentrant`` or ``non-reentrant``. ``attention``: None (transformers'
    choice), ``sdpa``, ``eager`` or ``flash_attention_2``. ``uniform``: no row is padded or packed.
    ``fused_loss``: the loss never holds all logits. ``accumulates``: gradients of an earlier
    micro-batch are alive. ``adapter_dtype``: of the adapters' parameters.
    """

    config: Mapping[str, Any]
    cls: str
    lora: Mapping[str, Any]
    batch: int = 1
    length: int = 512
    dtype: str = "bfloat16"
    quantization: str | None = None
    double_quant: bool = False
    compute_dtype: str = "bfloat16"
    prepared: bool = False
    autocast: bool = False
    adapter_dtype: str = "float32"
    checkpointing: str | None = None
    attention: str | None = None
    uniform: bool = True
    fused_loss: bool = False
    outputs_kept: bool = False
    accumulates: bool = False
    capability: tuple[int, int] = (8, 0)
    images: int = 0
    steps: int = 2


class Traced(NamedTuple):
    """What a step needed, in bytes.

    ``weights``: the base model with its buffers; ``trainable``: adapters and saved copies;
    ``states``: AdamW's. ``phases``: the most that was alive beside them in the ``forward``, the
    ``backward`` and the ``optimizer``'s step, each with the operation that ran then.
    ``parameters``: how many are trained. ``kernels`` of attention that ran. ``layers``: how
    deep the traced models were; more than one depth means that the peaks are extrapolated.
    """

    weights: int
    trainable: int
    states: int
    phases: Mapping[str, tuple[int, str]]
    parameters: int
    kernels: tuple[str, ...]
    layers: tuple[int, ...]

    @property
    def beyond(self) -> int:
        """The most that was alive beside weights, adapters and states."""
        return max(size for size, _ in self.phases.values())

    @property
    def site(self) -> str:
        """The phase and the operation of the peak."""
        phase, (_, operation) = max(self.phases.items(), key=lambda item: item[1][0])
        return f"{phase}: {operation}"

    @property
    def peak(self) -> int:
        """Everything that PyTorch would have allocated at the peak."""
        return self.weights + self.trainable + self.states + self.beyond


def trace(request: Request, depth: int | None = None) -> Traced:
    """The peak of a run's training step, once its optimizer's states are there.

    ``depth``: of how many layers the model is, its own by default. Raises whatever the model's
    class, PEFT or the step raise.
    """
    return _take_steps(prepare(request, depth), request)


def prepare(request: Request, depth: int | None = None) -> Any:
    """The PeftModel of a request on the meta device, ready to be trained."""
    import peft

    model = _with_peft(_build(request, depth), request, peft)
    model.train()
    return model


def config_of(values: Mapping[str, Any]) -> Any:
    """A config object from the values of a config.json."""
    values = {key: value for key, value in values.items() if key != "quantization_config"}
    model_type = values["model_type"]
    return transformers.CONFIG_MAPPING[model_type].from_dict(dict(values))


def shallow(config: Any, depth: int) -> Any:
    """A config of fewer layers: what it lists for each layer is cut as well."""
    text = config.get_text_config()
    whole = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == whole:
            setattr(text, name, value[:depth])
    text.num_hidden_layers = depth
    for name in ("num_decoder_layers", "encoder_layers", "decoder_layers"):
        if isinstance(getattr(text, name, None), int):
            setattr(text, name, depth)
    return config


def _build(request: Request, depth: int | None) -> Any:
    config = config_of(request.config)
    if depth is not None:
        config = shallow(config, depth)
    model_class = getattr(transformers, request.cls)
    if model_class.config_class == getattr(config, "sub_configs", {}).get("text_config"):
        config = config.get_text_config()
    config.use_cache = False
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    attention = request.attention
    if attention is not None and attention.startswith("flash_attention"):
        transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS.register(_FLASH, _flash)
        attention = _FLASH
    with torch.device("meta"):
        model = model_class._from_config(  # noqa: SLF001 - as the auto classes call it
            config, attn_implementation=attention, dtype=DTYPES[request.dtype]
        )
    if request.quantization:
        quantized.quantize(
            model,
            request.quantization,
            DTYPES[request.compute_dtype],
            nested=request.double_quant,
            keep=set(transformers.quantizers.base.get_keys_to_not_convert(model)),
        )
    return model


def _with_peft(base: Any, request: Request, peft: Any) -> Any:
    reentrant = request.checkpointing == "reentrant"
    how = {"use_reentrant": reentrant}
    if request.prepared:
        base = peft.prepare_model_for_kbit_training(
            base,
            use_gradient_checkpointing=request.checkpointing is not None,
            gradient_checkpointing_kwargs=how,
        )
    if request.checkpointing:
        base.gradient_checkpointing_enable(how)
        base.enable_input_require_grads()
    wanted = DTYPES[request.adapter_dtype]
    with torch.device("meta"):
        model = peft.get_peft_model(base, peft.LoraConfig(**_plain(request.lora)))
    for module in model.modules():
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            for name, parameter in module.named_parameters():
                # On the meta device PEFT casts nothing.
                if parameter.requires_grad and "base_layer" not in name:
                    parameter.data = parameter.data.to(wanted)
    return model


def _plain(lora: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in lora.items() if name != "peft_type"}


def _take_steps(model: Any, request: Request) -> Traced:
    trained = [p for p in model.parameters() if p.requires_grad]
    storages = Storages("meta", _all(model))
    optimizer = torch.optim.AdamW(trained, foreach=False)
    as_on_cuda = AsOnCuda(capability=request.capability, uniform=request.uniform)
    autocast = (
        torch.autocast("cpu", dtype=DTYPES[request.compute_dtype])
        if request.autocast
        else nullcontext()
    )
    inputs = inputs_of(model, request)
    with _autocast_asked_of_the_cpu(as_on_cuda), storages, as_on_cuda:
        for step in range(request.steps):
            last = step == request.steps - 1
            if last:
                gc.collect()  # cycles of an earlier step; when they go is not for us to say
                storages.peaks.clear()
            storages.phase = "forward"
            with autocast:
                outputs = model(**inputs)
                loss = outputs.loss if outputs.loss is not None else outputs[0].float().mean()
            if not request.outputs_kept:
                del outputs
            storages.phase = "backward"
            _backward(loss)
            storages.phase = "optimizer"
            del loss
            if not last:
                optimizer.step()
                if not request.accumulates:
                    optimizer.zero_grad()
            outputs = None
    states = sum(
        rounded(value.untyped_storage().nbytes())
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    )
    phases = {phase: (size - states, what) for phase, (size, what) in storages.peaks.items()}
    weights, trainable, parameters = sizes(model)
    kernels = tuple(sorted(as_on_cuda.kernels))
    depth = _depth(model)
    return Traced(
        weights, trainable, states, phases, parameters, kernels, (depth,) if depth else ()
    )


def sizes(model: Any) -> tuple[int, int, int]:
    """Bytes of the base model with its buffers, bytes that are trained, and how many parameters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    mine = {id(parameter) for parameter in trained}
    rest = (tensor for tensor in _all(model) if id(tensor) not in mine)
    return _bytes(rest), _bytes(trained), sum(p.numel() for p in trained)


def _depth(model: Any) -> int | None:
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return depth if isinstance(depth, int) else None


def _backward(loss: torch.Tensor) -> None:
    """``loss.backward()``, for which torch would switch the function mode off: what a checkpoint
    computes again has to run as the forward did.
    """
    ones = (torch.ones_like(loss),)
    torch.autograd.graph._engine_run_backward(  # noqa: SLF001
        (loss,), ones, False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def _all(model: Any) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}  # noqa: SLF001
    return sum(map(rounded, sizes.values()))


@contextmanager
def _autocast_asked_of_the_cpu(as_on_cuda: AsOnCuda) -> Iterator[None]:
    """PEFT and models ask ``torch.is_autocast_enabled()``, which speaks for CUDA, and enter
    ``torch.autocast`` for the device of a tensor, which autocast does not know. Its cache is
    emptied when the outermost block ends, be it the forward's or a checkpoint's second forward.
    """
    asked, entered = torch.is_autocast_enabled, torch.autocast.__init__
    emptied = torch.clear_autocast_cache

    def enter(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        entered(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    def empty() -> None:
        emptied()
        as_on_cuda.forget_casts()

    torch.clear_autocast_cache = empty
    torch.is_autocast_enabled = lambda *_: asked("cpu")
    torch.autocast.__init__ = enter  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.is_autocast_enabled = asked
        torch.clear_autocast_cache = emptied
        torch.autocast.__init__ = entered  # type: ignore[method-assign]


def _flash(_: Any, query: Any, key: Any, value: Any, *__: Any, **how: Any) -> Any:
    """transformers' flash_attention_2: keys and values are read without being repeated, and fp32
    ones in 16 bit (integrations/flash_attention.py ``get_target_dtype``).
    """
    if query.dtype is torch.float32:
        kind = (
            torch.get_autocast_dtype("cpu")
            if torch.is_autocast_enabled("cpu")
            else DTYPES["bfloat16"]
        )
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    dropout = how.get("dropout", 0.0)
    out = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
        query, key, value, dropout, True, False, scale=how.get("scaling")
    )[0]
    return out.transpose(1, 2), None
