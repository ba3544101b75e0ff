"""Python files: where things stand, what can't be read, and how values are edited."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from typing import Any

import pytest

from lora_lint.documents import calls, python
from lora_lint.documents.document import NotEditable
from lora_lint.fixes import apply_edits
from tests.documents.python_files import PEFT, config, parse, value

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
    "names": (
        '"a0 = 1\\n" + "".join(f"a{i+1} = a{i}\\n" for i in range(5000)) + "LoraConfig(r=a5000)"'
    ),
    "models": '"m = A.from_pretrained(1)\\n" + "m = get_peft_model(m, m)\\n" * 300 + "Trainer(m)"',
    "bomb": (
        '"a0 = [1]\\n" + "".join(f"a{i+1} = [a{i}, a{i}]\\n'
        '" for i in range(60)) + "LoraConfig(r=a60)"'
    ),
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
