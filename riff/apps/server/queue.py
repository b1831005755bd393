"""One bounded queue in front of one model: first come, first served, in a thread that outlives every request."""

import asyncio
import gc
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from starlette.requests import Request

from riff.apps.server.jobs import TOO_LATE, JobStopped, ModelJob, Result
from riff.apps.server.settings import ApiError, Metrics, Settings, as_api_error, note, note_defect
from riff.utils.errors import interruptible, is_out_of_memory

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

GOING_DOWN = "the server is going down; send this again"


class WorkQueue:
    """Jobs that wait for the model, and the thread that does them.

    ``state`` is loading, ready, draining, or failed; then ``failure`` says why the model could not be loaded.
    """

    def __init__(self, load: Callable[[], "RiffPipeline"], settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.state = "loading"
        self.failure: BaseException | None = None
        self.pipe: RiffPipeline | None = None
        self._load = load
        self._jobs: OrderedDict[str, ModelJob] = OrderedDict()
        self._waiting: deque[ModelJob] = deque()
        self._urgent: deque[ModelJob] = deque()
        self._running: list[ModelJob] = []
        self._was_urgent = False
        self._mean_s = 2.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="riff-worker", daemon=True)
        self.on_failure: Callable[[], None] = lambda: None
        metrics.ready.set_function(lambda: self.state == "ready")
        metrics.waiting.set_function(lambda: len(self._waiting) + len(self._urgent))
        metrics.running.set_function(lambda: len(self._running))

    def start(self) -> None:
        """Load the model and begin to work."""
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    def check_room(self, *, urgent: bool = False, size: int = 0) -> None:
        """Refuse with 429 if the queue is full, with 503 while the model loads or the server goes down."""
        with self._changed:
            if self.state != "ready":
                reason = GOING_DOWN if self.state == "draining" else "the model is still loading; try again"
                raise ApiError(503, reason, retry_after=5)
            self._drop_stopped()
            wait_s = min(60.0, self._mean_s * max(1, len(self._waiting)) / 2)
            if not urgent and len(self._waiting) >= self.settings.queue_size:
                raise ApiError(429, "too many requests are waiting; try again later", retry_after=wait_s)
            held = sum(job.size for job in (*self._waiting, *self._running))
            if held and held + size > self.settings.queue_bytes:
                raise ApiError(429, "too many large uploads are waiting; try again later", retry_after=wait_s)

    def submit(self, job: ModelJob) -> ModelJob:
        """Put a job in the queue, if there is room."""
        with self._changed:
            self.check_room(urgent=job.urgent, size=job.size)
            (self._urgent if job.urgent else self._waiting).append(job)
            self._jobs[job.id] = job
            self._forget_old()
            self._changed.notify_all()
        return job

    def find(self, job_id: str) -> ModelJob:
        """A job by its id; 404 if there is no such job, or it is forgotten."""
        with self._changed:
            self._forget_old()
            job = self._jobs.get(job_id)
        if job is None or job.urgent:
            raise ApiError(404, "there is no such job; results are kept for a while only")
        return job

    def place(self, job: ModelJob) -> int | None:
        """How many jobs come before one that waits."""
        with self._changed:
            return self._waiting.index(job) if job in self._waiting else None

    def cancel(self, job: ModelJob, reason: ApiError | None = None) -> None:
        """Stop a job: one that waits ends at once, one that runs after its present step."""
        job.cancel(reason)
        with self._changed:
            self._drop_stopped()

    def forget(self, job: ModelJob) -> None:
        """Drop a job whose result was delivered."""
        with self._changed:
            self._jobs.pop(job.id, None)

    def drain(self) -> None:
        """Accept no more jobs and hand back those that wait; what runs may end. Safe in a signal handler."""
        self.state = "draining"

    def expire(self) -> None:
        """Hand back what waits, and stop what runs."""
        self.drain()
        with self._changed:
            self._hand_back()
        for job in list(self._running):
            job.cancel(ApiError(503, GOING_DOWN, retry_after=5))

    def close(self, timeout_s: float) -> None:
        """Wait for what runs, then stop it."""
        self.drain()
        self._thread.join(timeout_s)
        if self.busy:
            self.expire()
            self._thread.join(5.0)

    def _hand_back(self) -> None:
        for job in (*self._urgent, *self._waiting):
            self._end(job, ApiError(503, GOING_DOWN, retry_after=5))
        self._urgent.clear()
        self._waiting.clear()

    def _run(self) -> None:
        try:
            self.pipe = self._load()
        except BaseException as error:
            self.failure, self.state = error, "failed"
            self.on_failure()
            return
        if self.state == "loading":
            self.state = "ready"
            loras = [adapter.name for adapter in self.pipe.origin.adapters]
            note("ready", model=self.pipe.name, device=str(self.pipe.device), loras=loras)
        with torch.no_grad():
            while batch := self._take():
                self._work(self.pipe, batch)
                del batch  # it would hold the last results until the next job comes
                with self._changed:
                    self._running = []

    def _take(self) -> list[ModelJob]:
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
                self._forget_old()
            self._was_urgent = bool(self._urgent) and not (self._was_urgent and self._waiting)
            line = self._urgent if self._was_urgent else self._waiting
            batch = [line.popleft()]
            group = batch[0].group
            while line and group is not None and line[0].group == group and len(batch) < self._batch_size:
                batch.append(line.popleft())
            self._running = batch
            for job in batch:
                job.begin()
            return batch

    @property
    def _batch_size(self) -> int:
        if self.settings.batch_size is not None:
            return self.settings.batch_size
        return 4 if self.pipe is not None and self.pipe.device.type == "cuda" else 1

    def _work(self, pipe: "RiffPipeline", batch: Sequence[ModelJob]) -> None:
        """Do a batch; if it fails as a whole, each of its jobs alone."""

        def check() -> None:
            if all(job.finished or job.stop_reason is not None for job in batch):
                raise JobStopped

        began = time.monotonic()
        outcomes: Sequence[Result | BaseException]
        try:
            work = batch[0].work
            assert work is not None
            with interruptible(check):
                outcomes = work(pipe, batch)
        except JobStopped as stopped:
            outcomes = [stopped] * len(batch)
        except Exception as error:
            if len(batch) > 1:
                _release(error)
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

    def _settle(self, job: ModelJob, outcome: Result | BaseException) -> None:
        if job.stop_reason is not None:
            self._end(job, job.stop_reason)
        elif isinstance(outcome, Result):
            self._end(job, outcome)
        else:
            fault = as_api_error(outcome, job.texts)
            if fault is None:
                note_defect(outcome, request_id=job.request_id, job=job.id)
                fault = ApiError(500, f"something went wrong in the server; if you report it, say {job.request_id}")
            _release(outcome)
            self._end(job, fault)

    def _end(self, job: ModelJob, outcome: Result | ApiError) -> None:
        if not job.finish(outcome):
            return
        self.metrics.jobs.labels(job.kind, job.state).inc()
        if not job.urgent:
            spent = None if job.started is None else round(time.monotonic() - job.started, 3)
            waited = round((job.started or time.monotonic()) - job.created, 3)
            note("job", request_id=job.request_id, job=job.id, kind=job.kind, state=job.state,
                 waited_s=waited, worked_s=spent)  # fmt: skip

    def _drop_stopped(self) -> None:
        """End what waits and is cancelled or past its deadline."""
        for line in (self._urgent, self._waiting):
            for job in [job for job in line if job.stop_reason is not None]:
                line.remove(job)
                assert job.stop_reason is not None
                self._end(job, job.stop_reason)

    def _forget_old(self) -> None:
        """Drop finished jobs that are old, or too many, or too large together."""
        now, kept, size = time.monotonic(), 0, 0
        for job in reversed(list(self._jobs.values())):
            if not job.finished:
                continue
            kept, size = kept + 1, size + len(job.result.content if job.result else b"")
            old = job.ended is not None and now - job.ended > self.settings.keep_s
            if job.urgent or old or kept > self.settings.keep_jobs or size > self.settings.keep_bytes:
                del self._jobs[job.id]


def _release(error: BaseException) -> None:
    """Let go of the tensors that a failed job's stack frames hold, so that the next job has the memory."""
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    if is_out_of_memory(error):
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


async def wait_for(job: ModelJob, request: Request, queue: WorkQueue) -> None:
    """Wait until a job has ended or its time is over, on behalf of a client who may go away."""
    done = asyncio.ensure_future(job.wait())
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({done, gone}, timeout=job.deadline - time.monotonic() + 0.05, return_when="FIRST_COMPLETED")
    finally:
        left = gone.done() and not done.done()
        done.cancel()
        gone.cancel()
    if not job.finished and left:
        raise ApiError(499, "the client went away")
    if not job.finished:
        reason = job.stop_reason
        queue.cancel(job)
        raise reason or ApiError(504, TOO_LATE)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
