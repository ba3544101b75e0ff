"""Shell commands in notebooks: `!` lines and `%%bash` cells."""

from __future__ import annotations

import json as reference
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint.documents import notebook, shell
from lora_lint.documents.document import NotEditable
from lora_lint.documents.tree import Node
from lora_lint.fixes import apply_edits
from lora_lint.recipe import UNKNOWN

IMPORT = "from peft import LoraConfig"


def code(*sources: str, lines: bool = True, ascii_only: bool = False) -> str:
    """A notebook with these code cells, as Jupyter writes it."""
    cells = [
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "source": source.splitlines(keepends=True) if lines else source,
        }
        for source in sources
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return reference.dumps(content, indent=1, ensure_ascii=ascii_only)


def parse(text: str) -> Any:
    document = notebook.parse("a.ipynb", text)
    assert document.problem is None
    return document


def commands(text: str) -> list[Node]:
    return [part.node for part in parse(text).parts if part.node.style == "command"]


def values(node: Node) -> list[tuple[object, object]]:
    return [(entry.key, entry.node.plain()) for entry in node.entries]


def sources(text: str) -> list[str]:
    return ["".join(cell["source"]) for cell in reference.loads(text)["cells"]]


@pytest.mark.parametrize(
    "source",
    [
        "!trl sft --lora_r 8",
        "  !trl sft --lora_r 8",
        "!!trl sft --lora_r 8",
        "x = !trl sft --lora_r 8",
        "%time\n!trl sft --lora_r 8",
        "%%time\n!trl sft --lora_r 8",
        "%%capture out\n!trl sft --lora_r 8",
        "%%bash\ntrl sft --lora_r 8",
        "%%sh\ntrl sft --lora_r 8",
        "%%script bash\ntrl sft --lora_r 8",
        "%%bash --out x\ncd y\ntrl sft --lora_r 8 \n",
        "!cd x && trl sft --lora_r 8",
        "if True:\n    !trl sft \\\n      --lora_r 8\nx = 1",
        "%system trl sft --lora_r 8",
        "x = [\n1]\n!trl sft --lora_r 8",
    ],
)
@pytest.mark.parametrize("lines", [True, False])
def test_where_commands_stand(source: str, lines: bool) -> None:
    text = code("x = 1", source, lines=lines)
    document = parse(text)
    (part,) = [part for part in document.parts if part.node.style == "command"]
    assert part.index == 1
    assert part.node.note == "trl sft"
    assert values(part.node) == [("lora_r", "8")]
    node = part.node.get("lora_r")
    assert text[slice(*node.span)] == "8"
    row = next(n for n, line in enumerate(source.splitlines(), 1) if "--lora_r 8" in line)
    column = source.splitlines()[row - 1].index("8") + 1
    assert document.location(node.span.start) == (row, column)


@pytest.mark.parametrize(
    "source",
    [
        "%%writefile a.sh\ntrl sft --lora_r 8",
        "%%html\n!trl sft --lora_r 8",
        "x = '''\n!trl sft --lora_r 8\n'''",
        "# !trl sft --lora_r 8",
        "!pip install trl peft",
        "y = x != trl",
    ],
)
def test_where_none_stand(source: str) -> None:
    assert commands(code(source)) == []


def test_commands_and_calls_of_a_cell_are_parts_of_it() -> None:
    text = code(IMPORT, "!trl sft --lora_r 8\nLoraConfig(r=8)", "LoraConfig(r=4)")
    document = parse(text)
    assert [(part.index, part.node.style) for part in document.parts] == [
        (1, "block"), (1, "command"), (2, "block"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("--lora_r {r}", UNKNOWN),
        ("--lora_r={r}", UNKNOWN),
        ("--lora_r '{r}'", UNKNOWN),
        ("--lora_r {cfg['a b'] + 1}", UNKNOWN),
        ("--lora_r $r", UNKNOWN),
        ("--lora_r {{8}}", UNKNOWN),
        ("--lora_r x{r}y", UNKNOWN),
        ("--lora_r 8 --x {y}", "8"),
    ],
)
def test_what_ipython_fills_in_is_unknown(word: str, value: object) -> None:
    (node,) = commands(code(f"!R=8; trl sft {word} --end 1"))
    found = node.get("lora_r")
    assert found is not None
    assert found.plain() == value
    assert node.get("end").value == "1"  # type: ignore[union-attr]


