"""Random sites for handshakes: routers, stacks, decorators, hooks, policies and wrappers around endpoints that accept.

All that a site is made of may be known in advance but for what is called unknown, which may change the scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import and_, invert, or_
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.contrib.auth.models import AnonymousUser
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path, re_path
from hypothesis import strategies as st

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny import policies as built_in
from channels_wsdeny.decorators import public, require, with_hooks

from .policies import AsyncCheck, Check, accept, root
from .wrappers import Wrapper


@dataclass(frozen=True)
class Part:
    """A router, layer or wrapper around its `inner` parts, or an endpoint, which has none."""

    kind: str
    inner: tuple[Part, ...] = ()
    policy: Any = None
    hook: Any = None
    value: Any = None

    def application(self, ran: list[str]) -> Any:
        """The application; endpoints and what is unknown add their names to `ran` as they run."""
        if not self.inner:
            return ENDPOINTS[self.kind](ran)
        inner = [part.application(ran) for part in self.inner]
        app = inner[0]
        if self.kind == "stack":
            hooks = self.hook and hooks_of(*self.hook)
            return DenyMiddlewareStack(app, default_policy=self.policy, hooks=hooks, deny_with=self.value)
        if self.kind == "guards":
            app = require(self.policy)(app) if self.policy is not None else public(app)
            return with_hooks(hooks_of(*self.hook))(app) if self.hook else app
        if self.kind == "router":
            return URLRouter([ROUTES[route](each) for route, each in zip(self.value, inner, strict=True)])
        if self.kind == "protocols":
            return ProtocolTypeRouter({self.value: app, "http": get_asgi_application()})
        return self.value(app) if self.kind == "known" else unknown(self.kind, app, self.value, ran)


def hooks_of(kind: str, answer: str, is_async: bool) -> Hooks:
    """A hook of one kind that answers what `ANSWERS` has of this name."""
    hooks = Hooks()

    def hook(request: Any, other: Any = None) -> Any:
        found = ANSWERS[answer](request)
        return None if found is True else found

    async def hook_async(request: Any, other: Any = None) -> Any:
        return hook(request)

    async def around(request: Any, call_next: Any) -> Any:
        return hook(request) or await call_next(request)

    async def around_after(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        return hook(request) or response

    function = {"around": around, "around after": around_after}.get(kind, hook_async if is_async else hook)
    hooks.register(function, kind.split(maxsplit=1)[0])  # type: ignore[arg-type] # a word, of a text
    return hooks


ANSWERS = {
    "allows": lambda request: True,
    "denies": lambda request: Deny(418, "No.", code="teapot"),
    "responds": lambda request: HttpResponse("no", status=409),
    "redirects": lambda request: HttpResponseRedirect("/login/"),
    "breaks": lambda request: 1 // 0,
    "asks for staff": lambda request: request.user.is_staff or Deny(410),
    "asks for a room": lambda request: "room" in request.resolver_match.kwargs or Deny(404),
    "changes the session": lambda request: request.session.update(changed=True) or True,
}


def consumer(base: Any, ran: list[str]) -> Any:
    """A subclass of `base`."""

    class Consumer(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            ran.append("endpoint")
            super().__init__(*args, **kwargs)

    return Consumer


def raw(ran: list[str]) -> Any:
    """An application that is none of Channels'."""

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        ran.append("endpoint")
        await accept(scope, receive, send)

    return endpoint


def unknown(kind: str, app: Any, values: dict[str, Any], ran: list[str]) -> Any:
    """`app` in a wrapper that puts `values` into the scope."""

    async def Unknown(scope: Any, receive: Any, send: Any) -> None:
        ran.append("Unknown")
        await app({**scope, **values}, receive, send)

    if kind == "function":
        return Unknown
    base = {"wrapper": Wrapper, "middleware": BaseMiddleware, "own router": URLRouter}[kind]

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await Unknown(scope, receive, send)

    return type("Unknown", (base,), {"__call__": call})([re_path("", app)] if kind == "own router" else app)


ENDPOINTS = {
    "consumer": lambda ran: consumer(AsyncWebsocketConsumer, ran).as_asgi(),
    "sync consumer": lambda ran: consumer(WebsocketConsumer, ran).as_asgi(),
    "guarded consumer": lambda ran: require(built_in.IsStaff())(consumer(AsyncWebsocketConsumer, ran)).as_asgi(),
    "application": raw,
    "guarded application": lambda ran: public(raw(ran)),
}
ROUTES = {
    "a": lambda app: path("a/", app),
    "b": lambda app: path("b/", app, name="b"),
    "room": lambda app: path("<slug:room>/", app),
    "all": lambda app: re_path("", app),
}
KNOWN = [
    AuthMiddlewareStack,
    lambda app: OriginValidator(app, ["*"]),
    lambda app: OriginValidator(app, ["http://elsewhere"]),
]

checks = st.builds(
    lambda kind, name: kind(ANSWERS[name]), st.sampled_from([Check, AsyncCheck]), st.sampled_from(list(ANSWERS))
)
policies = st.recursive(
    checks
    | st.sampled_from([built_in.AllowAny(), built_in.DenyAll(), built_in.IsAuthenticated(), built_in.IsStaff()])
    | st.sampled_from([built_in.IsSuperuser(), built_in.InGroup("chefs"), built_in.HasPermission("auth.add_user")])
    | st.sampled_from(
        [built_in.AllowedOrigin("http://elsewhere"), built_in.MaxConnections(1), built_in.Throttle("1/h")]
    )
    | st.just(built_in.UserPassesTest(lambda user: user.username != "alice")),
    lambda inner: inner.map(invert) | st.builds(and_, inner, inner) | st.builds(or_, inner, inner),
    max_leaves=4,
)
hooks = st.tuples(
    st.sampled_from(["request", "route", "response", "exception", "around", "around after"]),
    st.sampled_from(["allows", *ANSWERS]),
    st.booleans(),
)


def stacks(inner: Any) -> Any:
    deny_with = st.sampled_from([None, None, "close"])
    return st.builds(Part, st.just("stack"), st.tuples(inner), st.none() | policies, st.none() | hooks, deny_with)


def around(inner: Any) -> Any:
    one = st.tuples(inner)
    routes = st.lists(st.tuples(st.sampled_from(sorted(ROUTES)), inner), min_size=1, max_size=3)
    values = st.sampled_from([{}, {"user": AnonymousUser()}, {"user": root}])
    return (
        stacks(inner)
        | st.builds(Part, st.just("guards"), one, st.none() | policies, st.none() | hooks)
        | routes.map(lambda pairs: Part("router", tuple(part for _, part in pairs), value=[name for name, _ in pairs]))
        | st.builds(Part, st.just("protocols"), one, value=st.sampled_from(["websocket", "websocket", "other"]))
        | st.builds(Part, st.just("known"), one, value=st.sampled_from(KNOWN))
        | st.builds(Part, st.sampled_from(["wrapper", "middleware", "function", "own router"]), one, value=values)
    )


parts = st.recursive(st.builds(Part, st.sampled_from(sorted(ENDPOINTS))), around, max_leaves=4)
sites = stacks(parts) | parts
