"""Notebooks: names through all cells, places within a cell, edits through JSON's escapes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lora_lint.documents import notebook, python
from lora_lint.documents.cells import plain_python
from lora_lint.documents.document import NotEditable
from lora_lint.fixes import apply_edits
from lora_lint.recipe import UNKNOWN

IMPORT = "from peft import LoraConfig"


def cell(source: str | list[str], kind: str = "code") -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def code(*sources: str, **changes: Any) -> str:
    """A notebook as Jupyter writes it: a string for each line."""
    cells = [cell(source.splitlines(keepends=True)) for source in sources]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5} | changes
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def parse(text: str) -> notebook.NotebookDocument:
    document = notebook.parse("a.ipynb", text)
    assert document.problem is None, document.problem
    return document


def arguments(text: str, part: int = 0) -> Any:
    node = parse(text).node(part, ("LoraConfig#0",))
    assert node is not None
    return node.plain()


def sources(text: str) -> list[str]:
    return ["".join(made["source"]) for made in json.loads(text)["cells"]]


# Reading -----------------------------------------------------------------------------------------


def test_parts_are_cells_that_have_something_to_say() -> None:
    cells = [cell("# title", "markdown"), cell(IMPORT), cell("c = LoraConfig(r=8)"), cell("1 + 1")]
    cells.append(cell(["def f():\n", "    return LoraConfig(r=16)"]))
    document = parse(code(cells=cells))
    assert [part.index for part in document.parts] == [2, 4]
    assert document.parts[1].node.at(("f", "LoraConfig#0", "r")).value == 16  # type: ignore[union-attr]
    assert document.cell_parts


def test_calls_are_numbered_in_each_cell() -> None:
    document = parse(code(IMPORT + "\nLoraConfig(r=1)\nLoraConfig(r=2)", "LoraConfig(r=3)"))
    ranks = [
        document.node(part, (f"LoraConfig#{number}", "r")).value  # type: ignore[union-attr]
        for part, number in ((0, 0), (0, 1), (1, 0))
    ]
    assert ranks == [1, 2, 3]


def test_names_are_seen_in_later_cells() -> None:
    assert arguments(code(IMPORT + "\nr = 16", "x = 1", "LoraConfig(r=r, lora_alpha=2 * r)")) == {
        "r": 16,
        "lora_alpha": 32,
    }


def test_a_name_that_two_cells_assign_is_unknown() -> None:
    assert arguments(code(IMPORT, "r = 8", "r = 16", "LoraConfig(r=r)")) == {"r": UNKNOWN}


def test_the_model_may_stand_in_another_cell() -> None:
    document = parse(
        code(
            "from peft import *\nfrom transformers import AutoModel",
            "m = AutoModel.from_pretrained('gpt2')",
            "c = LoraConfig(r=8)",
            "get_peft_model(m, c)",
        )
    )
    call = document.node(2, ("get_peft_model#0",))
    assert call is not None
    assert call.get(0).home is document.node(0, ("from_pretrained#0",))  # type: ignore[union-attr]
    assert call.get(1).home is document.node(1, ("LoraConfig#0",))  # type: ignore[union-attr]
    assert document.node(2, ("get_peft_model#0", 0, 0)).value == "gpt2"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "magic",
    [
        "!pip install -q 'peft",
        "!ls",
        "%matplotlib inline",
        "%%capture\n!pip install x",
        "%%time",
        "?LoraConfig",
        "LoraConfig??",
        "LoraConfig.from_pretrained?  # help",
        "if True:\n    !pip install (\nelse:\n    %cd ..",
        "!wget \\\n  http://x \\\n  -O y",
        "files = !ls -l 'x",
        "t = %timeit -o f()",
        '%env A=\'"""',
        "/print 1",
        "x = '''\n!not a magic (\n'''",
        "x = [1\n% 2]",
        "await download()",
        "%%capture out\nr = 8",
    ],
)
def test_magics_do_not_break_the_rest(magic: str) -> None:
    text = code(IMPORT, magic, f"{magic}\nLoraConfig(r=8)", "LoraConfig(r=16)")
    document = parse(text)
    assert [part.index for part in document.parts] == [2, 3]
    assert [part.node.at(("LoraConfig#0", "r")).value for part in document.parts] == [8, 16]  # type: ignore[union-attr]


