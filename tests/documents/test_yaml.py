"""YAML: exact places, PyYAML's values, and the traps of its readers."""

from __future__ import annotations

import time

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from lora_lint.diagnostics import Span
from lora_lint.documents import yaml
from lora_lint.documents.document import Document
from lora_lint.recipe import UNKNOWN


def at(document: Document, *path: str | int, part: int = 0) -> str:
    """The text that a path's node spans."""
    node = document.node(part, path)
    assert node is not None
    return document.text[node.span.start : node.span.end]


def test_places_are_character_offsets_behind_a_byte_order_mark() -> None:
    document = yaml.parse("a.yaml", "\ufeffkey: wörth # ü\nother: [é, 'ß']\n")
    assert at(document, "key") == "wörth"
    assert at(document, "other", 1) == "'ß'"
    node = document.node(0, ("key",))
    assert node is not None
    assert document.location(node.span.start) == (1, 6)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends(newline: str) -> None:
    document = yaml.parse("a.yaml", newline.join(["a: 1", "b:", "  - x", "  - y", ""]))
    assert at(document, "b", 1) == "y"
    node = document.node(0, ("b", 1))
    assert node is not None
    assert document.location(node.span.start) == (4, 5)
    assert document.newline == newline


def test_block_collections_end_before_trailing_comments() -> None:
    text = "targets:\n  - a\n  - b\n# about the next key\nr: 8\n"
    document = yaml.parse("a.yaml", text)
    assert at(document, "targets") == "- a\n  - b"


def test_merge_keys_and_anchors() -> None:
    text = "base: &base\n  r: 8\n  alpha: 16\nrun:\n  <<: *base\n  r: 32\n"
    document = yaml.parse("a.yaml", text)
    assert document.parts[0].node.plain() == pyyaml.safe_load(text)
    merged = document.entry(0, ("run", "alpha"))
    assert merged is not None
    assert merged.merged
    written = document.node(0, ("run", "r"))
    assert written is not None
    assert written.locked is None
    shared = document.node(0, ("base", "r"))
    assert shared is not None
    assert shared.locked == "the value is shared through a YAML anchor"


def test_the_first_of_several_merged_mappings_wins() -> None:
    text = "a: &a {r: 1}\nb: &b {r: 2, s: 3}\nc:\n  <<: [*a, *b]\n"
    document = yaml.parse("a.yaml", text)
    assert document.parts[0].node.plain() == pyyaml.safe_load(text)


def test_duplicate_keys_are_kept_and_the_last_counts() -> None:
    document = yaml.parse("a.yaml", "r: 8\nr: 16\n")
    assert [entry.node.value for entry in document.parts[0].node.entries] == [8, 16]
    assert document.parts[0].node.plain() == {"r": 16}


def test_several_documents() -> None:
    document = yaml.parse("a.yaml", "r: 8\n---\nr: 16\n---\n")
    assert [part.node.plain() for part in document.parts] == [{"r": 8}, {"r": 16}, None]
    assert [part.index for part in document.parts] == [0, 1, 2]


def test_an_alias_bomb_is_refused_in_bounded_time() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    began = time.perf_counter()
    document = yaml.parse("bomb.yaml", "\n".join(lines))
    assert time.perf_counter() - began < 1
    assert document.problem is not None
    assert "multiply" in document.problem.message


def test_a_value_that_holds_itself() -> None:
    document = yaml.parse("a.yaml", "a: &a\n  b: *a\n  r: 8\n")
    assert document.parts[0].node.plain() == {"a": {"b": UNKNOWN, "r": 8}}


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 5000 + "x", "{a: " * 50_000])
def test_deep_nesting_is_refused(text: str) -> None:
    document = yaml.parse("deep.yaml", text)
    assert document.problem is not None
    assert document.parts == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n\tb: 2\n", "tab"),
        ("a: b: c\n", "not allowed here"),
        ("a: [1, 2\n", "expected"),
        ("a: *nowhere\n", "undefined alias"),
        ("? [a, b]\n: 1\n", "can't have a list"),
        ("<<: 3\n", "merge key"),
        ("a: \x07\n", "control characters are not allowed"),
    ],
)
def test_what_does_not_parse_has_a_place_and_a_reason(text: str, said: str) -> None:
    document = yaml.parse("a.yaml", text)
    assert document.problem is not None
    assert said in document.problem.message
    assert 0 <= document.problem.span.start <= len(text)


def test_unknown_tags_and_bad_values_are_not_static() -> None:
    document = yaml.parse("a.yaml", "a: !env HOME\nb: 2024-13-45\nc: 1\n")
    assert document.parts[0].node.plain() == {"a": UNKNOWN, "b": UNKNOWN, "c": 1}


def test_comments_are_told_from_strings() -> None:
    text = "a: 'no # comment'  # one\n# two\nb: x#y\nc: |\n  # text\n"
    document = yaml.parse("a.yaml", text)
    assert [comment.text for comment in document.comments()] == [" one", " two"]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False),
    st.text(max_size=12),
    st.sampled_from(
        ["1e-4", "yes", "0o7", "~", "null", "all-linear", r".*\.q_proj", "a: b", "- x"]
    ),
)


@given(SCALARS)
def test_a_rendered_scalar_reads_back_as_itself(value: object) -> None:
    document = yaml.parse("a.yaml", "key: x\n")
    text = document.render(value)
    assert pyyaml.safe_load(f"key: {text}\n") == {"key": value}
    assert pyyaml.safe_load(f"key: [{text}, 1]\n") == {"key": [value, 1]}


@given(
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=6), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    st.booleans(),
)
def test_values_are_those_of_the_safe_loader(value: object, flow: bool) -> None:
    text = pyyaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    document = yaml.parse("a.yaml", text)
    assert document.problem is None
    assert [part.node.plain() for part in document.parts] == list(pyyaml.safe_load_all(text))


def test_an_empty_file_has_no_parts() -> None:
    document = yaml.parse("a.yaml", "")
    assert document.parts == []
    assert document.problem is None
    assert document.location(0) == (1, 1)
    assert Span(0, 0) == (0, 0)
