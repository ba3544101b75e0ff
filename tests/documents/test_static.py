"""What the text of a program says for certain, and why the rest is unknown."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from lora_lint.documents import calls
from lora_lint.recipe import UNKNOWN
from tests.documents.python_files import PEFT, argument, config, parse, reason, value


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
        "from peft import LoraConfig, TaskType\nimport peft\n"
        "from transformers import SchedulerType\n"
        "LoraConfig(a=torch.bfloat16, b=th.float32, c=float16, d=TaskType.CAUSAL_LM,\n"
        "    e=peft.TaskType.SEQ_CLS, f=peft.utils.TaskType.TOKEN_CLS.value, "
        "g=SchedulerType.COSINE,\n"
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
        "LoraConfig(r=CFG['r'], target_modules=CFG['targets'], "
        "bias=CFG['targets'][-1], x=CFG['y'])\n"
    )
    assert config(text).plain() == {
        "r": 8,
        "target_modules": ["q", "v"],
        "bias": "v",
        "x": UNKNOWN,
    }


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
    text = PEFT + (
        "if __name__ == '__main__':\n    with open('x') as f:\n        r = 8\n    LoraConfig(r=r)\n"
    )
    assert value(text) == 8


def test_a_constant_inside_a_branch_is_certain_inside_that_branch() -> None:
    assert value(PEFT + "if big:\n    r = 64\n    LoraConfig(r=r)\n") == 64


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("r = 8\nif big:\n    r = 16", "`r` is assigned twice"),
        ("r = 8\nr = 9\nfor _ in range(2):\n    r = 10", "`r` is assigned 3 times"),
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


def test_the_last_of_several_assignments_counts() -> None:
    assert value(PEFT + "r = 8\nr = 16\nLoraConfig(r=r)\n") == 16
    assert value(PEFT + "r = 8\nif big:\n    r = 4\nr = 16\nLoraConfig(r=r)\nr = 2\n") == 16
    assert value(PEFT + "t = [1]\nt = [2]\nLoraConfig(r=t)\n") == [2]


@pytest.mark.parametrize(
    "text",
    [
        "r = 8\nfor _ in range(2):\n    LoraConfig(r=r)\n    r = 16\n",
        "r = 8\nr = 16\ndef f():\n    LoraConfig(r=r)\nr = 4\n",
        "r = 8\nr = 16\ndef g():\n    global r\n    r = 2\ng()\nLoraConfig(r=r)\n",
        "r = [8]\nr = [16]\nr.append(4)\nLoraConfig(r=r)\n",
        "r = 8\nr = 16\nfrom other import *\nLoraConfig(r=r)\n",
        "r = 8\nr = 16\nf = lambda: LoraConfig(r=r)\nr = 4\nf()\n",
    ],
    ids=["loop", "function", "global", "changed", "star", "lambda"],
)
def test_several_assignments_that_leave_the_value_open(text: str) -> None:
    path = ("f",) if "def f" in text else ()
    assert argument(PEFT + text, "r", *path).kind == "unknown"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("int('8')", 8),
        ("float(1)", 1.0),
        ("bool(0)", False),
        ("str(3)", "3"),
        ("list(('a', 'b'))", ["a", "b"]),
        ("sorted(['b', 'a'])", ["a", "b"]),
        ("'q,v'.split(',')", ["q", "v"]),
        ("' Q '.strip().lower()", "q"),
        ("[t.strip() for t in 'q, v,'.split(',') if t.strip()]", ["q", "v"]),
        ("[f'{t}_proj' for t in ['q', 'v']]", ["q_proj", "v_proj"]),
        ("[t for t in ['q', 'v']]", ["q", "v"]),
    ],
)
def test_conversions(expression: str, expected: object) -> None:
    node = argument(PEFT + f"LoraConfig(r={expression})")
    assert node.plain() == expected
    assert node.origin == "computed"
    assert node.locked


@pytest.mark.parametrize(
    "expression",
    [
        "int('x')",
        "int('8', 16)",
        "int(x)",
        "list(x)",
        "'a'.split(sep=',')",
        "'a'.split('')",
        "[t + 'x' for t in ['q']]",
        "[t for t in ['q'] for u in ['v']]",
        "[f(t) for t in ['q']]",
        "[t for t in ['q'] if t in names]",
        "x.split(',')",
        f"'{'a' * 1000}'.replace('', '{'b' * 1000}').replace('', '{'c' * 1000}')",
    ],
)
def test_conversions_that_are_not_certain(expression: str) -> None:
    assert argument(PEFT + f"LoraConfig(r={expression})").kind == "unknown"


def test_a_conversion_that_the_file_defines_itself_is_none() -> None:
    assert argument(PEFT + "def int(x):\n    return 3\nLoraConfig(r=int(8))\n").kind == "unknown"


def test_a_conversion_of_a_default_is_a_default() -> None:
    text = (
        "import argparse\np = argparse.ArgumentParser()\n"
        "p.add_argument('--targets', default='q_proj,v_proj')\nargs = p.parse_args()\n"
        "LoraConfig(r=args.targets.split(','))\n"
    )
    node = argument(PEFT + text)
    assert node.plain() == ["q_proj", "v_proj"]
    assert node.origin == "default"


def test_a_config_that_is_only_written_to_a_file_is_no_run() -> None:
    assert not parse(PEFT + "LoraConfig(r=8).save_pretrained('x')\n").parts[0].node.entries


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
        "def f():\n    r = 8\n    def g():\n        nonlocal r\n        r = 9\n"
        "    LoraConfig(r=r)\n"
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


def test_functions_that_return_each_other_are_read_in_no_time() -> None:
    functions = "".join(
        f"def f{n}():\n    return f{n + 1}() if x else f{n + 1}()\n" for n in range(30)
    )
    text = f"{PEFT}{functions}def f30():\n    return f0()\nLoraConfig(r=f0())\n"
    assert argument(text).kind == "unknown"
