"""Waiting for a job on behalf of a client, who may go away."""

import asyncio
import contextlib
import time

from starlette.requests import Request

from riff.server.faults import Refusal
from riff.server.jobs import Job
from riff.server.queue import WorkQueue


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
        raise Refusal(499, "the client went away")
    if not job.finished:
        reason = job.stop_reason
        queue.cancel(job)
        raise reason or Refusal(504, "this took longer than a request may")


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
