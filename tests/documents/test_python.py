"""Python files: what is certain without running them, where it stands, and how it is edited."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from typing import Any

import pytest

from lora_lint.documents import calls, python
from lora_lint.documents.document import Document, NotEditable
from lora_lint.documents.tree import Node
from lora_lint.fixes import apply_edits
from lora_lint.recipe import UNKNOWN

PEFT = "from peft import LoraConfig\n"


def parse(text: str) -> Document:
    document = python.parse("train.py", text)
    assert document.problem is None, document.problem
    return document


def config(text: str, *path: str) -> Node:
    node = parse(text).node(0, (*path, "LoraConfig#0"))
    assert node is not None
    return node


def argument(text: str, name: str | int = "r", *path: str) -> Node:
    node = config(text, *path).get(name)
    assert node is not None
    return node


def value(text: str, name: str | int = "r", *path: str) -> Any:
    return argument(text, name, *path).plain()


def reason(text: str, name: str | int = "r", *path: str) -> str:
    node = argument(text, name, *path)
    assert node.kind == "unknown"
    assert node.plain() is UNKNOWN
    assert node.note
    return node.note


# Scopes and places -------------------------------------------------------------------------------


def test_a_call_at_the_top_of_the_file_has_no_scope() -> None:
    document = parse(PEFT + "c = LoraConfig(r=16, target_modules=['q', 'v'])\n")
    node = document.node(0, ("LoraConfig#0", "target_modules", 1))
    assert node is not None
    assert node.value == "v"
    assert document.text[slice(*node.span)] == "'v'"


def test_calls_are_found_by_class_and_function_and_number() -> None:
    text = PEFT + (
        "class Run:\n"
        "    def train(self):\n"
        "        a = LoraConfig(r=1)\n"
        "        b = [LoraConfig(r=2) for _ in 'x']\n"
        "    async def train(self):\n"
        "        return lambda: LoraConfig(r=3)\n"
    )
    root = parse(text).parts[0].node
    ranks = {
        ("Run", "train", "LoraConfig#0"): 1,
        ("Run", "train", "LoraConfig#1"): 2,
        ("Run", "train@2", "LoraConfig#0"): 3,
    }
    for path, rank in ranks.items():
        node = root.at((*path, "r"))
        assert node is not None
        assert node.value == rank


def test_the_place_of_a_scope_is_its_name_and_of_a_call_its_callee() -> None:
    text = "import peft\n@decorated('train')\nasync  def train():\n    peft.LoraConfig(r=1)\n"
    document = parse(text)
    for path, shown in ((("train",), "train"), (("train", "LoraConfig#0"), "peft.LoraConfig")):
        entry = document.entry(0, path)
        assert entry is not None
        assert text[slice(*entry.key_span)] == shown
    assert document.location(document.entry(0, ("train",)).key_span.start) == (3, 12)  # type: ignore[union-attr]


def test_a_chained_call_is_shown_at_its_last_name() -> None:
    text = "unet = make(1, 2).add_adapter(c)\n"
    entry = parse(text).entry(0, ("add_adapter#0",))
    assert entry is not None
    assert text[slice(*entry.key_span)] == "add_adapter"


def test_positional_arguments_are_kept_under_their_position() -> None:
    call = config(PEFT + "LoraConfig('LORA', None, r=8)\n")
    assert {entry.key: entry.node.plain() for entry in call.entries} == {
        0: "LORA",
        1: None,
        "r": 8,
    }


def test_calls_that_do_not_matter_are_left_out() -> None:
    text = "from peft import get_peft_config\nprint(1)\nget_peft_config({})\nMyThing(r=3)\n"
    assert parse(text).parts[0].node.entries == []


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


# Imports -----------------------------------------------------------------------------------------


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
            "try:\n    from peft import LoraConfig\nexcept ImportError:\n    LoraConfig = None\nLoraConfig(r=1)",
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
            "if a:\n    from peft import LoraConfig\nelse:\n    from b import LoraConfig\nLoraConfig(r=1)",
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


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "literal",
    [
        "16",
        "-1",
        "+3",
        "1e-4",
        "0x10",
        "1_000",
        "True",
        "None",
        "'q'",
        '"q"',
        "'''q'''",
        "r'\\.q'",
        "u'q'",
        "'a' 'b'",
        "('a'\n  'b')",
        "[1, 'a', None]",
        "()",
        "[]",
        "('q',)",
        "('q', ('v'))",
        "{}",
        "{'a': 1, 'b': [2]}",
        "'\\n\\x41\\u00e9'",
        "1e999",
        "[[1], (2,)]",
        "(16)",
        "((1), (2))",
    ],
)
def test_literals(literal: str) -> None:
    def lists(found: Any) -> Any:
        if isinstance(found, list | tuple):
            return [lists(part) for part in found]
        return {k: lists(v) for k, v in found.items()} if isinstance(found, dict) else found

    node = argument(PEFT + f"LoraConfig(r={literal})")
    assert node.plain() == lists(ast.literal_eval(literal))
    assert node.origin == "written"


@pytest.mark.parametrize(
    "expression",
    [
        "2 * r",
        "r + 1",
        "r - 1",
        "r / 2",
        "r // 3",
        "r % 5",
        "r ** 2",
        "r << 1",
        "r >> 1",
        "r | 1",
        "r & 16",
        "r ^ 1",
        "-r",
        "~r",
        "not r",
        "-(r + 1)",
        "'q' + '_proj'",
        "'ab' * 2",
        "f'{name}_proj'",
        "f'{name}{r}x'",
        "f'{name!s}'",
        "[name] + ['v']",
        "'a' 'b' f'{name}'",
        "(r := 4)",
        "r * 0.5",
    ],
)
def test_arithmetic_on_constants(expression: str) -> None:
    text = PEFT + f"r = 16\nname = 'q'\nLoraConfig(lora_alpha={expression})\n"
    assert value(
        text.replace("r = 16\n", "r = 16\n" if ":=" not in expression else ""), "lora_alpha"
    ) == (eval(expression, {"r": 16, "name": "q"}))


def test_origins() -> None:
    text = PEFT + "r = 16\nLoraConfig(r=r, lora_alpha=2 * r, target_modules=[f'{r}', 'v'])\n"
    call = config(text)
    origins = {entry.key: entry.node.origin for entry in call.entries}
    assert origins == {"r": "written", "lora_alpha": "computed", "target_modules": "computed"}


def test_dtypes_and_enums_are_strings() -> None:
    text = (
        "import torch\nimport torch as th\nfrom torch import float16\n"
        "from peft import LoraConfig, TaskType\nimport peft\nfrom transformers import SchedulerType\n"
        "LoraConfig(a=torch.bfloat16, b=th.float32, c=float16, d=TaskType.CAUSAL_LM,\n"
        "    e=peft.TaskType.SEQ_CLS, f=peft.utils.TaskType.TOKEN_CLS.value, g=SchedulerType.COSINE,\n"
        "    h=torch.float8_e4m3fn)\n"
    )
    assert config(text).plain() == {
        "a": "torch.bfloat16",
        "b": "torch.float32",
        "c": "torch.float16",
        "d": "CAUSAL_LM",
        "e": "SEQ_CLS",
        "f": "TOKEN_CLS",
        "g": "cosine",
        "h": "torch.float8_e4m3fn",
    }


def test_attributes_of_other_things_are_not_guessed() -> None:
    text = (
        PEFT
        + "import torch, settings\nLoraConfig(r=settings.R, a=torch.cuda, b=TaskType.CAUSAL_LM)\n"
    )
    call = config(text)
    assert [entry.node.kind for entry in call.entries] == ["unknown"] * 3
    assert reason(text) == "an attribute of `settings`"


def test_static_mappings_are_unpacked() -> None:
    text = PEFT + (
        "base = {'r': 16, 'bias': 'none'}\n"
        "LoraConfig(**base, **{'lora_alpha': 32}, **dict(use_dora=True))\n"
    )
    call = config(text)
    assert not calls.is_open(call)
    assert {key: call.get(key).plain() for key in ("r", "bias", "lora_alpha", "use_dora")} == {  # type: ignore[union-attr]
        "r": 16,
        "bias": "none",
        "lora_alpha": 32,
        "use_dora": True,
    }


@pytest.mark.parametrize(
    "unpacked",
    ["**load()", "**kw", "*rest", "**{'r': 8, **load()}", "**{key(): 8}", "**vars(args)"],
)
def test_a_call_says_when_it_may_have_other_arguments(unpacked: str) -> None:
    call = config(PEFT + f"def f(kw, rest, args):\n    LoraConfig({unpacked}, a=1)\n", "f")
    assert calls.is_open(call)
    assert call.get("a") is not None


def test_items_of_static_dicts_and_lists() -> None:
    text = PEFT + (
        "CFG = {'r': 8, 'targets': ['q', 'v']}\n"
        "LoraConfig(r=CFG['r'], target_modules=CFG['targets'], bias=CFG['targets'][-1], x=CFG['y'])\n"
    )
    assert config(text).plain() == {
        "r": 8,
        "target_modules": ["q", "v"],
        "bias": "v",
        "x": UNKNOWN,
    }


# Names -------------------------------------------------------------------------------------------


def test_a_module_constant_is_seen_in_functions() -> None:
    text = PEFT + "def train():\n    return LoraConfig(r=R, lora_alpha=2 * R)\nR = 16\n"
    assert config(text, "train").plain() == {"r": 16, "lora_alpha": 32}


def test_names_follow_names() -> None:
    assert value(PEFT + "a = 8\nb = a\nc = b * 2\nLoraConfig(r=c)\n") == 16


def test_unpacking() -> None:
    text = PEFT + "r, (alpha, drop) = 16, (32, 0.1)\nPAIR = (1, 2)\nx, y = PAIR\n"
    text += "LoraConfig(r=r, lora_alpha=alpha, lora_dropout=drop, a=x, b=y)\n"
    assert config(text).plain() == {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "a": 1,
        "b": 2,
    }


def test_a_script_body_and_a_with_block_count_as_straight_code() -> None:
    text = (
        PEFT
        + "if __name__ == '__main__':\n    with open('x') as f:\n        r = 8\n    LoraConfig(r=r)\n"
    )
    assert value(text) == 8


def test_a_constant_inside_a_branch_is_certain_inside_that_branch() -> None:
    assert value(PEFT + "if big:\n    r = 64\n    LoraConfig(r=r)\n") == 64


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("r = 8\nr = 16", "`r` is assigned twice"),
        ("r = 8\nr = 9\nr = 10", "`r` is assigned 3 times"),
        ("if big:\n    r = 64", "`r` is assigned in a branch, a loop or a `try`"),
        ("if big:\n    r = 64\nelse:\n    r = 8", "`r` is assigned twice"),
        (
            "try:\n    r = 64\nexcept ValueError:\n    pass",
            "`r` is assigned in a branch, a loop or a `try`",
        ),
        ("while more():\n    r = 64", "`r` is assigned in a branch, a loop or a `try`"),
        ("for r in (8, 16):\n    pass", "`r` is set by a `for` loop"),
        ("r = 8\nr += 8", "`r` is changed in place by an operator such as `+=`"),
        ("with open('x') as r:\n    pass", "`r` is set by `with`"),
        ("try:\n    pass\nexcept ValueError as r:\n    pass", "`r` is set by `except`"),
        ("r = 8\ndel r", "`r` is deleted"),
        ("match x:\n    case r:\n        pass", "`r` is set by `match`"),
        ("r = 8\ndef g():\n    global r\n    r = 9", "`r` is assigned through `global` in `g`"),
        ("print(r := 8)", "`r` is assigned inside an expression"),
        ("*r, x = [1, 2]", "`r` is unpacked from another value"),
        ("r = 8\nexec(open('configurator.py').read())", "`exec()` may change it"),
        ("r = 8\nglobals()['r'] = 9", "`globals()` may change it"),
        ("r = 8\nfrom settings import *", "a later `from settings import *` may change `r`"),
        ("from settings import *", "`r` may come from a star import"),
        ("from settings import r", "it is imported from `settings`"),
        ("import r", "it is imported from `r`"),
        ("def r(): pass", "`r` is a function"),
        ("class r: pass", "`r` is a class"),
        ("pass", "`r` is not assigned in this file"),
        ("r = rank()", "the result of a function call"),
        ("import os\nr = os.environ.get('R', 8)", "an environment variable"),
        ("import os\nr = os.environ['R']", "an environment variable"),
        ("r = 8 if big else 16", "it depends on a condition"),
        ("r = x or 8", "it depends on a condition"),
        ("r = 8 > 4", "the result of a comparison"),
        ("r = [x for x in 'ab']", "the result of a comprehension"),
        ("r = lambda: 8", "a function"),
        ("r = b'8'", "not a plain value"),
        ("r = 2 ** 2 ** 20", "an operation that is not static: a very large number"),
        ("r = 'a' * 10 ** 9", "an operation that is not static: a very long text"),
        ("r = 1 / 0", "an operation that is not static: division by zero"),
        ("r = r", "`r` is assigned after it is used"),
        ("def f():\n    return x\nx = y = f()\nr = x", "the result of a function call"),
    ],
)
def test_what_is_not_certain_is_unknown_with_the_reason(before: str, expected: str) -> None:
    assert reason(PEFT + before + "\nLoraConfig(r=r)\n") == expected


def test_a_name_assigned_after_its_use_is_unknown() -> None:
    assert reason(PEFT + "LoraConfig(r=r)\nr = 8\n") == "`r` is assigned after it is used"


def test_a_parameter_shadows_a_constant() -> None:
    assert reason(PEFT + "r = 8\ndef f(r):\n    LoraConfig(r=r)\n", "r", "f") == (
        "`r` is a parameter of `f`"
    )


def test_a_loop_variable_of_a_comprehension_shadows_a_constant() -> None:
    text = PEFT + "r = 8\n[LoraConfig(r=r) for r in (1, 2)]\nx = r\n"
    assert reason(text) == "`r` is set by a comprehension"


def test_nonlocal_is_an_assignment_to_the_outer_name() -> None:
    text = PEFT + (
        "def f():\n    r = 8\n    def g():\n        nonlocal r\n        r = 9\n    LoraConfig(r=r)\n"
    )
    assert reason(text, "r", "f") == "`r` is assigned through `nonlocal` in `g`"


def test_class_attributes_are_not_seen_in_methods() -> None:
    text = PEFT + "r = 4\nclass A:\n    r = 8\n    def f(self):\n        LoraConfig(r=r)\n"
    assert value(text, "r", "A", "f") == 4


@pytest.mark.parametrize(
    "change",
    [
        "targets.append('k')",
        "targets[0] = 'k'",
        "del targets[0]",
        "targets += ['k']",
        "other = targets\nother.append('k')",
        "fill(targets)",
        "x = [targets]\nx[0].append('k')",
        "(y := targets).append('k')",
        "targets.sort()",
    ],
)
def test_a_list_that_may_be_changed_is_unknown(change: str) -> None:
    text = PEFT + f"targets = ['q', 'v']\n{change}\nLoraConfig(target_modules=targets)\n"
    assert reason(text, "target_modules")


@pytest.mark.parametrize(
    "reading",
    [
        "print(targets)",
        "len(targets)",
        "for t in targets: pass",
        "'q' in targets",
        "x = targets[0]",
        "json.dumps(targets)",
        "wandb.init(config=targets)",
        "assert targets",
        "x = targets + ['k']",
    ],
)
def test_reading_a_list_does_not_make_it_unknown(reading: str) -> None:
    text = PEFT + f"import json, wandb\ntargets = ['q', 'v']\n{reading}\n"
    assert value(text + "LoraConfig(target_modules=targets)\n", "target_modules") == ["q", "v"]


def test_a_config_that_is_changed_afterwards_is_not_what_the_call_says() -> None:
    text = PEFT + "c = LoraConfig(r=8, lora_alpha=16)\nc.r = 64\nc.target_modules = names()\n"
    assert reason(text) == "`r` is assigned after the call"
    assert reason(text, "target_modules") == "`target_modules` is assigned after the call"
    assert value(text, "lora_alpha") == 16


def test_setattr_on_a_config_may_set_anything() -> None:
    text = PEFT + "c = LoraConfig(r=8)\nsetattr(c, key, 1)\n"
    assert calls.is_open(config(text))


# Defaults ----------------------------------------------------------------------------------------

ARGPARSE = PEFT + "import argparse\nparser = argparse.ArgumentParser()\n"


@pytest.mark.parametrize(
    ("definition", "attribute", "expected"),
    [
        ('"--r", type=int, default=16', "r", 16),
        ('"-r", "--lora-rank", type=int, default="16"', "lora_rank", 16),
        ('"--rank", dest="r", default=4', "r", 4),
        ('"--drop", type=float, default="0.1"', "drop", 0.1),
        ('"--use_dora", action="store_true"', "use_dora", False),
        ('"--no_bias", action="store_false"', "no_bias", True),
        ('"--targets", nargs="+", default=["q", "v"]', "targets", ["q", "v"]),
        ('"--r", default=None', "r", None),
        ('"-x", default=3', "x", 3),
    ],
)
def test_argparse_defaults(definition: str, attribute: str, expected: Any) -> None:
    text = ARGPARSE + (
        f"parser.add_argument({definition})\nargs = parser.parse_args()\nLoraConfig(r=args.{attribute})\n"
    )
    node = argument(text)
    assert node.plain() == expected
    assert node.origin == "default"
    assert node.note is not None
    assert node.note.startswith("the default of -")
    assert node.locked


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            'parser.add_argument("--r", type=int)\nargs = parser.parse_args()',
            "a command-line argument without a default",
        ),
        (
            'parser.add_argument("--r", default=8, required=True)\nargs = parser.parse_args()',
            "a command-line argument without a default",
        ),
        ("args = parser.parse_args()", "a command-line argument that is not defined in this file"),
        (
            'parser.add_argument("--r", default=8)\nparser.add_argument("--r", default=9)\nargs = parser.parse_args()',
            "a command-line argument that is defined more than once",
        ),
        (
            'parser.add_argument("--r", default=8)\nparser.set_defaults(r=4)\nargs = parser.parse_args()',
            "`set_defaults()` may change it",
        ),
        (
            'parser.add_argument("--r", default=8)\nargs = parser.parse_args()\nargs.r = 9',
            "an attribute `r` is assigned",
        ),
        (
            'parser.add_argument("--r", default=8)\nargs = parser.parse_args()\nsetattr(args, k, 9)',
            "`setattr()` may change it",
        ),
        (
            'parser.add_argument("--r", default="8", type=rank)\nargs = parser.parse_args()',
            "a default that a function converts",
        ),
        (
            'parser.add_argument("--r", default=8)\nargs = parser.parse_args(["--r", "9"])',
            "an attribute of `args`",
        ),
        ('parser.add_argument("--r", default=8)\nargs = other(parser)', "an attribute of `args`"),
        (
            'parser.add_argument("--r", default=compute())\nargs = parser.parse_args()',
            "the result of a function call",
        ),
    ],
)
def test_argparse_values_that_are_not_certain(rest: str, expected: str) -> None:
    assert reason(ARGPARSE + rest + "\nLoraConfig(r=args.r)\n") == expected


def test_argparse_through_functions_as_scripts_have_it() -> None:
    text = PEFT + (
        "import argparse\n"
        "def parse_args(given=None):\n"
        "    parser = argparse.ArgumentParser()\n"
        "    group = parser.add_argument_group('lora')\n"
        "    group.add_argument('--rank', type=int, default=4)\n"
        "    if given is not None:\n        args = parser.parse_args(given)\n"
        "    else:\n        args = parser.parse_args()\n"
        "    return args\n"
        "def main(args):\n"
        "    LoraConfig(r=args.rank, lora_alpha=2 * args.rank)\n"
        "if __name__ == '__main__':\n"
        "    args = parse_args()\n"
        "    main(args)\n"
    )
    assert config(text, "main").plain() == {"r": 4, "lora_alpha": 8}
    assert argument(text, "lora_alpha", "main").origin == "default"


def test_an_argument_passed_on_to_a_function_keeps_its_default() -> None:
    text = ARGPARSE + (
        "parser.add_argument('--r', default=8)\nargs, _ = parser.parse_known_args()\n"
        "def train(r=None):\n    LoraConfig(r=r)\ntrain(r=args.r)\n"
    )
    node = argument(text, "r", "train")
    assert (node.value, node.origin) == (8, "default")


DATACLASS = PEFT + (
    "from dataclasses import dataclass, field\n"
    "from transformers import HfArgumentParser, TrainingArguments\n"
    "@dataclass\nclass ModelArguments:\n"
    "    r: int = 16\n"
    "    alpha: int = field(default=32, metadata={'help': 'scale'})\n"
    "    targets: list = field(default_factory=lambda: ['q', 'v'])\n"
    "    none: list = field(default_factory=list)\n"
    "    name: str\n"
    "@dataclass\nclass Extra(ModelArguments):\n    drop: float = 0.1\n"
)


def test_dataclass_defaults_through_hf_argument_parser() -> None:
    text = DATACLASS + (
        "parser = HfArgumentParser((ModelArguments, TrainingArguments))\n"
        "args, training_args = parser.parse_args_into_dataclasses()\n"
        "LoraConfig(r=args.r, lora_alpha=args.alpha, target_modules=args.targets, a=args.none)\n"
    )
    call = config(text)
    assert call.plain() == {"r": 16, "lora_alpha": 32, "target_modules": ["q", "v"], "a": []}
    assert {entry.node.origin for entry in call.entries} == {"default"}
    assert call.get("r").note == "the default of ModelArguments.r"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "rest",
    [
        "args = HfArgumentParser(Extra).parse_args_into_dataclasses()[0]",
        "(args,) = HfArgumentParser([Extra]).parse_args_into_dataclasses()",
        "from trl import TrlParser\nargs, b = TrlParser((Extra, TrainingArguments)).parse_args_and_config()",
        "import tyro\nargs = tyro.cli(Extra)",
    ],
)
def test_other_ways_to_fill_a_dataclass(rest: str) -> None:
    text = DATACLASS + rest + "\nLoraConfig(r=args.r, lora_dropout=args.drop)\n"
    assert config(text).plain() == {"r": 16, "lora_dropout": 0.1}


def test_a_dataclass_field_without_a_default() -> None:
    text = DATACLASS + "args, = HfArgumentParser(Extra).parse_args_into_dataclasses()\n"
    assert reason(text + "LoraConfig(r=args.name)\n") == "a command-line argument without a default"


def test_a_config_class_or_object_of_the_file() -> None:
    text = DATACLASS + "cfg = ModelArguments(r=4)\nLoraConfig(r=cfg.r, lora_alpha=cfg.alpha)\n"
    assert config(text).plain() == {"r": 4, "lora_alpha": 32}
    assert value(PEFT + "class C:\n    r = 8\nLoraConfig(r=C.r)\n") == 8


@pytest.mark.parametrize(
    "text",
    [
        "class C(Enum):\n    r = 8\nLoraConfig(r=C.r)",
        "class B(Enum): pass\nclass C(B):\n    r = 8\nLoraConfig(r=C.r)",
        "class C:\n    r = 8\n    def __init__(self): self.r = 9\nLoraConfig(r=C().r)",
        "@magic\nclass C:\n    r = 8\nLoraConfig(r=C.r)",
        "class C:\n    r = 8\nC.r = 9\nLoraConfig(r=C.r)",
        "class C:\n    r = 8\n    def __getattribute__(self, n): return 1\nc = C()\nLoraConfig(r=c.r)",
        "class C(C):\n    x = 8\nLoraConfig(r=C.r)",
    ],
)
def test_attributes_that_are_not_certain(text: str) -> None:
    assert reason(PEFT + text + "\n")


def test_parameter_defaults() -> None:
    text = (
        PEFT
        + "def train(model, r: int = 16, *, alpha=32):\n    LoraConfig(r=r, lora_alpha=alpha)\n"
    )
    for calls_ in ("", "train('x')\n", "import fire\nfire.Fire(train)\n"):
        call = config(text + calls_, "train")
        assert call.plain() == {"r": 16, "lora_alpha": 32}
        assert call.get("r").origin == "default"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "rest",
    [
        "train('x', 8)",
        "train('x', r=8)",
        "train(**kw)",
        "train(*a)",
        "run(train)",
        "t = train\nt(r=8)",
        "train = wrap(train)",
    ],
)
def test_a_parameter_that_may_get_another_value(rest: str) -> None:
    text = PEFT + f"def train(model, r=16):\n    LoraConfig(r=r)\n{rest}\n"
    assert reason(text, "r", "train") == "`r` is a parameter of `train`"


@pytest.mark.parametrize(
    "text",
    [
        "@click.command()\ndef train(r=16):\n    LoraConfig(r=r)\n",
        "def train(r=16):\n    r = r or 8\n    LoraConfig(r=r)\n",
        "def train(*r):\n    LoraConfig(r=r)\n",
    ],
)
def test_parameters_that_are_not_certain(text: str) -> None:
    assert reason(PEFT + text, "r", "train")


def test_a_methods_parameter_is_unknown() -> None:
    assert reason(
        PEFT + "class A:\n    def f(self, r=1):\n        LoraConfig(r=r)\n", "r", "A", "f"
    )


# Which model belongs to which config -------------------------------------------------------------

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
        "m = A.from_pretrained('gpt2').to('cuda')\nm = prepare_model_for_kbit_training(m)\n"
        "c = LoraConfig(r=8)\nm = get_peft_model(m, peft_config=c)\n".replace("peft_config=c", "c"),
        "def f():\n    m = A.from_pretrained('gpt2')\n    m.train()\n    c = LoraConfig()\n"
        "    if x:\n        m = get_peft_model(m, c)\n    return m\n",
        "m = A.from_pretrained('gpt2')\nSFTTrainer(model=m, peft_config=LoraConfig(r=8))\n",
        "import torch\nm = torch.compile(A.from_pretrained('gpt2'))\nget_peft_model(m, LoraConfig())\n",
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


# Text, lines and columns -------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_places_in_text_that_is_not_plain_ascii(newline: str, bom: str) -> None:
    lines = [
        "from peft import LoraConfig",
        "# \u00e9\u4e2d\U0001f600 \x0c \u2028 \x85",
        "\x0cs = '''\u4e2d",
        "\t\x0b\u2029'''",
        "if 1:",
        "\tname = '\U0001f600'; c = LoraConfig(a='\u4e2d', r=16, target_modules=['\u00e9', \"v\"])",
    ]
    text = bom + newline.join(lines) + newline
    document = parse(text)
    expected = {"a": "'\u4e2d'", "r": "16", "target_modules": "['\u00e9', \"v\"]"}
    call = document.node(0, ("LoraConfig#0",))
    assert call is not None
    for entry in call.entries:
        assert text[slice(*entry.key_span)] == entry.key
        assert text[slice(*entry.node.span)] == expected[str(entry.key)]
    assert document.location(call.span.start) == (6, lines[-1].index("LoraConfig") + 1)
    (comment,) = document.comments()
    assert comment.text == lines[1][1:]
    assert text[slice(*comment.span)] == lines[1]


def test_comments_are_told_from_strings() -> None:
    text = "a = '#1'  # one\nb = '''\n# two\n''' # three\nc = f'{a}#4'\n(\n  # five\n)\n"
    assert [comment.text for comment in parse(text).comments()] == [" one", " three", " five"]


def test_invalid_escapes_warn_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value(PEFT + "LoraConfig(target_modules='.*\\.q_proj')\n", "target_modules") == (
            ".*\\.q_proj"
        )


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("x = 1\ny = (\n", 2, 5),
        ("\ufeffx = = 1\n", 1, 5),
        ("é = 'é' +* 2", 1, 10),
        ("if x:\ny\n", 2, 1),
    ],
)
def test_a_file_that_does_not_parse(text: str, line: int, column: int) -> None:
    document = python.parse("a.py", text)
    assert document.problem is not None
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert document.problem.message.startswith(f"it does not parse as Python {version}: ")
    assert document.location(document.problem.span.start) == (line, column)
    assert document.parts == []


NESTED = {
    "brackets": '"[" * 100_000',
    "balanced": '"(" * 150 + "1" + ")" * 150',
    "signs": '"-" * 100_000 + "1"',
    "attributes": '"a" + ".b" * 100_000',
    "items": '"a" + "[0]" * 50_000',
    "sums": '"LoraConfig(r=1" + "+1" * 100_000 + ")"',
    "long sums": '"LoraConfig(r=1" + "+1" * 900 + ")"',
    "calls": '"LoraConfig(a=" * 60 + "1" + ")" * 60',
    "elifs": '"if a:\\n LoraConfig()\\n" + "elif a:\\n LoraConfig()\\n" * 900',
    "methods": '"m = A.from_pretrained(1)" + ".to(2)" * 900 + "\\nget_peft_model(m, LoraConfig())"',
    "names": '"a0 = 1\\n" + "".join(f"a{i+1} = a{i}\\n" for i in range(5000)) + "LoraConfig(r=a5000)"',
    "models": '"m = A.from_pretrained(1)\\n" + "m = get_peft_model(m, m)\\n" * 300 + "Trainer(m)"',
    "bomb": '"a0 = [1]\\n" + "".join(f"a{i+1} = [a{i}, a{i}]\\n" for i in range(60)) + "LoraConfig(r=a60)"',
    "null": '"a = 1\\0"',
    "surrogate": '"a = chr(1) \\ud800"',
    "digits": '"LoraConfig(r=" + "9" * 100_000 + ")"',
}


@pytest.mark.parametrize("name", NESTED)
def test_hostile_files_give_an_answer(name: str) -> None:
    code = (
        "from lora_lint.documents import python, calls\n"
        "from lora_lint.recipe import UNKNOWN\n"
        f"text = {NESTED[name]}\n"
        "d = python.parse('a.py', text)\n"
        "assert (d.problem is None) != (d.parts == []), d.problem\n"
        "for site in calls.sites(d):\n"
        "    site.call.plain(); calls.is_open(site.call)\n"
        "print(d.problem.message if d.problem else 'read')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


# Edits -------------------------------------------------------------------------------------------


def edited(text: str, operation: str, *arguments: Any, path: tuple[str | int, ...] = ()) -> str:
    document = parse(text)
    node = document.node(0, ("LoraConfig#0", *path))
    assert node is not None
    if operation in ("remove_key", "rename_key"):
        entry = node.entry(arguments[0])
        assert entry is not None
        arguments = (entry, *arguments[1:])
    after = apply_edits(text, getattr(document, operation)(node, *arguments))
    ast.parse(after)
    return after


def replaced(source: str, new: Any, name: str = "x") -> str:
    """What replaces the value of an argument written in some way."""
    head, tail = f"{PEFT}LoraConfig({name}=", ")\n"
    after = edited(head + source + tail, "replace", new, path=(name,))
    assert after.startswith(head)
    assert after.endswith(tail)
    return after[len(head) : -len(tail)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("16", 32, "32"),
        ("-1", 32, "32"),
        ("1", -0.5, "-0.5"),
        ("1", 1e-05, "1e-05"),
        ("1", float("inf"), 'float("inf")'),
        ("True", False, "False"),
        ("'a'", "b", "'b'"),
        ('"a"', "b", '"b"'),
        ("'a'", "it's", "'it\\'s'"),
        ('"a"', 'say "é"\n', '"say \\"é\\"\\n"'),
        ("r'a\\.b'", "c\\.d", "r'c\\.d'"),
        ("r'a\\.b'", "c\\", "'c\\\\'"),
        ("'''a'''", "b", "'b'"),
        ("'a' \"b\"", "c", "'c'"),
        ("'a'", ["q", "v"], "['q', 'v']"),
        ("['a', 'b']", "all-linear", "'all-linear'"),
        ("['q', \"v\"]", ["q", "o"], "['q', \"o\"]"),
        ("['q', 'v']", ["q"], "['q']"),
        ("['q', 'v']", ["v"], "['v']"),
        ("['q', 'v']", [], "[]"),
        ("[]", ["q"], '["q"]'),
        ("[ 'q' , ]", ["q", "v"], "[ 'q', 'v' , ]"),
        ("('q', 'v')", ["q"], "('q',)"),
        ("('q',)", ["q", "v"], "('q', 'v',)"),
        ("('q', 'v')", ["q", "o"], "('q', 'o')"),
        ("('q', 'v')", [], "()"),
        ("()", ["q"], '("q",)'),
        ("{'q', 'v'}", ["q"], "{'q'}"),
        ("{'q', 'v'}", [], "set()"),
        ("['q', ('v')]", ["q", "v", "o"], "['q', ('v'), 'o']"),
        ("(['q'])", ["q", "v"], "(['q', 'v'])"),
        ("{'a': 1}", {"b": [2]}, '{"b": [2]}'),
        ("None", None, "None"),
        ("(1\n  )", 2, "2"),
    ],
)
def test_a_literal_is_replaced_in_its_own_style(old: str, new: Any, expected: str) -> None:
    if "{'a'" in old:
        expected = expected.replace('"', "'")
    assert replaced(old, new) == expected


def test_dtypes_and_enums_are_replaced_in_place() -> None:
    text = "import torch as th\nfrom peft import LoraConfig, TaskType\n"
    text += "LoraConfig(a=th.float16, b=TaskType.CAUSAL_LM)\n"
    assert "a=th.bfloat16," in edited(text, "replace", "torch.bfloat16", path=("a",))
    assert 'b="SEQ_CLS")' in edited(text, "replace", "SEQ_CLS", path=("b",))


LINES = (
    PEFT + "config = LoraConfig(\n    r=16,  # rank\n    target_modules=[\n        'q',  # query\n"
    "        # between\n        'v',\n    ],  # what\n    # above\n    lora_alpha=32  # scale\n)\n"
)


def test_lists_are_edited_entry_by_entry_and_comments_stay() -> None:
    path = ("target_modules",)
    assert edited(LINES, "replace", ["q"], path=path) == LINES.replace("        'v',\n", "")
    assert edited(LINES, "replace", ["v"], path=path) == LINES.replace(
        "        'q',  # query\n", ""
    )
    assert edited(LINES, "replace", ["q", "v", "k"], path=path) == LINES.replace(
        "        'v',\n", "        'v',\n        'k',\n"
    )
    assert edited(LINES, "replace", ["q", "k", "v"], path=path) == LINES.replace(
        "# query\n", "# query\n        'k',\n"
    )
    with pytest.raises(NotEditable, match="comment"):
        edited(LINES, "replace", "all-linear", path=path)


def test_a_keyword_is_inserted_on_a_line_of_its_own() -> None:
    assert edited(LINES, "insert_key", "bias", "none") == LINES.replace(
        "lora_alpha=32  # scale\n", "lora_alpha=32,  # scale\n    bias='none'\n"
    )
    assert edited(LINES, "insert_key", "bias", "none", ["r"]) == LINES.replace(
        "# rank\n", "# rank\n    bias='none',\n"
    )
    assert edited(LINES, "insert_key", "bias", "none", ["target_modules", "nope"]) == LINES.replace(
        "# what\n", "# what\n    bias='none',\n"
    )


def test_a_keyword_is_removed_with_its_line() -> None:
    assert edited(LINES, "remove_key", "r") == LINES.replace("    r=16,  # rank\n", "")
    last = LINES.replace("    # above\n    lora_alpha=32  # scale\n", "    # above\n")
    assert edited(LINES, "remove_key", "lora_alpha") == last.replace("],  # what", "]  # what")
    with pytest.raises(NotEditable, match="comment"):
        edited(LINES, "remove_key", "target_modules")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("()", "(n=1)"),
        ("( )", "( n=1)"),
        ("(\n    # nothing yet\n)", "(\n    # nothing yet\nn=1)"),
        ("(r=8)", "(r=8, n=1)"),
        ("(r=8,)", "(r=8, n=1,)"),
        ("(r=(8))", "(r=(8), n=1)"),
        ("(r=((8)  # c\n))", "(r=((8)  # c\n), n=1)"),
        ("(r=8 # c\n)", "(r=8, n=1 # c\n)"),
        ("('LORA')", "('LORA', n=1)"),
        ("(('LORA'))", "(('LORA'), n=1)"),
        ("(r=8, **kw)", "(r=8, n=1, **kw)"),
        ("(**kw)", "(n=1, **kw)"),
        ("(*a)", "(*a, n=1)"),
        ("(*a, **kw)", "(*a, n=1, **kw)"),
        ("(1, *a, **kw)", "(1, *a, n=1, **kw)"),
        ("(1, *a, r=8)", "(1, *a, r=8, n=1)"),
        ("(r=8, *a)", "(r=8, n=1, *a)"),
        ("(x for x in y)", "((x for x in y), n=1)"),
        ("(x for x in (y))", "((x for x in (y)), n=1)"),
        ("(1, (x for x in y))", "(1, (x for x in y), n=1)"),
        ("(r=lambda: 0)", "(r=lambda: 0, n=1)"),
        ("(r=8 if x else 9)", "(r=8 if x else 9, n=1)"),
        ("(\n    r=8,\n)", "(\n    r=8,\n    n=1,\n)"),
        ("(\n\tr=8\n)", "(\n\tr=8,\n\tn=1\n)"),
        ("(\n    r=8\n    ,\n)", "(\n    r=8,\n    n=1\n    ,\n)"),
        ("(\n    r=8  # c\n    ,  # d\n)", "(\n    r=8,\n    n=1  # c\n    ,  # d\n)"),
        ("(r=8,\n           b=9)", "(r=8,\n           b=9, n=1)"),
        ("(\n    **kw,\n)", "(\n    n=1, **kw,\n)"),
        ("(r=8, \\\n  b=9)", "(r=8, \\\n  b=9, n=1)"),
    ],
)
def test_a_keyword_is_inserted_in_every_kind_of_call(call: str, expected: str) -> None:
    head = PEFT + "c = LoraConfig"
    assert edited(head + call + "\n", "insert_key", "n", 1) == head + expected + "\n"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("(r=8)", "()"),
        ("(r=8,)", "()"),
        ("(r=8, b=1)", "(b=1)"),
        ("(b=1, r=8)", "(b=1)"),
        ("(b=1, r=(8), **kw)", "(b=1, **kw)"),
        ("('LORA', r=8)", "('LORA')"),
        ("(\n    b=1,\n    r=8\n)", "(\n    b=1\n)"),
        ("(\n    b=1,\n    r=8,\n)", "(\n    b=1,\n)"),
        ("(\n    r=f(\n        8,\n    ),\n    b=1\n)", "(\n    b=1\n)"),
    ],
)
def test_a_keyword_is_removed_from_every_kind_of_call(call: str, expected: str) -> None:
    head = PEFT + "c = LoraConfig"
    assert edited(head + call + "\n", "remove_key", "r") == head + expected + "\n"


def test_a_keyword_is_renamed() -> None:
    text = PEFT + "LoraConfig(rank = 8, **{'alpha': 1})\n"
    assert edited(text, "rename_key", "rank", "r") == text.replace("rank", "r")
    with pytest.raises(NotEditable):
        edited(text, "rename_key", "alpha", "lora_alpha")
    with pytest.raises(NotEditable, match="keyword of a call"):
        edited(text, "rename_key", "rank", "not a name")


@pytest.mark.parametrize("key", ["class", "a b", "lora-alpha", ""])
def test_only_identifiers_become_keywords(key: str) -> None:
    with pytest.raises(NotEditable, match="keyword of a call"):
        edited(PEFT + "LoraConfig()\n", "insert_key", key, 1)


def test_a_keyword_that_is_there_is_not_inserted_again() -> None:
    with pytest.raises(NotEditable, match="given already"):
        edited(PEFT + "kw = {'r': 8}\nLoraConfig(**kw)\n", "insert_key", "r", 1)


def test_a_positional_argument_is_not_removed() -> None:
    with pytest.raises(NotEditable, match="positional"):
        edited(PEFT + "LoraConfig(1, r=2)\n", "remove_key", 0)


def test_keys_of_dict_literals() -> None:
    text = PEFT + "LoraConfig(rank_pattern={'q': 8, 'v': 4})\n"
    path = ("rank_pattern",)
    assert edited(text, "insert_key", "k", 2, path=path) == text.replace("4}", "4, 'k': 2}")
    assert edited(text, "remove_key", "q", path=path) == text.replace("'q': 8, ", "")
    assert edited(text, "rename_key", "q", "k", path=path) == text.replace("'q'", "'k'")


def test_a_value_behind_a_name_is_shown_at_the_call_and_edited_where_it_is_assigned() -> None:
    text = (
        PEFT
        + "R = 16\nTARGETS = [\n    'q',\n    'v',\n]\n\nLoraConfig(r=R, target_modules=TARGETS)\n"
    )
    document = parse(text)
    node = document.node(0, ("LoraConfig#0", "r"))
    assert node is not None
    assert document.location(node.span.start) == (8, 14)
    assert edited(text, "replace", 8, path=("r",)) == text.replace("16", "8")
    assert edited(text, "replace", ["q", "k"], path=("target_modules",)) == text.replace(
        "'v'", "'k'"
    )
    item = document.node(0, ("LoraConfig#0", "target_modules", 1))
    assert item is not None
    assert document.location(item.span.start) == (5, 5)


def test_a_dict_that_is_unpacked_once_is_edited_in_place() -> None:
    text = PEFT + "kw = {'r': 8}\nLoraConfig(**kw)\n"
    assert edited(text, "replace", 16, path=("r",)) == text.replace("8", "16")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("r = 8\nLoraConfig(r=r, lora_alpha=2 * r)", "the name `r` is used twice"),
        ("r = 8\nprint(f'{r}')\nLoraConfig(r=r)", "the name `r` is used twice"),
        ("a = 8\nr = a\nprint(a)\nLoraConfig(r=r)", "the name `a` is used twice"),
        ("a = r = 8\nLoraConfig(r=r)", "given to other names"),
        ("LoraConfig(r=2 * 4)", "computed"),
        ("LoraConfig(r=f())", "not known"),
        ("def f(r=8):\n    LoraConfig(r=r)", "default of the parameter"),
        ("kw = {'r': 8}\nLoraConfig(**kw)\nLoraConfig(**kw)", "used twice"),
        ("T = ['q']\nLoraConfig(r=T, b=T)", "used twice"),
        ("LoraConfig(r=[*'ab'])", "not known"),
        ("A = ['q']\nLoraConfig(r=[*A, 'v'])", "put together"),
        ("LoraConfig(r=['q'] + ['v'])", "computed"),
        ("LoraConfig(r=dict(a=1))", "result of a call"),
    ],
)
def test_what_can_not_be_edited_says_why(text: str, expected: str) -> None:
    document = parse(PEFT + text + "\n")
    (site, *_) = calls.sites(document)
    node = site.call.get("r")
    assert node is not None
    with pytest.raises(NotEditable, match=expected):
        document.replace(node, 1)


def test_items_behind_a_name_that_is_used_twice_are_locked() -> None:
    document = parse(PEFT + "T = ['q']\nLoraConfig(r=T, b=T)\n")
    item = document.node(0, ("LoraConfig#0", "r", 0))
    assert item is not None
    with pytest.raises(NotEditable, match="used twice"):
        document.replace(item, "v")
    with pytest.raises(NotEditable, match="scope"):
        document.insert_key(document.parts[0].node, "r", 1)
