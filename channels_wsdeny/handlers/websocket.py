"""The websocket door: which policies stand before which application, and who lets it through.

Where the look-ahead sees the endpoint, all is decided before anything runs. Where it does not, a gate
stands before the application until an endpoint within has decided, or the application wants something.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.http import Http404
from django.urls import ResolverMatch
from django.urls.exceptions import Resolver404

from ..concurrency import hop
from ..decisions import ALLOWED, Raised
from ..drivers import is_being_cancelled
from ..exceptions import HandshakeDenied
from ..hooks.onion import Onion
from ..hooks.registry import site_hooks
from ..http import messages as emitter
from ..http.context import Gate, Passage
from ..http.request import HandshakeRequest
from ..log import log_failure
from ..policies.builtin import default_policy
from ..routing.guards import Guards
from ..routing.match import Route, Unseen
from ..routing.resolver import consumer_class_of, look_through
from . import corridor
from .gatekeeper import Gatekeeper
from .reflex import reflex
from .wire import State, Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http.response import HttpResponseBase

    from ..decisions import Cause
    from ..hooks.registry import Hooks
    from ..routing.match import Found
    from ..routing.middleware import Layer
    from ..types import ASGIApp, Receive, Scope, Send


async def enter_layer(
    layer: Layer, scope: Scope, receive: Receive, send: Send, deny_with: str | None = None
) -> None:
    """Run `layer` for a websocket scope: a stack, or an ASGI app with policies of its own.

    Raises `Resolver404` if nothing in it matches, for a router around it that may know another route.
    """
    handshake = handshake_of(scope)
    found = look_through(layer, scope)
    if handshake is not None:
        await handshake.enter_layer(layer, found, scope, receive, send)
        return
    if await reflex(layer, found, scope, (receive, send), deny_with):
        return
    inside = _enter(
        Handshake(scope, receive, send, deny_with),
        lambda it: it.enter_layer(layer, found, scope, it.wire.receive, it.wire.send, outermost=True),
    )
    await (asyncio.create_task(inside) if emitter.is_granian(send) else inside)


async def enter_endpoint(app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards) -> None:
    """Run `app` for a websocket scope once `guards` let it."""
    handshake = handshake_of(scope)
    if handshake is not None:
        await handshake.enter_endpoint(app, scope, receive, send, guards)
        return
    inside = _enter(
        Handshake(scope, receive, send),
        lambda it: it.enter_endpoint(app, scope, it.wire.receive, it.wire.send, guards),
    )
    await (asyncio.create_task(inside) if emitter.is_granian(send) else inside)


async def _enter(handshake: Handshake, go_on: Callable[[Handshake], Awaitable[None]]) -> None:
    """Take a handshake through its outermost door.

    On granian in a task of its own, whose frames hold the handshake but none of the server's callables:
    granian keeps a denied connection for as long as any frame holds those.
    """
    async with handshake:
        if await handshake.begin():
            await go_on(handshake)


def handshake_of(scope: Scope) -> Handshake | None:
    """The handshake that `scope` is a part of already; None at its outermost door."""
    passage = scope.get("wsdeny")
    return passage.door if isinstance(passage, Passage) else None


class Handshake:
    """One handshake on its way through layers and endpoints, from its outermost door on."""

    __slots__ = ("_is_running", "_onion", "_site_hooks", "_straight", "passage", "wire")

    def __init__(self, scope: Scope, receive: Receive, send: Send, deny_with: str | None = None) -> None:
        request = HandshakeRequest(scope)
        self._onion = Onion("websocket")
        self._onion.on_early_end = self._end_early
        self.passage = Passage(request, self, onion=self._onion)
        request.wsdeny = self.passage  # type: ignore[attr-defined]
        self.wire = Wire(self.passage, scope, receive, send, deny_with)
        self._is_running = False
        #: The passage of a consumer that is about to be called, with nothing left to ask.
        self._straight: Passage | None = None

    async def __aenter__(self) -> Handshake:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self.passage.door = None
        try:
            await self.wire.release(cancelled=isinstance(error, asyncio.CancelledError))
        finally:
            self._onion.drop()  # Its hooks have had their say in a denial first.
        if isinstance(error, _PastRouters):
            raise error.error from None

    async def begin(self) -> bool:
        """Begin the handshake; returns False if it is over already."""
        if not await self.wire.take_connect():
            return False
        try:
            self.passage.request.begin()  # type: ignore[attr-defined]
            self._site_hooks = site_hooks()
        except Exception as error:  # noqa: BLE001 - malformed, or hooks that might have denied cannot be used
            await self.wire.deny(Raised(error))
            return False
        return True

    async def enter_layer(
        self,
        layer: Layer,
        found: Found | Exception,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        outermost: bool = False,
    ) -> None:
        """Run what the look-ahead found in `layer`, or `layer` itself behind a gate."""
        if self.wire.is_in(State.DENIED):
            return  # An around hook has ended, and nobody is asked any more.
        passage = self._passage_within(scope)
        if not isinstance(found, Route):
            self._enter_hooks(layer.hooks, layer.guards.hooks)
            decision = await corridor.arrive(passage, hop)
            if decision is ALLOWED and isinstance(found, Exception):
                decision = Raised(found)
            elif decision is ALLOWED and found is Unseen.UNROUTED:
                decision = Raised(Resolver404({"path": scope["path"]}))
            if decision is not ALLOWED:
                await self._deny_here(passage, decision, send)
                return
            policy = layer.default_policy
            if policy is None and (outermost or self.wire.is_in(State.ACCEPTED)):
                policy = default_policy()
            if policy is not None:
                gate = Gate(policy, passage.gate)
                passage = passage.behind(gate)
                deny = functools.partial(self._deny_here, passage, send=send)
                keeper = Gatekeeper(gate, passage, self.wire, (receive, send), deny)
                receive, send = keeper.receive, keeper.send
            await self._run(layer.inner, passage, scope, receive, send)
        else:
            scope = {**scope, **found.url}
            if "url_route" in found.url:
                self.wire.passage = passage = passage.within(scope)
            url_route = scope.get("url_route")
            match = functools.partial(found.resolver_match, url_route)
            passage.request.route_to(match, url_route)  # type: ignore[attr-defined]
            self.wire.consumer_class = consumer_class_of(found.endpoint)
            self._enter_hooks(found.hooks, found.guards.hooks)
            policies = found.guards.policies
            if not policies and passage.gate is not None:
                policies = () if passage.gate.is_open and passage.has_passed else (passage.gate.policy,)
            elif not policies and (outermost or self.wire.is_in(State.ACCEPTED)):
                policies = (default_policy(),)
            passage.is_fresh = True
            scope = {**scope, "wsdeny": passage}
            is_consumer = self.wire.consumer_class is not None
            goes_straight = is_consumer and self.wire.is_in(State.CONNECTING)
            await self.enter_endpoint(
                found.app, scope, receive, send, Guards(policies), fresh=True, straight=goes_straight
            )

    async def enter_endpoint(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        guards: Guards,
        *,
        fresh: bool = False,
        straight: bool = False,
    ) -> None:
        """Run `app` once `guards` let it; what did before is not asked again.

        With `fresh`, `app` itself may trust what passed here, also after the accept. With `straight`, it is a
        consumer, and only what Channels itself may put around one is around it.
        """
        if self.wire.is_in(State.DENIED):
            return  # as above
        passage = self._passage_within(scope)
        if not fresh:  # The consumer is there to be asked itself.
            self.wire.consumer_class = consumer_class_of(getattr(app, "__self__", app))
        self._enter_hooks((), guards.hooks)
        expected, self._straight = self._straight, None
        if passage is expected and not (passage.remaining(guards.policies) or self._onion.is_pending):
            await app(scope, receive, send)  # `_run` is around it already, and nothing is in between.
            return
        request: Any = passage.request
        if self._onion and request.resolver_match is None:
            request.route_to(ResolverMatch(app, (), {}), None)
        decision = await corridor.admit(passage, passage.remaining(guards.policies), hop)
        if decision is not ALLOWED:
            await self._deny_here(passage, decision, send)
            return
        passage.is_fresh = fresh
        self._straight = passage if straight else None
        await self._run(app, passage, scope, receive, send)

    async def _run(self, app: ASGIApp, passage: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        """Run `app`; before the accept, whatever it raises is a denial, and stays below any router."""
        wire = self.wire
        if wire.is_in(State.DENIED):
            return  # while others were asked
        offer = passage.request.offer()  # type: ignore[attr-defined]
        scope = {**offer, **scope, "session": offer["session"], "user": offer["user"], "wsdeny": passage}
        self._is_running = True
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError as error:
            if passage.gate is not None and passage.gate.has_denied and not is_being_cancelled():
                return  # The gate unwound the application with it.
            if is_being_cancelled() or wire.is_in(State.ACCEPTED):
                raise
            if wire.is_in(State.CONNECTING) and not wire.client_left:
                await wire.deny_for_the_app(Raised(_cancelled(app, error)))
            # Else it is the cancellation that `receive` unwound the application with.
        except Exception as error:
            if wire.is_in(State.ACCEPTED):
                if isinstance(error, Resolver404):
                    raise _PastRouters(error) from error
                raise
            if wire.is_in(State.CONNECTING) and not wire.client_left:
                await wire.deny_for_the_app(Raised(error))
            elif not isinstance(error, HandshakeDenied):
                log_failure(passage, error)
        else:
            if wire.is_in(State.CONNECTING) and not wire.client_left:
                await wire.deny_for_the_app(Raised(_no_answer(app)))

    def _enter_hooks(self, hooks: tuple[Hooks, ...], endpoint_hooks: tuple[Hooks, ...]) -> None:
        """Enter the hooks of stacks, and those of an endpoint further in, to be run on admission."""
        if self.wire.is_in(State.CONNECTING):
            self._onion.enter((*self._site_hooks, *hooks))
            self._onion.enter(endpoint_hooks)

    def _end_early(self, end: HttpResponseBase | Exception) -> bool:
        return self.wire.begin_denial(Raised(end) if isinstance(end, Exception) else end)

    def _passage_within(self, scope: Scope) -> Passage:
        """The passage for `scope`. After the accept each entry is asked anew, but for the one just asked."""
        passage = scope.get("wsdeny")
        if not isinstance(passage, Passage):
            passage = self.passage
        if self.wire.is_in(State.ACCEPTED):
            if not passage.is_fresh:
                return passage.anew(scope)
            passage.is_fresh = False
            return passage.within(scope)
        self.wire.passage = passage = passage.within(scope)
        return passage

    async def _deny_here(self, passage: Passage, denial: Cause, send: Send) -> None:
        """Deny the handshake, or the stream of an endpoint that was reached after the accept."""
        if self.wire.is_in(State.ACCEPTED):
            refusal = await corridor.refuse(passage, denial, hop)
            await send(emitter.close_message(refusal))
        elif self._is_running:
            await self.wire.deny_for_the_app(denial)
        else:
            await self.wire.deny(denial)


class _PastRouters(Http404):
    """Carries a `Resolver404` out of an accepted socket: a router would take it for "try the next route"."""

    def __init__(self, error: Resolver404) -> None:
        super().__init__(str(error))
        self.error = error


def _no_answer(app: ASGIApp) -> Exception:
    return ImproperlyConfigured(f"{app!r} ended without an answer to the handshake. It must accept or close.")


def _cancelled(app: ASGIApp, error: BaseException) -> Exception:
    problem = RuntimeError(f"What {app!r} awaited was cancelled before it answered the handshake.")
    problem.__cause__ = error
    return problem
