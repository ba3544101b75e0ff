"""Images in a training step: the closed form against traced steps with pixels, and what people are
told of what no config says.

Depth is cut to a few layers of language model and tower, widths are the published ones.
``tools/memory_form.py compare images`` does the same for whole models and many more settings.
"""

from __future__ import annotations

import pytest
import torch
import transformers

from lora_lint import Options, estimate_memory, lint_text, resolve_model
from lora_lint.memory.estimate import CONTEXT_HIGH, TRACED_ERROR
from lora_lint.memory.profile import TRAINER
from lora_lint.memory.shapes import read_shape
from lora_lint.models import ModuleTree
from tests.memory.test_traced import Request, ratio, trace

TASK = {"r": 8, "task_type": "CAUSAL_LM"}
LANGUAGE = {**TASK, "target_modules": r".*language_model.*\.(q_proj|v_proj)"}
BY_NAME = {**TASK, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.05}
ALL = {**TASK, "target_modules": "all-linear"}
GC = {"checkpointing": "non-reentrant"}
QLORA = {"quantization": "nf4", "autocast": True, "checkpointing": "reentrant"}
GEMMA = {
    "model_type": "gemma3",
    "text_config": {
        "vocab_size": 262208,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 3,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "mm_tokens_per_image": 256,
}
LLAVA = {
    "model_type": "llava",
    "text_config": {
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 2,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 4,
        "patch_size": 14,
    },
}
QWEN = {
    "model_type": "qwen2_5_vl",
    "text_config": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 2,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "vision_config": {"depth": 8, "hidden_size": 1280, "out_hidden_size": 3584},
}
GEMMA_CLASS, LLAVA_CLASS = "Gemma3ForConditionalGeneration", "LlavaForConditionalGeneration"
QWEN_CLASS = "Qwen2_5_VLForConditionalGeneration"


def tree_of(values, cls):
    config = transformers.CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))
    with torch.device("meta"):
        model = getattr(transformers, cls)._from_config(config, dtype=torch.bfloat16)
    return ModuleTree.from_model(model)


def estimate(tree, lora, **settings):
    """A run of transformers' Trainer of which everything but the images is known."""
    return estimate_memory(
        tree,
        lora,
        dtype="bfloat16",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        optim="adamw_torch",
        attn_implementation="sdpa",
        packing=False,
        profile=TRAINER._replace(autocast=True),
        **{"max_length": 1024, "gradient_checkpointing": False, **settings},
    )


@pytest.mark.parametrize(
    ("lora", "how"),
    [(LANGUAGE, {}), (LANGUAGE, GC), (BY_NAME, GC), (ALL, {}), (ALL, {"images": 2}), (ALL, QLORA)],
)
@pytest.mark.parametrize(
    ("values", "cls", "length"), [(GEMMA, GEMMA_CLASS, 640), (LLAVA, LLAVA_CLASS, 1280)]
)
def test_steps_with_images(values, cls, length, how, lora):
    run = Request(values, cls, lora, length=length, batch=2, **{"images": 1, **how})
    assert ratio(run) == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("how", [{}, GC])
@pytest.mark.parametrize(
    ("family", "cls"),
    [
        ("gemma3", GEMMA_CLASS),
        ("idefics3", "Idefics3ForConditionalGeneration"),
        ("internvl", "InternVLForConditionalGeneration"),
        ("mistral3", "Mistral3ForConditionalGeneration"),
        ("qwen3_vl", "Qwen3VLForConditionalGeneration"),
    ],
)
def test_text_alone_on_image_text_models(family, cls, how):
    """Of the classes' default configs, with two layers."""
    text = {"num_hidden_layers": 2}
    if family == "mistral3":
        text |= {"model_type": "mistral", "sliding_window": None}
    if family == "internvl":
        text |= {"model_type": "qwen2"}
    config = {"model_type": family, "text_config": text}
    lora = {**TASK, "target_modules": r".*(language|text)_model.*\.(q_proj|v_proj)"}
    assert ratio(Request(config, cls, lora, length=512, **how)) == pytest.approx(1, abs=0.01)


