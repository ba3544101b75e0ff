"""What a call in a Python file calls, by the file's imports, and which calls matter.

A callee is named by its full dotted name: ``peft.LoraConfig``,
``transformers.AutoModelForCausalLM.from_pretrained``. A class or function of the file itself has
its own name (``LoraConfig``, ``Outer.LoraConfig``), a relative import keeps its dots
(``.config.LoraConfig``). A name that starts with ``?`` could not be followed to an import or a
definition: ``?LoraConfig`` is bound nowhere in the file, ``?self.model.add_adapter`` is a method of
something unknown. So only a name that starts with ``peft.`` is PEFT's.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lora_lint.documents.scopes import Binding, Frame, Names

MAX_DEPTH: Final = 20
# What `from peft import *` provides of the names that matter here (peft/__init__.py, 0.21.2).
PEFT_NAMES: Final = frozenset(
    {
        "AdaLoraConfig",
        "AutoPeftModel",
        "AutoPeftModelForCausalLM",
        "AutoPeftModelForSeq2SeqLM",
        "AutoPeftModelForSequenceClassification",
        "AutoPeftModelForTokenClassification",
        "BOFTConfig",
        "EvaConfig",
        "IA3Config",
        "LNTuningConfig",
        "LoHaConfig",
        "LoKrConfig",
        "LoftQConfig",
        "LoraConfig",
        "LoraModel",
        "LoraRuntimeConfig",
        "OFTConfig",
        "PeftConfig",
        "PeftMixedModel",
        "PeftModel",
        "PeftModelForCausalLM",
        "PeftModelForFeatureExtraction",
        "PeftModelForQuestionAnswering",
        "PeftModelForSeq2SeqLM",
        "PeftModelForSequenceClassification",
        "PeftModelForTokenClassification",
        "PeftType",
        "PrefixTuningConfig",
        "PromptEncoderConfig",
        "PromptTuningConfig",
        "TaskType",
        "VeraConfig",
        "XLoraConfig",
        "get_peft_config",
        "get_peft_model",
        "inject_adapter_in_model",
        "prepare_model_for_kbit_training",
    }
)
# Packages whose star imports are known to bring no name of PEFT_NAMES that is not PEFT's own.
_HARMLESS_STARS: Final = frozenset({"peft", "transformers", "trl", "datasets", "torch", "typing"})
_FRAMEWORKS: Final = frozenset({"peft", "transformers", "trl", "unsloth"})
_KEPT: Final = frozenset(
    {
        "BitsAndBytesConfig",
        "LoraConfig",
        "SentenceTransformerTrainingArguments",
        "Seq2SeqTrainingArguments",
        "TrainingArguments",
        "add_adapter",
        "from_config",
        "from_pretrained",
        "get_peft_model",
        "inject_adapter_in_model",
        "prepare_model_for_int8_training",
        "prepare_model_for_kbit_training",
    }
)
_IMPORTERS: Final = frozenset({"importlib.import_module", "pytest.importorskip", "__import__"})
# Methods that give back the model they are called on.
PASS_THROUGH: Final = frozenset(
    {"bfloat16", "cpu", "cuda", "eval", "float", "half", "requires_grad_", "to", "train"}
)


def matters(callee: str) -> bool:
    """Whether a call of this dotted name is kept in the tree."""
    root, _, _ = callee.partition(".")
    last = callee.rpartition(".")[2].lstrip("?")
    if last in _KEPT or last.startswith("PeftModel"):
        return True
    if root in _FRAMEWORKS and last.endswith(("Config", "Arguments")):
        return last[:1].isupper()
    return last.endswith("Trainer") and last[:1].isupper()


class Callees:
    """Follows names to imports and definitions."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._done: dict[ast.expr, str] = {}

    def of(self, call: ast.Call, frame: Frame) -> str:
        """The dotted name of what is called."""
        return self.dotted(call.func, frame)

    def dotted(self, expression: ast.expr, frame: Frame, depth: int = 0) -> str:
        """The dotted name of an expression; it starts with ``?`` where it can't be followed."""
        if expression not in self._done:
            self._done[expression] = self._dotted(expression, frame, depth)
        return self._done[expression]

    def _dotted(self, expression: ast.expr, frame: Frame, depth: int) -> str:
        attributes: list[str] = []
        while isinstance(expression, ast.Attribute):
            attributes.append(expression.attr)
            expression = expression.value
        attributes.reverse()
        if depth > MAX_DEPTH:
            base = "?"
        elif isinstance(expression, ast.Name):
            base = self._name(expression, frame, depth, instance=bool(attributes))
        elif isinstance(expression, ast.Call) and attributes:
            base = self.result_class(expression, frame, depth + 1) or "?(...)"
        else:
            base = "?(...)"
        if not base.startswith("?") and any(self._patched(base, name) for name in attributes[-1:]):
            base = "?" + base
        return ".".join([base, *attributes])

    def _patched(self, base: str, name: str) -> bool:
        """Whether the file assigns this attribute of a module: ``peft.LoraConfig = Mine``."""
        return any(
            isinstance(store.node.value, ast.Name) and store.node.value.id == base
            for store in self.names.stores.get(name, ())
        )

    def _name(self, node: ast.Name, frame: Frame, depth: int, *, instance: bool) -> str:
        found = self.names.lookup(node.id, frame.scope)
        if found is None:
            return self._from_star(node.id, frame)
        bindings = preferred(found.bindings)
        if len(bindings) > 1:
            sources = {binding.source for binding in bindings}
            if len(sources) != 1 or bindings[0].kind != "import":
                bindings = last_before(bindings, frame) if found.direct and instance else []
        if len(bindings) != 1 and not (bindings and bindings[0].kind == "import"):
            return "?" + node.id
        binding = bindings[0]
        if binding.kind == "import":
            return binding.source
        if binding.kind in ("class", "function"):
            return found.scope.qualified(node.id)
        if binding.kind != "assign" or binding.value is None or binding.index:
            return "?" + node.id
        value = binding.value
        if isinstance(value, ast.Name | ast.Attribute) and binding.index is None:
            dotted = self.dotted(value, binding.frame, depth + 1)
            return dotted if not dotted.startswith("?") else "?" + node.id
        if isinstance(value, ast.Call) and instance:
            if (module := self._imported_by_call(value, binding.frame, depth)) is not None:
                return module
            return self.result_class(value, binding.frame, depth + 1) or "?" + node.id
        return "?" + node.id

    def _imported_by_call(self, call: ast.Call, frame: Frame, depth: int) -> str | None:
        """The module that ``importlib.import_module("peft")`` and the like give."""
        name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if not isinstance(name, str) or self.dotted(call.func, frame, depth + 1) not in _IMPORTERS:
            return None
        return name

    def _from_star(self, name: str, frame: Frame) -> str:
        """A name that only a star import can have brought."""
        before = [module for module, order in self.names.stars if order < frame.order]
        if "peft" in before and name in PEFT_NAMES and set(before) <= _HARMLESS_STARS:
            return f"peft.{name}"
        return "?" + name

    def result_class(self, call: ast.Call, frame: Frame, depth: int = 0) -> str | None:
        """The class of what a call gives, where its name says it."""
        if depth > MAX_DEPTH:
            return None
        callee = self.dotted(call.func, frame, depth)
        owner, _, last = callee.rpartition(".")
        if last in ("from_pretrained", "from_config"):
            return owner or None
        if last in PASS_THROUGH and isinstance(call.func, ast.Attribute):
            return owner or None
        if callee == "peft.get_peft_model":
            return "peft.PeftModel"
        if last[:1].isupper() and not callee.startswith("?"):
            return callee
        return None


def preferred(bindings: list[Binding]) -> list[Binding]:
    """Bindings without those of ``except`` blocks, which stand in for a missing package, where
    an import stands outside them.
    """
    kept = [binding for binding in bindings if not binding.fallback]
    return kept if any(binding.kind == "import" for binding in kept) else bindings


def last_before(bindings: list[Binding], frame: Frame) -> list[Binding]:
    """The bindings that a use in the same scope may see, the latest first.

    One, where the latest always comes before the use; more, where branches or loops stand between.
    """
    seen: list[Binding] = []
    for binding in sorted(bindings, key=lambda b: b.frame.order, reverse=True):
        if binding.frame.order >= frame.order:
            continue
        seen.append(binding)
        if binding.precedes(frame):
            break
    return seen
