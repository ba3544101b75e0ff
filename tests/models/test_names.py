"""Which names mean the same modules, and which only seem to."""

import pytest

from lora_lint import resolve_model
from lora_lint.models.names import find, quantization


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt2", "openai-community/gpt2"),
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        ("META-LLAMA/llama-2-7B-hf", "meta-llama/Llama-2-7b-hf"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct"),
        ("unsloth/mistral-7b-bnb-4bit", "mistralai/Mistral-7B-v0.1"),
        ("unsloth/llama-3-8b-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("unsloth/Qwen2.5-7B-Instruct-unsloth-bnb-4bit", "Qwen/Qwen2.5-7B-Instruct"),
        ("NousResearch/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B"),
        ("TheBloke/Llama-2-7B-GPTQ", "meta-llama/Llama-2-7b-hf"),
        ("LLM-Research/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        (
            "hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
        ),
        ("huggyllama/llama-7b", "decapoda-research/llama-7b-hf"),
    ],
)
def test_names_of_one_model(name, model):
    known = find(name)
    assert known is not None
    assert known.id == model
    assert known.entry is not None
    assert known.entry.grade in ("exact", "dims")


@pytest.mark.parametrize(
    "name",
    [
        "unsloth/Phi-3-mini-4k-instruct",  # converted to Mistral
        "unsloth/phi-4-bnb-4bit",  # converted to Llama
        "unsloth/gpt-oss-20b-unsloth-bnb-4bit",  # experts are Linear modules
        "axolotl-quants/Llama-4-Scout-17B-16E-Linearized-bnb-nf4-bf16",
        "acme/Llama-2-7b-hf",  # not an organisation that copies under the same name
        "acme/private",
        "llama",
    ],
)
def test_what_only_looks_like_a_known_model(name):
    known = find(name)
    assert known is None or known.entry is None


def test_remote_code_is_known_as_such():
    for name in ("THUDM/glm-4-9b-chat", "internlm/internlm2-7b", "Qwen/Qwen-7B-Chat"):
        known = find(name)
        assert known is not None
        assert known.remote_code


def test_a_tuned_release_is_marked():
    known = find("Qwen/Qwen3-30B-A3B-Instruct-2507")
    assert known is not None
    assert known.id == "Qwen/Qwen3-30B-A3B"
    assert known.tuned


@pytest.mark.parametrize(
    ("name", "model_type"),
    [("facebook/opt-350m", "opt"), ("google/flan-t5-large", "t5"), ("nvidia/mit-b0", "segformer")],
)
def test_a_series_gives_the_model_type(name, model_type):
    known = find(name)
    assert known is not None
    assert known.entry is None
    assert known.model_type == model_type


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "nf4"),
        ("unsloth/Qwen2.5-7B-Instruct-unsloth-bnb-4bit", "nf4"),
        ("TheBloke/Llama-2-7B-GPTQ", "gptq"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", "gptq"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "awq"),
        ("nvidia/Qwen3-235B-A22B-NVFP4", "nvfp4"),
        ("Qwen/Qwen3-32B-FP8", "fp8"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w4a16", "quantized.w4a16"),
        ("mlx-community/Meta-Llama-3.1-70B-4bit", "4bit"),
        ("unsloth/gpt-oss-20b-BF16", ""),
        ("meta-llama/Llama-2-7b-hf", None),
        ("Qwen/Qwen2.5-0.5B-Instruct", None),
        ("FP8/whatever", None),
    ],
)
def test_the_name_says_how_weights_are_held(name, held):
    assert quantization(name) == held


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("openai/gpt-oss-20b", "mxfp4"),  # its config.json
        ("unsloth/gpt-oss-20b", "mxfp4"),
        ("unsloth/gpt-oss-20b-BF16", None),
        ("deepseek-ai/DeepSeek-V3", "fp8"),
        ("TheBloke/Llama-2-13B-GPTQ", "gptq"),
        ("meta-llama/Llama-2-13b-hf", None),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", None),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", "fp8"),
    ],
)
def test_a_tree_knows_how_the_weights_are_published(name, held):
    tree = resolve_model(name)
    assert tree.facts.get("checkpoint_quantization") == held
