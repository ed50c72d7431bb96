"""One WebSocket connection: Daphne's, with a handshake that gets exactly one answer.

An application that sends a malformed answer, or ends without one, gets its client a 500; one that takes too
long or is cancelled, a 503. Every answer but the accept is sent by `WebSocketProtocol.deny`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

from autobahn.websocket.types import ConnectionDeny
from daphne.ws_protocol import WebSocketProtocol as DaphneWebSocketProtocol
from twisted.internet.interfaces import ISSLTransport

from ..headers import BODILESS, CLOSE_CODES, check_headers, cut_reason
from ..status import phrase

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from ..types import Message, RawHeaders

logger = logging.getLogger(__name__)

#: What Autobahn takes for an accept: the subprotocol as the client spelled it, and headers.
Accept: TypeAlias = tuple[str | None, dict[str, list[str]]]

_DENIAL = frozenset({"websocket.http.response.start", "websocket.http.response.body"})
#: Headers of a body, which a 101 does not have (RFC 9110 section 8.6, RFC 9112 section 6.1).
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
#: Headers of a denial that the server sets itself (RFC 9112 sections 6 and 9).
_CONNECTION = _FRAMING | {b"connection", b"keep-alive"}
#: Headers of a 101 that the server sets itself (RFC 6455 section 4.2.2).
_HANDSHAKE = frozenset({b"connection", b"upgrade"})
#: Bytes that a client may send while its handshake is not answered. It must wait (RFC 6455 section 4.1).
_MOST_EARLY = 64 * 1024


@dataclass
class Response:
    """A denial. It always ends the connection.

    `headers` are the application's; `encode` adds and corrects those that the server sets. `phrase` is by
    default the registered one of `status`, a number from 200 to 599.
    """

    status: int
    headers: RawHeaders = field(default_factory=list)
    body: bytes = b""
    phrase: str = ""

    def __post_init__(self) -> None:
        if self.status in BODILESS:
            self.body = b""

    def encode(self, server_name: str) -> bytes:
        """The bytes on the wire (RFC 9112). `server_name` is Daphne's ``--server-name``, perhaps empty."""
        given = {name.lower() for name, _ in self.headers}
        headers = [header for header in self.headers if header[0].lower() not in _CONNECTION]
        if b"date" not in given:
            headers.insert(0, (b"date", formatdate(usegmt=True).encode()))
        if server_name and b"server" not in given:
            headers.insert(0, (b"server", server_name.encode()))
        if self.status not in BODILESS:
            headers.append((b"content-length", str(len(self.body)).encode()))
        # A 426 must name its Upgrade header here (RFC 9110 section 7.8).
        headers.append((b"connection", b"upgrade, close" if b"upgrade" in given else b"close"))
        # Some reasons of Autobahn's quote the client's request.
        reason = re.sub(r"[^ -~]", "?", self.phrase or phrase(self.status))
        lines = [f"HTTP/1.1 {self.status} {reason}".encode()]
        lines += [name + b": " + value for name, value in headers]
        return b"\r\n".join([*lines, b"", self.body])


def accept_headers(message: Message, server_name: str) -> dict[str, list[str]]:
    """The headers of a ``websocket.accept`` as Autobahn takes them, a list of values for each name.

    `server_name`, perhaps empty, is added unless the application gives a ``Server`` of its own. Headers that
    frame a body are left out. Autobahn encodes values as UTF-8; bytes that are not UTF-8 are replaced.

    Raises what `check_headers` raises, and `ValueError` for a header of the handshake itself.
    """
    headers: dict[str, list[str]] = {}
    for raw_name, value in check_headers(message):
        name = raw_name.lower()
        if name == b"sec-websocket-protocol":
            raise ValueError(f"websocket.accept has the header {raw_name!r}: give it as 'subprotocol'.")
        if name in _HANDSHAKE or name.startswith(b"sec-websocket-"):
            raise ValueError(f"websocket.accept has the header {raw_name!r}: leave it to the server.")
        if name not in _FRAMING:
            headers.setdefault(raw_name.decode("ascii"), []).append(value.decode(errors="replace"))
    if server_name and not any(name.lower() == "server" for name in headers):
        headers["Server"] = [server_name]
    return headers


