"""What is said to be certain about a program is what the program does when it runs.

Random programs are read and then run with a LoraConfig that notes its arguments; every value that
was called known must be the one that arrives, in every call.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lint.documents import calls, python
from lora_lint.recipe import holds_unknown

NAMES = ("a", "b", "c")
LISTS = ("t", "u")
FUNCTIONS = ("f", "g")
INDENT = "    "

numbers = st.sampled_from(["1", "2", "-3", "0.5", "10"])
names = st.sampled_from(NAMES)
lists = st.sampled_from(LISTS)


@st.composite
def expressions(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 6))
    if kind < 2:
        return draw(numbers)
    if kind < 5:
        return draw(names)
    if kind == 5:
        return f"{draw(names)} {draw(st.sampled_from('+-*'))} {draw(numbers)}"
    return f"cfg['{draw(names)}']"


@st.composite
def list_expressions(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 5))
    if kind < 3:
        return draw(lists)
    if kind == 3:
        return f"{draw(lists)} + [{draw(expressions())}]"
    if draw(st.booleans()):
        return f"[[1], {draw(lists)}]"
    return f"[{draw(expressions())}, {draw(expressions())}]"


@st.composite
def statements(draw: st.DrawFn, depth: int = 0) -> list[str]:
    """The lines of one statement."""
    simple = [
        lambda: [f"{draw(names)} = {draw(expressions())}"],
        lambda: [f"{draw(names)} = {draw(expressions())}"],
        lambda: [f"{draw(lists)} = {draw(list_expressions())}"],
        lambda: [make_config(draw)],
        lambda: [make_config(draw)],
        lambda: [make_config(draw)],
        lambda: [f"{draw(names)} += 1"],
        lambda: [f"{draw(lists)}.append({draw(numbers)})"],
        lambda: [f"{draw(lists)}[0] = {draw(numbers)}"],
        lambda: [f"{draw(lists)} += [{draw(numbers)}]"],
        lambda: [f"{draw(names)}, {draw(names)} = {draw(expressions())}, {draw(expressions())}"],
        lambda: [f"{draw(names)}, {draw(names)} = {draw(lists)}"],
        lambda: [f"{draw(names)} = {draw(names)} = {draw(numbers)}"],
        lambda: [f"change({draw(lists)})"],
        lambda: [f"{draw(lists)}[0].append({draw(numbers)})"],
        lambda: [f"for {draw(names)} in {draw(lists)}:", f"    {draw(names)}.append(0)"],
        lambda: [f"[{draw(names)}.append(0) for {draw(names)} in {draw(lists)}]"],
        lambda: [f"{draw(names)} = {draw(lists)}[0]", f"{draw(names)}.append(0)"],
        lambda: [f"match {draw(lists)}:", f"    case [{draw(names)}, *_]: {draw(names)}.append(0)"],
        lambda: [f"def f(x={draw(lists)}): x.append(0)", "f()"],
        lambda: [f"def g(): return {draw(lists)}", "g().append(0)"],
        lambda: [f"cfg.update(a={draw(lists)})", f"cfg['a'] = {draw(lists)}"],
        lambda: [f"cfg = {{'a': {draw(lists)}}}", "d = cfg", "d['a'].append(0)"],
        lambda: [f"cfg = dict(a={draw(lists)}, b=2)", "cfg.get('a').append(0)"],
        lambda: [f"list({draw(lists)})[0].append(1)"],
        lambda: [f"del {draw(names)}"],
        lambda: [f"print({draw(names)} := {draw(numbers)})"],
        lambda: [f"cfg = {{'a': {draw(numbers)}, 'b': {draw(expressions())}}}"],
        lambda: [f"cfg['a'] = {draw(numbers)}"],
        lambda: [f"{draw(st.sampled_from(FUNCTIONS))}()"],
        lambda: [f"{draw(st.sampled_from(FUNCTIONS))}({draw(expressions())})"],
        lambda: [f"{draw(st.sampled_from(FUNCTIONS))}({draw(names)}={draw(expressions())})"],
        lambda: [f"C.{draw(names)} = {draw(numbers)}"],
        lambda: [f"{draw(names)} = C.{draw(names)}"],
        lambda: [f"{draw(names)} = C({draw(names)}={draw(numbers)}).{draw(names)}"],
        lambda: [f"[{make_config(draw)} for {draw(names)} in (7, 8)]"],
        lambda: [f"(lambda {draw(names)}: {make_config(draw)})(9)"],
        lambda: ["exec('a = 77')"] if draw(st.integers(0, 9)) == 0 else ["pass"],
        lambda: ["from stars import *"] if draw(st.integers(0, 5)) == 0 else ["pass"],
    ]
    compound = [
        lambda: ["if yes():", *block(draw, depth)],
        lambda: ["if no():", *block(draw, depth), "else:", *block(draw, depth)],
        lambda: [f"for {draw(names)} in (5, 6):", *block(draw, depth)],
        lambda: ["for _ in 'xy':", *block(draw, depth)],
        lambda: ["with context() as w:", *block(draw, depth)],
        lambda: ["try:", *block(draw, depth), "except Exception:", *block(draw, depth)],
        lambda: ["if __name__ == '__main__':", *block(draw, depth)],
        lambda: function(draw, depth),
        lambda: function(draw, depth),
        lambda: [
            *(["@dataclass"] if draw(st.booleans()) else []),
            "class C:",
            *(INDENT + f"{name}: int = {draw(expressions())}" for name in NAMES),
            *block(draw, depth),
        ],
    ]
    return draw(st.sampled_from(simple + (compound if depth < 2 else [])))()


def make_config(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return f"LoraConfig(t={draw(lists)}, **{{'r': {draw(expressions())}}})"
    if kind == 1:
        return f"LoraConfig(r={draw(expressions())}, **cfg)"
    return f"LoraConfig(r={draw(expressions())}, t={draw(list_expressions())})"


def block(draw: st.DrawFn, depth: int) -> list[str]:
    body = draw(st.lists(statements(depth + 1), min_size=1, max_size=3))
    return [INDENT + line for lines in body for line in lines]


def function(draw: st.DrawFn, depth: int) -> list[str]:
    parameter = draw(st.sampled_from(["", "a=4", "b=t", "a=1, *, c=2"]))
    declared = draw(st.sampled_from(["", "", "global b", "global t"]))
    head = [f"def {draw(st.sampled_from(FUNCTIONS))}({parameter}):"]
    return head + ([INDENT + declared] if declared else []) + block(draw, depth)


@st.composite
def programs(draw: st.DrawFn) -> list[str]:
    """Programs as top-level statements; names mostly have values at the start."""
    setup = [f"{n} = {draw(numbers)}" for n in NAMES if draw(st.booleans())]
    setup += [f"{n} = [1, {draw(expressions())}]" for n in LISTS if draw(st.booleans())]
    setup += ["cfg = {'a': 1, 'b': 2}"] if draw(st.booleans()) else []
    body = draw(st.lists(statements(), min_size=1, max_size=9))
    return [*setup, *("\n".join(lines) for lines in body)]


def run(cells: list[str]) -> tuple[dict[int, list[dict[str, Any]]], int | None]:
    """What arrives in the LoraConfig call of each line when the program runs, and which statement
    stops it.
    """
    seen: dict[int, list[dict[str, Any]]] = {}

    def record(**keywords: Any) -> None:
        frame = sys._getframe(1)
        kept = {k: list(v) if isinstance(v, list) else v for k, v in keywords.items()}
        seen.setdefault(frame.f_lineno, []).append(kept)

    def change(values: list[int]) -> None:
        values.append(99)

    @contextlib.contextmanager
    def context() -> Iterator[int]:
        yield 3

    from dataclasses import dataclass

    peft = types.ModuleType("peft")
    peft.LoraConfig = record  # type: ignore[attr-defined]
    stars = types.ModuleType("stars")
    stars.a, stars.t = 55, [55]  # type: ignore[attr-defined]
    space = {
        "__name__": "__main__",
        "dataclass": dataclass,
        "yes": lambda: True,
        "no": lambda: False,
        "change": change,
        "context": context,
        "print": lambda *_: None,
    }
    kept = {name: sys.modules.get(name) for name in ("peft", "stars", "__main__")}
    sys.modules.update({"peft": peft, "stars": stars})
    try:
        line = 1
        for number, cell in enumerate(cells):
            try:
                exec(compile("\n" * (line - 1) + cell, "program", "exec"), space)
            except Exception:  # noqa: BLE001 - whatever it raises
                return seen, number
            line += cell.count("\n") + 1
    finally:
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
    return seen, None


def running(cells: list[str]) -> tuple[list[str], dict[int, list[dict[str, Any]]]]:
    """The program without the statements that would stop it, and what arrives then."""
    while True:
        seen, stopped = run(cells)
        if stopped is None:
            return cells, seen
        cells = cells[:stopped] + cells[stopped + 1 :]


def check(statements_: list[str]) -> int:
    """How many values of a program are known; each must be the one that arrives."""
    cells = ["from peft import LoraConfig", "from dataclasses import dataclass", *statements_]
    try:
        compile("\n".join(cells), "program", "exec")
    except SyntaxError:
        return 0
    cells, seen = running(cells)
    text = "\n".join(cells) + "\n"
    document = python.parse("a.py", text)
    assert document.problem is None
    known = 0
    for site in calls.sites(document):
        line = document.location(site.call.span.start)[0]
        for arrived in seen.get(line, []):
            if calls.is_from(site.call, "peft") and not calls.is_open(site.call):
                said = {e.key for e in site.call.entries if e.key != "**"}
                assert said == set(arrived), text
            for name, value in arrived.items():
                node = site.call.get(name)
                if node is not None and not holds_unknown(node.plain()):
                    known += 1
                    assert node.plain() == value, f"{text}\nline {line}: {name}"
    return known


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_known_values_are_the_ones_that_arrive(program: list[str]) -> None:
    check(program)
