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
