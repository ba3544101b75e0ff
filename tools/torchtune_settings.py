"""Settings of torchtune's LoRA recipe for one device on which its closed form of memory is
developed, and those that judge it: the builder, and the config.json of the model that it builds.

``HOLDOUT`` was listed before the form was compared with any trace.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lora_lint.memory import MemoryEstimate
    from lora_lint.models import ModuleTree

_SIZES: Final = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
# What Hugging Face's model calls torchtune's parts.
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "output_proj": ("o_proj",),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
    "output": ("lm_head",),
}


class Setting(NamedTuple):
    """A run: the builder, the rank, the parts with LoRA, dropout, batch, length, whether layers are
    checkpointed and the base quantized, the dtype, and whether the loss is LinearCrossEntropyLoss,
    which torchtune has had since 0.6.1.
    """

    builder: str
    r: int
    parts: str
    dropout: float
    batch: int
    length: int
    checkpointing: bool = False
    quantize: bool = False
    dtype: str = "bfloat16"
    linear_loss: bool = False

    @property
    def label(self) -> str:
        """The setting in a few words."""
        size = f"{self.batch} x {self.length}"
        parts = self.parts.replace(" ", "+")
        how = "nf4" if self.quantize else self.dtype
        how += ", checkpointing" if self.checkpointing else ""
        how += ", LinearCrossEntropyLoss" if self.linear_loss else ""
        name = self.builder.rpartition(".")[2].removeprefix("lora_")
        return f"{name}, r {self.r}, {parts}, dropout {self.dropout}, {how}, {size}"

    @property
    def request(self) -> dict[str, Any]:
        """What ``torchtune_step`` needs."""
        return {**self._asdict(), "modules": self.parts.split()}


def _config(model_type: str, cls: str, sizes: str, **more: Any) -> dict[str, Any]:
    values = dict(zip(_SIZES, map(int, sizes.split()), strict=True))
    return {"model_type": model_type, "architectures": [cls], **values, **more}


def _llama(sizes: str, **more: Any) -> dict[str, Any]:
    return _config("llama", "LlamaForCausalLM", sizes, **more)


def _qwen(sizes: str, **more: Any) -> dict[str, Any]:
    return _config("qwen2", "Qwen2ForCausalLM", sizes, **more)


_TIED: Final = {"tie_word_embeddings": True}
CONFIGS: Final[Mapping[str, dict[str, Any]]] = {
    "llama2.lora_llama2_7b": _llama("32000 4096 11008 32 32 32"),
    "llama2.lora_llama2_13b": _llama("32000 5120 13824 40 40 40"),
    "code_llama2.lora_code_llama2_7b": _llama("32016 4096 11008 32 32 32"),
    "llama3.lora_llama3_8b": _llama("128256 4096 14336 32 32 8"),
    "llama3_1.lora_llama3_1_8b": _llama("128256 4096 14336 32 32 8"),
    "llama3_2.lora_llama3_2_1b": _llama("128256 2048 8192 16 32 8", head_dim=64, **_TIED),
    "llama3_2.lora_llama3_2_3b": _llama("128256 3072 8192 28 24 8", head_dim=128, **_TIED),
    "mistral.lora_mistral_7b": _config(
        "mistral", "MistralForCausalLM", "32000 4096 14336 32 32 8", sliding_window=4096
    ),
    "qwen2.lora_qwen2_1_5b": _qwen("151936 1536 8960 28 12 2", **_TIED),
    "qwen2_5.lora_qwen2_5_0_5b": _qwen("151936 896 4864 24 14 2", **_TIED),
    "qwen2_5.lora_qwen2_5_3b": _qwen("151936 2048 11008 36 16 2", **_TIED),
    "qwen2_5.lora_qwen2_5_7b_base": _qwen("152064 3584 18944 28 28 4"),
    "gemma.lora_gemma_2b": _config(
        "gemma", "GemmaForCausalLM", "256000 2048 16384 18 8 1", head_dim=256
    ),
    "gemma.lora_gemma_7b": _config(
        "gemma", "GemmaForCausalLM", "256000 3072 24576 28 16 16", head_dim=256
    ),
    "gemma2.lora_gemma2_2b": _config(
        "gemma2", "Gemma2ForCausalLM", "256000 2304 9216 26 8 4", head_dim=256
    ),
    "phi3.lora_phi3_mini": _config(
        "phi3", "Phi3ForCausalLM", "32064 3072 8192 32 32 32", sliding_window=2047
    ),
    "phi4.lora_phi4_14b": _config(
        "phi3", "Phi3ForCausalLM", "100352 5120 17920 40 40 10", sliding_window=None
    ),
    "gemma2.lora_gemma2_9b": _config(
        "gemma2", "Gemma2ForCausalLM", "256000 3584 14336 42 16 8", head_dim=256
    ),
}
_QV: Final = "q_proj v_proj"
_QVO: Final = "q_proj v_proj output_proj"
_ATTENTION: Final = "q_proj k_proj v_proj output_proj"
_MLP: Final = f"{_QVO} mlp"
_MOST: Final = f"{_ATTENTION} mlp"
_ALL: Final = f"{_MOST} output"

DEVELOPMENT: Final = (
    Setting("llama2.lora_llama2_7b", 8, _QV, 0.05, 2, 1024),
    Setting("llama2.lora_llama2_7b", 16, _ALL, 0.0, 2, 900, checkpointing=True),
    Setting("llama3_2.lora_llama3_2_1b", 64, _MOST, 0.0, 4, 512),
    Setting("llama3_2.lora_llama3_2_1b", 8, _MLP, 0.05, 4, 2048, checkpointing=True),
    Setting("llama3.lora_llama3_8b", 8, _MLP, 0.0, 1, 1000, quantize=True),
    Setting("llama3.lora_llama3_8b", 32, _ALL, 0.05, 2, 512),
    Setting("qwen2_5.lora_qwen2_5_0_5b", 8, _QV, 0.0, 8, 300),
    Setting("qwen2_5.lora_qwen2_5_0_5b", 32, _MOST, 0.05, 1, 2048),
    Setting("qwen2_5.lora_qwen2_5_7b_base", 8, _MLP, 0.0, 1, 2048, checkpointing=True),
    Setting("mistral.lora_mistral_7b", 64, _ALL, 0.0, 1, 1500, checkpointing=True),
    Setting("mistral.lora_mistral_7b", 8, _QV, 0.05, 2, 2048, checkpointing=True, quantize=True),
    Setting("gemma.lora_gemma_2b", 8, _MLP, 0.0, 2, 512),
    Setting("gemma.lora_gemma_2b", 64, _QV, 0.05, 4, 1024, checkpointing=True),
    Setting("gemma2.lora_gemma2_2b", 8, _MLP, 0.0, 1, 1024),
    Setting("gemma2.lora_gemma2_2b", 8, _QV, 0.05, 2, 700, checkpointing=True),
    Setting("llama3_2.lora_llama3_2_1b", 8, _QV, 0.0, 2, 600, dtype="float32"),
    Setting("phi3.lora_phi3_mini", 8, _MLP, 0.05, 2, 1024),
    Setting("llama3_2.lora_llama3_2_1b", 8, _MLP, 0.0, 2, 1000, linear_loss=True),
    Setting("llama3.lora_llama3_8b", 8, _ALL, 0.05, 2, 1024, checkpointing=True, linear_loss=True),
)
HOLDOUT: Final = (
    Setting("llama2.lora_llama2_13b", 8, _MLP, 0.0, 2, 1024, checkpointing=True, quantize=True),
    Setting("code_llama2.lora_code_llama2_7b", 16, _ATTENTION, 0.05, 1, 3000),
    Setting("code_llama2.lora_code_llama2_7b", 8, _QVO, 0.0, 4, 1024, checkpointing=True),
    Setting("llama3_1.lora_llama3_1_8b", 8, _MLP, 0.0, 2, 2048, checkpointing=True),
    Setting("llama3_1.lora_llama3_1_8b", 64, _ALL, 0.05, 1, 1000),
    Setting("llama3_1.lora_llama3_1_8b", 16, _MOST, 0.05, 4, 777, quantize=True),
    Setting("llama3_2.lora_llama3_2_3b", 8, _QV, 0.0, 2, 1024),
    Setting(
        "llama3_2.lora_llama3_2_3b", 64, _MLP, 0.05, 1, 4096, checkpointing=True, quantize=True
    ),
    Setting("qwen2.lora_qwen2_1_5b", 32, _MLP, 0.0, 2, 2048),
    Setting("qwen2.lora_qwen2_1_5b", 8, _QV, 0.05, 8, 512, checkpointing=True),
    Setting("qwen2_5.lora_qwen2_5_3b", 8, _MOST, 0.05, 4, 600),
    Setting("qwen2_5.lora_qwen2_5_3b", 8, _MLP, 0.0, 2, 4096, checkpointing=True),
    Setting("mistral.lora_mistral_7b", 16, _ATTENTION, 0.0, 4, 640),
    Setting("gemma.lora_gemma_7b", 8, _MLP, 0.0, 1, 1024, quantize=True),
    Setting("gemma.lora_gemma_7b", 64, _MOST, 0.05, 2, 800, checkpointing=True),
    Setting("gemma2.lora_gemma2_9b", 8, _MLP, 0.0, 1, 2048, checkpointing=True),
    Setting("gemma2.lora_gemma2_9b", 16, _ATTENTION, 0.05, 1, 512, quantize=True),
    Setting("llama3_2.lora_llama3_2_3b", 8, _MLP, 0.05, 1, 800, dtype="float32"),
    Setting("phi3.lora_phi3_mini", 32, _ALL, 0.0, 4, 500, checkpointing=True),
    Setting("llama3_1.lora_llama3_1_8b", 8, _MLP, 0.0, 1, 3000, True, True, linear_loss=True),
    Setting("qwen2_5.lora_qwen2_5_3b", 8, _MLP, 0.05, 4, 1024, True, linear_loss=True),
    Setting("gemma2.lora_gemma2_2b", 16, _ATTENTION, 0.0, 2, 777, linear_loss=True),
    Setting("phi3.lora_phi3_mini", 8, _ALL, 0.05, 1, 2048, True, linear_loss=True),
    Setting("phi4.lora_phi4_14b", 8, _MLP, 0.0, 1, 2048, checkpointing=True),
    Setting("phi4.lora_phi4_14b", 16, _ATTENTION, 0.05, 1, 1000, quantize=True),
)


@cache
def tree(builder: str) -> ModuleTree:
    """The module tree of the model that a builder of ``CONFIGS`` builds, as torchtune has it."""
    from published_rows import build

    from lora_lint.models.torchtune import torchtune_tree

    return torchtune_tree(build(CONFIGS[builder]))


def estimated(setting: Setting) -> MemoryEstimate:
    """The closed form of a setting."""
    from lora_lint.memory import estimate_memory, framework_profile
    from lora_lint.memory.torchtune import buffers

    name = setting.builder.rpartition(".")[2]
    profile = framework_profile("torchtune", quantized=setting.quantize)
    whole = tree(setting.builder)
    return estimate_memory(
        whole,
        {
            "r": setting.r,
            "target_modules": [
                name for part in setting.parts.split() for name in _NAMES.get(part, (part,))
            ],
            "lora_dropout": setting.dropout,
            "task_type": "CAUSAL_LM",
        },
        dtype=setting.dtype,
        quantization="nf4" if setting.quantize else "none",
        double_quant=setting.quantize,
        max_length=setting.length,
        per_device_train_batch_size=setting.batch,
        gradient_checkpointing=setting.checkpointing,
        gradient_accumulation_steps=2,
        optim="adamw_torch_fused",
        packing=False,
        profile=profile._replace(buffers=buffers(name, whole), fused_loss=setting.linear_loss),
    )


def settings() -> Iterator[tuple[str, Setting]]:
    """All of them, with the list that they are of."""
    yield from (("development", one) for one in DEVELOPMENT)
    yield from (("holdout", one) for one in HOLDOUT)
