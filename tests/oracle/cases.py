"""Random LoRA configs, feature by feature, with the mistakes people make."""

from __future__ import annotations

import functools
import re
from typing import Any

import torch
from hypothesis import strategies as st

from tests.oracle import shipped
from tests.oracle.models import MODELS, template

Draw = Any
Config = dict[str, Any]


@functools.cache
def names_of(model: str) -> dict[str, list[str]]:
    """Names of a model that entries are drawn from."""
    small = model in MODELS
    module = template(model) if small else shipped.template(model)
    full = [name for name, _ in module.named_modules() if name]
    linear = [n for n, m in module.named_modules() if _has_matrix(m)]
    leaves = list(dict.fromkeys(name.rpartition(".")[2] for name in full))
    good = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    two = list(dict.fromkeys(".".join(n.split(".")[-2:]) for n in linear))
    parameters = [name for name, _ in module.named_parameters()]
    dense = [n for n, m in module.named_modules() if type(m).__name__ in ("Linear", "Conv1D")]
    embeddings = [n for n, m in module.named_modules() if isinstance(m, torch.nn.Embedding)]
    deep = [n for n, p in module.named_parameters() if p.dim() >= 3]
    return {
        "full": full,
        "linear": linear,
        "leaves": leaves,
        "good": good,
        "two": two,
        "parameters": parameters,
        "deep": deep or parameters,
        "last": list(dict.fromkeys(".".join(n.split(".")[-2:]) for n in (deep or parameters))),
        "dense": list(dict.fromkeys(n.rpartition(".")[2] for n in dense)),
        "embeddings": [
            *embeddings,
            *dict.fromkeys(n.rpartition(".")[2] for n in embeddings or linear),
        ],
        "top": list(dict.fromkeys(n.split(".")[0] for n in full)),
    }


def _has_matrix(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.dim() >= 2


MISTAKES = [
    "q_proj",
    "v_proj",
    "query_key_value",
    "c_attn",
    "c_proj",
    "dense",
    "proj",
    "nope",
    "all-linear",
    ".*q_proj",
    "q_proj,v_proj",
    "lm_head",
    "embed_tokens",
    "score",
    "classifier",
    "gate_proj",
    "up_proj",
    "down_proj",
    "w1",
    "w2",
    "w3",
    "gate",
    "experts",
    "",
]


@st.composite
def entry(draw: Draw, model: str) -> str:
    """One name of a list: mostly one that fits."""
    names = names_of(model)
    kind = draw(
        st.sampled_from(["good"] * 6 + ["two", "linear", "leaves", "mistake", "mistake", "full"])
    )
    return draw(st.sampled_from(MISTAKES if kind == "mistake" else names[kind]))


@st.composite
def entries(draw: Draw, model: str, most: int = 4) -> list[str]:
    """A list of names, now and then a long one."""
    if draw(st.integers(0, 14)) == 0:
        size = draw(st.integers(20, 30))
        pool = names_of(model)["linear"] + names_of(model)["good"]
        return draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size))
    return draw(st.lists(entry(model), min_size=1, max_size=most))


@st.composite
def regex(draw: Draw, model: str) -> str:
    """A string target."""
    names = names_of(model)
    leaf = draw(st.sampled_from(names["good"]))
    other = draw(st.sampled_from(names["leaves"]))
    full = draw(st.sampled_from(names["linear"]))
    digit = draw(st.sampled_from("012"))
    return draw(
        st.sampled_from(
            [
                rf".*\.{leaf}",
                rf".*\.({leaf}|{other})",
                rf".*{leaf}$",
                rf".*\.{digit}\..*{leaf}",
                rf"(?!.*\.{digit}\.).*\.{leaf}",
                full,
                re.escape(full),
                leaf,
                f"{leaf},{other}",
                f"{leaf}|{other}",
                r".*",
                r".*\d+.*proj",
                f"({leaf}",
                "*",
                rf".*[{leaf[0]}].*",
            ]
        )
    )


@st.composite
def targets(draw: Draw, model: str) -> Any:
    """Any kind of target_modules."""
    kind = draw(st.sampled_from(["list"] * 5 + ["regex", "all", "none"]))
    if kind == "list":
        return draw(entries(model))
    if kind == "regex":
        return draw(regex(model))
    return "all-linear" if kind == "all" else None


@st.composite
def good_targets(draw: Draw, model: str) -> Any:
    """Targets that mostly match, so that the feature under test is reached."""
    names = names_of(model)
    listed = st.lists(st.sampled_from(names["good"]), min_size=1, max_size=3, unique=True)
    return draw(
        st.one_of(
            listed,
            listed,
            listed.map(lambda x: [*x, "nope"]),
            st.just("all-linear"),
            targets(model),
        )
    )


