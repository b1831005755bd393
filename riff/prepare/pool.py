"""Work spread over processes of which any may die: its piece of work is then reported, and another takes its place."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from riff.threads import one_thread


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
    ready = wait([worker.connection for worker in crew])
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
