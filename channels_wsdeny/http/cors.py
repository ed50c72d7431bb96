"""CORS on the HTTP address of a socket: scripts of allowed origins may read why a handshake was denied.

Pages of the site's own origin need none of it. See the Fetch standard, section 3.3 (HTTP CORS protocol).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse

from ..conf import conf
from .messages import EncodedDenial, send_response
from .origins import has_allowed_origin
from .request import AppRequest, has_allowed_host

if TYPE_CHECKING:
    from ..types import Message, RawHeaders, Scope, Send
    from .origins import Origins

#: Seconds for which a browser need not ask again; Chromium takes 7200 at most.
_MAX_AGE = b"600"


def cors_headers(scope: Scope, origins: Origins | None) -> RawHeaders:
    """The CORS headers of a response to `scope`; none for an origin that is not allowed, or without one.

    `origins` are those of the stack; None for the site's ``ORIGINS``. Those that cannot be used allow none.
    """
    request = AppRequest(scope)
    origin = request.header(b"origin")
    try:
        # The own origin is that of the host, which must be checked before.
        if origin is None or not has_allowed_host(scope.get("headers", ())) or not has_allowed_origin(request, origins):
            return []
    except ImproperlyConfigured:  # The handshake was denied by it.
        return []
    exposed = (b"access-control-expose-headers", b"Retry-After")
    if origin == b"null" or (conf.ORIGINS if origins is None else origins) == "*":
        # Without credentials: answers to a user's cookies are for origins that the site has named, not for any, and
        # any page can make a frame whose origin is "null".
        return [(b"access-control-allow-origin", b"*"), exposed]
    return [(b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true"), exposed]


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks by `scope` if a page may send a request."""
    if scope.get("method") != "OPTIONS":
        return False
    return {b"origin", b"access-control-request-method"} <= dict(scope.get("headers", ())).keys()


async def answer_preflight(scope: Scope, origins: Origins | None, send: Send) -> None:
    """Answer a preflight request of an allowed origin: a GET is allowed, also with ``Authorization``."""
    headers = [
        *cors_headers(scope, origins),
        (b"access-control-allow-methods", b"GET"),
        (b"access-control-allow-headers", b"Authorization"),
        (b"access-control-max-age", _MAX_AGE),
        (b"vary", b"Origin"),
    ]
    await send_response(EncodedDenial(HttpResponse(status=204), headers, ""), scope, send)


def with_cors(scope: Scope, origins: Origins | None, send: Send) -> Send:
    """A `send` that adds the CORS headers to the start of a response, unless it has some, and ``Vary: Origin``."""

    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": _add_cors(message["headers"], cors_headers(scope, origins))}
        await send(message)

    return send_with_cors


def _add_cors(headers: RawHeaders, added: RawHeaders) -> RawHeaders:
    if any(name == b"access-control-allow-origin" for name, _ in headers):  # of a hook of the site's
        return headers
    vary = b", ".join([*(value for name, value in headers if name == b"vary"), b"Origin"])
    others: list[Any] = [pair for pair in headers if pair[0] != b"vary"]
    return [*others, *added, (b"vary", vary)]
