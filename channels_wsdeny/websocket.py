"""The websocket door: one handshake, from ``websocket.connect`` to the accept or the denial.

A handshake is *connecting* until it is *accepted* or *denied*, and then stays so. No accept leaves
without a decision, whatever the application does; after the accept, messages pass straight through.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.http import HttpResponse

from . import corridor, emitter
from .appdenial import AppDenial
from .conf import conf
from .decisions import ALLOWED, Denial
from .exceptions import Deny, HandshakeDenied
from .failures import denial_for
from .handshake import HandshakeRequest
from .log import log_failure
from .lookahead import Layer, Unseen, look_ahead
from .passage import Passage
from .policies import Policy, default_policy
from .pool import hop

if TYPE_CHECKING:
    from .types import ASGIApp, Message, RawHeaders, Receive, Scope, Send


class State(enum.Enum):
    """Where a handshake is."""

    CONNECTING = "connecting"
    ACCEPTED = "accepted"
    DENIED = "denied"


async def enter_layer(
    layer: Layer, scope: Scope, receive: Receive, send: Send, deny_with: str | None = None
) -> None:
    """Run `layer` for a websocket scope: a stack, or an ASGI app with policies of its own."""
    handshake = handshake_of(scope)
    if handshake is not None:
        await handshake.enter(layer, scope, receive, send)
        return
    async with Handshake(scope, receive, send, deny_with) as handshake:
        if await handshake.begin():
            await handshake.enter(layer, scope, handshake.receive, handshake.send)


async def enter_endpoint(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, policies: tuple[Policy, ...]
) -> None:
    """Run `app` for a websocket scope once `policies` allow it."""
    handshake = handshake_of(scope)
    if handshake is not None:
        await handshake.enter_endpoint(app, scope, receive, send, policies)
        return
    async with Handshake(scope, receive, send) as handshake:
        if await handshake.begin():
            await handshake.enter_endpoint(app, scope, handshake.receive, handshake.send, policies)


def handshake_of(scope: Scope) -> Handshake | None:
    """The handshake that `scope` is a part of already; None at its outermost door."""
    passage = scope.get("wsdeny")
    return passage.door if isinstance(passage, Passage) else None


class Handshake:
    """One handshake, and the `receive` and `send` that the application gets for it."""

    __slots__ = (
        "_connect_taken",
        "_decided",
        "_default",
        "_denied",
        "_deny_with",
        "_disconnect_taken",
        "_gone",
        "_lock",
        "_own_denial",
        "_receive",
        "_scope",
        "_send",
        "passage",
        "request",
        "state",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, deny_with: str | None = None) -> None:
        self.request = HandshakeRequest(scope)
        self.passage = Passage(self.request, self)
        self.request.wsdeny = self.passage  # type: ignore[attr-defined]
        self.state = State.CONNECTING
        self._scope, self._receive, self._send = scope, receive, send
        self._deny_with = deny_with
        #: Whether a policy has allowed what is running now.
        self._decided = False
        #: The nearest stack's default policy, for apps that the look-ahead could not see into.
        self._default: Policy | None = None
        #: One message at a time until the handshake is answered, so that answers cannot overtake.
        self._lock = asyncio.Lock()
        self._denied: asyncio.Future[None] | None = None
        self._own_denial: AppDenial | None = None
        self._connect_taken = self._disconnect_taken = self._gone = False

    async def __aenter__(self) -> Handshake:
        return self

    async def __aexit__(self, *exception: object) -> None:
        # granian keeps a connection for as long as anything holds its callables, and a cycle would
        # hold them until the garbage collector comes by.
        self.passage.door = None
        self._receive, self._send = _receive_over, _send_over

    async def begin(self) -> bool:
        """Take the server's ``websocket.connect``; returns False if there is nothing left to do."""
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            return False
        if event["type"] != "websocket.connect":
            raise ValueError(f"Expected 'websocket.connect' from the server, found {event['type']!r}.")
        try:
            self.request.begin()
        except BadRequest as error:
            await self.deny(denial_for(error))
            return False
        return True

    async def enter(self, layer: Layer, scope: Scope, receive: Receive, send: Send) -> None:
        """Look ahead through `layer`, decide, and run what is there."""
        found = look_ahead(layer, scope)
        if found is Unseen.UNROUTED:
            await self._deny_here(Deny(404), send)
        elif found is Unseen.OPAQUE:
            outer, self._default = self._default, layer.default_policy or self._default
            try:
                await self._run(layer.inner, self._scope_within(scope), receive, send)
            finally:
                self._default = outer
        else:
            self.request.route_to(found.match, found.url.get("url_route"))
            policies = found.policies or (found.default_policy or self._default or default_policy(),)
            await self.enter_endpoint(found.app, {**scope, **found.url}, receive, send, policies)

    async def enter_endpoint(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, policies: tuple[Policy, ...]
    ) -> None:
        """Run `app` once `policies` allow it; those that did before are not asked again."""
        if self.request.adopt(scope):
            self.passage.forget()
        remaining = self.passage.remaining(policies)
        if remaining:
            decision = await corridor.admit(self.passage, remaining, hop)
            if decision is not ALLOWED:
                await self._deny_here(decision, send)
                return
        outer, self._decided = self._decided, True
        try:
            await self._run(app, self._scope_within(scope), receive, send)
        finally:
            if self.state is State.CONNECTING:
                self._decided = outer

    async def _run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run `app`; before the accept, whatever it raises is a denial, and stays below any router."""
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError as error:
            if corridor.is_being_cancelled() or self._is(State.ACCEPTED):
                raise
            if self._is(State.CONNECTING) and not self._gone:
                # Something that the application awaited had been cancelled by somebody else.
                await self.deny(denial_for(_cancelled(app, error)))
            # Else it is the cancellation that `receive` unwound the application with.
        except Exception as error:
            if self._is(State.ACCEPTED):
                raise
            if self._is(State.CONNECTING) and not self._gone:
                await self.deny(denial_for(error))
            elif not isinstance(error, HandshakeDenied):
                log_failure(self.passage, error)
        else:
            if self.state is State.CONNECTING and not self._gone:
                await self.deny(denial_for(_no_answer(app)))

    def _scope_within(self, scope: Scope) -> Scope:
        """The scope for an application: a copy that never overwrites what a wrapper put into `scope`."""
        if scope.get("wsdeny") is self.passage:
            return scope
        return {**self.request.offer(), **scope, "wsdeny": self.passage}

    # What the application gets.

    async def receive(self) -> Message:
        """The application's ``receive``."""
        if self.state is State.ACCEPTED:
            return await self._receive()
        async with self._lock:
            if self._is(State.CONNECTING) and not self._decided:
                await self._decide_late()
        if self._is(State.CONNECTING) and not self._connect_taken:
            self._connect_taken = True
            return {"type": "websocket.connect"}
        event = await self._next_event()
        if event is not None:
            return event
        if self._connect_taken and not self._disconnect_taken:
            self._disconnect_taken = True
            return {"type": "websocket.disconnect", "code": 1006}
        # A plain exception would leave the consumer's other tasks pending; a cancellation cleans up.
        raise asyncio.CancelledError

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        if self.state is State.ACCEPTED:
            await self._send(message)
            return
        async with self._lock:
            if self._is(State.ACCEPTED):
                await self._send(message)
            else:
                await self._answer(message)

    def _is(self, state: State) -> bool:
        """Whether the handshake is in `state` now, perhaps other than before the last await."""
        return self.state is state

    async def _next_event(self) -> Message | None:
        """The server's next event; None once denied, when a server need not send any."""
        if self.state is State.DENIED:
            return None
        if self.state is State.ACCEPTED:
            return await self._receive()
        self._denied = self._denied or asyncio.get_running_loop().create_future()
        event: asyncio.Future[Any] = asyncio.ensure_future(self._receive())
        waiting: set[asyncio.Future[Any]] = {event, self._denied}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not event.done():
                return None
            message: Message = event.result()
        finally:
            event.cancel()
        self._gone = self._is(State.CONNECTING) and message["type"] == "websocket.disconnect"
        return message

    async def _decide_late(self) -> None:
        """Decide by default: the application asked for an event, and nobody has decided yet."""
        policies = (self._default or default_policy(),)
        decision = await corridor.admit(self.passage, policies, hop)
        if decision is ALLOWED:
            self._decided = True
        else:
            await self.deny(decision)

    async def _answer(self, message: Message) -> None:
        """Take a message that the application sent before the handshake was answered."""
        kind = message.get("type")
        if self.state is State.DENIED:
            if kind == "websocket.close":
                return
            raise HandshakeDenied(f"The handshake was denied already; {kind!r} cannot be sent.")
        if kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.close":
            await self.deny(_denial_of_close(message))
        elif kind == "websocket.http.response.start":
            if self._own_denial is not None:
                raise ValueError(f"{kind!r} was sent twice.")
            self._own_denial = AppDenial(message)
        elif kind == "websocket.http.response.body":
            if self._own_denial is None:
                raise ValueError(f"{kind!r} was sent before 'websocket.http.response.start'.")
            response = self._own_denial.add(message)
            if response is not None:
                await self.deny(response)
        else:
            raise ValueError(
                f"Found the message {kind!r} before the handshake was answered. Send 'websocket.accept' "
                "or 'websocket.close' first."
            )

    async def _accept(self, message: Message) -> None:
        if not self._decided:
            await self._decide_late()
        if not self._is(State.CONNECTING):
            return
        if self._own_denial is not None:
            raise ValueError("'websocket.accept' was sent after 'websocket.http.response.start'.")
        headers: RawHeaders = emitter.check_headers(message)
        response = HttpResponse(status=101)
        del response["Content-Type"]
        try:
            await corridor.save_session(self.passage, response, hop)
        except Exception as error:  # noqa: BLE001 - a session that cannot be saved is no reason to accept
            await self.deny(denial_for(error))
            return
        if not self._is(State.CONNECTING):
            return  # Denied meanwhile, by an application that ended.
        headers += emitter.raw_headers(response)
        self.state = State.ACCEPTED
        await self._send(emitter.accept_message(message, headers, self._send))

    # Denying.

    async def deny(self, denial: Denial) -> None:
        """Deny the handshake, once and for all."""
        if self.state is not State.CONNECTING:
            return
        self.state = State.DENIED
        if self._denied is not None and not self._denied.done():
            self._denied.set_result(None)
        refusal = await corridor.refuse(self.passage, denial, hop)
        try:
            how = self._deny_with or conf.DENY_WITH
            await emitter.emit_denial(refusal, self._scope, self._send, how)
        except OSError:
            pass  # The client has left, and the server says so as ASGI asks.

    async def _deny_here(self, denial: Denial, send: Send) -> None:
        """Deny the handshake, or the stream of an endpoint that was reached after the accept."""
        if self.state is State.ACCEPTED:
            refusal = await corridor.refuse(self.passage, denial, hop)
            await send(emitter.close_message(refusal))
        else:
            await self.deny(denial)


async def _receive_over() -> Message:
    raise HandshakeDenied("The connection is over; nothing can be received.")


async def _send_over(message: Message) -> None:
    raise HandshakeDenied(f"The connection is over; {message.get('type')!r} cannot be sent.")


def _denial_of_close(message: Message) -> Deny:
    """A close before the accept is a denial: 403, or N where the code is 4000 + N (400-599)."""
    code: Any = message.get("code")
    reason = message.get("reason") or ""
    if isinstance(code, int) and 4400 <= code <= 4599:
        return Deny(code - 4000, reason)
    return Deny(403)


def _no_answer(app: ASGIApp) -> Exception:
    return ImproperlyConfigured(f"{app!r} ended without an answer to the handshake. It must accept or close.")


def _cancelled(app: ASGIApp, error: BaseException) -> Exception:
    problem = RuntimeError(f"What {app!r} awaited was cancelled before it answered the handshake.")
    problem.__cause__ = error
    return problem
