"""How a framework runs a training step, in the ways that memory depends on.

A dialect reads what a file says and what a framework takes where it says nothing (length, batch,
optimizer, checkpointing, packing, the base model's dtype). Here stands the rest: what a framework
does to the model between loading it and the first step, and how it computes the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from lora_lint.recipe import NOTHING, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.memory.fused import Kind

# The fields of a recipe that decide a profile's switches: see ``framework_profile``.
PROFILE_FIELDS: Final = (
    "autocast",
    "bf16",
    "fp16",
    "fused_loss",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
)


class Profile(NamedTuple):
    """Switches that no config field says. None: not known, so that both ways are in the band.

    ``autocast``: the step runs under 16-bit torch.autocast (transformers' Trainer with ``bf16`` or
    ``fp16``). ``adapter_bytes`` of an adapter's parameter: 4 by PEFT's ``autocast_adapter_dtype``,
    2 where a framework casts adapters down. ``kbit_preparation``: prepare_model_for_kbit_training
    is called on a quantized model. ``fused_loss``: the loss never holds all logits;
    ``fused_by``: what it is (``fused``).
    ``outputs_kept``: the model's outputs are held during the backward, as by
    ``outputs = model(**batch); outputs.loss.backward()``. ``padded``: batches of several sequences
    are padded. ``code``: whose modules run, ``hf`` for Hugging Face's and PEFT's, ``litgpt`` or
    ``torchtune``.
    ``stable_embedding``: on a quantized model the input embeddings are bitsandbytes'
    StableEmbedding, with a norm and a gradient that no optimizer takes. ``keeps_inputs``: 4-bit
    products keep their inputs, as by bitsandbytes before 0.43.2. ``every_linear``: quantization
    takes every linear map, of subclasses and the output head too, and no weights are tied.
    ``graph_kept``: a variable of the loop refers to a step's graph until the next forward has
    ended. ``sequences``: how many a sample of the batch has. ``undescribed``: why activations are
    not described. ``checkpointing``: layers are likely checkpointed where that is
    not known. ``reentrant``: checkpoints are torch's reentrant ones, which keep other things
    while a layer is computed again. ``images``: False where batches are of text
    whatever the model can see. ``error``: the closed form's relative error for this framework; None
    where it is the family's. ``buffers``: bytes that the model holds beside its parameters.

    The default is PEFT and transformers alone, with what a loop written by hand leaves open.
    """

    autocast: bool | None = None
    adapter_bytes: int = 4
    kbit_preparation: bool | None = None
    fused_loss: bool | None = False
    fused_by: Kind = "liger"
    outputs_kept: bool | None = None
    padded: bool | None = None
    code: str = "hf"
    stable_embedding: bool = False
    keeps_inputs: bool = False
    every_linear: bool = False
    graph_kept: bool = False
    sequences: int = 1
    undescribed: str | None = None
    checkpointing: bool = False
    reentrant: bool | None = False
    images: bool | None = None
    error: float | None = None
    buffers: int = 0


PLAIN: Final = Profile()
# transformers' Trainer drops the outputs before the backward (transformers 5.23.0 trainer.py
# ``training_step``), and its loss is fused only by ``use_liger_kernel``, False by default. Under
# autocast accelerate makes an fp32 copy of the logits (1.15.0 utils/operations.py
# ``convert_outputs_to_fp32``), and TRL's SFTTrainer up to 1.7 another one for its token accuracy
# (0.24.0 trainer/sft_trainer.py ``compute_loss``); with log_softmax's output that is 12 bytes a
# logit, all freed before the backward needs its own 12, so that the peak is the same.
TRAINER: Final = Profile(outputs_kept=False)
# A closed form of Hugging Face's modules is off by this much where a framework has its own; and one
# of the framework's own modules by this much at most.
OTHER_CODE_ERROR: Final = 0.15
_OWN_CODE_ERROR: Final = 0.05
# Of torchtune's NF4: each product makes and frees blocks of many sizes, and nobody's measurement
# states its setting.
_NF4_ERROR: Final = 0.10
_FRAMEWORKS: Final = {
    # loaders/model.py ``_configure_embedding_dtypes``: prepares quantized models, then casts
    # embeddings, head and norms back to the model's dtype.
    "axolotl": TRAINER._replace(kbit_preparation=False),
    # model/model_utils/checkpointing.py ``prepare_model_for_training``: no cast of the embeddings,
    # one of the norms by ``upcast_layernorm`` alone; adapters in fp32 (model/adapter.py
    # ``init_adapter``), with ``pure_bf16`` too, by PEFT.
    "llama_factory": TRAINER._replace(kbit_preparation=False),
    # pipelines/train/tuner.py gives the quantized model to PEFT as it is
    "ms_swift": TRAINER._replace(kbit_preparation=False),
    # builders/models.py ``build_peft_model``
    "oumi": TRAINER._replace(kbit_preparation=True),
    # trainers/clm/utils.py for its own trainer, TRL's for the others
    "autotrain": TRAINER._replace(kbit_preparation=None),
    # trainer/sft_trainer.py since 1.0; up to 0.24 quantized models were prepared (models/utils.py
    # ``prepare_peft_model``). SFT holds no logits since 1.7, where ``loss_type`` is
    # ``chunked_nll`` if not written, the other trainers none since 1.15 (trainer/utils.py
    # ``add_fused_lm_head``): it goes by the release.
    "trl": TRAINER._replace(kbit_preparation=None, fused_loss=None),
    # models/llama.py ``unsloth_fused_ce_loss``; unsloth_zoo training_utils.py
    # ``prepare_model_for_training``: fp32 adapters, nothing else is cast. kernels/fast_lora.py
    # keeps a module's input once, and of the MLP no more than gate and up; checkpoints go to the
    # host by ``use_gradient_checkpointing="unsloth"``.
    "unsloth": TRAINER._replace(kbit_preparation=False, fused_loss=True, error=OTHER_CODE_ERROR),
    # Layers, head and loss are its own (``memory.litgpt``). finetune/lora.py ``fit`` holds the
    # chunks of the logits in a list, and by it the graph, until the next forward gives others.
    # Batches are padded without a mask (model.py ``scaled_dot_product_attention`` is causal).
    # Adapters have the model's dtype (lora.py ``LoRALinear``), and lightning puts its 4-bit class
    # in the place of torch's Linear (2.6.6 fabric/plugins/precision/bitsandbytes.py
    # ``module_init_context``). On quantized weights ``main`` replaces the embeddings after the
    # parameters were frozen, so that the new ones are trained by no optimizer but get gradients
    # (since 0.5.0). The form is within 1.1 % of traces of LitGPT's class and within 0.7 % of what
    # LitGPT measured (docs/memory-tracer.md, docs/memory-published.md).
    "litgpt": Profile(
        adapter_bytes=2,
        kbit_preparation=False,
        code="litgpt",
        stable_embedding=True,
        outputs_kept=True,
        padded=False,
        every_linear=True,
        graph_kept=True,
        error=_OWN_CODE_ERROR,
    ),
    # Layers, head and loss are its own (``memory.torchtune``). recipes/
    # lora_finetune_single_device.py ``_loss_step`` lets go of the logits before the backward;
    # batches are padded without a mask (data/_collate.py ``padded_collate_sft``). The form is
    # within 0.1 % of traces of torchtune's model (docs/memory-tracer.md).
    "torchtune": Profile(
        autocast=False,
        adapter_bytes=2,
        kbit_preparation=False,
        code="torchtune",
        outputs_kept=False,
        padded=False,
        error=_OWN_CODE_ERROR,
    ),
}
# Frameworks whose loop is transformers' Trainer where a Python file says so by its arguments.
_TRAINERS_FILE: Final = "peft_python"
# Whether the step runs under autocast where neither ``bf16`` nor ``fp16`` is written: trl 1.16.0
# trainer/base_config.py ``__post_init__`` (bf16 unless fp16, since 0.19), axolotl 0.19.0
# utils/config/__init__.py ``resolve_dtype`` (``bf16: auto``), ms_swift 4.6.0
# arguments/base_args/model_args.py ``_init_torch_dtype`` (by the model's dtype, fp16 for float32),
# unsloth 2026.10.9 models/rl.py (``ACCELERATE_MIXED_PRECISION``); False by transformers'
# TrainingArguments, oumi 0.9 core/configs/params/training_params.py, autotrain_advanced 0.8.36
# trainers/clm/params.py.
_AUTOCAST: Final = {
    "trl": True,
    "axolotl": True,
    "ms_swift": True,
    "unsloth": True,
    "llama_factory": False,
    "oumi": False,
    "autotrain": False,
    "torchtune": False,
}
# Whether checkpoints are reentrant where a file does not say: see ``_reentrant``.
_REENTRANT: Final[Mapping[str, bool | None]] = {
    "llama_factory": True,
    "unsloth": True,
    "ms_swift": None,
    "oumi": None,
    "litgpt": False,
    "torchtune": False,
}
# Dialects whose trainer is TRL's, or may be.
_MAY_BE_TRLS: Final = ("trl", "peft_python")
# Trainable weights that a framework keeps in 16 bits on a quantized model.
_HALF_ON_QUANTIZED: Final = frozenset({"trl"})


def framework_profile(
    dialect: str,
    *,
    quantized: bool,
    given: Mapping[str, object] = NOTHING,
    transformers: str | None = None,
) -> Profile:
    """What is known of how a framework trains; read in axolotl 0.19.0, llamafactory 0.9.5, trl
    1.16.0, ms_swift 4.6.0, oumi 0.9, litgpt 0.5.13, torchtune 0.6.1 and
    unsloth 2026.10.9.

    ``given`` are the recipe's values of ``PROFILE_FIELDS``: None where a field is unset,
    ``UNKNOWN`` where it is not static; ``objective`` beside them is what is trained for.
    ``transformers`` is the release that runs.
    """
    profile = _FRAMEWORKS.get(dialect, PLAIN)
    if dialect == _TRAINERS_FILE and given.get("autocast") is not None:
        profile = TRAINER
    if quantized and dialect in _HALF_ON_QUANTIZED:
        profile = profile._replace(adapter_bytes=2)
    if quantized and dialect == "torchtune":
        profile = profile._replace(error=_NF4_ERROR)
    if dialect == "axolotl" and given.get("gradient_checkpointing") is not True:
        # its own kernels for LoRA keep less than PEFT's layers, which tells without checkpointing
        profile = profile._replace(error=OTHER_CODE_ERROR)
    fused = given.get("fused_loss")
    if fused is UNKNOWN or isinstance(fused, bool):
        known = None if fused is UNKNOWN or profile.fused_loss is None else profile.fused_loss
        profile = profile._replace(fused_loss=True if fused is True else known)
    return profile._replace(
        autocast=_autocast(dialect, given),
        reentrant=_reentrant(dialect, given, transformers, quantized=quantized),
    )


def _reentrant(
    dialect: str, given: Mapping[str, object], transformers: str | None, *, quantized: bool
) -> bool | None:
    """Whether checkpoints are reentrant, None where that is not known.

    transformers takes what it is told, else True up to 4.57 and False since 5.0 (4.57.6 and 5.0.0
    modeling_utils.py). TRL tells a transformers before 5.0 False (1.16.0 trainer/sft_trainer.py),
    but older releases did not (0.12.0). Axolotl sets True for SFT (0.19.0
    utils/config/__init__.py), else False (core/builders/base.py), LLaMA-Factory True (0.9.5
    hparams/model_args.py ``use_reentrant_gc``), Unsloth True (2026.10.9 models/llama.py
    ``patch_peft_model``), AutoTrain True for a quantized model (0.8.36 trainers/clm/utils.py).
    ms-swift takes False where several processes run without
    DeepSpeed and FSDP (4.6.0 trainers/mixin.py ``_fix_gradient_checkpointing``), Oumi hands on an
    empty mapping, of which releases of transformers make different things (0.9
    core/configs/params/training_params.py).
    """
    told = given.get("gradient_checkpointing_kwargs")
    if told is not None:
        value = told.get("use_reentrant") if isinstance(told, dict) else None
        return value if isinstance(value, bool) else None
    if dialect in _REENTRANT:
        return _REENTRANT[dialect]
    if dialect == "axolotl":
        return given.get("objective") is None
    if dialect == "autotrain":
        return quantized
    old = transformers is not None and transformers.startswith("4.")
    if old and dialect in _MAY_BE_TRLS:
        return None
    return old


def _autocast(dialect: str, given: Mapping[str, object]) -> bool | None:
    """Whether the step runs under autocast, None where that is not known."""
    told = given.get("autocast")
    if told is not None:
        return told if isinstance(told, bool) else None
    both = [given.get("bf16"), given.get("fp16")]
    if dialect == "unsloth" or True in both:
        return True
    if UNKNOWN in both:
        return None
    if dialect == "axolotl" and both[0] == "full":
        return False
    if False in both and dialect not in ("trl", "axolotl"):
        return False
    if both[0] is False:  # fp16 alone is on by True only
        return False
    return _AUTOCAST.get(dialect)
