"""Who may call: the Host header, the origin of a page, and the token."""

import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from riff.server.faults import Refusal
from riff.server.settings import Settings

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
        fault = Refusal(401, "a token is needed; send 'Authorization: Bearer TOKEN'")
        fault.headers["www-authenticate"] = 'Bearer, Basic realm="riff"'
        raise fault
    return replied


def _check_host(headers: Headers, settings: Settings) -> str:
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        raise Refusal(400, "the request needs exactly one Host header")
    try:
        name = urlsplit(f"//{hosts[0]}").hostname or ""
    except ValueError:
        raise Refusal(400, "the Host header is no host") from None
    if name == "localhost" or name in settings.allow_hosts or _is_address(name):
        return hosts[0]
    raise Refusal(421, "the Host header names a host that this server does not answer for (riff serve --allow-host)")


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
            raise Refusal(403, "pages of other origins may not call this server (riff serve --allow-origin)")
        return {}
    if origin.partition("://")[2] == host:
        return {}
    if "*" not in settings.allow_origins and origin not in settings.allow_origins:
        raise Refusal(403, "pages of other origins may not call this server (riff serve --allow-origin)")
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
