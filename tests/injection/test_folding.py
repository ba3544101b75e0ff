"""Layers that are alike are walked once, and the answer is that of walking them all."""

from __future__ import annotations

import functools
import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import inject, resolve_model
from lora_lint.facts import peft_facts
from lora_lint.injection import folding
from lora_lint.injection.folding import _uniform_pattern, fold

MODELS = (
    "Qwen/Qwen2.5-0.5B",
    "google/gemma-3-1b-it",
    "mistralai/Mixtral-8x7B-v0.1",
    "deepseek-ai/DeepSeek-V3",
    "google-t5/t5-small",
    "openai-community/gpt2",
    "google-bert/bert-base-uncased",
    "google/vit-base-patch16-224",
)
NAMES = [
    "q_proj",
    "v_proj",
    "up_proj",
    "down_proj",
    "gate_proj",
    "c_attn",
    "c_proj",
    "query",
    "value",
    "q",
    "v",
    "wi",
    "dense",
    "lm_head",
    "embed_tokens",
    "mlp",
    "self_attn",
    "attention",
    "layers",
    "model",
    "norm",
    "score",
    "experts.gate_up_proj",
    "gate",
    "mlp.experts.down_proj",
    "layer",
    "0",
    "layers.1",
    "layers.1.mlp",
    "base_model",
    "weight",
]
PATTERNS = (
    r".*\.(q_proj|v_proj)",
    r".*layers\.\d+\.self_attn\.[qv]_proj",
    r"model\.layers\.\d+\.mlp\..*",
    r".*layers\.\d\..*_proj",
    r".*layers\.(1|2)\..*",
    r"model.layers.*.q_proj",
    r".*",
    r".*\.layer\..\.attention.*",
    r"h...attn.c_attn",
    "all-linear",
)
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
ranks = st.dictionaries(
    st.sampled_from([*NAMES, "^q_proj", r".*\.0\..*", "layers.1.mlp.up_proj"]),
    st.integers(1, 64),
    max_size=2,
)
configs = st.fixed_dictionaries(
    {"target_modules": names | st.sampled_from(PATTERNS) | st.none()},
    optional={
        "exclude_modules": names | st.sampled_from(PATTERNS[:8]),
        "modules_to_save": names,
        "target_parameters": names,
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "bias": st.sampled_from(["none", "all", "lora_only"]),
        "use_dora": st.booleans(),
        "task_type": st.sampled_from(["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS"]),
        "layers_to_transform": st.lists(st.integers(0, 4), min_size=1, max_size=2),
        "trainable_token_indices": st.lists(st.integers(0, 9), min_size=1, max_size=3),
        "inference_mode": st.booleans(),
        "ensure_weight_tying": st.booleans(),
    },
)


@functools.cache
def tree(name):
    return resolve_model(name)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(MODELS),
    configs,
    st.sampled_from(
        ["0.21.2", "0.21.2", "0.18.1", "0.13.0", "0.7.1", *peft_facts()["versions"][:9]]
    ),
)
def test_it_is_what_walking_every_layer_gives(name, config, peft):
    folded = inject(tree(name), config, peft=peft)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "allows", lambda *_: False)
        whole = inject(tree(name), config, peft=peft)
    assert folded == whole


def test_a_folded_tree_holds_each_kind_of_layer_once():
    found = fold(tree("google/gemma-3-1b-it"))
    assert found is not None
    assert [*found.tree.get("model.layers").children] == ["0"]
    assert len(found.alike["model.layers.0"]) == 26
    found = fold(tree("deepseek-ai/DeepSeek-V3"))
    assert found is not None
    assert [*found.tree.get("model.layers").children] == ["0", "3"]  # dense, then mixtures
    assert found.alike["model.layers.3"] == tuple(map(str, range(3, 61)))


@pytest.mark.parametrize(
    ("pattern", "uniform"),
    [
        (r".*\.(q_proj|v_proj)", True),
        (r".*layers\.\d+\.self_attn\.q_proj", True),
        (r"model.layers.*.q_proj", True),
        (r".*\.fc1", True),
        (r".*layers\.\d\.q_proj", False),
        (r".*layers\..\.q_proj", False),
        (r".*layers\.[0-4]\..*", False),
        (r"layers...attn", False),
        (r".*\.1\..*", False),
        (r".*(?!9)\.q_proj", False),
        (r".*layers\.\d+?\.q", False),
        (r".*layers\.(\d)\.q", False),
    ],
)
def test_which_patterns_can_not_tell_layers_apart(pattern, uniform):
    assert _uniform_pattern(pattern) is uniform


def test_the_walk_is_really_shorter(monkeypatch):
    made = []
    injection = importlib.import_module("lora_lint.injection.inject")
    build = injection.build
    monkeypatch.setattr(injection, "build", lambda t: made.append(t) or build(t))
    answer = inject(tree("Qwen/Qwen2.5-0.5B"), {"target_modules": ["q_proj"]}, peft="0.21.2")
    assert len(answer.modules) == 24
    assert len(list(made[0].named_modules())) < 30
