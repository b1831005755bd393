"""The routes: what may be asked of a server, and how it answers."""

import asyncio
import contextlib
import dataclasses
import html
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TextIO

import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

import riff
from riff.apps.server import schemas
from riff.apps.server.handlers import Editing, Edits, Handlers, render_group
from riff.apps.server.queue import Job, Work, WorkQueue, wait_for
from riff.apps.server.riffusion import Inference, read_inference
from riff.apps.server.schemas import check_limits, prompt_texts, read_request
from riff.apps.server.security import Guard, Server, listen, patient_protocol
from riff.apps.server.settings import ApiError, Metrics, Settings, note, refusal, start_log
from riff.apps.server.streaming import add_stream_routes
from riff.apps.server.uploads import Uploads

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

_PHRASES = {404: "there is nothing here; /docs says what there is", 405: "this address does not take that method"}


class Service:
    """What the routes of one server share.

    Attributes:
        settings: limits.
        metrics: counters.
        queue: the model and what waits for it.
        works: how each kind is drawn.
    """

    def __init__(self, queue: WorkQueue, settings: Settings, metrics: Metrics) -> None:
        self.queue, self.settings, self.metrics = queue, settings, metrics
        self.works = Handlers(settings, metrics)
        self.edits = Edits(self.works)
        self.inference = Inference(self.works)
        self.uploads = Uploads(settings)

    def job(self, kind: str, asked: Any, work: Work, request: Request, **options: Any) -> Job:
        """A job for what a request asks, in the queue."""
        request.state.asked = [text for _, text in prompt_texts(asked)] or None
        job = Job(
            kind,
            asked,
            work,
            deadline_s=self.settings.deadline_s,
            kept=request.query_params.get("wait", "true") == "false",
            request_id=request.state.request_id,
            texts=[text for _, text in prompt_texts(asked)],
            **options,
        )
        return self.queue.submit(job)

    async def answer(self, job: Job, request: Request) -> Response:
        """The file of a job once it is done; or, with ``?wait=false``, the job at once."""
        if job.kept:
            return JSONResponse(self.describe(job), 202, {"location": f"/v1/jobs/{job.id}"})
        try:
            await wait_for(job, request, self.queue)
            return deliver(job)
        finally:
            self.queue.cancel(job, ApiError(409, "the client went away"))
            self.queue.forget(job)

    def describe(self, job: Job) -> dict[str, Any]:
        """State and progress."""
        return job.describe(self.queue.place(job))


