"""Defaults that a user may override are read as defaults."""

from __future__ import annotations

from typing import Any

import pytest

from lora_lint.documents import calls
from tests.documents.python_files import PEFT, argument, config, parse, reason, value

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
        f"parser.add_argument({definition})\nargs = parser.parse_args()\n"
        f"LoraConfig(r=args.{attribute})\n"
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
            (
                'parser.add_argument("--r", default=8)\n'
                'parser.add_argument("--r", default=9)\nargs = parser.parse_args()'
            ),
            "a command-line argument that is defined more than once",
        ),
        (
            (
                'parser.add_argument("--r", default=8)\nparser.set_defaults(r=4)\n'
                "args = parser.parse_args()"
            ),
            "`set_defaults()` may change it",
        ),
        (
            'parser.add_argument("--r", default=8)\nargs = parser.parse_args()\nargs.r = 9',
            "an attribute `r` is assigned",
        ),
        (
            (
                'parser.add_argument("--r", default=8)\nargs = parser.parse_args()\n'
                "setattr(args, k, 9)"
            ),
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
        (
            "from trl import TrlParser\n"
            "args, b = TrlParser((Extra, TrainingArguments)).parse_args_and_config()"
        ),
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
        (
            "class C:\n    r = 8\n    def __getattribute__(self, n): return 1\n"
            "c = C()\nLoraConfig(r=c.r)"
        ),
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
        "train('x', r=8)\ntrain('x', r=4)",
        "train('x', r=choose())",
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


@pytest.mark.parametrize("rest", ["train('x', 8)", "train('x', r=8)", "n = 8\ntrain('x', n)"])
def test_what_the_one_call_passes_is_a_value_that_the_run_may_have(rest: str) -> None:
    node = argument(PEFT + f"def train(model, r=16):\n    LoraConfig(r=r)\n{rest}\n", "r", "train")
    assert node.value == 8
    assert node.origin == "default"
    assert node.locked
    assert "the one call of `train`" in (node.note or "")


def test_a_model_that_is_a_parameter_may_be_the_one_that_is_passed() -> None:
    text = (
        "from peft import get_peft_model\nfrom transformers import AutoModel\n"
        "def adapt(model):\n    return get_peft_model(model, LoraConfig())\n"
        "adapt(AutoModel.from_pretrained('gpt2'))\n"
    )
    document = parse(PEFT + text)
    call = document.node(0, ("adapt", "get_peft_model#0"))
    assert call is not None
    given = call.get(0)
    assert given is not None
    assert given.kind == "unknown"
    (model,) = calls.model_calls(given)
    assert model.note == "transformers.AutoModel.from_pretrained"
