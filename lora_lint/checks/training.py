"""TR: how LoRA and the training around it go together. SE: what the run lets in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Note, Set, Wish
from lora_lint.facts import transformers_facts, version_key
from lora_lint.injection.matching import EntrySet
from lora_lint.models.renamed import always_built_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.recipe import Recipe

# Calls after which the inputs of the first layer require gradients, or that may see to it.
_ENABLES = (
    "enable_input_require_grads",
    "gradient_checkpointing_enable",
    "prepare_model_for_kbit_training",
    "prepare_model_for_int8_training",
    "requires_grad",
)
# Heads that a classification model starts with untrained, by the end of the class's name.
_HEADS = {
    "ForSequenceClassification": ("SEQ_CLS", ("score", "classifier")),
    "ForTokenClassification": ("TOKEN_CLS", ("score", "classifier")),
    "ForQuestionAnswering": ("QUESTION_ANS", ("qa_outputs",)),
}


@check("TR601")
def fp16_and_bf16(subject: RecipeSubject) -> Iterator[Finding]:
    """Both mixed-precision modes are on."""
    if subject.dialect.name == "axolotl":
        return  # it drops fp16 then (axolotl 0.19.0 core/builders/base.py)
    if subject.value("fp16") is True and subject.value("bf16") is True:
        yield Finding(
            "fp16 and bf16 are both true",
            field="fp16",
            notes=(Note("", "bf16"),),
            help='transformers stops with "At most one of fp16 and bf16 can be True, but not both"',
            wishes=(Wish("fp16: false (bf16 on Ampere GPUs and newer)", (Set("fp16", False),)),),
        )


@check("TR605")
def reentrant_checkpointing_no_grad(subject: RecipeSubject) -> Iterator[Finding]:
    """Reentrant checkpointing cuts the adapters off: nothing before them has a gradient."""
    if subject.value("quantization") not in (None, "none") or not cuts_adapters_off(subject):
        return  # QT512 speaks of quantized models
    yield Finding(
        "reentrant gradient checkpointing with frozen embeddings: no gradient reaches the adapters",
        field="gradient_checkpointing",
        help='backward stops with "element 0 of tensors does not require grad"; '
        "gradient_checkpointing_kwargs={'use_reentrant': False}, or "
        "model.enable_input_require_grads(), mends it",
    )


def cuts_adapters_off(subject: RecipeSubject) -> bool:
    """Whether checkpointing is reentrant and nothing else brings a gradient to the adapters."""
    settings = subject.value("gradient_checkpointing_kwargs")
    if subject.value("gradient_checkpointing") is not True or _makes_inputs_require_grad(subject):
        return False
    if subject.states("gradient_checkpointing_kwargs") or settings is not None:
        return isinstance(settings, dict) and settings.get("use_reentrant") is True
    return subject.recipe["gradient_checkpointing_kwargs"].origin != "unknown"


def _makes_inputs_require_grad(subject: RecipeSubject) -> bool:
    """Whether something sees to it that gradients reach the adapters, or may do so.

    From transformers 5.0 on the model itself does; TRL's trainers do, and what prepares a quantized
    model. Without a plain ``Trainer`` in the file it is not known what trains.
    """
    from lora_lint.documents import calls

    if subject.dialect.name != "peft_python" or version_key(subject.transformers) >= (5, 0, 0):
        return True
    names = {site.name for site in calls.sites(subject.document) if site.name.endswith("Trainer")}
    if not names or not names <= {"Trainer", "Seq2SeqTrainer"}:
        return True
    if any(word in subject.document.text for word in _ENABLES):
        return True
    trained = (subject.value("modules_to_save"), subject.value("target_modules"))
    return any("emb" in str(value) or "wte" in str(value) for value in trained)


@check("TR611")
def inference_mode_in_training(subject: RecipeSubject) -> Iterator[Finding]:
    """inference_mode freezes the adapter that is to be trained."""
    if subject.value("inference_mode") is True and subject.recipe.trains:
        nothing = _trains_nothing(subject)
        yield Finding(
            "inference_mode: true freezes every adapter"
            + (": 0 trainable parameters" if nothing else ""),
            field="inference_mode",
            severity=None if subject.recipe.private.get("trainer", True) else "warning",
            label="copied from a saved adapter_config.json?",
            help="PEFT says nothing; the run stops at backward(), or trains nothing"
            if nothing
            else "PEFT says nothing; only biases and saved modules are trained",
            wishes=(Wish("inference_mode: false", (Set("inference_mode", False),), "safe"),),
        )


def _trains_nothing(subject: RecipeSubject) -> bool:
    """Whether no parameter at all is left to train, as far as that can be known."""
    if subject.injection.trainable is not None:
        return subject.injection.trainable == 0
    heads = [task for task, _ in _HEADS.values()]
    copies = subject.value("modules_to_save") not in (None, []) or (
        subject.value("task_type") in heads
    )
    trained = copies and not subject.behaviour.inference_freezes_copies
    return subject.value("bias") in (None, "none") and not trained


@check("TR614")
def task_type_mismatch(subject: RecipeSubject) -> Iterator[Finding]:
    """The task type does not fit the class of the model."""
    tree, recipe = subject.tree, subject.recipe
    if tree is None or recipe.model_class is None or not recipe.trains:
        return
    task = subject.value("task_type")
    error = subject.injection.error
    if error is not None and "prepare_inputs_for_generation" in error.message:
        yield Finding(
            f"task_type {task} needs a model that generates; {tree.cls} does not",
            field="task_type",
            help=f'PEFT stops with "{error.message}"',
        )
        return
    for ending, (wanted, heads) in _HEADS.items():
        if not tree.cls.endswith(ending) or task == wanted or error is not None:
            continue
        saved = subject.injection.saved
        there = [head for head in heads if head in tree.root.children]
        if there and not any(EntrySet([head]).has(name) for head in there for name in saved):
            yield Finding(
                f"without task_type {wanted} the new head `{there[0]}` of {tree.cls} stays random "
                "and frozen, and is not saved",
                field="task_type",
                help="PEFT says nothing; only the adapters are trained",
                wishes=(Wish(f"task_type: {wanted}", (Set("task_type", wanted),)),),
            )


@check("TR615")
def lora_keys_without_adapter(subject: RecipeSubject) -> Iterator[Finding]:
    """LoRA settings are written, but the switch that turns LoRA on is not."""
    recipe = subject.recipe
    if recipe.adapter or recipe.switch is None or recipe.private.get("profile"):
        return  # a profile is written out whole, with LoRA turned off in so many words
    fields = ("r", "lora_alpha", "target_modules", "lora_dropout", "modules_to_save")
    written = next((n for n in fields if _is_set(recipe, n)), None)
    if written is None:
        return
    steps = ((recipe.switch,), recipe.switch.split("."))  # the latter in a section
    written_at = ((*recipe.path, *step) for step in steps)
    off = next((n for at in written_at if (n := subject.document.node(recipe.part, at))), None)
    yield Finding(
        f"LoRA settings are written, but `{recipe.switch}` does not turn LoRA on: this is a full "
        "fine-tune",
        field=written,
        severity="warning" if off is not None else None,
        label="has no effect",
        help=f"{subject.dialect.title} trains all parameters of the model",
    )


def _is_set(recipe: Recipe, name: str) -> bool:
    """Whether the file gives a field a value that asks for something."""
    return recipe.written(name) and recipe[name].value not in (None, False, 0, "", [])


@check("TR616")
def lora_with_galore(subject: RecipeSubject) -> Iterator[Finding]:
    """An optimizer for all parameters beside LoRA."""
    for name in ("use_galore", "use_apollo", "use_badam"):
        if subject.value(name) is True:
            yield Finding(
                f"{name}: true does not go with LoRA",
                field=name,
                help='LLaMA-Factory stops with "Cannot use LoRA with GaLore, APOLLO or BAdam '
                'together"',
            )
            return


@check("TR619")
def slow_path_for_unsloth(subject: RecipeSubject) -> Iterator[Finding]:
    """What takes unsloth off its fused LoRA kernels (``patch_peft_model`` in models/llama.py)."""
    if subject.dialect.name != "unsloth" or subject.tree is None:
        return
    from lora_lint.dialects.unsloth import FAST

    way = subject.recipe.private["way"]
    if way != "fast" and not (way == "language" and subject.tree.model_type in FAST):
        return
    bias, dropout = subject.value("bias"), subject.value("lora_dropout")
    if subject.states("bias") and bias in ("all", "lora_only"):
        yield Finding(
            f"bias {bias} takes unsloth off its fused LoRA kernels: training is slower",
            field="bias",
            help="the result is the same; unsloth says so in a warning",
            wishes=(Wish("bias: none", (Set("bias", "none"),)),),
        )
    if subject.states("lora_dropout") and isinstance(dropout, int | float) and dropout > 0:
        yield Finding(
            f"lora_dropout {dropout:g} takes unsloth before 2026.10.7 off its fused LoRA kernels: "
            "training is slower",
            field="lora_dropout",
            help="unsloth says so in a warning; newer releases have dropout in the kernels",
            wishes=(Wish("lora_dropout: 0", (Set("lora_dropout", 0),)),),
        )


@check("SE701")
def trust_remote_code_unneeded(subject: RecipeSubject) -> Iterator[Finding]:
    """Code from the hub is allowed for a model that transformers has built in."""
    if subject.value("trust_remote_code") is not True or subject.tree is None:
        return
    kind = subject.tree.model_type
    if kind not in transformers_facts()["model_types"]:
        return
    since = "" if always_built_in(kind) else f" {subject.transformers}"
    yield Finding(
        f"{kind} is built into transformers{since}; trust_remote_code: true only lets foreign code "
        "in",
        field="trust_remote_code",
        wishes=(
            Wish(
                "trust_remote_code: false",
                (Set("trust_remote_code", False),),
                "unsafe" if since else "safe",
            ),
        ),
    )
