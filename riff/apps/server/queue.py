"""One bounded queue in front of one model: first come, first served, in a thread that outlives every request."""

import asyncio
import contextlib
import dataclasses
import gc
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from torch import Tensor

from riff.apps.server.settings import ApiError, Metrics, Settings, note, note_defect, refusal
from riff.utils.errors import is_out_of_memory

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

GOING_DOWN = "the server is going down; send this again"


# WAS riff/server/jobs.py: One request for the model: its state, its progress, and how it is called off.


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
        self.fault: ApiError | None = None
        self.error: BaseException | None = None
        self._stop: ApiError | None = None
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in FINISHED

    @property
    def stop_reason(self) -> ApiError | None:
        """Why it should not go on: it was cancelled, or its time is over."""
        if self._stop is None and time.monotonic() > self.deadline:
            self._stop = ApiError(504, "this took longer than a request may; ask for less, or try when it is quieter")
        return self._stop

    def cancel(self, reason: ApiError | None = None) -> None:
        """Call it off; what runs stops after its present denoising step. Calling twice changes nothing."""
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

    def finish(self, outcome: Result | ApiError, error: BaseException | None = None) -> bool:
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
                raise ApiError(503, reason, retry_after=5)
            self._drop_stopped()
            if job.urgent:
                self._urgent.append(job)
            elif len(self._waiting) >= self.settings.queue_size:
                raise ApiError(429, "too many requests are waiting; try again later", retry_after=self._wait_s())
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
            raise ApiError(404, "there is no such job; results are kept for a while only")
        return job

    def place(self, job: Job) -> int | None:
        """How many jobs come before one that waits."""
        with self._changed:
            return self._waiting.index(job) if job in self._waiting else None

    def cancel(self, job: Job, reason: ApiError | None = None) -> None:
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
            job.cancel(ApiError(503, GOING_DOWN, retry_after=5))

    def close(self, timeout_s: float) -> None:
        """Wait for what runs, then stop it."""
        self.drain()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
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
                told = ApiError(500, f"something went wrong in the server; if you report it, say {job.request_id}")
            self._end(job, told, outcome)
            self._clean(outcome)

    def _end(self, job: Job, outcome: Result | ApiError, error: BaseException | None = None) -> None:
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
        if is_out_of_memory(error):
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


FINISHED = ("done", "failed", "cancelled")


class Stopped(Exception):
    """Raised out of the denoising loop when nobody waits for the result any more."""


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


# WAS riff/server/waiting.py: Waiting for a job on behalf of a client, who may go away.


async def wait_for(job: Job, request: Request, queue: WorkQueue) -> None:
    """Until a job has ended.

    Raises:
        Refusal: its time was over before, or the client went away.
    """
    done = asyncio.ensure_future(ended(job))
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
        raise reason or ApiError(504, "this took longer than a request may")


async def ended(job: Job) -> None:
    """Until the job has ended, in whatever way."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed by then
            loop.call_soon_threadsafe(over.set)

    job.when_finished(tell)
    await over.wait()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
