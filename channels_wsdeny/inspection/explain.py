"""What a request would get, and why, as ``manage.py wsdeny explain`` prints it.

It is a dry run. Hooks, policies, Django's middleware and Channels' wrappers run as for a real request;
consumers, views, and wrappers that are not known do not. No session is saved, and nothing is logged.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import re
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import responses
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from asgiref.sync import SyncToAsync, async_to_sync
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.core.handlers.asgi import ASGIHandler
from django.core.management import CommandError
from django.db import connections, router
from django.http import HttpResponse, parse_cookie
from django.utils.encoding import iri_to_uri

from ..conf import conf
from ..decorators import guard
from ..handlers.view import guard_view
from ..headers import is_sendable
from ..http.messages import EXTENSION
from ..http.trace import Noted, Trace, describe, recorded
from ..log import dotted_name, escape
from ..routing.guards import ASGIMiddleware, guards_of, transparent
from ..routing.resolver import consumer_class_of, denial_by_validator, inner_name, is_known
from .endpoints import enclosed, site_application, site_endpoints
from .protections import guards_on, is_guarded_for_mirror, remarks_on
from .routes_table import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.http import HttpRequest

    from ..types import ASGIApp, Message, Protocol, Receive, Scope, Send

#: The key of a session that begins in a dry run.
_NEW_SESSION_KEY = "dryrunbeginsthissession000000000"
#: Loggers that a denial or an error is logged to.
_LOGGERS = (
    "channels_wsdeny",
    "django.request",
    "django.security.DisallowedHost",
    "django.security.DisallowedOrigin",
)
#: The columns of a query, which are seldom of interest.
_COLUMNS = re.compile(r"^SELECT (?:(?! FROM ).){60,}(?= FROM )")
_COOKIE_VALUE = re.compile(r"=[^;]*")
#: Seconds for a dry run beyond ``POLICY_TIMEOUT``, and for what is cancelled after that to end.
_PATIENCE = 10.0
_PARTING = 1.0
#: Tasks that did not end. They are kept: asyncio complains of one that is destroyed while it waits.
_given_up: list[asyncio.Task[Any]] = []


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a request would get, and why."""

    protocol: Protocol
    path: str
    #: The name of who is logged in; None if the request is anonymous.
    user: str | None
    #: The headers that were not given, as a browser on this machine would send them.
    assumed: dict[str, str]
    trace: Trace
    #: What the application has sent.
    messages: list[Message]
    #: What had not ended within the time, if anything.
    hanging: str | None
    session: SessionBase

    @property
    def status(self) -> int | None:
        """The status that the server would send; None if there was no answer."""
        if not self.messages:
            return None
        first = self.messages[0]
        return {"websocket.accept": 101, "websocket.close": 403}.get(first["type"]) or first["status"]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the answer; cookies have no values."""
        given = self.messages[0].get("headers") or () if self.messages else ()
        pairs = [(name.decode("latin1").lower(), value.decode("latin1")) for name, value in given]
        return [
            (name, _COOKIE_VALUE.sub("=…", value, count=1) if name == "set-cookie" else value) for name, value in pairs
        ]

    @property
    def body(self) -> str:
        """The body of the answer."""
        return b"".join(message.get("body", b"") for message in self.messages).decode(errors="backslashreplace")

    @property
    def close(self) -> dict[str, Any] | None:
        """The code and reason that the application closes with, if it does."""
        closes = (message for message in self.messages if message["type"] == "websocket.close")
        return next(({"code": each.get("code", 1000), "reason": each.get("reason") or ""} for each in closes), None)

    def lives_by(self) -> list[str]:
        """What closes the socket once it is gone, see `channels_wsdeny.live`; empty for one that is not accepted."""
        if not (self._is_accepted() and self._is_guarded() and conf.LIVE):
            return []
        allowed = [noted for noted in self.trace.noted if noted.answer == "allowed"]
        credentials = [noted.name for noted in allowed if noted.kind == "authentication"]
        found = [f"the credentials of {name}" for name in credentials if name != "SessionAuthentication"]
        if not found and auth.SESSION_KEY in self.session:
            found.append("the session")
        return [*found, *self.trace.lasting]

    def _is_accepted(self) -> bool:
        return self.protocol == "websocket" and self.status == 101

    def _is_guarded(self) -> bool:
        """Whether a policy was asked, as for every consumer that has a decorator, or is inside a stack."""
        return any(noted.kind == "policy" for noted in self.trace.noted)

    def lines(self) -> Iterator[str]:
        """The explanation as lines of text."""
        yield f"GET {escape(self.path)} over {self.protocol}" + (
            "" if self.user is None else f", by {escape(self.user)}"
        )
        yield ""
        for name, value in self.assumed.items():
            yield f"{name:<8}  {escape(value)} (assumed)"
        yield from (*_steps(self.trace), "")
        yield "No answer." if self.status is None else f"HTTP {self.status} {responses.get(self.status, '')}"
        yield from (escape(f"{name}: {value}") for name, value in self.headers)
        if self.close is not None:
            yield f"closed with {self.close['code']} {escape(self.close['reason'])!r}"
        if self.body:
            yield from ("", *map(escape, self.body.splitlines()))
        if self.protocol == "websocket" and self.status == 404:
            yield from ("", "If it is the path of a view: --protocol http tells what that would answer.")
        if lives_by := self.lives_by():
            yield from ("", f"It is open as long as these last: {escape(', '.join(lives_by))}.")
        if self._is_accepted() and not self._is_guarded():
            yield ""
            yield "No policy was asked: it is open to everybody, unless what was not run asks one."
            yield "Is it inside a DenyMiddlewareStack?"
        if self.hanging is not None:
            yield from ("", f"Given up after {time_limit():g} seconds. What had not ended: {escape(self.hanging)}.")

    def as_dict(self) -> dict[str, Any]:
        """The explanation in JSON's types."""
        return {
            "protocol": self.protocol,
            "path": self.path,
            "user": self.user,
            "assumed_headers": self.assumed,
            **self.trace.as_dict(),
            "status": self.status,
            "headers": self.headers,
            "body": self.body,
            "close": self.close,
            "lives_by": self.lives_by(),
            "given_up": self.hanging,
        }


