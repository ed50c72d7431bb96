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

from django.db import close_old_connections, connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

_in_memory: dict[str, weakref.ref[BaseDatabaseWrapper]] = {}
_transactions = threading.Lock()


def remember_in_memory(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of `connection_created`: note the first connection to an in-memory SQLite database."""
    if connection.vendor != "sqlite" or not connection.is_in_memory_db():  # type: ignore[attr-defined]
        return
    known = _in_memory.get(connection.alias)
    if known is None or known() is None:
        _in_memory[connection.alias] = weakref.ref(connection)


@contextmanager
def managed_connections() -> Iterator[None]:
    """Around one job in a thread: the thread's own stale connections are closed before it and after it."""
    close_old_connections()
    borrowed = _borrow() if _in_memory else []
    try:
        yield
    finally:
        for connection in borrowed:
            connection.dec_thread_sharing()
            del connections[connection.alias]
        close_old_connections()


@contextmanager
def exclusive_in_memory() -> Iterator[None]:
    """Around what opens transactions: on a borrowed connection, those of two threads would mix."""
    if not _in_memory:
        yield
        return
    with _transactions:
        yield


def _borrow() -> list[BaseDatabaseWrapper]:
    borrowed = []
    for alias, reference in list(_in_memory.items()):
        connection = reference()
        if connection is None or not connection.is_in_memory_db():  # type: ignore[attr-defined]
            continue
        connection.inc_thread_sharing()
        connections[alias] = connection
        borrowed.append(connection)
    return borrowed
