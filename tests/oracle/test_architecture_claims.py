"""What the rules about experts, routers, encoders and tied weights say, run with real PEFT."""

from __future__ import annotations

import copy
import re
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("MixtralConfig", {**SMALL, "num_local_experts": 4}),
    "phimoe": ("PhimoeConfig", {**SMALL, "num_local_experts": 4}),
    "gpt_oss": ("GptOssConfig", {**SMALL, "num_local_experts": 4}),
    "qwen2_moe": ("Qwen2MoeConfig", {**SMALL, **EXPERTS}),
    "qwen3_moe": ("Qwen3MoeConfig", {**SMALL, **EXPERTS, "head_dim": 8}),
    "qwen3_next": ("Qwen3NextConfig", {**SMALL, **EXPERTS, **LINEAR}),
    "deepseek_v3": (
        "DeepseekV3Config",
        {**SMALL, **LATENT, "num_key_value_heads": 4, "first_k_dense_replace": 1},
    ),
    "glm_moe_dsa": ("GlmMoeDsaConfig", {**SMALL, **LATENT, "num_key_value_heads": 4}),
}


def model(name: str) -> nn.Module:
    kind, values = CONFIGS[name]
    config = getattr(transformers, kind)(**values)
    with torch.device("meta"):
        built: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return built


