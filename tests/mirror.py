"""A Django site of one test's own behind the mirror, asked through every way that Django can run it."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from http.cookies import SimpleCookie
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from asgiref.sync import (
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
)
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.core.asgi import get_asgi_application
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.views import View

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public
from tests.clients import http_scope

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
#: What a site has around the mirror, and within it.
OUTSIDE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
INSIDE = ["django.middleware.clickjacking.XFrameOptionsMiddleware"]
#: Seconds after which a request is taken to hang.
GUARD = 30


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


class SyncOnly(Middleware):
    async_capable = False


class AsyncOnly(Middleware):
    sync_capable = False


SYNC_ONLY, ASYNC_ONLY = f"{__name__}.SyncOnly", f"{__name__}.AsyncOnly"


class Answer:
    """What came back: `status`, `headers` (by lower-case name), `cookies`, `body`."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.body = body
        self.headers = {name.lower(): value for name, value in headers if name.lower() != "set-cookie"}
        self.cookies: SimpleCookie = SimpleCookie()
        for name, value in headers:
            if name.lower() == "set-cookie":
                self.cookies.load(value)

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body!r}>"

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.problem["code"]


class Door:
    """One way into Django. It is made for each request: handlers read the settings once."""

    around: tuple[str, ...] = ()
    within: tuple[str, ...] = ()

    def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        raise NotImplementedError


class Wsgi(Door):
    def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        client = Client(raise_request_exception=False)
        client.cookies.load(headers.pop("Cookie", ""))
        content_type = headers.pop("Content-Type", "application/octet-stream")
        response = client.generic(method, url, body, content_type, headers=headers)
        return _answer(response, b"".join(response) if response.streaming else response.content)


class AsyncInside(Wsgi):
    """A middleware further in is asynchronous, and so Django runs the mirror asynchronously under WSGI."""

    within = (ASYNC_ONLY,)


class Asgi(Door):
    def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        client = AsyncClient(raise_request_exception=False)
        client.cookies.load(headers.pop("Cookie", ""))
        content_type = headers.pop("Content-Type", "application/octet-stream")

        async def ask() -> Answer:
            async with asyncio.timeout(GUARD):
                response = await client.generic(method, url, body, content_type, headers=headers)
                if not response.streaming:
                    return _answer(response, response.content)
                if response.is_async:
                    return _answer(response, b"".join([chunk async for chunk in response]))
                return _answer(response, b"".join(response))

        return async_to_sync(ask)()


class SyncInside(Asgi):
    """A middleware further in is synchronous, and so Django runs the mirror synchronously too."""

    within = (SYNC_ONLY,)


class SyncAround(Asgi):
    around = (SYNC_ONLY,)


class Stack(Door):
    """Through a `DenyMiddlewareStack` in front of Django's handler, as a server calls it."""

    def application(self) -> Any:
        return get_asgi_application()

    def ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        http = self.application()
        stack = DenyMiddlewareStack(ProtocolTypeRouter({"http": http}), **Site.stack)
        is_sized = body and "Transfer-Encoding" not in headers
        given = {"Content-Length": str(len(body)), **headers} if is_sized else headers
        raw = [(name.lower().encode(), value.encode("latin1")) for name, value in given.items()]
        scope = http_scope(url, method, headers=[(b"host", b"testserver"), *raw])

        async def ask() -> Answer:
            received: asyncio.Queue[Any] = asyncio.Queue()
            received.put_nowait({"type": "http.request", "body": body})
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            async with asyncio.timeout(GUARD), ThreadSensitiveContext() as context:
                await stack(scope, received.get, send)
                await _close_connections_of(context)
            start, *rest = sent
            pairs = [(name.decode(), value.decode("latin1")) for name, value in start["headers"]]
            return Answer(start["status"], pairs, b"".join(message.get("body", b"") for message in rest))

        return async_to_sync(ask)()


async def _close_connections_of(context: ThreadSensitiveContext) -> None:
    """Close those of the thread that Django has had for the request; in memory, it leaves them open."""
    executor = SyncToAsync.context_to_thread_executor.get(context)
    if executor is not None:
        await asyncio.get_running_loop().run_in_executor(executor, _close_connections)


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        BaseDatabaseWrapper.close(connection)


