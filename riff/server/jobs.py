"""One request for the model: its state, its progress, and how it is called off."""

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from riff.server.faults import Refusal

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

FINISHED = ("done", "failed", "cancelled")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a job made.

    Attributes:
        content: the file's bytes, or a JSON reply's.
        media_type: of the content.
        facts: for the client: seed, tempo, length.
    """

    content: bytes
    media_type: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


# What draws the jobs of one batch: a result or an exception for each.
Work = Callable[["RiffPipeline", Sequence["Job"]], Sequence[Result | Exception]]


class Stopped(Exception):
    """Raised out of the denoising loop when nobody waits for the result any more."""


class Job:
    """A request on its way through the queue.

    Attributes:
        id: opaque.
        kind: "render", "walk", ...
        request: what was asked for, which only ``work`` reads.
        work: what draws it.
        group: jobs of one group may be drawn side by side; None is drawn alone.
        deadline: on the monotonic clock.
        kept: whether its result is kept after it was made, to be fetched.
        urgent: a stretch of a stream, which must not wait for its turn.
        secrets: texts that no message may quote.
        state: queued, running, cancelling, done, failed or cancelled.
        result: once done.
        fault: once failed or cancelled.
        error: the exception behind the fault, if there was one.
    """

    def __init__(
        self,
        kind: str,
        request: Any,
        work: Work,
        *,
        deadline_s: float,
        group: Hashable | None = None,
        kept: bool = False,
        urgent: bool = False,
        texts: Sequence[str] = (),
        request_id: str = "",
    ) -> None:
        self.id = secrets.token_hex(12)
        self.request_id = request_id or self.id
        self.kind, self.request, self.work, self.group = kind, request, work, group
        self.kept, self.urgent, self.secrets = kept, urgent, tuple(texts)
        self.created = time.monotonic()
        self.deadline = self.created + deadline_s
        self.started: float | None = None
        self.ended: float | None = None
        self.state = "queued"
        self.steps_done, self.steps_total = 0, 0
        self.result: Result | None = None
        self.fault: Refusal | None = None
        self.error: BaseException | None = None
        self._stop: Refusal | None = None
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in FINISHED

    @property
    def stop_reason(self) -> Refusal | None:
        """Why it should not go on: it was cancelled, or its time is over."""
        if self._stop is None and time.monotonic() > self.deadline:
            self._stop = Refusal(504, "this took longer than a request may; ask for less, or try when it is quieter")
        return self._stop

    def cancel(self, reason: Refusal | None = None) -> None:
        """Call it off; what runs stops after its present denoising step. Calling twice changes nothing."""
        with self._lock:
            if self.finished or self._stop is not None:
                return
            self._stop = reason or Refusal(409, "the job was cancelled")
            if self.state == "running":
                self.state = "cancelling"

    def begin(self) -> None:
        """Note that the model has it."""
        with self._lock:
            if not self.finished:
                self.state, self.started = "running", time.monotonic()

    def finish(self, outcome: Result | Refusal, error: BaseException | None = None) -> bool:
        """End it, once; tells those who watch. False if it had ended before."""
        with self._lock:
            if self.finished:
                return False
            self.ended, self.error = time.monotonic(), error
            if isinstance(outcome, Result):
                self.result, self.state = outcome, "done"
            else:
                self.fault, self.state = outcome, "cancelled" if outcome.status == 409 else "failed"
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()
        return True

    def when_finished(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` when it ends, from whatever thread; at once if it has."""
        with self._lock:
            if not self.finished:
                self._watchers.append(watcher)
                return
        watcher()

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
        # What follows the denoising, picture to sound, is about a tenth.
        return round(min(0.9, 0.9 * self.steps_done / self.steps_total), 3) if self.steps_total else 0.0

    def _eta(self) -> float | None:
        if self.state != "running" or self.started is None or not self.steps_done:
            return None
        spent = time.monotonic() - self.started
        return round(spent / max(self._progress(), 0.01) - spent, 1)


def step_counter(jobs: Sequence[Job], counted: Callable[[int], None]) -> Callable[[int, int, Tensor], None]:
    """The pipeline's callback for a batch: counts, and raises :class:`Stopped` once no job of it is wanted."""

    def count_step(step: int, steps: int, latents: Tensor) -> None:
        rounds = -(-len(jobs) // latents.shape[0])  # a CPU draws the clips of a batch one after the other
        for job in jobs:
            job.steps_total = max(job.steps_total, steps * rounds)
            job.steps_done += 1
        counted(1)
        if all(job.finished or job.stop_reason is not None for job in jobs):
            raise Stopped

    return count_step
