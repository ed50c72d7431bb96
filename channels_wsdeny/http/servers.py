"""Differences between servers, as measured on them; see docs/servers.md."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..log import warn_once

if TYPE_CHECKING:
    from ..types import RawHeaders, Scope, Send


def is_granian(send: Send) -> bool:
    """Whether the server is granian.

    Its worker panics on a repeated header name, and it keeps a denied connection for as long as any frame holds
    ``send``. `send` tells, unless a middleware has wrapped it; then it is that this process is granian's worker.
    """
    module = type(getattr(send, "__self__", None)).__module__ or ""
    return "granian.asgi" in sys.modules or "granian" in module


def is_multiplexed(scope: Scope) -> bool:
    """Whether the handshake or request is a stream of HTTP/2, with flow control of its own (RFC 9113 section 5.2).

    ``send`` may wait there for the client to read, however short the message is; hypercorn's waits for ever where the
    client leaves meanwhile.
    """
    return scope.get("http_version", "1.1") not in {"1.0", "1.1"}


#: Where the servers have their ``send`` that close the connection after a denial without saying so.
_CLOSING = {"hypercorn.protocol.ws_stream", "uvicorn.protocols.websockets.wsproto_impl"}


def is_closing(scope: Scope, send: Send) -> bool:
    """Whether the server closes the connection after a denial of `scope`, and does not say so itself.

    A proxy would send the next request there. HTTP/2 has no such header (RFC 9113 section 8.2.2).
    """
    return not is_multiplexed(scope) and type(getattr(send, "__self__", None)).__module__ in _CLOSING


def has_refused(send: Send) -> bool:
    """Whether the server has refused a handshake by itself, of which it never tells the application.

    hypercorn answers a client that sends something before its answer with a 400, and drops all that comes after.
    """
    stream: Any = getattr(send, "__self__", None)
    return type(stream).__module__ == "hypercorn.protocol.ws_stream" and getattr(stream, "closed", False) is True


def denial_headers_for(scope: Scope, send: Send, headers: RawHeaders) -> RawHeaders:
    """The headers of a denied handshake, as far as the server can send them.

    For granian one line for each name, and ``Connection: close``, for it would keep the connection alive.
    """
    if is_closing(scope, send):
        return [*(pair for pair in headers if pair[0] != b"connection"), (b"connection", b"close")]
    if not is_granian(send):
        return headers
    once: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in once:
            once[name] = value
        else:  # Those of a response come once, except its cookies.
            warn_once("granian cannot send a second Set-Cookie with a denial; the first one is sent.")
    return [*{**once, b"connection": b"close"}.items()]


def accept_headers_for(send: Send, headers: RawHeaders) -> RawHeaders:
    """The headers of an accepted handshake, as far as the server can send them. granian drops them."""
    if not headers or not is_granian(send):
        return headers
    warn_once("granian drops the headers and cookies of an accepted handshake; they are left out.")
    return []


def warn_of_missing_extension() -> None:
    """Warn once that the server cannot send denials, as stock Daphne."""
    warn_once(
        "The server cannot send a denial response: clients get a bare 403 instead of the real status. Run the site "
        "by `python -m channels_wsdeny.daphne`, uvicorn, hypercorn or granian, or set "
        'CHANNELS_WSDENY["DENY_WITH"] = "close".',
    )
