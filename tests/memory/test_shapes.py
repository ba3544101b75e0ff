from __future__ import annotations

import pytest
import torch
import transformers

from lora_lint.memory.shape import Attention, Experts, Mlp, Shape
from lora_lint.memory.shapes import read_shape
from lora_lint.models import ModuleTree
from tests.memory.models import CONFIGS, tree


def parts(shape, stack=0, layer=0):
    assert isinstance(shape, Shape), shape
    return [block.body for block in shape.stacks[stack].layers[layer].blocks]


def of(auto, config):
    with torch.device("meta"):
        return read_shape(ModuleTree.from_model(auto.from_config(config)))


@pytest.mark.parametrize(
    ("name", "widths"),
    [  # hidden, q, kv, inner, vocabulary, layers, of the models' config.json
        ("llama-2-7b", (4096, 4096, 4096, 11008, 32000, 32)),
        ("llama-3.1-8b", (4096, 4096, 1024, 14336, 128256, 32)),
        ("qwen3-8b", (4096, 4096, 1024, 12288, 151936, 36)),
        ("gemma-2b", (2048, 2048, 256, 16384, 256000, 18)),
        ("phi-3-mini", (3072, 3072, 3072, 8192, 32064, 32)),
        ("gpt2", (768, 768, 768, 3072, 50257, 12)),
    ],
)
def test_dimensions_are_read_from_the_tree(name, widths):
    shape = read_shape(tree(name))
    attention, mlp = parts(shape)
    assert shape.traced
    assert (
        shape.stacks[0].hidden,
        attention.q_width,
        attention.k_width,
        mlp.down.d_in,
        shape.head.size,
        len(shape.stacks[0].layers),
    ) == widths


def test_a_familys_name_is_not_needed():
    """A custom model that has Llama's parts is described, but counts as unchecked."""
    data = tree("llama-2-7b", 2).to_json().replace('"model_type":"llama"', '"model_type":"my-own"')
    shape = read_shape(ModuleTree.from_json(data))
    assert isinstance(shape, Shape)
    assert not shape.traced


def test_norms_on_heads_are_seen():
    attention, _ = parts(read_shape(tree("qwen3-8b")))
    assert (attention.q_norm.size, attention.q_norm.vectors) == (4096, 32)
    assert (attention.k_norm.size, attention.k_norm.vectors) == (1024, 8)


def test_a_mixtures_experts_are_read():
    config = transformers.Qwen3MoeConfig(num_hidden_layers=1)
    _, experts = parts(of(transformers.AutoModelForCausalLM, config))
    assert isinstance(experts, Experts)
    assert (experts.number, experts.top, experts.inner) == (128, 8, 768)  # the class's defaults


def test_shared_experts_and_latent_attention():
    config = transformers.DeepseekV3Config(num_hidden_layers=4)
    shape = of(transformers.AutoModelForCausalLM, config)
    attention, first = parts(shape)
    assert attention.latent.rank == 512
    assert isinstance(first, Mlp)
    assert parts(shape, layer=3)[1].shared.down.d_in == 2048


def test_an_encoder_decoder_has_two_stacks():
    shape = of(transformers.AutoModelForSeq2SeqLM, transformers.T5Config())
    assert [len(stack.layers) for stack in shape.stacks] == [6, 6]
    kinds = [type(body) for body in parts(shape, stack=1)]
    assert kinds == [Attention, Attention, Mlp]
    assert parts(shape, stack=1)[1].cross


def test_a_speech_encoders_length_is_its_own():
    config = transformers.WhisperConfig(decoder_start_token_id=1)
    shape = of(transformers.AutoModelForSpeechSeq2Seq, config)
    assert [stack.length for stack in shape.stacks] == [1500, None]


def test_an_image_classifiers_length_is_its_patches():
    shape = of(transformers.AutoModelForImageClassification, transformers.ViTConfig())
    assert shape.stacks[0].length == 197


def test_of_an_image_text_model_the_language_part_is_described():
    shape = of(transformers.AutoModelForImageTextToText, transformers.LlavaConfig())
    assert "language_model" in shape.stacks[0].prefix


@pytest.mark.parametrize(
    ("auto", "config"),
    [
        (transformers.AutoModelForMaskedLM, transformers.BertConfig()),
        (transformers.AutoModelForCausalLM, transformers.MambaConfig(num_hidden_layers=1)),
        (transformers.AutoModelForSequenceClassification, transformers.DebertaV2Config()),
        (transformers.AutoModelForImageTextToText, transformers.MllamaConfig()),
        (transformers.AutoModelForImageTextToText, transformers.Llama4Config()),
    ],
)
def test_other_architectures_are_refused_with_a_reason(auto, config):
    reason = of(auto, config)
    assert isinstance(reason, str)
    assert "not modelled" in reason or "has not one stack" in reason


def test_every_model_of_the_tests_is_read():
    refused = {name for name in CONFIGS if isinstance(read_shape(tree(name, 2)), str)}
    assert refused == {"mamba-2.8b"}
