"""Classifiers of which only the number of labels is not known."""

from __future__ import annotations

import json

import pytest

from lora_lint.models.labels import with_labels
from lora_lint.models.resolve import Resolution, resolve


def sized(name, cls="AutoModelForSequenceClassification", transformers="5.23.0", **how):
    found = resolve(name, cls=cls, transformers=transformers, **how)
    assert isinstance(found, Resolution)
    assert not found.tree.sized
    return with_labels(found, transformers)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # BertForSequenceClassification and RobertaForSequenceClassification as model cards and
        # PEFT's print_trainable_parameters() count them with two labels.
        ("google-bert/bert-base-uncased", 109_483_778),
        ("FacebookAI/roberta-base", 124_647_170),
        # The whole model without its head, and two rows in its place.
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616 - 32_000 * 4096 + 2 * 4096),
    ],
)
def test_the_head_has_two_labels(name, count):
    tree = sized(name)
    assert tree is not None
    assert tree.parameter_count() == count


def test_a_config_without_labels_is_enough(tmp_path):
    values = {
        "model_type": "bert",
        "vocab_size": 1000,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "architectures": ["BertForMaskedLM"],
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    tree = sized(str(tmp_path))
    transformers = pytest.importorskip("transformers")
    import torch

    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**values))
    assert tree.parameter_count() == sum(p.numel() for p in model.parameters())
    assert {name for name, _ in model.named_modules()} == {n for n, _ in tree.named_modules()}


def test_other_gaps_stay():
    found = resolve("microsoft/deberta-v3-base", cls="AutoModelForSequenceClassification")
    assert isinstance(found, Resolution)
    assert found.tree.sized or with_labels(found, "5.23.0") is None
