"""For each row of ``semantics.HISTORY`` cases that notice its changes, tried on every release.

Random cases find what nobody thought of, but rarely what only a rare combination shows.
"""

from __future__ import annotations

from typing import Any

_LLAMA = [
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
]
_FULL = [
    f"model.layers.{layer}.{'self_attn' if at < 4 else 'mlp'}.{name}"
    for layer in range(3)
    for at, name in enumerate(_LLAMA)
]
_Q = {"target_modules": ["q_proj"]}
_TIED = ["llama", "llama-tied", "gpt2", "bert-mlm", "t5", "bart", "opt", "qwen3"]

WITNESSES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "list_entries": [
        ("custom", {"target_modules": ["proj"]}),
        ("llama", {"target_modules": ["q.proj"]}),
    ],
    "exact_names_skip_layers": [
        ("llama", {"target_modules": [_FULL[0], "v_proj"], "layers_to_transform": [1]}),
    ],
    "layer_number": [
        ("llama", {**_Q, "layers_to_transform": [0], "layers_pattern": "ayers"}),
        (
            "t5",
            {
                "target_modules": ["wi", "q"],
                "layers_to_transform": [1],
                "layers_pattern": "(?:block|layer)",
            },
        ),
        ("llama-bare", {**_Q, "layers_to_transform": [0], "layers_pattern": "layers"}),
        ("llama", {**_Q, "layers_to_transform": [0], "layers_pattern": "(layers)"}),
    ],
    "layer_number_anywhere": [
        ("t5", {"target_modules": ["wi", "q"], "layers_to_transform": [0]}),
        ("indexes", {"target_modules": ["up"], "layers_to_transform": [2]}),
    ],
    "empty_layers_means_all": [("llama", {**_Q, "layers_to_transform": []})],
    "pattern_keys": [
        (
            "llama",
            {**_Q, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"self_attn.q_proj": 2}},
        ),
        ("llama", {**_Q, "rank_pattern": {f"^{_FULL[0]}": 4}}),
    ],
    "root_can_match": [("llama", {"target_modules": "(.*q_proj)?"})],
    "saved_modules": [
        ("llama", {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["q_proj"]}),
        ("llama", {"target_modules": ["q_proj", "gate_proj"], "modules_to_save": ["mlp"]}),
    ],
    "all_linear": [
        ("llama", {"target_modules": "all-linear"}),
        ("llama-seq-cls", {"target_modules": "all-linear", "task_type": "SEQ_CLS"}),
        ("custom", {"target_modules": "all-linear"}),
    ],
    "condensed": [
        ("llama", {"target_modules": _FULL, "layers_to_transform": [0]}),
        (
            "custom",
            {"target_modules": ["proj", "layers.0.q_proj", *(f"a{i}.zz" for i in range(19))]},
        ),
    ],
    "experts": [
        ("mixtral", {"target_modules": ["w1", "w2", "w3", "q_proj"]}),
        ("mixtral", {"target_modules": "all-linear"}),
    ],
    "no_match_error": [("llama", {"target_modules": ["nope"]})],
    "explains_no_match": [("llama", {"target_modules": ["nope"], "layers_to_transform": [1]})],
    "checks_task_type": [("llama", {**_Q, "task_type": "CASUAL_LM"})],
    "strings_refuse_layers": [
        ("llama", {"target_modules": ".*q_proj", "layers_to_transform": [0]}),
    ],
    "pattern_needs_layers": [
        ("llama", {**_Q, "layers_pattern": "layers"}),
        ("llama", {**_Q, "layers_pattern": "layers", "layers_to_transform": []}),
    ],
    "checks_subconfigs": [("llama", {**_Q, "eva_config": 3})],
    "refuses_containers": [("llama", {**_Q, "modules_to_save": ["layers"]})],
    "refuses_adapted": [
        ("bert-token-cls", {"target_modules": ["query", "classifier"], "task_type": "TOKEN_CLS"}),
    ],
    "refuses_inside_adapter": [("llama", {**_Q, "modules_to_save": ["default"]})],
    "mamba_types": [
        ("mamba", {"target_modules": ["in_proj", "out_proj"]}),
        ("nemotron_h", {"target_modules": ["in_proj", "out_proj"]}),
    ],
    "seq2seq_needs_encoder_kwargs": [
        ("t5", {"target_modules": ["q"], "task_type": "SEQ_2_SEQ_LM"}),
    ],
    "unmatched_patterns_warn": [("llama", {**_Q, "rank_pattern": {"nope": 4}})],
    "layers_wrap": [("llama", {**_Q, "modules_to_save": ["base_layer"]})],
    "kinds": [("custom", {"target_modules": [name]}) for name in ("volume", "signal", "attn")],
    "dora_kinds": [
        ("custom", {"target_modules": [name], "use_dora": True})
        for name in ("conv", "embed", "volume", "signal", "attn")
    ],
    "dora_refused": [("custom", {"target_modules": ["signal"], "use_dora": True})],
    "magnitude": [
        ("llama", {**_Q, "modules_to_save": ["lora_magnitude_vector"]}),
        ("llama", {**_Q, "modules_to_save": ["lora_magnitude_vector"], "use_dora": True}),
    ],
    "dora_transposes": [
        ("gpt2", {"target_modules": ["c_attn"], "use_dora": True, "init_lora_weights": "olora"}),
    ],
    "pissa_transposes": [
        ("gpt2", {"target_modules": ["c_attn"], "use_dora": True, "init_lora_weights": "pissa"}),
    ],
    "no_rank": [("llama", {**_Q, "r": 0})],
    "init_strings": [("llama", {**_Q, "init_lora_weights": "nope"})],
    "variants": [
        ("custom", {"target_modules": [name], "alora_invocation_tokens": [1], "use_dora": dora})
        for name in ("embed", "conv", "q_proj", "attn")
        for dora in (True, False)
    ],
    "attention_bias": [("custom", {"target_modules": ["attn"], "lora_bias": True})],
    "conv_groups": [("custom", {"target_modules": ["conv"], "r": r}) for r in (4, 3)],
    "root_parameters": [("custom", {"target_modules": [], "target_parameters": ["scale"]})],
    "flat_parameter_error": [
        ("custom", {"target_modules": [], "target_parameters": ["experts.gain"]}),
    ],
    "token_kinds": [
        ("custom", {"target_modules": ["proj"], "trainable_token_indices": {name: [1]}})
        for name in ("embed", "head", "norm", "conv")
    ],
    "rows_copied": [
        (
            "llama",
            {
                **_Q,
                "task_type": "TOKEN_CLS",
                "modules_to_save": ["tokens"],
                "trainable_token_indices": {"embed_tokens": [1]},
            },
        ),
    ],
    "bias_all": [("t5", {"target_modules": ["q"], "bias": "all"})],
    "bias_only": [("opt", {**_Q, "bias": "boft_only"})],
    "sees_bias": [("opt", {**_Q, "bias": "lora_only"})],
    "inference_freezes_copies": [
        ("llama", {**_Q, "modules_to_save": ["lm_head"], "inference_mode": True}),
    ],
    "inference_freezes_names": [
        ("opt", {**_Q, "bias": "all", "lora_bias": True, "inference_mode": True}),
    ],
    "heads": [
        (
            "bert-token-cls",
            {"target_modules": ["value"], "modules_to_save": "y", "task_type": "TOKEN_CLS"},
        ),
        ("llama-seq-cls", {"target_modules": ["q_proj", "score"], "task_type": "SEQ_CLS"}),
    ],
    "names_twice": [("custom", {"target_modules": ["q_proj"], "modules_to_save": ["twin"]})],
    "copies_forward": [("llama", {**_Q, "modules_to_save": ["mlp", "gate_proj"]})],
    "copied_again": [
        ("llama", {**_Q, "modules_to_save": ["mlp", "gate_proj"], "task_type": "TOKEN_CLS"}),
        ("llama", {**_Q, "modules_to_save": ["mlp", "act_fn"], "task_type": "TOKEN_CLS"}),
    ],
    "originals_frozen": [("opt", {**_Q, "modules_to_save": ["fc1"], "bias": "all"})],
    "finds_copies_inside": [("llama", {**_Q, "modules_to_save": ["mlp", "mlp.gate_proj"]})],
    "tying": [
        (model, {"ensure_weight_tying": True, **config})
        for model in _TIED
        for config in (
            {"target_modules": "all-linear", "modules_to_save": ["embed_tokens", "wte"]},
            {"target_modules": "all-linear", "modules_to_save": ["lm_head"]},
            {"target_modules": ["embed_tokens", "wte", "shared", "word_embeddings"]},
        )
    ],
    "tied_names": [
        (
            model,
            {
                "target_modules": "all-linear",
                "trainable_token_indices": [1],
                "ensure_weight_tying": True,
            },
        )
        for model in _TIED
    ],
    "tied_rows": [
        (
            "llama-tied",
            {**_Q, "trainable_token_indices": {"embed_tokens": [1], "lm_head": [row]}},
        )
        for row in (1, 2)
    ],
}
# The same, as an adapter_config.json with these keys.
LOADED: list[tuple[str, dict[str, Any]]] = [
    ("llama", {**_Q, "rank": 8}),
    ("llama", {**_Q, "r": 4, "use_qalora": False}),
]
