"""Small real models of many architectures, and some that no library has."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
import transformers
from torch import nn

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}


def _config(name: str, **values: object) -> transformers.PreTrainedConfig:
    return getattr(transformers, name)(**values)


def _causal(config: str, **extra: object) -> Callable[[], nn.Module]:
    return lambda: transformers.AutoModelForCausalLM.from_config(
        _config(config, **{**SIZES, **extra})
    )


def _auto(auto: str, config: str, **values: object) -> Callable[[], nn.Module]:
    return lambda: getattr(transformers, auto).from_config(_config(config, **values))


BERT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 64, "n_positions": 64}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": 64,
    "decoder_start_token_id": 0,
}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": _auto("AutoModelForCausalLM", "GPT2Config", **GPT2),
    "gpt2-seq-cls": _auto(
        "AutoModelForSequenceClassification", "GPT2Config", pad_token_id=0, **GPT2
    ),
    "llama": _causal("LlamaConfig"),
    "llama-tied": _causal("LlamaConfig", tie_word_embeddings=True),
    "llama-seq-cls": _auto("AutoModelForSequenceClassification", "LlamaConfig", **SIZES),
    "llama-bare": _auto("AutoModel", "LlamaConfig", **SIZES),
    "mistral": _causal("MistralConfig"),
    "qwen2": _causal("Qwen2Config"),
    "qwen3": _causal("Qwen3Config", tie_word_embeddings=True),
    "gemma3": _causal("Gemma3TextConfig"),
    "phi3": _causal("Phi3Config"),
    "opt": _auto(
        "AutoModelForCausalLM",
        "OPTConfig",
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=64,
        word_embed_proj_dim=32,
        max_position_embeddings=64,
    ),
    "gpt_neox": _auto("AutoModelForCausalLM", "GPTNeoXConfig", **BERT),
    "bloom": _auto(
        "AutoModelForCausalLM", "BloomConfig", hidden_size=32, n_layer=2, n_head=4, vocab_size=64
    ),
    "falcon": _auto(
        "AutoModelForCausalLM",
        "FalconConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
    ),
    "bert-seq-cls": _auto("AutoModelForSequenceClassification", "BertConfig", **BERT),
    "bert-token-cls": _auto("AutoModelForTokenClassification", "BertConfig", **BERT),
    "bert-qa": _auto("AutoModelForQuestionAnswering", "BertConfig", **BERT),
    "bert-mlm": _auto("AutoModelForMaskedLM", "BertConfig", **BERT),
    "roberta-seq-cls": _auto("AutoModelForSequenceClassification", "RobertaConfig", **BERT),
    "t5": _auto("AutoModelForSeq2SeqLM", "T5Config", **T5),
    "bart": _auto("AutoModelForSeq2SeqLM", "BartConfig", **BART),
    "whisper": _auto("AutoModelForSpeechSeq2Seq", "WhisperConfig", pad_token_id=0, **BART),
    "mixtral": _causal("MixtralConfig", **EXPERTS),
    "qwen3_moe": _causal("Qwen3MoeConfig", **EXPERTS),
    "qwen2_moe": _causal("Qwen2MoeConfig", **EXPERTS),
    "deepseek_v3": _causal(
        "DeepseekV3Config",
        **EXPERTS,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
    ),
    "gpt_oss": _causal("GptOssConfig", **EXPERTS),
    "vit": _auto(
        "AutoModelForImageClassification",
        "ViTConfig",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=8,
        patch_size=4,
    ),
    "mamba": _auto(
        "AutoModelForCausalLM",
        "MambaConfig",
        hidden_size=32,
        num_hidden_layers=2,
        vocab_size=64,
        state_size=4,
    ),
    "nemotron_h": _causal(
        "NemotronHConfig",
        layers_block_type=["mamba", "attention", "mlp"],
        mamba_num_heads=4,
        mamba_head_dim=8,
        ssm_state_size=4,
        n_groups=2,
    ),
    "wav2vec2": _auto(
        "AutoModelForCTC",
        "Wav2Vec2Config",
        **BERT,
        conv_dim=(16, 16),
        conv_stride=(2, 2),
        conv_kernel=(3, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=4,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
    ),
    "siglip": lambda: transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=8,
            patch_size=4,
        )
    ),
}


class Experts(nn.Module):
    """Stacked experts as some libraries write them."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.is_transposed = transposed
        self.up = nn.Parameter(torch.randn(4, 16, 24))
        self.down = nn.Parameter(torch.randn(4, 24, 16))
        self.gain = nn.Parameter(torch.randn(4))


class Block(nn.Module):
    """A block with names that are suffixes of one another."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.proj = nn.Linear(16, 16)
        self.q_proj = nn.Linear(16, 8, bias=False)
        self.out = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16))
        self.norm = nn.LayerNorm(16)
        self.experts = Experts(transposed=transposed)
        self.attn = nn.MultiheadAttention(16, 2)


class Custom(nn.Module):
    """No config, no embeddings methods; layers at the root, a shared module, convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.layers = nn.ModuleList(Block(transposed=i == 1) for i in range(3))
        self.conv = nn.Conv2d(4, 8, 3, groups=2)
        self.signal = nn.Conv1d(4, 8, 3, bias=False)
        self.volume = nn.Conv3d(2, 4, 3)
        self.weird = nn.ModuleDict({"proj_1": nn.Linear(16, 4), "1": nn.Linear(4, 4)})
        self.twin = self.weird["proj_1"]
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.randn(16, 16))


class FirstIndexMatters(nn.Module):
    """Numbers within numbers, where the first and the last layer index differ."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.layers = nn.ModuleList()
        for _ in range(3):
            layer = nn.Module()
            layer.experts = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 4)}) for _ in range(2))
            layer.mix = nn.Linear(8, 8)
            self.backbone.layers.append(layer)
        self.blocks = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 4)}) for _ in range(2))
        self.lm_head = nn.Linear(8, 8)

    def prepare_inputs_for_generation(self) -> None:
        """Its presence is what counts."""


MODELS |= {"custom": Custom, "indexes": FirstIndexMatters}


@functools.cache
def template(name: str) -> nn.Module:
    """A model with real weights, since some initialisations look at them; copy it before changing
    it.
    """
    torch.manual_seed(0)
    return MODELS[name]()


def fresh(name: str) -> nn.Module:
    """A copy of a model that may be changed."""
    return copy.deepcopy(template(name))
