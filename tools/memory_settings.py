"""The settings on which the closed form of memory is developed, and those that judge it.

    python tools/memory_settings.py            # prints them, one JSON object a line

``development`` may be looked at while the form is written; ``holdout`` is of other architectures,
was listed before the form was finished, and is run at the end (``tools/memory_form.py``). Both are
drawn with one seed from what real frameworks do: which precisions go together is a list, not a
product. Sizes are published ones (each model's config.json).
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SEED: Final = 20251123


class Model(NamedTuple):
    """A published model: what of its config.json is not the class's default, and how people adapt
    it. ``targets`` are choices of target_modules, ``saved`` of modules_to_save, ``images`` of the
    number of them in a sequence.
    """

    architecture: str
    cls: str
    config: Mapping[str, Any]
    targets: Sequence[object]
    kind: str = "decoder"
    task: str | None = "CAUSAL_LM"
    saved: Sequence[Sequence[str]] = ()
    attentions: Sequence[str | None] = (None, None, None, "flash_attention_2", "eager")
    parameters: Sequence[str] = ()
    images: Sequence[int] = ()


def _decoder(
    architecture: str, cls: str, sizes: str, targets: Sequence[object], **more: Any
) -> Model:
    """Sizes: vocabulary, hidden, inner, layers, heads, key heads."""
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    config = dict(zip(names, map(int, sizes.split()), strict=False))
    config = {"model_type": architecture, **config, **more.pop("config", {})}
    more.setdefault("saved", (("embed_tokens", "lm_head"), ("lm_head",)))
    return Model(architecture, cls, config, targets, **more)


_QV: Final = ["q_proj", "v_proj"]
_ATTENTION: Final = ["q_proj", "k_proj", "v_proj", "o_proj"]
_MLP: Final = ["gate_proj", "up_proj", "down_proj"]
_ALL: Final = "all-linear"
_USUAL: Final = (_QV, _ATTENTION, _ALL, _ALL)

DEVELOPMENT_MODELS: Final = {
    "llama-2-7b": _decoder("llama", "LlamaForCausalLM", "32000 4096 11008 32 32 32", _USUAL),
    "llama-3.1-8b": _decoder("llama", "LlamaForCausalLM", "128256 4096 14336 32 32 8", _USUAL),
    "qwen2.5-7b": _decoder("qwen2", "Qwen2ForCausalLM", "152064 3584 18944 28 28 4", _USUAL),
    "olmo2-7b": _decoder("olmo2", "Olmo2ForCausalLM", "100352 4096 11008 32 32 32", _USUAL),
    "gemma2-9b": _decoder(
        "gemma2",
        "Gemma2ForCausalLM",
        "256000 3584 14336 42 16 8",
        _USUAL,
        config={"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096},
        attentions=(None, None, "eager"),
    ),
    "gemma3-1b": _decoder(
        "gemma3_text",
        "Gemma3ForCausalLM",
        "262144 1152 6912 26 4 1",
        _USUAL,
        config={"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512},
    ),
    "phi3-mini": _decoder(
        "phi3",
        "Phi3ForCausalLM",
        "32064 3072 8192 32 32 32",
        (["qkv_proj"], ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], _ALL),
    ),
    "falcon-7b": Model(
        "falcon",
        "FalconForCausalLM",
        {
            "model_type": "falcon",
            "vocab_size": 65024,
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "multi_query": True,
            "parallel_attn": True,
            "new_decoder_architecture": False,
            "bias": False,
            "alibi": False,
        },
        (["query_key_value"], _ALL),
        attentions=(None, None, "eager"),
        saved=(("lm_head",),),
    ),
    "pythia-6.9b": Model(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        {
            "model_type": "gpt_neox",
            "vocab_size": 50432,
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
        (["query_key_value"], ["query_key_value", "dense"], _ALL),
        saved=(("embed_out",), ("embed_in", "embed_out")),
    ),
    "gpt-j-6b": Model(
        "gptj",
        "GPTJForCausalLM",
        {
            "model_type": "gptj",
            "vocab_size": 50400,
            "n_embd": 4096,
            "n_layer": 28,
            "n_head": 16,
            "rotary_dim": 64,
        },
        (_QV, ["q_proj", "k_proj", "v_proj", "out_proj"], _ALL),
        saved=(("lm_head",),),
        attentions=(None,),
    ),
    "gpt2-large": Model(
        "gpt2",
        "GPT2LMHeadModel",
        {"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20},
        (["c_attn"], ["c_attn", "c_proj", "c_fc"]),
        attentions=(None, None, "eager"),
    ),
    "opt-1.3b": Model(
        "opt",
        "OPTForCausalLM",
        {
            "model_type": "opt",
            "vocab_size": 50272,
            "hidden_size": 2048,
            "ffn_dim": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "word_embed_proj_dim": 2048,
        },
        (_QV, _ALL),
    ),
    "bloom-3b": Model(
        "bloom",
        "BloomForCausalLM",
        {
            "model_type": "bloom",
            "vocab_size": 250880,
            "hidden_size": 2560,
            "n_layer": 30,
            "n_head": 32,
        },
        (["query_key_value"], _ALL),
        attentions=(None,),
    ),
    "mixtral-8x7b": _decoder(
        "mixtral",
        "MixtralForCausalLM",
        "32000 4096 14336 32 32 8",
        (_QV, _ATTENTION),
        kind="mixture",
        config={"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None},
        parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    ),
    "qwen3-30b-a3b": _decoder(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        "151936 2048 6144 48 32 4",
        (_QV, _ATTENTION, _ALL),
        kind="mixture",
        config={
            "head_dim": 128,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
        },
        parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    ),
    "qwen1.5-moe-a2.7b": _decoder(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        "151936 2048 5632 24 16 16",
        (_QV, _ATTENTION, _ALL),
        kind="mixture",
        config={
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts": 60,
            "num_experts_per_tok": 4,
        },
    ),
    "deepseek-v2-lite": _decoder(
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        "102400 2048 10944 27 16 16",
        (["q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"], _ALL),
        kind="mixture",
        config={
            "q_lora_rank": None,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128,
            "v_head_dim": 128,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
        },
        attentions=(None, "eager"),
    ),
    "deepseek-v3": _decoder(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        "129280 7168 18432 61 128 128",
        (["q_a_proj", "q_b_proj", "kv_b_proj", "o_proj"],),
        kind="mixture",
        config={
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128,
            "v_head_dim": 128,
            "moe_intermediate_size": 2048,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 3,
            "n_group": 8,
            "topk_group": 4,
        },
        attentions=(None,),
    ),
    "gpt-oss-20b": _decoder(
        "gpt_oss",
        "GptOssForCausalLM",
        "201088 2880 2880 24 64 8",
        (_QV, _ATTENTION, _ALL),
        kind="mixture",
        config={
            "head_dim": 64,
            "num_local_experts": 32,
            "num_experts_per_tok": 4,
            "sliding_window": 128,
        },
        attentions=(None,),
        parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    ),
    "glm-4.5-air": _decoder(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        "151552 4096 10944 46 96 8",
        (_QV, _ATTENTION),
        kind="mixture",
        config={
            "head_dim": 128,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 128,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 1,
            "use_qk_norm": False,
        },
    ),
    "flan-t5-large": Model(
        "t5",
        "T5ForConditionalGeneration",
        {
            "model_type": "t5",
            "vocab_size": 32128,
            "d_model": 1024,
            "d_kv": 64,
            "d_ff": 2816,
            "num_layers": 24,
            "num_heads": 16,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        (["q", "v"], ["q", "k", "v", "o"], _ALL),
        kind="both",
        task="SEQ_2_SEQ_LM",
        attentions=(None,),
    ),
    "whisper-small": Model(
        "whisper",
        "WhisperForConditionalGeneration",
        {
            "model_type": "whisper",
            "vocab_size": 51865,
            "num_mel_bins": 80,
            "d_model": 768,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
            "decoder_start_token_id": 50258,
        },
        (_QV, ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]),
        kind="speech",
        task=None,
        attentions=(None, None, "eager"),
    ),
    "bert-base": Model(
        "bert",
        "BertForSequenceClassification",
        {"model_type": "bert"},
        (["query", "value"], ["query", "key", "value", "dense"]),
        kind="encoder",
        task="SEQ_CLS",
    ),
    "bert-large-ner": Model(
        "bert",
        "BertForTokenClassification",
        {
            "model_type": "bert",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_labels": 9,
        },
        (["query", "value"],),
        kind="encoder",
        task="TOKEN_CLS",
    ),
    "distilbert-base": Model(
        "distilbert",
        "DistilBertForSequenceClassification",
        {"model_type": "distilbert"},
        (["q_lin", "v_lin"], ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]),
        kind="encoder",
        task="SEQ_CLS",
    ),
    "electra-base": Model(
        "electra",
        "ElectraForTokenClassification",
        {
            "model_type": "electra",
            "embedding_size": 768,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "num_labels": 9,
        },
        (["query", "value"], ["query", "key", "value"]),
        kind="encoder",
        task="TOKEN_CLS",
    ),
    "vit-base": Model(
        "vit",
        "ViTForImageClassification",
        {"model_type": "vit"},
        (_QV, _ALL),
        kind="image",
        task=None,
        saved=(("classifier",),),
    ),
    "qwen2-vl-7b": Model(
        "qwen2_vl",
        "Qwen2VLForConditionalGeneration",
        {
            "model_type": "qwen2_vl",
            "text_config": {
                "vocab_size": 152064,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1000000.0,
                    "mrope_section": [16, 24, 24],
                },
            },
            "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584},
            "tie_word_embeddings": False,
        },
        (_QV, _ATTENTION),
        kind="image-text",
    ),
    "llava-1.5-7b": Model(
        "llava",
        "LlavaForConditionalGeneration",
        {
            "model_type": "llava",
            "text_config": {
                "model_type": "llama",
                "vocab_size": 32064,
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 1024,
                "image_size": 336,
                "intermediate_size": 4096,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": 14,
                "projection_dim": 768,
            },
        },
        (
            r".*language_model.*\.(q_proj|v_proj)",
            r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        ),
        kind="image-text",
    ),
}

HOLDOUT_MODELS: Final = {
    "qwen3-8b": _decoder(
        "qwen3",
        "Qwen3ForCausalLM",
        "151936 4096 12288 36 32 8",
        _USUAL,
        config={"head_dim": 128},
    ),
    "mistral-7b": _decoder(
        "mistral",
        "MistralForCausalLM",
        "32000 4096 14336 32 32 8",
        _USUAL,
        config={"sliding_window": None},
    ),
    "phi-2": _decoder(
        "phi",
        "PhiForCausalLM",
        "51200 2560 10240 32 32 32",
        (_QV, ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"], _ALL),
        config={"partial_rotary_factor": 0.4, "resid_pdrop": 0.1},
    ),
    "olmoe-1b-7b": _decoder(
        "olmoe",
        "OlmoeForCausalLM",
        "50304 2048 1024 16 16 16",
        (_QV, _ATTENTION, _ALL),
        kind="mixture",
        config={"num_experts": 64, "num_experts_per_tok": 8},
        parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    ),
    "granite-3.1-3b-a800m": _decoder(
        "granitemoe",
        "GraniteMoeForCausalLM",
        "49155 1536 512 32 24 8",
        (_QV, _ATTENTION),
        kind="mixture",
        config={"num_local_experts": 40, "num_experts_per_tok": 8, "tie_word_embeddings": True},
    ),
    "bart-large": Model(
        "bart",
        "BartForConditionalGeneration",
        {
            "model_type": "bart",
            "vocab_size": 50265,
            "d_model": 1024,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 16,
            "decoder_attention_heads": 16,
            "encoder_ffn_dim": 4096,
            "decoder_ffn_dim": 4096,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation_dropout": 0.1,
        },
        (_QV, ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]),
        kind="both",
        task="SEQ_2_SEQ_LM",
        attentions=(None, None, "eager"),
    ),
    "mt5-base": Model(
        "mt5",
        "MT5ForConditionalGeneration",
        {
            "model_type": "mt5",
            "vocab_size": 250112,
            "d_model": 768,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 12,
            "num_heads": 12,
            "feed_forward_proj": "gated-gelu",
        },
        (["q", "v"], ["q", "k", "v", "o"]),
        kind="both",
        task="SEQ_2_SEQ_LM",
        attentions=(None,),
    ),
    "roberta-large": Model(
        "roberta",
        "RobertaForSequenceClassification",
        {
            "model_type": "roberta",
            "vocab_size": 50265,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 514,
        },
        (["query", "value"], ["query", "key", "value", "dense"]),
        kind="encoder",
        task="SEQ_CLS",
    ),
    "qwen2.5-vl-7b": Model(
        "qwen2_5_vl",
        "Qwen2_5_VLForConditionalGeneration",
        {
            "model_type": "qwen2_5_vl",
            "text_config": {
                "vocab_size": 152064,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1000000.0,
                    "mrope_section": [16, 24, 24],
                },
            },
            "vision_config": {"depth": 32, "hidden_size": 1280, "out_hidden_size": 3584},
            "tie_word_embeddings": False,
        },
        (_QV, _ATTENTION),
        kind="image-text",
    ),
}

_CLIP: Final = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
_SIGLIP: Final = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
_GEMMA_TOWER: Final = {
    **_SIGLIP,
    "model_type": "siglip_vision_model",
    "image_size": 896,
    "vision_use_head": False,
}
_LANGUAGE: Final = (
    r".*language_model.*\.(q_proj|v_proj)",
    r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
)


def _image_text(
    architecture: str,
    cls: str,
    text: tuple[str, str],
    vision: Mapping[str, Any],
    targets: Sequence[object] = _LANGUAGE,
    **config: Any,
) -> Model:
    """``text``: the language model's type and its sizes as those of a decoder."""
    language = _decoder(text[0], "", text[1], (), config=config.pop("more", {}))
    values = {"model_type": architecture, "text_config": language.config, "vision_config": vision}
    return Model(architecture, cls, {**values, **config}, targets, kind="image-text")


