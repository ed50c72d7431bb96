"""Test cases with a live server: Django's `LiveServerTestCase` for sites with sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.test import TransactionTestCase
from django.utils.functional import classproperty

from .daphneserver import DaphneServer
from .uvicornserver import UvicornServer

if TYPE_CHECKING:
    from .live_server import LiveServer


class _LiveServerTestCase(TransactionTestCase):
    """A server for the tests of a class, on ``ASGI_APPLICATION``.

    Its address is `live_server_url` (``http://127.0.0.1:…``) and `live_server_ws_url` (``ws://127.0.0.1:…``).
    """

    host = "127.0.0.1"
    #: Whether static files are served, as by ``runserver``.
    serve_static = True
    server_class: ClassVar[type[LiveServer]]
    live_server: ClassVar[LiveServer]

    @classproperty
    def live_server_url(cls) -> str:  # noqa: N805
        return cls.live_server.url

    @classproperty
    def live_server_ws_url(cls) -> str:  # noqa: N805
        return cls.live_server.ws_url

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.live_server = cls.enterClassContext(
            cls.server_class(host=cls.host, serve_static=cls.serve_static)
        )


class DaphneLiveServerTestCase(_LiveServerTestCase):
    """Tests against our Daphne, in a process of its own; see `DaphneServer`."""

    server_class = DaphneServer


class UvicornLiveServerTestCase(_LiveServerTestCase):
    """Tests against uvicorn, in a thread; see `UvicornServer`."""

    server_class = UvicornServer
