"""The HTTP door: which policies and hooks stand before which application over ``http``.

`AsyncHttpConsumer` and mounted ASGI apps are guarded here; for Django's handler, hooks and policies are
left to `channels_wsdeny.middleware`. An exception before the response has started becomes a denial; later
it reaches the server unchanged.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from django.urls import ResolverMatch
from django.urls.exceptions import Resolver404

from ..concurrency import hop
from ..conf import conf, is_mirrored
from ..decisions import ALLOWED, Raised
from ..drivers import is_being_cancelled
from ..exceptions import HandshakeDenied
from ..hooks.onion import Onion
from ..hooks.registry import site_hooks
from ..http import session as sessions
from ..http.context import Handover, Passage
from ..http.request import AppRequest
from ..log import log_failure
from ..policies.builtin import default_policy
from ..routing.match import Route, Unseen
from ..routing.resolver import consumer_class_of, leads_to_django, look_through
from . import corridor
from .exchange import Exchange, State
from .upgrade import lost_socket, socket_route, upgrade_required

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http.response import HttpResponseBase

    from ..decisions import Verdict
    from ..hooks.registry import Hooks
    from ..policies.builtin import Policy
    from ..routing.guards import Guards
    from ..routing.match import Found
    from ..routing.middleware import Layer
    from ..types import ASGIApp, Receive, Scope, Send


async def enter_layer(layer: Layer, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `layer`, a stack, for an HTTP scope.

    Raises `Resolver404` if nothing in it matches, for a router around it that may know another route.
    """
    found = look_through(layer, scope)
    visit = _visit_of(scope)
    if visit is not None:
        await visit.enter_layer(layer, found, scope, receive, send)
        return
    route = found if isinstance(found, Route) else None
    socket = (
        socket_route(layer, scope) if _may_lack_a_page(layer, found) else lost_socket(layer, scope, found)
    )
    if socket is not None:
        visit = Visit(scope, receive, send)
        await visit.exchange.run(visit.refuse_socket(socket))
        return
    if route is not None and route.is_django and not route.guards.policies:
        hooks = (*route.hooks, *route.guards.hooks)
        if is_mirrored():
            scope = {**scope, **route.url, "wsdeny": Handover(hooks, route.default_policy)}
            await route.app(scope, receive, send)
            return
        if not (hooks or conf.HOOKS):
            await route.app({**scope, **route.url}, receive, send)
            return
    visit = Visit(scope, receive, send)
    exchange = visit.exchange
    await exchange.run(visit.enter_layer(layer, found, scope, exchange.receive, exchange.send))


async def enter_endpoint(app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards) -> None:
    """Run `app` for an HTTP scope once `guards` let it; what did before is not asked again."""
    visit = _visit_of(scope)
    if visit is not None:
        await visit.enter_endpoint(app, scope, receive, send, guards)
        return
    visit = Visit(scope, receive, send)
    exchange = visit.exchange
    await exchange.run(visit.enter_endpoint(app, scope, exchange.receive, exchange.send, guards))


def _may_lack_a_page(layer: Layer, found: Found | Exception) -> bool:
    """Whether nobody but Django, whose URLconf can be asked, may have something at the path of a socket."""
    if isinstance(found, Route):
        return found.is_django
    return found is Unseen.UNROUTED or (found is Unseen.OPAQUE and leads_to_django(layer.inner))


def _visit_of(scope: Scope) -> Visit | None:
    passage = scope.get("wsdeny")
    visit = passage.door if isinstance(passage, Passage) else None
    return visit if isinstance(visit, Visit) else None


