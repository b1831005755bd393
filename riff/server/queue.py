"""One bounded queue in front of one model: first come, first served, in a thread that outlives every request."""

import gc
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from riff.server.faults import Refusal, refusal
from riff.server.jobs import Job, Result, Stopped
from riff.server.log import note, note_defect
from riff.server.metrics import Metrics
from riff.server.settings import Settings

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

GOING_DOWN = "the server is going down; send this again"


class WorkQueue:
    """Jobs that wait for the model, and the thread that draws them.

    Attributes:
        state: loading, ready, draining, or failed if the model could not be loaded.
        failure: why it could not.
    """

    def __init__(self, load: Callable[[], "RiffPipeline"], settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.state = "loading"
        self.failure: BaseException | None = None
        self._load = load
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._urgent: deque[Job] = deque()
        self._running: list[Job] = []
        self._was_urgent = False
        self._mean_s = 2.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="riff-worker", daemon=True)
        self.pipe: RiffPipeline | None = None

    def start(self) -> None:
        """Load the model and begin to work."""
        self._thread.start()

    def submit(self, job: Job) -> Job:
        """Put a job in the queue.

        Raises:
            Refusal: 429 if it is full, 503 while the model loads or the server goes down.
        """
        with self._changed:
            if self.state != "ready":
                reason = GOING_DOWN if self.state == "draining" else "the model is still loading; try again"
                raise Refusal(503, reason, retry_after=5)
            self._drop_stopped()
            if job.urgent:
                self._urgent.append(job)
            elif len(self._waiting) >= self.settings.queue_size:
                raise Refusal(429, "too many requests are waiting; try again later", retry_after=self._wait_s())
            else:
                self._waiting.append(job)
            self._jobs[job.id] = job
            self._forget_old()
            self._note_length()
            self._changed.notify_all()
        return job

    def find(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            Refusal: 404, there is no such job, or it is forgotten.
        """
        with self._changed:
            job = self._jobs.get(job_id)
        if job is None or job.urgent:
            raise Refusal(404, "there is no such job; results are kept for a while only")
        return job

    def place(self, job: Job) -> int | None:
        """How many jobs come before one that waits."""
        with self._changed:
            return self._waiting.index(job) if job in self._waiting else None

    def cancel(self, job: Job, reason: Refusal | None = None) -> None:
        """Call a job off: one that waits ends at once, one that runs after its present denoising step."""
        job.cancel(reason)
        with self._changed:
            self._drop_stopped()
            self._note_length()

    def drain(self) -> None:
        """Take no more jobs and hand back those that wait; what runs may end. Safe in a signal handler."""
        self.state = "draining"
        self.metrics.ready.set(0)

    def expire(self) -> None:
        """Hand back what waits and what runs."""
        self.drain()
        with self._changed:
            self._hand_back()
            self._changed.notify_all()
        for job in list(self._running):
            job.cancel(Refusal(503, GOING_DOWN, retry_after=5))

    def close(self, timeout_s: float) -> None:
        """Wait for what runs, then stop it."""
        self.drain()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.expire()
            self._thread.join(5.0)

    def _hand_back(self) -> None:
        for job in (*self._urgent, *self._waiting):
            self._end(job, Refusal(503, GOING_DOWN, retry_after=5))
        self._urgent.clear()
        self._waiting.clear()

    def _run(self) -> None:
        try:
            self.pipe = self._load()
        except BaseException as error:
            self.failure, self.state = error, "failed"
            return
        if self.state == "loading":
            self.state = "ready"
            self.metrics.ready.set(1)
            loras = [adapter.name for adapter in self.pipe.origin.adapters]
            note("ready", model=self.pipe.name, device=str(self.pipe.device), loras=loras)
        import torch

        with torch.no_grad():
            while batch := self._take():
                self._work(self.pipe, batch)
                with self._changed:
                    self._running = []
                    self._note_length()

    def _take(self) -> list[Job]:
        """The next jobs: a stream's and the others' in turn; neighbours of one group together. Empty at the end."""
        with self._changed:
            while True:
                self._drop_stopped()
                if self.state == "draining":
                    self._hand_back()
                    return []
                if self._urgent or self._waiting:
                    break
                self._changed.wait(0.5)
            self._was_urgent = bool(self._urgent) and not (self._was_urgent and self._waiting)
            line = self._urgent if self._was_urgent else self._waiting
            batch = [line.popleft()]
            while line and batch[0].group is not None and line[0].group == batch[0].group and len(batch) < self._size:
                batch.append(line.popleft())
            self._running = batch
            for job in batch:
                job.begin()
            self._note_length()
            return batch

    @property
    def _size(self) -> int:
        if self.settings.batch_size is not None:
            return self.settings.batch_size
        return 4 if self.pipe is not None and self.pipe.device.type == "cuda" else 1

    def _work(self, pipe: "RiffPipeline", batch: Sequence[Job]) -> None:
        """Draw a batch; if it fails as a whole, each of it alone."""
        began = time.monotonic()
        outcomes: Sequence[Result | BaseException]
        try:
            outcomes = batch[0].work(pipe, batch)
        except Stopped as stopped:
            outcomes = [stopped] * len(batch)
        except Exception as error:
            if len(batch) > 1:
                self._clean(error)
                for job in batch:
                    self._work(pipe, [job])
                return
            outcomes = [error]
        spent = (time.monotonic() - began) / len(batch)
        for job, outcome in zip(batch, outcomes, strict=True):
            self._settle(job, outcome)
            self.metrics.job_seconds.labels(job.kind).observe(spent)
        if not batch[0].urgent:
            self._mean_s = 0.8 * self._mean_s + 0.2 * spent

    def _settle(self, job: Job, outcome: Result | BaseException) -> None:
        if job.stop_reason is not None:
            self._end(job, job.stop_reason)
        elif isinstance(outcome, Result):
            self._end(job, outcome)
        else:
            told = refusal(outcome, job.secrets)
            if told is None:
                note_defect(outcome, request_id=job.request_id, job=job.id)
                told = Refusal(500, f"something went wrong in the server; if you report it, say {job.request_id}")
            self._end(job, told, outcome)
            self._clean(outcome)

    def _end(self, job: Job, outcome: Result | Refusal, error: BaseException | None = None) -> None:
        if not job.finish(outcome, error):
            return
        self.metrics.jobs.labels(job.kind, job.state).inc()
        if not job.urgent:
            spent = None if job.started is None else round(time.monotonic() - job.started, 3)
            waited = round((job.started or time.monotonic()) - job.created, 3)
            note("job", request_id=job.request_id, job=job.id, kind=job.kind, state=job.state,
                 waited_s=waited, worked_s=spent)  # fmt: skip

    def _clean(self, error: BaseException) -> None:
        """Let go of what a failed drawing held, so that the next one has the memory."""
        error.__traceback__ = None
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            gc.collect()
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _drop_stopped(self) -> None:
        """End what waits and is called off or past its deadline."""
        for line in (self._urgent, self._waiting):
            for job in [job for job in line if job.stop_reason is not None]:
                line.remove(job)
                assert job.stop_reason is not None
                self._end(job, job.stop_reason)

    def _forget_old(self) -> None:
        """Drop finished jobs that are old, or too many, or hold too much."""
        now, kept, held = time.monotonic(), 0, 0
        for job in reversed(list(self._jobs.values())):
            if not job.finished:
                continue
            kept, held = kept + 1, held + len(job.result.content if job.result else b"")
            old = job.ended is not None and now - job.ended > self.settings.keep_s
            if job.urgent or old or kept > self.settings.keep_jobs or held > self.settings.keep_bytes:
                del self._jobs[job.id]

    def forget(self, job: Job) -> None:
        """Drop a job whose result was delivered."""
        with self._changed:
            self._jobs.pop(job.id, None)

    def _wait_s(self) -> float:
        return min(60.0, self._mean_s * max(1, len(self._waiting)) / 2)

    def _note_length(self) -> None:
        self.metrics.waiting.set(len(self._waiting) + len(self._urgent))
        self.metrics.running.set(len(self._running))
