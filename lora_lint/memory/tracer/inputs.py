"""The inputs of a training step, by what a model's class takes. Values do not matter, shapes do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lora_lint.memory.tracer.step import Request


def inputs_of(model: Any, request: Request) -> dict[str, Any]:
    """Keyword arguments for a model's forward that gives a loss.

    Raises ``ValueError`` for a class whose inputs are not known.
    """
    batch, length = request.batch, request.length
    config = model.config
    name = request.cls
    ids = torch.zeros((batch, length), dtype=torch.int64, device="meta")
    mask = {} if request.uniform else {"attention_mask": torch.ones_like(ids)}
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        if request.fused_loss:
            return {"input_ids": ids, "logits_to_keep": 1, **mask}
        return {"input_ids": ids, "labels": ids, **mask}
    if name.endswith("ForMaskedLM"):
        return {"input_ids": ids, "labels": ids, **mask}
    if name.endswith("ForSequenceClassification"):
        return {
            "input_ids": ids,
            "labels": torch.zeros(batch, dtype=torch.int64, device="meta"),
            **mask,
        }
    if name.endswith("ForTokenClassification"):
        return {"input_ids": ids, "labels": ids, **mask}
    if name.endswith("ForConditionalGeneration") and getattr(config, "is_encoder_decoder", False):
        if hasattr(config, "num_mel_bins"):
            frames = 2 * config.max_source_positions
            shape = (batch, config.num_mel_bins, frames)
            features = torch.zeros(shape, dtype=model.dtype, device="meta")
            return {"input_features": features, "labels": ids}
        return {"input_ids": ids, "labels": ids, **mask}
    if name.endswith("ForImageClassification"):
        side = config.image_size
        pixels = (batch, getattr(config, "num_channels", 3), side, side)
        return {
            "pixel_values": torch.zeros(pixels, dtype=model.dtype, device="meta"),
            "labels": torch.zeros(batch, dtype=torch.int64, device="meta"),
        }
    if name.endswith(("ForConditionalGeneration", "ForImageTextToText")):
        images = _images(model, request) if request.images else {}
        return {"input_ids": ids, "labels": ids, **mask, **images}
    raise ValueError(f"the inputs of {name} are not known")


def _images(model: Any, request: Request) -> dict[str, Any]:
    """So many images a sequence, of the size that a model's vision tower takes; Gemma 3's processor
    tells images' tokens by ``token_type_ids``, and its model then makes a mask.
    """
    vision = model.config.vision_config
    side = vision.image_size
    pixels = (request.batch * request.images, getattr(vision, "num_channels", 3), side, side)
    inputs = {"pixel_values": torch.zeros(pixels, dtype=model.dtype, device="meta")}
    if model.config.model_type == "gemma3":
        kinds = (request.batch, request.length)
        inputs["token_type_ids"] = torch.zeros(kinds, dtype=torch.int64, device="meta")
    return inputs