class Opaque(Stack):
    """As `Stack`, behind a wrapper that the look-ahead does not know."""

    def application(self) -> Any:
        return _Wrapper(super().application())


class _Wrapper:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def _answer(response: Any, body: bytes) -> Answer:
    cookies = [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]
    return Answer(response.status_code, [*response.items(), *cookies], body)


DOORS = {
    "wsgi": Wsgi,
    "async-inside": AsyncInside,
    "asgi": Asgi,
    "sync-inside": SyncInside,
    "sync-around": SyncAround,
    "stack": Stack,
    "opaque": Opaque,
}


class Site:
    """A site that a test puts together, and asks; see the fixture `site` of the tests that use it."""

    #: What the stack is given, by the doors that have one.
    stack: ClassVar[dict[str, Any]] = {}

    def __init__(self, settings: Any, door: Door) -> None:
        self._settings, self._door = settings, door
        self._cookie: str | None = None
        Site.stack = {}

    @property
    def has_stack(self) -> bool:
        return isinstance(self._door, Stack)

    @property
    def is_opaque(self) -> bool:
        return isinstance(self._door, Opaque)

    @property
    def is_async(self) -> bool:
        return not isinstance(self._door, Wsgi)

    def serve(
        self,
        *urls: Any,
        hooks: Any = None,
        outside: Any = OUTSIDE,
        mirror: Any = (MIRROR,),
        inside: Any = INSIDE,
        handlers: dict[str, Any] | None = None,
        **wsdeny: Any,
    ) -> Site:
        """Serve `urls` (a view alone at ``/``); `hooks` are given to the stack where there is one."""
        urls = tuple(url if hasattr(url, "pattern") else path("", url) for url in urls)
        urlconf = ModuleType("urlconf")
        vars(urlconf).update(urlpatterns=list(urls), **(handlers or {}))
        self._settings.ROOT_URLCONF = urlconf
        self._settings.MIDDLEWARE = [*outside, *self._door.around, *mirror, *self._door.within, *inside]
        if hooks is not None:
            if self.has_stack:
                Site.stack = {"hooks": hooks}
            else:
                wsdeny["HOOKS"] = [hooks]
        self._settings.CHANNELS_WSDENY = wsdeny
        return self

    def log_in(self, user: Any) -> Site:
        """Send the session of `user` from now on."""
        session = import_module(settings.SESSION_ENGINE).SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        self._cookie = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
        return self

    def log_out(self) -> Site:
        self._cookie = None
        return self

    def ask(self, url: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._cookie is not None:
            named["Cookie"] = "; ".join(filter(None, [self._cookie, named.get("Cookie")]))
        return self._door.ask(method, url, body, named)

    def browse(self, url: str = "/", **kwargs: str) -> Answer:
        return self.ask(url, Accept=BROWSER, **kwargs)

    def post(self, body: bytes, url: str = "/", **headers: str) -> Answer:
        return self.ask(url, "POST", body, **headers)


# Views and hooks for any test.


def hello(request, name="world"):
    return HttpResponse(f"hello {name}")


async def hello_async(request, name="world"):
    await asyncio.sleep(0)
    return HttpResponse(f"hello {name}")


class Hello(View):
    def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")


class HelloAsync(View):
    async def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")


class Callable:
    def __call__(self, request, name="world"):
        return HttpResponse(f"hello {name}")


VIEWS = {
    "function": hello,
    "coroutine": hello_async,
    "class": Hello.as_view(),
    "async-class": HelloAsync.as_view(),
    "callable": Callable(),
    "partial": partial(hello),
    "guarded": public(hello),
    "guarded-async": public(hello_async),
}


def page(text, **context):
    return SimpleTemplateResponse(engines["django"].from_string(text), context)


def tell(name, what):
    """A hook that puts what `what(request, response)` returns into a header."""

    def hook(request, response):
        response[name] = str(what(request, response))

    return hook


def noting(notes, name):
    """Hooks of all kinds that note that they ran."""
    hooks = Hooks()
    hooks.on_request(lambda request: notes.append(f"{name} request"))
    hooks.on_route(lambda request: notes.append(f"{name} route"))
    hooks.on_response(lambda request, response: notes.append(f"{name} response"))

    @hooks.around
    async def around(request, call_next):
        notes.append(f"{name} in")
        try:
            return await call_next(request)
        finally:
            notes.append(f"{name} out")

    return hooks
