"""When sessions and credentials expire."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from importlib import import_module
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase

from ..concurrency import run_for_open_sockets
from ..conf import conf
from ..db import by_state, carrying, is_unreachable, state_of
from ..http import session as sessions
from ..log import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .registry import Socket

T = TypeVar("T")

#: Keys in one query.
_AT_ONCE = 500


async def find(sockets: list[Socket]) -> tuple[dict[Socket, float], bool]:
    """When the first of their sessions and credentials expires, in seconds since the epoch, as far as that is known.

    The second value is False if the storage of the sessions cannot be reached.
    """
    is_complete, are_looked_up = True, False
    try:
        has_sessions = any(_keys_of(socket) for socket in sockets)
        known = await _in_time(lambda: _by_key(sockets, _session_expiries)) if has_sessions else {}
        are_looked_up = True
    except Exception as error:  # The sockets stay.
        log_failure(sockets[0].opened.context, error, 503)
        known, is_complete = {}, not is_unreachable(error)
    found: dict[Socket, float] = {}
    for socket in sockets:
        times = [known[key] for key in _keys_of(socket) if key in known]
        credentials = _credentials_expiry_of(socket)
        times += [] if credentials is None else [credentials]
        if are_looked_up and not known.keys() >= _keys_of_users(socket):
            # It has expired, and was swept; or it gets a new key just now, and is looked for again a little later.
            times.append(time.time() + conf.HEARTBEAT)
        if times:
            found[socket] = min(times)
    return found, is_complete


async def _in_time(look: Callable[[], T]) -> T:
    """What `look` finds, in a thread. A storage that hangs cannot be reached: other sockets wait for this look."""
    async with asyncio.timeout(conf.POLICY_TIMEOUT):
        return await run_for_open_sockets(look)


def _keys_of(socket: Socket) -> set[str]:
    """The keys of the sessions that a socket depends on."""
    return {key for grant in socket.opened.grants for key in grant.session_keys}


def _keys_of_users(socket: Socket) -> set[str]:
    """Those of them that had a user as the socket was opened, so that they were there."""
    grants = [grant for grant in socket.opened.grants if grant.session_user_id is not None]
    return {grant.session_key for grant in grants if grant.session_key is not None}


def _by_key(sockets: Iterable[Socket], look: Callable[[set[str]], dict[str, T]]) -> dict[str, T]:
    """What `look` finds for the keys of the sessions of `sockets`, on connections as those of their handshakes."""
    found: dict[str, T] = {}
    for state, members in by_state(sockets, lambda socket: state_of(socket.opened.app_context)):
        keys = {key for socket in members for key in _keys_of(socket)}
        if keys:
            with carrying(state):
                found |= look(keys)
    return found


def _session_expiries(keys: set[str]) -> dict[str, float]:
    engine: Any = import_module(settings.SESSION_ENGINE).SessionStore
    if not hasattr(engine, "get_model_class"):
        # Cache, files and signed cookies, whose key says when it was signed: by then it has expired, unless it was
        # prolonged.
        return {key: time.time() + sessions.open_session(key).get_expiry_age() for key in keys}
    found: dict[str, float] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), _AT_ONCE):
        rows = engine.get_model_class().objects.filter(session_key__in=ordered[start : start + _AT_ONCE])
        found |= {key: when.timestamp() for key, when in rows.values_list("session_key", "expire_date")}
    return found


async def gone(sockets: Iterable[Socket]) -> list[Socket]:
    """Those of `sockets` whose session is not there any more. Raises what says that its storage cannot be reached."""
    known = await _in_time(lambda: _by_key(sockets, _are_gone))
    return [socket for socket in sockets if any(known.get(key) for key in _keys_of(socket))]


def _are_gone(keys: set[str]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for key in keys:
        session = sessions.open_session(key)
        session.get(auth.SESSION_KEY)
        found[key] = session.session_key is None
    return found


def has_expired_credentials(socket: Socket) -> bool:
    """Whether the token or other credentials of its handshake have expired."""
    when = _credentials_expiry_of(socket)
    return when is not None and when <= time.time()


def _credentials_expiry_of(socket: Socket) -> float | None:
    grants = socket.opened.grants
    times = [credentials_expiry(vars(grant.request).get("auth")) for grant in grants]
    return min((when for when in times if when is not None), default=None)


def credentials_expiry(credentials: Any) -> float | None:
    """When `credentials` (``request.auth``) expire: their ``["exp"]``, ``.expiry`` or ``.expires``; None without."""
    if isinstance(credentials, (SessionBase, NoneType)):  # A session would be loaded here, on the event loop.
        return None
    with suppress(Exception):  # It may be anything.
        return float(credentials["exp"])
    for name in ("expiry", "expires"):
        with suppress(Exception):
            when = getattr(credentials, name)
            return float(when.timestamp() if hasattr(when, "timestamp") else when)
    return None
