"""The session and user of an ASGI scope, through Django's own engines and backends.

Loading is read-only. Django's `get_user` flushes a session whose hash does not match and cycles the key
of one signed with a fallback key, and some engines delete or create sessions while they load; a
handshake on a server that drops the cookie of a 101 would log its user out. So those are left to the
next HTTP request. What the site itself changes is saved by Django's own `SessionMiddleware`.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedStore
from django.core.cache import caches
from django.utils.functional import LazyObject

from ..db import get_cache, is_unreachable, take_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest, HttpResponse


def open_session(session_key: str | None) -> SessionBase:
    """The session store of the site's ``SESSION_ENGINE`` for this key; nothing is loaded yet."""
    if session_key is not None and not is_possible_key(session_key):
        session_key = None
    return _store_class(import_module(settings.SESSION_ENGINE).SessionStore)(session_key)


def is_possible_key(key: str) -> bool:
    """Whether a session may have this key, which may be any text of the client's: PostgreSQL takes no NUL."""
    return key.isascii() and key.isprintable()


@functools.cache
def _store_class(engine: type[SessionBase]) -> type[SessionBase]:
    """A subclass of `engine` that does not write to its storage while it loads.

    Raises what says that a cache cannot be reached: Django's engine takes any error for a session that is not there,
    and would let in who must not be logged in, or replace the session.
    """
    watch = _watched_cache if issubclass(engine, CacheStore) else nullcontext
    has_cache = issubclass(engine, (CacheStore, CachedStore)) and not hasattr(engine, "_cache")

    def load(self: SessionBase) -> Any:
        with _without_clean_up(self), watch(self):
            return engine.load(self)

    async def aload(self: SessionBase) -> Any:
        with _without_clean_up(self), watch(self):
            return await engine.aload(self)

    # The name goes into the salt that sessions are signed with.
    own: dict[str, Any] = {"__qualname__": engine.__qualname__, "__module__": engine.__module__}
    if has_cache:
        own["_cache"] = _ThreadCache()
    return type(engine.__name__, (engine,), {"load": load, "aload": aload, **own})


class _ThreadCache:
    """The ``_cache`` of a session: in place of that of the context, that of the thread which asks, see `get_cache`.

    A session is kept as long as its socket is open, and with a cache of its own it would keep a connection.
    """

    def __get__(self, session: Any, owner: type) -> Any:
        given = vars(session).get("_cache")
        return get_cache(settings.SESSION_CACHE_ALIAS) if given is None else given

    def __set__(self, session: Any, cache: Any) -> None:
        alias = settings.SESSION_CACHE_ALIAS
        vars(session)["_cache"] = None if cache is get_cache(alias) or cache is caches[alias] else cache


@contextmanager
def _without_clean_up(session: SessionBase) -> Iterator[None]:
    """Keep an engine from changing its storage while it loads.

    The file engine unlinks an expired session and makes a new one, the signed-cookie engine marks a forged one to
    be sent again. Here such a session forgets its key instead, as in the database engine a session that is not
    found does.
    """

    def forget(*args: object) -> None:
        session._session_key = None

    own = vars(session)
    own.update(create=forget, delete=forget)
    try:
        yield
    finally:
        own.pop("create", None)
        own.pop("delete", None)


class _WatchedCache:
    """A cache of which the last error is kept."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self.error: Exception | None = None

    def get(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._cache.get(*args, **kwargs)
        except Exception as error:
            self.error = error
            raise

    async def aget(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._cache.aget(*args, **kwargs)
        except Exception as error:
            self.error = error
            raise


@contextmanager
def _watched_cache(session: Any) -> Iterator[None]:
    """Raise at the end what Django's cache engine has swallowed, if the cache cannot be reached."""
    cache, key = session._cache, session.session_key
    session._cache = watched = _WatchedCache(cache)
    try:
        yield
    finally:
        session._cache = cache
    if watched.error is not None and is_unreachable(watched.error):
        session._session_key = key
        raise watched.error


class _ReadOnlySession:
    """The session as Django's `get_user` gets it: reads go through, writes do nothing."""

    def __init__(self, session: SessionBase) -> None:
        self._session = session

    def __getitem__(self, key: str) -> Any:
        return self._session[key]

    def __setitem__(self, key: str, value: Any) -> None: ...

    def get(self, key: str, default: Any = None) -> Any:
        return self._session.get(key, default)

    def cycle_key(self) -> None: ...

    def flush(self) -> None: ...


def load_user(session: SessionBase) -> AbstractBaseUser | AnonymousUser:
    """The user of `session`, verified by Django's own `get_user`; `AnonymousUser` where there is none."""
    if isinstance(session, LazyObject):  # as Channels' own session middleware puts it into the scope
        session = session._wrapped
    with _without_clean_up(session):
        session.get(auth.SESSION_KEY)
    request: Any = SimpleNamespace(session=_ReadOnlySession(session))
    return auth.get_user(request)


def save_session(request: HttpRequest, response: HttpResponse) -> None:
    """Save the session of `request` and set its cookie on `response`; blocks.

    Raises `django.contrib.sessions.exceptions.SessionInterrupted` (a bad request) if the session was
    deleted meanwhile.
    """
    # Imported here: the module reads the session engine's models, which need loaded apps.
    from django.contrib.sessions.middleware import SessionMiddleware  # noqa: PLC0415

    take_turn()
    SessionMiddleware(lambda request: response).process_response(request, response)
