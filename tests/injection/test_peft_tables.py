"""PEFT's own test tables, for every release: the answers were measured by tools/peft_tables.py."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from lora_lint.facts import EXACT_SINCE, peft_facts, version_key
from lora_lint.injection import Injection, inject
from lora_lint.injection.config import construct
from lora_lint.injection.matching import Matcher, condense
from lora_lint.injection.semantics import semantics
from lora_lint.injection.simulation import Raised
from lora_lint.models import ModuleTree
from tests.injection.toy_models import build

TABLES = json.loads((Path(__file__).parent / "peft_tables.json").read_text())
ROWS = TABLES["rows"]
RELEASES = list(TABLES["transformers"])
EMPTY: dict[str, Any] = {name: [] for name in ("modules", "parameters", "saved", "tokens")}
EMPTY["scales"] = {}


def answered(row: dict[str, Any], release: str) -> Any:
    """What a release answered to a row."""
    index = RELEASES.index(release)
    return [a["answer"] for a in row["answers"] if RELEASES.index(a["since"]) <= index][-1]


def differences(real: dict[str, Any], predicted: Injection) -> list[str]:
    """How a prediction differs from an answer, which leaves out what is empty."""
    ours: dict[str, Any] = {}
    if predicted.undecided:
        ours["undecided"] = predicted.undecided
    elif predicted.error:
        ours = {"error": predicted.error.type, "stage": predicted.error.stage}
    else:
        for name in ("modules", "parameters", "saved", "tokens"):
            ours[name] = list(getattr(predicted, name))
        ours |= {"trainable": predicted.trainable, "total": predicted.total}
        entries = {
            n: predicted.adapted[n] for n in real.get("scales", {}) if n in predicted.adapted
        }
        ours["scales"] = {n: [e.r, e.alpha, pytest.approx(e.scale)] for n, e in entries.items()}
    names = [n for n in {**real, **ours} if real.get(n, EMPTY.get(n)) != ours.get(n, EMPTY.get(n))]
    return [f"{name}: peft {real.get(name)}, predicted {ours.get(name)}" for name in names]


@functools.cache
def tree_of(model: str) -> ModuleTree:
    return ModuleTree.from_model(build(model))


def rows(*tables: str) -> list[dict[str, Any]]:
    return [row for row in ROWS if row["table"] in tables]


@pytest.mark.parametrize("release", RELEASES)
def test_names_match_as_in_peft(release: str) -> None:
    wrong = []
    for row in rows("regex"):
        try:
            found: Any = Matcher(construct(row["config"], release, "kwargs"))(row["key"]) is True
        except Raised as exc:
            found = exc.type
        if found != answered(row, release):
            wrong.append((row["key"], row["config"], answered(row, release), found))
    assert not wrong


@pytest.mark.parametrize("release", RELEASES)
def test_long_lists_are_condensed_as_in_peft(release: str) -> None:
    if semantics(release).condensed == "never":
        assert all(answered(row, release) is None for row in rows("minimal"))
        return
    for row in rows("minimal"):
        targets, others = set(row["targets"]), set(row["others"])
        if targets & others:  # inject never asks this: a target is no other
            assert answered(row, release) == "ValueError"
        else:
            assert sorted(condense(targets, others)) == answered(row, release)


@pytest.mark.parametrize("release", RELEASES)
def test_inject_does_what_peft_does(release: str) -> None:
    wrong = []
    for row in ROWS:
        answer = answered(row, release)
        # None: the transformers of that environment lacks the model.
        if row["table"] in ("regex", "minimal") or answer is None:
            continue
        tree, transformers = tree_of(row["model"]), TABLES["transformers"][release]
        predicted = inject(tree, row["config"], peft=release, transformers=transformers)
        differ = differences(answer, predicted)
        if differ or predicted.undecided:
            wrong.append((row["name"], row["model"], row["config"], differ))
    assert not wrong


def test_every_release_was_asked() -> None:
    known = [v for v in peft_facts()["versions"] if version_key(v) >= version_key(EXACT_SINCE)]
    assert known == RELEASES


def test_most_rows_were_answered_by_most_releases() -> None:
    """An environment that can't build the models would make the tests above pass emptily."""
    asked = rows("custom models", "layers", "pattern keys")
    assert all(answered(row, release) is not None for row in asked for release in RELEASES)
    assert len(asked) > 150
