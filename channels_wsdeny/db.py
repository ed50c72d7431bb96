"""Database connections in the threads of the pool, closed around each job by ``CONN_MAX_AGE``.

In-memory SQLite is the exception: such a database lives in the connection that created it, so the threads
share that connection, as Django's live-server tests do. This is how a handshake sees the data of a test that
runs in a transaction.

Here are also the caches of a thread, and which errors say that a database or another service cannot be reached.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context, ContextVar
from functools import lru_cache, partial
from socket import gaierror
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from django.core.cache import caches
from django.db import InterfaceError, OperationalError, close_old_connections, connections, reset_queries
from django.db.backends.dummy.base import DatabaseWrapper as DummyWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from django.core.cache.backends.base import BaseCache

T = TypeVar("T")

#: Seconds between two looks of an idle thread at its connections, at least.
_LEAST_WAIT = 1.0
#: Seconds after which the unused caches of a thread are made anew: a server or firewall may have closed the connection.
_MOST_IDLE = 30.0

_in_memory: dict[str, weakref.ref[Any]] = {}
#: Connections that a test lends to the threads, by their alias.
_lent: dict[str, Any] = {}
_shared = threading.RLock()


def remember_in_memory(connection: Any, **kwargs: Any) -> None:
    """Receiver of `connection_created`: note the first connection to an in-memory SQLite database."""
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        known = _in_memory.get(connection.alias)
        if known is None or known() is None:
            _in_memory[connection.alias] = weakref.ref(connection)


class _Job(threading.local):
    """The job of this thread."""

    #: Whether it uses shared connections, and whether it holds their lock.
    is_sharing = False
    has_lock = False
    #: Whether the connections of this thread are closed by `managed_connections`.
    is_managed = False

    def __init__(self) -> None:
        #: The connections that the job left in another state than it found them, and their attributes before.
        self.changed: dict[Any, dict[str, Any]] = {}


_job = _Job()


def take_turn() -> None:
    """Wait for the lock, which the job then holds until it ends: on a shared connection, transactions would mix."""
    if _job.is_sharing and not _job.has_lock:
        _shared.acquire()
        _job.has_lock = True


def give_up_turn() -> None:
    """Release the lock of this job while it waits for others, which may query on the same connection."""
    if _job.has_lock:
        _job.has_lock = False
        _shared.release()


def _execute_alone(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    """An execute wrapper: a job holds the lock from its first query to its end.

    Python's sqlite3 mixes up the rows of threads that query one connection at the same time.
    """
    take_turn()
    with _shared:  # The connection's own thread runs no job, and takes the lock for one query.
        return execute(sql, params, many, context)


@contextmanager
def managed_connections() -> Iterator[None]:
    """Run a job in a thread: the thread's obsolete connections are closed before and after it."""
    reset_queries()
    close_old_connections()
    shared = _share() if _in_memory or _lent else []
    _job.is_sharing, _job.is_managed = bool(shared), True
    try:
        yield
    finally:
        _undo_changes()
        for connection in shared:
            connection.dec_thread_sharing()
            del connections[connection.alias]
        _job.is_sharing = _job.is_managed = False
        give_up_turn()
        close_old_connections()


def seconds_until_close() -> float | None:
    """Seconds until a connection of this thread is to be closed, by ``CONN_MAX_AGE``; None if none is."""
    known = connections.all(initialized_only=True)
    times = [each.close_at for each in known if each.connection is not None and each.close_at is not None]
    # Not at once: a connection in a transaction stays open past its time.
    return max(_LEAST_WAIT, min(times) - time.monotonic()) if times else None


@contextmanager
def lending(connection: Any) -> Iterator[None]:
    """Have jobs use `connection`, which is in a test's transaction."""
    _lent[connection.alias] = connection
    try:
        yield
    finally:
        _lent.pop(connection.alias, None)


# State on connections, such as the tenant of a middleware

#: Attributes that Django's own connections have; the last ones are set as they connect.
_DJANGOS = frozenset(vars(DummyWrapper({})).keys() | {"init_commands", "isolation_level", "transaction_mode"})
#: SQL that leaves the variables and the database of a session as they are, after comments; and what Django itself sets
#: when it connects. Anything else may change them: SET and USE, CALL, a second statement, what MySQL runs in a comment.
_CHANGES_NOTHING = re.compile(
    r"(?:[\s(]|--[^\n]*\n|/\*(?!M?!)(?:(?!\*/).)*\*/)*"
    r"(?:(?:select|insert|update|delete|replace|with|savepoint|release|rollback)\b"
    r"(?!.*(?:;\s*\S|set_config|:=|\binto\s*@|/\*M?!))"
    r"|(?:set\s+(?:sql_auto_is_null|session\s+transaction)\s[^;]*(?:;\s*)?)+\Z)",
    re.IGNORECASE | re.DOTALL,
)


@lru_cache(maxsize=512)
def _is_djangos(cls: Any, name: str) -> bool:
    return any(name in vars(base) for base in cls.__mro__ if base.__module__.startswith("django."))


def _attributes(connection: Any) -> dict[str, Any]:
    """The attributes of `connection` that are not Django's own."""
    cls = connection.__class__
    return {
        name: value for name, value in vars(connection).items() if name not in _DJANGOS and not _is_djangos(cls, name)
    }


#: For each alias, the attributes that middleware has set on the connection.
State: TypeAlias = "Mapping[str, Mapping[str, Any]]"
#: That of the request which the code that runs now belongs to: it follows the request from thread to thread.
_state: ContextVar[State] = ContextVar("wsdeny_connection_state", default=MappingProxyType({}))


