"""The process of a server: how it starts, what it does with slow connections, and how it ends."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from riff.apps.server.app import build_app
from riff.apps.server.queue import WorkQueue
from riff.apps.server.settings import Metrics, Settings, note, start_log
from riff.utils.errors import RiffError, SystemProblem

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

_PAUSES = 6  # times idle_s that a client may pause while it reads, as a player does whose listener pauses it
_SPARE = 16  # connections beside those whose requests are handled: probes, and clients that get a refusal


def serve(
    load: Callable[[], "RiffPipeline"], settings: Settings, announce: Callable[[str], None], *, log: TextIO
) -> None:
    """Serve until SIGTERM or SIGINT. The model loads while the health probes already answer.

    Args:
        load: gives the model; called in the thread that will use it.
        settings: limits and access.
        announce: called with the address once it is bound.
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
    queue.on_failure = lambda: setattr(server, "should_exit", True)
    queue.start()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce(f"http://{host}:{port}/")
    note("listening", host=settings.host, port=port)
    server.run(sockets=[bound])
    note("stopped")
    if queue.failure is not None:
        raise queue.failure
    if queue.busy:  # in code that cannot be stopped, under which an interpreter that ends would abort
        sys.stdout.flush()
        log.flush()
        os._exit(130 if server.interrupted else 0)
    if server.interrupted:
        raise KeyboardInterrupt


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with limits on slow clients, for which uvicorn has none.

    A request's head must come within ``idle_s``, and a reply must be read without longer pauses. When too many
    connections are open, the one that has waited longest for a head gives way, so that there is always room for a
    health probe.
    """

    settings: Settings
    _head_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections + _SPARE:
            timers = {each: each._head_timer for each in self.connections if isinstance(each, PatientProtocol)}
            waiting = {each: timer.when() for each, timer in timers.items() if timer is not None}
            if waiting:
                min(waiting, key=waiting.__getitem__).transport.abort()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a request has begun; its body has a deadline of its own."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_clock()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop_clock()

    def pause_writing(self) -> None:
        """More is waiting to be read than fits into a buffer."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, where no answer has begun, and close."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the handler sees a client that went away
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = b'{"error": "this is not a valid HTTP request"}'
            fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
            head = h11.Response(status_code=400, headers=list(fields.items()), reason=b"Bad Request")
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.settings.idle_s, self._give_up)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self, sure: bool = False) -> None:
        self._head_timer = None
        if self.flow.write_paused:  # the last reply is still on its way
            self._await_head()
        elif not sure:  # a busy loop may not have read yet what came in time
            self._head_timer = self.loop.call_later(0.1, self._give_up, True)
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _watch_reader(self, before: int | None = None) -> None:
        unsent = self.transport.get_write_buffer_size()
        if before is not None and unsent >= before:
            self.transport.abort()
        else:
            self._reader_timer = self.loop.call_later(_PAUSES * self.settings.idle_s, self._watch_reader, unsent)


class Server(uvicorn.Server):
    """uvicorn that drains on SIGTERM and then returns; a second SIGINT ends it at once.

    Attributes:
        interrupted: whether it was a SIGINT that ended it.
    """

    def __init__(self, config: uvicorn.Config, queue: WorkQueue) -> None:
        super().__init__(config)
        self.interrupted = False
        self._queue = queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for what runs; after the grace it is stopped, and its clients get an error."""
        self._queue.drain()
        timer = asyncio.get_running_loop().call_later(self._queue.settings.grace_s, self._queue.expire)
        await super().shutdown(sockets)
        timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. uvicorn's own method would raise the signal again at the end."""
        self._queue.drain()
        self.interrupted = self.interrupted or sig == signal.SIGINT
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def make_server(queue: WorkQueue, settings: Settings, metrics: Metrics) -> Server:
    """uvicorn around the application."""
    config = uvicorn.Config(
        build_app(queue, settings, metrics),
        http=type("Protocol", (PatientProtocol,), {"settings": settings}),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(settings.idle_s) + 5,
        timeout_graceful_shutdown=int(settings.grace_s + 5),
        h11_max_incomplete_event_size=32_768,
        backlog=256,
    )
    return Server(config, queue)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SystemProblem: the address is taken or not ours.
        RiffError: it is not an address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise RiffError(f"--host {host} is not an address of this machine; use 127.0.0.1 or 0.0.0.0") from error
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # clients that connect from here on wait, so the address can be announced before uvicorn runs
    except OSError as error:
        found.close()
        reason = (error.strerror or str(error)).lower()
        raise SystemProblem(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
    return found


def _warmed(pipe: "RiffPipeline") -> "RiffPipeline":
    """Generate one small clip, so that the first request waits for no compiler and a broken model is found at once."""
    pipe("piano", seed=0, num_inference_steps=2)
    return pipe
