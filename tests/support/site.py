"""A Django site of one test's own behind the mirror, asked through every transport of Django."""

import asyncio
from functools import partial
from http.cookies import SimpleCookie
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.http import HttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.urls import path
from django.views import View

from channels_wsdeny import Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public

from .clients import Answer
from .transports import Asgi, Stack, Transport

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
#: What a site has around the mirror, and within it.
OUTSIDE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
INSIDE = ["django.middleware.clickjacking.XFrameOptionsMiddleware"]
#: Where Django's cache of a whole site has its middleware: around all, and inside all.
SITE_CACHE = {
    "outside": ["django.middleware.cache.UpdateCacheMiddleware", *OUTSIDE],
    "inside": ["django.middleware.cache.FetchFromCacheMiddleware"],
}


class Page:
    """An answer as tests of views look at it: `status`, `headers` (by lower-case name), `cookies`, `body`."""

    def __init__(self, answer: Answer) -> None:
        self.status, self.body = answer.status, answer.body
        self.headers = {name.lower(): value for name, value in answer.headers if name.lower() != "set-cookie"}
        self.cookies: SimpleCookie = SimpleCookie()
        for cookie in answer.all("set-cookie"):
            self.cookies.load(cookie)
        self._answer = answer

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body!r}>"

    @property
    def problem(self) -> dict[str, Any]:
        return self._answer.problem

    @property
    def code(self) -> str:
        return self.problem["code"]


class Site:
    """A site that a test puts together, and asks; see the fixture `site` of the tests that use it."""

    #: The options of the stack, on the transports that have one.
    stack: ClassVar[dict[str, Any]] = {}

    def __init__(self, settings: Any, transport: Transport) -> None:
        self._settings, self._transport = settings, transport
        self._cookie: str | None = None
        Site.stack = {}

    @property
    def has_stack(self) -> bool:
        return isinstance(self._transport, Stack)

    @property
    def is_async(self) -> bool:
        return isinstance(self._transport, Asgi | Stack)

    def serve(
        self,
        *urls: Any,
        hooks: Any = None,
        outside: Any = OUTSIDE,
        mirror: Any = (MIRROR,),
        inside: Any = INSIDE,
        handlers: dict[str, Any] | None = None,
        **wsdeny: Any,
    ) -> Self:
        """Serve `urls` (a view alone at ``/``); `hooks` are given to the stack where there is one."""
        urls = tuple(url if hasattr(url, "pattern") else path("", url) for url in urls)
        urlconf = ModuleType("urlconf")
        vars(urlconf).update(urlpatterns=list(urls), **(handlers or {}))
        around, within = self._transport.around, self._transport.within
        self._settings.ROOT_URLCONF = urlconf
        self._settings.MIDDLEWARE = [*outside, *around, *mirror, *within, *inside]
        Site.stack = {"hooks": hooks} if self.has_stack and hooks is not None else {}
        if hooks is not None and not self.has_stack:
            wsdeny["HOOKS"] = [hooks]
        self._settings.CHANNELS_WSDENY = wsdeny
        return self

    def log_in(self, user: Any) -> Self:
        """Send the session of `user` from now on."""
        session = import_module(settings.SESSION_ENGINE).SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        self._cookie = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
        return self

    def ask(self, url: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> Page:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._cookie is not None:
            named["Cookie"] = "; ".join(filter(None, [self._cookie, named.get("Cookie")]))
        if isinstance(self._transport, Stack):
            self._transport.options = Site.stack
        return Page(self._transport.ask(method, url, body, named))

    def browse(self, url: str = "/", **kwargs: str) -> Page:
        return self.ask(url, Accept=BROWSER, **kwargs)

    def post(self, body: bytes, url: str = "/", **headers: str) -> Page:
        return self.ask(url, "POST", body, **headers)


def hello(request, name="world"):
    """Greets."""
    return HttpResponse(f"hello {name}")


async def hello_async(request, name="world"):
    await asyncio.sleep(0)
    return HttpResponse(f"hello {name}")


class Hello(View):
    greeting = "hello"

    def get(self, request, name="world"):
        return HttpResponse(f"{self.greeting} {name}")


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


def page_of(status):
    """An error view of the site's own."""
    return lambda request, exception=None: HttpResponse(f"page {status}", status=status)


def templates(**pages):
    """``TEMPLATES`` of these pages alone, by the names of their files without the ending."""
    loaders = [("django.template.loaders.locmem.Loader", {f"{name}.html": text for name, text in pages.items()})]
    return [{"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": loaders}}]


async def go_on(request, call_next):
    """An around hook that does nothing."""
    return await call_next(request)


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