def test_a_bash_cell_has_variables_and_a_line_none() -> None:
    (cell,) = commands(code("%%bash\nR=8\ntrl sft --lora_r $R --x '{a}'"))
    assert values(cell) == [("lora_r", "8"), ("x", "{a}")]
    (line,) = commands(code("!R=8; trl sft --lora_r $R"))
    assert values(line) == [("lora_r", UNKNOWN)]


def test_cells_do_not_share_variables() -> None:
    (node,) = commands(code("%%bash\nR=8", "%%bash\ntrl sft --lora_r $R"))
    assert values(node) == [("lora_r", UNKNOWN)]


def test_launchers_have_places_in_the_file() -> None:
    text = code('!accelerate launch --num_processes "4" t.py --lora_r 8')
    (part,) = parse(text).parts
    found = shell.launcher(part, "accelerate launch")
    assert found is not None
    node = found.get("num_processes")
    assert node is not None
    assert text[slice(*node.span)] == '\\"4\\"'


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_edits_keep_the_notebook_readable(lines: bool, ascii_only: bool) -> None:
    source = '!trl sft \\\n  --name "é🙂" \\\n  --lora_r 8 \\\n  --x "a\\tb"\nx = 1\n'
    text = code("'🙂'", source, lines=lines, ascii_only=ascii_only)
    document = parse(text)
    node = document.parts[0].node
    cases = [
        (document.replace(node.get("lora_r"), 16), ("--lora_r 8", "--lora_r 16")),
        (document.replace(node.get("name"), 'q"z'), ('"é🙂"', '"q\\"z"')),
        (document.insert_key(node, "new", "a b", ["lora_r"]),
         ("--lora_r 8 \\\n", "--lora_r 8 \\\n  --new 'a b' \\\n")),
        (document.remove_key(node, node.entry("lora_r")), ("  --lora_r 8 \\\n", "")),
        (document.rename_key(node, node.entry("lora_r"), "rank"), ("lora_r", "rank")),
    ]  # fmt: skip
    for edits, (old, new) in cases:
        after = apply_edits(text, edits)
        assert sources(after) == ["'🙂'", source.replace(old, new)]


def test_what_ipython_would_replace_is_not_written() -> None:
    document = parse(code("!trl sft --x 8"))
    node = document.parts[0].node
    for value in ("a{b}", "$x"):
        with pytest.raises(NotEditable, match="IPython"):
            document.replace(node.get("x"), value)
    document = parse(code("%%bash\ntrl sft --x 8"))
    assert document.replace(document.parts[0].node.get("x"), "a{b}")


def test_comments_of_bash_cells_count() -> None:
    text = code("# one\nx = 1", "%%bash\n# two\ntrl sft --lora_r 8  # three", "# four")
    assert [comment.text for comment in parse(text).comments()] == [
        " one", " two", " three", " four",
    ]  # fmt: skip


WORDS = st.sampled_from(["8", "a b", "it's", '"', "\\", "é", "🙂", "x=1", "#", "\t"])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "lora_r"]), WORDS), min_size=1, max_size=4),
    st.sampled_from([" ", " \\\n  "]),
    st.sampled_from(["!trl sft ", "%%bash\ntrl sft "]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_only_the_wished_value_changes(
    options: list[tuple[str, str]],
    gap: str,
    head: str,
    lines: bool,
    ascii_only: bool,
    data: st.DataObject,
) -> None:
    quoted = [(key, "'8'" if "'" in word else f"'{word}'") for key, word in options]
    source = head + gap.join(f"--{key} {word}" for key, word in quoted)
    text = code("x", source, "y", lines=lines, ascii_only=ascii_only)
    document = parse(text)
    node = document.parts[0].node
    number = data.draw(st.integers(0, len(options) - 1))
    value = data.draw(WORDS)
    try:
        edits = document.replace(node.entries[number].node, value)
    except NotEditable:
        return
    expected = values(node)
    expected[number] = (expected[number][0], value)
    (after,) = commands(apply_edits(text, edits))
    assert values(after) == expected
