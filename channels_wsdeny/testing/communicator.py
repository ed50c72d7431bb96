"""The communicator: one WebSocket in a test, message by message."""
# ruff: noqa: ASYNC109 - timeouts are arguments in Channels' API

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from channels.routing import get_default_application
from django.utils.encoding import iri_to_uri

from .apprunner import TIMEOUT, UNWINDING, ApplicationRunner
from .responses import HandshakeResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..types import ASGIApp, Message, RawHeaders

#: What a server that can send denials offers.
DENIAL_EXTENSION: Mapping[str, Any] = {"websocket.http.response": {}}


class WebsocketCommunicator(ApplicationRunner):
    """Channels' `WebsocketCommunicator` that understands denials, and needs no Daphne.

    `application` is ``ASGI_APPLICATION`` if None. `headers` are raw pairs, and go out as they are.
    `extensions` are what the server offers: denials, or ``{}`` for a server such as stock Daphne. The scope
    may be changed until `connect`.

    After `connect`, `response` is the `HandshakeResponse`, and `denial` the same if it is one, else None.

    Raises `TypeError` for a path or an application that is none.
    """

    def __init__(
        self,
        application: ASGIApp | None = None,
        path: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        subprotocols: Iterable[str] | None = None,
        spec_version: str | None = None,
        *,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(path, str):
            raise TypeError(f"WebsocketCommunicator() needs a path such as '/ws/chat/', found {path!r}.")
        if application is None:
            application = get_default_application()
        if not callable(application):
            raise TypeError(f"WebsocketCommunicator() needs an ASGI application, found {application!r}.")
        url = urlsplit(iri_to_uri(path))
        scope: dict[str, Any] = {
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
            "extensions": dict(DENIAL_EXTENSION if extensions is None else extensions),
        }
        if spec_version:
            scope["spec_version"] = spec_version
        super().__init__(application, scope)
        self.response: HandshakeResponse | None = None
        self.response_headers: RawHeaders | None = None

    @property
    def denial(self) -> HandshakeResponse | None:
        """The denial; None before `connect`, and if the handshake was accepted."""
        return None if self.response is None or self.response.status_code == 101 else self.response

    async def connect(self, timeout: float = TIMEOUT) -> tuple[bool, str | int | None]:
        """Shake hands.

        Returns ``(True, <subprotocol or None>)``, ``(False, <status>)`` for a denial, or ``(False, <close
        code>)`` for an application that closed, as it must where the server offers no denials. The
        application of a denied handshake has ended then.

        Raises what the application raises, and `TimeoutError`, after which it is cancelled.
        """
        await self.send_input({"type": "websocket.connect"})
        message = await self.receive_output(timeout)
        headers: RawHeaders = list(message.get("headers") or ())
        if message["type"] == "websocket.accept":
            subprotocol = message.get("subprotocol")
            self.response_headers = headers
            self.response = HandshakeResponse(self.name, 101, headers, subprotocol=subprotocol)
            return True, subprotocol
        if message["type"] == "websocket.close":
            self.response = HandshakeResponse(self.name, 403, close=message)
            result = self.response.close_code
        elif message["type"] == "websocket.http.response.start":
            content = await self._receive_body(timeout)
            self.response = HandshakeResponse(self.name, message["status"], headers, content)
            result = self.response.status_code
        else:
            raise AssertionError(f"{self.name}: expected an answer to the handshake, found {message!r}.")
        await self.disconnect(1006, timeout)
        return False, result

    async def _receive_body(self, timeout: float) -> bytes:
        content = b""
        more = True
        while more:
            message = await self.receive_output(timeout)
            if message["type"] != "websocket.http.response.body":
                raise AssertionError(f"{self.name}: expected more of a denial's body, found {message!r}.")
            content += message.get("body", b"")
            more = message.get("more_body", False)
        return content

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a frame to the application. Raises `TypeError` for anything but one text, or bytes."""
        if isinstance(text_data, str) and bytes_data is None:
            await self.send_input({"type": "websocket.receive", "text": text_data})
        elif isinstance(bytes_data, bytes) and text_data is None:
            await self.send_input({"type": "websocket.receive", "bytes": bytes_data})
        else:
            raise TypeError(
                f"A frame is either text (str) or bytes, found text {text_data!r} and bytes {bytes_data!r}."
            )

    async def send_json_to(self, data: Any) -> None:
        """Send `data` as JSON, in a text frame."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = TIMEOUT) -> str | bytes:
        """The next frame's text or bytes. Raises `AssertionError` for a close."""
        return frame_of(await self.receive_output(timeout))

    async def receive_json_from(self, timeout: float = TIMEOUT) -> Any:
        """The next text frame, parsed as JSON. Raises `AssertionError` for anything else."""
        frame = await self.receive_from(timeout)
        if not isinstance(frame, str):
            raise AssertionError(f"Expected JSON in a text frame, found {frame!r}.")
        return json.loads(frame)

    async def disconnect(self, code: int = 1000, timeout: float = TIMEOUT) -> None:
        """Leave, and wait until the application has ended."""
        if not self.future.done():
            await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)

    async def abandon(self) -> None:
        """Drop the connection of a test that has failed: the application may end by itself first."""
        if self._future is not None and not self._future.done():
            self.input_queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            await asyncio.wait({self._future}, timeout=UNWINDING)
        await super().abandon()

    def unread_close(self) -> Message | None:
        """The first ``websocket.close`` among the messages that nobody has received."""
        while not self.output_queue.empty():
            message: Message = self.output_queue.get_nowait()
            if message["type"] == "websocket.close":
                return message
        return None


def frame_of(message: Message) -> str | bytes:
    """The text or bytes of a ``websocket.send``. Raises `AssertionError` for another message."""
    if message["type"] != "websocket.send":
        raise AssertionError(f"Expected a frame ('websocket.send') from the application, found {message!r}.")
    text, data = message.get("text"), message.get("bytes")
    if isinstance(text, str) and data is None:
        return text
    if isinstance(data, bytes) and text is None:
        return data
    raise AssertionError(f"A frame is either text or bytes, found {message!r}.")
