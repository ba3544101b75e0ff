"""The list of known models, and what a wrong name may have meant."""

import pytest

from lora_lint.models import Resolution, Unresolved, catalogue, resolve
from lora_lint.models.listing import listed, near, why_not


def test_the_parameters_are_those_of_the_tree():
    known = {model.id: model for model in listed()}
    trees = {entry.tree: entry for entry in catalogue.models()}
    for entry in trees.values():
        assert known[entry.id].parameters == entry.load().parameter_count()


def test_what_is_listed_resolves():
    for model in listed()[::25]:
        assert isinstance(resolve(model.id), Resolution), model.id


def test_words_choose_by_id_class_and_type():
    found = listed(["LLAMA", "3.1"])
    assert "meta-llama/Llama-3.1-8B" in [model.id for model in found]
    assert all("3.1" in model.id for model in found)
    assert {model.cls for model in listed(["ViTModel"])} == {"ViTModel"}
    assert listed(["no such model"]) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("meta-lama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("Qwen3-8B", "Qwen/Qwen3-8B"),
        ("mistral-7b-v0.1", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_a_slip_in_a_name(name, meant):
    assert near(name)[0] == meant
    assert meant in "\n".join(why_not(name, Unresolved("?", name)))


def test_a_name_of_nothing_known():
    assert near("zzz/qqqqqqqq") == []


def test_code_that_is_not_run_leads_to_the_users_own_process():
    found = resolve("THUDM/glm-4-9b-chat")
    assert isinstance(found, Unresolved)
    said = "\n".join(why_not("THUDM/glm-4-9b-chat", found))
    assert "not run here" in said
    assert "ModuleTree.from_model(model).to_json()" in said
    assert "Did you mean" not in said
    assert "--model" not in said
