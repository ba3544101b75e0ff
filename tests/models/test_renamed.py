"""What changed its names between transformers 4 and 5."""

import pytest

from lora_lint.models.renamed import always_built_in, renamed_since_4, renames


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


def test_what_a_name_became_is_all_that_its_weights_are_called_now():
    change = renames("vit", "ViTForImageClassification")
    assert change is not None
    # transformers 4.57 modeling_vit.py: attention.output.dense, intermediate.dense, output.dense
    assert change.became["dense"] == ("fc1", "fc2", "o_proj")
    assert change.became["query"] == ("q_proj",)
    heads = renames("gpt_neox")
    assert heads is not None
    assert heads.became == {"embed_out": ("lm_head",)}


def test_an_experts_matrix_is_a_slice_of_a_parameter():
    change = renames("mixtral", "MixtralForCausalLM")
    assert change is not None
    assert change.fused["w1"] == change.fused["w3"] == "experts.gate_up_proj"
    assert change.fused["w2"] == "experts.down_proj"


def test_a_name_may_be_fused_in_the_experts_and_still_stand_elsewhere():
    change = renames("deepseek_v3", "DeepseekV3ForCausalLM")
    assert change is not None
    assert "gate_proj" not in change.became  # the dense layers and the shared experts keep it
    assert change.fused["gate_proj"] == "experts.gate_up_proj"


def test_releases_of_one_line_are_compared_too():
    change = renames("vit", "ViTForImageClassification", "5.0.0")
    assert change is not None
    assert change.became["query"] == ("q_proj",)
    assert renames("vit", "ViTForImageClassification", "4.57.6", "5.0.0") is None
    assert renames("phi3", "Phi3ForTokenClassification", "4.46.3", "4.57.6") is not None
    assert renames("phi3", "Phi3ForTokenClassification", "4.57.6") is None


def test_a_model_type_is_always_there_or_came_later():
    assert always_built_in("llama")
    assert not always_built_in("qwen3")


def test_the_page_of_changed_names_is_up_to_date():
    from tools import renamed_page

    assert renamed_page.PAGE.read_text(encoding="utf-8") == renamed_page.page()
