"""The exchange: one HTTP request to an ASGI app that is not Django's handler, and its answer.

An exception before the response has started becomes a denial; later it reaches the server unchanged.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.urls import ResolverMatch
from django.urls.exceptions import Resolver404

from . import corridor, emitter
from .appstream import AppStream
from .bodies import Record
from .conf import conf
from .decisions import ALLOWED, Raised
from .exceptions import HandshakeDenied
from .handshake import AppRequest
from .hooks import site_hooks
from .log import log_failure
from .lookahead import Route, Unseen, leads_to_django
from .onion import Onion
from .passage import Passage
from .policies import default_policy
from .pool import hop
from .upgrade import upgrade_required

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from django.http.response import HttpResponseBase

    from .decisions import Cause, Verdict
    from .guards import Guards
    from .hooks import Hooks
    from .lookahead import Found, Layer
    from .policies import Policy
    from .types import ASGIApp, Message, Receive, Scope, Send


class Exchange:
    """One HTTP request, and the `receive` and `send` that the application gets for it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = AppRequest(scope)
        self._onion = Onion("http")
        self._onion.on_early_end = self._end_early
        self.passage = Passage(self.request, self, onion=self._onion)
        self.request.wsdeny = self.passage  # type: ignore[attr-defined]
        self._scope, self._receive, self._send = scope, receive, send
        #: Whether there is nothing more to answer: a response has started, or the client has left.
        self._over = False
        #: Whether somebody else than the application answers, or has answered.
        self._denied = False
        #: Whether its denial is on its way out through the wrappers of an application that has ended.
        self._is_denying = False
        self._is_djangos = False
        self._owes = False
        self._is_running = False
        #: Whether a response has started that the application sends.
        self._has_started = False
        #: The response of the application, once a hook has rewritten its body.
        self._stream: AppStream | None = None
        self._denial: asyncio.Future[None] | None = None
        self._body = Record()
        self._body_is_over = False

    async def run(self, inside: Awaitable[None]) -> None:
        """Take the exchange through its outermost door, to its end."""
        try:
            await inside
        except asyncio.CancelledError:
            if self._denial is not None:
                self._denial.cancel()
            raise
        finally:
            self._onion.drop()
            if self._denial is not None:
                await asyncio.wait({self._denial})
            if self._stream is not None:
                self._stream.abandon()
                await hop(self._stream.close)

    async def enter_layer(
        self, layer: Layer, found: Found | Exception, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run what the look-ahead found in `layer`, or `layer` itself."""
        if layer.default_policy is not None:
            self.passage.default_policy = layer.default_policy
        if isinstance(found, Route):
            app, guards, hooks = found.app, found.guards, found.hooks
            scope = {**scope, **found.url}
            if not found.is_django:
                self.passage = self.passage.within(scope)
                url_route = scope.get("url_route")
                self._route_to(functools.partial(found.resolver_match, url_route), url_route)
        else:
            app, guards, hooks = layer.inner, layer.guards, layer.hooks
        self._is_djangos = found.is_django if isinstance(found, Route) else leads_to_django(app)
        self.passage.saves_session = not self._is_djangos
        is_open = not (guards.policies or self._is_djangos or isinstance(found, Exception))
        # What leads to Django may answer by itself: then the policy is asked as it does.
        self._owes = self._is_djangos and found is Unseen.OPAQUE
        if is_open and conf.MIRROR_DEFAULT_POLICY:
            guards = guards._replace(policies=self._default())
        if found is Unseen.UNROUTED:
            found, guards = Resolver404({"path": scope["path"]}), guards._replace(policies=())
        verdict = await self._admit(hooks, guards)
        if verdict is ALLOWED and isinstance(found, Exception):
            verdict = Raised(found)
        await self._enter(app, scope, receive, send, verdict)

    async def enter_endpoint(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards
    ) -> None:
        """Run `app` once `guards` let it."""
        passage = scope.get("wsdeny")
        self.passage = (passage if isinstance(passage, Passage) else self.passage).within(scope)
        if self.passage.request.resolver_match is None:
            self._route_to(ResolverMatch(app, (), {}), None)
        await self._enter(app, scope, receive, send, await self._admit((), guards))

    async def refuse_socket(self, route: Route) -> None:
        """Answer a plain request for a socket as its guards would, or else that it needs an upgrade."""
        self._route_to(route.resolver_match, route.url.get("url_route"))
        guards = route.guards
        if not guards.policies:
            guards = guards._replace(policies=(default_policy(),))
        verdict = await self._admit(route.hooks, guards)
        await self._deny(upgrade_required(self._scope) if verdict is ALLOWED else verdict, self._send)

    async def _enter(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, verdict: Verdict
    ) -> None:
        """Let the request into `app`, if it may; before the response, whatever that raises is a denial."""
        if verdict is not ALLOWED:
            await self._deny(verdict, send)
            return
        passage = self.passage
        if self._is_djangos:
            await corridor.save_session_early(passage, hop)
        offer = passage.request.offer()  # type: ignore[attr-defined]
        scope = {**offer, **scope, "session": offer["session"], "user": offer["user"], "wsdeny": passage}
        if self._onion:
            scope["extensions"] = _without_files(scope.get("extensions"))
        self._is_running = True
        try:
            await app(scope, receive, send)
        except HandshakeDenied:
            if not (self._denied or self._over):
                raise
        except asyncio.CancelledError as error:
            self._is_running = False
            if corridor.is_being_cancelled() or self._over:
                raise
            problem = RuntimeError(f"What {app!r} awaited was cancelled before it answered the request.")
            problem.__cause__ = error
            await self._deny(Raised(problem), send)
        except Exception as error:
            self._is_running = False
            if self._denied:
                log_failure(passage, error)
                return
            if self._over:
                raise
            await self._keep_body(error)
            await self._deny(Raised(error), send)
        else:
            self._is_running = False
            if not self._over:
                silence = f"{app!r} ended without a response to the request."
                await self._deny(Raised(ImproperlyConfigured(silence)), send)

    async def _admit(self, hooks: tuple[Hooks, ...], guards: Guards) -> Verdict:
        """Run the hooks of stacks and of `guards` that were not met yet, and ask the policies."""
        try:
            self.request.begin()
            self._onion.enter((*site_hooks(), *hooks))
            self._onion.enter(guards.hooks)
        except Exception as error:  # noqa: BLE001 - fail closed: hooks that cannot be used may have denied
            return Raised(error)
        return await corridor.admit(self.passage, self.passage.remaining(guards.policies), hop)

    def _route_to(self, match: ResolverMatch | Callable[[], ResolverMatch], url_route: Any) -> None:
        self.passage.request.route_to(match, url_route)  # type: ignore[attr-defined]

    async def receive(self) -> Message:
        """The application's ``receive``."""
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self._over = True
            if self._denial is not None:
                self._denial.cancel()
        else:
            self._body_is_over = not event.get("more_body")
            if self._onion.rescues:
                self._body.add(event.get("body", b""))
            elif event.get("body"):
                self._body.lose()
        return event

    async def send(self, message: Message) -> None:
        """The application's ``send``: hooks and the session have their say as the response starts."""
        if self._denied and not self._is_denying:
            if self._is_djangos:
                return  # It has things to close after its last message.
            raise HandshakeDenied(f"The request was denied already; {message['type']!r} cannot be sent.")
        if self._over and not self._has_started and not self._is_denying:
            raise HandshakeDenied(f"The client has left; {message['type']!r} cannot be sent.")
        if message["type"] == "http.response.start" and not self._over:
            await self._start(message)
        elif self._stream is not None and message["type"] == "http.response.body":
            await self._stream.feed(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = emitter.check_headers(message)
        if self._owes and conf.MIRROR_DEFAULT_POLICY and not self.passage.is_asked:
            verdict = await corridor.admit(self.passage, self.passage.remaining(self._default()), hop)
            if verdict is not ALLOWED:
                await self._deny(verdict, self._send)
                return
        response = AppStream(message["status"], headers)
        answer = await corridor.answer(self.passage, response, hop)
        if self._denied and self._is_djangos:
            return  # It has things to close after its last message.
        if self._denied:
            raise HandshakeDenied("The request was denied meanwhile, for an around hook has ended.")
        if self._over:
            raise HandshakeDenied("The client has left.")
        if answer is not response:
            await self._deny(answer, self._send)
            return
        try:
            headers = emitter.raw_headers(response)
        except ValueError as error:  # a hook's, or they would not have come this far
            await self._deny(Raised(error), self._send)
            return
        self._over = self._has_started = True
        if response.is_rewritten:
            headers = [pair for pair in headers if pair[0] != b"content-length"]
            self._stream = response
        await self._send({**message, "status": response.status_code, "headers": headers})
        if self._stream is not None:
            self._stream.open(self._send)

    async def _deny(self, denial: Cause, send: Send) -> None:
        """Answer with a denial, by the `send` of whoever wanted to run.

        In a task of its own: wrappers may give up what they are doing, the denial must not be.
        """
        if self._over:
            return
        self._over = self._denied = True
        self._denial = asyncio.ensure_future(self._answer_with(denial, send))
        await asyncio.shield(self._denial)

    async def _answer_with(self, denial: Cause, send: Send) -> None:
        refusal = await corridor.refuse(self.passage, denial, hop)
        self._is_denying = send is not self._send
        emission = emitter.emit_response(refusal, send)
        try:
            if refusal.response.streaming and not self._is_running:
                await self._while_the_client_is_there(emission)
            else:
                await emission
        except OSError:
            pass  # The client has left, and the server says so as ASGI asks.
        finally:
            self._is_denying = False

    async def _while_the_client_is_there(self, emission: Coroutine[Any, Any, None]) -> None:
        """Send a stream, unless the client leaves: nobody else would notice, and it may have no end."""
        sending = asyncio.ensure_future(emission)
        leaving = asyncio.ensure_future(self._disconnect())
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() or leaving.exception() is not None:
                await sending
        finally:
            sending.cancel()
            leaving.cancel()

    async def _disconnect(self) -> None:
        event = await self._receive()
        while event["type"] != "http.disconnect":
            await asyncio.sleep(0)  # A server that has always something to say must not keep us from sending.
            event = await self._receive()

    def _default(self) -> tuple[Policy, ...]:
        given = self.passage.default_policy
        return (default_policy() if given is None else given,)

    def _end_early(self, end: HttpResponseBase | Exception) -> None:
        if not self._over:
            self._over = self._denied = True
            denial = Raised(end) if isinstance(end, Exception) else end
            self._denial = asyncio.ensure_future(self._answer_with(denial, self._send))

    async def _keep_body(self, error: Exception) -> None:
        """Let the hooks that `error` is for see the body, also what the application has not read of it."""
        if not self._onion.takes(error):
            return
        try:
            async with asyncio.timeout(conf.POLICY_TIMEOUT):
                while not (self._body_is_over or self._body.is_too_big or self._body.is_lost or self._over):
                    await self.receive()
        except TimeoutError:
            return
        self._body.give_back(self.passage.request)


def _without_files(extensions: Any) -> dict[str, Any]:
    """The server's extensions without those that send files past the hooks."""
    return {
        name: value
        for name, value in (extensions or {}).items()
        if not name.endswith(("pathsend", "zerocopysend"))
    }