class Handshake:
    """A pending handshake, whose client offered the subprotocols `offered`.

    A denial of ASGI's extension ``websocket.http.response`` is a start and one or more parts of a body, which
    are kept until the last one is there.
    """

    def __init__(self, offered: Iterable[str], server_name: str) -> None:
        # Daphne's scope has them unquoted.
        self._offered: dict[object, str] = {unquote(name): name for name in offered}
        self._server_name = server_name
        self._start: tuple[int, RawHeaders] | None = None
        self._parts: list[bytes] = []

    def answer(self, message: Message) -> Accept | Response | None:
        """The answer to the client once `message` completes it; None while a denial is incomplete.

        Raises `ValueError` for a message out of turn, and `TypeError` or `ValueError` for a malformed one.
        """
        kind = message["type"]
        if kind == "websocket.http.response.body":
            return self._add_body(message)
        if self._start is not None:
            raise ValueError(
                f"{kind} came after websocket.http.response.start: finish that denial with "
                "websocket.http.response.body."
            )
        if kind == "websocket.accept":
            return self._subprotocol(message), accept_headers(message, self._server_name)
        if kind == "websocket.close":
            return Response(403, phrase="Access denied")
        status = message.get("status")
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"{kind} has the status {status!r}: give one from 200 to 599.")
        # Autobahn takes the number itself, not a member of HTTPStatus.
        self._start = int(status), check_headers(message)
        return None

    def _add_body(self, message: Message) -> Response | None:
        kind, body = message["type"], message.get("body", b"")
        if self._start is None:
            raise ValueError(f"{kind} came before websocket.http.response.start: send that first.")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"{kind} has a body of {type(body).__name__}: give bytes.")
        self._parts.append(bytes(body))
        if message.get("more_body", False):
            return None
        return Response(*self._start, b"".join(self._parts))

    def _subprotocol(self, message: Message) -> str | None:
        chosen = message.get("subprotocol")
        if chosen is None:
            return None
        if chosen not in self._offered:
            # What the client has offered stays out of the message: it may be a token.
            raise ValueError(
                f"websocket.accept has the subprotocol {chosen!r}, which the client has not offered: choose from the "
                "scope's 'subprotocols', or None."
            )
        return self._offered[chosen]


