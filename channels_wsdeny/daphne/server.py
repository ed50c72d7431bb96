"""The server: Daphne's, with our protocol and handshake timeouts above the policies' own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from daphne.server import Server as DaphneServer
from django.conf import settings
from twisted.internet import reactor
from twisted.internet.task import deferLater

from ..conf import Settings, conf
from .protocol import WebSocketProtocol

if TYPE_CHECKING:
    import asyncio

    from ..types import Message, Scope


class Server(DaphneServer):  # type: ignore[misc]
    """Takes what Daphne's takes.

    ``websocket_connect_timeout`` and ``websocket_handshake_timeout`` (seconds) are lower bounds: a
    policy that runs into ``POLICY_TIMEOUT`` must still be able to answer. -1 is no limit.
    """

    connections: dict[Any, dict[str, Any]]
    websocket_connect_timeout: float
    websocket_handshake_timeout: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A plain ASGI application may never configure Django.
        timeout = conf.POLICY_TIMEOUT if settings.configured else Settings.POLICY_TIMEOUT.default
        connect, handshake = self.websocket_connect_timeout, self.websocket_handshake_timeout
        self.websocket_connect_timeout = max(connect, timeout + 1) if connect >= 0 else math.inf
        # Autobahn spells no limit 0.
        self.websocket_handshake_timeout = max(handshake, timeout + 1) if handshake > 0 else 0

    @property
    def ws_factory(self) -> Any:
        """The factory of WebSocket connections, which Daphne's `run` makes; it makes ours."""
        return self._ws_factory

    @ws_factory.setter
    def ws_factory(self, factory: Any) -> None:
        factory.protocol = WebSocketProtocol
        self._ws_factory = factory

    def create_application(self, protocol: Any, scope: Scope) -> asyncio.Queue[Message] | None:
        """Start the application; of a WebSocket's, watch the end rather than wait for the poll."""
        if not isinstance(protocol, WebSocketProtocol):
            return super().create_application(protocol, scope)  # type: ignore[no-any-return]
        scope["scheme"] = protocol.scheme
        scope["extensions"] = {"websocket.http.response": {}}
        queue: asyncio.Queue[Message] | None = super().create_application(protocol, scope)
        if queue is not None:
            application = self.connections[protocol]["application_instance"]
            application.add_done_callback(protocol.application_ended)
        return queue

    async def handle_reply(self, protocol: Any, message: Message) -> None:
        """Pass a message of the application on. Raises `ValueError` if it has no type."""
        if "type" not in message:
            raise ValueError(f"An application sent a message without 'type', with {list(message)}.")
        await super().handle_reply(protocol, message)

    def protocol_disconnected(self, protocol: Any) -> None:
        """Mark a connection as closed. A client may finish reading long after it was cleaned up."""
        if protocol in self.connections:
            super().protocol_disconnected(protocol)

    def kill_all_applications(self) -> Any:
        """Cancel the applications before shutdown; a Deferred for their ends.

        Handshakes that were pending get their answers.
        """
        # Daphne expects an application of each, but an HTTP request that became a handshake has none.
        self.connections = {
            protocol: details
            for protocol, details in self.connections.items()
            if "application_instance" in details
        }
        ended = super().kill_all_applications()
        # One more turn writes what their ends have put into the transports.
        return ended.addCallback(lambda _: deferLater(reactor, 0))
