"""The logic of tools/measure_on_gpu.py, without a GPU."""

from __future__ import annotations

import pytest

from tools import measure_on_gpu

MIB = 2**20
TINY = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("need", [1000 * MIB, 1001 * MIB + 1, 5000 * MIB])
def test_the_smallest_cap_is_found_to_a_step(need):
    tried = []

    def runs(cap):
        tried.append(cap)
        return cap >= need

    found = measure_on_gpu.smallest_cap(runs, 900 * MIB, 5000 * MIB, 16 * MIB)
    assert need <= found <= need + 16 * MIB
    assert len(tried) < 12


def test_a_run_that_never_runs_is_an_error():
    with pytest.raises(ValueError, match="does not run"):
        measure_on_gpu.smallest_cap(lambda _: False, 0, MIB)


def test_real_steps_of_a_setting():
    setting = {
        **next(measure_on_gpu.settings()),
        "config": TINY,
        "lora": measure_on_gpu.FEW,
        "batch": 2,
        "length": 16,
        "checkpointing": "non-reentrant",
    }
    answer = measure_on_gpu.take_steps(setting, None, device="cpu")
    assert answer["trained"] == 2 * (2 * 8 * 32 + 8 * (32 + 16))
    assert len(answer["losses"]) == 3


def test_there_are_at_least_40_settings_with_names_of_their_own():
    names = [setting["name"] for setting in measure_on_gpu.settings()]
    assert len(names) == len(set(names)) >= 40
