"""An injection with another rank is what asking PEFT's double anew gives, or it is not given."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import inject
from lora_lint.injection.rank import with_rank
from tests.injection.test_folding import MODELS, configs, tree

RANKS = st.integers(1, 96)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(MODELS),
    configs,
    st.fixed_dictionaries(
        {},
        optional={
            "use_rslora": st.booleans(),
            "init_lora_weights": st.sampled_from([True, False, "gaussian", "pissa", "mica"]),
            "lora_bias": st.booleans(),
        },
    ),
    RANKS,
    RANKS,
    st.sampled_from(["0.21.2", "0.21.2", "0.18.1", "0.13.0"]),
)
def test_it_is_what_the_other_rank_gives(name, config, more, r, other, peft):
    config = {**config, **more, "r": r}
    sized = with_rank(inject(tree(name), config, peft=peft), config, other)
    asked = inject(tree(name), {**config, "r": other}, peft=peft)
    assert sized is None or sized == asked


@pytest.mark.parametrize("name", MODELS)
def test_it_is_given_for_plain_configs(name):
    config = {"target_modules": "all-linear", "r": 8}
    sized = with_rank(inject(tree(name), config, peft="0.21.2"), config, 24)
    assert sized is not None
    assert sized == inject(tree(name), {**config, "r": 24}, peft="0.21.2")
