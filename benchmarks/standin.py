"""The stand-in for a server: it hands an application what a server would, without any network.

It offers the extension for denials, and sends what browsers send.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from .answers import ACCEPTED, Wrong, answer_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Message = dict[str, Any]
    Application = Callable[..., Awaitable[None]]

_ENDS = frozenset({"websocket.close", "websocket.http.response.body"})
_BROWSER = (
    (b"host", b"127.0.0.1:8000"),
    (b"connection", b"Upgrade"),
    (b"pragma", b"no-cache"),
    (b"cache-control", b"no-cache"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"),
    (b"upgrade", b"websocket"),
    (b"origin", b"http://127.0.0.1:8000"),
    (b"sec-websocket-version", b"13"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-US,en;q=0.9"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits"),
)


def headers_of(cookie: str | None) -> list[tuple[bytes, bytes]]:
    """The raw headers of a browser with this ``Cookie`` header."""
    return [*_BROWSER, (b"cookie", cookie.encode())] if cookie else [*_BROWSER]


class Visit:
    """One handshake: its scope, and the `receive` and `send` of its connection.

    The client leaves once it is denied, and, unless it `stays`, once it is let in.
    """

    __slots__ = ("_ends", "_events", "_waiting", "scope", "sent")

    def __init__(self, path: str, cookie: str | None, *, stays: bool = False) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers_of(cookie),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        #: What the application has sent.
        self.sent: list[Message] = []
        self._ends = _ENDS if stays else _ENDS | {"websocket.accept"}
        self._events: deque[Message] = deque([{"type": "websocket.connect"}])
        self._waiting: asyncio.Future[None] | None = None

    async def receive(self) -> Message:
        """The application's ``receive``."""
        while not self._events:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._events.popleft()

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        self.sent.append(message)
        if message["type"] in self._ends and not message.get("more_body"):
            self.push({"type": "websocket.disconnect", "code": 1006})

    def push(self, event: Message) -> None:
        """Let the application receive `event`."""
        self._events.append(event)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def check(self, answer: str) -> None:
        """Raise `Wrong` unless this is what the application answered."""
        found = answer_of(self.sent)
        if found != answer:
            raise Wrong(f"{self.scope['path']}: expected {answer!r}, found {found!r}")


class Socket(Visit):
    """A socket that stays open; the application runs in a task of its own."""

    __slots__ = ("_answer", "_application", "_task")

    def __init__(self, application: Application, path: str, cookie: str | None) -> None:
        super().__init__(path, cookie, stays=True)
        self._application = application
        self._answer: asyncio.Future[Message] | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Shake hands; raises `Wrong` unless the application accepts."""
        self._answer = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        self.sent.append(await self._answer)
        self.check(ACCEPTED)

    async def echo(self, text: str) -> None:
        """One round trip; raises `Wrong` unless the very `text` comes back."""
        self._answer = asyncio.get_running_loop().create_future()
        self.push({"type": "websocket.receive", "text": text})
        message = await self._answer
        if message.get("text") != text:
            raise Wrong(f"{self.scope['path']}: expected the echo {text!r}, found {message!r}")

    async def close(self) -> None:
        """Leave, and wait until the application has returned."""
        self.push({"type": "websocket.disconnect", "code": 1000})
        if self._task is not None:
            await self._task

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    async def _run(self) -> None:
        try:
            await self._application(self.scope, self.receive, self.send)
        finally:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(Wrong(f"{self.scope['path']}: the application ended"))
