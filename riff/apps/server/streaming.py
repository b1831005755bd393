"""Endless audio over plain HTTP, and how it is steered: ``GET /v1/stream`` and ``PATCH /v1/stream/{id}``."""

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import soundfile
from fastapi import Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from torch import Tensor

from riff.apps.server.handlers import Handlers
from riff.apps.server.jobs import ModelJob, Result
from riff.apps.server.queue import WorkQueue, wait_for
from riff.apps.server.schemas import Call, StreamChange
from riff.apps.server.settings import ApiError, Settings, as_api_error
from riff.tasks.requests import StreamRequest
from riff.tasks.stream import MusicStream, StreamPacer, next_wanted
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class OpenStream:
    """One listener's music: each bar is generated as late as is safe."""

    def __init__(self, call: Call, handlers: Handlers) -> None:
        self.request: StreamRequest = call.request
        self.id = call.reply.id or secrets.token_urlsafe(12)
        self.music: MusicStream | None = None
        self.pace = StreamPacer(self.request.num_inference_steps, most=handlers.settings.max_steps)
        self._format, self._handlers = call.reply.format, handlers
        self._encoder: StreamEncoder | None = None
        self.current: ModelJob | None = None

    def job(self, request_id: str, texts: Sequence[str]) -> ModelJob:
        """The next piece."""
        deadline = time.monotonic() + self._handlers.settings.deadline_s
        self.current = ModelJob("stream", self, self._work, deadline, texts=texts, request_id=request_id)
        return self.current

    def _work(self, pipe: "RiffPipeline", jobs: Sequence[ModelJob]) -> list[Result | Exception]:
        if self.music is None:
            self.music = MusicStream(pipe.model, self.request)
        bar, steps, wasted_s = next_wanted(self.music, self.pace, self._handlers.counter(jobs))
        sound = bar.waveform
        if self._encoder is None:
            self._encoder = StreamEncoder(self._format, self.music.sample_rate, len(sound))
        seconds = sound.shape[-1] / self.music.sample_rate
        facts = {"seconds": seconds, "steps": steps, "wasted_s": wasted_s}
        return [Result(self._encoder.encode(sound), self._encoder.media_type, facts)]

    def idle_s(self, now: float) -> float:
        """Seconds from ``now`` until the next bar should be begun."""
        return 0.0 if self.music is None else self.pace.idle_s(self.music.bar_seconds, now)

    def end(self) -> bytes:
        """The encoder's last bytes."""
        return b"" if self._encoder is None else self._encoder.close()


class _StreamReply(StreamingResponse):
    """A reply that closes its stream however it ends, even if its listener left before the first byte."""

    close: Callable[[], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.close()


class Streams:
    """The streams that are open on one server."""

    def __init__(self, queue: WorkQueue, handlers: Handlers) -> None:
        self.queue, self.handlers = queue, handlers
        self.settings: Settings = handlers.settings
        self._open: dict[str, OpenStream] = {}
        handlers.metrics.streams.set_function(lambda: len(self._open))

    async def start(self, call: Call, request: Request) -> Response:
        """Generate the first bar, and then answer with music that does not end."""
        name = call.reply.id
        if name is not None and (not _ID.fullmatch(name) or name in self._open):
            raise ApiError(409, "id is taken, or is not 8 to 64 letters, digits, - or _")
        if len(self._open) >= self.settings.max_streams:
            raise ApiError(429, "as many streams as this server plays are open; try again later", retry_after=30)
        opened = OpenStream(call, self.handlers)
        self._open[opened.id] = opened
        request_id = request.state.request_id
        try:
            first = self.queue.submit(opened.job(request_id, [call.request.prompt]))
            await wait_for(first, request, self.queue)
            if first.result is None:
                raise first.fault or ApiError(503, "the stream could not begin", retry_after=5)
        except BaseException:
            self._close(opened)
            raise
        headers = {"x-stream-id": opened.id, "accept-ranges": "none"}
        reply = _StreamReply(self._play(opened, first), headers=headers, media_type=first.result.media_type)
        reply.close = lambda: self._close(opened)
        return reply

    async def _play(self, stream: OpenStream, job: ModelJob) -> AsyncIterator[bytes]:
        """Bars as they are due, until the listener goes away or the server goes down."""
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
            job = self.queue.submit(stream.job(job.request_id, job.texts))
            await job.wait()
            took_s = time.monotonic() - began
        yield stream.end()

    def steer(self, stream_id: str, change: StreamChange) -> dict[str, Any]:
        """Lead a stream elsewhere."""
        found = self._open.get(stream_id)
        if found is None or found.music is None:
            raise ApiError(404, "there is no such stream; it ends when its listener goes away")
        if change.prompt is None and change.bpm is None:
            raise ApiError(422, "send a prompt, a bpm, or both")
        try:
            found.music.update(change.prompt, change.bpm)
        except RiffError as error:
            raise as_api_error(error, [change.prompt or ""]) or error from None
        return {"id": stream_id, "bar_seconds": round(found.music.bar_seconds, 3), "within_bars": 2}

    def _close(self, stream: OpenStream) -> None:
        if stream.current is not None:
            self.queue.cancel(stream.current)
        self._open.pop(stream.id, None)


FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg"), "ogg": ("OGG", "VORBIS", "audio/ogg")}
_BLOCK = 16384  # libsndfile overruns its stack when a minute of Vorbis is written at once


class _Sink:
    """The file that libsndfile writes to: what is written can be taken once, and is then gone."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._place, self._end = 0, 0

    def write(self, content: Any) -> int:
        """Keep what is new at the end; a header that is rewritten at the close is dropped."""
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
    """One stream's encoder."""

    def __init__(self, kind: str, sample_rate: int, channels: int) -> None:
        container, subtype, self.media_type = FORMATS[kind]
        self._sink = _Sink()
        options: dict[str, Any] = {"format": container, "subtype": subtype}
        if kind == "mp3":  # a stream has no header that states a changing rate
            options |= {"bitrate_mode": "CONSTANT", "compression_level": 0.5}  # 160 kb/s; libsndfile needs both
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
