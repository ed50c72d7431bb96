"""ASGI messages: responses become messages here, and messages of an application become responses.

What is sent is what all servers send rightly: lower-case names, an exact ``content-length``, and one body
message straight after the start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from django.http import HttpResponse

from .. import status as statuses
from ..concurrency import run_in_threadpool
from ..exceptions import Deny, HandshakeDenied
from ..headers import BODILESS, CLOSE_CODES, check_headers, cut_reason, is_sendable
from .responses import check_size
from .servers import accept_headers_for, denial_headers_for, warn_of_missing_extension

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from django.http.response import HttpResponseBase

    from ..types import Message, RawHeaders, Receive, Scope, Send

EXTENSION = "websocket.http.response"
#: Headers of the connection, not of the response (RFC 9110 section 7.6.1).
_CONNECTION = {b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade"}
_FRAMING = {b"transfer-encoding", b"keep-alive", b"content-length"}


class EncodedDenial(NamedTuple):
    """A denial that may be sent as it is: its response (a whole one for ASGI), raw headers and code."""

    response: Any
    headers: RawHeaders
    code: str


# Headers


def encode_headers(response: HttpResponseBase) -> RawHeaders:
    """The headers and cookies of `response`, as ASGI wants them: lower-case names, bytes.

    Raises `ValueError` for what cannot be sent: text beyond latin-1, a name that is no token, CR, LF or NUL.
    """
    headers = [(name.lower().encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    headers += getattr(response, "cookie_lines", [])
    headers += [
        (b"set-cookie", morsel.output(header="").strip().encode("ascii")) for morsel in response.cookies.values()
    ]
    for name, value in headers:
        if not is_sendable(name, value):
            # The value stays out of the message: it may be a session's cookie.
            raise ValueError(
                f"A response has the header {name!r}, which cannot be sent: a name is a token, and a value has no CR, "
                "LF or NUL."
            )
    return headers


def accept_headers(response: HttpResponseBase) -> RawHeaders:
    """The headers that hooks and the session add to an accept, without those of the handshake itself.

    Servers send those themselves (RFC 6455 section 4.2.2), and some break on a second one.
    """
    return [
        (name, value)
        for name, value in encode_headers(response)
        if name not in _CONNECTION and not name.startswith(b"sec-websocket-")
    ]


# Messages that are sent


def denial_messages(denial: EncodedDenial, scope: Scope, send: Send) -> tuple[Message, Message]:
    """The two messages of a denial of `scope`, for this server."""
    status = denial.response.status_code
    body = b"" if status in BODILESS else denial.response.content
    headers = [pair for pair in denial.headers if pair[0] not in _FRAMING]
    if status not in BODILESS:
        headers.append((b"content-length", b"%d" % len(body)))
    prefix = "http"
    if scope["type"] == "websocket":
        prefix, headers = "websocket.http", denial_headers_for(scope, send, headers)
    return (
        {"type": f"{prefix}.response.start", "status": status, "headers": headers},
        {"type": f"{prefix}.response.body", "body": body, "more_body": False},
    )


def denial_for(
    denial: EncodedDenial, scope: Scope, send: Send, how: str, subprotocol: str | None = None
) -> tuple[Message, ...]:
    """The messages that deny a handshake, as `how` (``"response"`` or ``"close"``) and the server allow.

    `subprotocol` was sent before a token, and is in the scope no more.
    Without the denial extension of ASGI the server gets a close, which it answers by a bare 403.
    """
    if how == "close":
        cookies = [pair for pair in denial.headers if pair[0] == b"set-cookie"]
        # Browsers drop a socket whose server chose none of the subprotocols that they offered.
        subprotocol = subprotocol or next(iter(scope.get("subprotocols") or ()), None)
        accept = accept_message({"type": "websocket.accept", "subprotocol": subprotocol}, cookies, send)
        return accept, close_message(denial)
    if EXTENSION in (scope.get("extensions") or {}):
        return denial_messages(denial, scope, send)
    warn_of_missing_extension()
    return (close_message(denial),)


def copy_messages(denial: tuple[Message, Message]) -> tuple[Message, Message]:
    """Kept messages for one client: servers and wrappers may change theirs."""
    start, body = denial
    return {**start, "headers": [*start["headers"]]}, {**body}


def accept_message(message: Message, headers: RawHeaders, send: Send) -> Message:
    """The accept `message` with these headers beside its own, as far as this server can send them.

    Its own have been checked, and go out as they were given.
    """
    own = message.get("headers")
    if not (own or headers):
        return {"headers": [], **message}  # which some servers need
    return {**message, "headers": accept_headers_for(send, [*(own or ()), *headers])}


def close_message(denial: EncodedDenial, reason: str = "") -> Message:
    """The close that stands for a denial: 4000 + status, unless its application closed with another code.

    That counts unless a response hook has changed the status. The reason is cut at 123 bytes; by default it is the code
    of the denial, and ``;retry=`` with the seconds of ``Retry-After``, if there are any.
    """
    status = denial.response.status_code
    code, own, closed_with = getattr(denial.response, "wsdeny_close", (None, "", status))
    if closed_with != status:
        code, own = None, ""
    retry = denial.response.get("Retry-After", "")
    coded = f"{denial.code};retry={retry}" if retry.isdecimal() else denial.code
    return {"type": "websocket.close", "code": code or 4000 + status, "reason": cut_reason(reason or own or coded)}


async def send_response(denial: EncodedDenial, scope: Scope, send: Send) -> None:
    """Answer an HTTP request; a stream or file is sent as it comes, and closed."""
    response = denial.response
    if not response.streaming:
        await send_messages(denial_messages(denial, scope, send), send)
        return
    headers = [pair for pair in denial.headers if pair[0] != b"transfer-encoding"]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    try:
        if response.is_async:
            async for chunk in response.streaming_content:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        else:
            chunks = iter(response.streaming_content)
            while (chunk := await run_in_threadpool(lambda: next(chunks, None))) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await run_in_threadpool(response.close)  # It sends request_finished, whose receivers expect to block.


async def send_messages(messages: Iterable[Message], send: Send) -> None:
    """Send one after the other."""
    for message in messages:
        await send(message)


async def send_while_connected(sending: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Await `sending`, unless the client leaves; then it is cancelled, and has ended.

    Otherwise a body without an end would be sent for ever, and hypercorn waits for ever for a client to read on.
    Raises what `sending` does.
    """
    task = asyncio.ensure_future(sending)
    leaving = asyncio.ensure_future(receive_disconnect(receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and leaving.exception() is not None:
            await asyncio.wait({task})  # The server does not know any more whether the client is there.
    finally:
        leaving.cancel()
        if task.cancel():
            await asyncio.wait({task})  # It has something to close.
    if not task.cancelled():
        task.result()


async def receive_disconnect(receive: Receive) -> None:
    """Wait for the server's disconnect event; other events are dropped."""
    event = await receive()
    while not event["type"].endswith(".disconnect"):
        await asyncio.sleep(0)  # A server with many events must not keep the sender from running.
        event = await receive()


# Messages of applications


def is_connect(event: Message) -> bool:
    """Whether the server's first event is ``websocket.connect``; False if the client has left already.

    Raises `ValueError` for anything else.
    """
    if event["type"] == "websocket.disconnect":
        return False
    if event["type"] != "websocket.connect":
        raise ValueError(f"Expected 'websocket.connect' from the server, found {event['type']!r}.")
    return True


def take_headers(response: HttpResponseBase, headers: RawHeaders) -> None:
    """Replace the headers of `response` by those of an application: repeated ones are joined, except cookies."""
    del response["Content-Type"]
    cookie_lines: list[tuple[bytes, bytes]] = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin1")
        if name == "set-cookie":
            cookie_lines.append((b"set-cookie", raw_value))
        elif response.has_header(name):
            response[name] = f"{response[name]}, {value}"  # RFC 9110 section 5.3
        else:
            response[name] = value
    marked: Any = response
    marked.cookie_lines = cookie_lines


class DenialFromApplication:
    """A denial that the application itself sends, by the denial extension of ASGI."""

    def __init__(self, start: Message) -> None:
        status = start.get("status")
        if not isinstance(status, int) or not statuses.is_denial(status):
            raise ValueError(f"The status of a denial is 300-599, found {status!r}.")
        self._status = status
        self._headers = check_headers(start)
        self._body = b""

    def add(self, message: Message) -> HttpResponse | None:
        """Take a body message; returns the response once it is whole."""
        self._body += message.get("body", b"")
        check_size(len(self._body))
        if message.get("more_body"):
            return None
        response = HttpResponse(self._body, status=self._status)
        take_headers(response, self._headers)
        return response


class Closed(Deny):
    """The denial of an application that closed: N where the code is 4000 + N (400-599), else 403.

    Another code that can be sent is kept, with the reason, for ``DENY_WITH = "close"``.
    """

    def __init__(self, message: Message) -> None:
        code: Any = message.get("code")
        is_status = isinstance(code, int) and 4400 <= code <= 4599
        super().__init__(code - 4000 if is_status else 403, message.get("reason") or "")
        self.close_code: int | None = code if code in CLOSE_CODES and not is_status else None


async def receive_nothing() -> Message:
    """The ``receive`` of a connection that is over."""
    raise HandshakeDenied("The connection is over; nothing can be received.")


async def send_nothing(message: Message) -> None:
    """The ``send`` of a connection that is over."""
    raise HandshakeDenied(f"The connection is over; {message.get('type')!r} cannot be sent.")


class Listener:
    """The server's events for an application that has to stop listening if its handshake is denied meanwhile.

    A caller that gives up listening loses no event: the next caller gets it.
    """

    __slots__ = ("_end", "_receive", "pending")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        #: The event that a caller has begun to wait for.
        self.pending: asyncio.Future[Message] | None = None
        self._end: asyncio.Future[None] | None = None

    async def next(self) -> Message | None:
        """The server's next event; None if `end` is called before there is one."""
        end = self._end = self._end or asyncio.get_running_loop().create_future()
        while not end.done():
            event = self.pending = self.pending or asyncio.ensure_future(self._receive())
            waiting: set[asyncio.Future[Any]] = {event, end}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if event is self.pending:  # else another caller got it
                self.pending = None
                return event.result()
        return None

    async def last(self) -> Message:
        """The pending event, once nothing else can end the wait; else the server's next event."""
        event, self.pending = self.pending, None
        return await (self._receive() if event is None else event)

    def end(self) -> None:
        """Have callers stop, and leave the server's events to others."""
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self.pending is not None:
            self.pending.cancel()
            self.pending = None

    def close(self) -> None:
        """Drop the server's ``receive``: granian keeps a connection as long as anything holds it."""
        self.end()
        self._receive = receive_nothing
