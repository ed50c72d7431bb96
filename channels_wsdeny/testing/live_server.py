"""Live servers: a real server with the site in it, on a free loopback port, while a test needs it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from channels.routing import get_default_application
from django.apps import apps
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.db import connections
from django.test import modify_settings

from .origins import allowed_hosts_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from django.db.backends.base.base import BaseDatabaseWrapper

    from ..types import ASGIApp

#: Seconds that a server has to start, and to stop.
PATIENCE = 30.0


class LiveServer(ABC):
    """A context manager around a server that runs `application` (``ASGI_APPLICATION`` if None).

    `port`, `url` and `ws_url` are there once it has started. Static files are served as by ``runserver`` if
    `serve_static` and ``django.contrib.staticfiles`` is installed. Its host is allowed meanwhile, by
    Channels' `AllowedHostsOriginValidator` as well.

    The database is the test's, so what a test has written must be committed: `TransactionTestCase`, or
    ``transactional_db``.
    """

    def __init__(
        self, application: ASGIApp | None = None, *, host: str = "127.0.0.1", serve_static: bool = True
    ) -> None:
        self.application = application
        self.host = host
        self.port = 0
        self.serve_static = serve_static
        self._running = contextlib.ExitStack()

    def __str__(self) -> str:
        return self.url

    @property
    def url(self) -> str:
        """Where it serves HTTP, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where it serves WebSockets, without a slash at the end."""
        return f"ws://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(modify_settings(ALLOWED_HOSTS={"append": self.host}))
            if self.application is not None:
                stack.enter_context(allowed_hosts_in(self.application))
            stack.enter_context(self._serving())
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()

    @abstractmethod
    def _serving(self) -> contextlib.AbstractContextManager[None]:
        """Start the server, and set `port`; at the end stop it."""


def site(application: Any, *, serve_static: bool) -> ASGIApp:
    """The application that a live server runs."""
    site: ASGIApp = get_default_application() if application is None else application
    if serve_static and apps.is_installed("django.contrib.staticfiles"):
        return ASGIStaticFilesHandler(site)  # type: ignore[arg-type,return-value]
    return site


def in_memory() -> Iterator[BaseDatabaseWrapper]:
    """The thread's connections to in-memory SQLite databases, which no other connection may see."""
    for connection in connections.all():
        if connection.vendor == "sqlite" and connection.is_in_memory_db():  # type: ignore[attr-defined]
            yield connection
