"""What stands between the network and the routes: access, limits of bodies, request ids, the log, last errors."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from riff.apps.server.settings import ApiError, Metrics, Settings, as_api_error, note, note_defect

# What a browser may open from a link on another site: pages that start no work.
PAGES = ("/", "/docs", "/openapi.json")
PROBES = ("/healthz", "/readyz")
_FULL_BODIES = 8  # bodies of the largest size that may be in memory at a time
_SLOWEST = 16_384  # bytes a second that a body must come at, after its first idle_s
_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "TRACE")
_ELSEWHERE = "pages of other origins may not call this server (riff serve --allow-origin)"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

# The docs are FastAPI's own page: a script of this server's, started by a line in the page.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)


class Guard:
    """An ASGI application around the routes."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self._open: set[_Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.settings, self._open)
        self._open.add(exchange)
        try:
            await self._handle(exchange)
        finally:
            self._open.discard(exchange)
            self._note(exchange, time.monotonic() - exchange.arrived)

    async def _handle(self, exchange: "_Exchange") -> None:
        scope = exchange.scope
        try:
            if len(self._open) > self.settings.max_connections and scope["path"] not in PROBES:
                raise ApiError(503, "too many requests at once; try again", retry_after=1)
            headers = Headers(scope=scope)
            exchange.extra |= check_access(scope["path"], headers, self.settings)
            if scope["path"] == "/docs":
                exchange.extra["content-security-policy"] = _DOCS_POLICY
            if scope["method"] == "OPTIONS" and "access-control-allow-origin" in exchange.extra:
                await Response(status_code=204)(scope, exchange.receive, exchange.send)
                return
            _check_body(headers, self.settings)
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            fault = as_api_error(error)
            if fault is None:
                if not exchange.gone:
                    note_defect(error, request_id=exchange.id)
                fault = ApiError(500, f"something went wrong in the server; if you report it, say {exchange.id}")
            await exchange.refuse(fault)

    def _note(self, exchange: "_Exchange", seconds: float) -> None:
        # The route's pattern and not the path, which the client chose.
        route = getattr(exchange.scope.get("route"), "path", "unmatched")
        method = exchange.scope["method"] if exchange.scope["method"] in _METHODS else "other"
        self.metrics.requests.labels(route, str(exchange.status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        prompts = exchange.scope["state"].get("prompts") if self.settings.log_prompts else None
        if route not in (*PROBES, "/metrics"):
            note("request", request_id=exchange.id, method=method, route=route, status=exchange.status,
                 seconds=round(seconds, 4), **({} if prompts is None else {"prompts": prompts}))  # fmt: skip


def _check_body(headers: Headers, settings: Settings) -> None:
    if "transfer-encoding" in headers and "content-length" in headers:
        # Two servers in a row may disagree on where such a request ends.
        raise ApiError(400, "the request has both Transfer-Encoding and Content-Length; send one of them")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "compressed bodies are not accepted; send it as it is")
    length = headers.get("content-length")
    if length is not None and length.isdigit() and int(length) > settings.max_body:
        raise ApiError(413, f"the body is too large; this server accepts up to {settings.max_body} bytes")


class _Exchange:
    """One request and its reply: what may come in, and what goes out with every reply."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: Settings, others: "set[_Exchange]"
    ) -> None:
        self.scope, self._receive, self._send, self._settings = scope, receive, send, settings
        self._others = others
        self.id = secrets.token_hex(8)
        self.arrived = time.monotonic()
        self.status = 0
        self.extra: dict[str, str] = {"x-request-id": self.id, **_HEADERS}
        self.gone = False
        self.size, self._ended = 0, False
        scope.setdefault("state", {}).update(request_id=self.id, arrived=self.arrived)

    async def receive(self) -> Message:
        """The next part of the body, which must come soon enough and not be too large."""
        if self._ended:
            return await self._receive()
        allowed = min(self._settings.idle_s + self.size / _SLOWEST, self._settings.deadline_s)
        left = min(self._settings.idle_s, self.arrived + allowed - time.monotonic())
        try:
            async with asyncio.timeout(max(0.0, left)):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "the body came too slowly; send it without pauses") from None
        if message["type"] == "http.disconnect":
            self.gone = self._ended = True
            return message
        self.size += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self.size > self._settings.max_body:
            raise ApiError(413, f"the body is too large; this server accepts up to {self._settings.max_body} bytes")
        if sum(other.size for other in self._others) > _FULL_BODIES * self._settings.max_body:
            raise ApiError(503, "too much is being sent at once; try again", retry_after=2)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the reply on, with the headers of every reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = list(message.get("headers", []))
            names = {name.decode("latin-1").lower() for name, _ in own}
            added = [
                (name.encode(), value.encode("latin-1")) for name, value in self.extra.items() if name not in names
            ]
            message = {**message, "headers": own + added}
        await self._send(message)

    async def refuse(self, fault: ApiError) -> None:
        """Answer with an error, if no answer has begun."""
        if self.status:
            return
        # What the client still sends is not read, so the connection cannot go on.
        closing = {} if self._ended else {"connection": "close"}
        reply = JSONResponse({"error": fault.message, "id": self.id}, fault.status, {**fault.headers, **closing})
        await reply(self.scope, self.receive, self.send)


def check_access(path: str, headers: Headers, settings: Settings) -> dict[str, str]:
    """Refuse a request from where none may come.

    A page of another site that a user has open could otherwise call a server on the same machine: by its address, which
    the browser reports in Origin, Sec-Fetch-Site or Referer, or by a name that was made to lead to that address (DNS
    rebinding), which the Host header reports.

    Returns headers for the reply, which let the page of an allowed origin read it; raises 400, 401, 403 or 421.
    """
    host = _check_host(headers, settings)
    replied = _check_origin(path, headers, host, settings)
    if settings.token is not None and path not in PROBES and not _has_token(headers, settings.token):
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
        raise ApiError(400, "the Host header is not a host") from None
    if name == "localhost" or name in settings.allow_hosts or _is_address(name):
        return hosts[0]
    raise ApiError(421, "the Host header names a host that this server does not answer for (riff serve --allow-host)")


def _is_address(name: str) -> bool:
    """Whether it is numeric; a rebound name never is."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(path: str, headers: Headers, host: str, settings: Settings) -> dict[str, str]:
    origin = headers.get("origin")
    if origin is None:
        # A navigation, a frame or an image has no Origin, and would start work without being able to read it.
        opens_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        allowed = "*" in settings.allow_origins or (opens_page and path in PAGES)
        if not allowed and _comes_from_elsewhere(headers, host):
            raise ApiError(403, _ELSEWHERE)
        return {}
    if origin.partition("://")[2] == host:
        return {}
    if "*" not in settings.allow_origins and origin not in settings.allow_origins:
        raise ApiError(403, _ELSEWHERE)
    return {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, POST, PATCH, DELETE",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-expose-headers": "x-request-id, x-job-id, x-riff-facts, x-stream-id, retry-after",
        "vary": "origin",
    }


def _comes_from_elsewhere(headers: Headers, host: str) -> bool:
    """Whether another site's page caused the request, where the browser says so."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    referer = headers.get("referer")  # all that browsers send to addresses other than localhost without TLS
    return referer is not None and referer.partition("://")[2].partition("/")[0] != host


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
