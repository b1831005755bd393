"""One piece of work at a time, done aside, so that the page hears how far it is and can stop it."""

import contextlib
import dataclasses
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from torch import Tensor

from riff.diffusion import StepCallback
from riff.errors import RiffError

T = TypeVar("T")
_LOOK_AGAIN = 0.1  # seconds after which a stop is noticed


class Stopped(Exception):
    """Somebody asked to stop."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        done: denoising steps done.
        total: of how many; 0 while nothing is known.
        step_s: seconds that a step took, in the mean.
        since_s: seconds since the last one ended.
        notes: what was warned of.
    """

    done: int
    total: int
    step_s: float = 0.0
    since_s: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def left(self) -> float | None:
        """Seconds of denoising that are left; None before the first step is done."""
        return max(self.step_s * (self.total - self.done) - self.since_s, 0.0) if self.done else None


@dataclasses.dataclass(frozen=True)
class Part(Generic[T]):
    """Something that is done, of which more may come."""

    value: T


Make = Callable[[StepCallback], Iterator[T]]


class Works:
    """Who works for which session, and the one model that they share."""

    def __init__(self) -> None:
        self._model = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    def stop(self, session: str) -> None:
        """Stop what is done for a session, if anything is."""
        event = self._stops.get(session)
        if event is not None:
            event.set()

    def run(self, session: str, make: Make[T]) -> Iterator[Progress | Part[T]]:
        """Do a piece of work in a thread of its own.

        Args:
            session: whose it is; an earlier one of the same session is stopped.
            make: given the callback of the denoising steps, makes one thing or several.

        Yields:
            Every tenth of a second how far it is, and each thing as it is made.

        Raises:
            Stopped: by :meth:`stop`, within two tenths of a second; the thread ends at its next step.
            RiffError: what ``make`` raised.
        """
        self.stop(session)
        event = self._stops[session] = threading.Event()
        doing = _Doing(make, event, self._model)
        threading.Thread(target=doing.run, name="riff-play", daemon=True).start()
        try:
            yield from doing.look()
        finally:
            event.set()
            if self._stops.get(session) is event:
                del self._stops[session]


class _Doing(Generic[T]):
    def __init__(self, make: Make[T], stop: threading.Event, model: threading.Lock) -> None:
        self.make, self.stop, self.model = make, stop, model
        self.made: queue.SimpleQueue[Part[T] | BaseException | None] = queue.SimpleQueue()
        self.done, self.total, self.step_s = 0, 0, 0.0
        self.first = self.last = time.monotonic()  # when the first and the last step ended, or all began
        self.caught: list[warnings.WarningMessage] = []

    @property
    def progress(self) -> Progress:
        notes = dict.fromkeys(str(each.message) for each in self.caught if each.category is UserWarning)
        return Progress(self.done, self.total, self.step_s, time.monotonic() - self.last, tuple(notes))

    def run(self) -> None:
        """What the thread does."""
        try:
            with self.model, self._noting():
                self.last = time.monotonic()
                for value in self.make(self._step):
                    self._check()
                    self.made.put(Part(value))
            self.made.put(None)
        except BaseException as error:  # handed to the one who looks
            self.made.put(error)

    def look(self) -> Iterator[Progress | Part[T]]:
        """What the page does meanwhile."""
        while True:
            self._check()
            try:
                found = self.made.get(timeout=_LOOK_AGAIN)
            except queue.Empty:
                yield self.progress
                continue
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield self.progress
            yield found

    def _step(self, step: int, steps: int, latents: Tensor) -> Tensor | None:
        self._check()
        now = time.monotonic()
        if step == 0:  # it takes longer than the others, but is all that is known
            self.first = now
        self.step_s = (now - self.first) / step if step else now - self.last
        self.last, self.done, self.total = now, step + 1, steps
        return None

    def _check(self) -> None:
        if self.stop.is_set():
            raise Stopped

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep riff's warnings for the page. The model's lock keeps others from doing the same at once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self.caught = caught
            yield


def human(error: BaseException) -> str:
    """An error as one line for the page."""
    if isinstance(error, RiffError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "not enough memory; use fewer bars"
    return f"{type(error).__name__}: {' '.join(str(error).split())} (a defect in riff)"
