"""Loans: a test's open transaction, for the thread that the application under test queries in.

Only the connection that a test's transaction is on sees what the test has written. Under pytest-django's
``db`` fixture that is the main thread's, which runs the event loop as well, while Django's asynchronous code
queries in another thread: that one gets the connections lent. Nobody else uses them meanwhile, for Django
forbids queries in the thread of a running loop. Asynchronous methods of a `TestCase` query in the test's own
thread already, and have nothing to lend.

Either way the connections are not closed as obsolete, as Channels and the end of a request would do, and
handshakes query in that thread, not in the pool.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.db import connections

from ..concurrency import _in_pool

if TYPE_CHECKING:
    from contextvars import Token
    from typing import Self

    from django.db.backends.base.base import BaseDatabaseWrapper

    from ..types import ASGIApp, Receive, Scope, Send


@dataclass
class _Lent:
    """How a connection is lent, `times` over; `replaced` is what the borrowing thread had before."""

    times: int
    is_borrowed: bool
    replaced: BaseDatabaseWrapper | None


_lent: dict[BaseDatabaseWrapper, _Lent] = {}


class Loan:
    """An asynchronous context manager, true if there is a transaction; loans may overlap."""

    def __init__(self) -> None:
        self._connections: list[BaseDatabaseWrapper] = []
        self._is_known = False
        self._token: Token[bool] | None = None

    def __bool__(self) -> bool:
        return bool(self._connections)

    async def __aenter__(self) -> Self:
        try:
            await sync_to_async(self.take)(_beneath_the_loop())
        except BaseException:
            await self.__aexit__()
            raise
        self._is_known = True
        if self:
            self._token = _in_pool.set(True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._token is not None:
            _in_pool.reset(self._token)
        # The thread may hang in the application's code: nothing waits for it without need.
        if self or not self._is_known:
            await sync_to_async(self.give_back)()

    def take(self, others: list[BaseDatabaseWrapper]) -> None:
        """Take the connections `others` of another thread into this one; if none, keep this one's own."""
        for connection in others or in_transaction():
            lent = _lent.get(connection)
            if lent is None:
                lent = _lent[connection] = _Lent(0, is_borrowed=bool(others), replaced=None)
                connection.inc_thread_sharing()
                connection.close_if_unusable_or_obsolete = _stay_open  # type: ignore[method-assign]
                if lent.is_borrowed:
                    here = {each.alias: each for each in connections.all(initialized_only=True)}
                    lent.replaced = here.get(connection.alias)
                    connections[connection.alias] = connection
            lent.times += 1
            self._connections.append(connection)

    def give_back(self) -> None:
        """Undo `take`, in the same thread."""
        while self._connections:
            connection = self._connections.pop()
            lent = _lent[connection]
            lent.times -= 1
            if lent.times:
                continue
            del _lent[connection]
            del connection.close_if_unusable_or_obsolete
            connection.dec_thread_sharing()
            if lent.replaced is not None:
                connections[connection.alias] = lent.replaced
            elif lent.is_borrowed:
                del connections[connection.alias]


async def run_lent(application: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `application` with what a transaction of the test has written."""
    async with Loan():
        await application(scope, receive, send)


def _beneath_the_loop() -> list[BaseDatabaseWrapper]:
    """What `in_transaction` says of this thread when its loop does not run, which hides all connections."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return in_transaction()
    finally:
        asyncio._set_running_loop(loop)


def in_transaction() -> list[BaseDatabaseWrapper]:
    """The thread's connections that are in a transaction."""
    return [each for each in connections.all(initialized_only=True) if each.in_atomic_block]


def _stay_open() -> None:
    """Instead of `BaseDatabaseWrapper.close_if_unusable_or_obsolete`."""
