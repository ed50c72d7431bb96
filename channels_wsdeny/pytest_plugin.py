"""The pytest plugin: the fixtures `ws_client` and `ws_live_server`.

pytest loads it in every environment that has the package, so what needs Django is imported in the fixtures.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .testing import LiveServer, WebsocketClient


@pytest.fixture
def ws_client(request: pytest.FixtureRequest) -> Iterator[WebsocketClient]:
    """A `WebsocketClient` on ``ASGI_APPLICATION``.

    With pytest-django's ``db``, asynchronous queries of the test and of the application see what synchronous
    fixtures have written, and everything is rolled back at the end.
    """
    from .testing import WebsocketClient
    from .testing.database import SharedTransaction, in_transaction

    for database in ("transactional_db", "db"):
        if database in request.fixturenames:
            request.getfixturevalue(database)
    transaction = SharedTransaction()
    if own := in_transaction():
        _run_in_query_thread(transaction.share, own)
    yield WebsocketClient()
    _run_in_query_thread(transaction.release)
    _run_in_query_thread(_close_connections)


@pytest.fixture
def ws_live_server(transactional_db: None) -> Iterator[LiveServer]:
    """The `LiveServer` of ``ASGI_APPLICATION`` on uvicorn, with `url` and `ws_url`; needs pytest-django."""
    from .testing.live_server import live_server

    with live_server() as server:
        yield server
    _run_in_query_thread(_close_connections)


def _run_in_query_thread(function: Callable[..., None], *arguments: Any) -> None:
    """Run `function` in the thread that asynchronous tests query in."""
    from asgiref.sync import SyncToAsync

    SyncToAsync.single_thread_executor.submit(function, *arguments).result()


def _close_connections() -> None:
    """Close the connections of the test's own asynchronous queries, which end with no request."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
