"""The routes: what a server can do, and how it answers."""

import asyncio
import contextlib
import dataclasses
import functools
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse

import riff
from riff.apps.server import schemas
from riff.apps.server.handlers import MEDIA_TYPES, SOUNDS, Handlers, render_group
from riff.apps.server.jobs import ModelJob, Work
from riff.apps.server.queue import WorkQueue, wait_for
from riff.apps.server.riffusion import read_inference, run_inference
from riff.apps.server.schemas import JobReply, documented, documented_call, documented_query
from riff.apps.server.security import Guard
from riff.apps.server.settings import ApiError, Metrics, Settings, as_api_error
from riff.apps.server.streaming import Streams
from riff.apps.server.uploads import UploadedSound, Uploads
from riff.tasks import requests

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

_PHRASES = {404: "there is nothing here; see /docs", 405: "this address does not support that method"}
_SOUNDS = list(SOUNDS.values())
_IMAGE = [MEDIA_TYPES["png"]]


class Service:
    """What the routes of one server share."""

    def __init__(self, queue: WorkQueue, settings: Settings, metrics: Metrics) -> None:
        self.queue, self.settings, self.metrics = queue, settings, metrics
        self.handlers = Handlers(settings, metrics)
        self.uploads = Uploads(settings)

    def check(self, call: schemas.Call, request: Request) -> schemas.Call:
        """The same call, if this server allows it; its prompts are noted for the log."""
        request.state.prompts = [text for _, text in schemas.prompt_texts(call)] or None
        schemas.check_limits(call.request, self.settings)
        return call

    async def run(self, kind: str, call: Any, work: Work, request: Request, *, group: Any = None) -> Response:
        """The file that a job makes; or, with ``?wait=false``, the job at once."""
        texts = [text for _, text in schemas.prompt_texts(call)]
        request.state.prompts = texts or None
        kept = kind != "inference" and request.query_params.get("wait", "true") == "false"
        deadline = request.state.arrived + self.settings.deadline_s
        job = self.queue.submit(ModelJob(kind, call, work, deadline, group, kept, texts, request.state.request_id))
        if kept:
            return JSONResponse(self.describe(job), 202, {"location": f"/v1/jobs/{job.id}"})
        try:
            await wait_for(job, request, self.queue)
            return deliver(job)
        finally:
            self.queue.cancel(job, ApiError(409, "the client went away"))
            self.queue.forget(job)

    def describe(self, job: ModelJob) -> dict[str, Any]:
        """State and progress."""
        return job.describe(self.queue.place(job))


def deliver(job: ModelJob) -> Response:
    """The result of a finished job as a file, or why it has none."""
    if job.fault is not None:
        raise job.fault
    if job.result is None:
        raise ApiError(409, f"the job is {job.state}; its result is not there yet")
    headers = {"x-job-id": job.id, "x-riff-facts": json.dumps(job.result.facts)}
    return Response(job.result.content, media_type=job.result.media_type, headers=headers)


