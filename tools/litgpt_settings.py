"""Settings of LitGPT's finetune_lora on which its closed form of memory is developed, and those
that judge it: published models by their config.json, each with LitGPT's name and a few runs.

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


class Setting(NamedTuple):
    """A run: LitGPT's name of the model, the rank, the parts with LoRA, dropout, micro-batch,
    length, precision and quantization.
    """

    model: str
    r: int
    parts: str
    dropout: float
    batch: int
    length: int
    precision: str = "bf16-true"
    quantize: str | None = None

    @property
    def label(self) -> str:
        """The setting in a few words."""
        size = f"{self.batch} x {self.length}"
        parts = self.parts.replace(" ", "+")
        how = self.quantize or self.precision
        return f"{self.model}, r {self.r}, {parts}, dropout {self.dropout}, {how}, {size}"

    @property
    def request(self) -> dict[str, Any]:
        """What the tracer of LitGPT's class needs."""
        values = self._asdict() | {"name": self.model, "targets": self.parts.split()}
        return {key: value for key, value in values.items() if key not in ("model", "parts")}


def _config(model_type: str, cls: str, sizes: str, **more: Any) -> dict[str, Any]:
    values = dict(zip(_SIZES, map(int, sizes.split()), strict=False))
    return {"model_type": model_type, "architectures": [cls], **values, **more}


_FALCON: Final = {"parallel_attn": True, "bias": False, "alibi": False, "multi_query": True}
CONFIGS: Final[Mapping[str, dict[str, Any]]] = {
    "pythia-1b": _config("gpt_neox", "GPTNeoXForCausalLM", "50304 2048 8192 16 8"),
    "pythia-1.4b": _config("gpt_neox", "GPTNeoXForCausalLM", "50304 2048 8192 24 16"),
    "Llama-3-8B": _config("llama", "LlamaForCausalLM", "128256 4096 14336 32 32 8"),
    "Llama-2-7b-hf": _config("llama", "LlamaForCausalLM", "32000 4096 11008 32 32 32"),
    "tiny-llama-1.1b": _config("llama", "LlamaForCausalLM", "32000 2048 5632 22 32 4"),
    "SmolLM2-1.7B": _config("llama", "LlamaForCausalLM", "49152 2048 8192 24 32 32"),
    "Mistral-7B-v0.1": _config(
        "mistral", "MistralForCausalLM", "32000 4096 14336 32 32 8", sliding_window=4096
    ),
    "Mistral-7B-v0.3": _config(
        "mistral", "MistralForCausalLM", "32768 4096 14336 32 32 8", sliding_window=None
    ),
    "Qwen2.5-1.5B": _config("qwen2", "Qwen2ForCausalLM", "151936 1536 8960 28 12 2"),
    "Qwen2.5-0.5B": _config("qwen2", "Qwen2ForCausalLM", "151936 896 4864 24 14 2"),
    "Qwen3-1.7B": _config("qwen3", "Qwen3ForCausalLM", "151936 2048 6144 28 16 8", head_dim=128),
    "Qwen3-0.6B": _config("qwen3", "Qwen3ForCausalLM", "151936 1024 3072 28 16 8", head_dim=128),
    "Gemma-2b": _config("gemma", "GemmaForCausalLM", "256000 2048 16384 18 8 1", head_dim=256),
    "Gemma-2-2b": _config(
        "gemma2", "Gemma2ForCausalLM", "256000 2304 9216 26 8 4", head_dim=256, sliding_window=4096
    ),
    "Gemma-3-1b-it": _config(
        "gemma3_text",
        "Gemma3ForCausalLM",
        "262144 1152 6912 26 4 1",
        head_dim=256,
        sliding_window=512,
    ),
    "phi-2": _config(
        "phi", "PhiForCausalLM", "51200 2560 10240 32 32 32", partial_rotary_factor=0.4
    ),
    "phi-1_5": _config(
        "phi", "PhiForCausalLM", "51200 2048 8192 24 32 32", partial_rotary_factor=0.5
    ),
    "Phi-3-mini-4k-instruct": _config(
        "phi3", "Phi3ForCausalLM", "32064 3072 8192 32 32 32", sliding_window=2047
    ),
    "falcon-7b": {
        **_config("falcon", "FalconForCausalLM", "65024 4544 18176 32 71"),
        **_FALCON,
        "new_decoder_architecture": False,
    },
    "OLMo-2-1124-7B": _config("olmo2", "Olmo2ForCausalLM", "100352 4096 11008 32 32 32"),
    "stablelm-3b-4e1t": _config(
        "stablelm",
        "StableLmForCausalLM",
        "50304 2560 6912 32 32 32",
        partial_rotary_factor=0.25,
        use_parallel_residual=False,
    ),
}
_QV: Final = "query value"
_QKV: Final = "query key value"
_ATTENTION: Final = "query key value projection"
_MLP: Final = "query key value projection mlp"
_ALL: Final = "query key value projection mlp head"

