"""``GET /v1/stream`` and ``PATCH /v1/stream/{id}``: endless audio over plain HTTP, and how it is steered."""

import asyncio
import contextlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import soundfile
from fastapi import FastAPI, Request, Response
from pydantic import Field
from starlette.responses import JSONResponse, StreamingResponse
from torch import Tensor

from riff.apps.server.handlers import Handlers
from riff.apps.server.queue import Job, Result, WorkQueue, ended, wait_for
from riff.apps.server.schemas import (
    Bpm,
    Guidance,
    Prompt,
    Quality,
    Seed,
    Steps,
    StreamChange,
    Strict,
    check_limits,
    read_request,
    validate,
)
from riff.apps.server.settings import ApiError, Metrics, Settings, refusal
from riff.tasks import requests
from riff.tasks.stream import MusicStream, StreamPacer, next_wanted
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_NUMBERS = ("bpm", "seed", "num_inference_steps", "guidance_scale")


class StreamRequest(Strict):
    """Endless music."""

    prompt: Prompt
    bpm: Bpm | None = None
    seed: Seed | None = None
    num_inference_steps: Steps | None = Field(None, description="of each bar; 6 to 10 if not given, as time allows")
    guidance_scale: Guidance | None = None
    quality: Quality = "fast"
    format: Literal["mp3", "ogg"] = "mp3"
    id: str | None = Field(None, description="a name of 8 to 64 letters, digits, - or _ to steer it by")


class Stream:
    """One listener's music: drawn as late as is safe.

    Attributes:
        id: to steer it by.
        music: what is played; None before its first bar.
        pace: how it is kept up.
    """

    def __init__(self, asked: StreamRequest, works: Handlers, deadline_s: float) -> None:
        self.id = asked.id or secrets.token_urlsafe(12)
        self.asked, self.works, self._deadline_s = asked, works, deadline_s
        self.music: MusicStream | None = None
        self.pace = StreamPacer(asked.num_inference_steps, most=works.settings.max_steps)
        self._encoder: StreamEncoder | None = None

    def job(self, request_id: str, texts: Sequence[str]) -> Job:
        """The next stretch."""
        return Job(
            "stream", self, self._work, deadline_s=self._deadline_s, urgent=True, texts=texts, request_id=request_id
        )

    def _work(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> list[Result | Exception]:
        asked, counter = self.asked, self.works.counter(jobs)
        if self.music is None:
            names = ("prompt", "bpm", "seed", "num_inference_steps", "guidance_scale", "quality")
            self.music = MusicStream(
                pipe.model, requests.StreamRequest(**{name: getattr(asked, name) for name in names})
            )
        bar, steps, wasted_s = next_wanted(self.music, self.pace, counter)
        sound = bar.waveform
        if self._encoder is None:
            self._encoder = StreamEncoder(asked.format, self.music.sample_rate, len(sound))
        seconds = sound.shape[-1] / self.music.sample_rate
        facts = {"seconds": seconds, "steps": steps, "wasted_s": wasted_s}
        return [Result(self._encoder.encode(sound), self._encoder.media_type, facts)]

    def idle_s(self, now: float) -> float:
        """Seconds from ``now`` until the next bar should be begun."""
        return 0.0 if self.music is None else self.pace.idle_s(self.music.bar_seconds, now)

    def end(self) -> bytes:
        """The encoder's last bytes."""
        return b"" if self._encoder is None else self._encoder.close()


class Streams:
    """The streams that are open on one server."""

    def __init__(self, queue: WorkQueue, settings: Settings, metrics: Metrics) -> None:
        self.queue, self.settings, self.metrics = queue, settings, metrics
        self._open: dict[str, Stream] = {}
        self._works = Handlers(settings, metrics)

    async def start(self, asked: StreamRequest, request: Request) -> Response:
        """Draw the first bar, and then answer with music that does not end.

        Raises:
            Refusal: there are too many, the id is taken, or the prompt cannot be played.
        """
        if asked.id is not None and (not _ID.fullmatch(asked.id) or asked.id in self._open):
            raise ApiError(409, "id is taken, or is not 8 to 64 letters, digits, - or _")
        if len(self._open) >= self.settings.max_streams:
            raise ApiError(429, "as many streams as this server plays are open; try again later", retry_after=30)
        opened = Stream(asked, self._works, self.settings.deadline_s)
        self._open[opened.id] = opened
        self._count()
        try:
            first = self.queue.submit(opened.job(request.state.request_id, [asked.prompt]))
            await wait_for(first, request, self.queue)
            if first.result is None:
                raise first.fault or ApiError(503, "the stream could not begin", retry_after=5)
        except BaseException:
            self._close(opened)
            raise
        headers = {"x-stream-id": opened.id, "accept-ranges": "none"}
        sound = self._play(opened, first, request.state.request_id)
        return StreamingResponse(sound, headers=headers, media_type=first.result.media_type)

    async def _play(self, stream: Stream, job: Job, request_id: str) -> AsyncIterator[bytes]:
        """Bars as they are due, until the listener goes away or the server goes down."""
        try:
            took_s = 0.0
            while job.result is not None:
                sent, now = job.result.facts, time.monotonic()
                spent_s = took_s - sent["wasted_s"]
                stream.pace.note_sent(sent["seconds"], took_s=spent_s, steps=sent["steps"], now=now)
                yield job.result.content
                while self.queue.state == "ready" and (left := stream.idle_s(time.monotonic())) > 0:
                    await asyncio.sleep(min(left, 0.5))
                if self.queue.state != "ready":
                    break
                began = time.monotonic()
                job = self.queue.submit(stream.job(request_id, job.secrets))
                await ended(job)
                took_s = time.monotonic() - began
            yield stream.end()
        finally:
            self.queue.cancel(job)
            self._close(stream)

    def steer(self, stream_id: str, change: StreamChange) -> dict[str, Any]:
        """Send a stream elsewhere.

        Raises:
            Refusal: there is no such stream, or nothing to change.
        """
        found = self._open.get(stream_id)
        if found is None or found.music is None:
            raise ApiError(404, "there is no such stream; it ends when its listener goes away")
        if change.prompt is None and change.bpm is None:
            raise ApiError(422, "send a prompt, a bpm, or both")
        try:
            found.music.update(change.prompt, change.bpm)
        except RiffError as error:
            raise refusal(error, [change.prompt or ""]) or error from None
        return {"id": stream_id, "bar_seconds": round(found.music.bar_seconds, 3), "within_bars": 2}

    def _close(self, stream: Stream) -> None:
        self._open.pop(stream.id, None)
        self._count()

    def _count(self) -> None:
        self.metrics.streams.set(len(self._open))


def add_stream_routes(app: FastAPI, queue: WorkQueue, settings: Settings, metrics: Metrics) -> None:
    """Add both routes to ``app``."""
    streams = Streams(queue, settings, metrics)

    @app.get("/v1/stream", summary="Endless audio; a player's address", openapi_extra=_parameters())
    async def stream(request: Request) -> Response:
        asked = _read_query(request)
        check_limits(asked, settings)
        request.state.asked = [asked.prompt]
        return await streams.start(asked, request)

    change = {"application/json": {"schema": StreamChange.model_json_schema()}}

    @app.patch(
        "/v1/stream/{stream_id}",
        summary="Walk to another prompt or tempo, within two bars",
        openapi_extra={"requestBody": {"content": change}},
    )
    async def steer(stream_id: str, request: Request) -> Response:
        asked, _ = await read_request(request, StreamChange)
        check_limits(asked, settings)
        request.state.asked = [asked.prompt]
        return JSONResponse(streams.steer(stream_id, asked))


def _read_query(request: Request) -> StreamRequest:
    """The query's fields as a request; each once."""
    fields: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        if name in fields:
            raise ApiError(400, "the query holds a field twice; send each once")
        fields[name] = text
        if name in _NUMBERS:
            with contextlib.suppress(ValueError):
                fields[name] = float(text) if name in ("bpm", "guidance_scale") else int(text)
    found = validate(StreamRequest, fields)
    assert isinstance(found, StreamRequest)
    return found


def _parameters() -> dict[str, Any]:
    schema = StreamRequest.model_json_schema()
    needed = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in needed, "schema": field}
            for name, field in schema["properties"].items()
        ]
    }


