"""WebSockets in tests: the application runs in a task, and the test exchanges ASGI messages with it."""
# ruff: noqa: ASYNC109 - timeouts are arguments in Channels' API

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from asgiref.testing import ApplicationCommunicator
from channels.routing import get_default_application
from django.utils.encoding import iri_to_uri

from .database import SharedTransaction
from .responses import Closed, HandshakeResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from ..types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

Frame = TypeVar("Frame", str, bytes)
#: Seconds to wait for the application: more than ``POLICY_TIMEOUT``, so that a test sees its 503.
TIMEOUT = 5.0
#: Seconds that the application has to end after a disconnect or a cancellation.
_GRACE = 1.0


class ApplicationEndedError(TimeoutError):
    """The application has ended, so the message that a test waits for will not come."""


class WebsocketCommunicator(ApplicationCommunicator):
    """Channels' `WebsocketCommunicator` with support for denials, importable without Daphne.

    `application` is ``ASGI_APPLICATION`` if None. `headers` are pairs of bytes. `extensions` are those that
    the server offers: by default it can send denials; ``{}`` is a server that cannot, such as stock Daphne.
    `scope` may be changed before `connect`. After `connect`, `response` is the `HandshakeResponse`.

    Timeouts are in seconds. A method that waits raises what the application has raised, and `TimeoutError`
    after it has cancelled the application; the cause's traceback shows where the application was.
    """

    def __init__(
        self,
        application: ASGIApp | None = None,
        path: str = "/",
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        subprotocols: Iterable[str] | None = None,
        spec_version: str | None = None,
        *,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        url = urlsplit(iri_to_uri(path))
        scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": unquote(url.path),
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "headers": list(headers or ()),
            "subprotocols": list(subprotocols or ()),
            "client": ("127.0.0.1", 0),
            "server": ("testserver", 80),
            "extensions": {"websocket.http.response": {}} if extensions is None else dict(extensions),
        }
        if spec_version:
            scope["spec_version"] = spec_version
        super().__init__(partial(_run, get_default_application() if application is None else application), scope)
        self.response: HandshakeResponse | None = None
        self.response_headers: RawHeaders | None = None

    @property
    def denial(self) -> HandshakeResponse | None:
        """The response if the handshake was denied; None if it was accepted, and before `connect`."""
        return None if self.response is None or self.response.status_code == 101 else self.response

    async def connect(self, timeout: float = TIMEOUT) -> tuple[bool, str | int | None]:
        """Send the handshake.

        Returns ``(True, <subprotocol or None>)`` for an accept, ``(False, <status>)`` for a denial, and
        ``(False, <close code>)`` for a close. A denied application has ended then.

        Raises `AssertionError` for a message that is no response to a handshake.
        """
        await self.send_input({"type": "websocket.connect"})
        message = await self.receive_output(timeout)
        headers = list(message.get("headers") or ())
        if message["type"] == "websocket.accept":
            self.response_headers = headers
            self.response = HandshakeResponse(101, headers, subprotocol=message.get("subprotocol"))
            return True, self.response.subprotocol
        result: int | None
        if message["type"] == "websocket.close":
            self.response = HandshakeResponse(403)
            self.response.note_close(message)
            result = self.response.close_code
        elif message["type"] == "websocket.http.response.start":
            content, result, more = b"", message["status"], True
            while more:
                part = await self.receive_output(timeout)
                content, more = content + part.get("body", b""), part.get("more_body", False)
            self.response = HandshakeResponse(message["status"], headers, content)
        else:
            raise AssertionError(f"{self.scope['path']}: expected a response to the handshake, found {message!r}.")
        await self.disconnect(1006, timeout)
        return False, result

    async def receive_output(self, timeout: float = TIMEOUT) -> Message:
        """Return the application's next message.

        Raises `ApplicationEndedError`, a `TimeoutError`, at once if the application has ended without one.
        """
        arriving = asyncio.ensure_future(self.output_queue.get())
        try:
            await asyncio.wait({arriving, self.future}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if arriving.done():
                message: Message = arriving.result()
                return message
        finally:
            arriving.cancel()
        await self._finish(f"sent nothing for {timeout:g} s")
        raise ApplicationEndedError(f"{self.scope['path']}: the application has ended, and sends no more.")

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a frame to the application. Raises `TypeError` for both text and bytes, or neither."""
        if (text_data is None) == (bytes_data is None):
            raise TypeError(f"A frame is either text or bytes, found text {text_data!r} and bytes {bytes_data!r}.")
        frame = {"bytes": bytes_data} if text_data is None else {"text": text_data}
        await self.send_input({"type": "websocket.receive", **frame})

    async def send_json_to(self, data: Any) -> None:
        """Send `data` as JSON, in a text frame."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = TIMEOUT) -> str | bytes:
        """Return the next frame. Raises `AssertionError` for another message, such as a close."""
        return _frame(await self.receive_output(timeout))

    async def receive_json_from(self, timeout: float = TIMEOUT) -> Any:
        """Parse the next frame, text or binary, as JSON."""
        return json.loads(await self.receive_from(timeout))

    async def disconnect(self, code: int = 1000, timeout: float = TIMEOUT) -> None:
        """Close the socket as a client does, and wait until the application has ended."""
        if not self.future.done():
            await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)

    async def wait(self, timeout: float = TIMEOUT) -> None:
        """Wait until the application has ended."""
        await asyncio.wait({self.future}, timeout=timeout)
        await self._finish(f"had not ended after {timeout:g} s")

    async def cancel(self) -> BaseException | None:
        """Cancel the application, and wait for its end, but for no more than a second.

        Returns the exception that it has ended with, or None.
        """
        self.future.cancel()
        await asyncio.wait({self.future}, timeout=_GRACE)
        try:
            error: BaseException | None = self.future.exception()
        except (asyncio.CancelledError, asyncio.InvalidStateError) as cancelled:
            return cancelled
        return error

    async def _finish(self, problem: str) -> None:
        """Raise what the application has raised, or `TimeoutError` with this `problem` if it still runs."""
        if not self.future.done():
            raise TimeoutError(f"{self.scope['path']}: the application {problem}.") from await self.cancel()
        if not self.future.cancelled():
            self.future.result()