@pytest.mark.parametrize("magic", ["%%bash", "%%writefile train.py", "%%html", "%%R", "%%script x"])
def test_cells_in_other_languages_are_left_out(magic: str) -> None:
    text = code(IMPORT, f"{magic}\necho (\nr = 3\nLoraConfig(r=8)", "r = 4", "LoraConfig(r=r)")
    assert [part.index for part in parse(text).parts] == [3]
    assert arguments(text) == {"r": 4}


def test_what_a_command_gives_is_unknown() -> None:
    node = parse(code(IMPORT, "r = !rank", "LoraConfig(r=r)")).node(0, ("LoraConfig#0", "r"))
    assert node is not None
    assert node.note == "the result of an IPython command"


def test_what_a_timed_statement_assigns_counts() -> None:
    assert arguments(code(IMPORT, "r = 8", "%time r = 16", "LoraConfig(r=r)")) == {"r": UNKNOWN}
    assert arguments(code(IMPORT, "%time r = 16", "LoraConfig(r=r)")) == {"r": 16}


@given(st.text(st.sampled_from("!%?=x '\"\\\n#([ 1"), max_size=30))
def test_blanking_keeps_every_offset(text: str) -> None:
    after = plain_python(text)
    if after is not None:
        assert len(after) == len(text)
        assert [c for c in after if c == "\n"] == [c for c in text if c == "\n"]


def test_a_broken_cell_does_not_hide_the_others() -> None:
    text = code(IMPORT, "r = 8\ns = 4", "print 'python 2', r", "LoraConfig(r=r, lora_alpha=s)")
    assert arguments(text) == {"r": UNKNOWN, "lora_alpha": 4}
    node = parse(text).node(0, ("LoraConfig#0", "r"))
    assert node is not None
    assert node.note == "`r` stands in a cell that does not parse"


def test_a_broken_cell_that_makes_a_config_is_a_problem() -> None:
    text = code(IMPORT, "x = 1\nLoraConfig(r=8))")
    document = notebook.parse("a.ipynb", text)
    assert document.problem is not None
    assert "does not parse as Python" in document.problem.message
    assert document.location(document.problem.span.start) == (2, 16)
    assert document.parts == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no notebook"),
        ('{"cells": 1}', "no notebook"),
        (code(IMPORT, nbformat=3), "old format"),
        (json.dumps({"worksheets": [], "nbformat": 3}), "old format"),
        ("[" * 500, "nested deeper"),
        ("", "not valid JSON"),
    ],
)
def test_what_is_no_notebook_is_a_problem(text: str, message: str) -> None:
    document = notebook.parse("a.ipynb", text)
    assert document.problem is not None
    assert message in document.problem.message
    assert document.parts == []


def test_notebooks_in_other_languages_and_odd_cells_say_nothing() -> None:
    text = code("LoraConfig(r=8)", metadata={"kernelspec": {"language": "R"}})
    assert parse(text).parts == []
    odd = [cell([1]), cell(None), {"source": "LoraConfig(r=1)"}, 3, cell("LoraConfig(r=2)", "raw")]  # type: ignore[arg-type, list-item]
    assert parse(code(cells=[*odd, cell([])])).parts == []


