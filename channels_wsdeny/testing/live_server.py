"""A live server: uvicorn on a free port of the loopback interface, for browsers and other clients.

On Daphne, Channels' `ChannelsLiveServerTestCase` runs a site, with `channels_wsdeny.daphne.testing.DaphneProcess`.
"""

from __future__ import annotations

import socket
import threading
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from channels.routing import get_default_application
from channels.security.websocket import OriginValidator
from django.apps import apps
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import TransactionTestCase, modify_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import ASGIApp, Receive, Scope, Send

#: Seconds that open sockets and requests have to end when the server stops.
_GRACE = 2


@dataclass(frozen=True)
class LiveServer:
    """The address of a running server: `url` for HTTP and `ws_url` for WebSockets, without a slash at the end."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address for HTTP."""
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The address for WebSockets."""
        return f"ws://{self.host}:{self.port}"


@contextmanager
def live_server(
    application: ASGIApp | None = None, *, host: str = "127.0.0.1", serve_static: bool = True
) -> Iterator[LiveServer]:
    """Serve `application` (``ASGI_APPLICATION`` if None) on uvicorn, in a thread.

    Static files are served as by ``runserver`` if `serve_static` is true and ``django.contrib.staticfiles``
    installed. While it runs, `host` is one of ``ALLOWED_HOSTS``, and Channels' `OriginValidator` accepts its pages.

    It uses the test databases over connections of its own, so it sees only what a test has committed:
    `TransactionTestCase`, or ``transactional_db``.

    Raises `ImportError` without uvicorn, `ImproperlyConfigured` for an in-memory SQLite database, and
    `RuntimeError` if the server does not start.
    """
    import uvicorn  # noqa: PLC0415 - optional

    for connection in connections.all():
        _require_shareable(connection)
    served: Any = get_default_application() if application is None else application
    if serve_static and apps.is_installed("django.contrib.staticfiles"):
        served = ASGIStaticFilesHandler(served)
    server = uvicorn.Server(
        uvicorn.Config(
            _isolate_queries(served),
            loop="asyncio",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    with (
        modify_settings(ALLOWED_HOSTS={"append": host}),
        _allow_origin(host),
        socket.create_server((host, 0)) as listener,
    ):

        def run() -> None:
            with suppress(SystemExit):  # of uvicorn, after its log record of what went wrong
                server.run([listener])

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                thread.join(0.01)
            if not server.started:
                raise RuntimeError("The live server did not start: its log says why.")
            yield LiveServer(host, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


class UvicornLiveServerTestCase(TransactionTestCase):
    """A `TransactionTestCase` with a live server of ``ASGI_APPLICATION`` on uvicorn, in a thread.

    Its addresses are `live_server_url` (``http://127.0.0.1:…``) and `live_server_ws_url` (``ws://127.0.0.1:…``).
    """

    host = "127.0.0.1"
    #: Whether static files are served, as by ``runserver``.
    serve_static = True
    live_server_url: ClassVar[str]
    live_server_ws_url: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        server = cls.enterClassContext(live_server(host=cls.host, serve_static=cls.serve_static))
        cls.live_server_url, cls.live_server_ws_url = server.url, server.ws_url


def _require_shareable(connection: Any) -> None:
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        raise ImproperlyConfigured(
            f"A live server has connections of its own, which cannot see the in-memory database "
            f"{connection.alias!r} of the tests. Give that a file in the settings: DATABASES"
            f"[{connection.alias!r}]['TEST'] = {{'NAME': BASE_DIR / 'test.sqlite3'}}."
        )


def _allow_origin(host: str) -> AbstractContextManager[Any]:
    """Have Channels' `OriginValidator` accept pages of `host`.

    `AllowedHostsOriginValidator` reads ``ALLOWED_HOSTS`` when ``asgi.py`` is imported, which may be before
    the live server adds its host.
    """
    validate = OriginValidator.validate_origin

    def validate_origin(validator: Any, origin: Any) -> Any:
        return (origin is not None and origin.hostname == host) or validate(validator, origin)

    return mock.patch.object(OriginValidator, "validate_origin", validate_origin)


def _isolate_queries(application: ASGIApp) -> ASGIApp:
    """Give each request and socket a thread of its own for queries.

    By default they share one, which the test may block while it waits for this server's response.
    """

    async def isolated(scope: Scope, receive: Receive, send: Send) -> None:
        async with ThreadSensitiveContext():
            try:
                await application(scope, receive, send)
            finally:
                await sync_to_async(connections.close_all)()

    return isolated
