"""A Ray cluster, and Ray Data's ``map_batches`` over it: a worker that dies loses nothing."""

import logging
import os
import pickle
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from riff.utils.errors import RiffError, SystemProblem
from riff.utils.parallel import usable_cores

MAX_TRIES = 3  # of a task whose process dies each time


@contextmanager
def connected(address: str | None = None, *, workers: int | None = None) -> Iterator[None]:
    """Join a Ray cluster for the length of the block; one that this process has joined already is used as it is.

    Args:
        address: ``HOST:PORT``, ``ray://HOST:PORT``, or ``"auto"`` for the one that runs on this machine; None takes
            the environment's ``RAY_ADDRESS``, else starts one here.
        workers: processes of one that is started here; default one a core.

    Raises:
        RiffError: ``address`` is invalid.
        SystemProblem: ray is not installed, or the cluster cannot be joined.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address not in (None, "auto") and not re.fullmatch(r"(ray://)?[^:/\s]+:[0-9]{1,5}", str(address)):
        raise RiffError(f"the address {address!r} is none of a Ray cluster; use HOST:PORT, ray://HOST:PORT or auto")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before ray is imported
    try:
        import ray
    except ImportError as error:
        remedy = "install it (python -m pip install 'riff-music[ray]') or leave --engine out"
        raise SystemProblem(f"--engine ray needs ray; {remedy}") from error
    if ray.is_initialized():
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    try:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            own: dict[str, Any] = {
                "num_cpus": workers or usable_cores(),
                "object_store_memory": 1 << 29,
                "include_dashboard": False,
            }
            # Ray's workers are nice to all others, and so would get nothing done beside a busy program.
            ray.init(address="local", _system_config={"worker_niceness": 0}, **own, **quiet)
        else:
            if address != "auto":  # Ray itself would try for a minute
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, min(int(port), 65535)), timeout=5.0).close()
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises every kind
        where = "one cannot be started here" if address is None else f"{address} cannot be joined"
        remedy = "check --address, or leave --engine out"
        raise SystemProblem(f"no Ray cluster: {where} ({_line(error)}); {remedy}") from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)
        yield
    finally:
        ray.shutdown()


def gpus() -> int:
    """GPUs of the cluster that is joined."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def map_on_cluster(
    make: Callable[[], Callable[[Any], Any]],
    tasks: list[Any],
    *,
    workers: int | None = None,
    gpu: bool = False,
    threads: int = 1,
) -> Iterator[tuple[int, Any]]:
    """Do the same work on many things in processes of the cluster; within :func:`connected`.

    Args:
        make: called once in each process; it returns the work. Both, tasks and results travel between processes.
        tasks: the argument of each call. One whose process dies is given to another, :data:`MAX_TRIES` times in all.
        workers: processes; default as many as there are cores for, or GPUs.
        gpu: whether each needs one.
        threads: cores that each uses.

    Yields:
        The number of a task, and its result or the exception it ended with, in the order in which they are done.

    Raises:
        RiffError: what ``make`` raised.
        SystemProblem: the cluster has no core or no GPU, or riff does not run on it.
    """
    import ray
    from ray import data

    there = gpus() if gpu else int(ray.cluster_resources().get("CPU", 0))
    if not there:
        raise SystemProblem(f"the Ray cluster has no {'GPU; use --device cpu' if gpu else 'CPU'}")
    count = min(workers or (there if gpu else max(1, there // threads)), there, len(tasks))
    context = data.DataContext.get_current()
    context.enable_progress_bars, context.max_errored_blocks = False, -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    made = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker, fn_constructor_args=(ray.cloudpickle.dumps(make),), batch_size=1, batch_format="numpy",
        compute=data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=MAX_TRIES - 1,
    )  # fmt: skip
    left = set(range(len(tasks)))
    for row in made.iter_rows():
        ready, answer = pickle.loads(row["answer"])
        if not ready:
            raise answer
        left.remove(int(row["number"]))
        yield int(row["number"]), answer
    for number in left:  # Ray Data gave up on these blocks
        yield number, RiffError(f"the process that worked on it ended {MAX_TRIES} times")


class _Worker:
    """A process that works on one task at a time; what goes wrong is part of the answer, except its own end."""

    def __init__(self, make: bytes) -> None:
        self._make = make
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"number": batch["number"], "answer": [pickle.dumps(self._answer(batch["task"][0]))]}

    def _answer(self, task: bytes) -> tuple[bool, Any]:
        try:
            self._work = self._work or pickle.loads(self._make)()
        except RiffError as error:
            return False, error
        except Exception as error:  # most often another riff than the caller's, or none
            remedy = "install the same riff, with the same extras, on all of its machines"
            return False, SystemProblem(f"the workers of the Ray cluster fail ({_line(error)}); {remedy}")
        try:
            return True, self._work(pickle.loads(task))
        except Exception as error:
            known = isinstance(error, RiffError)  # of others the caller may not have the class
            return True, error if known else RuntimeError(f"{type(error).__name__}: {error}")


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
