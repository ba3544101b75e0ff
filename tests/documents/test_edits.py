"""Edits change what they are about, and no other byte."""

from __future__ import annotations

import json as reference
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from lora_lint.documents import json, yaml
from lora_lint.documents.document import Document, NotEditable
from lora_lint.fixes import apply_edits

BLOCK = """\
# head
adapter: lora   # why
lora_target_modules:
  - q_proj  # query
  # between
  - v_proj
  - "k_proj"
lora_r: 8
"""


def parse(text: str) -> Document:
    return yaml.parse("a.yaml", text)


def node_of(document: Document, *path: str | int) -> Any:
    node = document.node(0, path)
    assert node is not None
    return node


def changed(text: str, *path: str | int, value: object) -> str:
    document = parse(text)
    return apply_edits(text, document.replace(node_of(document, *path), value))


def test_one_entry_of_a_block_list() -> None:
    assert changed(BLOCK, "lora_target_modules", 1, value="o_proj") == BLOCK.replace(
        "v_proj", "o_proj"
    )


def test_quotes_stay() -> None:
    assert changed(BLOCK, "lora_target_modules", 2, value="o") == BLOCK.replace('"k_proj"', '"o"')


def test_a_removed_entry_takes_its_line_and_leaves_the_comments_between() -> None:
    assert changed(BLOCK, "lora_target_modules", value=["q_proj", "k_proj"]) == BLOCK.replace(
        "  - v_proj\n", ""
    )
    assert changed(BLOCK, "lora_target_modules", value=["v_proj", "k_proj"]) == BLOCK.replace(
        "  - q_proj  # query\n", ""
    )


def test_added_entries_follow_the_style() -> None:
    after = changed(BLOCK, "lora_target_modules", value=["q_proj", "v_proj", "k_proj", "o_proj"])
    assert after == BLOCK.replace('  - "k_proj"\n', '  - "k_proj"\n  - "o_proj"\n')


def test_flow_lists() -> None:
    text = "a: [q, v, k] # c\n"
    assert changed(text, "a", value=["q", "k"]) == "a: [q, k] # c\n"
    assert changed(text, "a", value=["q", "v"]) == "a: [q, v] # c\n"
    assert changed(text, "a", value=["x"]) == "a: [x] # c\n"
    assert changed(text, "a", value=["q", "v", "k", "o"]) == "a: [q, v, k, o] # c\n"
    assert changed(text, "a", value="all-linear") == "a: all-linear # c\n"


def test_a_list_written_one_entry_a_line_in_brackets() -> None:
    text = "a: [\n  q,  # query\n  v,\n  k\n]\n"
    assert changed(text, "a", value=["q", "v"]) == "a: [\n  q,  # query\n  v\n]\n"
    assert changed(text, "a", value=["q", "v", "k", "o"]).endswith("  k,\n  o\n]\n")


def test_json_keeps_no_comma_before_the_bracket() -> None:
    text = '{\n  "a": [\n    "q",\n    "v"\n  ]\n}'
    document = json.parse("a.json", text)
    after = apply_edits(text, document.replace(node_of(document, "a"), ["q"]))
    assert after == '{\n  "a": [\n    "q"\n  ]\n}'


def test_an_empty_value_gets_one() -> None:
    assert changed("a:\nb: 1\n", "a", value=3) == "a: 3\nb: 1\n"
    assert changed("a:   # c\n", "a", value=3) == "a: 3   # c\n"


def inserted(text: str, key: str, value: object, near: list[str]) -> str:
    document = parse(text)
    return apply_edits(text, document.insert_key(document.parts[0].node, key, value, near))


def test_a_new_key_stands_behind_its_neighbour() -> None:
    assert inserted(BLOCK, "lora_alpha", 16, ["lora_r"]) == BLOCK + "lora_alpha: 16\n"
    assert inserted(BLOCK, "x", 1, ["lora_target_modules"]) == BLOCK.replace(
        "lora_r: 8\n", "x: 1\nlora_r: 8\n"
    )


def test_a_new_key_where_the_file_does_not_end_in_a_line_end() -> None:
    assert inserted("a: 1", "b", 2, []) == "a: 1\nb: 2"
    assert inserted("a: 1\r\nc: 1", "b", 2, []) == "a: 1\r\nc: 1\r\nb: 2"


def test_a_new_key_in_json() -> None:
    text = '{\n  "r": 8,\n  "lora_alpha": 16\n}\n'
    document = json.parse("a.json", text)
    after = apply_edits(text, document.insert_key(document.parts[0].node, "bias", "none", ["r"]))
    assert after == '{\n  "r": 8,\n  "bias": "none",\n  "lora_alpha": 16\n}\n'
    empty = json.parse("a.json", "{}")
    assert apply_edits("{}", empty.insert_key(empty.parts[0].node, "r", 8)) == '{"r": 8}'


