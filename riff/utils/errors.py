"""What can go wrong that a user can mend. The command line turns each into one line and an exit code."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar


class RiffError(ValueError):
    """Wrong usage or input (exit code 2). The message names the value, what is allowed and the remedy."""

    exit_code = 2


class ModelError(RiffError):
    """A checkpoint that cannot be used: missing, incomplete, corrupt or unsafe (exit code 4)."""

    exit_code = 4


class SystemProblem(RiffError):
    """The machine stands in the way: disk full, folder read-only, no such device (exit code 5)."""

    exit_code = 5


# What PyTorch says on a CPU, on Apple's and on other accelerators; only CUDA has an exception of its own.
_MEMORY_WORDS = (
    "can't allocate memory",
    "alloc_failed",
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, in Python's, NumPy's or PyTorch's words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and any(each in words for each in _MEMORY_WORDS)


# Stopping long work between two of its steps, for a caller that has a deadline or a signal to obey.

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
