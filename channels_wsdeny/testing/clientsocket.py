"""The client's end of an accepted WebSocket."""
# ruff: noqa: ASYNC109 - as those of the communicator

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .apprunner import ApplicationEnded
from .communicator import frame_of
from .responses import Closed

if TYPE_CHECKING:
    from typing import Self

    from ..types import Message, Scope
    from .communicator import WebsocketCommunicator
    from .responses import HandshakeResponse


class ClientSocket:
    """What ``async with client.connect(…) as socket`` gives.

    `response` is the accept: a `HandshakeResponse` of status 101, with its headers and cookies. `close_code`
    and `close_reason` are set once the socket is closed. Iterating gives text and bytes until then.

    Whatever waits for the application raises what the application raises, and `TimeoutError`, after which the
    application is cancelled.
    """

    def __init__(
        self, communicator: WebsocketCommunicator, response: HandshakeResponse, timeout: float
    ) -> None:
        self.communicator = communicator
        self.response = response
        self.timeout = timeout
        self.close_code: int | None = None
        self.close_reason = ""

    def __repr__(self) -> str:
        state = "open" if self.close_code is None else f"closed with {self.close_code}"
        return f"<ClientSocket of {self.response.path}, {state}>"

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the application chose."""
        return self.response.subprotocol

    @property
    def scope(self) -> Scope:
        """The scope that the application was called with."""
        scope: Scope = self.communicator.scope
        return scope

    async def send_text(self, text: str) -> None:
        """Send a text frame. This and its likes raise `Closed` on a closed socket."""
        self._must_be_open()
        await self.communicator.send_to(text_data=text)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        self._must_be_open()
        await self.communicator.send_to(bytes_data=data)

    async def send_json(self, data: Any) -> None:
        """Send `data` as JSON, in a text frame."""
        await self.send_text(json.dumps(data))

    async def receive(self, timeout: float | None = None) -> str | bytes:
        """The next frame, within `timeout` seconds (None: the client's). Raises `Closed` if there is none."""
        self._must_be_open()
        try:
            message = await self.communicator.receive_output(self.timeout if timeout is None else timeout)
        except ApplicationEnded:
            self._note_close({"code": 1006})
            self._must_be_open()
            raise
        if message["type"] == "websocket.close":
            self._note_close(message)
            await self.communicator.disconnect(self.close_code or 1000, self.timeout)
            self._must_be_open()
        return frame_of(message)

    async def receive_text(self, timeout: float | None = None) -> str:
        """The next frame, a text. Raises `AssertionError` if it is binary."""
        frame = await self.receive(timeout)
        if not isinstance(frame, str):
            raise AssertionError(f"Expected a text frame, found {frame!r}.")
        return frame

    async def receive_bytes(self, timeout: float | None = None) -> bytes:
        """The next frame, in bytes. Raises `AssertionError` if it is text."""
        frame = await self.receive(timeout)
        if not isinstance(frame, bytes):
            raise AssertionError(f"Expected a binary frame, found {frame!r}.")
        return frame

    async def receive_json(self, timeout: float | None = None) -> Any:
        """The next frame, text or binary, parsed as JSON. Raises `ValueError` if it is none."""
        return json.loads(await self.receive(timeout))

    async def receive_nothing(self, timeout: float = 0.1) -> bool:
        """Whether the application sends nothing for `timeout` seconds."""
        return await self.communicator.receive_nothing(timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except Closed:
            raise StopAsyncIteration from None

    async def close(self, code: int = 1000) -> None:
        """Close the socket, and wait until the application has ended. A second time it does nothing."""
        if self.close_code is not None:
            return
        try:
            await self.communicator.disconnect(code, self.timeout)
        finally:
            self._note_close(self.communicator.unread_close() or {"code": code})

    async def abandon(self) -> None:
        """Close the socket when a test has failed: nothing that the application raises hides the failure."""
        await self.communicator.abandon()

    def _note_close(self, message: Message) -> None:
        self.close_code = message.get("code", 1000)
        self.close_reason = message.get("reason") or ""

    def _must_be_open(self) -> None:
        if self.close_code is not None:
            raise Closed(self.close_code, self.close_reason, path=self.response.path)
