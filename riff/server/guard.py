"""What stands between the network and the routes: access, limits of size and time, ids, the log, and last errors."""

import asyncio
import json
import secrets
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from riff.server.access import OPEN_PATHS, check_access
from riff.server.faults import Refusal, refusal
from riff.server.log import note, note_defect
from riff.server.metrics import Metrics
from riff.server.settings import Settings

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
                told = Refusal(500, f"something went wrong in the server; if you report it, say {exchange.id}")
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
        raise Refusal(415, "compressed bodies are not taken; send it as it is")
    length = headers.get("content-length")
    if length is not None and length.isdigit() and int(length) > settings.max_body:
        raise Refusal(413, f"the body is too large; this server takes up to {settings.max_body} bytes")


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
            raise Refusal(408, f"the body did not go on for {self._settings.idle_s:g} s") from None
        if message["type"] == "http.disconnect":
            self.gone = self._ended = True
            return message
        self.held += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self.held > self._settings.max_body:
            raise Refusal(413, f"the body is too large; this server takes up to {self._settings.max_body} bytes")
        if sum(other.held for other in self._others) > _BODIES * self._settings.max_body:
            raise Refusal(503, "too much is being sent at once; try again", retry_after=2)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the reply on, with what belongs to every reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(name, value) for name, value in message.get("headers", []) if name.decode() not in self.extra]
            added = [(name.encode(), value.encode("latin-1")) for name, value in self.extra.items()]
            message = {**message, "headers": own + added}
        await self._send(message)

    async def refuse(self, told: Refusal) -> None:
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
