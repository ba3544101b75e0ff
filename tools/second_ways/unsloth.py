"""Which modules unsloth_zoo's own ``get_peft_regex`` picks, beside those that lora-lint says.

    python tools/second_ways/unsloth.py UNSLOTH_ZOO/peft_utils.py

Needs transformers and torch, no GPU and no download: the function is taken out of its module by its
syntax tree (the package itself asks for a GPU when it is imported) and run on models of the meta
device, small ones of several architectures. For each way of calling get_peft_model, one line says
whether both pick the same linear layers.
"""

from __future__ import annotations

import ast
import re
import sys
import types
from pathlib import Path
from typing import Any

import torch
import transformers

from lora_lint import ModuleTree
from lora_lint.dialects import LoraKwargs, dialect, recipes
from lora_lint.documents import parse

LISTED = ["q_proj", "v_proj", "up_proj"]
# The calls, with the arguments that unsloth hands to get_peft_regex for them (models/vision.py;
# models/llama.py for FastLanguageModel).
TEXT = {"finetune_vision_layers": False}
CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "defaults": ("FastModel", "", {}),
    "text only": ("FastModel", "finetune_vision_layers=False", TEXT),
    "vision only": (
        "FastModel",
        "finetune_language_layers=False",
        {"finetune_language_layers": False},
    ),
    "attention": ("FastModel", "finetune_mlp_modules=False", {"finetune_mlp_modules": False}),
    "mlp": ("FastModel", "finetune_attention_modules=False", {"finetune_attention_modules": False}),
    "listed": (
        "FastModel",
        f"finetune_vision_layers=False, target_modules={LISTED}",
        {**TEXT, "target_modules": LISTED},
    ),
    "language": (
        "FastLanguageModel",
        f"target_modules={LISTED}",
        {**TEXT, "target_modules": LISTED},
    ),
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300_000,
}
MODELS = {
    "llama": "LlamaForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "mllama": "MllamaForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
}


def their_function(path: Path) -> Any:
    """unsloth_zoo's ``get_peft_regex`` with the module's other functions and constants."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.Assign)
        and not (isinstance(node, ast.FunctionDef) and "forward" in node.name and node.args.vararg)
    ]
    scope: dict[str, Any] = {
        "torch": torch, "re": re, "logger": types.SimpleNamespace(info=lambda *_: None),
        "inspect": __import__("inspect"), "os": __import__("os"), "List": list, "Any": Any,
        "Callable": Any, "Dict": dict, "Optional": Any | None, "Set": set, "Tuple": tuple,
        "Type": type, "TypeVar": Any, "Union": Any,
    }  # fmt: skip
    for node in kept:
        node.__dict__["returns"] = None
        if isinstance(node, ast.FunctionDef):
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
        exec(compile(ast.Module([node], []), str(path), "exec"), scope)
    return scope["get_peft_regex"]


def small_model(kind: str, name: str) -> Any:
    """A small model of an architecture on the meta device."""
    cls = getattr(transformers, name)
    config = transformers.AutoConfig.for_model(kind)
    text = config.get_text_config()
    for key, value in SMALL.items():
        if hasattr(text, key):
            setattr(text, key, value)
    if hasattr(text, "layer_types") and text.layer_types:
        text.layer_types = text.layer_types[:2]
    with torch.device("meta"):
        return cls(config)


def theirs(function: Any, model: Any, arguments: dict[str, Any]) -> set[str] | None:
    """The linear layers that unsloth's expression picks; None where it refuses."""
    try:
        pattern = function(model, **arguments)
    except RuntimeError:
        return None
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and re.fullmatch(pattern, name)
    }


def ours(model: Any, cls: str, keywords: str) -> set[str] | str | None:
    """The linear layers that lora-lint's expression picks, or why it does not say."""
    code = (
        f"from unsloth import {cls}\nm, t = {cls}.from_pretrained('x')\n"
        f"{cls}.get_peft_model(m, {keywords})\n"
    )
    (recipe,) = recipes(parse("a.py", code))
    made = dialect("unsloth").lower(recipe, ModuleTree.from_model(model))
    if not isinstance(made, LoraKwargs):
        return None if "no layers" in made.reason else made.reason
    targets = made.values["target_modules"]
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and (
            re.fullmatch(targets, name)
            if isinstance(targets, str)
            else name.rpartition(".")[2] in targets
        )
    }


def main() -> None:
    """Compare all models and calls."""
    function, differ, same = their_function(Path(sys.argv[1])), 0, 0
    for kind, name in MODELS.items():
        try:
            model = small_model(kind, name)
        except (AttributeError, ValueError, TypeError, RuntimeError) as exc:
            print(f"{kind}: no small model: {exc}")
            continue
        for title, (cls, keywords, arguments) in CALLS.items():
            if cls == "FastLanguageModel" and kind == "llama":
                continue  # it has a way of its own, without an expression
            left, right = theirs(function, model, arguments), ours(model, cls, keywords)
            differ, same = differ + (left != right), same + (left == right)
            count = "refused" if left is None else f"{len(left)} layers"
            print(f"{kind} {title}: {'same' if left == right else 'DIFFERENT'}, {count}")
            if isinstance(right, str):
                print(f"  {right}")
            elif left != right:
                print(f"  only theirs: {sorted((left or set()) - (right or set()))[:4]}")
                print(f"  only ours: {sorted((right or set()) - (left or set()))[:4]}")
    print(f"{same} the same, {differ} different")


if __name__ == "__main__":
    main()
