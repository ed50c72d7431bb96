"""ASGI applications for the servers under test. They need no Django."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from channels_wsdeny.daphne.protocol import WebSocketProtocol

if TYPE_CHECKING:
    from channels_wsdeny.types import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


async def scripted(scope: Scope, receive: Receive, send: Send) -> None:
    """Follow the script in a handshake's query: see `Script`. Answer HTTP with what the server holds."""
    if scope["type"] == "http":
        await _http(scope, receive, send)
    else:
        await Script(scope, receive, send).run()


class Script:
    """A list of steps: a dict is a message to send; a string, or a pair, is one of the methods."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send

    async def run(self) -> None:
        for step in ast.literal_eval(unquote(self.scope["query_string"].decode())):
            if isinstance(step, dict):
                await self.say(step)
            elif isinstance(step, str):
                await getattr(self, step)()
            else:
                name, argument = step
                await getattr(self, name)(argument)
        self.log("returned")

    async def say(self, message: Message) -> None:
        try:
            await self.send(message)
        except Exception as error:
            self.log(f"got {type(error).__name__}: {error}")
            raise

    async def hear(self) -> None:
        self.log(f"heard {await self.receive()}")

    async def dare(self, message: Message) -> None:
        """Send a message, and go on if it is refused."""
        try:
            await self.send(message)
        except (TypeError, ValueError) as error:
            self.log(f"got {type(error).__name__}: {error}")

    async def body(self, size: int) -> None:
        await self.send({"type": "websocket.http.response.body", "body": b"x" * size})

    async def show(self, key: str) -> None:
        """Deny with an entry of the scope."""
        await self.send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        body = repr(self.scope.get(key)).encode()
        await self.send({"type": "websocket.http.response.body", "body": body})

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def crash(self) -> None:
        raise RuntimeError(f"{self.scope['path']} crashed")

    async def give_up(self) -> None:
        raise asyncio.CancelledError

    def log(self, text: str) -> None:
        logger.info("%s %s", self.scope["path"], text)


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    # Daphne's `send` is a partial of a method of the server's.
    server: Any = send.func.__self__  # type: ignore[attr-defined]
    gc.collect()
    answer = {
        "connections": [p.request.path for p in server.connections if isinstance(p, WebSocketProtocol)],
        # Not isinstance: that would wake Django's lazy objects.
        "alive": [o.request.path for o in gc.get_objects() if type(o) is WebSocketProtocol],
        "method": scope["method"],
        "version": scope["http_version"],
        "received": body.decode(),
    }
    headers = [(b"content-type", b"application/json"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def not_async(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that fails where Daphne makes its coroutine."""
    raise RuntimeError(f"{scope['path']} is not async")
