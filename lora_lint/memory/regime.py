"""In which precision a training step computes, and what it therefore keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lora_lint.memory.fused import Kind


class Run(NamedTuple):
    """A training step with nothing left open.

    ``weight_bytes`` per parameter of the unquantized part of the base model as it is loaded (2 or
    4); ``quantized``: ``nf4``, ``fp4``, ``int8`` or None. ``prepared``: PEFT's
    prepare_model_for_kbit_training was called, which casts every 16-bit parameter that is not
    quantized to fp32 (peft 0.21.2 utils/other.py). ``autocast``: the step runs under 16-bit
    torch.autocast, as in transformers' Trainer with ``bf16`` or ``fp16``. ``adapter_bytes``: 4 by
    PEFT's autocast_adapter_dtype. ``masked``: the batch is padded, so that attention gets a mask.
    ``fused_loss``: the loss never holds all logits, ``fused_by`` is how (``fused``).
    ``capability``: the GPU's, on which the attention kernel depends. ``images`` in each sequence,
    whose tokens are of ``length``. ``keeps_inputs``, ``graph_kept``, ``code`` and
    ``stable_embedding``: as in ``Profile``.
    """

    batch: int
    length: int
    weight_bytes: int = 2
    quantized: str | None = None
    double_quant: bool = False
    prepared: bool = False
    autocast: bool = False
    adapter_bytes: int = 4
    dropout: bool = False
    dora: bool = False
    checkpointing: bool = False
    attention: str = "sdpa"
    masked: bool = False
    fused_loss: bool = False
    fused_by: Kind = "liger"
    capability: tuple[int, int] = (8, 0)
    reentrant: bool = False
    keeps_inputs: bool = False
    graph_kept: bool = False
    code: str = "hf"
    stable_embedding: bool = False
    images: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch, padding included."""
        return self.batch * self.length

    @property
    def plain_bytes(self) -> int:
        """Bytes per unquantized parameter in use: embeddings, norms, head."""
        return 4 if self.prepared else self.weight_bytes


class Regime(NamedTuple):
    """Bytes per value of each kind of activation.

    ``compute``: q, k, v as attention gets them, and its output. ``linear``: what the projections
    give. ``residual``: the stream between blocks. ``normed``: what norms give. ``lora``: inside the
    adapters. ``logits``: what the head gives. ``lora_inputs`` tells how an adapter keeps its input
    for lora_A's gradient: ``own4`` and ``own2``, a copy for each module in fp32 or 16 bit, or
    ``shared``, the very tensor that the base layer gets, kept once for all modules that read it.
    """

    compute: int
    linear: int
    residual: int
    normed: int
    lora: int
    logits: int
    lora_inputs: str


def regime(run: Run) -> Regime:
    """The precision of a run's activations.

    Without autocast every tensor has the dtype of the weights it meets: 16 bit, or fp32 if the
    model is in fp32 or was prepared (embeddings, norms and head then give fp32, and bitsandbytes'
    Linear4bit casts its output back to its input's dtype: nn/modules.py ``Linear4bit.forward``).
    PEFT casts an adapter's input to the adapter's dtype (tuners_utils.py ``_cast_input_dtype``),
    which copies it when the two differ.

    Under autocast linear maps and attention run in 16 bit whatever they get, and an adapter's
    input is cast down for each module on its own; the residual stream stays fp32 if the
    embeddings are. A quantized linear map is not subject to autocast and gives what it gets.
    """
    plain = run.plain_bytes
    if run.autocast:
        linear = 4 if run.quantized and plain == 4 else 2
        copies = run.adapter_bytes == 4 or plain == 4
        return Regime(2, linear, plain, plain, 2, 2, "own2" if copies else "shared")
    lora = run.adapter_bytes
    inputs = "shared" if lora == plain else ("own4" if lora == 4 else "own2")
    return Regime(plain, plain, plain, plain, lora, plain, inputs)
