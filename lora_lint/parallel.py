"""The same work on many items in several processes, with the results in the order of the items.

Not ``concurrent.futures``: its workers outlive a parent that is killed, and when one of them dies
nobody can say what it was working on.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

Item = TypeVar("Item")
Result = TypeVar("Result")

# Without a number of jobs the work begins in this process. Others are started once it has taken
# PATIENCE seconds, if at that pace the rest would take more than WORTH_IT seconds: two workers cost
# about 0.05 s of CPU where a process can be forked, 0.25 s where each imports everything anew.
PATIENCE: Final = 0.25
WORTH_IT: Final = 0.75
# Items are handed out in bundles, small enough that no worker is left alone with a long rest.
BUNDLE: Final = 16
BUNDLES_PER_WORKER: Final = 8
# Windows waits for at most 63 things at once (multiprocessing.connection.wait).
MOST_JOBS: Final = 60


class WorkerDied(Exception):  # noqa: N818 - it is an event, not an error of ours
    """A worker process ended in the midst of its work; the message says where."""


class WorkerFault(Exception):  # noqa: N818
    """An exception in a worker, in the words that it would have had in this process."""


def usable_cores() -> int:
    """How many cores this process may use: by its affinity, and by the quota of its container."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        count = os.cpu_count() or 1
    return max(1, min(count, _quota(), MOST_JOBS))


def _quota() -> int:
    """The CPU quota of a container (Linux control groups, version 2), in cores."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return MOST_JOBS


def ordered(
    items: Sequence[Item], prepare: Callable[[], Callable[[Item], Result]], jobs: int | None
) -> Iterator[Result]:
    """What the work makes of each item, in the order of the items.

    ``prepare`` makes the work; it is called once in each process that works, so it and the items
    and results must be picklable. ``jobs`` is the number of processes; None chooses: this one for a
    short job, all usable cores for a long one. Raises ``WorkerDied``, ``WorkerFault``, or what the
    work raises.
    """
    done = 0
    if jobs is None or jobs == 1 or len(items) < 2:
        work = prepare()
        begun = time.perf_counter()
        for item in items:
            yield work(item)
            done += 1
            if jobs is None and _pays(time.perf_counter() - begun, done, len(items) - done):
                break
    if done < len(items):
        rest = items[done:]
        yield from _in_processes(rest, prepare, min(jobs or usable_cores(), len(rest), MOST_JOBS))


def _pays(spent: float, done: int, left: int) -> bool:
    """Whether further processes are worth their start, by the pace so far (in seconds)."""
    return spent > PATIENCE and spent / done * left > WORTH_IT and usable_cores() > 1


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection[Any, Any]


def _in_processes(
    items: Sequence[Item], prepare: Callable[[], Callable[[Item], Result]], jobs: int
) -> Iterator[Result]:
    from multiprocessing.connection import wait

    size = max(1, min(BUNDLE, len(items) // (jobs * BUNDLES_PER_WORKER)))
    bundles = [items[at : at + size] for at in range(0, len(items), size)]
    waiting = iter(range(len(bundles)))
    finished: dict[int, list[Result]] = {}
    workers: list[_Worker] = []
    at_work: dict[Any, tuple[_Worker, int]] = {}
    try:
        for index in waiting:
            worker = _start(prepare)
            workers.append(worker)
            _hand_out(worker, bundles, index, at_work)
            if len(workers) == jobs:
                break
        ahead = 0
        while at_work:
            for connection in wait(list(at_work)):
                worker, index = at_work.pop(connection)
                finished[index] = _receive(worker, bundles[index])
                following = next(waiting, None)
                if following is not None:
                    _hand_out(worker, bundles, following, at_work)
            while ahead in finished:
                yield from finished.pop(ahead)
                ahead += 1
    finally:
        for worker in workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _start(prepare: Callable[[], Any]) -> _Worker:
    import multiprocessing
    import threading

    # A fork costs next to nothing, but is safe only where no other thread may hold a lock, and only
    # on Linux, since system libraries elsewhere start threads of their own.
    process: BaseProcess
    if sys.platform == "linux" and threading.active_count() == 1:
        forking = multiprocessing.get_context("fork")
        ours, theirs = forking.Pipe()
        process = forking.Process(target=_serve, args=(theirs, prepare), daemon=True)
    else:
        spawning = multiprocessing.get_context("spawn")
        ours, theirs = spawning.Pipe()
        process = spawning.Process(target=_serve, args=(theirs, prepare), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand_out(
    worker: _Worker, bundles: list[Any], index: int, at_work: dict[Any, tuple[_Worker, int]]
) -> None:
    try:
        worker.connection.send(bundles[index])
    except OSError:
        raise _death(worker, bundles[index]) from None
    at_work[worker.connection] = worker, index


def _receive(worker: _Worker, bundle: Sequence[Any]) -> Any:
    try:
        results, fault = worker.connection.recv()
    except (EOFError, OSError):
        raise _death(worker, bundle) from None
    if fault is not None:
        said, trace = fault
        raise WorkerFault(said) from WorkerFault(trace)
    return results


def _death(worker: _Worker, bundle: Sequence[Any]) -> WorkerDied:
    worker.process.join()
    status = worker.process.exitcode or 0
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    where = str(bundle[0])
    if len(bundle) > 1:
        where = f"one of {len(bundle)} files, {bundle[0]} to {bundle[-1]}"
    return WorkerDied(f"a worker process {how} at {where}")


def _serve(connection: Connection[Any, Any], prepare: Callable[[], Callable[[Any], Any]]) -> None:
    """The life of a worker: bundles in, results out, until the other end is closed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends its workers
    work = None
    while True:
        try:
            bundle = connection.recv()
        except (EOFError, OSError):
            return
        answer: tuple[list[Any], tuple[str, str] | None]
        try:
            work = work or prepare()
            answer = [work(item) for item in bundle], None
        except Exception as exc:  # noqa: BLE001 - the parent raises it
            import traceback

            answer = [], (f"{type(exc).__name__}: {exc}", traceback.format_exc())
        try:
            connection.send(answer)
        except OSError:  # the parent is gone
            return
