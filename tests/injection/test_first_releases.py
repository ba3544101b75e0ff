"""docs/peft-versions.md: inject agrees with what was measured for it; the page is up to date."""

import json
from typing import Any

import pytest
import transformers as installed

from lora_lint.facts import peft_facts
from lora_lint.injection import inject
from tests.injection.test_peft_tables import answered, differences, tree_of
from tools.first_releases import CLAIMS, DATA, PAGE, page

MEASURED = json.loads(DATA.read_text())
# What inject does not predict, or what only the text of the page is about.
LEFT_OUT = ("message", "biases", "warned")


@pytest.mark.parametrize("release", MEASURED["transformers"])
def test_inject_agrees_with_the_page(release: str) -> None:
    wrong = []
    version = MEASURED["transformers"][release]
    same = version.partition(".")[0] == installed.__version__.partition(".")[0]
    for row in MEASURED["claims"]:
        answer: dict[str, Any] = {
            k: v for k, v in answered(row, release).items() if k not in LEFT_OUT
        }
        # The modules of a mixture are others with transformers 5.
        if "missing" in answer or (row["model"] == "real:mixtral" and not same):
            continue
        predicted = inject(
            tree_of(row["model"]),
            row["config"],
            peft=release,
            transformers=version,
            source=row["source"],
        )
        differ = differences(answer, predicted)
        if differ:
            wrong.append((row["name"], row["config"], differ))
    assert not wrong


def test_the_page_is_written_from_what_was_measured() -> None:
    asked = [(c.want, c.config, c.model, c.source) for c in CLAIMS]
    rows = MEASURED["claims"]
    assert asked == [(r["name"], r["config"], r["model"], r["source"]) for r in rows]
    assert PAGE.read_text() == page(MEASURED, peft_facts())
