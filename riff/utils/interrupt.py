"""Stopping long work between two of its steps, for a caller that has a deadline or a signal to obey."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextlib.contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Let ``check`` run at every step of the work inside the block; it raises to stop that work.

    It holds for this thread alone, so a server's jobs do not stop each other.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def checkpoint() -> None:
    """One step of long work is done: run the caller's check, if there is one."""
    check = _check.get()
    if check is not None:
        check()
