"""Random calls stay valid Python under edits, and only what was meant has changed."""

from __future__ import annotations

import ast
import io
import tokenize
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lora_lint.documents import python
from lora_lint.documents.document import NotEditable
from lora_lint.documents.tree import Node
from lora_lint.fixes import apply_edits

KEYS = ("r", "lora_alpha", "target_modules", "bias", "init")
NEW = ("use_dora", "n")
quiet = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

words = st.text(st.sampled_from("abcö中😀'\"\\ .*#\n\t{}"), max_size=6)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 99), st.floats(allow_nan=False), words
)
plain_values = st.one_of(scalars, st.lists(scalars, max_size=4))


@st.composite
def quoted(draw: st.DrawFn) -> str:
    text = draw(words)
    style = draw(st.sampled_from(["'", '"', "'''", "r'", "both"]))
    if style == "r'" and text.isprintable() and "'" not in text and not text.endswith("\\"):
        return f"r'{text}'"
    if style == "'''" and "'" not in text and "\\" not in text:
        return f"'''{text}'''"
    if style == "both":
        return f"'x' {text!r}"
    return repr(text) if style == "'" else '"' + repr('"' + text)[2:-1].replace('"', '\\"') + '"'


blank = st.sampled_from(["", "", "", " ", "\n", " # c, ö)\n", "\n  # d ]\n\t", " \\\n "])


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> str:
    kind = draw(st.integers(0, 9))
    if kind < 3:
        text = draw(st.sampled_from(["16", "-1", "True", "None", "1e-4", "x", "2 * x", "f(1)"]))
    elif kind < 6 or depth > 1:
        text = draw(quoted())
    elif kind == 6:
        text = draw(
            st.sampled_from(["lambda: 0", "1 if x else 2", "x.y", "[*x]", "{'a': 1}", "(1, 2)"])
        )
    else:
        text = draw(displays(depth))
    if draw(st.integers(0, 5)) == 0:
        text = f"({draw(blank)}{text}{draw(blank)})"
    return text


@st.composite
def displays(draw: st.DrawFn, depth: int) -> str:
    opening, closing = draw(st.sampled_from(["[]", "[]", "()", "{}"]))
    items = draw(st.lists(values(depth + 1), max_size=3))
    parts = [f"{draw(blank)}{item}{draw(blank)}" for item in items]
    if opening != "[" and not items:
        return "[]"
    trailing = "," if len(items) == 1 and opening == "(" else draw(st.sampled_from(["", ","]))
    return opening + ",".join(parts) + (trailing if items else "") + draw(blank) + closing


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    positional = draw(st.lists(values(), max_size=2))
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=4, unique=True))
    parts = list(positional)
    if draw(st.integers(0, 6)) == 0:
        parts.append("*rest")
    parts += [
        f"{k}{draw(st.sampled_from(['=', ' = ', '=  # e' + chr(10)]))}{draw(values())}"
        for k in keys
    ]
    if draw(st.integers(0, 4)) == 0:
        parts.append("**kw")
    return parts


@st.composite
def programs(draw: st.DrawFn) -> str:
    """A file with one call, in one of the layouts that people use, and in some that they don't."""
    parts = draw(arguments())
    layout = draw(st.sampled_from(["inline", "lines", "hugging", "wild"]))
    trailing = draw(st.sampled_from(["", ","])) if parts else ""
    if draw(st.integers(0, 20)) == 0:
        parts, trailing, layout = ["x for x in y"], "", "inline"
    if layout == "inline":
        inside = ", ".join(parts) + trailing
    elif layout == "lines":
        notes = [draw(st.sampled_from(["", "", "  # why, )"])) for _ in parts]
        above = [draw(st.sampled_from(["", "", "    # above\n"])) for _ in parts]
        lines = [
            f"{up}    {part}{',' if number < len(parts) - 1 else trailing}{note}\n"
            for number, (part, note, up) in enumerate(zip(parts, notes, above, strict=True))
        ]
        inside = "\n" + "".join(lines)
    elif layout == "hugging":
        inside = (",\n" + " " * 15).join(parts) + trailing
    else:
        spaced = [f"{draw(blank)}{part}{draw(blank)}" for part in parts]
        inside = ",".join(spaced) + trailing + draw(blank)
    text = f"from peft import LoraConfig\né = [LoraConfig({inside}), 2]  # end\n"
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    bom = draw(st.sampled_from(["", "", "\ufeff"]))
    try:
        ast.parse(text)
    except SyntaxError:
        assume(False)
    return bom + text.replace("\n", newline)


def the_call(text: str) -> ast.Call:
    tree = ast.parse(text.removeprefix("\ufeff"))
    return next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and _named(n))


