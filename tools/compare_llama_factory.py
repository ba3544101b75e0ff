"""Compares our lowering of LLaMA-Factory configs with the framework's own functions.

    python tools/compare_llama_factory.py WHEEL

Runs ``find_all_linear_modules`` and ``patch_target_modules`` out of the wheel's source on models of
a few layers, for every setting of the freezing switches, and compares the names with ours. Needs
the test extra.
"""

from __future__ import annotations

import itertools
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import torch
import transformers

from lora_lint.dialects.llama_factory import DIALECT
from lora_lint.models.from_model import read_model
from lora_lint.recipe import Field, Recipe

SWITCHES = ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model")
TARGETS = (["all"], ["q_proj", "v_proj"], ["proj"], ["q_proj", "nope"], ["mlp"], ["fc1", "o_proj"])
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
VISION |= {"num_attention_heads": 4, "image_size": 28, "patch_size": 14}


def functions(wheel: Path) -> dict[str, Any]:
    """The wheel's functions, with their logging left out."""
    archive = zipfile.ZipFile(wheel)
    logger = types.SimpleNamespace(info_rank0=print_nothing, warning_rank0=print_nothing)
    space: dict[str, Any] = {"__name__": "llamafactory_source", "__file__": "visual.py"}
    space["logging"] = types.SimpleNamespace(get_logger=lambda _: logger)
    for name in ("visual", "misc"):
        source = archive.read(f"llamafactory/model/model_utils/{name}.py").decode()
        for line in ("from ...extras import logging", "from .visual import COMPOSITE_MODELS"):
            source = source.replace(line, "")
        module = types.ModuleType("llamafactory_source")
        module.__dict__.update(space)
        sys.modules["llamafactory_source"] = module
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)
        space |= module.__dict__
    return space


def print_nothing(*_: object) -> None:
    """The functions' log lines."""


def models() -> dict[str, Any]:
    """Small models, of text alone and with eyes."""
    t = transformers
    text = dict(TEXT)
    clip = {**VISION, "model_type": "clip_vision_model"}
    configs = {
        "llama": t.LlamaConfig(**text),
        "gpt2": t.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=128),
        "opt": t.OPTConfig(hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4),
        "mixtral": t.MixtralConfig(**text, num_local_experts=4),
        "llava": t.LlavaConfig(
            vision_config=clip, text_config={**text, "model_type": "llama"}, image_token_index=5
        ),
        "gemma3": t.Gemma3Config(
            text_config={**text, "head_dim": 8},
            vision_config={**VISION, "model_type": "siglip_vision_model"},
        ),
        "qwen2_5_vl": t.Qwen2_5_VLConfig(
            text_config={**text, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
            vision_config={"depth": 2, "hidden_size": 32, "num_heads": 4, "out_hidden_size": 32},
        ),
    }
    built = {}
    with torch.device("meta"):
        for name, config in configs.items():
            auto = t.AutoModelForImageTextToText
            kind = auto if type(config) in auto._model_mapping else t.AutoModelForCausalLM
            built[name] = kind.from_config(config)
    return built


def main() -> None:
    """Compare everything; exit with 1 on a difference."""
    theirs = functions(Path(sys.argv[1]))
    cases = different = 0
    for name, model in models().items():
        tree = read_model(model)
        for targets, frozen in itertools.product(
            TARGETS, itertools.product([True, False], repeat=3)
        ):
            switches = dict(zip(SWITCHES, frozen, strict=True))
            names = targets
            if targets == ["all"]:
                names = theirs["find_all_linear_modules"](model, switches["freeze_vision_tower"])
            arguments = types.SimpleNamespace(**switches)
            expected = theirs["patch_target_modules"](model, arguments, names)
            value: Any = "all-linear" if targets == ["all"] else targets
            origin: Any = "computed" if targets == ["all"] else "written"
            fields = {"target_modules": Field(value, origin)}
            recipe = Recipe("llama_factory", 0, (), fields, private={"other_way": None, **switches})
            lowered: Any = DIALECT.lower(recipe, tree)
            cases += 1
            if set(lowered.values["target_modules"]) != set(expected):
                different += 1
                print(
                    name, targets, switches, set(lowered.values["target_modules"]) ^ set(expected)
                )
    print(f"{cases} cases, {different} different")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
