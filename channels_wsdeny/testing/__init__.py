"""What a site's tests import: a client and a communicator for sockets, assertions, live servers.

It needs no Daphne; `DaphneLiveServerTestCase` does, and `UvicornLiveServerTestCase` needs uvicorn.
"""

from __future__ import annotations

from .assertions import assert_accepted, assert_denied
from .client import WebsocketClient
from .clientsocket import ClientSocket
from .communicator import WebsocketCommunicator
from .live_server import LiveServer
from .livetestcase import DaphneLiveServerTestCase, UvicornLiveServerTestCase
from .responses import Closed, Denied, HandshakeResponse

__all__ = [
    "ClientSocket",
    "Closed",
    "DaphneLiveServerTestCase",
    "Denied",
    "HandshakeResponse",
    "LiveServer",
    "UvicornLiveServerTestCase",
    "WebsocketClient",
    "WebsocketCommunicator",
    "assert_accepted",
    "assert_denied",
]