# WAS riff/server/encoder.py: Sound to MP3 or Ogg piece by piece, for streams that have no end.

FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg"), "ogg": ("OGG", "VORBIS", "audio/ogg")}
_BLOCK = 16384  # libsndfile overruns its stack when a minute of Vorbis is written at once


class _Sink:
    """The file that libsndfile writes to: what is written can be taken once, and is then gone."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._place, self._end = 0, 0

    def write(self, content: Any) -> int:
        """Keep what is new at the end; a header that is written again at the close is dropped."""
        piece = bytes(content)
        if self._place == self._end:
            self._pieces.append(piece)
            self._end += len(piece)
        self._place += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """As a file's."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Nothing; it is gone."""
        return b""

    def readinto(self, buffer: Any) -> int:
        """Nothing; it is gone."""
        return 0

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


class StreamEncoder:
    """One stream's encoder.

    Attributes:
        media_type: of what it makes.
    """

    def __init__(self, kind: str, sample_rate: int, channels: int) -> None:
        container, subtype, self.media_type = FORMATS[kind]
        self._sink = _Sink()
        options: dict[str, Any] = {"format": container, "subtype": subtype}
        if kind == "mp3":  # a stream has no header that tells a changing rate
            options |= {"bitrate_mode": "CONSTANT", "compression_level": 0.5}  # 160 kb/s; needs both to be heeded
        self._file = soundfile.SoundFile(self._sink, "w", samplerate=sample_rate, channels=channels, **options)

    def encode(self, waveform: Tensor) -> bytes:
        """(C, T) to the bytes that are ready by now."""
        samples = waveform.detach().float().clamp(-1.0, 1.0).numpy().T
        for first in range(0, len(samples), _BLOCK):
            self._file.write(samples[first : first + _BLOCK])
        return self._sink.take()

    def close(self) -> bytes:
        """What was still inside."""
        if not self._file.closed:
            self._file.close()
        return self._sink.take()