# Places ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_places_are_within_the_cell(listed: bool, ascii_only: bool) -> None:
    source = "# é中😀 \\ \"q\"\n\tx = 'é\\n😀'\nLoraConfig(  # why\n    r='é\"',\n    b=16)"
    cells = [cell(IMPORT + "\n\n"), cell(source.splitlines(keepends=True) if listed else source)]
    content = {"cells": cells, "nbformat": 4}
    text = json.dumps(content, indent=2, ensure_ascii=ascii_only).replace("\\tx", "x")
    document = parse(text)
    call = document.node(0, ("LoraConfig#0",))
    assert call is not None
    spelled = {"r": "'é\"'", "b": "16"}
    for name, place in (("r", (4, 7)), ("b", (5, 7))):
        node = call.get(name)
        assert node is not None
        assert document.location(node.span.start) == place
        assert json.loads(f'"{text[slice(*node.span)]}"') == spelled[name]
    assert document.location(call.span.start) == (3, 1)
    entry = document.entry(0, ("LoraConfig#0",))
    assert entry is not None
    assert document.line_text(document.row(entry.key_span.start)) == "LoraConfig(  # why"


def test_rows_tell_lines_of_different_cells_apart() -> None:
    document = parse(code(IMPORT, "\nLoraConfig(r=1)  # one", "\nLoraConfig(r=2)  # two"))
    first, second = document.comments()
    assert document.location(first.span.start) == document.location(second.span.start) == (2, 18)
    assert document.row(first.span.start) != document.row(second.span.start)
    assert document.line_text(document.row(second.span.start)) == "LoraConfig(r=2)  # two"
    assert (first.text, second.text) == (" one", " two")


def test_offsets_outside_the_cells_are_those_of_the_file() -> None:
    document = parse(code(IMPORT))
    assert document.location(0) == (1, 1)
    assert document.row(0) == 1
    assert document.row(len(document.text)) >= 1


# Edits -------------------------------------------------------------------------------------------


def test_a_keyword_is_inserted_as_a_line_of_its_own() -> None:
    source = IMPORT + "\nc = LoraConfig(\n    r=16,  # \"rank\"\n    bias='none',\n)\n"
    text = code("x = 1", source)
    document = parse(text)
    call = document.node(0, ("LoraConfig#0",))
    assert call is not None
    after = apply_edits(text, document.insert_key(call, "lora_alpha", 32, ["r"]))
    line = '    "    r=16,  # \\"rank\\"\\n",\n'
    assert line in text
    assert after == text.replace(line, line + '    "    lora_alpha=32,\\n",\n')


def test_a_value_of_another_cell_is_edited_there() -> None:
    text = code("R = 16 # \\", IMPORT, "LoraConfig(r=R)")
    document = parse(text)
    node = document.node(0, ("LoraConfig#0", "r"))
    assert node is not None
    assert document.location(node.span.start) == (1, 14)
    assert apply_edits(text, document.replace(node, 8)) == text.replace("R = 16", "R = 8")


def test_renaming_and_removing() -> None:
    text = code(IMPORT, "LoraConfig(\n    rank=8,\n    x=1,\n)")
    document = parse(text)
    call = document.node(0, ("LoraConfig#0",))
    assert call is not None
    rank, extra = call.entries
    assert apply_edits(text, document.rename_key(call, rank, "r")) == text.replace("rank", "r")
    assert apply_edits(text, document.remove_key(call, extra)) == text.replace(
        '    "    x=1,\\n",\n', ""
    )


pieces = st.sampled_from(
    [
        "x = 1\n",
        "# é中😀\n",
        "s = 'a\\\\b\\n'\n",
        '"""\n\ttext "q"\n"""\n',
        "!pip\n",
        "\n",
        "%time y = 2\n",
    ]
)
configs = st.sampled_from(
    [
        "c = LoraConfig(r=8, target_modules=['é', \"v\"])\n",
        (
            'c = LoraConfig(\n    r=8,  # "ü"\n    target_modules=[\n'
            "        'q',\n        'v',  # 😀\n    ],\n)\n"
        ),
        "c = LoraConfig(\n\tr=8\n)",
        "if 1:\n    c = LoraConfig(target_modules=('a\\\\.b',), r=8)",
        "c = LoraConfig(r=8, target_modules=[],)\nx = 1",
    ]
)
values = st.one_of(
    st.integers(0, 99),
    st.text(st.sampled_from("aé中😀\"'\\\n\t/\x7f"), max_size=5),
    st.lists(st.text(st.sampled_from("aé😀\"'\\"), max_size=3), max_size=3),
)


