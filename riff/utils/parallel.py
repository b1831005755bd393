"""Work on several processes or threads: a pool of which any process may die, and how many threads torch uses."""

import contextlib
import importlib.metadata
import os
import platform
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Map = Callable[..., Iterator[Any]]
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerDied(Exception):
    """A worker process ended without an answer: it was killed, ran out of memory, or crashed in a decoder."""


def run_all(
    make: Callable[[], Callable[..., Any]], tasks: Sequence[tuple[Any, ...]], *, workers: int
) -> Iterator[tuple[int, Any | Exception]]:
    """Do the same work on many things; a process that dies costs its own task only, and another takes its place.

    Args:
        make: called once in each process; it loads what the work needs and returns the work, a function of a task's
            arguments. It, the arguments and the results travel between processes.
        tasks: the arguments of each call.
        workers: processes, each with one thread; below 1 the work is done here.

    Yields:
        Number of a task and its result, or the exception that it ended with (:class:`WorkerDied` if the process
        died), in the order in which they are done.
    """
    if workers < 1:
        work = make() if tasks else None
        for number, arguments in enumerate(tasks):
            yield number, _attempt(work, arguments)
        return
    waiting = deque(range(len(tasks)))
    busy: dict[Future[Any], tuple[int, _Worker]] = {}
    try:
        for _ in range(min(workers, len(tasks))):
            _begin_next(_Worker(make), waiting, tasks, busy)
        while busy:
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                number, worker = busy.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    result = WorkerDied(f"the process that worked on it ended {worker.end()}")
                    worker = _Worker(make)
                if waiting:
                    _begin_next(worker, waiting, tasks, busy)
                else:
                    worker.stop()
                yield number, result
    finally:
        for _, worker in busy.values():
            worker.stop()


class _Worker:
    """A pool of one process, so that a death is known to be that of its task."""

    def __init__(self, make: Callable[[], Callable[..., Any]]) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _start, (make,))
        self._process: Any = None

    def begin(self, arguments: tuple[Any, ...]) -> Future[Any]:
        with one_thread():
            future = self._pool.submit(_one, arguments)
            if self._process is None:
                self._process = next(iter(self._pool._processes.values()))
        return future

    def end(self) -> str:
        """How the process ended."""
        self._process.join(5.0)
        code = self._process.exitcode
        self._pool.shutdown(wait=False)
        return f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process is not None:
            self._process.terminate()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin_next(
    worker: _Worker, waiting: deque[int], tasks: Sequence[tuple[Any, ...]], busy: dict[Future[Any], tuple[int, _Worker]]
) -> None:
    number = waiting.popleft()
    busy[worker.begin(tasks[number])] = number, worker


_work: Callable[..., Any] | None = None  # of this process, if it is a worker


def _start(make: Callable[[], Callable[..., Any]]) -> None:
    global _work
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends its workers
    torch.set_num_threads(1)
    _work = make()


def _one(arguments: tuple[Any, ...]) -> Any | Exception:
    return _attempt(_work, arguments)


def _attempt(work: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> Any | Exception:
    assert work is not None
    try:
        return work(*arguments)
    except Exception as error:
        return error


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
def threads(count: int | None) -> Iterator[None]:
    """torch and the inversion use so many threads meanwhile, however many cores there are; None changes nothing.

    The last bits of a matrix product depend on how its sums are split over threads, and on nothing else of the
    machine's size: with the number of threads that a file was made with, its bytes come again.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def mapping(count: int) -> Iterator[Map]:
    """Python's ``map``, with the calls on ``count`` threads at a time; results come in order all the same."""
    if count <= 1:
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

    with ThreadPoolExecutor(count) as pool:
        yield each


# What a machine is, described without names of people or places; nothing heavy is imported.


def processor_name() -> str:
    """The processor as its maker calls it, such as ``"AMD EPYC 9B14 96-Core Processor"``."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        names = re.findall(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
        if names:
            return str(names[0]).strip()
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """Memory of the machine in GiB; None where the system does not say (Windows)."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def peak_memory_mib() -> float | None:
    """The most resident memory that this process has had, in MiB; None where the system does not say."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def package_version(name: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
