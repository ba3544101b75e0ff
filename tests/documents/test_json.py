"""JSON: exact places, the values of Python's json module, and its strictness."""

from __future__ import annotations

import json as reference

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint.documents import json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(VALUES, st.sampled_from([None, 2, 4]), st.booleans())
def test_values_are_those_of_the_json_module(
    value: object, indent: int | None, ascii_: bool
) -> None:
    text = reference.dumps(value, indent=indent, ensure_ascii=ascii_)
    document = json.parse("a.json", text)
    assert document.problem is None
    assert document.parts[0].node.plain() == value


@given(st.text(max_size=40))
def test_it_accepts_what_the_json_module_accepts(text: str) -> None:
    try:
        reference.loads(text)
        accepted = True
    except (ValueError, RecursionError):
        accepted = False
    assert (json.parse("a.json", text).problem is None) == accepted


def test_places() -> None:
    text = '\ufeff{"targets": ["q_proj", "v\\u005fproj"],\r\n "ü": 1e-4}'
    document = json.parse("a.json", text)
    node = document.node(0, ("targets", 1))
    assert node is not None
    assert document.text[node.span.start : node.span.end] == '"v\\u005fproj"'
    assert node.value == "v_proj"
    number = document.node(0, ("ü",))
    assert number is not None
    assert number.value == 0.0001
    assert document.location(number.span.start) == (2, 7)


def test_duplicate_keys_are_kept() -> None:
    document = json.parse("a.json", '{"r": 8, "r": 16}')
    assert len(document.parts[0].node.entries) == 2
    assert document.parts[0].node.plain() == {"r": 16}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,}', "comma"),
        ("[1, 2,]", "comma"),
        ('{"a": 1} x', "more text"),
        ("{'a': 1}", "double quotes"),
        ('{"a": 1 // no\n}', "expected"),
        ("// no\n{}", "no comments"),
        ('{"a" 1}', "`:`"),
        ('{"a": }', "a value is expected"),
        ('{"a": "x', "Unterminated"),
        ("", "ends"),
        ("[" * 1000, "deeper"),
        ('{"a":' * 1000, "deeper"),
        ("1" * 5000, "digits"),
    ],
)
def test_what_does_not_parse_has_a_reason(text: str, said: str) -> None:
    document = json.parse("a.json", text)
    assert document.problem is not None
    assert said in document.problem.message
    assert document.parts == []
