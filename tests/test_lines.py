"""The pairs of versions that findings are decided for."""

from __future__ import annotations

import pytest

from lora_lint.checks.lines import Line, between, lines
from lora_lint.environment import Environment, Version


def known(text: str, lowest: str = "", highest: str = "") -> Version:
    return Version(text, "test", lowest, highest)


@pytest.mark.parametrize(
    ("peft", "transformers", "expected"),
    [
        # Nothing is known: the newest, and the last transformers 4.
        (None, None, [("0.21.2", "5.23.0"), ("0.18.1", "4.57.6")]),
        # One is known: the other is whatever goes with it.
        (None, known("4.57.6"), [("0.21.2", "4.57.6"), ("0.18.1", "4.57.6")]),
        (known("0.21.2"), None, [("0.21.2", "5.23.0"), ("0.21.2", "4.57.6")]),
        (known("0.17.1"), None, [("0.17.1", "4.57.6")]),  # does not import with 5
        # Both are known.
        (known("0.8.2"), known("4.37.2"), [("0.8.2", "4.37.2")]),
        # Ranges are decided at both ends; an open lower one begins where the PEFT imports.
        (
            known(">=0.7,<0.9", "0.7.0", "0.8.2"),
            known("4.37.2"),
            [("0.8.2", "4.37.2"), ("0.7.0", "4.37.2")],
        ),
        (
            known(">=0.18", "0.18.0", "0.21.2"),
            known(">=4.57", "4.57.0", "5.23.0"),
            [("0.21.2", "5.23.0"), ("0.18.0", "4.57.0")],
        ),
        (
            known("0.21.2"),
            known("<6", "2.0.0", "5.23.0"),
            [("0.21.2", "5.23.0"), ("0.21.2", "4.43.4")],
        ),
    ],
)
def test_lines(
    peft: Version | None, transformers: Version | None, expected: list[tuple[str, str]]
) -> None:
    found = lines(Environment(peft, transformers))
    assert [(line.peft, line.transformers) for line in found] == expected
    assert all(line.assumed is None for line in found)


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("99.0.0", "0.21.2"),
        ("0.15.7", "0.15.2"),
        ("0.21.0rc1", "0.21.0"),
        ("0.22.0.dev0", "0.21.2"),
    ],
)
def test_what_is_no_known_release_has_one_that_stands_for_it(version: str, release: str) -> None:
    (line,) = lines(Environment(known(version), known("4.57.6")))
    assert line == Line(release, "4.57.6", assumed=version)


def test_a_version_is_the_release_that_it_means() -> None:
    (line,) = lines(Environment(known("0.17"), known("4.57.6")))
    assert line == Line("0.17.0", "4.57.6")


def test_between_is_every_release_of_a_range() -> None:
    peft = known(">=0.7,<0.9", "0.7.0", "0.8.2")
    found = between(Environment(peft, known("4.37.2")))
    assert [line.peft for line in found] == ["0.7.0", "0.7.1", "0.8.0", "0.8.1", "0.8.2"]
    assert {line.transformers for line in found} == {"4.37.2"}
    assert between(Environment(known("0.7.0"))) == ()
    assert between(Environment()) == ()


def test_between_stays_within_the_range_of_transformers() -> None:
    peft = known(">=0.17,<0.19", "0.17.0", "0.18.1")
    found = between(Environment(peft, known(">=4.57", "4.57.0", "5.23.0")))
    assert [(line.peft, line.transformers) for line in found] == [
        ("0.17.0", "4.57.6"),
        ("0.17.1", "4.57.6"),
        ("0.18.0", "5.23.0"),
        ("0.18.1", "5.23.0"),
    ]