def removed(text: str, *path: str | int) -> str:
    document = parse(text)
    holder = node_of(document, *path[:-1]) if path[:-1] else document.parts[0].node
    entry = holder.entry(path[-1])
    assert entry is not None
    return apply_edits(text, document.remove_key(holder, entry))


def test_a_removed_key_takes_its_value_and_comment() -> None:
    assert removed(BLOCK, "adapter") == BLOCK.replace("adapter: lora   # why\n", "")
    assert removed("a: 1\nb: |\n  x\n  y\nc: 2\n", "b") == "a: 1\nc: 2\n"
    assert removed("- a: 1\n  b: 2\n", 0, "a") == "- b: 2\n"
    assert removed("{a: 1, b: 2}", "b") == "{a: 1}"


def test_a_key_whose_value_holds_comments_is_not_removed() -> None:
    with pytest.raises(NotEditable, match="comment"):
        removed(BLOCK, "lora_target_modules")


@pytest.mark.parametrize(
    ("text", "path"),
    [("a: &x 1\nb: *x\n", ("a",)), ("a: &x 1\nb: *x\n", ("b",)), ("a: !t 1\n", ("a",))],
)
def test_shared_and_tagged_values_are_locked(text: str, path: tuple[str, ...]) -> None:
    document = parse(text)
    with pytest.raises(NotEditable):
        document.replace(node_of(document, *path), 2)


def test_merged_keys_are_not_removed() -> None:
    text = "a: &a {r: 1}\nb:\n  <<: *a\n  s: 2\n"
    document = parse(text)
    holder = node_of(document, "b")
    with pytest.raises(NotEditable, match="merge key"):
        document.remove_key(holder, holder.entry("r"))


NAMES = st.text("abcdefghij_", min_size=1, max_size=8)
SCALARS = st.one_of(
    NAMES, st.integers(-99, 99), st.booleans(), st.floats(0, 1).map(lambda x: round(x, 4))
)
LISTS = st.lists(NAMES, min_size=1, max_size=6, unique=True)


@given(
    st.dictionaries(NAMES, SCALARS | LISTS, min_size=2, max_size=6),
    st.data(),
    st.sampled_from(["block", "flow", "json", "json lines"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_only_the_intended_value_changes(
    content: dict[str, Any], data: st.DataObject, style: str, newline: str
) -> None:
    if style.startswith("json"):
        text = reference.dumps(content, indent=2 if style == "json lines" else None)
    else:
        text = "# é\n" + pyyaml.safe_dump(
            content, default_flow_style=style == "flow", sort_keys=False
        )
    text = text.replace("\n", newline)
    document = json.parse("a.json", text) if style.startswith("json") else parse(text)
    key = data.draw(st.sampled_from(sorted(content)))
    value = data.draw(LISTS if isinstance(content[key], list) else SCALARS)
    edits = document.replace(node_of(document, key), value)
    after = apply_edits(text, edits)
    assert pyyaml.safe_load(after) == {**content, key: value}
    untouched = text
    for edit in sorted(edits, reverse=True):
        untouched = untouched[: edit.start] + untouched[edit.end :]
    kept = after
    for edit in sorted(edits, reverse=True):
        shift = sum(len(e.text) - (e.end - e.start) for e in edits if e.start < edit.start)
        start = edit.start + shift
        kept = kept[:start] + kept[start + len(edit.text) :]
    assert kept == untouched


@given(
    st.dictionaries(NAMES, SCALARS | LISTS, min_size=1, max_size=5),
    NAMES,
    SCALARS | LISTS,
    st.sampled_from(["block", "flow", "json lines"]),
)
def test_an_inserted_key_is_all_that_is_new(
    content: dict[str, Any], key: str, value: Any, style: str
) -> None:
    if key in content:
        return
    if style == "json lines":
        text = reference.dumps(content, indent=4)
        document: Document = json.parse("a.json", text)
    else:
        text = pyyaml.safe_dump(content, default_flow_style=style == "flow", sort_keys=False)
        document = parse(text)
    near = sorted(content)[:1]
    after = apply_edits(text, document.insert_key(document.parts[0].node, key, value, near))
    assert pyyaml.safe_load(after) == {**content, key: value}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("a:\n  - q\n  - v\nb: 1\n", "a: x\nb: 1\n"),
        ("a:\n- q\n- v\nb: 1\n", "a: x\nb: 1\n"),
        ("a:  # why\n  - q\n  - v  # last\nb: 1\n", "a: x  # why  # last\nb: 1\n"),
        ("a:\n  # head\n  - q\nb: 1\n", "a: x\n  # head\nb: 1\n"),
        ("a:\r\n  - q\r\n", "a: x\r\n"),
        ("a:\n  b: 1", "a: x"),
    ],
)
def test_a_block_becomes_a_value_on_the_line_of_its_key(text: str, after: str) -> None:
    assert changed(text, "a", value="x") == after


def test_a_block_with_comments_inside_is_not_replaced() -> None:
    with pytest.raises(NotEditable, match="comment"):
        changed("a:\n  - q  # query\n  - v\n", "a", value="x")