def explain(path: str, protocol: Protocol, user: str | None, headers: Sequence[str]) -> Explanation:
    """What a GET of `path`, which may have a query string, would get.

    `user` is the name of who is logged in. `headers` are ``Name: value``; without a value, one takes away a header
    that is sent otherwise.

    Raises `CommandError` for arguments that cannot be used, and what the site's application raises.
    """
    application = site_application()
    if application is None and protocol == "websocket":
        raise CommandError(
            "ASGI_APPLICATION is not set, so there are no sockets. It is the dotted path of the application, such as "
            "'mysite.asgi.application'."
        )
    if protocol == "http" and not site_endpoints("http"):
        application = ASGIHandler()  # Another server has the site's views.
    logins = {}
    if user is not None:
        key = secrets.token_hex(16)
        logins[key] = _login(user_named(user))
        headers = [*headers, f"Cookie: {settings.SESSION_COOKIE_NAME}={key}"]
    (scope, assumed), store = _scope(path, protocol, headers), _unsaved_sessions(logins)
    cookies = parse_cookie("; ".join(value.decode() for name, value in scope["headers"] if name == b"cookie"))
    scope["session"] = store(cookies.get(settings.SESSION_COOKIE_NAME))
    trace = Trace(is_dry_run=True)
    messages, hanging = _dry_run(application, scope, trace, store)
    return Explanation(protocol, scope["path"], user, assumed, trace, messages, hanging, scope["session"])


def time_limit() -> float:
    """The seconds that a dry run may take: hooks and policies have ``POLICY_TIMEOUT``, and may be cancelled in vain."""
    return conf.POLICY_TIMEOUT + _PATIENCE


def user_named(name: str) -> Any:
    """The user of this name. Raises `CommandError` if there is none."""
    model = auth.get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist as error:
        raise CommandError(f"There is no user {name!r}.") from error


