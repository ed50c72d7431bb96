"""What a site's tests import: a client and a communicator for sockets, assertions, live servers.

It needs no Daphne; `DaphneLiveServerTestCase` does, and `UvicornLiveServerTestCase` needs uvicorn.
"""

from __future__ import annotations

from .answers import Closed, Denied, HandshakeResponse
from .assertions import assert_accepted, assert_denied
from .client import WebsocketClient
from .clientsocket import ClientSocket
from .communicator import WebsocketCommunicator
from .liveserver import LiveServer
from .livetestcase import DaphneLiveServerTestCase, UvicornLiveServerTestCase

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
