"""What the middlewares of `benchmarks.sites.views` do, as hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channels_wsdeny import Hooks

from .views import HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

hooks = Hooks()


@hooks.on_request(blocking=False)
def note(request: HttpRequest) -> None:
    """Note something on the request."""
    request.seen = True


def _adding(name: str) -> Callable[[HttpRequest, HttpResponse], None]:
    def add(request: HttpRequest, response: HttpResponse) -> None:
        response[name] = "yes"

    return add


for header in HEADERS:
    hooks.on_response(_adding(header), blocking=False)