def adapted(name: str, **config: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The adapted modules and parameters of a small model, by their names without layer numbers,
    with how many there are.
    """
    tuned = peft.get_peft_model(model(name), peft.LoraConfig(**config), low_cpu_mem_usage=True)
    tuner = tuned.base_model
    return _counted(tuner.targeted_module_names), _counted(tuner.targeted_parameter_names)


def _counted(names: list[str]) -> dict[str, int]:
    plain = [re.sub(r"^(model\.)?layers\.\d+\.", "", name) for name in names]
    return {name: plain.count(name) for name in plain}


STACKED = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
NAMES = ["q_proj", "gate_proj", "up_proj", "down_proj"]


def test_tm110_all_linear_takes_the_router() -> None:
    _, parameters = adapted("mixtral", target_modules="all-linear")
    assert {*parameters} == STACKED | {"mlp.gate.weight"}
    modules, _ = adapted("phimoe", target_modules="all-linear")
    assert modules["mlp.router"] == 4


def test_tm110_excluding_the_router_does_nothing() -> None:
    _, parameters = adapted("mixtral", target_modules="all-linear", exclude_modules=["gate"])
    assert "mlp.gate.weight" in parameters


def test_tm110_names_leave_the_router_alone() -> None:
    _, parameters = adapted("mixtral", target_modules=["q_proj", "w1", "w2", "w3"])
    assert {*parameters} == STACKED


def test_tm111_names_reach_the_shared_expert_alone() -> None:
    modules, parameters = adapted("qwen2_moe", target_modules=NAMES)
    assert not parameters
    assert {name for name in modules if "expert" in name} == {
        f"mlp.shared_expert.{name}" for name in NAMES[1:]
    }


@pytest.mark.parametrize(
    ("name", "entries"),
    [("gpt_oss", ["gate_up_proj", "down_proj"]), ("phimoe", ["w1", "w2", "w3"])],
)
def test_tm111_names_reach_nothing(name: str, entries: list[str]) -> None:
    modules, parameters = adapted(name, target_modules=["q_proj", *entries])
    assert {*modules} == {"self_attn.q_proj"}
    assert not parameters
    with pytest.raises(ValueError, match="not found in the base model"):
        adapted(name, target_modules=entries)


@pytest.mark.parametrize("name", ["qwen2_moe", "gpt_oss", "phimoe"])
def test_tm111_target_parameters_reach_the_experts(name: str) -> None:
    _, parameters = adapted(name, target_modules=["q_proj"], target_parameters=sorted(STACKED))
    assert parameters == dict.fromkeys(STACKED, 4)


@pytest.mark.parametrize("name", ["qwen2_moe", "gpt_oss"])
def test_tm126_all_linear_leaves_out_the_experts(name: str) -> None:
    modules, parameters = adapted(name, target_modules="all-linear")
    assert not parameters
    assert not any(".experts" in entry for entry in modules)


def test_tm127_a_shared_expert_is_taken_for_the_experts() -> None:
    entries = [f"shared_expert.{name}" for name in NAMES[1:]]
    modules, parameters = adapted("qwen3_next", target_modules=["q_proj", *entries])
    assert {*modules} == {"self_attn.q_proj"}
    assert {*parameters} == STACKED


def test_tm127_a_layer_is_reached_by_its_weight() -> None:
    weights = [f"shared_expert.{name}.weight" for name in NAMES[1:]]
    modules, parameters = adapted(
        "qwen3_next", target_modules=["q_proj"], target_parameters=weights
    )
    assert {*modules} == {"self_attn.q_proj"}
    assert {*parameters} == {f"mlp.{weight}" for weight in weights}


@pytest.mark.parametrize("targets", [["q_b_proj", *NAMES[1:]], "all-linear"])
def test_tm127_dense_layers_and_shared_experts_are_lost(targets: Any) -> None:
    modules, parameters = adapted("deepseek_v3", target_modules=targets)
    assert not [name for name in modules if name.startswith("mlp.")]
    assert {*parameters} >= STACKED
    plain = dict(model("deepseek_v3").named_modules())
    for name in ("layers.0.mlp.up_proj", "layers.1.mlp.shared_experts.up_proj"):
        assert isinstance(plain[f"model.{name}"], nn.Linear)


def test_tm127_a_pattern_for_shared_experts_is_taken_for_the_experts() -> None:
    modules, parameters = adapted(
        "glm_moe_dsa",
        target_modules=r".*layers\.\d+\.(self_attn\.o_proj|mlp\.(shared_experts\.)?(gate|up|down)_proj)",
    )
    assert {*modules} == {"self_attn.o_proj"}
    assert {*parameters} == STACKED


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_tm127_a_pattern_for_one_layer_takes_all(name: str) -> None:
    modules, _ = adapted(name, target_modules=r".*layers\.1\.self_attn\.q_proj")
    assert modules == {"self_attn.q_proj": 4}
    modules, _ = adapted(name, target_modules=["q_proj"], layers_to_transform=[1])
    assert modules == {"self_attn.q_proj": 1}


def test_tm130_the_default_of_mixtral_is_lost() -> None:
    with pytest.raises(ValueError, match="No `target_modules` passed but also no"):
        adapted("mixtral")


def test_tm133_one_half_alone() -> None:
    with pytest.raises(ValueError, match="w1 without also targeting w3"):
        adapted("mixtral", target_modules=["q_proj", "w1", "w2"])
    _, parameters = adapted("mixtral", target_modules=["q_proj", "w2"])
    assert {*parameters} == {"mlp.experts.down_proj"}


# Encoders ----------------------------------------------------------------------------------------


def gemma3() -> nn.Module:
    torch.manual_seed(0)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 4, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(
        text_config={**SMALL, "head_dim": 8}, vision_config=vision, mm_tokens_per_image=4
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def test_tm109_text_gives_the_encoder_no_gradient() -> None:
    lora = peft.LoraConfig(target_modules=["q_proj", "v_proj"])
    tuned = peft.get_peft_model(gemma3(), lora)
    batch = torch.randint(0, 60, (2, 8))
    types = torch.zeros_like(batch)
    tuned.train()
    tuned(input_ids=batch, labels=batch, token_type_ids=types).loss.backward()
    trained = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    inside = [p for name, p in trained.items() if "vision_tower" in name]
    outside = [p for name, p in trained.items() if "vision_tower" not in name]
    assert inside
    assert all(parameter.grad is None for parameter in inside)
    assert all(parameter.grad is not None for parameter in outside)


def test_tm109_the_encoder_can_be_excluded() -> None:
    lora = peft.LoraConfig(target_modules=["q_proj"], exclude_modules=r".*vision_tower\..*")
    names = peft.get_peft_model(gemma3(), lora).base_model.targeted_module_names
    assert names
    assert not any("vision_tower" in name for name in names)


# Tied embeddings ---------------------------------------------------------------------------------


def tied_llama() -> nn.Module:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, tie_word_embeddings=True)
    )


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocab_size": 64}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))


def merging_changes(base: nn.Module, **config: Any) -> bool:
    """Whether a merged adapter answers otherwise than the adapter did."""
    tuned = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**config)).eval()
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    batch = torch.arange(8)[None]
    with torch.no_grad():
        before = tuned(input_ids=batch).logits
        after = tuned.merge_and_unload()(input_ids=batch).logits
    return not torch.allclose(before, after, atol=1e-3)


def test_tm123_merging_changes_a_tied_model() -> None:
    assert merging_changes(gpt2(), target_modules=["c_attn", "wte"])
    assert merging_changes(tied_llama(), target_modules=["q_proj", "lm_head"])
    assert merging_changes(tied_llama(), target_modules=["q_proj", "embed_tokens", "lm_head"])


def test_tm123_ensure_weight_tying_merges_twice() -> None:
    targets = {"target_modules": ["q_proj", "lm_head"]}
    assert merging_changes(tied_llama(), **targets, ensure_weight_tying=True)
    tuned = peft.get_peft_model(tied_llama(), peft.LoraConfig(**targets, ensure_weight_tying=True))
    embeddings = tuned.base_model.model.model.embed_tokens
    nn.init.normal_(embeddings.lora_embedding_A["default"])
    nn.init.normal_(embeddings.lora_embedding_B["default"])
    before = embeddings.weight.detach().clone()
    change = embeddings.get_delta_weight("default").detach().clone()
    after = tuned.merge_and_unload().model.embed_tokens.weight.detach()
    assert torch.allclose(after - before, 2 * change, atol=1e-4)


def test_tm123_elsewhere_merging_changes_nothing() -> None:
    assert not merging_changes(tied_llama(), target_modules=["q_proj", "up_proj"])
    untied = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    assert not merging_changes(untied, target_modules=["q_proj", "lm_head"])


# Names of other releases -------------------------------------------------------------------------

TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4}
IMAGE = {"image_size": 28, "patch_size": 14}


def hits(base: nn.Module, **config: Any) -> list[str]:
    names = peft.get_peft_model(base, peft.LoraConfig(**config)).base_model.targeted_module_names
    return sorted(names)


def vit(cls: str) -> nn.Module:
    built: nn.Module = getattr(transformers, cls)(transformers.ViTConfig(**TINY, **IMAGE))
    return built


def neox() -> nn.Module:
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**TINY, vocab_size=64))


def llava() -> nn.Module:
    text = transformers.LlamaConfig(**TINY, vocab_size=64)
    vision = transformers.CLIPVisionConfig(**TINY, **IMAGE)
    config = transformers.LlavaConfig(text_config=text, vision_config=vision)
    return transformers.LlavaForConditionalGeneration(config)


def test_tm128_old_names_of_a_vit_and_a_head() -> None:
    with pytest.raises(ValueError, match="not found in the base model"):
        hits(vit("ViTForImageClassification"), target_modules=["query", "value"])
    assert len(hits(vit("ViTForImageClassification"), target_modules=["q_proj", "v_proj"])) == 4
    names = hits(neox(), target_modules=["query_key_value", "embed_out"])
    assert {name.rpartition(".")[2] for name in names} == {"query_key_value"}


@pytest.mark.parametrize(("head", "trained"), [("embed_out", False), ("lm_head", True)])
def test_tm129_the_head_of_neox(head: str, trained: bool) -> None:
    lora = peft.LoraConfig(target_modules=["query_key_value"], modules_to_save=[head])
    names = [name for name, _ in peft.get_peft_model(neox(), lora).named_parameters()]
    assert any("modules_to_save" in name for name in names) is trained


@pytest.mark.parametrize(
    "pattern", [r"language_model\.model\..*\.q_proj", r".*vision_tower\.vision_model\..*\.q_proj"]
)
def test_tm131_old_paths_of_llava(pattern: str) -> None:
    with pytest.raises(ValueError, match="not found in the base model"):
        hits(llava(), target_modules=pattern)


def test_tm131_new_paths_of_llava() -> None:
    assert len(hits(llava(), target_modules=r"model\.language_model\..*\.q_proj")) == 2
    assert len(hits(llava(), target_modules=r".*vision_tower\.encoder\..*\.q_proj")) == 2


def test_tm132_dense_of_a_vit_is_its_pooler() -> None:
    assert hits(vit("ViTModel"), target_modules=["dense"]) == ["pooler.dense"]
