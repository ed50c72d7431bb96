"""What tests of views and of ASGI applications over HTTP share: hooks of one kind, applications, a server."""

import asyncio
from typing import Any

from channels_wsdeny import Hooks
from channels_wsdeny.decorators import require, with_hooks

from . import sockets
from .clients import GUARD, http_scope
from .policies import Check
from .threads import until

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT = {"type": "http.disconnect"}
HOST = [(b"host", b"testserver")]


def body(chunk: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """An application that is neither Django's nor Channels'."""
    await send(START)
    await send(body(b"secret"))


def made(kind: Any, function: Any, **options: Any) -> Hooks:
    """A registry with one hook."""
    hooks = Hooks()
    hooks.register(function, kind, **options)
    return hooks


def calling(function: Any, kind: str) -> Any:
    """A decorator by which a hook of this kind, or a policy, calls `function(request)` before the endpoint."""

    def call(request: Any) -> None:
        function(request)

    async def around(request: Any, call_next: Any) -> Any:
        function(request)
        return await call_next(request)

    if kind == "policy":
        return require(Check(lambda request: call(request) is None))
    return with_hooks(made(kind, around if kind == "around" else call))


class Server(sockets.Server):
    """Runs an application as a server does, and keeps what it sends."""

    def __init__(self, application: Any, *events: Any, **scope: Any) -> None:
        super().__init__(*events or (REQUEST,))
        self.task = asyncio.ensure_future(application(http_scope("/", **scope), self.receive, self.send))

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def until(self, count: int) -> None:
        """Wait until so many messages were sent."""
        await until(lambda: len(self.sent) >= count)

    async def end(self) -> BaseException | None:
        """Wait for the application, and see that it leaves no task; returns what it raised."""
        done, _ = await asyncio.wait({self.task}, timeout=GUARD)
        assert done, "The application does not end."
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return None if self.task.cancelled() else self.task.exception()
