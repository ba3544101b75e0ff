"""A long run counts its files on a terminal, and leaves nothing behind there."""

from __future__ import annotations

import io
import sys

import pytest

from lora_lint import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch, *, delay: float = 0.0) -> Terminal:
    stream = Terminal()  # no fixture: pytest sets its own stderr after those
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "DELAY", delay)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    return stream


def screen(written: str) -> str:
    """What a line of a terminal shows after this was written to it."""
    line: list[str] = []
    at = 0
    for character in written:
        if character == "\r":
            at = 0
            continue
        line[at : at + 1] = character
        at += 1
    return "".join(line).rstrip()


def test_a_long_run_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    seen = []
    for item in progress.shown(range(1200), 1200):
        seen.append(item)
        if item == 1100:
            assert screen(terminal.getvalue()) == "1,100 of 1,200 files"
    assert seen == list(range(1200))
    assert screen(terminal.getvalue()) == ""


def test_the_line_is_cleared_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        list(progress.shown((1 // (3 - n) for n in range(9)), 9))
    assert "2 of 9 files" in terminal.getvalue()
    assert screen(terminal.getvalue()) == ""


def test_a_short_run_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch, delay=1.0)
    assert list(progress.shown(range(50), 50)) == list(range(50))
    assert terminal.getvalue() == ""


def test_only_a_terminal_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress.shown(range(5), 5)) == list(range(5))
    assert stream.getvalue() == ""
