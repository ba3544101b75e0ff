"""A recipe's memory from a trace of the real step, where ``--trace`` asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_lint.dialects import LoraKwargs
from lora_lint.memory.estimate import CONTEXT, CONTEXT_HIGH, CONTEXT_LOW, TRACE_ERROR, verdict_of
from lora_lint.memory.trace import NotTraced, trace

if TYPE_CHECKING:
    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.memory import MemoryEstimate
    from lora_lint.memory.regime import Run
    from lora_lint.memory.trace import Trace
    from lora_lint.models import ModuleTree

_DTYPES = {2: "bfloat16", 4: "float32"}


def traced(subject: RecipeSubject, estimate: MemoryEstimate) -> MemoryEstimate:
    """The estimate with the peak of a traced step in place of the closed form's; with the reason
    where there is no trace. Settings that are open are taken as the likeliest.
    """
    from lora_lint.progress import saying

    try:
        request = _request(subject, estimate)
        with saying(f"tracing a step of {subject.model_name} without a GPU"):
            found = trace(request)
        if found.parameters != subject.weighed[1].trainable:
            raise NotTraced("the model that was built trains other parameters")
    except NotTraced as exc:
        reason = "; ".join(filter(None, (estimate.reason, f"not traced: {exc}")))
        return estimate._replace(reason=reason)
    if "image_tokens" in estimate.assumed:  # a step that was traced has that many, and no others
        assumed = {**estimate.assumed, "images_per_sequence": request["images"]}
        estimate = estimate._replace(assumed=assumed)
    return _with_trace(estimate, found)


def _with_trace(estimate: MemoryEstimate, found: Trace) -> MemoryEstimate:
    states = estimate.bytes["optimizer"]
    optimizer = found.states if states is None else states
    adapters = found.trainable - (estimate.bytes["saved_modules"] or 0)
    parts = dict.fromkeys(estimate.bytes, 0) | {
        "weights": found.weights,
        "adapters": adapters,
        "saved_modules": estimate.bytes["saved_modules"] or 0,
        "optimizer": optimizer,
        # Gradients and logits are among what was alive.
        "activations": found.peak - found.weights - found.trainable - found.states,
        "overhead": CONTEXT,
    }
    tensors = sum(parts.values()) - CONTEXT
    low = int(tensors * (1 - TRACE_ERROR)) + CONTEXT_LOW
    high = int(tensors * (1 + TRACE_ERROR)) + CONTEXT_HIGH
    verdict, reason = verdict_of(estimate.gpu, low, high)
    return estimate._replace(
        bytes=parts,
        low=low,
        peak=tensors + CONTEXT,
        high=high,
        site=f"{found.site.partition(':')[0]} (traced)",
        verdict=verdict,
        reason=reason,
    )


def _request(subject: RecipeSubject, estimate: MemoryEstimate) -> dict[str, Any]:
    """What to trace.

    Raises ``NotTraced`` where something that decides it is not known.
    """
    tree, run, lowered = subject.weighed[0], estimate.run, subject.lowered
    if tree is None or not isinstance(lowered, LoraKwargs):
        raise NotTraced("the model or LoraConfig's arguments are not known")
    if subject.dialect.applied_by != "PEFT":
        raise NotTraced(f"{subject.dialect.applied_by} has layers of its own")
    if subject.recipe.objective not in (None, "sft", "pt"):
        raise NotTraced(f"what {subject.recipe.objective} does in a step is not traced")
    if run is not None and run.fused_loss and run.fused_by != "liger":
        raise NotTraced("TRL's own loss is not traced")
    if run is None:
        raise NotTraced(estimate.reason or "its settings are not known")
    if subject.shared is not None:
        raise NotTraced("it runs on several GPUs")
    return {
        "config": _config(subject, tree),
        "cls": tree.cls,
        "lora": {name: value for name, value in lowered.values.items() if value is not None},
        **_settings(run),
        "accumulates": subject.value("gradient_accumulation_steps") not in (None, 1),
    }


def _settings(run: Run) -> dict[str, Any]:
    kind = "reentrant" if run.reentrant else "non-reentrant"
    return {
        "batch": run.batch,
        "length": run.length,
        "dtype": _DTYPES[run.weight_bytes],
        "quantization": run.quantized,
        "double_quant": run.double_quant,
        "prepared": run.prepared,
        "autocast": run.autocast,
        "adapter_dtype": _DTYPES[run.adapter_bytes],
        "checkpointing": kind if run.checkpointing else None,
        "attention": run.attention if run.attention != "sdpa" else None,
        "uniform": not run.masked,
        "fused_loss": run.fused_loss,
        "capability": run.capability,
        "images": run.images,
    }


def _config(subject: RecipeSubject, tree: ModuleTree) -> dict[str, Any]:
    """The values of the model's config.json: those on this disk, else the catalogue's, which
    decide all sizes.
    """
    from lora_lint.models import catalogue

    section = subject.model_config
    node = section.node() if section is not None else None
    if node is not None:
        values = node.plain()
        assert isinstance(values, dict)  # noqa: S101 - model_config gives mappings only
        return values
    resolution = subject.resolution
    name = str(getattr(resolution, "known_as", None) or getattr(resolution, "id", ""))
    entry = catalogue.model(name)
    known = catalogue.dimensions(tree.cls).get(entry.tree) if entry else None
    if known is None:
        raise NotTraced("there is no config.json of the model on this disk")
    built: dict[str, Any] = {"model_type": tree.model_type}
    for path, value in known["values"].items():
        *above, last = path.split(".")
        inner = built
        for step in above:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return built