def _login(user: Any) -> dict[str, Any]:
    """The content of a session of `user`."""
    login = {auth.SESSION_KEY: user._meta.pk.value_to_string(user)}
    if hasattr(user, "get_session_auth_hash"):
        login[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    backends = [path for path in settings.AUTHENTICATION_BACKENDS if hasattr(auth.load_backend(path), "get_user")]
    return {**login, auth.BACKEND_SESSION_KEY: backends[0]}  # as in Django's test client


def _scope(path: str, protocol: Protocol, headers: Sequence[str]) -> tuple[Scope, dict[str, str]]:
    """The ASGI scope of the request, as of a browser on this machine, and the headers that are not among `headers`."""
    if not path.startswith("/"):
        url = urlsplit(path)
        whole = url._replace(scheme="", netloc="", path=f"/{url.path.lstrip('/')}").geturl()
        raise CommandError(f"The path must begin with a slash, found {path!r}. Try {whole!r}.")
    url = urlsplit(iri_to_uri(f"//host{path}"))
    is_secure = settings.SECURE_SSL_REDIRECT or settings.SESSION_COOKIE_SECURE
    host = next((host.lstrip(".") for host in settings.ALLOWED_HOSTS if "*" not in host), "localhost")
    scheme, defaults = "https" if is_secure else "http", {"host": host}
    scope: Scope = {"scheme": scheme, "method": "GET"}
    if protocol == "websocket":
        defaults["origin"] = f"{scheme}://{host}"
        scope = {"scheme": "wss" if is_secure else "ws", "subprotocols": [], "extensions": {EXTENSION: {}}}
    given = _headers(headers)
    assumed = {name: value for name, value in defaults.items() if name not in dict(given)}
    scope.update(
        {
            "type": protocol,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "path": unquote(url.path),
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in [*assumed.items(), *given] if value],
            "client": ["127.0.0.1", 50000],
            "server": ["127.0.0.1", 443 if is_secure else 80],
        }
    )
    return scope, assumed


def _headers(lines: Sequence[str]) -> list[tuple[str, str]]:
    """The headers in `lines`, their names in lower case."""
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not is_sendable(name.encode(), value.encode()):
            raise CommandError(f"A header is 'Name: value' in one line, found {line!r}.")
        found.append((name, value))
    return found


def _unsaved_sessions(logins: dict[str, dict[str, Any]]) -> Any:
    """The class of ``SESSION_ENGINE``, but it writes nothing; `logins` are contents of sessions by key."""
    engine: Any = import_module(settings.SESSION_ENGINE).SessionStore

    def refuse_on_loop() -> None:
        """Raise what a query raises on an event loop: a hook that forgets its ``await`` fails in a real request."""
        if issubclass(engine, DatabaseStore):  # With a cache before the database it is chance which of them is asked.
            connections[router.db_for_read(engine.get_model_class())].cursor().close()

    class UnsavedSession(engine):  # type: ignore[misc]
        # The asynchronous methods of Django's base class call the synchronous ones.
        aload, asave, acreate = SessionBase.aload, SessionBase.asave, SessionBase.acreate
        adelete = SessionBase.adelete

        def load(self) -> Any:
            if self.session_key not in logins:
                return super().load()
            refuse_on_loop()
            return dict(logins[self.session_key])

        def save(self, must_create: bool = False) -> None:
            refuse_on_loop()
            self._session_key = self.session_key or _NEW_SESSION_KEY

        def create(self) -> None:
            refuse_on_loop()
            self._session_key, self.modified = _NEW_SESSION_KEY, True

        def delete(self, session_key: str | None = None) -> None:
            refuse_on_loop()

    UnsavedSession.__qualname__ = engine.__qualname__  # It is part of the salt that sessions are signed with.
    return UnsavedSession


