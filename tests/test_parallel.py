"""Work in several processes gives the same results in the same order, and ends when it must."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from lora_lint import parallel
from lora_lint.parallel import WorkerDied, WorkerFault, ordered


def square(number: int) -> int:
    time.sleep(0.02 if number % 7 == 0 else 0)
    return number * number


def squares() -> Callable[[int], int]:
    return square


def pid(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def pids() -> Callable[[int], int]:
    return pid


def fail(number: int) -> int:
    if number == 40:
        raise KeyError(number)
    return number


def failing() -> Callable[[int], int]:
    return fail


def die(number: int) -> int:
    if number == 40:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    return number


def dying() -> Callable[[int], int]:
    return die


@pytest.mark.parametrize("jobs", [None, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_results_come_in_order(jobs: int | None, count: int) -> None:
    assert list(ordered(range(count), squares, jobs)) == [n * n for n in range(count)]


def test_jobs_are_processes() -> None:
    assert set(ordered(range(20), pids, 1)) == {os.getpid()}
    workers = set(ordered(range(20), pids, 2))
    assert len(workers) == 2
    assert os.getpid() not in workers


def test_beside_other_threads_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise AssertionError("forked beside a thread")

    monkeypatch.setattr(os, "fork", refuse)
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        assert list(ordered(range(30), squares, 2)) == [n * n for n in range(30)]
    finally:
        release.set()
        thread.join()


def test_long_work_is_shared_and_short_work_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "usable_cores", lambda: 2)
    assert set(ordered(range(20), pids, None)) == {os.getpid()}
    seen = list(ordered(range(150), pids, None))
    assert seen[0] == os.getpid()
    assert len(set(seen)) == 3


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_fault_is_raised_here(jobs: int) -> None:
    with pytest.raises((WorkerFault, KeyError), match="40"):
        list(ordered(range(100), failing, jobs))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_worker_that_is_killed_is_said() -> None:
    with pytest.raises(WorkerDied, match=r"killed by signal 15 at one of 6 files, 36 to 41"):
        list(ordered(range(100), dying, 2))


def test_a_run_that_is_given_up_leaves_no_process() -> None:
    results = ordered(range(1000), pids, 2)
    worker = next(results)
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
