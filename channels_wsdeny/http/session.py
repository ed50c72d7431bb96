"""The session and user of an ASGI scope, through Django's own engines and backends.

Loading is read-only. Django's `get_user` flushes a session whose hash does not match and cycles the key
of one signed with a fallback key, and some engines delete or create sessions while they load; a
handshake on a server that drops the cookie of a 101 would log its user out. So those are left to the
next HTTP request. What the site itself changes is saved by Django's own `SessionMiddleware`.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from http.cookies import SimpleCookie
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import auth
from django.utils.functional import LazyObject

from ..db import take_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase


def open_session(session_key: str | None) -> SessionBase:
    """The session store of the site's ``SESSION_ENGINE`` for this key; nothing is loaded yet."""
    return _store_class(import_module(settings.SESSION_ENGINE).SessionStore)(session_key)


@functools.cache
def _store_class(engine: type[SessionBase]) -> type[SessionBase]:
    """`engine`, which loads without cleaning up."""

    def load(self: SessionBase) -> Any:
        with _without_clean_up(self):
            return engine.load(self)

    async def aload(self: SessionBase) -> Any:
        with _without_clean_up(self):
            return await engine.aload(self)

    # The name goes into the salt that sessions are signed with.
    names = {"__qualname__": engine.__qualname__, "__module__": engine.__module__}
    return type(engine.__name__, (engine,), {"load": load, "aload": aload, **names})


@contextmanager
def _without_clean_up(session: SessionBase) -> Iterator[None]:
    """Keep an engine from changing its storage while it loads.

    The file engine unlinks an expired session and makes a new one, the signed-cookie engine marks a
    forged one to be sent again. Here such a session forgets its key instead, as one does that the
    database engine cannot find.
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


class _ReadOnlySession:
    """What Django's `get_user` may see of a session: it can read, what it would write stays undone."""

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


def needs_saving(request: HttpRequest) -> bool:
    """Whether the site changed the session of `request`, or wants it saved every time."""
    session: SessionBase | None = vars(request).get("session")
    if session is None:
        return False
    if session.modified:
        return True
    return settings.SESSION_SAVE_EVERY_REQUEST and session.accessed and not session.is_empty()


def is_modified(request: HttpRequest) -> bool:
    """Whether the session of `request` has changes that are not saved."""
    session: SessionBase | None = vars(request).get("session")
    return session is not None and session.modified


def is_the_clients(request: HttpRequest) -> bool:
    """Whether the session of `request` has the key that its cookie says; not once it was begun anew.

    One in a signed cookie always has, for its key is what is in it.
    """
    key = request.session.session_key
    return key is not None and key == request.COOKIES.get(settings.SESSION_COOKIE_NAME)


def share(outer: Any, request: HttpRequest) -> None:
    """Have both requests, one further out that is of the same visitor, use one session.

    It is that of `request`, unless that further out has been looked at: hooks may have begun it, and have it
    loaded, where loading it again might block. What a wrapper has put into the scope stays out of it: Django
    itself goes by the cookie alone.
    """
    if "session" not in vars(request) or outer.scope.get("session") is not None:
        return
    if is_modified(outer) or is_loaded(outer):
        request.session = outer.session
    else:
        outer.session = request.session


def follow(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Have `request` go on with the session that an application has saved, if its `response` says so.

    What that has written is newer than what was loaded before it ran. But if it has only found that the
    client's session is gone, one that hooks have begun instead goes on. Returns False if changes are lost.
    """
    key = _session_key_set_by(response)
    if key is None:
        return True
    if not key and is_modified(request) and not is_the_clients(request):
        request.session.modified = not request.session.is_empty()  # else it is gone already
        return True
    lost = is_modified(request) and request.session.session_key != key
    request.session = open_session(key or None)
    return not lost


def is_loaded(request: HttpRequest) -> bool:
    """Whether looking into the session of `request` takes no I/O any more."""
    return "_session_cache" in vars(vars(request).get("session", request))


def load(request: HttpRequest) -> None:
    """Load the session of `request`; blocks."""
    request.session.get(auth.SESSION_KEY)


def sets_cookie(response: HttpResponseBase) -> bool:
    """Whether an application's `response` sets or deletes the session's cookie."""
    return _session_key_set_by(response) is not None


def _session_key_set_by(response: HttpResponseBase) -> str | None:
    """The key of the last session cookie that an application sets, empty if that deletes it; else None."""
    key = None
    for _, line in getattr(response, "cookie_lines", ()):
        name, _, rest = line.decode("latin1").partition("=")
        if name.strip() == settings.SESSION_COOKIE_NAME:
            cookie: SimpleCookie = SimpleCookie(f"key={rest.partition(';')[0]}")
            key = cookie["key"].value if "key" in cookie else ""
    return key


def forget_loaded(request: HttpRequest) -> None:
    """Have the session of `request` loaded anew when it is next looked at, unless it has changes."""
    session: Any = vars(request).get("session")
    if session is not None and not session.modified:
        vars(session).pop("_session_cache", None)


def save_session(request: HttpRequest, response: HttpResponse) -> None:
    """Save the session of `request` and set its cookie on `response`; blocks.

    Raises `django.contrib.sessions.exceptions.SessionInterrupted` (a bad request) if the session was
    deleted meanwhile.
    """
    # Imported here: the module reads the session engine's models, which need loaded apps.
    from django.contrib.sessions.middleware import SessionMiddleware  # noqa: PLC0415

    take_turn()
    SessionMiddleware(lambda request: response).process_response(request, response)