def _named(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "LoraConfig"


def dump(call: ast.Call) -> tuple[list[str], list[str]]:
    """A call's arguments in a form in which the order of keywords does not matter."""
    return (
        [ast.dump(a) for a in call.args],
        sorted(f"{k.arg}={ast.dump(k.value)}" for k in call.keywords),
    )


def comments(text: str) -> list[str]:
    lines = io.StringIO(text.removeprefix("\ufeff"), newline="")
    return [
        t.string for t in tokenize.generate_tokens(lines.readline) if t.type == tokenize.COMMENT
    ]


def read(text: str) -> tuple[python.PythonDocument, Node]:
    document = python.parse("a.py", text)
    assert document.problem is None
    node = document.node(0, ("LoraConfig#0",))
    assert node is not None
    return document, node


def outside(text: str, after: str) -> None:
    """Nothing before the call's bracket or behind it has changed."""
    head = text.index("LoraConfig(") + len("LoraConfig(")
    assert after.startswith(text[:head])
    end = text.rindex("), 2]  # end")
    assert after.endswith(text[end:])


@quiet
@given(programs(), st.sampled_from(NEW), plain_values, st.lists(st.sampled_from(KEYS), max_size=2))
def test_insert(text: str, key: str, value: Any, near: list[str]) -> None:
    document, call = read(text)
    after = apply_edits(text, document.insert_key(call, key, value, near))
    before_args, before_keys = dump(the_call(text))
    args, keys = dump(the_call(after))
    assert args == before_args
    new = [k.value for k in the_call(after).keywords if k.arg == key]
    assert len(new) == 1
    if "inf" not in repr(value):
        assert same(ast.literal_eval(new[0]), value)
    assert sorted([*before_keys, f"{key}={ast.dump(new[0])}"]) == keys
    assert comments(after) == comments(text)
    outside(text, after)
    _, again = read(after)
    for entry in call.entries:
        if isinstance(entry.key, str) and entry.key not in ("*", "**"):
            assert again.get(entry.key).plain() == entry.node.plain()  # type: ignore[union-attr]


@quiet
@given(programs(), st.sampled_from(KEYS))
def test_remove(text: str, key: str) -> None:
    document, call = read(text)
    entry = call.entry(key)
    assume(entry is not None)
    assert entry is not None
    try:
        edits = document.remove_key(call, entry)
    except NotEditable:
        assert "#" in text or "\n" in text
        return
    after = apply_edits(text, edits)
    args, keys = dump(the_call(text))
    kept = [k for k in keys if not k.startswith(f"{key}=")]
    assert dump(the_call(after)) == (args, kept)
    outside(text, after)


@quiet
@given(programs(), st.sampled_from(KEYS), plain_values)
def test_replace(text: str, key: str, value: Any) -> None:
    document, call = read(text)
    node = call.get(key)
    assume(node is not None)
    assert node is not None
    try:
        edits = document.replace(node, value)
    except NotEditable:
        return
    after = apply_edits(text, edits)
    args, keys = dump(the_call(text))
    new = next(k.value for k in the_call(after).keywords if k.arg == key)
    kept = [k for k in keys if not k.startswith(f"{key}=")]
    assert dump(the_call(after)) == (args, sorted([*kept, f"{key}={ast.dump(new)}"]))
    if "inf" not in repr(value):
        assert same(evaluated(new), value), after
    outside(text, after)
    missing = set(comments(text)) - set(comments(after))
    assert not missing or node.kind == "sequence", "a comment was lost"


def evaluated(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and not node.args:
        return []  # set()
    return ast.literal_eval(node)


def same(found: Any, wished: Any) -> bool:
    """Equal with types, where a list may be written as a tuple or a set."""
    if isinstance(found, set):
        return set(map(repr, found)) == set(map(repr, wished))
    if isinstance(found, list | tuple) and isinstance(wished, list):
        return len(found) == len(wished) and all(map(same, found, wished))
    return type(found) is type(wished) and found == wished


@quiet
@given(programs(), st.sampled_from(KEYS))
def test_values_are_those_of_literal_eval(text: str, key: str) -> None:
    _, call = read(text)
    node = call.get(key)
    assume(node is not None)
    assert node is not None
    expression = next(k.value for k in the_call(text).keywords if k.arg == key)
    try:
        expected = literal(expression)
    except (ValueError, TypeError):
        assert node.kind in ("unknown", "sequence") or node.origin == "computed"
        return
    assert repr(node.plain()) == repr(expected)


def literal(node: ast.expr) -> Any:
    """What ``ast.literal_eval`` says, with tuples and sets as lists in the order of the text."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [literal(item) for item in node.elts]
    return ast.literal_eval(node)
