"""Processes whose libraries use one thread each, and a map that uses several."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

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
