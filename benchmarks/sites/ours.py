"""The site as this package has it."""

from __future__ import annotations

import time
from typing import Any

import django

django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

import channels_wsdeny  # noqa: E402
from channels_wsdeny import DenyMiddlewareStack  # noqa: E402
from channels_wsdeny.authentication import BearerAuthentication, TicketAuthentication  # noqa: E402
from channels_wsdeny.decorators import permission_required, require  # noqa: E402
from channels_wsdeny.policies import AllowAny, DenyAll, Policy, Throttle  # noqa: E402

from . import GUARDED, PERMISSION  # noqa: E402


class Echo(AsyncWebsocketConsumer):
    """Echoes."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


@permission_required(PERMISSION)
class Guarded(Echo):
    """Echoes to who has the permission."""


def site(routes: int = 1, *, consumer: type[Echo] = Guarded, **options: Any) -> DenyMiddlewareStack:
    """The site with the guarded address behind so many others; `options` are the stack's."""
    others = [path(f"other-{number}/", Guarded.as_asgi()) for number in range(1, routes)]
    urls = URLRouter([*others, path(GUARDED.lstrip("/"), consumer.as_asgi())])
    return DenyMiddlewareStack(ProtocolTypeRouter({"websocket": urls}), **options)


def site_for(credential: str) -> DenyMiddlewareStack:
    """The site with the authentication classes for ``"session"``, ``"token"`` or ``"ticket"``, or with a throttle."""
    if credential == "token":
        return site(authentication=[BearerAuthentication(_user_of)])
    if credential == "ticket":
        return site(authentication=[TicketAuthentication()])
    if credential == "throttle":
        throttled = require(Throttle("1000000/s", key="ip"))(type("Throttled", (Guarded,), {}))
        return site(consumer=throttled)
    return site()


def _user_of(token: str) -> Any:
    return get_user_model().objects.filter(username=token).first()


def site_with_leaves(leaves: int) -> DenyMiddlewareStack:
    """A site whose policy has so many leaves, of which the last one denies."""
    policy = DenyAll()
    for _ in range(leaves - 1):
        policy = AllowAny() & policy
    return site(consumer=require(policy)(type("Closed", (Echo,), {})))


def site_with_hooks(hooks: int) -> DenyMiddlewareStack:
    """A site with so many hooks that touch request and response only, one half on each way."""
    registry = channels_wsdeny.Hooks()
    for number in range(hooks):
        if number % 2:
            registry.on_response(_note_response, blocking=False)
        else:
            registry.on_request(_note_request, blocking=False)
    return site(hooks=registry)


class Slow(Policy):
    """Blocks its thread for a while, and allows."""

    def check(self, request: Any) -> bool:
        time.sleep(0.05)
        return True


def slow() -> DenyMiddlewareStack:
    """The site with a policy that blocks, for everybody."""
    return site(consumer=require(Slow())(type("Behind", (Echo,), {})))


def hooked() -> DenyMiddlewareStack:
    """The site with a hook that answers everybody."""
    registry = channels_wsdeny.Hooks()
    registry.on_request(lambda request: HttpResponse("denied\n", status=403), blocking=False)
    return site(hooks=registry)


def _note_request(request: Any) -> None:
    request.ctx.seen = True


def _note_response(request: Any, response: Any) -> None:
    response["X-Seen"] = "yes"


application = site()
