"""A site as users of type checkers write it; it is checked strictly, not run."""

from __future__ import annotations

from typing import Any, assert_type

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.http import HttpRequest as DjangoHttpRequest
from django.http import HttpResponse
from django.urls import path
from rest_framework.authentication import TokenAuthentication  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
from rest_framework.permissions import IsAuthenticated as Authenticated  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import (
    Authentication,
    BearerAuthentication,
    SessionAuthentication,
    SubprotocolToken,
    TicketAuthentication,
    issue_ticket,
)
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import permission_required, public, require, with_hooks
from channels_wsdeny.http.context import RequestContext
from channels_wsdeny.policies import AllowedOrigin, IsStaff, MaxConnections, Policy, Throttle
from channels_wsdeny.types import HttpRequest, context_of

hooks = Hooks()


@hooks.on_request
def number(request: HttpRequest) -> None:
    request.ctx.number = 1
    assert_type(request.wsdeny, RequestContext)


@hooks.on_request
def plain(request: DjangoHttpRequest) -> None:
    assert_type(context_of(request), RequestContext)


def room_of(request: HttpRequest) -> str:
    return str(request.ctx.number)


class FromOffice(Policy):
    code = "not_from_here"

    def check(self, request: HttpRequest) -> bool | Deny:
        return request.ctx.number == 1 or request.auth == "key" or Deny(403)


class DeviceAuthentication(Authentication):
    def authenticate(self, request: DjangoHttpRequest) -> tuple[object, str] | None:
        return None


def user_of(token: str) -> User | None:
    return User.objects.filter(username=token).first()


async def key_of(token: str) -> tuple[User, str] | None:
    user = await User.objects.filter(username=token).afirst()
    return None if user is None else (user, token)


bearer = BearerAuthentication(user_of)
classes: list[Authentication] = [
    DeviceAuthentication(),
    TicketAuthentication(cache="default"),
    bearer,
    BearerAuthentication(key_of, scheme="Key"),
    SubprotocolToken("bearer", bearer),
    SubprotocolToken("token", TokenAuthentication(), scheme="Token"),
    SessionAuthentication(),
]


def ticket(request: DjangoHttpRequest) -> HttpResponse:
    return HttpResponse(assert_type(issue_ticket(request, "/ws/status/"), str))


def office_of(request: DjangoHttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR"))


class FromAnywhere(Policy):
    async def acheck(self, request: DjangoHttpRequest) -> bool:
        return "REMOTE_ADDR" in request.META

    def denial(self) -> HttpResponse:
        return HttpResponse("not from here", status=403)


@require((IsStaff() | FromOffice()) & ~FromAnywhere())
@permission_required("chat.view_room", obj=room_of)
def room(request: HttpRequest, slug: str) -> HttpResponse:
    return HttpResponse(f"{request.wsdeny.obj} {request.ctx.number} {slug}")


@with_hooks(hooks)
@require(RestFramework(permissions=[Authenticated]) | AllowedOrigin("https://example.com"))
@require(Throttle("20/min", key="ip") & MaxConnections(5, key=office_of, on_outage="allow"))
class LimitedConsumer(AsyncJsonWebsocketConsumer): ...


@public
class StatusConsumer(AsyncJsonWebsocketConsumer): ...


assert_type(room(HttpRequest(), "lobby"), HttpResponse)
assert_type(StatusConsumer(), StatusConsumer)

# Channels' stubs do not fit Django's path(), whose routes they ask for.
routes: list[Any] = [path("ws/status/", StatusConsumer.as_asgi())]  # type: ignore[arg-type]  # pyright: ignore
urlpatterns = [path("rooms/<slug:slug>/", room)]

application = DenyMiddlewareStack(
    ProtocolTypeRouter(
        {
            "http": get_asgi_application(),
            "websocket": AllowedHostsOriginValidator(DenyMiddlewareStack(URLRouter(routes), hooks=hooks)),
        }
    ),
    default_policy=IsStaff(),
    authentication=classes,
)
guarded = require(IsStaff())(URLRouter(routes))
assert_type(guarded, URLRouter)
DenyMiddlewareStack(guarded)
DenyMiddlewareStack(get_asgi_application())
DenyMiddlewareStack(StatusConsumer.as_asgi())


class Vague(Policy):
    def check(self, request: HttpRequest) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return request.wsdeny.nothing  # type: ignore[attr-defined,no-any-return]  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType,reportAttributeAccessIssue]


DenyMiddlewareStack(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Throttle("20/min", key="host")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
require("chat.view_room")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
