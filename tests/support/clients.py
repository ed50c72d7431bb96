"""Clients for tests in the process: what goes into an ASGI application, and what comes out."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from asgiref.testing import ApplicationCommunicator

EXTENSION = {"websocket.http.response": {}}
#: Seconds after which something that should happen is taken not to. No test measures time.
GUARD = 30


@dataclass
class Answer:
    """What was answered to a handshake or a request."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    close: tuple[int, str] | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The value of a header that must not come twice."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def problem(self) -> dict[str, Any]:
        assert self.header("content-type") == "application/problem+json", self
        return json.loads(self.body)


def websocket_scope(path: str, *, extensions: Any = EXTENSION, **scope: Any) -> dict[str, Any]:
    usual = {"subprotocols": [], "extensions": extensions}
    return _scope("websocket", path, {**usual, **scope})


def http_scope(path: str, method: str = "GET", **scope: Any) -> dict[str, Any]:
    return _scope("http", path, {"method": method, "http_version": "1.1", **scope})


def _scope(kind: str, path: str, scope: dict[str, Any]) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": [],
        "client": ["127.0.0.1", 50000],
        "server": ["127.0.0.1", 80],
    } | scope


def cookie_header(**cookies: str) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", "; ".join(f"{k}={v}" for k, v in cookies.items()).encode())]


async def output_of(communicator: ApplicationCommunicator) -> dict[str, Any]:
    """The next message of an application; if it raises instead, that is raised at once."""
    message = asyncio.create_task(communicator.output_queue.get())
    either = {message, communicator.future}
    await asyncio.wait(either, timeout=GUARD, return_when=asyncio.FIRST_COMPLETED)
    if not message.done():
        message.cancel()
        assert communicator.future.done(), "The application sends nothing."
        raise communicator.future.exception() or AssertionError("The application ended without a message.")
    return message.result()


async def end_of(communicator: ApplicationCommunicator) -> None:
    """Wait for an application to end by itself: its communicator cancels one that hangs, without an error."""
    done, _ = await asyncio.wait({communicator.future}, timeout=GUARD)
    assert done, "The application goes on and on."
    await communicator.wait()


class Handshake:
    """One handshake against an ASGI application."""

    def __init__(self, application: Any, scope: dict[str, Any]) -> None:
        self.communicator = ApplicationCommunicator(application, scope)

    async def connect(self) -> Answer:
        """Status 101 if accepted, 0 if closed without a status."""
        await self.communicator.send_input({"type": "websocket.connect"})
        messages = [await self.next()]
        kind = messages[0]["type"]
        if kind == "websocket.http.response.start":
            messages.append(await self.next())
            await self.end()
        elif kind == "websocket.close":
            await self.communicator.send_input({"type": "websocket.disconnect", "code": 1006})
            await self.end()
        return answer_of(messages)

    async def next(self) -> dict[str, Any]:
        return await output_of(self.communicator)

    async def send(self, text: str) -> None:
        await self.communicator.send_input({"type": "websocket.receive", "text": text})

    async def leave(self) -> None:
        await self.communicator.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.end()

    async def end(self) -> None:
        await end_of(self.communicator)


def answer_of(messages: list[dict[str, Any]]) -> Answer:
    first = messages[0]
    headers = [(k.decode(), v.decode("latin1")) for k, v in first.get("headers") or ()]
    if first["type"] == "websocket.accept":
        return Answer(101, headers, messages=messages)
    if first["type"] == "websocket.close":
        return Answer(0, close=(first["code"], first.get("reason", "")), messages=messages)
    body = b"".join(message.get("body", b"") for message in messages[1:])
    return Answer(first["status"], headers, body, messages=messages)


@asynccontextmanager
async def opened(application: Any, path: str = "/", **scope: Any) -> AsyncIterator[Handshake]:
    """An accepted websocket, which is left at the end of the context."""
    handshake = Handshake(application, websocket_scope(path, **scope))
    assert (await handshake.connect()).status == 101
    yield handshake
    await handshake.leave()


async def knock(application: Any, path: str, **scope: Any) -> Answer:
    """Ask for a websocket; an accepted one is left at once."""
    handshake = Handshake(application, websocket_scope(path, **scope))
    answer = await handshake.connect()
    if answer.status == 101:
        await handshake.leave()
    return answer


async def fetch(application: Any, path: str, method: str = "GET", body: bytes = b"", **scope: Any) -> Answer:
    """Ask an ASGI application over HTTP."""
    communicator = ApplicationCommunicator(application, http_scope(path, method, **scope))
    await communicator.send_input({"type": "http.request", "body": body})
    messages = [await output_of(communicator)]
    while len(messages) == 1 or messages[-1].get("more_body"):
        messages.append(await output_of(communicator))
    await end_of(communicator)
    return answer_of(messages)
