"""No value of any field breaks a rule, and a value that is not static is never judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lora_lint.checks import Context, RecipeSubject
from lora_lint.dialects import recipes
from lora_lint.documents import parse
from lora_lint.engine import Linter
from lora_lint.environment import Environment, Version
from lora_lint.judge import judge
from lora_lint.recipe import Field
from lora_lint.settings import Settings
from tests.rules.examples import RULES, examples

ODD: list[Any] = [
    *(None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf")),
    *("", "None", "1e-4", "(", "all-linear", [], [None], [1], ["q_proj"], [["q_proj"]]),
    *({}, {"q_proj": 8}, {"(": None}, {1: []}),
]
LINTER = Linter(Settings())
SELECTED = LINTER._selected("train.yaml")
ENVIRONMENT = Environment(Version("0.21.2", "test"), Version("5.23.0", "test"), gpu="rtx4090")
# A release that validates nothing, a range, one that is not predicted, one that is not known.
OTHERS = [
    Environment(Version("0.4.0", "test"), Version("4.31.0", "test")),
    Environment(Version(">=0.5", "test", "0.5.0", "0.21.2")),
    Environment(Version("0.2.0", "test")),
    Environment(Version("99.0.0", "test")),
    Environment(),
]
RUNS = {
    str(example): (document, run)
    for path in sorted(RULES.glob("*.md"))
    for example in examples(path)
    if example.kind == "bad"
    for document in [parse(example.title, example.text)]
    if document.problem is None
    for run in recipes(document)
}


def check(
    document: Any, run: Any, name: str, field: Field, environment: Environment = ENVIRONMENT
) -> list[Any]:
    changed = replace(run, fields={**run.fields, name: field})
    subject = RecipeSubject(document, changed, Context(environment=environment))
    found, _ = judge(subject, SELECTED)
    subject.not_static()
    return found


# One of each dialect: any value of any field takes a while.
SOME = list({run.dialect: key for key, (_, run) in RUNS.items()}.values())


@pytest.mark.parametrize("key", SOME)
def test_any_value(key: str) -> None:
    document, run = RUNS[key]
    for name, field in run.fields.items():
        for value in ODD:
            check(document, run, name, field._replace(value=value, origin="written"))


@pytest.mark.parametrize("environment", OTHERS, ids=str)
def test_any_value_with_other_versions(environment: Environment) -> None:
    document, run = RUNS["TM101 bad"]
    for name, field in run.fields.items():
        for value in ODD:
            check(document, run, name, field._replace(value=value, origin="written"), environment)


@pytest.mark.parametrize("key", RUNS)
def test_what_is_not_static_is_not_judged(key: str) -> None:
    document, run = RUNS[key]
    for name, field in run.fields.items():
        unknown = Field(None, "unknown", field.path, "the result of a function call")
        found = check(document, run, name, unknown)
        assert not [finding for _, finding in found if finding.field == name]
