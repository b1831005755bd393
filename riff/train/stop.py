"""Ctrl-C and SIGTERM: the first asks for a clean stop, a second leaves at once."""

import os
import signal
import threading
import time
from typing import Any

# A launcher of several processes passes Ctrl-C on to workers that have it from the terminal already.
_ECHO_SECONDS = 2.0


class StopRequested(Exception):
    """A signal came while a run was being prepared; what was worked out is in its cache."""


class StopFlag:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one takes effect at once.

    Attributes:
        signal: number of the signal that came, or None.
    """

    def __init__(self, *, launched: bool = False) -> None:
        """``launched``: this is one of several processes, so a second signal right after the first is its echo."""
        self.signal: int | None = None
        self._launched = launched
        self._when = 0.0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: object) -> None:
        if self.signal is None:
            self.signal, self._when = number, time.monotonic()
        elif not self._launched or time.monotonic() - self._when > _ECHO_SECONDS:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def check(self) -> None:
        """Raise StopRequested if a signal came."""
        if self.signal is not None:
            raise StopRequested

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
