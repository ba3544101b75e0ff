"""What inspect says of a model, compared with real PEFT on real models."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from lora_lint.facts import newest_peft
from lora_lint.inspection import Inspection, inspect
from lora_lint.models import ModuleTree, Resolution, resolve
from lora_lint.models.listing import listed

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2Config", {"n_layer": 2, "n_embd": 32, "n_head": 2}),
    "T5ForConditionalGeneration": (
        "T5Config",
        {"num_layers": 2, "d_model": 32, "d_ff": 64, "num_heads": 2, "d_kv": 16},
    ),
    "ViTForImageClassification": (
        "ViTConfig",
        {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
        | {"num_attention_heads": 2},
    ),
    "MixtralForCausalLM": (
        "MixtralConfig",
        {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 100}
        | {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4},
    ),
    "DeepseekV3ForCausalLM": (
        "DeepseekV3Config",
        {"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 100}
        | {"num_attention_heads": 2, "num_key_value_heads": 2, "moe_intermediate_size": 16}
        | {"n_routed_experts": 8, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "ResNetModel": (
        "ResNetConfig",
        {"depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 16},
    ),
}


def build(cls: str) -> Any:
    config, values = SMALL[cls]
    with torch.device("meta"):
        return getattr(transformers, cls)(getattr(transformers, config)(**values))


def look(cls: str, **how: Any) -> Inspection:
    tree = ModuleTree.from_model(build(cls))
    return inspect(Resolution(tree, cls, "itself"), peft=newest_peft(), **how)


def peft_on(cls: str, **config: Any) -> Any:
    """The model that real PEFT makes, or the name of what it raises."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            return get_peft_model(build(cls), LoraConfig(**config))
        except ValueError as exc:
            return type(exc).__name__


@pytest.mark.parametrize("cls", SMALL)
def test_the_presets_are_what_peft_does(cls: str) -> None:
    found = look(cls, r=4)
    for ours, config in (
        (found.default, {"r": 4}),
        (found.all_linear, {"r": 4, "target_modules": "all-linear"}),
    ):
        real = peft_on(cls, **config)
        if isinstance(real, str):
            assert ours.error is not None
            assert ours.error.type == real
            continue
        assert list(ours.modules) == sorted(real.targeted_module_names)
        assert list(ours.parameters) == sorted(real.targeted_parameter_names)
        assert (ours.trainable, ours.total) == real.get_nb_trainable_parameters()


@pytest.mark.parametrize("cls", SMALL)
def test_a_group_costs_what_peft_trains_for_it_alone(cls: str) -> None:
    for group in look(cls, r=4).groups:
        targets: dict[str, Any] = {"target_modules": list(group.members)}
        if group.kind == "Parameter":
            targets = {"target_modules": [], "target_parameters": [group.entry]}
        if not group.reached:
            continue
        real = peft_on(cls, r=4, **targets)
        if group.refused:
            assert group.refused.startswith(real)
        else:
            assert group.trainable == real.get_nb_trainable_parameters()[0]


def test_layers_that_a_list_of_names_cannot_reach_are_said_so() -> None:
    """transformers 4 called the experts' parts as it calls the dense layers'; PEFT turns these
    names into the experts' parameters wherever they stand.
    """
    lost = {
        group.path: group for group in look("DeepseekV3ForCausalLM").groups if not group.reached
    }
    assert "model.layers.*.mlp.shared_experts.up_proj" in lost
    names = ["gate_proj", "up_proj", "down_proj"]
    real = peft_on("DeepseekV3ForCausalLM", target_modules=names)
    taken = {*real.targeted_module_names, *real.targeted_parameter_names}
    assert taken
    assert not taken & {name for group in lost.values() for name in group.members}


class _Refused(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 16)
        self.conv = torch.nn.Conv1d(8, 8, 3, groups=8)


def test_a_layer_that_peft_refuses_leaves_the_others_alone() -> None:
    tree = ModuleTree.from_model(_Refused())
    found = inspect(Resolution(tree, "own", "itself"), peft=newest_peft(), r=3)
    linear, conv = found.groups
    assert linear.trainable == 3 * 8 + 16 * 3
    with pytest.raises(ValueError, match="groups") as raised:
        get_peft_model(_Refused(), LoraConfig(r=3, target_modules=["conv"]))
    assert conv.trainable is None
    assert conv.refused is not None
    assert conv.refused.startswith("ValueError: Targeting a Conv1d with groups=8")
    assert "Targeting a Conv1d with groups=8" in str(raised.value)


@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_what_is_there_to_copy_works(cls: str) -> None:
    found = look(cls)
    assert found.target_modules is not None
    real = peft_on(cls, target_modules=found.target_modules)
    assert set(real.targeted_module_names) == set(found.all_linear.modules)
    for stack, pattern in found.stacks.items():
        hit = set(peft_on(cls, target_modules=pattern).targeted_module_names)
        assert hit == {n for n in found.all_linear.modules if n.startswith(f"{stack}.")}
    assert list(found.stacks) == (["encoder.block", "decoder.block"] if "T5" in cls else [])


def test_every_adaptable_module_is_in_one_group() -> None:
    model = build("T5ForConditionalGeneration")
    found = look("T5ForConditionalGeneration")
    members = [name for group in found.groups for name in group.members]
    kinds = (torch.nn.Linear, torch.nn.Embedding)
    assert sorted(members) == sorted(n for n, m in model.named_modules() if isinstance(m, kinds))
    for group in found.groups:
        pattern = re.escape(group.path).replace(r"\*", r"\d+")
        assert all(re.fullmatch(pattern, name) for name in group.members)


def test_a_task_adds_what_is_trained_in_full() -> None:
    found = resolve("gpt2", task="SEQ_CLS")
    assert isinstance(found, Resolution)
    seen = inspect(found, peft=newest_peft(), task="SEQ_CLS")
    assert seen.all_linear.saved == ("score",)
    assert seen.tree.cls == "GPT2ForSequenceClassification"


def test_names_that_changed_are_told_from_those_that_did_not() -> None:
    vit, gpt2 = look("ViTForImageClassification").changed, look("GPT2LMHeadModel").changed
    assert "query" in vit.gone
    assert "q_proj" in vit.new
    assert not gpt2.text


@pytest.mark.parametrize("peft", ["0.4.0", "0.15.2", "0.19.0", "9.9.9"])
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "MixtralForCausalLM"])
def test_any_release_of_peft_has_an_answer(cls: str, peft: str) -> None:
    tree = ModuleTree.from_model(build(cls))
    found = inspect(Resolution(tree, cls, "itself"), peft=peft)
    assert len(found.groups) > 6
    assert (found.default.undecided is not None) == (peft == "9.9.9")


def test_a_sample_of_the_known_models() -> None:
    """Every hundredth; the whole list takes two minutes."""
    for model in listed()[::100]:
        found = resolve(model.id)
        assert isinstance(found, Resolution), model.id
        seen = inspect(found, peft=newest_peft())
        assert seen.groups, model.id
        assert all(
            (group.trainable is not None) == (found.tree.sized and group.reached)
            for group in seen.groups
            if not group.refused
        ), model.id