@st.composite
def mostly_good(draw: Draw, model: str) -> Any:
    """Targets of dense layers that match, now and then anything else."""
    names = names_of(model)
    listed = st.lists(st.sampled_from(names["dense"]), min_size=1, max_size=3, unique=True)
    return draw(
        st.one_of(
            listed,
            listed,
            listed.map(lambda entries: [*entries, "nope"]),
            st.just("all-linear"),
            good_targets(model),
        )
    )


def task_of(draw: Draw, model: str) -> Config:
    """A task type, mostly the one that fits."""
    fits = {
        "seq-cls": "SEQ_CLS",
        "token-cls": "TOKEN_CLS",
        "qa": "QUESTION_ANS",
        "t5": "SEQ_2_SEQ_LM",
        "bart": "SEQ_2_SEQ_LM",
    }
    fit = next((task for part, task in fits.items() if part in model), "CAUSAL_LM")
    every = [
        "CAUSAL_LM",
        "SEQ_CLS",
        "TOKEN_CLS",
        "QUESTION_ANS",
        "FEATURE_EXTRACTION",
        "SEQ_2_SEQ_LM",
    ]
    kind = draw(st.integers(0, 9))
    if kind <= 4:
        return {}
    if kind <= 7:
        return {"task_type": fit}
    return {"task_type": draw(st.sampled_from([*every, None, "causal_lm", "CASUAL_LM"]))}


def list_targets(draw: Draw, model: str) -> Config:
    """target_modules as a list."""
    return {"target_modules": draw(entries(model, most=6))}


def regex_targets(draw: Draw, model: str) -> Config:
    """target_modules as a regular expression."""
    return {"target_modules": draw(regex(model))}


def all_linear(draw: Draw, model: str) -> Config:
    """all-linear, in its right and wrong places."""
    names = names_of(model)
    value = draw(
        st.sampled_from(["all-linear", "ALL-LINEAR", "all-linear", ["all-linear"], "all_linear"])
    )
    if draw(st.integers(0, 3)) == 0:
        value = ["all-linear", draw(st.sampled_from(names["good"]))]
    extra = draw(
        st.sampled_from(
            [
                {},
                {},
                {"exclude_modules": [draw(st.sampled_from(names["good"])), "nope"]},
                {"layers_to_transform": [0]},
                {"modules_to_save": [draw(st.sampled_from(names["leaves"])), "nope"]},
                {"lora_dropout": 0.1},
            ]
        )
    )
    return {"target_modules": value, **extra}


def default_targets(draw: Draw, model: str) -> Config:
    """target_modules omitted or null."""
    config: Config = draw(
        st.sampled_from([{}, {}, {"target_modules": None}, {"target_modules": []}])
    )
    names = names_of(model)
    if draw(st.integers(0, 2)) == 0:
        config = {
            **config,
            "target_parameters": draw(st.lists(st.sampled_from(names["last"]), max_size=2)),
        }
    if draw(st.integers(0, 2)) == 0:
        config = {**config, "exclude_modules": draw(entries(model, most=2))}
    if draw(st.integers(0, 2)) == 0:
        config = {
            **config,
            "rank_pattern": {draw(st.sampled_from(["q_proj", "nope", "c_attn"])): 3},
        }
    return config


def exclude_modules(draw: Draw, model: str) -> Config:
    """exclude_modules as a list or a regular expression."""
    value = draw(st.one_of(entries(model, most=3), entries(model, most=3), regex(model)))
    if draw(st.integers(0, 6)) == 0:
        target = draw(entries(model, most=2))
        return {"target_modules": target, "exclude_modules": target}
    return {"target_modules": draw(good_targets(model)), "exclude_modules": value}


def layers(draw: Draw, model: str) -> Config:
    """layers_to_transform and layers_pattern."""
    config: Config = {"target_modules": draw(st.one_of(good_targets(model), entries(model)))}
    index = st.integers(-1, 4)
    value = st.one_of(st.lists(index, max_size=3), index, st.just([0, 31]), st.just([5, 6]))
    if draw(st.integers(0, 8)):
        config["layers_to_transform"] = draw(value)
    if draw(st.integers(0, 1)):
        names = names_of(model)
        pattern = st.sampled_from(
            ["layers", "h", "layer", "block", "blocks", "l.*", "nope", "", "(layers)"]
        )
        top = st.sampled_from(names["top"])
        config["layers_pattern"] = draw(
            st.one_of(pattern, top, st.lists(st.one_of(pattern, top), max_size=2))
        )
    return config


