"""Work spread over processes of which any may die: its piece of work is then reported, and another takes its place."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_pipes
from typing import Any

from riff.utils.errors import SystemProblem


class WorkerDied(Exception):
    """A worker process ended without an answer: it was killed, ran out of memory, or crashed in somebody's decoder."""


def run_all(
    work: Callable[..., Any], tasks: list[tuple[Any, ...]], *, workers: int
) -> Iterator[tuple[int, Any | BaseException]]:
    """Do the same work on many things.

    Args:
        work: a function of a module; it, its arguments and its results travel between processes.
        tasks: the arguments of each call.
        workers: processes; 0 does the work here.

    Yields:
        Number of a task and its result, or the exception it ended with, in the order in which they are done.
    """
    if not workers:
        for number, arguments in enumerate(tasks):
            yield number, _attempt(work, arguments)
        return
    waiting, crew = deque(range(len(tasks))), []
    try:
        with one_thread():
            crew = [_Worker(work) for _ in range(min(workers, len(tasks)))]
        for worker in crew:
            worker.give(waiting.popleft(), tasks)
        while crew:
            for worker in _answered(crew):
                number, result = worker.answer()
                dead = isinstance(result, WorkerDied)
                if dead or not waiting:
                    crew.remove(worker)
                    worker.stop()
                if dead and waiting:
                    with one_thread():
                        worker = _Worker(work)
                    crew.append(worker)
                if waiting:
                    worker.give(waiting.popleft(), tasks)
                yield number, result
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """A process that works on one thing at a time."""

    def __init__(self, work: Callable[..., Any]) -> None:
        context = get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, work), daemon=True)
        self.process.start()
        other.close()
        self.number = -1

    def give(self, number: int, tasks: list[tuple[Any, ...]]) -> None:
        """Begin a task."""
        self.number = number
        with suppress(OSError):  # it died before; its answer will say so
            self.connection.send(tasks[number])

    def answer(self) -> tuple[int, Any | BaseException]:
        """What came of the task; waits for it."""
        try:
            return self.number, self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5.0)
            code = self.process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
            return self.number, WorkerDied(f"the process that worked on it ended {how}")

    def stop(self) -> None:
        """End it, whatever it does."""
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _answered(crew: list[_Worker]) -> list[_Worker]:
    ready = wait_for_pipes([worker.connection for worker in crew])
    return [worker for worker in crew if worker.connection in ready]


def _serve(connection: Connection, work: Callable[..., Any]) -> None:
    """The life of a worker: task in, answer out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends its workers
    # Decoders print what they think of damaged files; what matters of it is in the report.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            arguments = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(_attempt(work, arguments))


def _attempt(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any | BaseException:
    try:
        return work(*arguments)
    except Exception as error:
        return error


# WAS riff/evaluate/crew.py: The same work on many files, in as many processes as there are cores, with a bar
# that says how long it will take.

Work = Callable[[Any], Any]
_work: Work | None = None  # of this process, if it is a worker


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all_crew(make: Callable[[Any], Work], plan: Any, tasks: Sequence[Any], *, workers: int, bar: Any) -> list[Any]:
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


# WAS riff/threads.py: Processes whose libraries use one thread each, and a map that uses several.

Map = Callable[..., Iterator[Any]]
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextmanager
def one_thread() -> Iterator[None]:
    """The environment in which a process is started whose libraries use one thread each."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def mapping(threads: int) -> Iterator[Map]:
    """Python's ``map``, with the calls on so many threads at a time; results come in order all the same."""
    if threads <= 1:
        yield map
        return
    import torch

    # A thread begins outside inference mode, where tensors made inside it may not be written to.
    inside = torch.is_inference_mode_enabled()

    def each(function: Callable[..., Any], *columns: Iterable[Any]) -> Iterator[Any]:
        def call(*row: Any) -> Any:
            with torch.inference_mode(inside):
                return function(*row)

        return pool.map(call, *columns)

    with ThreadPoolExecutor(threads) as pool:
        yield each
