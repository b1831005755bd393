"""A Ray cluster, joined or started on this machine, and work spread over processes in it, of which any may die."""

import logging
import os
import re
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from riff.utils.errors import RiffError, SystemProblem

MOST_TRIES = 3  # of a piece of work whose process dies each time
_REACH_SECONDS = 5.0
# Enough for what travels here; Ray's own choice is a third of the memory, which a container may not have as /dev/shm.
_STORE_BYTES = 1 << 29


@contextmanager
def connected(address: str | None = None, *, workers: int | None = None) -> Iterator[None]:
    """Be joined to a Ray cluster for the time of the block; one that this process has joined already is used as it is.

    Args:
        address: ``HOST:PORT`` of a cluster's head, ``ray://HOST:PORT`` of its client server, or ``"auto"`` for the one
            that runs on this machine; None takes the environment's ``RAY_ADDRESS``, else starts one here.
        workers: processes of one that is started here; default one a core.

    Raises:
        RiffError: ``address`` is none.
        SystemProblem: ray is not installed, or the cluster cannot be joined.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        _check_address(address)
    # Set before ray is imported: whoever works with riff is nobody's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SystemProblem(
            "--engine ray needs ray; install it (python -m pip install 'riff-music[ray]') or leave --engine out"
        ) from error
    if ray.is_initialized():
        yield
        return
    with _signals_kept():
        try:
            _join(address, workers)
        except Exception as error:  # Ray raises every kind
            where = "one cannot be started here" if address is None else f"{address} cannot be joined"
            raise SystemProblem(
                f"no Ray cluster: {where} ({_first_line(error)}); check --address, or leave --engine out"
            ) from error
    try:
        yield
    finally:
        with _signals_kept():
            ray.shutdown()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_on_actors(
    make: Callable[[], Callable[[Any], Any]],
    tasks: list[Any],
    *,
    workers: int | None = None,
    gpu: bool = False,
    threads: int = 1,
) -> Iterator[tuple[int, Any | BaseException]]:
    """Do the same work on many things, in processes that each make ready once; within :func:`connected`.

    A task whose process dies is given to a new one, :data:`MOST_TRIES` times in all.

    Args:
        make: called once in each process; what it returns does one task. Both, tasks and results travel between them.
        tasks: the argument of each call.
        workers: processes; default as many as the cluster has cores for, or GPUs.
        gpu: whether each needs one.
        threads: cores that each uses; where ``workers`` is given they may share them.

    Yields:
        Number of a task and its result, or the exception it ended with, in the order in which they are done.

    Raises:
        RiffError: what ``make`` raised.
        SystemProblem: the cluster has no core, or no GPU where one is needed; or riff does not run on it.
    """
    import ray

    count, cpus = _room(workers, gpu, threads)
    actor = ray.remote(_Worker).options(num_cpus=cpus, num_gpus=int(gpu))
    waiting, tries = deque(range(len(tasks))), Counter[int]()
    busy: dict[Any, tuple[Any, int]] = {}

    def begin(worker: Any) -> None:
        number = waiting.popleft()
        busy[worker.do.remote(tasks[number])] = worker, number

    try:
        for _ in range(min(count, len(tasks))):
            begin(actor.remote(make))
        while busy:
            (done,), _ = ray.wait(list(busy), num_returns=1)
            worker, number = busy.pop(done)
            answer, dead = _answer(done)
            if isinstance(answer, _NotReady):
                raise answer.args[0]
            tries[number] += dead
            if dead:
                worker = actor.remote(make)
            again = dead and tries[number] < MOST_TRIES
            if again:
                waiting.append(number)
            if waiting:
                begin(worker)
            if not again:
                yield number, answer
    finally:
        for worker, _ in busy.values():
            ray.kill(worker)


def gpus() -> int:
    """GPUs of the cluster that is joined."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def _room(workers: int | None, gpu: bool, threads: int) -> tuple[int, int]:
    """Processes to start, and the cores that each reserves: no more than a machine has, or Ray would wait for ever."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores_of = [int(machine.get("CPU", 0)) for machine in machines]
    there = gpus() if gpu else sum(cores_of)
    if not there:
        raise SystemProblem(f"the Ray cluster has no {'GPU; use --device cpu' if gpu else 'CPU'}")
    if gpu or workers:
        return min(workers or there, there), 1
    each = min(threads, max(cores_of))
    return sum(own // each for own in cores_of), each


class _NotReady(Exception):
    """A process could not make ready; its argument says why."""


class _Worker:
    """A process that works on one thing at a time."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._make = make
        self._work: Callable[[Any], Any] | None = None

    def do(self, task: Any) -> Any | BaseException:
        """One task; what goes wrong in it is its result, so that only a death is an error of Ray's."""
        try:
            if self._work is None:
                self._work = self._make()
        except RiffError as error:
            return _NotReady(error)
        try:
            return self._work(task)
        except Exception as error:
            return portable(error)


def portable(error: Exception) -> Exception:
    """An exception that every process can read: riff's own as they are, of others the text."""
    if isinstance(error, RiffError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def does_not_run(error: Exception) -> SystemProblem:
    """What is said when a worker could not even begin, most often since it has another riff, or none."""
    lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return SystemProblem(
        f"the workers of the Ray cluster fail ({(lines or [type(error).__name__])[-1][:200]}); "
        "install the same riff, with the same extras, on all of its machines"
    )


def _answer(done: Any) -> tuple[Any, bool]:
    """A result, and whether the process died over it."""
    import ray

    try:
        return ray.get(done), False
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError) or getattr(error, "actor_init_failed", False):
            raise does_not_run(error) from error
        return RiffError(f"the process that worked on it ended {MOST_TRIES} times ({_first_line(error)})"), True


def _join(address: str | None, workers: int | None) -> None:
    import ray

    if address is not None:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(
        address="local",
        num_cpus=workers or cores(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_STORE_BYTES,
        # Ray's workers are nice to all others, and so would get nothing done beside a busy program.
        _system_config={"worker_niceness": 0},
    )


def _check_address(address: str) -> None:
    if address != "auto" and not re.fullmatch(r"(ray://)?[^:/\s]+:[0-9]{1,5}", address):
        raise RiffError(f"the address {address!r} is none of a Ray cluster; use HOST:PORT, ray://HOST:PORT or auto")


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens there; Ray itself would try for a minute."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OverflowError as error:
        raise OSError(f"{port} is no port") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo what Ray does to SIGTERM, on which riff removes unfinished files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