def patterns(draw: Draw, model: str) -> Config:
    """rank_pattern and alpha_pattern."""
    names = names_of(model)
    leaf = st.sampled_from(names["good"])
    full = st.sampled_from(names["linear"])
    key = st.one_of(
        leaf,
        leaf,
        full,
        full.map(lambda n: f"^{n}"),
        leaf.map(lambda n: f"^{n}"),
        leaf.map(lambda n: rf".*\.1\..*{n}"),
        st.tuples(leaf, leaf).map("|".join),
        st.sampled_from(["nope", r"layers\.0\..*", "(", ".*", "weight"]),
    )
    value = st.one_of(
        st.integers(1, 12), st.integers(1, 12), st.sampled_from([0, -1, 4.0, "8", None, True])
    )
    config: Config = {"target_modules": draw(good_targets(model))}
    for field in ("rank_pattern", "alpha_pattern"):
        if draw(st.integers(0, 3)):
            config[field] = draw(st.dictionaries(key, value, min_size=1, max_size=3))
    if draw(st.integers(0, 12)) == 0:
        config["rank_pattern"] = draw(st.sampled_from([None, [], "q_proj"]))
    return config


def modules_to_save(draw: Draw, model: str) -> Config:
    """modules_to_save: names, letters, containers, targets."""
    names = names_of(model)
    usual = st.one_of(
        st.sampled_from(names["good"]),
        st.sampled_from(names["linear"]),
        st.sampled_from(["lm_head", "embed_tokens", "score", "classifier", "norm", "nope"]),
    )
    odd = st.one_of(
        st.sampled_from(names["full"]),
        st.sampled_from(names["leaves"]),
        st.sampled_from(["proj", "attn", "e", "d", "0", "default", "weight", "head"]),
    )
    value = draw(
        st.one_of(
            st.lists(usual, min_size=1, max_size=3),
            st.lists(usual, min_size=1, max_size=2),
            st.lists(st.one_of(usual, odd), min_size=1, max_size=3),
            st.sampled_from(["lm_head", "score", "embed_tokens", "head"]),
        )
    )
    config = {"target_modules": draw(mostly_good(model)), "modules_to_save": value}
    if draw(st.integers(0, 5)) == 0:
        config["inference_mode"] = True
    if draw(st.integers(0, 5)) == 0:
        config["ensure_weight_tying"] = True
    return config


def target_parameters(draw: Draw, model: str) -> Config:
    """target_parameters, and module names that PEFT turns into them."""
    names = names_of(model)
    usual = st.one_of(st.sampled_from(names["last"]), st.sampled_from(names["deep"]))
    odd = st.one_of(
        st.sampled_from(names["parameters"]),
        st.sampled_from(["experts.gate_up_proj", "experts.down_proj", "nope", "weight", "gain"]),
    )
    config: Config = {}
    if draw(st.integers(0, 3)):
        config["target_parameters"] = draw(
            st.one_of(
                st.lists(usual, min_size=1, max_size=3),
                st.lists(usual, min_size=1, max_size=3),
                st.lists(st.one_of(usual, odd), min_size=1, max_size=3),
            )
        )
    experts = ["gate_proj", "up_proj", "down_proj"] if model != "mixtral" else ["w1", "w2", "w3"]
    config["target_modules"] = draw(
        st.one_of(
            st.just([]),
            st.just(["q_proj"]),
            st.just([*experts, "q_proj"]),
            st.lists(st.sampled_from([*experts, "gate", "q_proj", "nope"]), min_size=1, max_size=4),
            st.just("all-linear"),
            st.just(rf".*\.(q_proj|{experts[0]}|{experts[1]}|{experts[2]})"),
            st.just(r".*experts.*"),
            mostly_good(model),
        )
    )
    if draw(st.integers(0, 9)) == 0:
        config["lora_dropout"] = 0.05
    if draw(st.integers(0, 3)) == 0:
        key = draw(st.sampled_from(["gate_up_proj", "experts.down_proj", "q_proj", "nope"]))
        config["rank_pattern"] = {key: 2}
    if draw(st.integers(0, 14)) == 0:
        config["target_parameters"] = draw(st.sampled_from(["experts.gate_up_proj", []]))
    if draw(st.integers(0, 14)) == 0:
        config |= draw(
            st.sampled_from(
                [{"fan_in_fan_out": True}, {"use_dora": True}, {"init_lora_weights": "pissa"}]
            )
        )
    return config