def test_with_checkpointing_a_frozen_tower_keeps_its_layers_inputs():
    """transformers' hook on the embeddings is on the tower's as well."""
    peaks = [trace(Request(GEMMA, GEMMA_CLASS, LANGUAGE, images=n, **GC)).peak for n in (0, 1)]
    inputs = 3 * 4096 * 1152 * 2  # layers, patches, width, bytes
    assert peaks[1] - peaks[0] > inputs


def test_one_image_a_sequence_is_assumed_and_said():
    estimated = estimate(tree_of(GEMMA, GEMMA_CLASS), LANGUAGE)
    assert estimated.assumed["images_per_sequence"] == 1
    assert estimated.assumed["image_tokens"] == "within max_length"


def test_text_alone_is_in_the_band():
    """An adapted tower needs gigabytes for an image, and nothing for text."""
    tree = tree_of(GEMMA, GEMMA_CLASS)
    language, everything = estimate(tree, LANGUAGE), estimate(tree, ALL)
    assert everything.peak > language.peak
    text = trace(Request(GEMMA, GEMMA_CLASS, ALL, length=1024, autocast=True)).peak
    assert everything.low < text < everything.tensors


def test_a_sequence_shorter_than_an_image_has_none():
    estimated = estimate(tree_of(GEMMA, GEMMA_CLASS), ALL, max_length=255)
    assert "images_per_sequence" not in estimated.assumed


@pytest.mark.parametrize("line", ["4.50.3", "4.57.1", None])
@pytest.mark.parametrize(
    ("name", "layers", "patches"),
    [("google/gemma-3-27b-it", 27, 64 * 64), ("llava-hf/llava-1.5-7b-hf", 24, 24 * 24 + 1)],
)
def test_towers_of_published_models(name, layers, patches, line):
    tower = read_shape(resolve_model(name, transformers=line)).tower
    assert (len(tower.stack.layers), tower.stack.length) == (layers, patches)


def test_what_an_adapted_tower_of_images_of_any_size_keeps_is_not_guessed():
    tree = tree_of(QWEN, QWEN_CLASS)
    lora = {**TASK, "target_modules": ["q_proj", "v_proj", "qkv"]}
    estimated, language = estimate(tree, lora), estimate(tree, LANGUAGE)
    assert estimated.peak is estimated.high is None
    assert "model.visual" in estimated.reason
    assert "images" in estimated.reason
    assert estimated.low == pytest.approx(language.low, rel=0.001)  # images only add to it


def axolotl(*lines):
    text = """\
base_model: Qwen/Qwen3-VL-8B-Instruct
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
sequence_len: 2048
micro_batch_size: 1
bf16: true
gradient_checkpointing: true
"""
    options = Options(isolated=True)
    (recipe,) = lint_text("\n".join([text, *lines]), "train.yaml", options).recipes
    return recipe.memory


def test_axolotl_puts_images_into_a_batch_only_with_a_processor():
    """Without one the adapted tower does not run: axolotl 0.19.0 core/builders/causal.py."""
    text, images = axolotl(), axolotl("processor_type: AutoProcessor")
    assert text.peak is not None
    assert images.peak is None
    assert "image_tokens" not in text.assumed
    assert "image_tokens" in images.assumed


def test_a_towers_checkpoints_are_in_the_high_end():
    """Traced with 52 x 52 patches, 676 tokens of 676, batch 1, the tower's 8 layers not adapted:
    96,043,008 bytes more than of text alone. (The grid of patches is a question about values: it
    was computed on the CPU, with the functions of transformers 5.23.0 vision_utils.py.)
    """
    tree = tree_of(QWEN, QWEN_CLASS)
    estimated = estimate(tree, LANGUAGE, max_length=676, gradient_checkpointing=True)
    text = estimated.tensors * (1 + TRACED_ERROR) + CONTEXT_HIGH
    assert 96_043_008 <= estimated.high - text <= 1.15 * 96_043_008
    assert "images_per_sequence" not in estimated.assumed
