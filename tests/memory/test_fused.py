"""TRL's losses in chunks, against steps that keep and free what these do."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from lora_lint.memory.fused import beside
from lora_lint.memory.regime import Run
from lora_lint.memory.shape import Linear
from lora_lint.memory.tape import TOKENS, Tape, total, units

torch = pytest.importorskip("torch")
BATCH, LENGTH = 2, 1024
CHUNK = 256


def _loss(kind: str, states: Any, weight: Any, labels: Any) -> tuple[Any, Any]:
    """Loss and entropy of a chunk, in the operations and the dtypes of trl 1.7.0 and 1.13.0
    (trainer/sft_trainer.py ``_chunk``).
    """
    functional = torch.nn.functional
    if kind == "trl_1.7":
        logits = states.float() @ weight.float().t()
    else:
        logits = (states @ weight.to(states.dtype).t()).float()
    scores = functional.log_softmax(logits, dim=-1)
    loss = functional.nll_loss(scores, labels, reduction="sum")
    entropy = -(scores.exp() * scores).sum(-1)
    if kind == "trl_1.13":
        entropy = entropy * (labels != -100)
    return loss, entropy.sum()


def _traced(kind: str, hidden: int, words: int, dtype: Any, *, autocast: bool) -> dict[str, int]:
    """The bytes at the peaks of forward and backward beside the given tensors."""
    from lora_lint.memory.tracer.cuda import AsOnCuda
    from lora_lint.memory.tracer.step import _autocast_asked_of_the_cpu, _backward
    from lora_lint.memory.tracer.storages import Storages

    stream = torch.empty(BATCH, LENGTH, hidden, dtype=dtype, device="meta", requires_grad=True)
    weight = torch.empty(words, hidden, dtype=dtype, device="meta")
    labels = torch.zeros(BATCH * LENGTH, dtype=torch.int64, device="meta")
    storages, as_on_cuda = Storages("meta", [stream, weight, labels]), AsOnCuda()
    context = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext()
    with _autocast_asked_of_the_cpu(as_on_cuda), storages, as_on_cuda:
        storages.phase = "forward"
        with context:
            states = stream * 1.0  # what the last norm gives
            ordered = states.reshape(-1, hidden)[labels]
            loss = torch.zeros((), device="meta")
            for start in range(0, BATCH * LENGTH, CHUNK):
                chunk = slice(start, start + CHUNK)
                found, entropy = torch.utils.checkpoint.checkpoint(
                    _loss, kind, ordered[chunk], weight, labels[chunk], use_reentrant=False
                )
                loss = loss + found
        del states, ordered, found, entropy
        storages.phase = "backward"
        _backward(loss)
    return {phase: size for phase, (size, _) in storages.peaks.items()}


@pytest.mark.parametrize("kind", ["trl_1.7", "trl_1.13"])
@pytest.mark.parametrize(
    ("dtype", "autocast"), [("bfloat16", True), ("bfloat16", False), ("float32", True)]
)
@pytest.mark.parametrize(("hidden", "words"), [(2048, 16000), (128, 32000)])
def test_the_chunks_are_those_of_the_step(kind, dtype, autocast, hidden, words):
    traced = _traced(kind, hidden, words, getattr(torch, dtype), autocast=autocast)
    width = 2 if dtype == "bfloat16" else 4
    run = Run(batch=BATCH, length=LENGTH, weight_bytes=width, autocast=autocast)
    states = Tape(autocast=autocast).new(TOKENS, hidden, width)
    forward, backward = beside(kind, run, states, Linear("head", hidden, words), few=True)
    values = units(BATCH, LENGTH, 1)
    held = BATCH * LENGTH * hidden * width
    for phase, moments in (("forward", forward), ("backward", backward)):
        size = held + max(total(moment, values) for moment in moments)
        assert size == pytest.approx(traced[phase], rel=0.03)


def test_the_fp32_weight_of_old_releases_is_told():
    """128,256 x 4096 values of 4 bytes, and autocast's copy of 2."""
    run = Run(batch=1, length=2048, autocast=True)
    states = Tape(autocast=True).new(TOKENS, 4096, 2)
    head = Linear("lm_head", 4096, 128256)
    sizes = {}
    for kind in ("trl_1.7", "trl_1.13", "trl_1.15", "liger"):
        _, backward = beside(kind, run, states, head, few=True)
        sizes[kind] = max(total(moment, units(1, 2048, 1)) for moment in backward)
    assert sizes["trl_1.7"] > 6 * 128256 * 4096
    assert sizes["trl_1.15"] < sizes["trl_1.13"] < sizes["trl_1.7"] / 4
    # 2048 x 32768 words of 2 bytes, the states in bfloat16 and their gradient in fp32
    assert sizes["trl_1.15"] == 2048 * (32768 * 2 + 4096 * 6)


def test_few_tokens_have_a_smaller_tile():
    states = Tape(autocast=True).new(TOKENS, 64, 2)
    head = Linear("lm_head", 64, 50000)
    run = Run(batch=1, length=1, autocast=True)
    (few,), _ = beside("trl_1.15", run, states, head, few=True)
    (many,), _ = beside("trl_1.15", run, states, head, few=False)
    assert total(few, units(1, 4096, 1)) == total(many, units(1, 4096, 1))
