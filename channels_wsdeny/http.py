"""The HTTP door: policies for ASGI apps over ``http`` that are not Django's handler.

`AsyncHttpConsumer` above all. An exception before the response has started becomes a denial; later it
reaches the server unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.http import HttpResponse

from . import corridor, emitter
from .decisions import ALLOWED, Denial
from .exceptions import HandshakeDenied
from .failures import denial_for
from .handshake import AppRequest
from .passage import Passage
from .pool import hop

if TYPE_CHECKING:
    from .policies import Policy
    from .types import ASGIApp, Message, Receive, Scope, Send


async def enter_endpoint(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, policies: tuple[Policy, ...]
) -> None:
    """Run `app` for an HTTP scope once `policies` allow it; those that did before are not asked again."""
    passage = scope.get("wsdeny")
    exchange = passage.door if isinstance(passage, Passage) else None
    if not isinstance(exchange, Exchange):
        exchange = Exchange(scope, receive, send)
        receive, send = exchange.receive, exchange.send
    await exchange.enter_endpoint(app, scope, receive, send, policies)


class Exchange:
    """One HTTP request, and the `receive` and `send` that the application gets for it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = AppRequest(scope)
        self.passage = Passage(self.request, self)
        self.request.wsdeny = self.passage  # type: ignore[attr-defined]
        self._receive, self._send = receive, send
        #: Whether there is nothing more to answer: a response has started, or the client has left.
        self._over = False
        self._denied = False

    async def enter_endpoint(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, policies: tuple[Policy, ...]
    ) -> None:
        """Run `app` once `policies` allow it; before the response, whatever it raises is a denial."""
        try:
            self.request.begin()
        except BadRequest as error:
            await self._deny(denial_for(error), send)
            return
        passage = scope.get("wsdeny")
        passage = (passage if isinstance(passage, Passage) else self.passage).within(scope)
        self.passage = passage
        decision = await corridor.admit(passage, passage.remaining(policies), hop)
        if decision is not ALLOWED:
            await self._deny(decision, send)
            return
        offer = passage.request.offer()  # type: ignore[attr-defined]
        scope = {**offer, **scope, "session": offer["session"], "user": offer["user"], "wsdeny": passage}
        try:
            await app(scope, receive, send)
        except HandshakeDenied:
            if not self._denied:
                raise
        except Exception as error:
            if self._over:
                raise
            await self._deny(denial_for(error), send)
        else:
            if not self._over:
                problem = f"{app!r} ended without a response to the request."
                await self._deny(denial_for(ImproperlyConfigured(problem)), send)

    async def receive(self) -> Message:
        """The application's ``receive``."""
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self._over = True
        return event

    async def send(self, message: Message) -> None:
        """The application's ``send``: the session is saved with the start of the response."""
        if self._denied:
            raise HandshakeDenied(f"The request was denied already; {message['type']!r} cannot be sent.")
        if message["type"] == "http.response.start" and not self._over:
            headers = emitter.check_headers(message)
            response = HttpResponse(status=message["status"])
            del response["Content-Type"]
            await corridor.save_session(self.passage, response, hop)
            message = {**message, "headers": headers + emitter.raw_headers(response)}
            self._over = True
        await self._send(message)

    async def _deny(self, denial: Denial, send: Send) -> None:
        """Answer with a denial, by the `send` of whoever wanted to run."""
        if self._over:
            return
        self._over = True
        refusal = await corridor.refuse(self.passage, denial, hop)
        start, body = emitter.messages(refusal, "http", self._send)
        try:
            await send(start)
            await send(body)
        except OSError:
            pass  # The client has left, and the server says so as ASGI asks.
        finally:
            self._denied = True
