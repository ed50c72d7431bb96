"""Test tools for sites: a client and a communicator for WebSockets, assertions, a live server.

Nothing here needs Daphne, and only the live server needs uvicorn.
"""

from __future__ import annotations

from .client import WebsocketClient
from .communicator import ClientSocket, WebsocketCommunicator
from .live_server import LiveServer, UvicornLiveServerTestCase
from .responses import Closed, Denied, HandshakeResponse, assert_accepted, assert_denied

__all__ = [
    "ClientSocket",
    "Closed",
    "Denied",
    "HandshakeResponse",
    "LiveServer",
    "UvicornLiveServerTestCase",
    "WebsocketClient",
    "WebsocketCommunicator",
    "assert_accepted",
    "assert_denied",
]
