"""Values that nobody means break no dialect, and what is not static is not passed on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lora_lint import resolve_model
from lora_lint.dialects import LoraKwargs, Undecided, dialect
from lora_lint.recipe import UNKNOWN, Field
from tests.dialects import (
    test_ai_toolkit,
    test_h2o_llmstudio,
    test_ludwig,
    test_nemo_automodel,
    test_nemo_rl,
    test_unsloth_studio,
    test_xtuner,
)
from tests.dialects.roundtrip import recipe_of

FILES = {
    "ai_toolkit": test_ai_toolkit.FILE,
    "h2o_llmstudio": test_h2o_llmstudio.FILE,
    "ludwig": test_ludwig.FILE,
    "nemo_automodel": test_nemo_automodel.LLAMA,
    "nemo_rl": test_nemo_rl.FILE,
    "unsloth_studio": test_unsloth_studio.FILE,
    "xtuner": test_xtuner.FILE,
}
ODD: list[Any] = [None, True, 0, -1.5, "", "(", "all-linear", [], [None], [["q_proj"]], {}, {1: []}]
TREE = resolve_model("meta-llama/Llama-3.2-1B")


@pytest.mark.parametrize("name", FILES)
def test_lower(name: str) -> None:
    recipe = recipe_of(FILES[name], "config.py" if name == "xtuner" else "train.yaml")
    spelling = dialect(name)
    assert recipe.dialect == name
    for slot in spelling.slots:
        for value in ODD:
            odd = replace(recipe, fields={**recipe.fields, slot: Field(value, "written")})
            made = spelling.lower(odd, TREE)
            assert isinstance(made, LoraKwargs | Undecided)
        unknown = Field(None, "unknown", None, "a template")
        made = spelling.lower(replace(recipe, fields={**recipe.fields, slot: unknown}), TREE)
        if isinstance(made, LoraKwargs) and slot in made.values:
            assert made.values[slot] is UNKNOWN
