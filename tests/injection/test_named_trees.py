"""What is predicted of a model whose number of layers is not known."""

import pytest

from lora_lint import inject
from lora_lint.models import hint


@pytest.mark.parametrize("targets", [["layers.0.fc1"], ["layers.0"], r".*\.[01]\..*", ".*fc1"])
def test_what_a_layers_number_may_choose_is_undecided(targets):
    found = inject(hint("OPTForCausalLM"), {"target_modules": targets}, peft="0.21.2")
    assert found.undecided == "the model's number of layers is not known"
    assert not found.modules


@pytest.mark.parametrize("targets", [["fc1", "fc2"], ["decoder.layers.fc1", "q_proj"]])
def test_a_digit_in_a_name_is_no_layers_number(targets):
    found = inject(hint("OPTForCausalLM"), {"target_modules": targets}, peft="0.21.2")
    assert {name.rpartition(".")[2] for name in found.modules} == {
        target for target in targets if "." not in target
    }
