"""What stands between the network and the routes: access, limits of size and time, ids, the log, and last errors."""

import asyncio
import base64
import binascii
import contextlib
import hmac
import ipaddress
import json
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from riff.apps.server.settings import ApiError, Metrics, Settings, note, note_defect, refusal
from riff.utils.errors import RiffError, SystemProblem

_SAFE = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


class Guard:
    """An ASGI application around the routes.

    Attributes:
        app: the routes.
        settings: limits.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self._open: set[_Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.settings, self._open)
        self._open.add(exchange)
        began = time.monotonic()
        try:
            await self._serve(exchange)
        finally:
            self._open.discard(exchange)
            self._note(exchange, time.monotonic() - began)

    async def _serve(self, exchange: "_Exchange") -> None:
        scope = exchange.scope
        try:
            headers = Headers(scope=scope)
            exchange.extra |= check_access(scope["path"], headers, self.settings)
            if scope["method"] == "OPTIONS" and "access-control-allow-origin" in exchange.extra:
                await exchange.reply(204, b"")
                return
            _check_body(headers, self.settings)
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            told = refusal(error)
            if told is None:
                if not exchange.gone:
                    note_defect(error, request_id=exchange.id)
                told = ApiError(500, f"something went wrong in the server; if you report it, say {exchange.id}")
            await exchange.refuse(told)

    def _note(self, exchange: "_Exchange", seconds: float) -> None:
        # The route's pattern and not the path, which anybody may have written.
        route = getattr(exchange.scope.get("route"), "path", "unmatched")
        method = exchange.scope["method"] if exchange.scope["method"] in _METHODS else "other"
        self.metrics.requests.labels(route, str(exchange.status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        asked = exchange.scope["state"].get("asked") if self.settings.log_prompts else None
        if route not in (*OPEN_PATHS, "/metrics"):
            note("request", request_id=exchange.id, method=method, route=route, status=exchange.status,
                 seconds=round(seconds, 4), **({} if asked is None else {"asked": asked}))  # fmt: skip


_BODIES = 8  # full bodies that may be in memory at a time
_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "TRACE")


def _check_body(headers: Headers, settings: Settings) -> None:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "compressed bodies are not taken; send it as it is")
    length = headers.get("content-length")
    if length is not None and length.isdigit() and int(length) > settings.max_body:
        raise ApiError(413, f"the body is too large; this server takes up to {settings.max_body} bytes")


class _Exchange:
    """One request and its reply: what may come in, and what goes out with every reply."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: Settings, others: "set[_Exchange]"
    ) -> None:
        self._others = others
        self.scope, self._receive, self._send, self._settings = scope, receive, send, settings
        self.id = secrets.token_hex(8)
        self.status = 0
        self.extra: dict[str, str] = {"x-request-id": self.id, **_SAFE}
        self.gone = False
        self.held, self._ended = 0, False
        scope.setdefault("state", {})["request_id"] = self.id

    async def receive(self) -> Message:
        """The next part of the body, which must come soon and not be too much."""
        if self._ended:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._settings.idle_s)
        except TimeoutError:
            raise ApiError(408, f"the body did not go on for {self._settings.idle_s:g} s") from None
        if message["type"] == "http.disconnect":
            self.gone = self._ended = True
            return message
        self.held += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self.held > self._settings.max_body:
            raise ApiError(413, f"the body is too large; this server takes up to {self._settings.max_body} bytes")
        if sum(other.held for other in self._others) > _BODIES * self._settings.max_body:
            raise ApiError(503, "too much is being sent at once; try again", retry_after=2)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the reply on, with what belongs to every reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(name, value) for name, value in message.get("headers", []) if name.decode() not in self.extra]
            added = [(name.encode(), value.encode("latin-1")) for name, value in self.extra.items()]
            message = {**message, "headers": own + added}
        await self._send(message)

    async def refuse(self, told: ApiError) -> None:
        """Answer with an error, if no answer has begun."""
        if self.status:
            return
        body: dict[str, Any] = {"error": told.message, "id": self.id}
        # What the client still sends is not read, so the connection cannot go on.
        closing = {} if self._ended else {"connection": "close"}
        await self.reply(told.status, json.dumps(body).encode(), {**told.headers, **closing})

    async def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """A whole reply."""
        told = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body})


# WAS riff/server/access.py: Who may call: the Host header, the origin of a page, and the token.

OPEN_PATHS = ("/healthz", "/readyz")


def check_access(path: str, headers: Headers, settings: Settings) -> dict[str, str]:
    """Refuse a request from where none may come.

    A page of a stranger that a user has open could else call a server on the same machine: by its address, which the
    browser tells by Origin and Sec-Fetch-Site, or by a name of the stranger's that was turned to that address (DNS
    rebinding), which the Host header tells.

    Returns:
        Headers for the reply, which let the page of an allowed origin read it.

    Raises:
        Refusal: 400, 401, 403 or 421.
    """
    host = _check_host(headers, settings)
    replied = _check_origin(headers, host, settings)
    if settings.token is not None and path not in OPEN_PATHS and not _has_token(headers, settings.token):
        fault = ApiError(401, "a token is needed; send 'Authorization: Bearer TOKEN'")
        fault.headers["www-authenticate"] = 'Bearer, Basic realm="riff"'
        raise fault
    return replied


def _check_host(headers: Headers, settings: Settings) -> str:
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        raise ApiError(400, "the request needs exactly one Host header")
    try:
        name = urlsplit(f"//{hosts[0]}").hostname or ""
    except ValueError:
        raise ApiError(400, "the Host header is no host") from None
    if name == "localhost" or name in settings.allow_hosts or _is_address(name):
        return hosts[0]
    raise ApiError(421, "the Host header names a host that this server does not answer for (riff serve --allow-host)")


def _is_address(name: str) -> bool:
    """Whether it is in digits; a rebound name never is."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(headers: Headers, host: str, settings: Settings) -> dict[str, str]:
    origin = headers.get("origin")
    if origin is None:
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise ApiError(403, "pages of other origins may not call this server (riff serve --allow-origin)")
        return {}
    if origin.partition("://")[2] == host:
        return {}
    if "*" not in settings.allow_origins and origin not in settings.allow_origins:
        raise ApiError(403, "pages of other origins may not call this server (riff serve --allow-origin)")
    return {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, POST, PATCH, DELETE",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-expose-headers": "x-request-id, x-job-id, x-riff-facts, x-stream-id, retry-after",
        "vary": "origin",
    }


def _has_token(headers: Headers, token: str) -> bool:
    """As a bearer, or as the password of http://riff:TOKEN@host/, which players can send."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(value.strip().encode("utf-8", "replace"), token.encode())


# WAS riff/server/wire.py: The server below HTTP: slow or too many connections are closed, signals drain, and
# the port is bound by us.

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
