"""Where a base model's tree comes from: the order of places, the class, the honest refusals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lint.models import ModuleTree, hint, resolve
from lora_lint.models.resolve import Resolution, Unresolved, renamed_since_4

SHA = "0123456789abcdef0123456789abcdef01234567"
# The dimensions of Llama 3.1 8B.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("LORA_LINT_CACHE", str(tmp_path / "own cache"))
    return folder


def put(folder: Path, config: object = LLAMA, name: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config))
    return folder


def cache(hub: Path, name: str, config: object = LLAMA, file: str = "config.json") -> None:
    folder = hub / f"models--{name.replace('/', '--')}"
    put(folder / "snapshots" / SHA, config, file)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(SHA)


def found(*args: object, **kwargs: object) -> Resolution:
    result = resolve(*args, **kwargs)
    assert isinstance(result, Resolution), result
    return result


def refused(*args: object, **kwargs: object) -> str:
    result = resolve(*args, **kwargs)
    assert isinstance(result, Unresolved), result
    return result.reason


# The order of places


def test_a_known_id_comes_from_the_catalogue():
    result = found("meta-llama/Llama-2-7b-hf")
    assert result.source == "catalogue"
    assert result.id == "meta-llama/Llama-2-7b-hf"
    assert result.known_as is None
    assert result.tree.grade == "exact"
    assert result.tree.parameter_count() == 6_738_415_616


def test_another_name_says_what_it_stands_for():
    result = found("unsloth/mistral-7b-bnb-4bit")
    assert result.source == "catalogue, as mistralai/Mistral-7B-v0.1"
    assert result.known_as == "mistralai/Mistral-7B-v0.1"
    assert result.id == "unsloth/mistral-7b-bnb-4bit"


def test_the_cache_on_disk_comes_before_the_catalogue(hub):
    cache(hub, "meta-llama/Llama-2-7b-hf", {**LLAMA, "num_hidden_layers": 30})
    result = found("meta-llama/Llama-2-7b-hf")
    assert "Hugging Face cache" in result.source
    assert result.tree.grade == "given"
    assert result.tree.get("model.layers.29") is not None
    assert result.tree.get("model.layers.30") is None


def test_a_local_path_comes_before_the_cache(hub, tmp_path):
    cache(hub, "org/name", {**LLAMA, "num_hidden_layers": 30})
    put(tmp_path / "org" / "name")
    result = found("org/name", folder=tmp_path)
    assert result.source == "config.json in org/name"
    assert result.tree.parameter_count() == 8_030_261_248
    assert "Hugging Face cache" in found("org/name", folder=tmp_path / "elsewhere").source


def test_what_is_given_comes_before_all(tmp_path):
    put(tmp_path / "org" / "name", {**LLAMA, "num_hidden_layers": 30})
    result = found("org/name", folder=tmp_path, given="openai-community/gpt2")
    assert result.tree.cls == "GPT2LMHeadModel"
    assert result.id == "org/name"
    assert result.source == "catalogue, given with --model"


def test_a_folder_of_the_same_name_without_a_model_is_passed_by(tmp_path):
    (tmp_path / "gpt2").mkdir()
    assert found("gpt2", folder=tmp_path).tree.parameter_count() == 124_439_808
    assert "no config.json" in refused("./gpt2", folder=tmp_path)


def test_settings_map_private_names():
    aliases = {"acme/*": "meta-llama/Llama-2-7b-hf"}
    result = found("acme/support-bot", aliases=aliases)
    assert result.id == "acme/support-bot"
    assert "as the settings say" in result.source
    assert result.tree.parameter_count() == 6_738_415_616
    assert found("./models/acme", aliases={"./models/*": "gpt2"}).tree.cls == "GPT2LMHeadModel"
    assert "not in the catalogue" in refused("other/bot", aliases=aliases)
    assert "not in the catalogue" in refused("acme/bot", aliases={"acme/*": "acme/other"})


def test_what_is_nowhere_is_said_plainly(tmp_path):
    reason = "acme/x is not in the catalogue and not on this disk; pass --model"
    assert refused("acme/x") == f"{reason} (--online asks the hub)"
    assert "not on this disk" in refused("./missing", folder=tmp_path)
    assert "not on this disk" in refused("/no/such/folder")
    assert "template" in refused("${MODEL_PATH}")
    assert "template" in refused("<path-to-model>")
    assert refused("")
    assert refused("x" * 10_000)
    assert refused("a\x00b")


def test_remote_code_is_not_guessed():
    result = resolve("THUDM/glm-4-9b-chat")
    assert isinstance(result, Unresolved)
    assert result.remote_code is True
    assert "its own code" in result.reason


# --model


def test_a_directory_a_config_and_a_saved_tree_can_be_given(tmp_path):
    put(tmp_path / "base")
    for given_path in (tmp_path / "base", tmp_path / "base" / "config.json"):
        result = found("acme/x", given=str(given_path))
        assert result.tree.parameter_count() == 8_030_261_248
        assert "given with --model" in result.source
    saved = tmp_path / "tree.json"
    saved.write_text(found("gpt2").tree.to_json())
    result = found("acme/x", given=str(saved))
    assert result.tree.grade == "given"
    assert result.tree.parameter_count() == 124_439_808
    assert "module tree file" in result.source


def test_a_saved_template_stays_without_sizes(tmp_path):
    saved = tmp_path / "tree.json"
    template = hint("LlamaForCausalLM")
    assert template is not None
    saved.write_text(template.to_json())
    assert not found("acme/x", given=str(saved)).tree.sized


def test_a_wrong_model_option_is_reported_as_such(tmp_path):
    assert refused("gpt2", given="acme/x").startswith("--model: acme/x")
    (tmp_path / "tree.json").write_text('{"lora_lint_module_tree": 1}')
    assert refused("gpt2", given=str(tmp_path / "tree.json")).startswith("--model: ")


# A config.json


def test_a_config_with_known_dimensions_has_sizes(tmp_path):
    put(tmp_path / "base", {**LLAMA, "head_dim": 128, "rope_theta": 1.0, "custom": [1]})
    result = found("./base", folder=tmp_path)
    assert result.tree.grade == "exact"
    assert result.tree.dtype == "bfloat16"
    assert result.tree.facts["config"]["max_position_embeddings"] == 131072


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        ({"num_hidden_layers": 31}, 8_030_261_248 - 218_112_000),
        ({"num_key_value_heads": 32}, 8_030_261_248 + 32 * 2 * 4096 * (4096 - 1024)),
        ({"num_key_value_heads": None}, 8_030_261_248 + 32 * 2 * 4096 * (4096 - 1024)),
        ({"tie_word_embeddings": True}, 8_030_261_248 - 128256 * 4096),
        ({"vocab_size": 128257}, 8_030_261_248 + 2 * 4096),
    ],
)
def test_a_config_with_other_dimensions_has_its_own_sizes(tmp_path, change, parameters):
    put(tmp_path / "base", {**LLAMA, **change})
    result = found("./base", folder=tmp_path)
    assert result.tree.grade == "given"
    assert result.source == "config.json in ./base"
    assert result.tree.parameter_count() == parameters


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": "31"}, {"num_attention_heads": 33}, {"mlp_bias": "yes"}]
)
def test_a_config_that_nobody_has_built_has_names_only(tmp_path, change):
    put(tmp_path / "base", {**LLAMA, **change})
    result = found("./base", folder=tmp_path)
    assert result.tree.grade == "named"
    assert result.source.startswith("architecture of config.json in ./base, sizes unknown: ")
    assert not result.tree.may_have("query")


def test_a_switch_in_the_config_makes_names_uncertain(tmp_path):
    config = {"model_type": "deepseek_v2", "architectures": ["DeepseekV2ForCausalLM"]}
    put(tmp_path / "base", {**config, "q_lora_rank": 1536})
    assert not found("./base", folder=tmp_path).tree.may_have("q_proj")
    put(tmp_path / "base", {**config, "q_lora_rank": None})
    assert found("./base", folder=tmp_path).tree.may_have("q_proj")
    by_class = hint("DeepseekV2ForCausalLM")
    assert by_class is not None
    assert by_class.may_have("q_proj")


def test_a_part_of_another_architecture_is_not_guessed(tmp_path):
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}
    put(
        tmp_path / "base",
        {**config, "text_config": {"model_type": "llama", "num_hidden_layers": 3}},
    )
    assert not found("./base", folder=tmp_path).tree.may_have("c_attn")
    put(tmp_path / "base", {**config, "text_config": {"model_type": "qwen2"}})
    assert "text_config" in refused("./base", folder=tmp_path)


def test_adapters_of_adapters_in_the_cache(hub):
    """As trainers leave them: an adapter on an adapter on a quantized copy."""
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "acme/first"}
    cache(hub, "acme/second", adapter, "adapter_config.json")
    base = {**adapter, "base_model_name_or_path": "unsloth/mistral-7b-bnb-4bit"}
    cache(hub, "acme/first", base, "adapter_config.json")
    result = found("acme/second")
    assert result.id == "acme/second"
    assert result.tree.parameter_count() == 7_241_732_096
    assert result.source.endswith(
        "base of the adapter in acme/first, base of the adapter in acme/second"
    )


def test_an_adapter_says_which_revision_its_base_has(tmp_path, hub):
    cache(hub, "acme/base", {"model_type": "nonsense"})
    put(hub / "models--acme--base" / "snapshots" / ("f" * 40))
    (hub / "models--acme--base" / "refs" / "v2").write_text("f" * 40)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "acme/base", "revision": "v2"}
    put(tmp_path / "adapter", adapter, "adapter_config.json")
    assert found("./adapter", folder=tmp_path).tree.sized


def test_an_adapters_base_is_where_the_run_was(tmp_path):
    put(tmp_path / "base")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "./base"}
    put(tmp_path / "outputs" / "adapter", adapter, "adapter_config.json")
    assert found("outputs/adapter", folder=tmp_path).tree.sized


def test_a_cache_with_the_tokenizer_alone_is_passed_over(hub):
    cache(hub, "openai-community/gpt2", {}, "tokenizer_config.json")
    assert found("openai-community/gpt2").source == "catalogue"


def test_a_quantized_copy_on_this_disk_has_the_modules_of_its_original(tmp_path):
    quantized = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    put(tmp_path / "copy", {**LLAMA, "quantization_config": quantized})
    assert found("./copy", folder=tmp_path).tree.parameter_count() == 8_030_261_248


def test_an_adapter_leads_to_its_base(tmp_path):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "gpt2"}
    put(tmp_path / "one", adapter, "adapter_config.json")
    put(tmp_path / "two", {**adapter, "base_model_name_or_path": "../one"}, "adapter_config.json")
    for name in ("one", "two"):
        result = found(f"./{name}", folder=tmp_path)
        assert result.tree.cls == "GPT2LMHeadModel"
        assert "base of the adapter" in result.source
    put(tmp_path / "loop", {**adapter, "base_model_name_or_path": "."}, "adapter_config.json")
    assert "adapter of an adapter" in refused("./loop", folder=tmp_path)
    put(tmp_path / "none", {"peft_type": "LORA"}, "adapter_config.json")
    assert "does not name its base" in refused("./none", folder=tmp_path)


def test_an_unknown_model_type_is_refused_and_its_code_noted(tmp_path):
    put(tmp_path / "base", {"model_type": "acme", "auto_map": {"AutoModel": "acme.Model"}})
    result = resolve("./base", folder=tmp_path)
    assert isinstance(result, Unresolved)
    assert result.remote_code is True
    put(tmp_path / "base", {"model_type": "../../index"})
    assert "no model type" in refused("./base", folder=tmp_path)
    put(tmp_path / "pipe", {"_class_name": "FluxPipeline"}, "model_index.json")
    assert "diffusion model" in refused("./pipe", folder=tmp_path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
KEYS = [*LLAMA, "text_config", "auto_map", "peft_type", "lora_lint_module_tree", "head_dim"]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS), anything), st.sampled_from(["llama", "llava", None]))
def test_a_hostile_config_is_an_answer(tmp_path, values, model_type):
    values = {**LLAMA, **values, **({"model_type": model_type} if model_type else {})}
    put(tmp_path / "base", values)
    assert isinstance(resolve("./base", folder=tmp_path), Resolution | Unresolved)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff", b'{"model_type": 3}'])
def test_a_damaged_config_is_refused(tmp_path, content):
    put(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_bytes(content)
    assert refused("./base", folder=tmp_path)


# The class


@pytest.mark.parametrize(
    ("name", "task", "cls"),
    [
        ("meta-llama/Llama-2-7b-hf", None, "LlamaForCausalLM"),
        ("meta-llama/Llama-2-7b-hf", "CAUSAL_LM", "LlamaForCausalLM"),
        ("meta-llama/Llama-2-7b-hf", "SEQ_CLS", "LlamaForSequenceClassification"),
        ("meta-llama/Llama-2-7b-hf", "TOKEN_CLS", "LlamaForTokenClassification"),
        ("meta-llama/Llama-2-7b-hf", "FEATURE_EXTRACTION", "LlamaModel"),
        ("google-bert/bert-base-uncased", None, "BertForMaskedLM"),
        ("google-bert/bert-base-uncased", "QUESTION_ANS", "BertForQuestionAnswering"),
        ("google-t5/t5-base", "SEQ_2_SEQ_LM", "T5ForConditionalGeneration"),
        ("openai/whisper-large-v2", "SEQ_2_SEQ_LM", "WhisperForConditionalGeneration"),
        ("google/gemma-3-27b-it", "CAUSAL_LM", "Gemma3ForConditionalGeneration"),
        ("facebook/opt-350m", "CAUSAL_LM", "OPTForCausalLM"),
    ],
)
def test_the_class_follows_the_task(name, task, cls):
    assert found(name, task=task).tree.cls == cls


@pytest.mark.parametrize(
    ("name", "asked", "cls"),
    [
        ("gpt2", "AutoModelForCausalLM", "GPT2LMHeadModel"),
        ("gpt2", "AutoModel", "GPT2Model"),
        ("gpt2", "GPT2ForSequenceClassification", "GPT2ForSequenceClassification"),
        ("gpt2", "FastLanguageModel", "GPT2LMHeadModel"),
        ("google/gemma-3-27b-it", "AutoModelForCausalLM", "Gemma3ForConditionalGeneration"),
        ("meta-llama/Llama-4-Scout-17B-16E", "AutoModelForCausalLM", "Llama4ForCausalLM"),
        ("meta-llama/Llama-4-Scout-17B-16E", None, "Llama4ForConditionalGeneration"),
    ],
)
def test_the_class_that_is_asked_for_wins(name, asked, cls):
    assert found(name, cls=asked).tree.cls == cls


def test_a_class_of_another_model_is_refused():
    assert "LlamaForCausalLM" in refused("gpt2", cls="LlamaForCausalLM")
    assert "AutoModelForImageClassification" in refused(
        "gpt2", cls="AutoModelForImageClassification"
    )
    assert "MyModel" in refused("gpt2", cls="MyModel")


def test_another_class_has_names_and_no_sizes():
    tree = found("meta-llama/Llama-2-7b-hf", task="SEQ_CLS").tree
    assert tree.grade == "named"
    assert tree.get("score") is not None
    assert tree.get("lm_head") is None
    assert not tree.may_have("lm_head")


def test_the_text_part_of_a_multimodal_model_has_sizes():
    tree = found("meta-llama/Llama-4-Scout-17B-16E", cls="AutoModelForCausalLM").tree
    assert tree.grade == "dims"
    whole = found("meta-llama/Llama-4-Scout-17B-16E").tree.parameter_count()
    assert tree.parameter_count() is not None
    assert tree.parameter_count() < whole


def test_hint_knows_every_class_of_transformers_and_no_other():
    tree = hint("LlamaForCausalLM")
    assert tree is not None
    assert tree.cls == "LlamaForCausalLM"
    assert not tree.sized
    assert tree.get("model.layers.0.self_attn.q_proj") is not None
    assert hint("AutoModelForCausalLM") is None
    assert hint("../index") is None


# The release of transformers


def test_names_are_those_of_the_release():
    name = "mistralai/Mixtral-8x7B-v0.1"
    assert renamed_since_4("mixtral")
    expert = "model.layers.0.block_sparse_moe.experts.0.w1"
    assert found(name).tree.get(expert) is None
    assert found(name, transformers="5.4.0").tree.get(expert) is None
    assert found(name, transformers="4.57.6").tree.get(expert) is not None
    assert found("gpt2", transformers="4.57.6").tree.cls == "GPT2LMHeadModel"


def test_neither_torch_nor_transformers_is_imported():
    code = (
        "import sys; from lora_lint.models import resolve;"
        "r = resolve('meta-llama/Llama-3.1-8B', task='CAUSAL_LM');"
        "assert r.tree.sized; resolve('acme/x'); resolve('facebook/opt-350m', task='SEQ_CLS');"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_a_resolved_tree_can_be_stored():
    tree = found("gpt2").tree
    assert ModuleTree.from_json(tree.to_json()).facts == tree.facts