@st.composite
def notebooks(draw: st.DrawFn) -> tuple[str, str, int]:
    """A notebook's text, the source of the cell with the config, and the number of that cell."""
    before = draw(st.lists(pieces, max_size=3))
    behind = "".join(draw(st.lists(pieces, max_size=2)))
    source = "".join([*before, IMPORT + "\n", draw(configs)])
    source += "\n" + behind if behind else ""
    others = draw(st.lists(st.lists(pieces, max_size=3).map("".join), max_size=2))
    at = draw(st.integers(0, len(others)))
    kind = draw(st.sampled_from(["lines", "lines", "whole", "chunks"]))

    def written(text: str) -> str | list[str]:
        if kind == "whole":
            return text
        if kind == "lines":
            return text.splitlines(keepends=True)
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    cells = [cell(written(other)) for other in others]
    cells.insert(at, cell(written(source)))
    content = {"cells": cells, "metadata": {"é": "\\"}, "nbformat": 4, "nbformat_minor": 5}
    indent = draw(st.sampled_from([None, 1, "\t"]))
    text = json.dumps(content, indent=indent, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        text = text.replace("/", "\\/").replace("q", "\\u0071")
    return draw(st.sampled_from(["", "\ufeff"])) + text, source, at


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(notebooks(), st.sampled_from(["insert", "replace", "remove", "rename"]), values)
def test_an_edit_changes_the_cells_source_and_nothing_else(
    made: tuple[str, str, int], operation: str, value: Any
) -> None:
    text, source, at = made
    document = parse(text)
    part = next(i for i, p in enumerate(document.parts) if p.index == at)
    plain = python.parse("a.py", plain_python(source) or "")
    assert plain.problem is None
    plain.usual_quotes = document.code.usual_quotes
    edits = []
    for file, number in ((document, part), (plain, 0)):
        call = file.node(number, ("LoraConfig#0",))
        assert call is not None
        entry = call.entry("target_modules" if isinstance(value, list) else "r")
        assume(entry is not None)
        assert entry is not None
        try:
            if operation == "insert":
                edits.append(file.insert_key(call, "new", value, ["r"]))
            elif operation == "replace":
                edits.append(file.replace(entry.node, value))
            elif operation == "remove":
                edits.append(file.remove_key(call, entry))
            else:
                edits.append(file.rename_key(call, entry, "renamed"))
        except NotEditable:
            edits.append([])
    after = apply_edits(text, edits[0])
    expected = apply_edits(source, edits[1])
    before = json.loads(text.removeprefix("\ufeff"))
    changed = json.loads(after.removeprefix("\ufeff"))
    assert "".join(changed["cells"][at]["source"]) == expected
    if expected == source:
        assert after == text
    before["cells"][at]["source"] = changed["cells"][at]["source"]
    assert changed == before
    for edit in edits[0]:
        cell_text = [c for c in document.map.cells if c.index == at]
        assert cell_text[0].file_start <= edit.start <= edit.end <= cell_text[0].file_end
    _spans_agree(document, part, plain)


def _spans_agree(document: notebook.NotebookDocument, part: int, plain: Any) -> None:
    """Each place in the file spells, with its escapes undone, what the Python text has there."""
    ours, theirs = document.node(part, ("LoraConfig#0",)), plain.node(0, ("LoraConfig#0",))
    assert ours is not None
    for mine, other in zip(ours.entries, theirs.entries, strict=True):
        for a, b in ((mine.key_span, other.key_span), (mine.node.span, other.node.span)):
            spelled = document.text[slice(*a)]
            if '",' not in spelled:
                assert json.loads(f'"{spelled}"') == plain.text[slice(*b)]
            assert document.location(a.start) == plain.location(b.start)
