"""Models of real size: their trees from the catalogue, their real classes on the meta device."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
import transformers
from torch import nn

from lora_lint.models import ModuleTree
from lora_lint.models.resolve import Resolution, resolve
from tests.oracle.oracle import Answer, ask_peft

# id -> Auto class, config class, and the dimensions that differ from that config's defaults.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("AutoModelForCausalLM", "GPT2Config", {}),
    "facebook/opt-125m": ("AutoModelForCausalLM", "OPTConfig", {}),
    "meta-llama/Llama-2-7b-hf": ("AutoModelForCausalLM", "LlamaConfig", {}),
    "HuggingFaceTB/SmolLM2-135M": (
        "AutoModelForCausalLM",
        "LlamaConfig",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen/Qwen2.5-0.5B": (
        "AutoModelForCausalLM",
        "Qwen2Config",
        {
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
    ),
    "EleutherAI/pythia-160m": (
        "AutoModelForCausalLM",
        "GPTNeoXConfig",
        {
            "vocab_size": 50304,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
    ),
    "mistralai/Mixtral-8x7B-v0.1": ("AutoModelForCausalLM", "MixtralConfig", {}),
}


@functools.cache
def template(name: str) -> nn.Module:
    """The real class on the meta device; copy it before changing it."""
    auto, config, values = MODELS[name]
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(getattr(transformers, config)(**values))
    model.tie_weights()
    return model


def only_a_real_device_tells(config: dict[str, Any]) -> bool:
    """Whether a token index is outside of the vocabulary: the meta device looks nothing up."""
    written = config.get("trainable_token_indices") or []
    lists = written.values() if isinstance(written, dict) else [written]
    return any(index >= 32_000 for indices in lists for index in indices)


@functools.cache
def tree_of(name: str) -> ModuleTree:
    """The tree that the package ships."""
    found = resolve(name)
    assert isinstance(found, Resolution), name
    assert found.tree.sized, name
    return found.tree


def ask(name: str, config: dict[str, Any]) -> Answer:
    """Real PEFT's answer, adapters on the meta device too."""
    model = copy.deepcopy(template(name))
    with torch.device("meta"):
        return ask_peft(model, config)