class WebSocketProtocol(DaphneWebSocketProtocol):
    """Daphne's protocol, with ASGI's denial response, accept headers and close reasons.

    Names in camel case are Daphne's, Autobahn's and Twisted's.
    """

    #: The scheme that a trusted proxy names; Daphne sets it only where there is one.
    client_scheme: str | None = None
    #: The application's side of the handshake, once the client's request is read and valid.
    handshake: Handshake | None = None
    #: The denial, once there is one.
    response: Response | None = None

    @property
    def pending(self) -> bool:
        """Whether the handshake waits for the application."""
        return self.state == self.STATE_CONNECTING and hasattr(self, "handshake_deferred")

    @property
    def scheme(self) -> str:
        """The scope's ``scheme``, ``ws`` or ``wss``: a trusted proxy's, else the transport's."""
        if self.client_scheme:
            secure = self.client_scheme.split(",")[0].strip().lower() in {"https", "wss"}
        else:
            secure = ISSLTransport.providedBy(self.transport)
        return "wss" if secure else "ws"

    # From the application

    def handle_reply(self, message: Message) -> None:
        """Act on a message (ASGI's WebSocket specification and its denial extension).

        Raises `ValueError` for an unknown message or one out of turn, and `TypeError` or `ValueError` for a
        malformed one. A malformed answer denies the handshake with a 500.
        """
        kind = message["type"]
        if kind == "websocket.send":
            super().handle_reply(message)
        elif kind == "websocket.close" and not self.pending:
            self.sendCloseFrame(*close_payload(message))
        elif kind in _DENIAL or kind in {"websocket.accept", "websocket.close"}:
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
        if isinstance(answer, Response):
            self.deny(answer)
        elif answer is not None:
            # Daphne passes its argument on unchanged, and Autobahn takes a pair as well.
            self.serverAccept(answer)

    def application_ended(self, application: asyncio.Future[None]) -> None:
        """Deny a handshake whose application has returned, raised or been cancelled without an answer.

        The server's poll logs what it raised, up to a second later.
        """
        if self.pending:
            if not application.cancelled() and application.exception() is None:
                logger.error("The application returned without answering the handshake of %s", self)
            self.deny(Response(503 if application.cancelled() else 500))

    def handle_exception(self, exception: BaseException) -> None:
        """Called by the server's poll, and where the application could not even be started."""
        if self.pending:
            self.deny(Response(500))
        elif self.state == self.STATE_OPEN:
            super().handle_exception(exception)

    def applicationCreateFailed(self, failure: Any) -> None:
        """Log the failure, and deny the handshake, which Daphne does not."""
        super().applicationCreateFailed(failure)
        # Daphne makes the handshake's Deferred only after this.
        self.factory.reactor.callLater(0, self.handle_exception, failure.value)

    # To the client

    def deny(self, response: Response) -> None:
        """End a pending handshake with `response`, and the connection once it is flushed.

        The application gets its ``websocket.disconnect`` at once, however slow the client reads.
        """
        self.response = response
        denial = ConnectionDeny(response.status, response.phrase)
        self.handshake_deferred.errback(denial)
        self.server.protocol_disconnected(self)
        if hasattr(self, "application_queue"):
            code = self.CLOSE_STATUS_CODE_ABNORMAL_CLOSE
            self.application_queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.muted = True
        details = {
            # Without the query string, which may hold a token: as Daphne logs handshakes.
            "path": self.request.path,
            "status": response.status,
            "method": "GET",
            "client": "{}:{}".format(*self.client_addr) if self.client_addr else None,
            "time_taken": self.duration(),
            "size": len(response.body),
        }
        self.server.log_action("http", "complete", details)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        """Write the denial; where Autobahn refuses a malformed request itself, one with its `reason`."""
        if self.response is None:
            headers = [(name.encode(), value.encode()) for name, value in responseHeaders or ()]
            if code == 405:
                # RFC 9110 section 15.5.6 requires it.
                headers.append((b"allow", b"GET"))
            # The reason of a 500 quotes an exception.
            self.response = Response(code, headers, phrase=reason if code < 500 else "")
        self.sendData(self.response.encode(self.factory.server_class.server_name))

    # From Twisted and Autobahn

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sends, and drop one that sends much before its answer.

        Autobahn would keep all of it, and copy it for each part that comes.
        """
        super().dataReceived(data)
        if self.pending and len(self.data) > _MOST_EARLY:
            self.dropConnection(abort=True)

    def onConnect(self, request: Any) -> Any:
        """Start the application on a valid `request`."""
        self.handshake = Handshake(request.protocols, self.factory.server_class.server_name)
        return super().onConnect(request)

    def processHandshake(self) -> None:
        """Read the request, once: what a client sends before its answer is no second request."""
        if self.handshake is None:
            super().processHandshake()

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        """Report the end to the server and the application, if the handshake has reached them."""
        if self.handshake is not None:
            super().onClose(wasClean, code, reason)

    def onOpenHandshakeTimeout(self) -> None:
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


def close_payload(message: Message) -> tuple[int, bytes | None]:
    """The code and the UTF-8 reason of a ``websocket.close``; without a code it is 1000.

    A long reason is cut at a character. Raises `TypeError` for a reason that is not a string, and
    `ValueError` for a code that an endpoint must not send.
    """
    code, reason = message.get("code"), message.get("reason")
    if code is None:
        code = 1000
    if type(code) is not int or code not in CLOSE_CODES:
        raise ValueError(f"websocket.close has the code {code!r}: give 1000-1003, 1007-1014 or 3000-4999.")
    if not reason:
        return code, None
    if not isinstance(reason, str):
        raise TypeError(f"websocket.close has a reason of {type(reason).__name__}: give a string.")
    return code, cut_reason(reason).encode()
