"""The same work on many files, in as many processes as there are cores, with a bar that says how long it will take."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from riff.errors import SystemProblem
from riff.threads import one_thread

Work = Callable[[Any], Any]
_work: Work | None = None  # of this process, if it is a worker


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(make: Callable[[Any], Work], plan: Any, tasks: Sequence[Any], *, workers: int, bar: Any) -> list[Any]:
    """Do the tasks; results in their order.

    Args:
        make: a function of a module that loads what the work needs, once a process, and returns the work.
        plan: its argument; it, the tasks and the results travel between processes.
        tasks: the argument of each piece of work, which must not raise but return what went wrong.
        workers: processes; below 2 the work is done here.
        bar: is told of each piece that is done (``update(1)``).

    Raises:
        SystemProblem: a worker was killed, mostly for want of memory.
    """
    results: list[Any] = [None] * len(tasks)
    for number, result in _done(make, plan, tasks, min(workers, len(tasks))):
        results[number] = result
        bar.update(1)
    return results


def _done(make: Callable[[Any], Work], plan: Any, tasks: Sequence[Any], workers: int) -> Iterator[tuple[int, Any]]:
    if workers < 2:
        work = make(plan) if tasks else None
        for number, task in enumerate(tasks):
            assert work is not None
            yield number, work(task)
        return
    with one_thread():
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (make, plan))
    try:
        with one_thread():
            waiting: dict[Future[Any], int] = {pool.submit(_one, task): number for number, task in enumerate(tasks)}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        message = "a worker process was killed, as happens when memory runs out; use fewer --workers"
        raise SystemProblem(message) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(make: Callable[[Any], Work], plan: Any) -> None:
    global _work
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends its workers
    torch.set_num_threads(1)
    _work = make(plan)


def _one(task: Any) -> Any:
    assert _work is not None
    return _work(task)