@contextmanager
def noting_changes() -> Iterator[Callable[[], None]]:
    """Note which connections of this thread get another state: they are closed, and dropped, at the end of the job.

    That is attributes that are not Django's own, such as a tenant, and variables of the database's session. Yields a
    function that has the attributes follow the request, see `carrying`.
    """
    before = {connection: _attributes(connection) for connection in connections.all()}
    setting: set[Any] = set()

    def carry() -> None:
        for connection, known in before.items():
            changed = {name: value for name, value in _attributes(connection).items() if known.get(name) is not value}
            if changed:
                state = _state.get()
                _state.set({**state, connection.alias: {**state.get(connection.alias, {}), **changed}})

    with ExitStack() as stack:
        for connection in before:
            stack.enter_context(connection.execute_wrapper(partial(_note_setting, setting)))
        try:
            yield carry
        finally:
            for connection, known in before.items():
                now = _attributes(connection)
                is_same = known.keys() == now.keys() and all(known[name] is now[name] for name in known)
                if _job.is_managed and (connection in setting or not is_same):
                    _job.changed.setdefault(connection, known)


def state_of(context: Context | None = None) -> State:
    """The state of the connections of the request that runs now, or that `context` is of."""
    return _state.get() if context is None else context.get(_state, {})


def forget_state() -> None:
    """Begin a request, perhaps in the context of another one."""
    if _state.get():
        _state.set({})


@contextmanager
def carrying(state: State) -> Iterator[None]:
    """Run something with what the middleware of its request has set on the connections, in another thread."""
    for alias, attributes in state.items():
        connection = connections[alias]
        _job.changed.setdefault(connection, _attributes(connection))
        vars(connection).update(attributes)
        if not connection.allow_thread_sharing:
            connection.close()  # The session of the database has yet to follow them.
    try:
        yield
    finally:
        if state:
            _undo_changes()


def by_state(items: Iterable[T], state_of: Callable[[T], State]) -> list[tuple[State, list[T]]]:
    """`items` by their state."""
    groups: list[tuple[State, list[T]]] = []
    for item in items:
        state = state_of(item)
        group = next((members for known, members in groups if known == state), None)
        if group is None:
            groups.append((state, [item]))
        else:
            group.append(item)
    return groups


def _note_setting(setting: set[Any], execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    if not isinstance(sql, str) or _CHANGES_NOTHING.match(sql) is None:  # What a driver composes cannot be read here.
        setting.add(context["connection"])  # pragma: no cover - on PostgreSQL, in a process of its own
    return execute(sql, params, many, context)


def _undo_changes() -> None:
    while _job.changed:
        connection, known = _job.changed.popitem()
        for name in _attributes(connection).keys() - known.keys():
            delattr(connection, name)
        vars(connection).update(known)
        if not connection.allow_thread_sharing:
            with suppress(Exception):  # protects the job's result from a database that is gone
                connection.close()
            with suppress(AttributeError):  # The job has dropped it.
                del connections[connection.alias]


def _share() -> list[Any]:
    """Use the in-memory connections, and those that are lent, in this thread; returns them."""
    shared = []
    known = {alias: reference() for alias, reference in list(_in_memory.items())} | _lent
    for alias, connection in known.items():
        if connection is not None and (alias in _lent or connection.is_in_memory_db()):
            connection.inc_thread_sharing()
            if _execute_alone not in connection.execute_wrappers:
                connection.execute_wrappers.insert(0, _execute_alone)
            connections[alias] = connection
            shared.append(connection)
    return shared


# Caches


class _Caches(threading.local):
    """The caches of this thread by their alias, the ``CACHES`` that they were made from, and when one was asked for."""

    def __init__(self) -> None:
        self.settings: object = None
        self.asked = float("-inf")
        self.made: dict[str, BaseCache] = {}


_caches = _Caches()


def get_cache(alias: str) -> BaseCache:
    """The cache `alias` of ``CACHES``, made once for each thread, and anew where none was asked for in a while.

    Django's own ``caches`` has one for each context, and a handshake runs in a context of its own: it would connect
    anew, and keep that connection for as long as its socket is open. Raises `InvalidCacheBackendError`.
    """
    now = time.monotonic()
    is_idle, _caches.asked = now - _caches.asked > _MOST_IDLE, now
    if is_idle or _caches.settings is not caches.settings:  # In tests they change.
        for cache in _caches.made.values():
            cache.close()
        _caches.settings, _caches.made = caches.settings, {}
    if alias not in _caches.made:
        _caches.made[alias] = caches.create_connection(alias)
    return _caches.made[alias]


def drop_caches(before: Context | None) -> None:
    """Let go of the caches that were made in this context, with their connections: an open socket keeps the context.

    Those that there were in `before`, a copy of it, are shared: a server may have made them as it imported the site.
    """
    has_dropped = False
    for alias in caches:
        with suppress(AttributeError):  # Most were not made here.
            del caches[alias]
            has_dropped = True
    if has_dropped and before is not None:
        for alias, cache in before.run(_caches_here).items():
            caches[alias] = cache


def _caches_here() -> dict[str, BaseCache]:
    made = caches.all(initialized_only=True)
    return {alias: caches[alias] for alias in caches if made and caches[alias] in made}


def _forget_caches() -> None:  # pragma: no cover - in a forked child
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
    """Whether a database, cache or other service could not be reached, and nothing else is wrong."""
    if isinstance(error, ExceptionGroup):  # of a task group
        return all(map(is_unreachable, error.exceptions))
    if isinstance(error, (OperationalError, InterfaceError, ConnectionError, TimeoutError, gaierror)):
        return True
    return not _UNREACHABLE.isdisjoint(f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__)
