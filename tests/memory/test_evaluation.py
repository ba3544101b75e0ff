"""The least that an evaluation step needs against the operations of a real one, by the shipped
tracer.
"""

from __future__ import annotations

import pytest
import torch
import transformers

from lora_lint.memory import Evaluation, Profile, evaluation_memory
from lora_lint.memory.estimate import CONTEXT_LOW
from lora_lint.memory.tracer import quantized
from lora_lint.models import ModuleTree
from tests.memory.models import CONFIGS

quantized.stand_in()  # before PEFT is imported

from lora_lint.memory.tracer.cuda import AsOnCuda  # noqa: E402
from lora_lint.memory.tracer.inputs import inputs_of  # noqa: E402
from lora_lint.memory.tracer.step import (  # noqa: E402
    Request,
    _all,
    _autocast_asked_of_the_cpu,
    _build,
    prepare,
    sizes,
)
from lora_lint.memory.tracer.storages import Storages  # noqa: E402

QV = {"r": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
MODELS = ("llama-2-7b", "qwen2.5-7b", "gemma-2-2b")
LENGTH = 512


def request(name: str, **how: object) -> Request:
    """A model of published widths, two layers deep."""
    values = {**CONFIGS[name], "num_hidden_layers": 2}
    config = transformers.CONFIG_MAPPING[str(values["model_type"])](**values)
    cls = transformers.AutoModelForCausalLM._model_mapping[type(config)].__name__
    return Request(config.to_dict(), cls, QV, length=LENGTH, **how)


def traced(asked: Request, *, autocast: bool) -> int:
    """What an evaluation step needs at its peak, with the model and AdamW's states."""
    model = prepare(asked).eval()
    storages = Storages("meta", _all(model))
    inputs = inputs_of(model, asked)
    on_cuda = AsOnCuda(capability=(8, 0), uniform=True)
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast)
    with _autocast_asked_of_the_cpu(on_cuda), storages, on_cuda, torch.no_grad(), half:
        model(**inputs)
    weights, trained, _ = sizes(model)
    return weights + 3 * trained + max(size for size, _ in storages.peaks.values())


def evaluation(
    asked: Request, *, autocast: bool = False, batch: int = 8, **settings: object
) -> Evaluation | None:
    tree = ModuleTree.from_model(_build(asked, None))
    return evaluation_memory(
        tree,
        QV,
        batch,
        profile=Profile(autocast=autocast, outputs_kept=False, padded=False),
        **{
            "dtype": asked.dtype,
            "max_length": LENGTH,
            "per_device_train_batch_size": 1,
            "gradient_checkpointing": True,
            "gradient_accumulation_steps": 1,
            "optim": "adamw_torch",
            **settings,
        },
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_least_is_a_bound_and_a_near_one(name: str, dtype: str, *, autocast: bool) -> None:
    asked = request(name, batch=8, dtype=dtype)
    found = evaluation(asked, autocast=autocast)
    assert found is not None
    real = traced(asked, autocast=autocast)
    assert 0.95 * real <= found.least - CONTEXT_LOW <= real


def test_the_same_batch_needs_no_more_than_training() -> None:
    """Training makes a gradient of the logits beside what evaluation makes of them."""
    found = evaluation(request("qwen2.5-7b"), batch=1)
    assert found is not None
    assert found.beyond < 0


def test_a_length_that_is_not_known_leaves_it_open() -> None:
    assert evaluation(request("llama-2-7b"), max_length=None) is None


def test_a_loss_without_logits_has_none_in_evaluation_but_for_ligers() -> None:
    tree = ModuleTree.from_model(_build(request("llama-2-7b"), None))
    profile = Profile(autocast=False, fused_loss=True, outputs_kept=False)
    settings = {"dtype": "bfloat16", "max_length": LENGTH}
    found = [
        evaluation_memory(tree, QV, 8, fused=fused, profile=profile, **settings)
        for fused in (True, False)
    ]
    assert [one.logits if one else None for one in found] == [0, 8 * LENGTH * 32000 * 10]
