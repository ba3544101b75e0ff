"""Lists of names with which PEFT adapts exactly the wished modules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lora_lint import inject, resolve_model
from lora_lint.dialects.layers import as_targets, has_stacked_experts, linear_names
from lora_lint.models import ModuleTree


def tree(name: str) -> ModuleTree:
    found = resolve_model(name)
    assert found is not None
    return found


QWEN = tree("Qwen/Qwen2.5-0.5B")
LINEAR = linear_names(QWEN)


def test_whole_groups_have_short_names() -> None:
    wanted = [name for name in LINEAR if name.endswith(("q_proj", "v_proj"))]
    assert as_targets(QWEN, wanted) == ["q_proj", "v_proj"]


@given(st.lists(st.sampled_from(LINEAR), min_size=1, max_size=8, unique=True))
def test_peft_adapts_what_is_wished(wanted: list[str]) -> None:
    targets = as_targets(QWEN, wanted)
    done = inject(QWEN, {"r": 8, "target_modules": targets}, peft="0.21.2")
    assert set(done.modules) == set(wanted)


def test_mixtures_of_experts() -> None:
    assert has_stacked_experts(tree("Qwen/Qwen3-30B-A3B"))
    assert not has_stacked_experts(QWEN)
    assert not has_stacked_experts(tree("google/gemma-3-4b-it"))
