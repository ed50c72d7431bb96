"""uvicorn as a live server, in a thread of the tests' own process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from ..concurrency import _in_pool
from ..db import managed_connections
from .live_server import PATIENCE, LiveServer, in_memory, site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from ..types import ASGIApp, Receive, Scope, Send

_NEED = "A live server on uvicorn needs it, and websockets: pip install 'uvicorn[standard]'."
#: Seconds that open sockets and requests have to end when the server stops.
_GRACE = 2


class UvicornServer(LiveServer):
    """A `LiveServer` on uvicorn. Any test database will do: in-memory SQLite is shared with it.

    Raises `ImproperlyConfigured` if uvicorn, or the library that it needs for WebSockets, is not installed.
    """

    @contextmanager
    def _serving(self) -> Iterator[None]:
        try:
            import uvicorn  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ImproperlyConfigured(f"{_NEED} Found no uvicorn.") from error
        shared = list(in_memory())
        application = site(self.application, serve_static=self.serve_static)
        querying = _QueryingTogether(application, shared) if shared else _Querying(application)
        config = uvicorn.Config(
            querying,
            loop="asyncio",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
        config.load()
        if config.ws_protocol_class is None:
            raise ImproperlyConfigured(f"{_NEED} Found no library for WebSockets.")
        with socket.create_server((self.host, 0)) as listener, _sharing(shared):
            self.port = listener.getsockname()[1]
            thread = _Thread(uvicorn.Server(config), querying, listener)
            thread.start()
            try:
                thread.wait_for_start()
                yield
            finally:
                thread.server.should_exit = True
                thread.join(PATIENCE)
            if thread.is_alive():
                raise RuntimeError(f"The live server on {self.url} did not stop within {PATIENCE:g} s.")
            if thread.error is not None:
                raise RuntimeError(f"The live server on {self.url} failed.") from thread.error


class _Thread(threading.Thread):
    """Runs a uvicorn; `error` is what ended it."""

    def __init__(self, server: Any, querying: _Querying, listener: socket.socket) -> None:
        super().__init__(name="wsdeny-live-server", daemon=True)
        self.server, self.querying, self.listener = server, querying, listener
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - uvicorn exits, and the main thread says so
            self.error = error

    async def _serve(self) -> None:
        async with self.querying:
            await self.server.serve([self.listener])

    def wait_for_start(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.server.started:
            if not self.is_alive():
                raise RuntimeError(
                    "uvicorn ended as it started; its log (logger uvicorn.error) says why."
                ) from self.error
            if time.monotonic() > deadline:
                raise RuntimeError(f"uvicorn did not start within {PATIENCE:g} s.")
            time.sleep(0.005)


class _Querying:
    """The site, each request and socket with a thread of its own for queries.

    Not the thread that they would share by default: the test itself may be waiting in that one, for this
    server's answer.
    """

    def __init__(self, application: ASGIApp) -> None:
        self.application = application

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
            return
        async with ThreadSensitiveContext():
            try:
                await self.application(scope, receive, send)
            finally:
                await sync_to_async(connections.close_all)()


class _QueryingTogether(_Querying):
    """The site, on connections that are `shared` with the test: all of it queries in one thread.

    Two threads that write to one SQLite connection get in the way of each other's transactions.
    """

    def __init__(self, application: ASGIApp, shared: list[BaseDatabaseWrapper]) -> None:
        super().__init__(application)
        self._shared = shared
        self._context = ThreadSensitiveContext()

    async def __aenter__(self) -> None:
        await self._context.__aenter__()  # type: ignore[no-untyped-call]
        await sync_to_async(self._take)()

    async def __aexit__(self, *exc_info: object) -> None:
        await sync_to_async(self._give_back)()
        await self._context.__aexit__(None, None, None)  # type: ignore[no-untyped-call]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        SyncToAsync.thread_sensitive_context.set(self._context)
        _in_pool.set(True)
        await self.application(scope, receive, send)

    def _take(self) -> None:
        for connection in self._shared:
            connections[connection.alias] = connection

    def _give_back(self) -> None:
        for connection in self._shared:
            del connections[connection.alias]


@contextmanager
def _sharing(shared: list[BaseDatabaseWrapper]) -> Iterator[None]:
    """Let another thread have these connections, one query at a time."""
    if shared:
        # They take turns from the first time on that the pool has borrowed the connections.
        borrowing = threading.Thread(target=_borrow_once)
        borrowing.start()
        borrowing.join()
    for connection in shared:
        connection.inc_thread_sharing()
    try:
        yield
    finally:
        for connection in shared:
            connection.dec_thread_sharing()


def _borrow_once() -> None:
    with managed_connections():
        pass
