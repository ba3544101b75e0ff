"""How a run trains, as far as its memory goes by it: what a file, its framework and the releases
around it say beside the model and its adapters.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lora_lint.facts import version_key
from lora_lint.recipe import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.environment import Version
    from lora_lint.memory import Profile
    from lora_lint.memory.fused import Kind

# Frameworks whose runs divide a model.
_DIVIDING: Final = ("verl", "openrlhf")
# Frameworks that apply LoRA themselves and whose step is near enough to PEFT's to be estimated.
_ALIKE: Final = ("litgpt", "torchtune")
# The fields that a memory estimate takes.
MEMORY_FIELDS: Final = (
    "dtype",
    "quantization",
    "double_quant",
    "max_length",
    "per_device_train_batch_size",
    "gradient_checkpointing",
    "gradient_accumulation_steps",
    "optim",
    "attn_implementation",
    "packing",
)
# How bitsandbytes holds weights; the sizes of other methods are not known.
_BITSANDBYTES: Final = ("nf4", "fp4", "int8")
# Where quantized weights are made whole before they are trained: transformers trains no MXFP4
# (transformers 5.23.0 quantizers/quantizer_mxfp4.py ``is_trainable``), and LLaMA-Factory no FP8
# (llamafactory 0.9.5 model/model_utils/quantization.py ``configure_quantization``).
_MADE_WHOLE: Final = {"mxfp4": None, "fp8": "llama_factory"}


class Setup:
    """What decides the memory of one recipe's training step."""

    def __init__(self, subject: RecipeSubject) -> None:
        self.subject, self.recipe, self.dialect = subject, subject.recipe, subject.dialect
        self.document, self.tree = subject.document, subject.tree
        self.part = self.document.parts[self.recipe.part]
        self._releases: dict[str, Version | None] = {}

    @property
    def not_estimated(self) -> str | None:
        """Why the memory of such a run is not estimated, None if it is."""
        if self.dialect.applied_by != "PEFT" and self.dialect.name not in _ALIKE:
            return f"how {self.dialect.applied_by} uses memory is not known"
        stated = self.recipe.value("gradient_checkpointing")
        if self.dialect.name == "litgpt" and stated is not False:
            return "how LitGPT's FSDP uses memory is not known"  # on with several devices
        if self.dialect.name == "torchtune":
            from lora_lint.checks.torchtune import undescribed

            if reason := undescribed(self.subject):
                return reason
        if self.dialect.name in _DIVIDING:
            return f"{self.dialect.title} divides the model and generates on the same GPUs"
        if self.tree is not None and "library" in self.tree.facts:
            return "what the activations of a diffusion model take is not known"
        if self.recipe.private.get("quantized_experts"):
            return "how Axolotl quantizes the experts is not estimated"
        if isinstance(self.quantization, str) and self.quantization not in _BITSANDBYTES:
            return f"how much memory {self.quantization} weights take is not known"
        if self.recipe.objective in ("ppo", "gkd"):
            return f"{self.recipe.objective} keeps further models on the GPU"
        if self.recipe.private.get("reference"):
            return "the reference model takes memory of its own"
        return self.subject.shared if isinstance(self.subject.shared, str) else None

    @property
    def quantizable(self) -> bool:
        """Whether bitsandbytes may quantize the weights as they are loaded: transformers takes no
        other method than that of the published ones.
        """
        return self.tree is None or "checkpoint_quantization" not in self.tree.facts

    @property
    def quantization(self) -> Any:
        """How the base weights are held in training: as the run says, else as they are published;
        None where they are not quantized. Weights that are published quantized stay so:
        transformers takes no other method for them, and none of a run's settings for those of
        bitsandbytes (transformers 5.23.0 quantizers/auto.py ``merge_quantization_configs``).
        """
        stated = self.recipe.value("quantization")
        stated = None if stated == "none" else stated
        held = self.tree.facts.get("checkpoint_quantization") if self.tree else None
        if held is None or held in _BITSANDBYTES:
            return held or stated
        if _MADE_WHOLE.get(held, "") in (None, self.dialect.name) and stated is None:
            return None
        return held

    @property
    def _launched_precision(self) -> object:
        """The mixed precision that ``accelerate launch`` is told, by an option or by its file: what
        TrainingArguments take where neither bf16 nor fp16 is on (transformers 5.23.0
        training_args.py ``ACCELERATE_MIXED_PRECISION``), and Accelerator too.
        """
        around = self.part.launchers
        told = next((n for node in around if (n := node.get("mixed_precision"))), None)
        if told is not None:
            return told.value
        from lora_lint.neighbours import Section

        launched = self.subject.accelerate
        return launched.value("mixed_precision") if isinstance(launched, Section) else None

    @cached_property
    def _keeps_inputs(self) -> bool:
        """Whether bitsandbytes' 4-bit products keep their inputs, as before 0.43.2 (its commit
        9e753741). Of a range pip installs the newest. Unsloth has kernels of its own.
        """
        if self.dialect.name == "unsloth":
            return False
        known = self._release_of("bitsandbytes")
        return known is not None and version_key(known.last) < (0, 43, 2)

    def _release_of(self, package: str) -> Version | None:
        """Another package's release by the files around the config, which are read once."""
        if not self.subject.context.around:
            return None
        if package not in self._releases:
            from lora_lint.environment import find_release
            from lora_lint.facts import compatibility_facts

            known = compatibility_facts()[package]
            folder = Path(self.document.path).parent
            self._releases[package] = find_release(folder, package, known)
        return self._releases[package]

    @cached_property
    def _trl_fuses(self) -> bool | None:
        """Whether the loss of a TRL trainer never holds all logits where a file does not say.

        SFT's does so since 1.7, where ``loss_type`` is ``chunked_nll`` by default, and in 1.15 with
        any; the other trainers' since 1.15 (trl 1.6.0, 1.7.0 trainer/sft_config.py, 1.15.0
        trainer/utils.py ``add_fused_lm_head``).
        """
        known = self._release_of("trl")
        if known is None:
            return None
        least, most = version_key(known.first), version_key(known.last)
        if least >= (1, 15):
            return True
        if self.recipe.objective not in (None, "sft"):
            return False if most < (1, 15) else None
        written = "loss_type" in self.document.text
        if most < (1, 6) or (most < (1, 7) and not written):
            return False
        return True if least >= (1, 7) and not written else None

    @property
    def _trl_fused_by(self) -> Kind:
        """How TRL's loss does so; of a range pip installs the newest."""
        known = self._release_of("trl") if self._trl_fuses else None
        if known is None:
            return "liger"
        newest = version_key(known.last)
        return "trl_1.15" if newest >= (1, 15) else "trl_1.13" if newest >= (1, 13) else "trl_1.7"

    def profile(self, quantization: object, changes: Mapping[str, Any]) -> Profile:
        """What is known of how the framework trains, with some settings changed."""
        from lora_lint.memory import PROFILE_FIELDS, for_objective, framework_profile

        given = {name: self.recipe.value(name) for name in PROFILE_FIELDS}
        given |= {name: value for name, value in changes.items() if name in given}
        if self._launched_precision in ("bf16", "fp16"):
            given["autocast"] = True
        quantized = quantization not in (None, "none")
        given["objective"] = self.recipe.objective
        profile = framework_profile(
            self.recipe.dialect,
            quantized=quantized,
            given=given,
            transformers=self.subject.transformers,
        )
        if quantization in ("nf4", "fp4") and self._keeps_inputs:
            profile = profile._replace(keeps_inputs=True)
        if "fused_loss" in changes:
            profile = profile._replace(fused_loss=changes["fused_loss"])
        is_trl = self.recipe.dialect == "trl" or bool(self.recipe.private.get("trl"))
        profile = for_objective(profile, self.recipe.objective)
        profile = profile._replace(checkpointing=self._has_trl_arguments)
        if is_trl and "fused_loss" not in changes and given["fused_loss"] in (None, False):
            profile = profile._replace(fused_loss=self._trl_fuses, fused_by=self._trl_fused_by)
        if self.recipe.private.get("text_batches"):
            profile = profile._replace(images=False)
        if self.dialect.name == "torchtune" and self.tree is not None:
            from lora_lint.checks.torchtune import with_file

            profile = with_file(profile, self.subject, self.tree)
        return profile

    @property
    def checkpointing(self) -> Any:
        """Whether layers are checkpointed: as the file says, else as TRL's arguments do, which turn
        it on since 0.22 (trl 0.21.0, 0.22.0 trainer/sft_config.py, dpo_config.py).
        """
        stated = self.recipe.value("gradient_checkpointing")
        if stated is not None or not self._has_trl_arguments:
            return stated
        known = self._release_of("trl")
        if known is None:
            return UNKNOWN
        least, most = version_key(known.first), version_key(known.last)
        return True if least >= (0, 22) else False if most < (0, 22) else UNKNOWN

    @property
    def _has_trl_arguments(self) -> bool:
        return self.recipe.dialect == "trl" or bool(self.recipe.private.get("trl_arguments"))

    def fields(self) -> dict[str, Any]:
        """The values of ``MEMORY_FIELDS``, as training has them."""
        given = {name: self.recipe.value(name) for name in MEMORY_FIELDS}
        given["gradient_checkpointing"] = self.checkpointing
        held = self.quantization
        if held is not None and held != given["quantization"]:
            given["double_quant"] = UNKNOWN  # as the weights are published
        return given | {"quantization": held}
