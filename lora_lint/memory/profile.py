"""How a framework runs a training step, in the ways that memory depends on."""

from __future__ import annotations

from typing import NamedTuple


class Profile(NamedTuple):
    """Switches that no config field says. None: not known, so that both ways are in the band.

    ``autocast``: the step runs under 16-bit torch.autocast (transformers' Trainer with ``bf16`` or
    ``fp16``). ``adapter_bytes`` of an adapter's parameter: 4 by PEFT's ``autocast_adapter_dtype``,
    2 where a framework casts adapters down. ``kbit_preparation``: prepare_model_for_kbit_training
    is called on a quantized model. ``fused_loss``: the loss never holds all logits.
    ``outputs_kept``: the model's outputs are held during the backward, as by
    ``outputs = model(**batch); outputs.loss.backward()``. ``padded``: batches of several sequences
    are padded. ``error``: the closed form's relative error for this framework; None where it is the
    family's.

    The default is PEFT and transformers alone, with what a loop written by hand leaves open.
    """

    autocast: bool | None = None
    adapter_bytes: int = 4
    kbit_preparation: bool | None = None
    fused_loss: bool | None = False
    outputs_kept: bool | None = None
    padded: bool | None = None
    error: float | None = None


PLAIN = Profile()
# transformers' Trainer: outputs are dropped before the backward (trainer.py ``training_step``),
# and a fused loss may be switched on outside the LoRA settings.
TRAINER = Profile(fused_loss=None, outputs_kept=False)
_FRAMEWORKS = {
    # loaders/model.py ``_prepare_model_for_quantization``, but for FSDP and a few models
    "axolotl": TRAINER._replace(kbit_preparation=None),
    # model/model_utils/checkpointing.py prepares models itself, without a cast of the embeddings
    "llama_factory": TRAINER._replace(kbit_preparation=False),
    # pipelines/train/tuner.py gives the quantized model to PEFT as it is
    "ms_swift": TRAINER._replace(kbit_preparation=False),
    # builders/models.py ``build_peft_model``
    "oumi": TRAINER._replace(kbit_preparation=True),
    # trainers/clm/utils.py for its own trainer, TRL's for the others
    "autotrain": TRAINER._replace(kbit_preparation=None),
    # trainer/sft_trainer.py; the other trainers prepare quantized models in other ways
    "trl": TRAINER._replace(kbit_preparation=None),
    # models/llama.py: the loss in chunks (``unsloth_fused_ce_loss``); layers are not upcast
    "unsloth": TRAINER._replace(kbit_preparation=False, fused_loss=True),
}
# Trainable weights that a framework keeps in 16 bits on a quantized model.
_HALF_ON_QUANTIZED = frozenset({"trl"})


def framework_profile(dialect: str, *, quantized: bool) -> Profile:
    """What is known of how a framework trains; read in axolotl 0.19.0, llamafactory 0.9.5, trl
    1.16.0 and unsloth 2026.10.9.
    """
    profile = _FRAMEWORKS.get(dialect, PLAIN)
    if quantized and dialect in _HALF_ON_QUANTIZED:
        profile = profile._replace(adapter_bytes=2)
    return profile