class ClientSocket(WebsocketCommunicator):
    """An open WebSocket, as ``async with client.connect(…) as socket`` yields it.

    `response` is the accept, a `HandshakeResponse` of status 101. `timeout` is the client's. Iterating yields
    frames until the close. On a closed socket, methods that send or receive frames raise `Closed`.
    """

    response: HandshakeResponse
    timeout = TIMEOUT

    @property
    def close_code(self) -> int | None:
        """The code of the close, by the application or by the test; None while the socket is open."""
        return self.response.close_code

    @property
    def close_reason(self) -> str:
        """The reason of that close; empty without one, and while the socket is open."""
        return self.response.close_reason

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """See `WebsocketCommunicator.send_to`."""
        self._require_open()
        await super().send_to(text_data, bytes_data)

    async def send_text(self, text: str) -> None:
        """Send a text frame."""
        await self.send_to(text_data=text)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        await self.send_to(bytes_data=data)

    async def send_json(self, data: Any) -> None:
        """Send `data` as JSON, in a text frame."""
        await self.send_json_to(data)

    async def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next frame, text or bytes.

        Raises `Closed` if the application closes the socket, or ends (code 1006).
        """
        self._require_open()
        try:
            message = await self.receive_output(self.timeout if timeout is None else timeout)
        except ApplicationEndedError:
            message = {"type": "websocket.close", "code": 1006}
        if message["type"] != "websocket.close":
            return _frame(message)
        self.response.note_close(message)
        await self.disconnect(message.get("code", 1000), self.timeout)
        raise Closed(self.response)

    async def receive_text(self, timeout: float | None = None) -> str:
        """Return the next frame. Raises `AssertionError` if it is binary."""
        return _of_type(str, await self.receive(timeout))

    async def receive_bytes(self, timeout: float | None = None) -> bytes:
        """Return the next frame. Raises `AssertionError` if it is text."""
        return _of_type(bytes, await self.receive(timeout))

    async def receive_json(self, timeout: float | None = None) -> Any:
        """Parse the next frame, text or binary, as JSON. Raises `ValueError` if it is none."""
        return json.loads(await self.receive(timeout))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except Closed:
            raise StopAsyncIteration from None

    async def close(self, code: int = 1000) -> None:
        """Close the socket, and wait until the application has ended; no-op on a closed socket.

        If the application had closed it before, without the test receiving that, its close counts.
        """
        if self.close_code is not None:
            return
        try:
            await self.disconnect(code, self.timeout)
        finally:
            queued = [self.output_queue.get_nowait() for _ in range(self.output_queue.qsize())]
            closes = [message for message in queued if message["type"] == "websocket.close"]
            self.response.note_close(next(iter(closes), {"code": code}))

    def _require_open(self) -> None:
        if self.close_code is not None:
            raise Closed(self.response)


async def _run(application: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    async with SharedTransaction():
        await application(scope, receive, send)


def _frame(message: Message) -> str | bytes:
    """Return the text or bytes of a ``websocket.send``. Raises `AssertionError` for another message."""
    if message["type"] != "websocket.send":
        raise AssertionError(f"Expected a frame ('websocket.send') from the application, found {message!r}.")
    frame: str | bytes = message["bytes"] if message.get("text") is None else message["text"]
    return frame


def _of_type(expected: type[Frame], frame: str | bytes) -> Frame:
    if not isinstance(frame, expected):
        raise AssertionError(f"Expected a frame of type {expected.__name__}, found {frame!r}.")
    return frame