class Visit:
    """One HTTP request on its way through layers and endpoints, from its outermost door on."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = AppRequest(scope)
        self._scope = scope
        self._onion = Onion("http")
        self._onion.on_early_end = self._end_early
        #: Whether ``around`` hooks have answered by themselves.
        self._has_ended_early = False
        self.passage = Passage(self.request, self, onion=self._onion)
        self.request.wsdeny = self.passage  # type: ignore[attr-defined]
        self.exchange = Exchange(self.passage, receive, send)

    async def enter_layer(
        self, layer: Layer, found: Found | Exception, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run what the look-ahead found in `layer`, or `layer` itself."""
        if layer.default_policy is not None:
            self.passage.default_policy = layer.default_policy
        if isinstance(found, Route):
            app, guards, hooks = found.app, found.guards, found.hooks
            endpoint, is_django = found.endpoint, found.is_django
            scope = {**scope, **found.url}
            if not is_django:
                self._go_on_with(self.passage.within(scope))
                url_route = scope.get("url_route")
                self._route_to(functools.partial(found.resolver_match, url_route), url_route)
        else:
            endpoint = app = layer.inner
            guards, hooks = layer.guards, layer.hooks
            is_django = leads_to_django(app)
        is_open = not (guards.policies or is_django or isinstance(found, Exception))
        if is_open and conf.MIRROR_DEFAULT_POLICY:
            guards = guards._replace(policies=self._default())
        # What leads to Django may answer by itself: then the policy is asked as it does.
        is_owed = found is Unseen.OPAQUE and conf.MIRROR_DEFAULT_POLICY
        if found is Unseen.UNROUTED:
            found, guards = Resolver404({"path": scope["path"]}), guards._replace(policies=())
        verdict = await self._admit(hooks, guards)
        if verdict is ALLOWED and isinstance(found, Exception):
            verdict = Raised(found)
        if verdict is not ALLOWED:
            await self.exchange.deny(verdict, send)
            return
        if not is_django:
            self.exchange.owed = ()
        elif is_owed or self.exchange.owed:
            self.exchange.owed = self._default()
        await self._enter(app, endpoint, scope, receive, send)

    async def enter_endpoint(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards
    ) -> None:
        """Run `app` once `guards` let it."""
        passage = scope.get("wsdeny")
        self._go_on_with((passage if isinstance(passage, Passage) else self.passage).within(scope))
        if self.passage.request.resolver_match is None:
            self._route_to(ResolverMatch(app, (), {}), None)
        verdict = await self._admit((), guards)
        if verdict is not ALLOWED:
            await self.exchange.deny(verdict, send)
            return
        await self._enter(app, getattr(app, "__self__", app), scope, receive, send)

    async def refuse_socket(self, route: Route) -> None:
        """Answer a plain request for a socket as its guards would, or else that it needs an upgrade."""
        self._route_to(route.resolver_match, route.url.get("url_route"))
        guards = route.guards
        if not guards.policies:
            guards = guards._replace(policies=(default_policy(),))
        verdict = await self._admit(route.hooks, guards)
        await self.exchange.deny(upgrade_required(self._scope) if verdict is ALLOWED else verdict)

    async def _admit(self, hooks: tuple[Hooks, ...], guards: Guards) -> Verdict:
        """Run the hooks of stacks and of `guards` that were not met yet, and ask the policies."""
        if self.exchange.is_in(State.DENIED):
            return Raised(HandshakeDenied("The request was denied already."))
        try:
            self.request.begin()
            self._onion.enter((*site_hooks(), *hooks))
            self._onion.enter(guards.hooks)
        except Exception as error:  # noqa: BLE001 - fail closed: hooks that cannot be used may have denied
            return Raised(error)
        return await corridor.admit(self.passage, self.passage.remaining(guards.policies), hop)

    async def _enter(self, app: ASGIApp, endpoint: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request into `app`; before the response, whatever that raises is a denial."""
        exchange, passage = self.exchange, self.passage
        exchange.may_unwind = consumer_class_of(endpoint) is not None
        if not exchange.may_unwind:
            await corridor.save_session_early(passage, hop)
        if exchange.is_in(State.DENIED) or self._has_ended_early:
            return  # while others were asked
        offer = passage.request.offer()  # type: ignore[attr-defined]
        scope = {**offer, **scope, "session": offer["session"], "user": offer["user"], "wsdeny": passage}
        if self._onion:
            scope["extensions"] = _without_files(scope.get("extensions"))
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError as error:
            if is_being_cancelled() or exchange.is_in(State.STARTED):
                raise
            if exchange.is_in(State.PENDING):
                problem = RuntimeError(f"What {app!r} awaited was cancelled before it answered the request.")
                problem.__cause__ = error
                await exchange.deny(Raised(problem), send)
        except Exception as error:
            if exchange.is_in(State.STARTED):
                raise
            if exchange.is_in(State.PENDING):
                sessions.forget_loaded(passage.request)
                await exchange.keep_body(error)
                await exchange.deny(Raised(error), send)
            elif not isinstance(error, HandshakeDenied):
                log_failure(passage, error)
        else:
            exchange.ended = exchange.ended or app  # A wrapper around it may answer yet.

    def _go_on_with(self, passage: Passage) -> None:
        self.passage = self.exchange.passage = passage

    def _route_to(self, match: ResolverMatch | Callable[[], ResolverMatch], url_route: Any) -> None:
        self.passage.request.route_to(match, url_route)  # type: ignore[attr-defined]

    def _default(self) -> tuple[Policy, ...]:
        given = self.passage.default_policy
        return (default_policy() if given is None else given,)

    def _end_early(self, end: HttpResponseBase | Exception) -> bool:
        self._has_ended_early = True
        if not self.exchange.is_in(State.PENDING):
            return False
        self.exchange.begin_denial(Raised(end) if isinstance(end, Exception) else end)
        return True


def _without_files(extensions: Any) -> dict[str, Any]:
    """The server's extensions without those that send files past the hooks."""
    return {
        name: value
        for name, value in (extensions or {}).items()
        if not name.endswith(("pathsend", "zerocopysend"))
    }
