"""torchtune's own trees, against what the builders of torchtune 0.6.1 make on the meta device
(``tools/second_ways/torchtune.py``).
"""

from __future__ import annotations

import pytest

from lora_lint import Options, lint_text, resolve_model
from lora_lint.models.torchtune import torchtune_tree

FILE = """\
model:
  _component_: torchtune.models.{}
  lora_attn_modules: [{}]
  apply_lora_to_mlp: True
  lora_rank: 8
  lora_alpha: 16
"""


@pytest.mark.parametrize(
    ("builder", "modules", "trainable"),
    [
        ("phi3.lora_phi3_mini", "q_proj, v_proj, output_proj", 13_369_344),
        ("phi4.lora_phi4_14b", "q_proj, k_proj", 27443200),
    ],
)
def test_phis_adapters_are_those_of_torchtune(builder, modules, trainable):
    (found,) = lint_text(FILE.format(builder, modules), "a.yaml", Options(isolated=True)).recipes
    assert found.injection.trainable == trainable


def test_parameters_of_a_part_are_as_many():
    whole = resolve_model("microsoft/phi-4")
    made = torchtune_tree(whole)
    for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
        assert any(path.endswith(f".{name}") for path, _ in made.named_modules())
    assert _parameters(made.root) == _parameters(whole.root) == 14_659_507_200


def test_other_families_are_the_same_in_both():
    whole = resolve_model("meta-llama/Llama-3.1-8B")
    assert torchtune_tree(whole) is whole


def _parameters(node):
    own = sum(_size(shape) for shape in node.parameters.values())
    return own + sum(map(_parameters, node.children.values()))


def _size(shape):
    rows, *rest = shape
    return rows * (rest[0] if rest else 1)
