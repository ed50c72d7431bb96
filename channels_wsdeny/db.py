"""Database connections in the pool's threads: cleaned up around each job, by ``CONN_MAX_AGE``.

In-memory SQLite is the exception: such a database belongs to the connection that made it, so the
threads borrow that connection, as Django's own live-server tests do. It is how a handshake sees the
data of a test that runs in a transaction.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import close_old_connections, connections, reset_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

_in_memory: dict[str, weakref.ref[BaseDatabaseWrapper]] = {}
_borrowing = threading.RLock()


def remember_in_memory(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of `connection_created`: note the first connection to an in-memory SQLite database."""
    if connection.vendor != "sqlite" or not connection.is_in_memory_db():  # type: ignore[attr-defined]
        return
    known = _in_memory.get(connection.alias)
    if known is None or known() is None:
        _in_memory[connection.alias] = weakref.ref(connection)


class _Turn(threading.local):
    """Whether this thread runs a job, and whether it has its turn on the borrowed connections."""

    working = False
    taken = False

    def take(self) -> None:
        """Wait for the turn; it lasts until the job ends."""
        if self.working and not self.taken:
            _borrowing.acquire()
            self.taken = True

    def give(self) -> None:
        """End the job, and the turn if it was taken."""
        self.working = False
        if self.taken:
            self.taken = False
            _borrowing.release()


_turn = _Turn()


def _in_turn(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    """An execute wrapper: from its first query on, a job has the borrowed connections to itself.

    Python's sqlite3 mixes up the rows of threads that query one connection at the same time.
    """
    _turn.take()
    with _borrowing:  # the connection's own thread is no job, and has its turn for one query
        return execute(sql, params, many, context)


@contextmanager
def managed_connections() -> Iterator[None]:
    """Around one job in a thread: the thread's own stale connections are closed before it and after it."""
    reset_queries()
    close_old_connections()
    borrowed = _borrow() if _in_memory else []
    _turn.working = bool(borrowed)
    try:
        yield
    finally:
        for connection in borrowed:
            connection.dec_thread_sharing()
            del connections[connection.alias]
        _turn.give()
        close_old_connections()


def take_turn() -> None:
    """Before what opens transactions: on a borrowed connection, those of two threads would mix."""
    _turn.take()


def _borrow() -> list[BaseDatabaseWrapper]:
    borrowed = []
    for alias, reference in list(_in_memory.items()):
        connection = reference()
        if connection is None or not connection.is_in_memory_db():  # type: ignore[attr-defined]
            continue
        connection.inc_thread_sharing()
        if _in_turn not in connection.execute_wrappers:
            connection.execute_wrappers.insert(0, _in_turn)
        connections[alias] = connection
        borrowed.append(connection)
    return borrowed
