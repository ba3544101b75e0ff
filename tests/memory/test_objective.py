"""What a step holds that compares answers, against a traced one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lora_lint.memory.objective import for_objective
from lora_lint.memory.profile import Profile

CONFIG = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
PAIRS, LENGTH = 2, 512


@pytest.mark.parametrize(
    ("objective", "sequences", "fused"),
    [(None, 1, False), ("sft", 1, False), ("dpo", 2, None), ("orpo", 2, None), ("kto", 1, None)],
)
def test_the_sequences_of_a_sample(objective, sequences, fused):
    found = for_objective(Profile(), objective)
    assert (found.sequences, found.fused_loss) == (sequences, fused)
    assert found.undescribed is None


@pytest.mark.parametrize("objective", ["grpo", "ppo", "rm", "gkd", "online_dpo"])
def test_what_is_not_described_is_said(objective):
    assert objective in (for_objective(Profile(), objective).undescribed or "")


class _Preferring:
    """A DPO step with whole logits, as trl 0.24 takes it (trainer/dpo_trainer.py
    ``concatenated_forward``): the policy over all answers, the model without its adapter after it.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _scores(self, ids: Any) -> Any:
        import torch

        logits = self.model(input_ids=ids, use_cache=False).logits.float()
        chosen = torch.gather(logits, -1, ids.unsqueeze(-1)).squeeze(-1)
        return (chosen - torch.stack([torch.logsumexp(row, dim=-1) for row in logits])).sum(-1)

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        import torch

        policy = self._scores(input_ids)
        with torch.no_grad(), self.model.disable_adapter():
            reference = self._scores(input_ids)
        better, worse = (policy - reference).chunk(2)
        return SimpleNamespace(loss=-torch.nn.functional.logsigmoid(better - worse).mean())


@pytest.mark.parametrize("checkpointing", [None, "non-reentrant"])
def test_a_preference_step_needs_what_the_next_token_needs_of_as_many_sequences(checkpointing):
    pytest.importorskip("torch")
    from lora_lint.memory.tracer.step import Request, _take_steps, prepare

    lora = {"r": 8, "target_modules": ["q_proj", "v_proj"]}
    request = Request(
        CONFIG,
        "LlamaForCausalLM",
        lora,
        batch=2 * PAIRS,
        length=LENGTH,
        autocast=True,
        checkpointing=checkpointing,
    )
    usual = _take_steps(prepare(request), request).peak
    compared = _take_steps(_Preferring(prepare(request)), request).peak
    # Under a dispatch mode gather's backward adds into a copy (torch 2.13 FunctionsManual.cpp
    # ``gather_backward``, ``areAnyTensorSubclassLike``), which it does not do in a real run.
    copy = 4 * 2 * PAIRS * LENGTH * CONFIG["vocab_size"]
    assert (compared - copy) == pytest.approx(usual, rel=0.02)