def trainable_tokens(draw: Draw, model: str) -> Config:
    """trainable_token_indices, alone and with tied or saved embeddings."""
    names = names_of(model)
    rows = st.lists(st.integers(-3, 19), max_size=4)
    usual = st.sampled_from(names["embeddings"])
    odd = st.sampled_from(["embed_tokens", "lm_head", "wte", "nope", *names["good"]])
    value = draw(
        st.one_of(
            rows,
            rows,
            st.dictionaries(usual, rows, min_size=1, max_size=2),
            st.dictionaries(st.one_of(usual, odd), rows, min_size=1, max_size=2),
            st.just([3, 10**6] if model in MODELS else [3, 4]),  # meta tensors have no bounds
        )
    )
    targets = st.lists(st.sampled_from(names["dense"]), min_size=1, max_size=2, unique=True)
    config: Config = {
        "target_modules": draw(st.one_of(targets, targets, mostly_good(model))),
        "trainable_token_indices": value,
    }
    if draw(st.integers(0, 5)) == 0:
        config["modules_to_save"] = [draw(st.one_of(usual, odd))]
    if draw(st.integers(0, 2)) == 0:
        config["ensure_weight_tying"] = True
    return config


def bias(draw: Draw, model: str) -> Config:
    """bias and lora_bias."""
    right = ["all", "lora_only", "all", "lora_only", "all", "lora_only", "none", "boft_only"]
    wrong = ["lora", None, False, "All", "True"]
    value = draw(st.sampled_from(right + right + wrong))
    config: Config = {"target_modules": draw(mostly_good(model)), "bias": value}
    if draw(st.integers(0, 5)) == 0:
        config["lora_bias"] = True
    if draw(st.integers(0, 5)) == 0:
        config["inference_mode"] = True
    if draw(st.integers(0, 5)) == 0:
        config["modules_to_save"] = [draw(st.sampled_from(names_of(model)["good"]))]
    return config


def dora(draw: Draw, model: str) -> Config:
    """use_dora on every kind of layer, and what it can't be combined with."""
    config: Config = {"target_modules": draw(st.one_of(good_targets(model), entries(model)))}
    config["use_dora"] = draw(st.sampled_from([True, True, True, False, "yes", 1]))
    if draw(st.integers(0, 2)) == 0:
        config |= draw(
            st.sampled_from(
                [
                    {"lora_bias": True},
                    {"megatron_config": {}},
                    {"init_lora_weights": "mica"},
                    {"init_lora_weights": "olora"},
                    {"init_lora_weights": "pissa_niter_2"},
                    {"alora_invocation_tokens": [1]},
                    {"r": 64},
                ]
            )
        )
    if draw(st.integers(0, 3)) == 0:
        config["rank_pattern"] = {"nope": 4, draw(st.sampled_from(names_of(model)["good"])): 2}
    return config


def scaling(draw: Draw, model: str) -> Config:
    """use_rslora, r, lora_alpha and lora_dropout, right and wrong."""
    config: Config = {"target_modules": draw(good_targets(model))}
    config["use_rslora"] = draw(st.sampled_from([True, True, False, 1]))
    config["r"] = draw(st.sampled_from([1, 2, 4, 8, 16, 64, 3, 8, 4, 0, -1, 4.0, "8", None, True]))
    config["lora_alpha"] = draw(st.sampled_from([1, 8, 16, 32, 8.5, 0, -4, 16, 8, "16", None]))
    if draw(st.integers(0, 2)) == 0:
        values = [0.0, 0.05, 0.1, 1.0, 1, -0.1, 5, 1.5, None, "0.1", True]
        config["lora_dropout"] = draw(st.sampled_from(values))
    if draw(st.integers(0, 3)) == 0:
        config["alpha_pattern"] = {"nope": 4, draw(st.sampled_from(names_of(model)["good"])): 2}
    return config


def initialisation(draw: Draw, model: str) -> Config:
    """init_lora_weights on every kind of layer."""
    values = [
        True,
        False,
        None,
        "gaussian",
        "Gaussian",
        "eva",
        "olora",
        "pissa",
        "pissa_niter_4",
        "pissa_niter_x",
        "pissa_4",
        "corda",
        "orthogonal",
        "lora_ga",
        "mica",
        "nope",
        "",
        0,
        1,
    ]
    config: Config = {"target_modules": draw(good_targets(model))}
    config["init_lora_weights"] = draw(st.sampled_from(values))
    config["r"] = draw(st.sampled_from([2, 4, 8, 3, 40]))
    return config


