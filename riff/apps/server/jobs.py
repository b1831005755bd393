"""One request for the model: its state, its progress, and how it is stopped."""

import asyncio
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from torch import Tensor

from riff.apps.server.settings import ApiError
from riff.utils.errors import checkpoint

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

TOO_LATE = "this took longer than a request may; ask for less, or try when it is quieter"
_ENDED = ("done", "failed", "cancelled")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a job made: bytes, and facts for the client such as seed, tempo and length."""

    content: bytes
    media_type: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


# What does the jobs of one batch: a result or an exception for each.
Work = Callable[["RiffPipeline", Sequence["ModelJob"]], Sequence[Result | Exception]]


class JobStopped(Exception):
    """Raised out of the model's work when nobody waits for its result any more."""


@dataclasses.dataclass(eq=False)
class ModelJob:
    """A request on its way through the queue.

    Attributes:
        kind: "render", "walk", ...; a "stream" does not wait for its turn.
        request: read by ``work`` only, and released when the job ends.
        work: what does it.
        deadline: on the monotonic clock.
        group: jobs of one group may be done side by side; None is done alone.
        kept: whether its result is kept to be fetched.
        texts: prompts, which no message may quote.
        request_id: in the log and in error messages.
        id: opaque.
        state: queued, running, cancelling, done, failed or cancelled.
        result: once done.
        fault: once failed or cancelled.
    """

    kind: str
    request: Any
    work: Work | None
    deadline: float
    group: Hashable | None = None
    kept: bool = False
    texts: Sequence[str] = ()
    request_id: str = ""

    def __post_init__(self) -> None:
        self.id = secrets.token_hex(12)
        self.size = int(getattr(self.request, "size", 0))
        self.created = time.monotonic()
        self.started: float | None = None
        self.ended: float | None = None
        self.state = "queued"
        self.steps_done, self.steps_total = 0, 0
        self.result: Result | None = None
        self.fault: ApiError | None = None
        self._stop: ApiError | None = None
        self._lock = threading.Lock()
        self._ended: Future[None] = Future()

    @property
    def urgent(self) -> bool:
        """Whether it is a piece of a stream, which must not wait for its turn."""
        return self.kind == "stream"

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in _ENDED

    @property
    def stop_reason(self) -> ApiError | None:
        """Why it should not go on: it was cancelled, or its time is over."""
        if self._stop is None and time.monotonic() > self.deadline:
            self._stop = ApiError(504, TOO_LATE)
        return self._stop

    def cancel(self, reason: ApiError | None = None) -> None:
        """Stop it; if it runs, after its present step. Calling twice changes nothing."""
        with self._lock:
            if self.finished or self._stop is not None:
                return
            self._stop = reason or ApiError(409, "the job was cancelled")
            if self.state == "running":
                self.state = "cancelling"

    def begin(self) -> None:
        """Note that the model has it."""
        with self._lock:
            if not self.finished:
                self.state, self.started = "running", time.monotonic()

    def finish(self, outcome: Result | ApiError) -> bool:
        """End it once, release what it held, and wake those who wait. False if it had ended before."""
        with self._lock:
            if self.finished:
                return False
            self.ended = time.monotonic()
            self.request, self.work, self.size = None, None, 0
            if isinstance(outcome, Result):
                self.result, self.state = outcome, "done"
            else:
                self.fault, self.state = outcome, "cancelled" if outcome.status == 409 else "failed"
        self._ended.set_result(None)
        return True

    async def wait(self) -> None:
        """Until it has ended, in whatever way; it goes on if the waiting is cancelled."""
        await asyncio.shield(asyncio.wrap_future(self._ended))

    def describe(self, place: int | None = None) -> dict[str, Any]:
        """State and progress for the client."""
        fields: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "progress": self._progress(),
            "steps_done": self.steps_done,
            "steps_total": self.steps_total or None,
            "place_in_queue": place,
            "eta_s": self._eta(),
            "result": f"/v1/jobs/{self.id}/result" if self.result is not None else None,
            "facts": None if self.result is None else self.result.facts,
            "error": None if self.fault is None else self.fault.message,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _progress(self) -> float:
        if self.state == "done":
            return 1.0
        # What follows the denoising, from image to sound, is about a tenth.
        return round(min(0.9, 0.9 * self.steps_done / self.steps_total), 3) if self.steps_total else 0.0

    def _eta(self) -> float | None:
        if self.state != "running" or self.started is None or not self.steps_done:
            return None
        spent = time.monotonic() - self.started
        return round(spent / max(self._progress(), 0.01) - spent, 1)


def step_counter(jobs: Sequence[ModelJob], counted: Callable[[int], None]) -> Callable[[int, int, Tensor], None]:
    """The pipeline's callback for a batch: counts its steps."""

    def count_step(step: int, steps: int, latents: Tensor) -> None:
        rounds = -(-len(jobs) // latents.shape[0])  # a CPU generates the clips of a batch one after the other
        for job in jobs:
            job.steps_total = max(job.steps_total, steps * rounds)
            job.steps_done += 1
        counted(1)
        checkpoint()

    return count_step
