"""Django views, and plain middlewares to stand around them, in both styles that are in use.

Each does one thing: the first notes something on the request, the others add a header to the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.deprecation import MiddlewareMixin

from . import GUARDED, PERMISSION

if TYPE_CHECKING:
    from collections.abc import Callable

django.setup()

#: The names of the headers that four of the five add.
HEADERS = ("X-One", "X-Two", "X-Three", "X-Four")


def hello(request: HttpRequest) -> HttpResponse:
    """A view that does nothing."""
    return HttpResponse("hello")


async def hello_async(request: HttpRequest) -> HttpResponse:
    """A view that does nothing, as a coroutine function."""
    return HttpResponse("hello")


def guarded(request: HttpRequest) -> HttpResponse:
    """Django's own request that asks for the permission."""
    return HttpResponse("hello", status=200 if request.user.has_perm(PERMISSION) else 403)


urlpatterns = [path("sync/", hello), path("async/", hello_async), path(GUARDED.lstrip("/"), guarded)]


def note(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A plain middleware as Django's documentation has it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.seen = True
        return get_response(request)

    return middleware


def _adding(name: str) -> Any:
    def factory(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
        def middleware(request: HttpRequest) -> HttpResponse:
            response = get_response(request)
            response[name] = "yes"
            return response

        return middleware

    return factory


class Note(MiddlewareMixin):
    """A plain middleware as Django's own are written."""

    def process_request(self, request: HttpRequest) -> None:
        request.seen = True


class _Adds(MiddlewareMixin):
    name: str

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response[self.name] = "yes"
        return response


# The names that settings give.
add_one, add_two, add_three, add_four = map(_adding, HEADERS)
AddOne, AddTwo, AddThree, AddFour = (type("Adds", (_Adds,), {"name": name}) for name in HEADERS)


def wsgi() -> Any:
    """The site for WSGI servers."""
    return get_wsgi_application()


def asgi() -> Any:
    """The site for ASGI servers."""
    return get_asgi_application()
