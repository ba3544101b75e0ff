"""What changed its names between transformers 4 and 5."""

import pytest

from lora_lint.models.renamed import not_the_same, renamed_since_4, renames


def test_vision_encoders_were_renamed():
    change = renames("vit")
    assert change is not None
    assert {"query", "key", "value"} <= set(change.gone)
    assert {"q_proj", "k_proj", "v_proj"} <= set(change.new)


def test_experts_became_parameters():
    change = renames("mixtral")
    assert change is not None
    assert change.fused_experts
    assert {"w1", "w2", "w3"} <= set(change.gone)


@pytest.mark.parametrize(
    "model_type", ["llama", "qwen2", "gpt2", "bert", "mistral", "gemma2", None]
)
def test_most_language_models_were_not(model_type):
    assert not renamed_since_4(model_type)


def test_only_some_classes_of_a_model_type_may_have_changed():
    assert renamed_since_4("gpt_neox", "GPTNeoXForCausalLM")
    assert not renamed_since_4("gpt_neox", "GPTNeoXForSequenceClassification")


def test_a_tree_of_transformers_5_is_not_given_for_4():
    assert not_the_same("mixtral", "MixtralForCausalLM", "4.57.6")
    assert not_the_same("llama", "LlamaForCausalLM", "4.57.6") is None
    assert not_the_same("mixtral", "MixtralForCausalLM", "5.0.0") is None
    assert not_the_same("mixtral", "MixtralForCausalLM", None) is None


def test_older_releases_have_further_changes_and_fewer_models():
    assert not_the_same("phi3", "Phi3ForTokenClassification", "4.46.3")
    assert not_the_same("phi3", "Phi3ForTokenClassification", "4.57.1") is None
    assert not_the_same("phi3", "Phi3ForCausalLM", "4.46.3") is None
    assert not_the_same("qwen3", "Qwen3ForCausalLM", "4.40.0")
    assert "no" in (not_the_same("qwen3_5", "Qwen3_5ForCausalLM", "4.57.6") or "")
