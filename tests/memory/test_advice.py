from __future__ import annotations

import pytest

from lora_lint.injection import inject
from lora_lint.memory import rank_saving, saved_modules_share
from tests.memory.models import tree

MIB = 2**20
LORA = {"r": 16, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


@pytest.mark.parametrize(
    ("targets", "mib"),
    [(["q_proj", "v_proj"], 64), ("all-linear", 305)],
)
def test_halving_the_rank_of_llama_2_7b_saves_megabytes(targets, mib):
    """16 bytes for each of 4,194,304 and 19,988,480 parameters."""
    saving = rank_saving(tree("llama-2-7b"), {**LORA, "target_modules": targets}, 8)
    assert saving / MIB == pytest.approx(mib, abs=0.5)


def test_a_higher_rank_costs():
    assert rank_saving(tree("llama-2-7b"), LORA, 32) == -128 * MIB


def test_an_optimizer_without_states_halves_the_saving():
    assert rank_saving(tree("llama-2-7b"), LORA, 8, optim="sgd") == 32 * MIB


def test_a_rank_that_peft_refuses_has_no_saving():
    assert rank_saving(tree("llama-2-7b"), LORA, 0) is None
    assert rank_saving(tree("llama-2-7b"), {**LORA, "target_modules": ["no"]}, 8) is None


def test_saved_modules_outweigh_the_adapters():
    """Llama-3.1-8B's embeddings and head: 2 x 128,256 x 4,096 parameters, with gradient and Adam's
    states in bf16 8 bytes each.
    """
    shape = tree("llama-3.1-8b")
    lora = {**LORA, "modules_to_save": ["embed_tokens", "lm_head"]}
    share = saved_modules_share(shape, inject(shape, lora, peft="0.21.2"))
    assert share.saved.parameters == 2 * 128_256 * 4096
    assert share.saved.bytes == 8 * share.saved.parameters
    assert share.adapters.parameters == 32 * 16 * (4096 + 4096 + 4096 + 1024)
    assert share.adapters.bytes == 16 * share.adapters.parameters
    assert share.ratio == pytest.approx(154.1, abs=0.1)


def test_without_saved_modules_their_share_is_nothing():
    shape = tree("llama-2-7b")
    share = saved_modules_share(shape, inject(shape, LORA, peft="0.21.2"))
    assert (share.saved.bytes, share.ratio) == (0, 0)
