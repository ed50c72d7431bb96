"""The understudy: a copy of an ASGI application whose consumers and views are not run, all before them is.

What stands in for a consumer accepts, and for a view says 200. Routers, stacks, guards, wrappers and Django's
middleware are those of the site, and run as they would. What cannot be seen into is not run.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, iscoroutinefunction
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse

from ..decorators import guard
from ..handlers.view import guard_view
from ..hooks.registry import Hooks
from ..http.messages import Refusal, emit_response
from ..names import name_of
from ..routing.guards import guards_of
from ..routing.middleware import Layer
from ..routing.resolver import consumer_class_of, inner_name
from .protections import guards_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from ..http.trace import Trace
    from ..types import ASGIApp, Protocol, Receive, Scope, Send

#: Keeps the reflex from answering, which has nothing to tell.
_NO_HOOKS = Hooks()


def understudy(app: Any, protocol: Protocol, trace: Trace) -> Any:
    """The understudy of `app` for requests of `protocol`, which notes in `trace` what was not run."""
    return _Cast(protocol, trace).stand_in(app)


class _Cast:
    """Who stands in for whom."""

    def __init__(self, protocol: Protocol, trace: Trace) -> None:
        self._protocol, self._trace = protocol, trace
        #: By the identity of whom they stand in for, whom they keep alive.
        self._known: dict[int, tuple[Any, Any]] = {}

    def stand_in(self, app: Any) -> Any:
        """Who stands in for `app`."""
        known = self._known.get(id(app))
        return self._made(app) if known is None else known[1]

    def _made(self, app: Any) -> Any:
        name = inner_name(app)
        consumer_class = None if isinstance(app, Layer) else consumer_class_of(app)
        if consumer_class is not None:
            kind = type("StandIn", (_Consumer,), {})
            guards = guards_of(consumer_class)
            return (guard(kind, guards) if guards.policies or guards.hooks else kind)(app, self._trace)
        if isinstance(app, type):
            return _Class(app, self._trace)
        if isinstance(app, ASGIHandler) and name is None:
            return _Handler(self._trace) if self._protocol == "http" else app
        if isinstance(app, ProtocolTypeRouter):
            twin = self._twin(app)
            inner = app.application_mapping.get(self._protocol)
            if inner is not None:
                twin.application_mapping = {**app.application_mapping, self._protocol: self.stand_in(inner)}
        elif isinstance(app, URLRouter):
            twin = self._twin(app)
            twin.routes = [self._route(route) for route in app.routes]
        elif name is not None:
            twin = self._wrapper(app, name)
        else:
            twin = _Opaque(app, self._trace)
        return twin

    def _wrapper(self, app: Any, name: str) -> Any:
        try:
            twin = self._twin(app)
            setattr(twin, name, self.stand_in(getattr(app, name)))
        except Exception:  # noqa: BLE001 - of a wrapper that cannot be copied there is no understudy
            return _Opaque(app, self._trace)
        if isinstance(twin, Layer):
            twin.hooks = (*twin.hooks, _NO_HOOKS)
        return twin

    def _twin(self, app: Any) -> Any:
        twin = copy.copy(app)
        self._known[id(app)] = app, twin
        return twin

    def _route(self, route: Any) -> Any:
        twin = copy.copy(route)
        twin.callback = self.stand_in(route.callback)
        return twin


class _Opaque:
    """Stands in for an ASGI app that cannot be seen into."""

    _remark = "not run: what is behind it cannot be seen"

    def __init__(self, app: ASGIApp, trace: Trace) -> None:
        functools.update_wrapper(self, app)
        self._name, self._trace = name_of(app), trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
        with self._trace.note("endpoint", self._name) as noted:
            noted.answer = type(self)._remark
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await emit_response(Refusal(HttpResponse(), [], ""), send)


class _Class(_Opaque):
    """Stands in for a class that was routed itself, which nobody can call like this."""

    _remark = "not run: it is a class, as_asgi() is missing"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._trace.note("endpoint", self._name) as noted:
            noted.answer = self._remark
        raise TypeError(f"{self._name} cannot be called like an ASGI application.")


class _Consumer(_Opaque, AsyncConsumer):  # type: ignore[misc]
    """Stands in for a consumer, and is routed to as one."""

    _remark = "not run"


class _Handler(ASGIHandler):
    """Django's handler, with the site's middleware, but no view."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """As Django's, in the thread of the command, where queries are noted."""
        SyncToAsync.thread_sensitive_context.set(None)  # type: ignore[arg-type]
        await super().handle(scope, receive, send)

    def resolve_request(self, request: HttpRequest) -> Any:
        """As Django's, but for the view."""
        match = super().resolve_request(request)
        self._trace.note_route(match)
        return _view(match.func, self._trace), match.args, match.kwargs


def _view(view: Callable[..., Any], trace: Trace) -> Callable[..., Any]:
    def answer() -> HttpResponse:
        with trace.note("endpoint", name_of(view)) as noted:
            noted.answer = "not run"
        return HttpResponse()

    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def stand_in(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            return answer()

    else:

        @functools.wraps(view)
        def stand_in(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            return answer()

    guards = guards_on(view)
    return guard_view(stand_in, guards) if guards.policies or guards.hooks else stand_in
