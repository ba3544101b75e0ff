"""Comments silence what they name, where they stand; and those that do nothing are reported."""

from __future__ import annotations

import pytest

from lora_lint import lint_text
from lora_lint.engine import Linter
from lora_lint.settings import Options, settle

ISOLATED = Options(isolated=True)
CONFIG = """\
lora:
  r: 8
  lora_alpha: 512{comment}
  target_modules:
    - all-linear
    - q_proj
"""


def codes(text: str, path: str = "train.yaml") -> list[str]:
    return [d.code for d in lint_text(text, path, ISOLATED).diagnostics]


def test_without_a_comment_both_speak() -> None:
    assert codes(CONFIG.format(comment="")) == ["SC207", "TM106"]


@pytest.mark.parametrize(
    "text",
    [
        CONFIG.format(comment="  # lora-lint: ignore[SC207]"),
        CONFIG.format(comment="  # lora-lint: ignore[SC207] as in the paper"),
        CONFIG.format(comment="").replace(
            "  lora_alpha", "  # lora-lint: ignore[SC207]\n  lora_alpha"
        ),
        CONFIG.format(comment="").replace(
            "  lora_alpha", "  # lora-lint: ignore[SC207]\n  # why\n\n  lora_alpha"
        ),
        "# lora-lint: ignore-file[SC207]\n" + CONFIG.format(comment=""),
    ],
)
def test_a_comment_silences_its_rule_at_its_place(text: str) -> None:
    assert codes(text) == ["TM106"]


def test_a_comment_at_a_key_holds_for_everything_inside() -> None:
    text = CONFIG.format(comment="").replace(
        "target_modules:", "target_modules:  # lora-lint: ignore[TM106]"
    )
    assert codes(text) == ["SC207"]


def test_one_comment_can_name_several_rules() -> None:
    text = CONFIG.format(comment="").replace("lora:", "lora:  # lora-lint: ignore[SC207, TM106]")
    assert codes(text) == []


def test_a_comment_elsewhere_silences_nothing_and_is_reported() -> None:
    text = CONFIG.format(comment="").replace("r: 8", "r: 8  # lora-lint: ignore[SC207]")
    assert codes(text) == ["DX001", "SC207", "TM106"]


def test_an_unknown_code_is_reported_with_a_hint() -> None:
    report = lint_text(CONFIG.format(comment="  # lora-lint: ignore[SC2O7]"), "a.yaml", ISOLATED)
    found = next(d for d in report.diagnostics if d.code == "DX002")
    assert found.message == "there is no rule 'SC2O7'; did you mean SC207?"


def test_the_word_in_a_string_is_no_comment() -> None:
    text = CONFIG.format(comment="") + "note: '# lora-lint: ignore[SC207]'\n"
    assert codes(text) == ["SC207", "TM106"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  r: 8  # lora-lint: ignore[SC201]\n", "  r: 8\n"),
        ("  # lora-lint: ignore[SC201]\n  r: 8\n", "  r: 8\n"),
        ("  r: 8  # lora-lint: ignore[SC201, SC203] why\n", "  r: 8\n"),
    ],
)
def test_an_unused_comment_is_taken_away(before: str, after: str) -> None:
    text = "lora:\n{}  lora_alpha: 16\n  target_modules: all-linear\n"
    linter = Linter(settle(ISOLATED))
    fixed, _ = linter.fix("a.yaml", text.format(before), unsafe=False)
    assert fixed == text.format(after)


def test_what_is_still_needed_in_a_comment_stays() -> None:
    text = CONFIG.format(comment="  # lora-lint: ignore[SC207, SC201] why")
    fixed, _ = Linter(settle(ISOLATED)).fix("a.yaml", text, unsafe=False)
    assert "# lora-lint: ignore[SC207] why" in fixed
