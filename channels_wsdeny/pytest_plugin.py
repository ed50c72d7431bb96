"""The pytest plugin: the fixtures `ws_client` and `ws_live_server`.

pytest loads it wherever the package is installed, so everything else is imported when a test asks for it.
"""

from __future__ import annotations

import importlib.util
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .testing.client import WebsocketClient
    from .testing.live_server import LiveServer

_SERVERS = ("uvicorn", "daphne")
#: Seconds that an earlier test's query may still take.
_PATIENCE = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option `ws_live_server`."""
    parser.addini(
        "ws_live_server",
        "The server of the fixture ws_live_server: uvicorn (default, if it is installed) or daphne.",
        default="",
    )


@pytest.fixture
def ws_client(request: pytest.FixtureRequest) -> Iterator[WebsocketClient]:
    """A `WebsocketClient` on ``ASGI_APPLICATION``.

    With pytest-django's ``db`` the whole asynchronous test, its own queries included, sees what synchronous
    fixtures have written, and all is rolled back at the end.
    """
    from .testing.client import WebsocketClient  # noqa: PLC0415
    from .testing.database import Loan, in_transaction  # noqa: PLC0415

    for database in ("transactional_db", "db"):
        if database in request.fixturenames:
            request.getfixturevalue(database)
    own = in_transaction()
    loan = Loan()
    if own:
        _query(lambda: loan.take(own))
    try:
        yield WebsocketClient()
    finally:
        _query(loan.give_back, _tidy)


@pytest.fixture
def ws_live_server(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[LiveServer]:
    """A `LiveServer` on ``ASGI_APPLICATION``, with `url` and `ws_url`; needs pytest-django."""
    with _live_server(request.config.getini("ws_live_server")) as server:
        yield server
    _query(_tidy)


def _live_server(name: str) -> LiveServer:
    if name == "daphne" or (not name and importlib.util.find_spec("uvicorn") is None):
        from .testing.daphneserver import DaphneServer  # noqa: PLC0415

        return DaphneServer()
    if name and name not in _SERVERS:
        raise pytest.UsageError(f"The ini option ws_live_server is one of {_SERVERS}, found {name!r}.")
    from .testing.uvicornserver import UvicornServer  # noqa: PLC0415

    return UvicornServer()


def _query(*functions: Callable[[], None]) -> None:
    """Run `functions` in the thread that asynchronous code queries in."""
    import asyncio  # noqa: PLC0415

    from asgiref.sync import sync_to_async  # noqa: PLC0415

    errors: list[BaseException] = []
    is_given_up = False

    def unless_given_up() -> None:
        if not is_given_up:
            for function in functions:
                function()

    async def query() -> None:
        try:
            await sync_to_async(unless_given_up)()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(query()), daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if thread.is_alive():
        is_given_up = True
        raise RuntimeError(
            f"The thread of sync_to_async has been busy for {_PATIENCE:g} s: synchronous code of this test, "
            "or of one before it, hangs."
        )
    if errors:
        raise errors[0]


def _tidy() -> None:
    """Close what the test's own asynchronous queries have opened, and nobody else would close."""
    from django.db import connections  # noqa: PLC0415

    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
