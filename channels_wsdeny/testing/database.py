"""Share the test's open transaction with the application under test.

What a test has written in a transaction (pytest-django's ``db``, Django's `TestCase`) is seen on the
connection of that transaction alone. Under pytest that connection belongs to the main thread, which runs the
event loop as well, while asynchronous code queries in another thread, that of `sync_to_async`.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING
from unittest import mock

from asgiref.sync import sync_to_async
from django.db import connections

from ..concurrency import _in_pool
from ..db import lending

if TYPE_CHECKING:
    from contextvars import Token
    from typing import Self

    from django.db.backends.base.base import BaseDatabaseWrapper

#: For each shared connection, how many `SharedTransaction` use it, and what undoes the sharing.
_shared: dict[BaseDatabaseWrapper, tuple[int, ExitStack]] = {}


class SharedTransaction:
    """An asynchronous context manager in which the thread of `sync_to_async` uses the test's connections.

    It shares the connections that are in a transaction, and does nothing if there are none. Django forbids
    queries in the thread of a running loop, so the main thread does not use them at the same time.
    Asynchronous methods of a `TestCase` query in the thread of its transaction already. Either way the
    connections are not closed as obsolete, as Channels and Django do at the end of a request, and handshakes
    query in that thread instead of the pool. Several may overlap.
    """

    def __init__(self) -> None:
        self.connections: list[BaseDatabaseWrapper] = []
        self._token: Token[bool] | None = None

    async def __aenter__(self) -> Self:
        try:
            await sync_to_async(self.share)(_in_transaction_outside_the_loop())
        except BaseException:  # pragma: no cover - an interruption, by chance
            await sync_to_async(self.release)()
            raise
        if self.connections:
            self._token = _in_pool.set(True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._token is not None:
            _in_pool.reset(self._token)
            await sync_to_async(self.release)()

    def share(self, others: list[BaseDatabaseWrapper]) -> None:
        """Use `others`, the connections of another thread, in this one; if none, keep this thread's own."""
        for connection in others or in_transaction():
            users, undo = _shared.get(connection) or (0, _share(connection, is_other=bool(others)))
            _shared[connection] = (users + 1, undo)
            self.connections.append(connection)

    def release(self) -> None:
        """Undo `share`, in the same thread."""
        while self.connections:
            connection = self.connections.pop()
            users, undo = _shared.pop(connection)
            if users > 1:
                _shared[connection] = (users - 1, undo)
            else:
                undo.close()


def in_transaction() -> list[BaseDatabaseWrapper]:
    """Return the current thread's connections that are in a transaction."""
    return [each for each in connections.all(initialized_only=True) if each.in_atomic_block]


def _share(connection: BaseDatabaseWrapper, *, is_other: bool) -> ExitStack:
    undo = ExitStack()
    connection.inc_thread_sharing()
    undo.callback(connection.dec_thread_sharing)
    undo.enter_context(lending(connection))  # A synchronous Django middleware holds a thread of the pool.
    undo.enter_context(mock.patch.object(connection, "close_if_unusable_or_obsolete"))
    if is_other:
        own = {each.alias: each for each in connections.all(initialized_only=True)}.get(connection.alias)
        connections[connection.alias] = connection
        if own is None:  # pragma: no cover - whether the thread has had a connection depends on the tests before
            undo.callback(connections.__delitem__, connection.alias)
        else:
            undo.callback(connections.__setitem__, connection.alias, own)
    return undo


def _in_transaction_outside_the_loop() -> list[BaseDatabaseWrapper]:
    """Return what `in_transaction` does when this thread's loop is not running, which hides connections."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return in_transaction()
    finally:
        asyncio._set_running_loop(loop)
