"""Calls are named by what the file imports, and only PEFT's LoraConfig is PEFT's."""

from __future__ import annotations

import pytest

from lora_lint.documents import calls
from tests.documents.python_files import parse


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("from peft import get_peft_model\nget_peft_model(m, c)", "peft.get_peft_model"),
        ("import peft\npeft.IA3Config()", "peft.IA3Config"),
        ("from peft import PeftModel\nPeftModel(m, c)", "peft.PeftModel"),
        (
            "from peft import PeftModel as P\nP.from_pretrained(m, 'x')",
            "peft.PeftModel.from_pretrained",
        ),
        (
            "from transformers import AutoModelForCausalLM as A\nA.from_pretrained('x')",
            "transformers.AutoModelForCausalLM.from_pretrained",
        ),
        ("import transformers as t\nt.BitsAndBytesConfig()", "transformers.BitsAndBytesConfig"),
        (
            "from transformers import TrainingArguments\nTrainingArguments('o')",
            "transformers.TrainingArguments",
        ),
        (
            "from transformers import Seq2SeqTrainingArguments as S\nS('o')",
            "transformers.Seq2SeqTrainingArguments",
        ),
        ("from trl import SFTConfig\nSFTConfig()", "trl.SFTConfig"),
        ("from trl import SFTTrainer\nSFTTrainer()", "trl.SFTTrainer"),
        ("class My(Trainer): pass\nclass MyTrainer(My): pass\nMyTrainer()", "MyTrainer"),
        (
            "from unsloth import FastVisionModel\nFastVisionModel.get_peft_model(m)",
            "unsloth.FastVisionModel.get_peft_model",
        ),
        (
            "from peft import prepare_model_for_kbit_training as p\np(m)",
            "peft.prepare_model_for_kbit_training",
        ),
    ],
)
def test_calls_that_matter_are_named_in_full(source: str, note: str) -> None:
    entry = parse(source).parts[0].node.entries[-1]
    assert entry.node.note == note
    assert entry.key == note.rpartition(".")[2] + "#0"


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("from peft import LoraConfig as LC\nLC(r=1)", "peft.LoraConfig"),
        ("import peft\npeft.LoraConfig(r=1)", "peft.LoraConfig"),
        ("import peft as p\np.LoraConfig(r=1)", "peft.LoraConfig"),
        ("import peft.tuners.lora\npeft.LoraConfig(r=1)", "peft.LoraConfig"),
        ("from peft.tuners.lora import LoraConfig\nLoraConfig(r=1)", "peft.tuners.lora.LoraConfig"),
        ("from peft import *\nLoraConfig(r=1)", "peft.LoraConfig"),
        ("from transformers import *\nfrom peft import *\nLoraConfig(r=1)", "peft.LoraConfig"),
        (
            (
                "try:\n    from peft import LoraConfig\nexcept ImportError:\n"
                "    LoraConfig = None\nLoraConfig(r=1)"
            ),
            "peft.LoraConfig",
        ),
        ("if True:\n    from peft import LoraConfig\nLoraConfig(r=1)", "peft.LoraConfig"),
        ("def f():\n    from peft import LoraConfig\n    LoraConfig(r=1)", "peft.LoraConfig"),
        ("from peft import LoraConfig\nLC = LoraConfig\nLC(r=1)", "peft.LoraConfig"),
        ("import peft\nmake = peft.LoraConfig\nmake(r=1)", "peft.LoraConfig"),
        (
            "import pytest\npeft = pytest.importorskip('peft')\npeft.LoraConfig(r=1)",
            "peft.LoraConfig",
        ),
        # None of these is PEFT's.
        ("class LoraConfig: pass\nLoraConfig(r=1)", "LoraConfig"),
        ("class A:\n    class LoraConfig: pass\n    LoraConfig(r=1)", "A.LoraConfig"),
        (
            "from ludwig.schema.llms.peft import LoraConfig\nLoraConfig(r=1)",
            "ludwig.schema.llms.peft.LoraConfig",
        ),
        ("from .config import LoraConfig\nLoraConfig(r=1)", ".config.LoraConfig"),
        ("from . import LoraConfig\nLoraConfig(r=1)", ".LoraConfig"),
        ("LoraConfig(r=1)", "?LoraConfig"),
        ("from swift import *\nLoraConfig(r=1)", "?LoraConfig"),
        ("from peft import *\nfrom swift import *\nLoraConfig(r=1)", "?LoraConfig"),
        ("LoraConfig(r=1)\nfrom peft import *", "?LoraConfig"),
        ("import peft\npeft.LoraConfig = Mine\npeft.LoraConfig(r=1)", "?peft.LoraConfig"),
        ("from peft import LoraConfig\ndef f(LoraConfig):\n    LoraConfig(r=1)", "?LoraConfig"),
        (
            (
                "if a:\n    from peft import LoraConfig\nelse:\n"
                "    from b import LoraConfig\nLoraConfig(r=1)"
            ),
            "?LoraConfig",
        ),
        (
            "from peft import LoraConfig\nclass LoraConfig(LoraConfig): pass\nLoraConfig(r=1)",
            "?LoraConfig",
        ),
        ("peft = load()\npeft.LoraConfig(r=1)", "?peft.LoraConfig"),
        ("def f(peft):\n    peft.LoraConfig(r=1)", "?peft.LoraConfig"),
    ],
)
def test_only_what_is_imported_from_peft_is_pefts(source: str, note: str) -> None:
    (site,) = (site for site in calls.sites(parse(source)) if site.name == "LoraConfig")
    assert site.call.note == note
    assert calls.is_from(site.call, "peft") == note.startswith("peft.")


def test_a_method_has_the_class_of_its_variable() -> None:
    text = (
        "from diffusers import UNet2DConditionModel\n"
        "unet = UNet2DConditionModel.from_pretrained('sd', subfolder='unet')\n"
        "unet.requires_grad_(False)\n"
        "unet.add_adapter(config)\n"
    )
    call = parse(text).node(0, ("add_adapter#0",))
    assert call is not None
    assert call.note == "diffusers.UNet2DConditionModel.add_adapter"


def test_a_method_of_something_unknown_says_so() -> None:
    call = parse("self.pipe.unet.add_adapter(c)\n").node(0, ("add_adapter#0",))
    assert call is not None
    assert call.note == "?self.pipe.unet.add_adapter"
