"""What an evaluation step needs, beside the training step of the same run.

Evaluation keeps nothing for a backward and has no gradients: the trainer has set them to None when
it evaluates (transformers 5.23.0 trainer.py, ``zero_grad`` before ``_maybe_log_save_evaluate``).
What is left are weights, adapters, the optimizer's states, and at the end of the forward the logits
of the whole batch: ``prediction_step`` asks for the loss, for which loss/loss_utils.py
``ForCausalLMLoss`` casts all of them to fp32, and the output of log-softmax is as large again.
``torch.no_grad`` changes nothing in that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint.facts import newest_peft
from lora_lint.injection import inject
from lora_lint.memory.estimate import CONTEXT_LOW, Estimator
from lora_lint.memory.profile import PLAIN, Profile
from lora_lint.memory.regime import regime
from lora_lint.memory.settings import Given

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.injection.result import Injection
    from lora_lint.memory.gpus import Gpu
    from lora_lint.memory.regime import Run
    from lora_lint.memory.sharding import Sharding
    from lora_lint.memory.step import Model
    from lora_lint.models.module_tree import ModuleTree


class Evaluation(NamedTuple):
    """The memory of an evaluation step on one GPU, in bytes.

    ``least``: what it needs for certain, whichever way open settings turn out; what its layers make
    is not in it. ``logits``: their part, at least. ``beyond``: how much more than the training
    step's peak, taken with the closed form's error, it needs at least; negative where that is not
    certain.
    """

    least: int
    logits: int
    beyond: int


def evaluation_memory(
    tree: ModuleTree,
    config: Mapping[str, Any],
    batch: int,
    *,
    fused: bool = True,
    profile: Profile = PLAIN,
    gpu: Gpu | None = None,
    sharding: Sharding | None = None,
    injection: Injection | None = None,
    peft: str | None = None,
    **settings: object,
) -> Evaluation | None:
    """The evaluation step of ``batch`` sequences as long as those of training; None where the
    training step is not estimated, or the model is no language model that gives logits of all
    tokens.

    ``settings`` are those of ``estimate_memory``. ``fused``: a loss that never holds all logits in
    training does not hold them here either.
    """
    if not tree.sized:
        return None
    if injection is None:
        injection = inject(tree, config, peft=peft or newest_peft())
    estimator = Estimator(tree, config, injection, Given(**settings), profile, gpu, sharding)
    model = estimator.model.model
    if model is None or estimator.reason is not None or model.shape.head.kind != "lm":
        return None
    least, sizes, beyond = [], [], []
    for run in estimator.settings.runs:
        step, low, most, peak = estimator.held_and_peak(run)
        logits = 0 if fused and run.fused_loss else logits_bytes(model, step, batch)
        sizes.append(logits)
        least.append(low + logits + CONTEXT_LOW)
        beyond.append(most + logits - peak)
    return Evaluation(int(min(least)), min(sizes), int(min(beyond)))


def logits_bytes(model: Model, run: Run, batch: int) -> int:
    """The logits of an evaluation step where its loss is made: as the head gives them, cast to fp32
    unless they are or the model's own loss takes them as they are, and log-softmax's output.
    """
    head, width = model.shape.head, regime(run).logits
    cast = 4 if width < 4 else 0
    each = 2 * width if head.plain and not run.autocast else width + cast + 4
    return batch * run.length * head.linears[-1].d_out * each