def build_app(queue: WorkQueue, settings: Settings, metrics: Metrics) -> Guard:
    """The whole application around one model's queue."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(queue.close, settings.grace_s)

    app = FastAPIOffline(
        title="riff",
        version=riff.__version__,
        description="A sentence becomes music. Errors are one line of JSON; `wait=false` turns a request into a job.",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.add_exception_handler(HTTPException, _http_fault)
    app.add_exception_handler(ApiError, _fault)
    app.add_exception_handler(Exception, _fault)  # goes on to the guard, which notes it
    service = Service(queue, settings, metrics)
    _add_state(app, service)
    _add_rendering(app, service)
    _add_editing(app, service)
    _add_jobs(app, service)
    _add_streams(app, service)
    _add_riffusion(app, service)
    return Guard(app, settings, metrics)


async def _http_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = _PHRASES.get(error.status_code, "the body could not be read; see /docs")
    return await _fault(request, ApiError(error.status_code, message))


async def _fault(request: Request, error: Exception) -> Response:
    name = request.state.request_id
    fault = as_api_error(error) or ApiError(500, f"something went wrong in the server; if you report it, say {name}")
    return JSONResponse({"error": fault.message, "id": name}, fault.status, fault.headers)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", **documented("Whether the process lives"))
    async def healthz() -> Response:
        return JSONResponse({"state": service.queue.state, "version": riff.__version__})

    @app.get("/readyz", **documented("Whether requests are accepted"))
    async def readyz() -> Response:
        ready = service.queue.state == "ready"
        return JSONResponse(
            {"state": service.queue.state}, 200 if ready else 503, {} if ready else {"retry-after": "5"}
        )

    @app.get("/v1/info", **documented("The model, and the LoRAs on top of it"))
    async def info() -> Response:
        pipe = service.queue.pipe
        if pipe is None:
            raise ApiError(503, "the model is still loading; try again", retry_after=5)
        return JSONResponse(await asyncio.to_thread(_model_facts, pipe))

    @app.get("/metrics", **documented("Metrics for Prometheus", media=["text/plain"]))
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse("/docs")


def _model_facts(pipe: "RiffPipeline") -> dict[str, Any]:
    """Names and hashes as the files say them; no path."""
    return {
        "version": riff.__version__,
        "model": pipe.name,
        "model_hash": pipe.origin.model_hash,
        "loras": [dataclasses.asdict(adapter) for adapter in pipe.origin.adapters],
        "sample_rate": pipe.sample_rate,
        "device": pipe.device.type,
    }


def _add_rendering(app: FastAPI, service: Service) -> None:
    kinds = (requests.RenderRequest, requests.TimelineRequest)

    @app.post(
        "/v1/render", **documented_call("A prompt or a timeline becomes music", kinds, schemas.Reply, _SOUNDS + _IMAGE)
    )
    async def render(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "the content type is not supported; use application/json")
        fields = await schemas.read_json(request)
        for name in ("prompt", "timeline"):
            if fields.get(name, "") is None:
                del fields[name]
        if "prompt" in fields and "timeline" in fields:
            raise ApiError(422, "send either a prompt or a timeline")
        call = schemas.make_call(fields, requests.TimelineRequest if "timeline" in fields else requests.RenderRequest)
        service.check(call, request)
        if isinstance(call.request, requests.TimelineRequest):
            return await service.run("timeline", call, service.handlers.generate, request)
        group = render_group(call.request)
        return await service.run("render", call, service.handlers.render, request, group=group)

    @app.post(
        "/v1/walk", **documented_call("From prompt to prompt", [requests.WalkRequest], schemas.Reply, _SOUNDS + _IMAGE)
    )
    async def walk(request: Request) -> Response:
        call = service.check(await schemas.read_call(request, requests.WalkRequest), request)
        return await service.run("walk", call, service.handlers.generate, request)


def _add_editing(app: FastAPI, service: Service) -> None:
    def add(name: str, kind: type, work: Work, reply: type, media: list[str], file_field: str = "audio") -> None:
        route = documented_call((kind.__doc__ or "").splitlines()[0], [kind], reply, media, file_field=file_field)

        @app.post(f"/v1/{name}", name=name, **route)
        async def handle(request: Request) -> Response:
            call = await schemas.read_call(request, kind, reply, file_field)
            service.check(call, request)
            service.queue.check_room()
            deadline = request.state.arrived + service.settings.deadline_s
            upload = await service.uploads.open(call.upload, file_field, deadline=deadline)
            tensor = upload.waveform if isinstance(upload, UploadedSound) else upload[0]
            size = tensor.numel() * tensor.element_size()
            return await service.run(name, dataclasses.replace(call, upload=upload, size=size), work, request)

    handlers = service.handlers
    add("remix", requests.RemixRequest, handlers.edit, schemas.Reply, _SOUNDS + _IMAGE)
    add("extend", requests.ExtendRequest, handlers.edit, schemas.Reply, _SOUNDS + _IMAGE)
    add("inpaint", requests.InpaintRequest, handlers.edit, schemas.Reply, _SOUNDS + _IMAGE)
    add("encode", schemas.EncodeRequest, handlers.encode, schemas.Checked, _IMAGE)
    add("decode", schemas.DecodeRequest, handlers.decode, schemas.SoundReply, _SOUNDS, "image")


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.get("/v1/jobs/{job_id}", **documented("State and progress of a job", errors=[404], reply=JobReply))
    async def job(job_id: str) -> Response:
        return JSONResponse(service.describe(service.queue.find(job_id)))

    media = [*_SOUNDS, *_IMAGE]

    @app.get("/v1/jobs/{job_id}/result", **documented("The file that a job made", errors=[404, 409], media=media))
    async def result(job_id: str) -> Response:
        return deliver(service.queue.find(job_id))

    @app.delete("/v1/jobs/{job_id}", **documented("Cancel a job", errors=[404], reply=JobReply))
    async def cancel(job_id: str) -> Response:
        found = service.queue.find(job_id)
        service.queue.cancel(found)
        return JSONResponse(service.describe(found))


def _add_streams(app: FastAPI, service: Service) -> None:
    streams = Streams(service.queue, service.handlers)
    media = ["audio/mpeg", "audio/ogg"]

    @app.get(
        "/v1/stream",
        **documented_query("Music without end, for a player", requests.StreamRequest, schemas.StreamReply, media),
    )
    async def stream(request: Request) -> Response:
        call = service.check(schemas.read_query(request, requests.StreamRequest, schemas.StreamReply), request)
        return await streams.start(call, request)

    steering = documented_call("Lead a stream elsewhere, within two bars", [schemas.StreamChange], schemas.Checked)

    @app.patch("/v1/stream/{stream_id}", **steering)
    async def steer(stream_id: str, request: Request) -> Response:
        call = service.check(await schemas.read_call(request, schemas.StreamChange, schemas.Checked), request)
        return JSONResponse(streams.steer(stream_id, call.request))


def _add_riffusion(app: FastAPI, service: Service) -> None:
    async def inference(request: Request) -> Response:
        call = read_inference(await request.body(), service.settings)
        return await service.run("inference", call, functools.partial(run_inference, service.handlers), request)

    # Both spellings, since a redirect would turn the app's POST into a GET.
    app.post("/run_inference", **documented("Riffusion's own contract", errors=[400, 429, 504]))(inference)
    app.post("/run_inference/", include_in_schema=False)(inference)