def deliver(job: Job) -> Response:
    """The result of a finished job as a file.

    Raises:
        Refusal: it has none: it failed, was cancelled, or is not finished.
    """
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

    app = FastAPI(
        title="riff",
        version=riff.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.add_exception_handler(HTTPException, _http_fault)
    app.add_exception_handler(ApiError, _fault)
    app.add_exception_handler(Exception, _fault)  # goes on to the guard, which notes it
    service = Service(queue, settings, metrics)
    _add_state(app, service)
    _add_drawing(app, service)
    _add_editing(app, service)
    _add_jobs(app, service)
    _add_riffusion(app, service)
    add_stream_routes(app, queue, settings, metrics)
    return Guard(app, settings, metrics)


async def _http_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = _PHRASES.get(error.status_code, "the body could not be read; see /docs")
    return await _fault(request, ApiError(error.status_code, message))


async def _fault(request: Request, error: Exception) -> Response:
    name = request.state.request_id
    told = refusal(error) or ApiError(500, f"something went wrong in the server; if you report it, say {name}")
    return JSONResponse({"error": told.message, "id": name}, told.status, told.headers)


def _body(schema: type[BaseModel], file_field: str | None = None) -> dict[str, Any]:
    """How OpenAPI tells a body that is read by us and not by FastAPI."""
    told = schema.model_json_schema()
    content: dict[str, Any] = {"application/json": {"schema": told}}
    if file_field is not None:
        fields = {**told["properties"], file_field: {"type": "string", "format": "binary"}}
        content["multipart/form-data"] = {"schema": {**told, "properties": fields}}
    wait = {"name": "wait", "in": "query", "schema": {"type": "boolean", "default": True},
            "description": "false answers at once with a job, whose result is fetched later"}  # fmt: skip
    return {"requestBody": {"required": True, "content": content}, "parameters": [wait]}


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> Response:
        return JSONResponse({"state": service.queue.state, "version": riff.__version__})

    @app.get("/readyz", summary="Whether requests are taken")
    async def readyz() -> Response:
        ready = service.queue.state == "ready"
        return JSONResponse(
            {"state": service.queue.state}, 200 if ready else 503, {} if ready else {"retry-after": "5"}
        )

    @app.get("/v1/info", summary="Which model draws, and the LoRAs on top of it")
    async def info() -> Response:
        pipe = service.queue.pipe
        if pipe is None:
            raise ApiError(503, "the model is still loading; try again", retry_after=5)
        return JSONResponse(await asyncio.to_thread(_model_facts, pipe))

    @app.get("/metrics", summary="For Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def docs() -> Response:
        return Response(page(app.openapi()), media_type="text/html; charset=utf-8")


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


def _add_drawing(app: FastAPI, service: Service) -> None:
    @app.post("/v1/render", summary="A sentence becomes music", openapi_extra=_body(schemas.RenderRequest))
    async def render(request: Request) -> Response:
        asked, _ = await read_request(request, schemas.RenderRequest)
        check_limits(asked, service.settings)
        if (asked.prompt is None) == (asked.timeline is None):
            raise ApiError(422, "send either a prompt or a timeline")
        if asked.timeline is not None:
            job = service.job("timeline", asked, service.works.timeline, request)
        else:
            job = service.job("render", asked, service.works.render, request, group=render_group(asked))
        return await service.answer(job, request)

    @app.post("/v1/walk", summary="From prompt to prompt", openapi_extra=_body(schemas.WalkRequest))
    async def walk(request: Request) -> Response:
        asked, _ = await read_request(request, schemas.WalkRequest)
        check_limits(asked, service.settings)
        return await service.answer(service.job("walk", asked, service.works.walk, request), request)


def _add_editing(app: FastAPI, service: Service) -> None:
    kinds: list[tuple[str, type[BaseModel], str, Work]] = [
        ("remix", schemas.RemixRequest, "audio", service.edits.remix),
        ("extend", schemas.ExtendRequest, "audio", service.edits.extend),
        ("inpaint", schemas.InpaintRequest, "audio", service.edits.inpaint),
        ("encode", schemas.EncodeRequest, "audio", service.edits.encode),
        ("decode", schemas.DecodeRequest, "picture", service.edits.decode),
    ]

    def add(kind: str, schema: type[BaseModel], file_field: str, work: Work) -> None:
        @app.post(f"/v1/{kind}", name=kind, summary=schema.__doc__, openapi_extra=_body(schema, file_field))
        async def edit(request: Request) -> Response:
            asked, content = await read_request(request, schema, file_field)
            check_limits(asked, service.settings)
            opened = await service.uploads.open(content, file_field)
            return await service.answer(service.job(kind, Editing(asked, opened), work, request), request)

    for row in kinds:
        add(*row)


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.get("/v1/jobs/{job_id}", summary="State and progress of a job")
    async def job(job_id: str) -> Response:
        return JSONResponse(service.describe(service.queue.find(job_id)))

    @app.get("/v1/jobs/{job_id}/result", summary="The file that a job made")
    async def result(job_id: str) -> Response:
        return deliver(service.queue.find(job_id))

    @app.delete("/v1/jobs/{job_id}", summary="Cancel a job; one that has ended stays as it is")
    async def cancel(job_id: str) -> Response:
        found = service.queue.find(job_id)
        service.queue.cancel(found)
        return JSONResponse(service.describe(found))


def _add_riffusion(app: FastAPI, service: Service) -> None:
    async def run_inference(request: Request) -> Response:
        asked = read_inference(await request.body(), service.settings)
        job = service.job("inference", asked, service.inference.run, request)
        job.kept = False
        return await service.answer(job, request)

    # Both spellings, since a redirect would turn the app's POST into a GET.
    app.post("/run_inference", summary="Riffusion's own contract")(run_inference)
    app.post("/run_inference/", include_in_schema=False)(run_inference)


# WAS riff/server/page.py: The page at /docs: OpenAPI as plain HTML, which needs no other file and no script.

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}
h2{margin-top:2.5rem;font-size:1.1rem}code,pre{font-family:ui-monospace,monospace;font-size:.9rem}
pre{background:#f3f3f3;padding:.8rem;overflow:auto}table{border-collapse:collapse;width:100%}
td{border-top:1px solid #ddd;padding:.3rem .5rem;vertical-align:top}b{color:#05a}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}pre{background:#222}td{border-color:#333}b{color:#7bf}}"""
_EXAMPLES = """curl -X POST localhost:3013/v1/render -H 'content-type: application/json' \\
     -d '{"prompt": "lo-fi hip hop, 84 bpm", "bars": 4, "format": "mp3"}' -o lofi.mp3
curl -X POST localhost:3013/v1/remix -F audio=@song.wav -F 'prompt=church organ' -o remix.wav
ffplay 'http://localhost:3013/v1/stream?prompt=slow+jazz'"""


def page(openapi: dict[str, Any]) -> str:
    """The OpenAPI description ``openapi`` as one HTML document."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>riff serve</title><style>{_STYLE}</style><h1>riff {html.escape(openapi['info']['version'])}</h1>"
        f"<p>For machines: <a href=/openapi.json>openapi.json</a>.</p><pre>{html.escape(_EXAMPLES)}</pre>"
    ]
    for path, methods in openapi["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(told.get('summary', ''))}</p>{_fields(told)}")
    return "".join(parts)


def _fields(told: dict[str, Any]) -> str:
    content = told.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return ""
    schema = content["application/json"]["schema"]
    needed = schema.get("required", [])
    rows = [
        f"<tr><td><code>{html.escape(name)}</code>{' *' if name in needed else ''}<td>{html.escape(_kind(field))}"
        f"<td>{html.escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    ]
    takes = html.escape(", ".join(content))
    return f"<table>{''.join(rows)}</table><p>Takes {takes}; * is needed.</p>"


def _kind(field: dict[str, Any]) -> str:
    """One field's type, range and default in a few words."""
    kinds = [field, *field.get("anyOf", [])]
    names = [str(kind["type"]) for kind in kinds if kind.get("type") not in (None, "null")]
    names += [" | ".join(map(str, kind["enum"])) for kind in kinds if "enum" in kind]
    ranges = [f"{kind['minimum']:g} to {kind['maximum']:g}" for kind in kinds if "minimum" in kind]
    default = field.get("default")
    tail = [] if default is None else [f"default {json.dumps(default)}"]
    return ", ".join(dict.fromkeys([*names, *ranges, *tail]))


# WAS riff/server/run.py: Starting a server and letting it end: the model loads while the health probes already
# answer.


def serve(
    load: Callable[[], "RiffPipeline"], settings: Settings, announce: Callable[[str], None], *, log: TextIO
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        load: gives the model; called in the thread that will use it.
        settings: limits and access.
        announce: is told the address once it is bound.
        log: gets one JSON object per event.

    Raises:
        SystemProblem: the port is taken.
        RiffError: whatever ``load`` raised.
        KeyboardInterrupt: SIGINT ended it.
    """
    start_log(log)
    bound = listen(settings.host, settings.port)
    port = bound.getsockname()[1]
    metrics = Metrics()
    queue = WorkQueue(lambda: _warmed(load()), settings, metrics)
    server = make_server(queue, settings, metrics)
    queue.start()
    threading.Thread(target=_watch, args=(queue, server), daemon=True).start()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce(f"http://{host}:{port}/")
    note("listening", host=settings.host, port=port)
    server.run(sockets=[bound])
    note("stopped")
    if queue.failure is not None:
        raise queue.failure
    if server.interrupted:
        raise KeyboardInterrupt


def make_server(queue: WorkQueue, settings: Settings, metrics: Metrics) -> Server:
    """uvicorn around the application."""
    config = uvicorn.Config(
        build_app(queue, settings, metrics),
        http=patient_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(settings.idle_s) + 5,
        timeout_graceful_shutdown=int(settings.grace_s + 5),
        backlog=256,
    )
    return Server(config, drain=queue.drain, expire=queue.expire, grace_s=settings.grace_s)


def _warmed(pipe: "RiffPipeline") -> "RiffPipeline":
    """Draw one small clip, so that the first request waits for no compiler and a broken model is found at once."""
    pipe("piano", seed=0, num_inference_steps=2)
    return pipe


def _watch(queue: WorkQueue, server: Server) -> None:
    """End the server if the model cannot be loaded."""
    while queue.state == "loading":
        time.sleep(0.05)
    if queue.state == "failed":
        server.should_exit = True
