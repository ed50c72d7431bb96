"""Database connections in the threads of the pool, closed around each job by ``CONN_MAX_AGE``.

In-memory SQLite is the exception: such a database lives in the connection that created it, so the threads
share that connection, as Django's live-server tests do. This is how a handshake sees the data of a test that
runs in a transaction.

Here are also the caches of a thread, and which errors say that a database or another service cannot be reached.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import contextmanager
from socket import gaierror
from typing import TYPE_CHECKING, Any

from django.core.cache import caches
from django.db import InterfaceError, OperationalError, close_old_connections, connections, reset_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.cache.backends.base import BaseCache

#: Seconds between two looks of an idle thread at its connections, at least.
_LEAST_WAIT = 1.0

_in_memory: dict[str, weakref.ref[Any]] = {}
_shared = threading.RLock()


def remember_in_memory(connection: Any, **kwargs: Any) -> None:
    """Receiver of `connection_created`: note the first connection to an in-memory SQLite database."""
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        known = _in_memory.get(connection.alias)
        if known is None or known() is None:
            _in_memory[connection.alias] = weakref.ref(connection)


class _Job(threading.local):
    """The job of this thread: whether there is one on shared connections, and whether it holds their lock."""

    is_running = False
    has_lock = False

    def lock(self) -> None:
        """Wait for the lock, which the job then holds until it ends."""
        if self.is_running and not self.has_lock:
            _shared.acquire()
            self.has_lock = True

    def end(self) -> None:
        """End the job, and release the lock if the job holds it."""
        self.is_running = False
        if self.has_lock:
            self.has_lock = False
            _shared.release()


_job = _Job()


def _execute_alone(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    """An execute wrapper: a job holds the lock from its first query to its end.

    Python's sqlite3 mixes up the rows of threads that query one connection at the same time.
    """
    _job.lock()
    with _shared:  # The connection's own thread runs no job, and takes the lock for one query.
        return execute(sql, params, many, context)


@contextmanager
def managed_connections() -> Iterator[None]:
    """Run a job in a thread: the thread's obsolete connections are closed before and after it."""
    reset_queries()
    close_old_connections()
    shared = _share() if _in_memory else []
    _job.is_running = bool(shared)
    try:
        yield
    finally:
        for connection in shared:
            connection.dec_thread_sharing()
            del connections[connection.alias]
        _job.end()
        close_old_connections()


def seconds_until_close() -> float | None:
    """Seconds until a connection of this thread is to be closed, by ``CONN_MAX_AGE``; None if none is."""
    known = connections.all(initialized_only=True)
    times = [each.close_at for each in known if each.connection is not None and each.close_at is not None]
    # Not at once: a connection in a transaction stays open past its time.
    return max(_LEAST_WAIT, min(times) - time.monotonic()) if times else None


def close_idle_connections() -> None:
    """Close the connections of this thread that are older than ``CONN_MAX_AGE``."""
    close_old_connections()


def take_turn() -> None:
    """Wait for the lock before a transaction begins: on a shared connection, two threads' would mix."""
    _job.lock()


def _share() -> list[Any]:
    """Use the in-memory connections in this thread; returns them."""
    shared = []
    for alias, reference in list(_in_memory.items()):
        connection = reference()
        if connection is not None and connection.is_in_memory_db():
            connection.inc_thread_sharing()
            if _execute_alone not in connection.execute_wrappers:
                connection.execute_wrappers.insert(0, _execute_alone)
            connections[alias] = connection
            shared.append(connection)
    return shared


# Caches


class _Caches(threading.local):
    """The caches of this thread by their alias, and the ``CACHES`` that they were made from."""

    def __init__(self) -> None:
        self.settings: object = None
        self.made: dict[str, BaseCache] = {}


_caches = _Caches()


def get_cache(alias: str) -> BaseCache:
    """The cache `alias` of ``CACHES``, made once for each thread.

    Django's own ``caches`` has one for each context, and a handshake runs in a context of its own: it would connect
    anew, and keep that connection for as long as its socket is open. Raises `InvalidCacheBackendError`.
    """
    if _caches.settings is not caches.settings:  # In tests they change.
        for cache in _caches.made.values():
            cache.close()
        _caches.settings, _caches.made = caches.settings, {}
    if alias not in _caches.made:
        _caches.made[alias] = caches.create_connection(alias)
    return _caches.made[alias]


def _forget_caches() -> None:
    """Have a forked child make its own: it must not write to the connections of its parent."""
    _caches.made = {}


os.register_at_fork(after_in_child=_forget_caches)


# Services that are down

#: Clients of caches and brokers are optional, so their exceptions are recognised by name.
_UNREACHABLE = {
    "django_redis.exceptions.ConnectionInterrupted",
    "redis.exceptions.ConnectionError",
    "redis.exceptions.TimeoutError",
    "redis.exceptions.BusyLoadingError",
    "redis.exceptions.MasterDownError",
    "redis.exceptions.OutOfMemoryError",
    "redis.exceptions.ReadOnlyError",
    "pymemcache.exceptions.MemcacheUnexpectedCloseError",
    "pymemcache.exceptions.MemcacheServerError",
}


def is_unreachable(error: Exception) -> bool:
    """Whether a database, cache or other service could not be reached."""
    if isinstance(error, (OperationalError, InterfaceError, ConnectionError, TimeoutError, gaierror)):
        return True
    return not _UNREACHABLE.isdisjoint(f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__)