# Image-text models: those whose language part alone is adapted and that get no images, and those
# whose vision tower takes images of one size, whatever is adapted.
IMAGE_MODELS: Final = {
    "gemma3-4b": _image_text(
        "gemma3",
        "Gemma3ForConditionalGeneration",
        ("gemma3_text", "262208 2560 10240 34 8 4"),
        _GEMMA_TOWER,
        more={"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 1024},
        mm_tokens_per_image=256,
    ),
    "qwen3-vl-8b": _image_text(
        "qwen3_vl",
        "Qwen3VLForConditionalGeneration",
        ("qwen3_vl_text", "151936 4096 12288 36 32 8"),
        {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 4096},
        (_QV, _ATTENTION),
        more={"head_dim": 128},
        tie_word_embeddings=False,
    ),
    "qwen3-vl-30b-a3b": _image_text(
        "qwen3_vl_moe",
        "Qwen3VLMoeForConditionalGeneration",
        ("qwen3_vl_moe_text", "151936 2048 6144 48 32 4"),
        {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 2048},
        (_QV, _ATTENTION),
        more={
            "head_dim": 128,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
        },
        tie_word_embeddings=False,
    ),
    "mistral-small-3.1-24b": _image_text(
        "mistral3",
        "Mistral3ForConditionalGeneration",
        ("mistral", "131072 5120 32768 40 32 8"),
        {"model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096},
        more={"head_dim": 128, "sliding_window": None},
    ),
    "pixtral-12b": _image_text(
        "llava",
        "LlavaForConditionalGeneration",
        ("mistral", "131072 5120 14336 40 32 8"),
        {"model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096},
        more={"head_dim": 128, "sliding_window": None},
    ),
    "internvl3-8b": _image_text(
        "internvl",
        "InternVLForConditionalGeneration",
        ("qwen2", "151674 3584 18944 28 28 4"),
        {"model_type": "internvl_vision", "hidden_size": 1024, "image_size": [448, 448]},
    ),
    "smolvlm": _image_text(
        "idefics3",
        "Idefics3ForConditionalGeneration",
        ("llama", "49155 2048 8192 24 32 32"),
        {**_SIGLIP, "image_size": 384},
        (r".*text_model.*\.(q_proj|v_proj)", r".*text_model.*\.(q|k|v|o|gate|up|down)_proj"),
    ),
    "smolvlm2-2.2b": _image_text(
        "smolvlm",
        "SmolVLMForConditionalGeneration",
        ("llama", "49155 2048 8192 24 32 32"),
        {**_SIGLIP, "image_size": 384},
        (r".*text_model.*\.(q_proj|v_proj)", r".*text_model.*\.(q|k|v|o|gate|up|down)_proj"),
    ),
    "llava-next-mistral-7b": _image_text(
        "llava_next",
        "LlavaNextForConditionalGeneration",
        ("mistral", "32064 4096 14336 32 32 8"),
        _CLIP,
        more={"sliding_window": None},
    ),
    "gemma3-4b seen": _image_text(
        "gemma3",
        "Gemma3ForConditionalGeneration",
        ("gemma3_text", "262208 2560 10240 34 8 4"),
        _GEMMA_TOWER,
        (*_LANGUAGE, _ALL, _ALL, _QV),
        more={"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 1024},
        mm_tokens_per_image=256,
    )._replace(kind="images", images=(1, 1, 2)),
    "llava-1.5-7b seen": _image_text(
        "llava",
        "LlavaForConditionalGeneration",
        ("llama", "32064 4096 11008 32 32 32"),
        _CLIP,
        (*_LANGUAGE, _ALL, _ALL, _QV),
    )._replace(kind="images", images=(1, 1, 2)),
    "llama-3.2-11b-vision": _image_text(
        "mllama",
        "MllamaForConditionalGeneration",
        ("mllama_text_model", "128256 4096 14336 40 32 8"),
        {"model_type": "mllama_vision_model"},
    ),
}

# What goes together: dtype of the base weights, quantization, PEFT's k-bit preparation, autocast,
# dtype of the adapters.
_PLAIN: Final = {
    # PEFT's own examples and benchmark: a loop written by hand, adapters in fp32
    "bf16": ("bfloat16", None, False, False, "float32"),
    # transformers' Trainer with bf16=True on a bf16 and on an fp32 model
    "bf16 autocast": ("bfloat16", None, False, True, "float32"),
    "fp32 autocast": ("float32", None, False, True, "float32"),
    # LLaMA-Factory's pure_bf16, autocast_adapter_dtype=False
    "pure bf16": ("bfloat16", None, False, False, "bfloat16"),
}
_QUANTIZED: Final = {
    # Axolotl, PEFT's QLoRA guide under the Trainer
    "nf4 prepared autocast": ("bfloat16", "nf4", True, True, "float32"),
    # ms-swift, LLaMA-Factory: the model is not prepared by PEFT
    "nf4 autocast": ("bfloat16", "nf4", False, True, "float32"),
    # TRL 1.x casts adapters to bf16
    "nf4 autocast bf16 adapters": ("bfloat16", "nf4", False, True, "bfloat16"),
    # loops written by hand
    "nf4": ("bfloat16", "nf4", False, False, "float32"),
    "nf4 prepared": ("bfloat16", "nf4", True, False, "float32"),
    "int8 prepared autocast": ("float16", "int8", True, True, "float32"),
}
_ENCODER: Final = {
    "fp32": ("float32", None, False, False, "float32"),
    "fp32 autocast": ("float32", None, False, True, "float32"),
    "bf16 autocast": ("bfloat16", None, False, True, "float32"),
}
_PRECISIONS: Final = {
    "decoder": {**_PLAIN, **_QUANTIZED},
    "mixture": {**_PLAIN, "nf4 autocast": _QUANTIZED["nf4 autocast"], "nf4": _QUANTIZED["nf4"]},
    "image-text": {**_PLAIN, **_QUANTIZED},
    "images": {**_PLAIN, **_QUANTIZED},
    "both": {**_PLAIN, "fp32": _ENCODER["fp32"], "int8": _QUANTIZED["int8 prepared autocast"]},
    "speech": {**_ENCODER, "int8": _QUANTIZED["int8 prepared autocast"]},
    "encoder": _ENCODER,
    "image": _ENCODER,
}
_LONG: Final = ((1, 512), (1, 1024), (1, 2048), (2, 512), (2, 1024), (4, 512), (8, 256), (1, 4096))
_SHORT: Final = ((8, 128), (16, 128), (32, 128), (16, 256), (8, 512))
_SHAPES: Final = {
    "both": ((2, 512), (4, 256), (8, 128), (8, 256), (1, 512)),
    "speech": ((2, 128), (4, 128), (8, 64), (16, 225)),
    "encoder": _SHORT,
    "images": ((1, 1280), (2, 1280), (1, 2048), (2, 2048), (4, 1280)),
    "image": ((8, 0), (16, 0), (32, 0), (64, 0)),
}
_PER_MODEL: Final = 5
_SEEN: Final = 20  # of models that get images


class Setting(NamedTuple):
    """One setting: a name, the architecture, and what ``lora_lint.memory.tracer.step.Request``
    takes.
    """

    name: str
    architecture: str
    request: Mapping[str, Any]


def development() -> list[Setting]:
    """The settings that the form may be developed on."""
    return list(_draw(DEVELOPMENT_MODELS))


def holdout() -> list[Setting]:
    """The settings that judge it, of other architectures."""
    return list(_draw(HOLDOUT_MODELS))


def images() -> list[Setting]:
    """Settings of image-text models, drawn after the others were."""
    return list(_draw(IMAGE_MODELS))


def _draw(models: Mapping[str, Model]) -> Iterator[Setting]:
    for name, model in models.items():
        chance = random.Random(f"{SEED} {name}")
        for number in range(_SEEN if model.images else _PER_MODEL):
            yield Setting(f"{name}/{number}", model.architecture, _request(model, chance))


def _request(model: Model, chance: random.Random) -> dict[str, Any]:
    kind = model.kind
    causal = kind in ("decoder", "mixture", "image-text", "images")
    precisions = _PRECISIONS[kind]
    dtype, quantization, prepared, autocast, adapters = precisions[chance.choice(list(precisions))]
    batch, length = chance.choice(_SHAPES.get(kind, _LONG))
    lora: dict[str, Any] = {"r": chance.choice((4, 8, 16, 32, 64))}
    lora["target_modules"] = chance.choice(model.targets)
    lora["lora_dropout"] = chance.choice((0.0, 0.0, 0.05, 0.1))
    if model.task:
        lora["task_type"] = model.task
    if chance.random() < 0.12 and quantization != "int8":
        lora["use_dora"] = True
    if model.parameters and chance.random() < 0.3 and not quantization:
        # PEFT refuses dropout and DoRA on parameters (tuners/lora/layer.py ``ParamWrapper``)
        lora |= {
            "target_parameters": list(model.parameters),
            "lora_dropout": 0.0,
            "use_dora": False,
        }
        lora["target_modules"] = _QV
    if kind == "image" or (model.saved and chance.random() < 0.12):
        lora["modules_to_save"] = list(chance.choice(model.saved))
    odds = (0.15, 0.35, 0.5) if prepared else (0.45, 0.25, 0.3)
    if kind in ("encoder", "image", "speech"):
        odds = (0.8, 0.0, 0.2)
    checkpointing = chance.choices((None, "reentrant", "non-reentrant"), odds)[0]
    attention = chance.choice(model.attentions)
    sixteen = autocast or (dtype != "float32" and not prepared)
    if attention == "flash_attention_2" and not sixteen:
        attention = None
    padded = batch > 1 and kind not in ("image", "speech") and chance.random() < 0.4
    if attention == "flash_attention_2":
        padded = False  # its kernel then gets the samples packed, without a mask
    images = {"images": chance.choice(model.images)} if model.images else {}
    return {
        "config": dict(model.config),
        "cls": model.cls,
        "lora": lora,
        "batch": batch,
        "length": length,
        "dtype": dtype,
        "quantization": quantization,
        "double_quant": quantization == "nf4" and chance.random() < 0.6,
        "compute_dtype": "float16" if dtype == "float16" else "bfloat16",
        "prepared": prepared,
        "autocast": autocast,
        "adapter_dtype": adapters,
        "checkpointing": checkpointing,
        "attention": attention,
        "uniform": not padded,
        "fused_loss": kind in ("decoder", "mixture") and chance.random() < 0.15,
        "outputs_kept": not autocast and chance.random() < 0.4,
        "accumulates": causal and chance.random() < 0.3,
        **images,
    }


if __name__ == "__main__":
    for which, settings in (
        ("development", development()),
        ("holdout", holdout()),
        ("images", images()),
    ):
        for setting in settings:
            print(json.dumps({"set": which, **setting._asdict()}))
