"""SC: the learning rate, how the adapter starts, and what is trained beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.checks.registry import check
from lora_lint.checks.scaling import scales
from lora_lint.diagnostics import Finding, Set, Wish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

# Layers with fewer inputs or outputs are gates and heads; their adapters are small at any rank.
SMALL: Final = 32
# The usual learning rate of full fine-tuning; LoRA's best is about ten times that of the same run.
FULL_RATE: Final = 2e-5
# Initialisations and the step that PEFT leaves to the program (peft 0.21.2 tuners/lora/layer.py).
_STEPS: Final = {
    "eva": "initialize_lora_eva_weights",
    "lora_ga": "preprocess_loraga",
}


@check("SC204")
def rank_exceeds_layer_size(subject: RecipeSubject) -> Iterator[Finding]:
    """An adapter of as many ranks as the layer has inputs or outputs."""
    tree = subject.tree
    if tree is None or not tree.sized or subject.injection.error:
        return
    sizes = {
        name: min(node.parameters["weight"])
        for name, node in tree.named_modules()
        if node.kind in ("Linear", "Conv1D") and len(node.parameters.get("weight", ())) == 2
    }
    adapted = subject.injection.adapted.items()
    known = [(name, a.r, sizes[name]) for name, a in adapted if sizes.get(name, 0) >= SMALL]
    over = [entry for entry in known if entry[1] >= entry[2]]
    if not over:
        return
    name, rank, size = min(over, key=lambda entry: entry[2])
    leaves = list(dict.fromkeys(entry[0].rpartition(".")[2] for entry in over))
    yield Finding(
        f"r {rank} is not below the {size} inputs or outputs of {_listed(leaves)}",
        field="r",
        help=f"an adapter of {name} has more parameters than its full matrix",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:4]) + (" and others" if len(names) > 4 else "")


@check("SC212")
def full_finetune_learning_rate(subject: RecipeSubject) -> Iterator[Finding]:
    """A learning rate as for full fine-tuning."""
    rate = subject.value("learning_rate")
    if not subject.states("learning_rate") or not isinstance(rate, float | int):
        return
    if isinstance(rate, bool) or not 0 < rate <= FULL_RATE or not _is_supervised(subject):
        return
    first = next(iter(scales(subject)), None)
    if first is None or first.value > 4 or subject.value("use_dora") not in (None, False):
        return
    yield Finding(
        f"learning_rate {rate:g} is one for full fine-tuning; LoRA's best is about ten times that",
        field="learning_rate",
        help='measured in "LoRA Without Regret"; 1e-4 to 2e-4 is a common start',
    )


def _is_supervised(subject: RecipeSubject) -> bool:
    """Whether the run is a supervised fine-tuning that begins anew, as far as the file says."""
    objective, recipe = subject.recipe.objective, subject.recipe
    if recipe.dialect == "axolotl":
        return objective is None and subject.value("task_type") == "CAUSAL_LM"
    continued = recipe.private.get("other_way")
    return recipe.dialect == "llama_factory" and objective == "sft" and not continued


@check("SC214")
def init_needs_preprocessing(subject: RecipeSubject) -> Iterator[Finding]:
    """An initialisation of which PEFT does only half."""
    init = subject.value("init_lora_weights")
    step = _STEPS.get(init.lower()) if isinstance(init, str) else None
    if step is None or step in subject.document.text or not subject.recipe.trains:
        return
    yield Finding(
        f"init_lora_weights: {init} starts like the default unless the program calls {step}",
        field="init_lora_weights",
        help="PEFT says nothing; nothing in this file calls it"
        if subject.document.format in ("python", "notebook")
        else f"PEFT says nothing; {subject.dialect.title} does not call it",
        wishes=(),
    )


@check("SC217")
def bias_is_trained(subject: RecipeSubject) -> Iterator[Finding]:
    """Biases of the base model are trained with the adapter."""
    bias = subject.value("bias")
    if not subject.states("bias") or bias not in ("all", "lora_only") or not subject.recipe.trains:
        return
    there = _has_biases(subject, str(bias))
    effect = "changes biases of the base model: turning the adapter off no longer gives it back"
    yield Finding(
        f"bias: {bias} {effect if there is not False else 'has no effect: there are no biases'}",
        field="bias",
        severity="info" if there is False else None,
        help="vLLM refuses an adapter with trained biases" if there is not False else None,
        wishes=(Wish("bias: none", (Set("bias", "none"),)),),
    )


def _has_biases(subject: RecipeSubject, bias: str) -> bool | None:
    """Whether the model has biases that are trained; None where that is not known."""
    tree = subject.tree
    if tree is None or subject.injection.undecided or subject.injection.error:
        return None
    adapted = subject.injection.modules
    return any(
        "bias" in parameter
        for name, node in tree.named_modules()
        if bias == "all" or name in adapted
        for parameter in node.parameters
    )
