"""The server: Daphne's, with the package's protocol and handshake timeouts longer than ``POLICY_TIMEOUT``."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from daphne.server import Server as DaphneServer
from django.conf import settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..conf import KEYS, conf
from .protocol import WebSocketProtocol

if TYPE_CHECKING:
    from ..types import Message, Scope


#: What limits a handshake, and the seconds beyond for what swallows its cancellation, and for response hooks.
_LIMITS = ("POLICY_TIMEOUT", "ACCEPT_TIMEOUT")
_MARGIN = 2.0
#: Seconds that applications have to end once the server ends.
_PARTING = 2.0


class Server(DaphneServer):
    """Takes what Daphne's `Server` takes.

    ``websocket_connect_timeout`` and ``websocket_handshake_timeout`` (seconds) are lower bounds, so that a
    handshake that runs into ``POLICY_TIMEOUT`` or ``ACCEPT_TIMEOUT`` is still answered by the application. -1 means no
    limit.
    """

    connections: dict[Any, dict[str, Any]]
    websocket_connect_timeout: float
    websocket_handshake_timeout: float
    root_path: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A plain ASGI application may never configure Django.
        limits = [getattr(conf, name) if settings.configured else KEYS[name].default for name in _LIMITS]
        longest = sum(seconds or 0.0 for seconds in limits) + _MARGIN
        connect, handshake = self.websocket_connect_timeout, self.websocket_handshake_timeout
        self.websocket_connect_timeout = max(connect, longest) if connect >= 0 else math.inf
        # Autobahn's value for no limit is 0.
        self.websocket_handshake_timeout = max(handshake, longest) if handshake > 0 else 0

    @property
    def ws_factory(self) -> Any:
        """The factory of WebSocket connections, which Daphne's `run` makes and assigns."""
        return self._ws_factory

    @ws_factory.setter
    def ws_factory(self, factory: Any) -> None:
        factory.protocol = WebSocketProtocol
        # Autobahn would add a second Server header to that of an application; the protocol adds the one.
        factory.server = ""
        self._ws_factory = factory

    def create_application(self, protocol: Any, scope: Scope) -> asyncio.Queue[Message] | None:
        """Start the application; the protocol of a WebSocket is called when it ends, not at the next poll."""
        scope["root_path"] = self.root_path  # Daphne would let any client name its own, by ``Daphne-Root-Path``.
        if isinstance(protocol, WebSocketProtocol):
            scope.update(scheme=protocol.scheme, extensions={"websocket.http.response": {}})
        queue: asyncio.Queue[Message] | None = super().create_application(protocol, scope)
        if isinstance(protocol, WebSocketProtocol) and queue is not None:
            application = self.connections[protocol]["application_instance"]
            application.add_done_callback(protocol.application_ended)
        return queue

    def protocol_disconnected(self, protocol: Any) -> None:
        """Mark a connection as closed, unless Daphne has forgotten it, as it does before slow clients end."""
        if protocol in self.connections:
            super().protocol_disconnected(protocol)

    def kill_all_applications(self) -> Any:
        """Cancel the applications before shutdown, which denies pending handshakes; a Deferred for that."""
        # Daphne expects an application of each, but an HTTP request that became a handshake has none.
        for protocol in [each for each in self.connections if "application_instance" not in self.connections[each]]:
            del self.connections[protocol]
        applications = [each["application_instance"] for each in self.connections.values()]
        ended = super().kill_all_applications()
        if applications:  # Daphne waits for the first that was cancelled.
            ended = Deferred.fromFuture(asyncio.ensure_future(asyncio.wait(applications, timeout=_PARTING)))
        # One more turn of the loop writes the answers to the transports.
        return ended.addCallback(lambda _: deferLater(reactor, 0))
