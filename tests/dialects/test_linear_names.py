"""ms-swift's names for all modules of a kind."""

from __future__ import annotations

from lora_lint.dialects.linear_names import Parts, linear_names, named_like, parts_regex
from lora_lint.models import ModuleTree
from lora_lint.models.module_tree import ModuleNode


def module(cls: str, **children: ModuleNode) -> ModuleNode:
    kind = cls if cls in ("Linear", "Embedding") else "other"
    return ModuleNode(cls, kind, {}, children)  # type: ignore[arg-type]


def tree(**children: ModuleNode) -> ModuleTree:
    return ModuleTree(module("Model", **children), "Model", None, None)


LAYERS = module(
    "ModuleList",
    **{
        str(number): module("Layer", q_proj=module("Linear"), norm=module("RMSNorm"))
        for number in range(2)
    },
)


def test_leaf_names_without_the_head() -> None:
    found = tree(
        model=module("Body", layers=LAYERS, embed=module("Embedding")), lm_head=module("Linear")
    )
    assert linear_names(found, "lm_head") == ["q_proj"]
    assert named_like(found, "all-embedding") == ["embed"]
    assert named_like(found, "all-norm") == ["norm"]


def test_a_name_that_another_module_has_too_is_lengthened() -> None:
    found = tree(
        block=module("Block", proj=module("Linear")),
        other=module("Other", proj=module("Sequential")),
    )
    assert linear_names(found, "lm_head") == ["block.proj"]


def test_classes_that_are_left_out() -> None:
    found = tree(a=module("Gemma4ClippableLinear"), b=module("QuantLinear"), score=module("Linear"))
    assert linear_names(found, "lm_head") == ["b"]


def test_the_parts_that_are_not_frozen() -> None:
    found = tree(
        text=module("Text", layers=LAYERS),
        visual=module("Visual", blocks=LAYERS, merger=module("Merger", fc=module("Linear"))),
    )
    parts = Parts(["text"], ["visual"], ["visual.merger"])
    only_text = parts_regex(found, parts, [False, True, True], "lm_head", embedding=False)
    assert only_text == r"^(text(?=\.).*\.(q_proj))$"
    both = parts_regex(found, parts, [True, False, False], "lm_head", embedding=False)
    assert both == (
        r"^((?!(visual.merger))visual(?=\.).*\.(fc|q_proj)|visual\.merger(?=\.).*\.(fc))$"
    )
    missing = Parts(["elsewhere"], [], [])
    assert parts_regex(found, missing, [False, True, True], "lm_head", embedding=False) is None
