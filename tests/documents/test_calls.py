"""Which model belongs to which config."""

from __future__ import annotations

import pytest

from lora_lint.documents import calls
from tests.documents.python_files import parse

MODEL = "from transformers import AutoModelForCausalLM as A\nfrom peft import *\n"


def models(text: str) -> list[object]:
    """The model names that the first get_peft_model or trainer call can be traced to."""
    document = parse(text)
    (lora, *_) = (site for site in calls.sites(document) if site.name == "LoraConfig")
    (user, key), *_ = calls.uses(document, lora.call)
    assert key in (1, "config", "peft_config", 0)
    found = calls.argument(user.call, 0, "model")
    assert found is not None
    return [call.get(0).plain() for call in calls.model_calls(found[1])]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "m = A.from_pretrained('gpt2')\nc = LoraConfig(r=8)\nget_peft_model(m, c)\n",
        "get_peft_model(A.from_pretrained('gpt2'), LoraConfig(r=8))\n",
        "get_peft_model((A.from_pretrained('gpt2')), (LoraConfig(r=8)))\n",
        (
            "m = A.from_pretrained('gpt2').to('cuda')\nm = prepare_model_for_kbit_training(m)\n"
            "c = LoraConfig(r=8)\nm = get_peft_model(m, peft_config=c)\n"
        ),
        (
            "def f():\n    m = A.from_pretrained('gpt2')\n    m.train()\n    c = LoraConfig()\n"
            "    if x:\n        m = get_peft_model(m, c)\n    return m\n"
        ),
        "m = A.from_pretrained('gpt2')\nSFTTrainer(model=m, peft_config=LoraConfig(r=8))\n",
        (
            "import torch\nm = torch.compile(A.from_pretrained('gpt2'))\n"
            "get_peft_model(m, LoraConfig())\n"
        ),
        "if big:\n    m = A.from_pretrained('gpt2')\n    m = get_peft_model(m, LoraConfig())\n",
        "with init():\n    m = A.from_pretrained('gpt2')\nget_peft_model(m, LoraConfig())\n",
        "m, t = A.from_pretrained('gpt2')\nget_peft_model(m, LoraConfig())\n",
    ],
)
def test_the_model_of_a_config_is_found(text: str) -> None:
    assert models(MODEL + text) == ["gpt2"]


def test_branches_leave_several_models_open() -> None:
    text = MODEL + (
        "if small:\n    m = A.from_pretrained('gpt2')\nelse:\n    m = A.from_pretrained('opt')\n"
        "m = get_peft_model(m, LoraConfig(r=8))\n"
    )
    assert set(models(text)) == {"gpt2", "opt"}
    node = parse(text).node(0, ("get_peft_model#0", 0))
    assert node is not None
    assert (node.kind, node.note) == ("unknown", "`m` is assigned 3 times")


def test_a_model_from_elsewhere_is_not_guessed() -> None:
    text = MODEL + "m = load()\nget_peft_model(m, LoraConfig(r=8))\n"
    assert models(text) == []


def test_an_argument_that_names_a_call_has_the_calls_entries() -> None:
    document = parse(MODEL + "c = LoraConfig(r=8)\nget_peft_model(m, c)\n")
    through = document.node(0, ("get_peft_model#0", 1))
    direct = document.node(0, ("LoraConfig#0",))
    assert through is not None
    assert through.home is direct
    assert through.get("r") is direct.get("r")  # type: ignore[union-attr]
    assert document.text[slice(*through.span)] == "c"
