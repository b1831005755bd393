"""The server below HTTP: slow or too many connections are closed, signals drain, and the port is bound by us."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from riff.errors import RiffError, SystemProblem
from riff.server.settings import Settings

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b'content-length: 45\r\n\r\n{"error": "too many connections; try again"}\n'
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def patient_protocol(settings: Settings) -> type[H11Protocol]:
    """HTTP/1.1 that waits for a request's head for a while only, and takes so many connections."""

    class Patient(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                transport.write(_FULL)
                transport.close()
                return
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete and self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_head()

        def _await_head(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(settings.idle_s, self._give_up, False)

        def _give_up(self, sure: bool) -> None:
            if not sure:  # a busy loop may not have read yet what came in time
                self._head_timer = self.loop.call_later(0.1, self._give_up, True)
                return
            self._head_timer = None
            if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
                self.transport.close()

    return Patient


class Server(uvicorn.Server):
    """uvicorn that drains on SIGTERM and then returns; a second SIGINT ends it at once.

    Attributes:
        interrupted: whether it was a SIGINT that ended it.
    """

    def __init__(
        self, config: uvicorn.Config, *, drain: Callable[[], None], expire: Callable[[], None], grace_s: float
    ) -> None:
        super().__init__(config)
        self.interrupted = False
        self._drain, self._expire, self._grace_s = drain, expire, grace_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was heeded is not raised again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for what runs; after the grace it is stopped, and its clients are told so."""
        self._drain()
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._expire)
        await super().shutdown(sockets)
        timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain."""
        self._drain()
        self.interrupted = self.interrupted or sig == signal.SIGINT
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SystemProblem: the address is taken or not ours.
        RiffError: it is none.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise RiffError(f"--host {host} is no address of this machine; use 127.0.0.1 or 0.0.0.0") from error
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # from here on who connects waits, so that the address may be told before uvicorn takes over
    except OSError as error:
        found.close()
        reason = (error.strerror or str(error)).lower()
        raise SystemProblem(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
    return found
