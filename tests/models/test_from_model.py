"""A tree read from a live model says what torch says of that model."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lora_lint.models import ModuleTree
from tests.oracle.models import fresh, template

READ = ["gpt2", "llama-tied", "gemma3", "t5", "mixtral", "bert-mlm"]


def groups(model: nn.Module) -> set[frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def assert_same(tree: ModuleTree, model: nn.Module) -> None:
    modules = dict(model.named_modules())
    assert [name for name, _ in tree.named_modules()] == list(modules)
    for name, node in tree.named_modules():
        module = modules[name]
        own = {k: tuple(p.shape) for k, p in module.named_parameters(recurse=False)}
        assert node.cls == type(module).__name__
        assert dict(node.parameters) == own
        assert (node.kind == "Linear") == isinstance(module, nn.Linear)
        assert (node.kind == "Embedding") == isinstance(module, nn.Embedding)
    assert {frozenset(group) for group in tree.tied} == groups(model)
    assert tree.parameter_count() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", READ)
def test_names_kinds_shapes_and_ties_are_those_of_torch(name):
    model = template(name)
    tree = ModuleTree.from_model(model)
    assert_same(tree, model)
    assert_same(ModuleTree.from_json(tree.to_json()), model)


def test_a_module_used_twice_is_listed_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 3)
            self.block = nn.ModuleList([self.first, nn.Linear(2, 3)])

    model = Twice()
    tree = ModuleTree.from_model(model)
    assert_same(tree, model)
    assert tree.shared == {"block.0": "first"}


def test_a_model_with_adapters_is_refused():
    model = get_peft_model(fresh("gpt2"), LoraConfig(target_modules=["c_attn"]))
    with pytest.raises(ValueError, match="already carries adapters"):
        ModuleTree.from_model(model)
    with pytest.raises(ValueError, match="already carries adapters"):
        ModuleTree.from_model(model.base_model.model)


def test_only_a_module_can_be_read():
    with pytest.raises(TypeError):
        ModuleTree.from_model({"not": "a model"})


def test_a_config_with_values_per_layer_can_be_read():
    class Config:
        model_type = "mixed"
        vocab_size = 7

        @property
        def head_dim(self):
            raise RuntimeError("'head_dim' may vary across layers")

        def get_text_config(self):
            raise ValueError("more than one text config")

    model = nn.Sequential(nn.Linear(2, 2))
    model.config = Config()
    assert ModuleTree.from_model(model).facts["config"] == {"vocab_size": 7}


def test_the_meta_device_will_do():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    assert_same(ModuleTree.from_model(model), model)