DEVELOPMENT: Final = (
    Setting("pythia-1b", 8, _QV, 0.05, 4, 512),
    Setting("pythia-1b", 32, _ALL, 0.05, 2, 1024, "bf16-mixed"),
    Setting("Llama-2-7b-hf", 8, _QV, 0.05, 2, 1304),
    Setting("Llama-2-7b-hf", 16, _ALL, 0.0, 1, 2048),
    Setting("tiny-llama-1.1b", 32, _ALL, 0.05, 8, 512),
    Setting("tiny-llama-1.1b", 8, _QV, 0.0, 4, 1000, "bf16-mixed"),
    Setting("Mistral-7B-v0.1", 8, _ATTENTION, 0.05, 1, 1024),
    Setting("Qwen2.5-1.5B", 16, _MLP, 0.05, 2, 1024),
    Setting("Qwen2.5-1.5B", 8, "mlp", 0.05, 4, 300),
    Setting("Gemma-2b", 8, _QV, 0.05, 2, 512),
    Setting("phi-2", 16, _QKV, 0.05, 2, 700),
    Setting("Phi-3-mini-4k-instruct", 8, _ALL, 0.05, 4, 512),
    Setting("falcon-7b", 32, _QV, 0.05, 1, 512),
    Setting("Gemma-2-2b", 8, _ATTENTION, 0.05, 1, 800),
    Setting("Llama-2-7b-hf", 32, _QV, 0.05, 2, 512, quantize="bnb.nf4"),
    Setting("tiny-llama-1.1b", 8, _ALL, 0.05, 8, 512, quantize="bnb.nf4-dq"),
    Setting("pythia-1b", 8, _QV, 0.05, 2, 1024, quantize="bnb.nf4"),
)
HOLDOUT: Final = (
    Setting("Llama-3-8B", 8, _QV, 0.05, 1, 512),
    Setting("Llama-3-8B", 32, _ALL, 0.05, 2, 1024),
    Setting("Llama-3-8B", 16, _MLP, 0.0, 1, 2048, quantize="bnb.nf4"),
    Setting("Mistral-7B-v0.3", 16, _ATTENTION, 0.05, 2, 768),
    Setting("Mistral-7B-v0.3", 8, _QV, 0.05, 1, 1500, quantize="bnb.nf4-dq"),
    Setting("Qwen2.5-0.5B", 8, _QV, 0.05, 8, 256),
    Setting("Qwen2.5-0.5B", 64, _ALL, 0.1, 4, 512, "bf16-mixed"),
    Setting("Qwen3-1.7B", 16, _MLP, 0.05, 2, 512),
    Setting("Qwen3-0.6B", 8, _QV, 0.0, 4, 900, "bf16-mixed"),
    Setting("Gemma-3-1b-it", 8, _QV, 0.05, 2, 640),
    Setting("Gemma-3-1b-it", 16, _MLP, 0.05, 1, 2048),
    Setting("phi-1_5", 8, _QV, 0.05, 4, 512),
    Setting("phi-1_5", 16, _ALL, 0.05, 2, 1024, "bf16-mixed"),
    Setting("OLMo-2-1124-7B", 16, _ATTENTION, 0.05, 1, 1024),
    Setting("OLMo-2-1124-7B", 8, _QV, 0.05, 2, 512, quantize="bnb.nf4"),
    Setting("stablelm-3b-4e1t", 8, _QV, 0.05, 4, 512),
    Setting("stablelm-3b-4e1t", 16, _MLP, 0.05, 1, 1536, quantize="bnb.nf4"),
    Setting("pythia-1.4b", 16, _ATTENTION, 0.05, 4, 1024),
    Setting("pythia-1.4b", 8, _ALL, 0.0, 1, 2000, "bf16-mixed"),
    Setting("SmolLM2-1.7B", 16, _MLP, 0.05, 4, 1024),
)


@cache
def tree(model: str) -> ModuleTree:
    """The module tree of a model of ``CONFIGS`` as LitGPT has it."""
    from published_rows import build

    from lora_lint.models.litgpt import litgpt_tree

    return litgpt_tree(build(CONFIGS[model]))


def estimated(setting: Setting) -> MemoryEstimate:
    """The closed form of a setting."""
    from published_rows import PARTS

    from lora_lint.memory import estimate_memory, framework_profile

    mixed, quantized = setting.precision.endswith("-mixed"), setting.quantize is not None
    kind = setting.quantize or ""
    return estimate_memory(
        tree(setting.model),
        {
            "r": setting.r,
            "target_modules": [name for part in setting.parts.split() for name in PARTS[part]],
            "lora_dropout": setting.dropout,
            "task_type": "CAUSAL_LM",
        },
        dtype="float32" if mixed else "bfloat16",
        quantization="nf4" if quantized else "none",
        double_quant=kind.endswith("-dq"),
        max_length=setting.length,
        per_device_train_batch_size=setting.batch,
        gradient_checkpointing=False,
        gradient_accumulation_steps=2,
        optim="paged_adamw_32bit" if quantized else "adamw_torch",
        packing=False,
        profile=framework_profile("litgpt", quantized=quantized, given={"autocast": mixed}),
    )


def settings() -> Iterator[tuple[str, Setting]]:
    """All of them, with the list that they are of."""
    yield from (("development", one) for one in DEVELOPMENT)
    yield from (("holdout", one) for one in HOLDOUT)