def _dry_run(application: ASGIApp, scope: Scope, trace: Trace, store: Any) -> tuple[list[Message], str | None]:
    """What `application` sends for `scope`, without an endpoint; and what has not ended within the time, if any.

    Raises what `application` raises.
    """
    sent: list[Message] = []
    events: asyncio.Queue[Message] = asyncio.Queue()
    request = {"type": "http.request", "body": b"", "more_body": False}
    events.put_nowait(request if scope["type"] == "http" else {"type": "websocket.connect"})

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "websocket.close":
            events.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def run() -> str | None:
        earlier = asyncio.all_tasks()
        task = asyncio.ensure_future(replacement(scope, events.get, send))
        if (await asyncio.wait({task}, timeout=time_limit()))[0]:
            task.result()
            return None
        has_not_ended = (each for each in trace.noted if each.seconds is None and each.answer is None)
        hanging = ", ".join(f"{each.kind} {each.name}" for each in has_not_ended)
        await _give_up(asyncio.all_tasks() - earlier)
        return hanging or dotted_name(application)

    replacement = _Replacement(trace, scope["type"], store).of(application)
    with _recording(trace), trace.watching_queries():
        hanging = async_to_sync(run)()
    return sent, hanging


async def _give_up(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` once more, and have the event loop not wait for those that go on nevertheless."""
    for task in tasks:
        task.cancel()
    for task in (await asyncio.wait(tasks, timeout=_PARTING))[1]:
        asyncio._unregister_task(task)
        _given_up.append(task)


@contextmanager
def _recording(trace: Trace) -> Iterator[None]:
    """Have requests that begin inside be noted in `trace`, errors in their log records too.

    The records are kept from the log, and so from the administrators' mail.
    """

    def is_logged(record: logging.LogRecord) -> bool:
        is_of_dry_run = recorded.get() is trace
        if is_of_dry_run and record.exc_info and record.exc_info[1] is not None:
            trace.note_failure(record.exc_info[1])
        return not is_of_dry_run

    token = recorded.set(trace)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(is_logged)
    try:
        yield
    finally:
        recorded.reset(token)
        for logger in loggers:
            logger.removeFilter(is_logged)


class _Replacement:
    """Copies an application: routers, wrappers and layers that are known, around stand-ins for all else."""

    def __init__(self, trace: Trace, protocol: Protocol, store: Any) -> None:
        self._trace, self._protocol, self._store = trace, protocol, store

    def of(self, app: Any, around: tuple[Any, ...] = ()) -> Any:
        """The replacement of `app`, which the applications `around` lead to."""
        if any(app is each for each in around):  # It leads to itself.
            return _NotRun(app, self._trace)
        around, name, consumer_class = (*around, app), inner_name(app), consumer_class_of(app)
        if is_known(app):
            return self._copy(app, name, around)
        if isinstance(app, ASGIHandler) and self._protocol == "http":
            return _Handler(self._trace, self._store)
        if type(app) is ASGIHandler:
            return app  # It raises for a handshake.
        if consumer_class is not None:
            over_http = {"http_request": None} if hasattr(consumer_class, "http_request") else {}
            kind, guards = type("NotRunConsumer", (_NotRun, AsyncConsumer), over_http), guards_of(consumer_class)
            return (guard(kind, guards) if any(guards) else kind)(app, self._trace)
        inside = enclosed(app) if name is None else [getattr(app, name)]
        if len(inside) != 1 or isinstance(app, type):
            return _NotRun(app, self._trace)
        return _NotRunWrapper(app, self.of(inside[0], around), self._trace)

    def _copy(self, app: Any, name: str | None, around: tuple[Any, ...]) -> Any:
        twin = copy.copy(app)
        if isinstance(app, ProtocolTypeRouter):
            twin.application_mapping = {key: self.of(inner, around) for key, inner in app.application_mapping.items()}
        elif isinstance(app, URLRouter):
            twin.routes = [copy.copy(route) for route in app.routes]
            for route in twin.routes:
                route.callback = self.of(route.callback, around)
        else:
            setattr(twin, str(name), self.of(getattr(app, str(name)), around))
        is_inside = any(isinstance(each, ASGIMiddleware) for each in around)
        return _OuterOriginValidator(twin, self._trace) if type(app) is OriginValidator and not is_inside else twin


@transparent
class _NotRunWrapper(ASGIMiddleware):
    """Stands for a wrapper that is not known, and not run: a request goes on with what is inside.

    It is noted once the resolver or a request comes to it: it says nothing of other paths and protocols.
    """

    def __init__(self, app: ASGIApp, inner: ASGIApp, trace: Trace) -> None:
        self._name, self._inner, self._trace = dotted_name(app), inner, trace

    @functools.cached_property
    def inner(self) -> ASGIApp:  # type: ignore[override] # it is only read
        answer = "not run: a wrapper that is not known, which may change the scope, or deny"
        self._trace.noted.append(Noted("other", self._name, answer=answer))
        return self._inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


class _OuterOriginValidator:
    """Channels' `OriginValidator` that is not inside a stack. It runs; its denial says nothing, so that is noted."""

    def __init__(self, validator: OriginValidator, trace: Trace) -> None:
        self._validator, self._trace = validator, trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        denial = denial_by_validator(self._validator, scope) if scope["type"] == "websocket" else None
        if denial is not None:
            answer = f"{describe(denial)}, sent as a bare 403: no DenyMiddlewareStack is around it. {denial.__cause__}"
            self._trace.noted.append(Noted("other", dotted_name(self._validator), answer=answer))
        await self._validator(scope, receive, send)


class _NotRun:
    """Stands for an application that is not run: it accepts a handshake, and answers 200 to a request."""

    def __init__(self, app: Any, trace: Trace) -> None:
        functools.update_wrapper(self, app)
        self._name, self._trace = dotted_name(app), trace
        self.__module__, _, self.__qualname__ = self._name.rpartition(".")  # Those of an object are its class's.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._trace.note("endpoint", self._name) as note:
            note("not run")
        await receive()
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})


class _Handler(ASGIHandler):
    """Django's handler with the site's middleware, but with neither views nor stored sessions."""

    def __init__(self, trace: Trace, store: Any) -> None:
        self._trace = trace
        engine: Any = import_module(settings.SESSION_ENGINE)
        stored = engine.SessionStore
        engine.SessionStore = store  # Django's SessionMiddleware takes it as it is made.
        try:
            super().__init__()
        finally:
            engine.SessionStore = stored

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request in the thread of the command, whose queries are noted, not in one of its own."""
        SyncToAsync.thread_sensitive_context.set(None)  # type: ignore[arg-type]
        await super().handle(scope, receive, send)

    def make_view_atomic(self, view: Any) -> Any:
        """Let `view` be, which makes no queries; Django refuses coroutines under ``ATOMIC_REQUESTS``."""
        return view

    def resolve_request(self, request: HttpRequest) -> Any:
        """As Django's handler, but with a view that is not run, behind the guards of the real one."""
        match = super().resolve_request(request)
        self._trace.note_route(match)
        self._trace.noted += [Noted("other", name, answer=why) for name, why in remarks_on(match.func).items()]

        @functools.wraps(match.func)
        async def not_run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            with self._trace.note("endpoint", dotted_name(match.func)) as note:
                note("not run")
            return HttpResponse()

        guarded: Any = guard_view(not_run, guards_on(match.func))
        if not is_guarded_for_mirror(match.func):  # Those on `dispatch()` are asked after the default policy.

            @functools.wraps(match.func)
            async def unseen(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return await guarded(request, *args, **kwargs)

            return unseen, match.args, match.kwargs
        return guarded, match.args, match.kwargs


def _steps(trace: Trace) -> Iterator[str]:
    yield f"route     {escape(trace.route or '-')}"
    yield f"endpoint  {escape(trace.endpoint or '-')}"
    yield ""
    rows = []
    for each in trace.noted:
        answer = "no answer in time" if each.answer is None else each.answer
        rows.append((_milliseconds(each.seconds), each.kind, "  " * each.depth + each.name, answer))
    for noted, line in zip(trace.noted, aligned(rows), strict=True):
        yield line
        for query in noted.queries:
            yield f"{_milliseconds(query.seconds):>26}  {escape(_COLUMNS.sub('SELECT …', query.sql))}"
    yield f"{trace.query_count} {'query' if trace.query_count == 1 else 'queries'}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:9.2f} ms"
