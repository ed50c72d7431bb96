"""The rehearsal: a request that is answered as a real one, while no endpoint runs and no session is saved.

Hooks, middleware and policies are the site's, and run as they would.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.conf import settings

from ..http.trace import Trace, is_rehearsing, recording
from .understudy import understudy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import ASGIApp, Message, Protocol, Scope

#: The session keys of nobody's: of one that a rehearsal begins, and of the one that it is logged in by.
NEW_KEY = "rehearsalbeginsthisone0000000000"
LOGIN_KEY = "rehearsalisloggedinbythis0000000"
#: Who would tell others of what only was rehearsed.
_LOGGERS = ("channels_wsdeny", "django.request", "django.security.DisallowedHost")


def rehearse(
    application: ASGIApp, scope: Scope, login: dict[str, Any] | None = None
) -> tuple[Trace, list[Message]]:
    """What `application` would go through and send for `scope`; raises what it raises.

    `login` is what the session `LOGIN_KEY` holds meanwhile.
    """
    trace = Trace(is_rehearsal=True)
    protocol: Protocol = scope["type"]
    with ExitStack() as around:
        around.enter_context(_unsaved_sessions(login))
        around.enter_context(_quiet(trace))
        around.enter_context(recording(trace))
        application = understudy(application, protocol, trace)
        around.enter_context(trace.watching_queries())
        return trace, async_to_sync(_play)(application, scope)


async def _play(application: ASGIApp, scope: Scope) -> list[Message]:
    sent: list[Message] = []
    closed = asyncio.Event()
    events: list[Message] = [{"type": "websocket.connect"}]
    if scope["type"] == "http":
        events = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if events:
            return events.pop()
        await closed.wait()
        return {"type": f"{scope['type']}.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "websocket.close":
            closed.set()

    await application(scope, receive, send)
    return sent


@contextmanager
def _quiet(trace: Trace) -> Iterator[None]:
    """Keep the denial out of the log, and errors, which go into `trace`, out of the administrators' mail."""

    def is_of_a_request(record: logging.LogRecord) -> bool:
        if not is_rehearsing():
            return True
        if record.exc_info and record.exc_info[1] is not None:
            trace.note_failure(record.exc_info[1])
        return False

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(is_of_a_request)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_of_a_request)


@contextmanager
def _unsaved_sessions(login: dict[str, Any] | None) -> Iterator[None]:
    """Have nobody who is part of a rehearsal change a stored session, whoever opens it."""
    try:
        engine = import_module(settings.SESSION_ENGINE)
        stored = engine.SessionStore
    except (ImportError, AttributeError):
        yield  # The request will say so.
        return
    engine.SessionStore = _unsaved(stored, login)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        engine.SessionStore = stored  # type: ignore[attr-defined]


def _unsaved(stored: Any, login: dict[str, Any] | None) -> type[Any]:
    """The session store `stored`, which saves and deletes nothing for a rehearsal."""

    def load(self: Any) -> Any:
        if is_rehearsing() and login is not None and self.session_key == LOGIN_KEY:
            return dict(login)
        return stored.load(self)

    async def aload(self: Any) -> Any:
        if is_rehearsing() and login is not None and self.session_key == LOGIN_KEY:
            return dict(login)
        return await stored.aload(self)

    def write(name: str) -> Any:
        def written(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_rehearsing():
                return getattr(stored, name)(self, *args, **kwargs)
            _pretend(self, name)
            return None

        return written

    def awrite(name: str) -> Any:
        async def written(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_rehearsing():
                return await getattr(stored, name)(self, *args, **kwargs)
            _pretend(self, name.removeprefix("a"))
            return None

        return written

    # The name goes into the salt that sessions are signed with.
    names = {"__qualname__": stored.__qualname__, "__module__": stored.__module__}
    writing = {name: write(name) for name in ("save", "create", "delete")}
    awriting = {name: awrite(name) for name in ("asave", "acreate", "adelete")}
    return type(stored.__name__, (stored,), {"load": load, "aload": aload, **writing, **awriting, **names})


def _pretend(session: Any, name: str) -> None:
    """Leave `session` as if it had been written."""
    if name == "create" or (name == "save" and session.session_key is None):
        session._session_key = NEW_KEY
    if name == "create":
        session.modified = True