def replication(draw: Draw, model: str) -> Config:
    """layer_replication."""
    pair = st.tuples(st.integers(0, 2), st.integers(0, 3)).map(list)
    valid = st.sampled_from([[0, 1], [0, 2], [1, 2]])
    value = draw(
        st.one_of(
            st.lists(valid, min_size=1, max_size=3),
            st.lists(valid, min_size=1, max_size=3),
            st.lists(pair, min_size=1, max_size=3),
        )
    )
    names = names_of(model)
    listed = st.lists(st.sampled_from(names["good"]), min_size=1, max_size=3, unique=True)
    config: Config = {
        "target_modules": draw(st.one_of(listed, listed, mostly_good(model))),
        "layer_replication": value,
    }
    if draw(st.integers(0, 4)) == 0:
        config["layers_to_transform"] = [0, 4]
    return config


def anything(draw: Draw, model: str) -> Config:
    """Several features at once, and keys LoraConfig does not have."""
    chosen = draw(
        st.lists(st.sampled_from(list(FEATURES.values())), min_size=2, max_size=4, unique=True)
    )
    config: Config = {}
    for feature in chosen:
        config |= feature(draw, model)
    if draw(st.integers(0, 8)) == 0:
        config |= {draw(st.sampled_from(["alpha", "rank", "target_module", "enable_lora"])): 1}
    return config


FEATURES = {
    "list": list_targets,
    "regex": regex_targets,
    "all-linear": all_linear,
    "default targets": default_targets,
    "exclude_modules": exclude_modules,
    "layers_to_transform": layers,
    "rank/alpha_pattern": patterns,
    "modules_to_save": modules_to_save,
    "target_parameters": target_parameters,
    "trainable_token_indices": trainable_tokens,
    "bias": bias,
    "DoRA": dora,
    "rsLoRA": scaling,
    "init_lora_weights": initialisation,
    "layer_replication": replication,
}


# Features that most architectures would only refuse.
MODELS_FOR = {
    "target_parameters": (
        "mixtral",
        "qwen3_moe",
        "qwen2_moe",
        "deepseek_v3",
        "gpt_oss",
        "custom",
        "llama",
        "opt",
        "mistralai/Mixtral-8x7B-v0.1",
    ),
    "layer_replication": (
        "llama",
        "llama-tied",
        "llama-bare",
        "mistral",
        "qwen3",
        "gemma3",
        "mixtral",
        "bert-mlm",
        "bert-seq-cls",
        "falcon",
        "gpt2",
        "custom",
        "t5",
        "meta-llama/Llama-2-7b-hf",
        "HuggingFaceTB/SmolLM2-135M",
        "gpt2",
    ),
    "trainable_token_indices": (
        "gpt2",
        "llama",
        "llama-tied",
        "mistral",
        "qwen3",
        "gemma3",
        "opt",
        "bloom",
        "gpt_neox",
        "bert-mlm",
        "bert-seq-cls",
        "t5",
        "bart",
        "mixtral",
        "whisper",
        "custom",
    ),
}


@st.composite
def case(draw: Draw, feature: str, models: tuple[str, ...]) -> tuple[str, Config]:
    """A model's name and a config that exercises a feature."""
    fitting = tuple(m for m in models if m in MODELS_FOR.get(feature, models))
    model = draw(st.sampled_from(fitting or models))
    make = anything if feature == "anything" else FEATURES[feature]
    config = make(draw, model)
    return model, {**task_of(draw, model), **config}


# Features of which a release may refuse too little, or adapt all or nothing: how many cases of
# ten get targets that match nothing, and how many get plain ones and a layer that is there.
_SPOILT = {
    "all-linear": 1,
    "bias": 1,
    "layer_replication": 1,
    "list": 1,
    "modules_to_save": 1,
    "rank/alpha_pattern": 1,
}
_REPAIRED = {"anything": 2, "layers_to_transform": 3}


@st.composite
def release_case(draw: Draw, feature: str, models: tuple[str, ...]) -> tuple[str, Config]:
    """A case for any PEFT release: as the release may refuse little, more of them match nothing."""
    model, config = draw(case(feature, models))
    number = draw(st.integers(0, 9))
    if number < _SPOILT.get(feature, 0):
        config["target_modules"] = ["nope", draw(st.sampled_from(MISTAKES[:4])) + "_x"]
    elif number < _SPOILT.get(feature, 0) + _REPAIRED.get(feature, 0):
        config["target_modules"] = [draw(st.sampled_from(names_of(model)["good"]))]
        if feature == "anything":
            return model, config
        config["layers_to_transform"] = draw(st.sampled_from([[0], [1], 1, [0, 5]]))
        config.pop("layers_pattern", None)
    return model, config
