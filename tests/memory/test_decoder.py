from __future__ import annotations

import pytest
import torch
import transformers

from lora_lint.memory.decoder import Decoder, read_decoder
from lora_lint.models import ModuleTree
from tests.memory.models import CONFIGS, tree


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
    decoder = read_decoder(tree(name))
    assert isinstance(decoder, Decoder)
    layer = decoder.layers[0]
    assert decoder.traced
    assert (
        decoder.hidden,
        layer.q,
        layer.kv,
        layer.inner,
        decoder.vocabulary,
        len(decoder.layers),
    ) == widths


def test_a_familys_name_is_not_needed():
    """A custom model that has Llama's parts is described, but counts as unchecked."""
    shape = tree("llama-2-7b", 2)
    data = shape.to_json().replace('"model_type":"llama"', '"model_type":"my-own"')
    decoder = read_decoder(ModuleTree.from_json(data))
    assert isinstance(decoder, Decoder)
    assert not decoder.traced


def test_norms_on_heads_are_seen():
    decoder = read_decoder(tree("qwen3-8b"))
    assert [norm.size for norm in decoder.layers[0].head_norms] == [4096, 1024]
    assert [norm.vectors for norm in decoder.layers[0].head_norms] == [32, 8]


@pytest.mark.parametrize("name", ["mixtral", "opt-125m", "gemma-2-2b"])
def test_what_the_closed_form_does_not_cover_is_refused_with_a_reason(name):
    reason = read_decoder(tree(name, 2))
    assert isinstance(reason, str)
    assert "not modelled" in reason


@pytest.mark.parametrize(
    ("auto", "config"),
    [
        (transformers.AutoModelForSeq2SeqLM, transformers.T5Config()),
        (transformers.AutoModelForMaskedLM, transformers.BertConfig()),
        (transformers.AutoModelForSequenceClassification, transformers.BertConfig()),
        (transformers.AutoModelForCausalLM, transformers.FalconConfig(num_hidden_layers=1)),
        (transformers.AutoModelForCausalLM, transformers.MambaConfig(num_hidden_layers=1)),
        (transformers.AutoModelForCausalLM, transformers.Qwen3MoeConfig(num_hidden_layers=1)),
        (transformers.AutoModelForImageTextToText, transformers.LlavaConfig()),
    ],
)
def test_other_architectures_are_refused(auto, config):
    with torch.device("meta"):
        model = auto.from_config(config)
    assert isinstance(read_decoder(ModuleTree.from_model(model)), str)


def test_every_covered_model_of_the_tests_is_read():
    refused = {name for name in CONFIGS if isinstance(read_decoder(tree(name, 2)), str)}
    assert refused == {"mixtral", "opt-125m", "gemma-2-2b"}
