"""The table of transports: every way in which a request comes to an endpoint in this process.

`TRANSPORTS` are those of the table of cases, `DJANGO` the ways in which Django runs a site's views. A
transport is made for each request, as Django's handlers read the settings once.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, iscoroutinefunction, markcoroutinefunction
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import AsyncClient, Client
from django.utils.deprecation import MiddlewareMixin

from channels_wsdeny import DenyMiddlewareStack

from . import case_site
from .clients import GUARD, Answer, fetch, http_scope, knock
from .sockets import Server
from .wrappers import AppWrapper as Wrapper


class Middleware:
    """A middleware that Django runs either way; `come` may answer, `go` may answer otherwise."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._acall(request)
        return self.come(request) or self.go(request, self.get_response(request))

    async def _acall(self, request: Any) -> Any:
        return self.come(request) or self.go(request, await self.get_response(request))

    def come(self, request: Any) -> Any:
        return None

    def go(self, request: Any, response: Any) -> Any:
        return response


def middleware_with(**methods: Any) -> type[Middleware]:
    """A class of middleware with these methods."""
    return type("Own", (Middleware,), methods)


class Repeat(Middleware):
    """Asks again, as middleware for deadlocks of a database does."""

    def is_wanted(self, response: Any) -> bool:
        return True

    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._acall(request)
        response = self.get_response(request)
        return self.get_response(request) if self.is_wanted(response) else response

    async def _acall(self, request: Any) -> Any:
        response = await self.get_response(request)
        return await self.get_response(request) if self.is_wanted(response) else response


class SyncOnly(Middleware):
    async_capable = False


class AsyncOnly(Middleware):
    sync_capable = False


class Tenancy(MiddlewareMixin):
    """Sets an attribute on the connection, as packages for tenants do, but for a stranger."""

    def process_request(self, request: Any) -> None:
        if "x-stranger" not in request.headers:
            connections["default"].tenant = request.headers.get("x-tenant", "blue")


class Transport:
    """One way to an endpoint, with the middleware that a site has around the mirror and within it."""

    around: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    enforces_csrf = False

    def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        raise NotImplementedError


class Wsgi(Transport):
    def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        client = Client(raise_request_exception=False, enforce_csrf_checks=self.enforces_csrf)
        response = _request(client, method, url, body, headers)
        return _answer(response, b"".join(response) if response.streaming else response.content)


class AsyncInside(Wsgi):
    """A middleware within the mirror is asynchronous, and so Django runs the mirror so under WSGI."""

    within = (f"{__name__}.AsyncOnly",)


class Asgi(Transport):
    @async_to_sync
    async def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        client = AsyncClient(raise_request_exception=False, enforce_csrf_checks=self.enforces_csrf)
        async with asyncio.timeout(GUARD):
            response = await _request(client, method, url, body, headers)
            if not response.streaming:
                return _answer(response, response.content)
            if response.is_async:
                return _answer(response, b"".join([chunk async for chunk in response]))
            return _answer(response, b"".join(response))


class SyncInside(Asgi):
    """A middleware within the mirror is synchronous, and so Django runs the mirror so under ASGI."""

    within = (f"{__name__}.SyncOnly",)


class SyncAround(Asgi):
    around = (f"{__name__}.SyncOnly",)


class Stack(Transport):
    """Through a `DenyMiddlewareStack` in front of Django's handler, as a server calls it."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def application(self) -> Any:
        return get_asgi_application()

    def site(self) -> Any:
        return DenyMiddlewareStack(ProtocolTypeRouter({"http": self.application()}), **self.options)

    @async_to_sync
    async def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        is_sized = body and "Transfer-Encoding" not in headers
        given = {"Host": "testserver", **({"Content-Length": str(len(body))} if is_sized else {}), **headers}

        server = Server({"type": "http.request", "body": body})
        async with ThreadSensitiveContext() as context:
            answer = await server.run_scope(self.site(), http_scope(url, method, headers=_raw(given)))
            # In memory, Django leaves the connections of the request's thread open.
            if executor := SyncToAsync.context_to_thread_executor.get(context):
                await asyncio.get_running_loop().run_in_executor(executor, _close_connections)
        return answer


class Opaque(Stack):
    """As `Stack`, but Django's handler is in a wrapper of the site's own, which is not looked through."""

    def application(self) -> Any:
        return Wrapper(super().application())


class Served(Stack):
    """As `Stack`, but there is none."""

    def site(self) -> Any:
        return self.application()


class Endpoint(Transport):
    """To a consumer of the site of cases, by `ask(application, url, headers=…)`."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        return async_to_sync(self._ask)(case_site.application, url, headers=_raw(headers))


def _request(client: Any, method: str, url: str, body: bytes, headers: dict[str, str]) -> Any:
    others = dict(headers)
    client.cookies.load(others.pop("Cookie", ""))
    content_type = others.pop("Content-Type", "application/octet-stream")
    return client.generic(method, url, body, content_type, headers=others)


def _answer(response: Any, body: bytes) -> Answer:
    cookies = [("set-cookie", morsel.OutputString()) for morsel in response.cookies.values()]
    return Answer(response.status_code, [*response.items(), *cookies], body)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin1")) for name, value in headers.items()]


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        BaseDatabaseWrapper.close(connection)


DJANGO: dict[str, Callable[[], Transport]] = {
    "wsgi": Wsgi,
    "async-inside": AsyncInside,
    "asgi": Asgi,
    "sync-inside": SyncInside,
    "sync-around": SyncAround,
    "stack": Stack,
    "opaque": Opaque,
}
#: The prefix of the case's endpoint, the status of a request that passes, and the transport.
TRANSPORTS: dict[str, tuple[str, int, Callable[[], Transport]]] = {
    "websocket": ("/ws", 101, partial(Endpoint, knock)),
    "http-consumer": ("/http", 200, partial(Endpoint, fetch)),
    "view-wsgi": ("/sync", 200, Wsgi),
    "async-view-wsgi": ("/async", 200, Wsgi),
    "view-asgi": ("/sync", 200, Asgi),
    "async-view-asgi": ("/async", 200, Asgi),
    "view-stack": ("/sync", 200, Stack),
    "async-view-stack": ("/async", 200, Stack),
}
