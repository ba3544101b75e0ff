"""Cases on which prediction and PEFT once differed, shrunk."""

from __future__ import annotations

from typing import Any

REGRESSIONS: list[tuple[str, dict[str, Any]]] = [
    # rank_pattern is left alone unless a fused pair is converted
    ("qwen3_moe", {"target_modules": ["q_proj", "nope"], "rank_pattern": []}),
    # trained tokens need a module that knows its features
    (
        "siglip",
        {"target_modules": ["patch_embedding"], "trainable_token_indices": []},
    ),
    # replicated layers need a config to count them in
    ("custom", {"target_modules": ["embed"], "layer_replication": [[0, 0]]}),
    # get_input_embeddings may fail
    ("wav2vec2", {"target_modules": ["q_proj"], "trainable_token_indices": [10**6]}),
    # a copy that already holds wrappers is set trainable as a whole
    (
        "whisper",
        {"target_modules": ["out_proj", "q_proj", "nope"], "modules_to_save": "lm_head"},
    ),
    # torch's ParametrizationList is a ModuleList
    (
        "wav2vec2",
        {"target_modules": ["v_proj"], "modules_to_save": ["weight", "0"], "inference_mode": True},
    ),
    # the second pass of a token classifier reaches the PeftModel itself
    (
        "opt",
        {
            "task_type": "TOKEN_CLS",
            "target_modules": ["lm_head"],
            "modules_to_save": ["model.decoder.layers.0.activation_fn", "classifier", "model"],
        },
    ),
    # True times the number of experts is an integer
    (
        "vit",
        {"target_modules": [], "r": True, "target_parameters": ["embeddings.position_embeddings"]},
    ),
    # factors tied to the embeddings' can't be copied while they are trained
    (
        "opt",
        {
            "target_modules": ["embed_tokens", "nope"],
            "modules_to_save": "head",
            "ensure_weight_tying": True,
        },
    ),
    (
        "gemma3",
        {
            "target_modules": ["embed_tokens", "nope"],
            "modules_to_save": "head",
            "inference_mode": True,
            "ensure_weight_tying": True,
        },
    ),
    # an invalid pattern in exclude_modules, behind targets that fail first
    ("gpt_oss", {"target_modules": ["q_proj", "model"], "exclude_modules": "(v_proj"}),
    # PEFT's default for Mixtral is never reached on transformers 5
    ("mixtral", {}),
    # the letters of a string
    ("llama", {"target_modules": ["q_proj"], "modules_to_save": "lm_head"}),
    # the first number of encoder.block.0.layer.1.… counts
    ("t5", {"target_modules": ["q"], "layers_to_transform": [1]}),
]

# The same for one PEFT release each, run by the release oracle.
RELEASE_REGRESSIONS: list[tuple[str, str, dict[str, Any]]] = [
    # a key behind one that matches is compiled for the warning about keys without effect
    ("0.21.2", "gpt2", {"target_modules": ["wte"], "alpha_pattern": {"wte": 1, "(": 1}}),
    # e is also the end of the wrapper's own modules_to_save
    (
        "0.7.0",
        "llama",
        {
            "task_type": "SEQ_CLS",
            "target_modules": ["q_proj"],
            "modules_to_save": "head",
            "inference_mode": True,
        },
    ),
    # layers have no effect on a pattern, nor on names written in full
    ("0.5.0", "llama", {"target_modules": ".*q_proj", "layers_to_transform": [0]}),
    (
        "0.8.0",
        "llama",
        {"target_modules": ["model.layers.0.mlp.up_proj"], "layers_to_transform": [0, 1]},
    ),
    # before 0.12 only layers with DoRA hold magnitudes
    (
        "0.11.0",
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["lora_magnitude_vector"]},
    ),
    # an entry that tying replaces by the embeddings' own name
    (
        "0.19.0",
        "bart",
        {
            "ensure_weight_tying": True,
            "target_modules": "all-linear",
            "modules_to_save": ["embed_tokens"],
        },
    ),
    (
        "0.19.0",
        "bert-mlm",
        {"ensure_weight_tying": True, "target_modules": ["embed_tokens", "query"]},
    ),
    (
        "0.19.0",
        "bert-mlm",
        {
            "ensure_weight_tying": True,
            "target_modules": ["query"],
            "modules_to_save": ["lm_head"],
        },
    ),
    # the heads are written into modules_to_save, which has to be a list, from 0.11 on
    (
        "0.10.0",
        "bert-token-cls",
        {"target_modules": ["value"], "modules_to_save": "y", "task_type": "TOKEN_CLS"},
    ),
    # PiSSA does not transpose a Conv1D's weight before 0.14, DoRA notices
    (
        "0.13.2",
        "gpt2",
        {
            "target_modules": ["c_attn"],
            "use_dora": True,
            "init_lora_weights": "pissa_niter_2",
        },
    ),
    # a key that is a whole name, in releases whose keys need a dot before them
    ("0.6.0", "gpt2", {"target_modules": ["lm_head"], "rank_pattern": {"lm_head": 1}}),
]
