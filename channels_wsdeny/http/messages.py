"""The emitter: the one place where a response becomes ASGI messages.

What it sends is what all servers send rightly: lower-case names, an exact ``content-length``, and
one body message straight after the start.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ..concurrency import hop
from ..log import warn_once

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

    from ..types import Message, RawHeaders, Scope, Send

EXTENSION = "websocket.http.response"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(rb"[\r\n\0]")
_HOW_HEADERS_ARE = "cannot be sent: names are tokens, and values have no CR, LF or NUL."
#: Statuses without a body, and so without its length (RFC 9110 section 8.6).
_BODILESS = {204, 304}
#: What belongs to the connection, not to the response (RFC 9110 section 7.6.1).
_OF_THE_HANDSHAKE = {b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade"}
_HOP_BY_HOP = {b"transfer-encoding", b"keep-alive", b"content-length"}


class Refusal(NamedTuple):
    """How a denial goes out: its response (for ASGI a whole `HttpResponse`), raw headers and code."""

    response: Any
    headers: RawHeaders
    code: str


def raw_headers(response: HttpResponseBase) -> RawHeaders:
    """The headers and cookies of `response`, as ASGI wants them: lower-case names, bytes.

    Raises `ValueError` for what cannot be sent: text beyond latin-1, a name that is no token, a NUL.
    """
    headers = [(name.lower().encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    headers += getattr(response, "cookie_lines", [])
    headers += [
        (b"set-cookie", morsel.output(header="").strip().encode("ascii"))
        for morsel in response.cookies.values()
    ]
    for name, value in headers:
        if not is_sendable(name, value):
            raise ValueError(f"The header {name!r}: {value!r} {_HOW_HEADERS_ARE}")
    return headers


def accept_headers(response: HttpResponseBase) -> RawHeaders:
    """What hooks and the session add to an accept, but for what belongs to the handshake itself.

    Servers send those themselves (RFC 6455 section 4.2.2), and some break on a second one.
    """
    return [
        (name, value)
        for name, value in raw_headers(response)
        if name not in _OF_THE_HANDSHAKE and not name.startswith(b"sec-websocket-")
    ]


def is_sendable(name: bytes, value: bytes) -> bool:
    """Whether a header can be sent without breaking out of its line (RFC 9110 sections 5.1 and 5.5)."""
    return bool(_TOKEN.fullmatch(name)) and not _FORBIDDEN.search(value)


def check_headers(message: Message) -> RawHeaders:
    """The headers of an application's message with lower-case names.

    Raises `ValueError` for a name or value that is not bytes or would break out of its line.
    """
    checked: RawHeaders = []
    for name, value in message.get("headers") or ():
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise ValueError(
                f"{message['type']!r} carries the header {name!r}: {value!r}. "
                "ASGI wants names and values of headers as bytes."
            )
        if not is_sendable(name, value):
            raise ValueError(
                f"{message['type']!r} carries a header that {_HOW_HEADERS_ARE} Found {name!r}: {value!r}."
            )
        checked.append((name.lower(), value))
    return checked


def messages(refusal: Refusal, prefix: str, send: Send) -> tuple[Message, Message]:
    """The two messages of a denial for this server; `prefix` is ``http`` or ``websocket.http``."""
    status = refusal.response.status_code
    body = b"" if status in _BODILESS else refusal.response.content
    headers = [pair for pair in refusal.headers if pair[0] not in _HOP_BY_HOP]
    if status not in _BODILESS:
        headers.append((b"content-length", b"%d" % len(body)))
    if prefix != "http" and is_granian(send):
        headers = _for_granian(headers)
    return (
        {"type": f"{prefix}.response.start", "status": status, "headers": headers},
        {"type": f"{prefix}.response.body", "body": body, "more_body": False},
    )


async def emit_response(refusal: Refusal, send: Send) -> None:
    """Answer an HTTP request with `refusal`; a stream or file is sent as it comes."""
    response = refusal.response
    if not response.streaming:
        for message in messages(refusal, "http", send):
            await send(message)
        return
    headers = [pair for pair in refusal.headers if pair[0] != b"transfer-encoding"]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    try:
        await send_body(response, send)
    finally:
        await hop(response.close)  # It fires request_finished, whose receivers expect to block.


async def send_body(response: Any, send: Send) -> None:
    """Send the body of a streaming response, a chunk at a time."""
    if response.is_async:
        async for chunk in response.streaming_content:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    else:
        chunks = iter(response.streaming_content)
        while (chunk := await hop(lambda: next(chunks, None))) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def emit_denial(refusal: Refusal, scope: Scope, send: Send, how: str) -> None:
    """Deny a handshake with `refusal`, as `how` and the server allow.

    `how` is ``"response"`` or ``"close"``. Without the server's denial extension it gets a close, which it
    answers by a bare 403.
    """
    if how == "close":
        cookies = [pair for pair in refusal.headers if pair[0] == b"set-cookie"]
        # Browsers drop a socket whose server chose none of the subprotocols they offered.
        subprotocol = next(iter(scope.get("subprotocols") or ()), None)
        await send(accept_message({"type": "websocket.accept", "subprotocol": subprotocol}, cookies, send))
        await send(close_message(refusal))
    elif EXTENSION in (scope.get("extensions") or {}):
        start, body = messages(refusal, "websocket.http", send)
        await send(start)
        await send(body)
    else:
        warn_once(
            "no-extension",
            "The server cannot send a denial response: clients get a bare 403 instead of the real "
            "status. Run the site by `python -m channels_wsdeny.daphne`, uvicorn, hypercorn or "
            'granian, or set CHANNELS_WSDENY["DENY_WITH"] = "close".',
        )
        await send(close_message(refusal))


def close_message(refusal: Refusal) -> Message:
    """The close that stands for a denial: 4000 + status, the code as reason (at most 123 bytes)."""
    return {
        "type": "websocket.close",
        "code": 4000 + refusal.response.status_code,
        "reason": refusal.code.encode()[:123].decode(errors="ignore"),
    }


def accept_message(message: Message, headers: RawHeaders, send: Send) -> Message:
    """The accept `message` with these headers, as far as this server can send them."""
    if headers and is_granian(send):
        warn_once(
            "granian-accept",
            "granian drops the headers and cookies of an accepted handshake; they are left out.",
        )
        headers = []
    return {**message, "headers": headers}


def is_granian(send: Send) -> bool:
    """Whether the server is granian, whose worker panics on a repeated header name.

    `send` tells, unless a middleware has wrapped it; then it is that this process is granian's worker.
    """
    module = type(getattr(send, "__self__", None)).__module__ or ""
    return "granian.asgi" in sys.modules or "granian" in module


def _for_granian(headers: RawHeaders) -> RawHeaders:
    """One line a name, and a connection that is closed (granian would keep it alive)."""
    once: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in once:
            once[name] = value
        elif name == b"set-cookie":
            warn_once(
                "granian-set-cookie",
                "granian cannot send a second Set-Cookie with a denial; the first one is sent.",
            )
        else:
            once[name] += b", " + value
    return [*{**once, b"connection": b"close"}.items()]
