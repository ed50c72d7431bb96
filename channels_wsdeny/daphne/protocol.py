"""One WebSocket connection: Daphne's, with a handshake that ends in exactly one answer.

An application that gives a bad answer, none, or none in time is answered for (500, 500, 503). Every
answer but the accept goes through `WebSocketProtocol.deny`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from autobahn.websocket.types import ConnectionDeny
from daphne.ws_protocol import WebSocketProtocol as DaphneWebSocketProtocol
from twisted.internet.interfaces import ISSLTransport

from .close import close_payload
from .handshake import Acceptance, Handshake
from .response import Response

if TYPE_CHECKING:
    import asyncio

    from ..types import Message

logger = logging.getLogger(__name__)

_ANSWERS = frozenset({"websocket.accept", "websocket.http.response.start", "websocket.http.response.body"})


class WebSocketProtocol(DaphneWebSocketProtocol):  # type: ignore[misc]
    """Daphne's protocol, plus ASGI's denial response, accept headers and close reasons.

    Names in camel case are Daphne's, Autobahn's and Twisted's.
    """

    #: What a trusted proxy said: Daphne sets it only where there is one.
    client_scheme: str | None = None
    #: The application's side of the handshake, once the client's request is read and valid.
    handshake: Handshake | None = None
    #: What a client that gets no socket gets.
    response: Response | None = None

    @property
    def pending(self) -> bool:
        """Whether the handshake waits for the application."""
        return self.state == self.STATE_CONNECTING and hasattr(self, "handshake_deferred")

    @property
    def scheme(self) -> str:
        """The scope's ``scheme``, ``ws`` or ``wss``: a trusted proxy's word, or the transport's."""
        if self.client_scheme:
            secure = self.client_scheme.split(",")[0].strip().lower() in {"https", "wss"}
        else:
            secure = ISSLTransport.providedBy(self.transport)
        return "wss" if secure else "ws"

    # From the application

    def handle_reply(self, message: Message) -> None:
        """Act on a message (ASGI's WebSocket specification and its denial extension).

        Raises `ValueError` for an unknown message or one out of turn, and `TypeError` or
        `ValueError` for a malformed one. Of a bad answer the client gets a 500.
        """
        kind = message["type"]
        if kind == "websocket.send":
            super().handle_reply(message)
        elif kind == "websocket.close" and not self.pending:
            self.sendCloseFrame(*close_payload(message))
        elif kind in _ANSWERS or kind == "websocket.close":
            self._answer(message)
        else:
            raise ValueError(f"A WebSocket application sent {kind!r}: there is no such message.")

    def _answer(self, message: Message) -> None:
        if not self.pending or self.handshake is None:
            raise ValueError(f"{message['type']} came after websocket.accept: a handshake has one answer.")
        try:
            answer = self.handshake.answer(message)
        except (TypeError, ValueError):
            self.deny(Response(500))
            raise
        if isinstance(answer, Acceptance):
            # Daphne hands its argument on as it is, and Autobahn takes a pair too.
            self.serverAccept(tuple(answer))
        elif answer is not None:
            self.deny(answer)

    def application_ended(self, application: asyncio.Future[None]) -> None:
        """Answer for an application that has returned, raised or, at shutdown, been cancelled without.

        What it raised is logged by the server's poll, up to a second later.
        """
        if not self.pending:
            return
        if application.cancelled():
            self.deny(Response(503))
            return
        if application.exception() is None:
            logger.error("The application returned without answering the handshake of %s", self)
        self.deny(Response(500))

    def handle_exception(self, exception: BaseException) -> None:
        """Called by the server's poll, and where the application could not even be started."""
        if self.pending:
            self.deny(Response(500))
        elif self.state == self.STATE_OPEN:
            super().handle_exception(exception)

    def applicationCreateFailed(self, failure: Any) -> None:  # noqa: N802
        """Log the failure, which Daphne returns to nobody, and answer."""
        super().applicationCreateFailed(failure)
        # Daphne makes the handshake's Deferred only after this.
        self.factory.reactor.callLater(0, self.handle_exception, failure.value)

    # To the client

    def deny(self, response: Response) -> None:
        """End a pending handshake with `response`, and the connection once it is flushed.

        The application gets its ``websocket.disconnect`` at once: a slow client does not hold it.
        """
        self.response = response
        denial = ConnectionDeny(response.status, response.phrase)  # type: ignore[no-untyped-call]
        self.handshake_deferred.errback(denial)
        self.server.protocol_disconnected(self)
        if hasattr(self, "application_queue"):
            code = self.CLOSE_STATUS_CODE_ABNORMAL_CLOSE
            self.application_queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.muted = True
        details = {
            # Without the query, where tokens are: as Daphne logs handshakes.
            "path": self.request.path,
            "status": response.status,
            "method": "GET",
            "client": "{}:{}".format(*self.client_addr) if self.client_addr else None,
            "time_taken": self.duration(),
            "size": len(response.body),
        }
        self.server.log_action("http", "complete", details)

    def sendHttpErrorResponse(  # noqa: N802
        self,
        code: int,
        reason: str,
        responseHeaders: Any = None,  # noqa: N803
    ) -> None:
        """Write the response; where Autobahn refuses a malformed request itself, its `reason`."""
        if self.response is None:
            headers = [(name.encode(), value.encode()) for name, value in responseHeaders or ()]
            if code == 405:
                # RFC 9110 section 15.5.6 demands it.
                headers.append((b"allow", b"GET"))
            # The reason of a 500 quotes an exception.
            self.response = Response(code, headers, phrase=reason if code < 500 else "")
        self.sendData(self.response.encode(self.factory.server))

    # From Twisted and Autobahn

    def onConnect(self, request: Any) -> Any:  # noqa: N802
        """Start the application on a valid `request`."""
        self.handshake = Handshake(request.protocols)
        return super().onConnect(request)

    def processHandshake(self) -> None:  # noqa: N802
        """Read the request, once: what a client sends before its answer is no second request."""
        if self.handshake is None:
            super().processHandshake()

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:  # noqa: N802, N803
        """Tell server and application, if the handshake got as far as them."""
        if self.handshake is not None:
            super().onClose(wasClean, code, reason)

    def onOpenHandshakeTimeout(self) -> None:  # noqa: N802
        """Autobahn's timer, which would reset the connection."""
        if self.pending:
            self._time_out()
        else:
            super().onOpenHandshakeTimeout()

    def check_timeouts(self) -> None:
        """Called by the server every other second."""
        if not self.pending:
            super().check_timeouts()
        elif self.duration() > self.server.websocket_connect_timeout:
            self._time_out()

    def _time_out(self) -> None:
        logger.warning("The application did not answer the handshake of %s in time", self)
        self.deny(Response(503))
