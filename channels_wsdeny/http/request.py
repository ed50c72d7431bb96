"""Django requests made from ASGI scopes: the WebSocket handshake, and the HTTP request of an ASGI application."""

from __future__ import annotations

import copy
import functools
import logging
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.core.exceptions import BadRequest, DisallowedHost
from django.core.handlers.asgi import ASGIRequest, get_script_prefix
from django.http import HttpRequest, QueryDict, UnreadablePostError, parse_cookie
from django.http.request import split_domain_port, validate_host
from django.urls import ResolverMatch, set_script_prefix
from django.utils.datastructures import MultiValueDict
from django.utils.functional import LazyObject, SimpleLazyObject, cached_property, empty

from ..concurrency import run_in_django_thread, run_in_threadpool
from ..headers import values_of
from . import session as sessions
from .error_reports import reporter_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.base import SessionBase

    from ..authentication.base import Authenticators
    from ..types import RawHeaders, Scope

    User = AbstractBaseUser | AnonymousUser

T = TypeVar("T")
R = TypeVar("R", bound=HttpRequest)

#: What this package and Channels put into a scope, which is compared by itself or follows from the rest.
_PLACED = frozenset({"cookies", "path_remaining", "session", "url_route", "user", "wsdeny"})
#: What may be equal without being the same; other values are of the site's, and may compare as they like.
_COMPARABLE = frozenset({"client", "headers", "path", "query_string", "root_path", "server", "subprotocols"})


class SessionUser(SimpleLazyObject):  # type: ignore[type-arg] # It has none at runtime.
    """The user of a session. Channels' `AuthMiddleware` inside may replace it, but no user that a hook has set."""


class ScopeRequest(ASGIRequest):
    """A Django request made from an ASGI scope, with the session and user that its cookies name.

    `session` and `user` are loaded when they are first looked at, which may block; `auser()` is for coroutines.
    A ``session`` or ``user`` that a wrapper put into the scope is used instead. Django's own ``__init__`` runs
    when something first asks for what it sets: most denials need neither ``META`` nor cookies.
    """

    #: The credentials that an authentication class has found, once the user is loaded.
    auth: Any = None
    #: The tokens that the client sent as subprotocols, each by the subprotocol before it.
    subprotocol_tokens: Mapping[str, str] = MappingProxyType({})
    #: What has set another user, to be called again when that is loaded anew: checks.
    user_setters: tuple[Any, ...] = ()
    #: Those that have not been called for the user whom other authentication classes tell.
    setters_due: tuple[Any, ...] = ()
    #: The request whose credentials have told the user, where a wrapper has made this one from its scope.
    told_by: ScopeRequest | None = None

    def __init__(self, scope: Scope, stream: Any) -> None:
        self.scope = scope
        self._unread_stream = stream
        #: ``url_route`` of Channels, which is kept in step with `resolver_match`.
        self.url_route: Any = None
        session = session_in(scope)
        if session is not None:
            self.session = session
        if "user" in scope:
            # A token middleware sets None for "no user"; the user of the cookie is not loaded then.
            user: Any = anonymous_user() if scope["user"] is None else scope["user"]
            self.user = user

    def __getattr__(self, name: str) -> Any:
        own = vars(self)
        if hasattr(type(self), name):  # A property of this class raised: its own error is the right one.
            return object.__getattribute__(self, name)
        if name == "_unread_stream" or "_unread_stream" not in own:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        stream = own.pop("_unread_stream")
        set_before = dict(own)
        try:
            super().__init__(self._django_scope(), stream)
        except ValueError as error:  # undecodable, or a header that cannot be parsed
            own["_unread_stream"] = stream
            raise BadRequest(f"The request is malformed: {error}") from error
        own.update(set_before)
        return getattr(self, name)

    def begin(self) -> None:
        """Set the script prefix for `reverse()`, as Django's handler does before each request.

        Raises `BadRequest` for a query string that is not UTF-8.
        """
        if self.scope.get("root_path") or settings.FORCE_SCRIPT_NAME:
            set_script_prefix(get_script_prefix(self.scope))
        try:
            self.scope.get("query_string", b"").decode()
        except UnicodeDecodeError as error:
            raise BadRequest("The query string is not UTF-8.") from error

    def check_host(self) -> None:
        """Check the host as `get_host` does, without building ``META`` for one that is allowed.

        A handshake without a ``Host`` is that of a test client: HTTP/1.1 requires one (RFC 9110 section 7.2).

        Raises `DisallowedHost` for one that ``ALLOWED_HOSTS`` does not name.
        """
        if not has_allowed_host(self.scope.get("headers", ())):
            try:
                self.get_host()
            except DisallowedHost as error:
                logging.getLogger("django.security.DisallowedHost").error(str(error))  # noqa: TRY400 - as Django does
                raise

    # The session and the user

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]  # noqa: N802 - Django's name
        values = self.header_values(b"cookie")
        return parse_cookie(b"; ".join(values).decode("latin1")) if values else {}

    @cached_property
    def session(self) -> SessionBase:  # type: ignore[override]
        return sessions.open_session(self.COOKIES.get(settings.SESSION_COOKIE_NAME))

    @cached_property
    def user(self) -> User:  # type: ignore[override]
        user: User = self.session_user()  # perhaps lazy
        return user

    def session_user(self) -> Any:
        """The user of the session, loaded when it is first looked at."""
        if not self.may_have_session_user:
            return anonymous_user()
        return SessionUser(lambda: sessions.load_user(self.session))

    @property
    def may_have_session_user(self) -> bool:
        """Whether the session may have a user, as far as can be told without loading it."""
        has_session = session_in(self.scope) is not None or self.has_session_cookie
        return has_session and _anonymous_class() is not NoUser

    async def auser(self) -> User:  # type: ignore[override]
        """The user, loaded in a thread of the pool if need be."""
        user: User = await loaded_user(self)
        return user

    @cached_property
    def has_session_cookie(self) -> bool:
        """Whether the client has sent a cookie of the session's name."""
        name = settings.SESSION_COOKIE_NAME
        return any(name.encode() in value for value in self.header_values(b"cookie")) and name in self.COOKIES

    @property
    def has_unsaved_session(self) -> bool:
        """Whether the site changed the session, or wants it saved with every request."""
        session: SessionBase | None = vars(self).get("session")
        if session is None:
            return False
        try:
            if session.modified:
                return True
            return settings.SESSION_SAVE_EVERY_REQUEST and session.accessed and not session.is_empty()
        except Exception:  # of an engine of the site's own: saving it raises the same, where that is answered
            return True

    def scope_for_application(self) -> dict[str, Any]:
        """What an application finds in its scope, as under Channels' `AuthMiddlewareStack`."""
        return {
            "cookies": self.scope.get("cookies", self.COOKIES),
            "session": self.session,
            "user": self.user,
        }

    # The route

    def describes(self, scope: Scope, *, adopting: bool) -> bool:
        """Whether this is the request of `scope`: the same path, headers, route, session, user and all else.

        With `adopting`, the request takes over a route that `scope` has and it has not.
        """
        own, session = vars(self), session_in(scope)
        if session is not None and session is not own.get("session"):
            return False
        if "user" in scope and scope["user"] is not own.get("user") and not self._are_both_none(scope):
            return False
        if self._differs(scope):
            return False
        route = scope.get("url_route")
        self.follow_route()
        if route is None or route == self.url_route:
            return True
        if adopting and self.url_route is None:
            self._route_by(scope)
            return True
        return False

    def _differs(self, scope: Scope) -> bool:
        own = self.scope
        for name in (own.keys() | scope.keys()) - _PLACED:
            mine, other = own.get(name), scope.get(name)
            if mine is not other and (name not in _COMPARABLE or mine != other):
                return True
        return False

    def _are_both_none(self, scope: Scope) -> bool:
        return scope["user"] is None and "user" in self.scope and self.scope["user"] is None

    def sibling(self, scope: Scope) -> Self:
        """The request of `scope`, which a wrapper made from the scope of this one; `ctx` is shared."""
        own, session = vars(self), session_in(scope)
        another_session = session is not None and session is not own.get("session")
        if another_session and scope.get("user") is own.get("user"):
            scope = {name: value for name, value in scope.items() if name != "user"}  # The session has its own.
        make: Callable[[Scope], Self] = type(self)
        sibling = make(copy_scope(scope))
        sibling.ctx = self.ctx
        if self.subprotocol_tokens:
            sibling.subprotocol_tokens = self.subprotocol_tokens
        if scope.get("user") is own.get("user"):
            if self.user_setters:
                sibling.user_setters = self.user_setters
            told_by = self if "_wsdeny_found_user" in own else self.told_by
            if told_by is not None:
                sibling.told_by = told_by
        if scope.get("url_route") is not None:
            sibling._route_by(scope)
        return sibling

    def _route_by(self, scope: Scope) -> None:
        route = scope["url_route"]
        # Copied: hooks write into it, and a wrapper may give each scope the same one.
        route = {**route, "args": route.get("args", ()), "kwargs": {**route.get("kwargs", {})}}
        self.route_to(partial(ResolverMatch, _unnamed_route, route["args"], route["kwargs"]), route)

    def route_to(self, match: ResolverMatch | Callable[[], ResolverMatch] | None, url_route: Any) -> None:
        """Set `resolver_match` (or what makes it when it is first asked for), and ``url_route`` of Channels."""
        self.resolver_match = match
        self.url_route = url_route

    def keep_route(self) -> None:
        """Write `resolver_match`, which a hook may have changed, back to ``url_route`` of Channels."""
        match = vars(self).get("_resolver_match")
        if isinstance(match, ResolverMatch) and isinstance(self.url_route, dict):
            self.url_route.update(args=match.args, kwargs=match.kwargs)

    def follow_route(self) -> None:
        """Take over what a wrapper has written into ``url_route`` in place."""
        match, route = vars(self).get("_resolver_match"), self.url_route
        if isinstance(match, ResolverMatch) and isinstance(route, dict):
            match.args, match.kwargs = route.get("args", ()), route["kwargs"]

    @property
    def resolver_match(self) -> ResolverMatch | None:
        """The route of the request, as on any Django request; None until it is known."""
        match = vars(self).get("_resolver_match")
        if match is not None and not isinstance(match, ResolverMatch):
            match = vars(self)["_resolver_match"] = match()
        return match

    @resolver_match.setter
    def resolver_match(self, match: ResolverMatch | Callable[[], ResolverMatch] | None) -> None:
        if match is not None:  # Django's own __init__ clears it, and may run late.
            vars(self)["_resolver_match"] = match

    @property
    def url_arguments(self) -> tuple[Any, ...]:
        """The positional and keyword arguments of the route, without making a `ResolverMatch`; empty until known.

        The keyword arguments are copied.
        """
        match = vars(self).get("_resolver_match")
        if not isinstance(match, ResolverMatch) and self.url_route is not None:
            return self.url_route.get("args", ()), dict(self.url_route["kwargs"])
        match = self.resolver_match
        return () if match is None else (match.args, dict(match.kwargs))

    # The rest

    def __repr__(self) -> str:
        """As of Django's, without the query string: logs print it, and tickets and tokens stand there."""
        return f"<{type(self).__name__}: {self.scope.get('method', 'GET')} {self.scope.get('path', '')!r}>"

    @cached_property
    def exception_reporter_filter(self) -> Any:  # type: ignore[override]
        """What Django's error reports are filtered by, unless the site sets another one; Django's own name."""
        return reporter_filter(settings.DEFAULT_EXCEPTION_REPORTER_FILTER)

    def reportable(self) -> HttpRequest:
        """The request that error reports may print: a copy without what must not be read, or printed."""
        self.META  # noqa: B018 - has Django's own __init__ run, which would set that anew
        return copy.copy(self)

    @cached_property
    def ctx(self) -> SimpleNamespace:
        """A namespace for the site, which lives as long as the connection."""
        return SimpleNamespace()

    def header_values(self, name: bytes) -> list[bytes]:
        """The raw values of the headers of this lower-case name, without building ``META``."""
        return values_of(self.scope.get("headers", ()), name)

    def header(self, name: bytes) -> bytes | None:
        """The first of `header_values`; None if there is none."""
        return next(iter(self.header_values(name)), None)

    def _django_scope(self) -> dict[str, Any]:
        """The scope for Django's request: cookie headers that HTTP/2 split are joined.

        RFC 9113 section 8.2.3; Django before 6.1 joins them by a comma.
        """
        headers = self.scope.get("headers", [])
        cookies = values_of(headers, b"cookie")
        if len(cookies) > 1:
            headers = [pair for pair in headers if pair[0] != b"cookie"]
            headers.append((b"cookie", b"; ".join(cookies)))
        return {**self.scope, "headers": headers}


class HandshakeRequest(ScopeRequest):
    """A WebSocket handshake: in HTTP, a GET with an empty body (RFC 6455 section 4.1).

    Everything in Django's ecosystem that takes a ``request`` works on it. ``scheme`` is http or https,
    so that `is_secure()` and absolute URLs are right.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, BytesIO())

    def _django_scope(self) -> dict[str, Any]:
        scope = super()._django_scope()
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]  # The body is empty.
        return {**scope, "method": "GET", "headers": headers}

    def reportable(self) -> HttpRequest:
        """As of any, without the query string: a browser has no other place for a ticket."""
        report = super().reportable()
        vars(report).update(GET=QueryDict(), META={**self.META, "QUERY_STRING": ""})
        return report

    def _get_scheme(self) -> str:
        return "https" if self.scope.get("scheme") in {"wss", "https"} else "http"


class AppRequest(ScopeRequest):
    """An HTTP request to an ASGI application that is not Django's handler, such as an `AsyncHttpConsumer`."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, _UnreadableBody())

    def reportable(self) -> HttpRequest:
        """As of any, with an empty form: its own cannot be read."""
        report = super().reportable()
        vars(report).update(_post=QueryDict(), _files=MultiValueDict())
        return report


class _UnreadableBody:
    """The body of a request that an ASGI application will read from its own ``receive``."""

    def read(self, *args: Any) -> bytes:
        raise UnreadablePostError(
            "The body of this request is read by the ASGI application, so its policies cannot read it."
        )

    readline = read

    def seekable(self) -> bool:
        return False

    def close(self) -> None: ...


def has_allowed_host(headers: RawHeaders) -> bool:
    """Whether the host of a request is allowed, as far as its ``Host`` alone tells; also if there is none."""
    hosts = values_of(headers, b"host")
    if settings.USE_X_FORWARDED_HOST:
        hosts += values_of(headers, b"x-forwarded-host")
    allowed, is_debug = tuple(settings.ALLOWED_HOSTS), settings.DEBUG
    return all(is_allowed_host(host, allowed, is_debug=is_debug) for host in hosts)


@functools.lru_cache(maxsize=256)
def is_allowed_host(host: bytes, allowed: tuple[str, ...], *, is_debug: bool = False) -> bool:
    """Whether one of `allowed`, which is ``ALLOWED_HOSTS``, matches the value of a ``Host`` header."""
    if is_debug and not allowed:
        allowed = (".localhost", "127.0.0.1", "[::1]")  # as Django's `get_host`
    domain, _ = split_domain_port(host.decode("latin1"))
    return bool(domain) and validate_host(domain, allowed)


def session_in(scope: Mapping[str, Any]) -> Any:
    """Django's session that a wrapper has put into `scope`; None for a dict, which is that of another framework."""
    session = scope.get("session")
    return None if issubclass(type(session), dict) else session


def copy_scope(scope: Scope) -> dict[str, Any]:
    """A scope of its own for a wrapper, or for the request of one: wrappers may change it and its headers in place."""
    return {**scope, "headers": [*scope.get("headers", ())]}


def copy_request(request: R, **own: Any) -> R:
    """A copy of `request`, which shares its body and session; `own` are attributes of the copy."""
    # Not copy.copy(): a request's pickling protocol drops its stream and route.
    copied = object.__new__(type(request))
    vars(copied).update(vars(request), _wsdeny_original=original_of(request), **own)
    return copied


def original_of(request: HttpRequest) -> HttpRequest:
    """The request that `copy_request` has made `request` from, or itself."""
    original: HttpRequest = vars(request).get("_wsdeny_original", request)
    return original


@contextmanager
def following(copied: HttpRequest, request: HttpRequest, *, but: frozenset[str]) -> Iterator[None]:
    """Set on `request` what is set on its copy meanwhile, `but` these attributes: a body, above all, is read once."""
    before = dict(vars(copied))
    try:
        yield
    finally:
        for name, value in vars(copied).items():
            if name not in but and before.get(name, before) is not value:
                vars(request)[name] = value


def with_plain_path(scope: Scope) -> Scope:
    """`scope` with a path that begins with one slash, as that of its route does.

    Channels' router leaves out all slashes at the beginning, and needs none. A client that sends more, or none, would
    be led to the route by a path which hooks and policies do not know, and by which `revoke` does not find the socket.
    """
    path, root_path = scope["path"], scope.get("root_path", "")
    if not root_path and path[:1] == "/" != path[1:2]:  # as almost all are
        return scope
    if not path.startswith(root_path):  # Channels has no route there.
        return scope
    first = "" if root_path.endswith("/") else "/"
    plain = root_path + first + path[len(root_path) :].lstrip("/")
    return scope if plain == path else {**scope, "path": plain}


def full_path(scope: Mapping[str, Any]) -> str:
    """The path of `scope` with its ``root_path``, which older servers and wrappers leave out of ``path``."""
    root_path: str = scope.get("root_path", "")
    path: str = scope["path"]
    return path if path.startswith(root_path) else root_path + path


class NoUser:
    """The user of every request on a site without `django.contrib.auth`: anonymous, and nothing is allowed to it."""

    id = pk = None
    username = ""
    is_anonymous = True
    is_authenticated = is_active = is_staff = is_superuser = False

    def get_username(self) -> str:
        """The empty string, as of `AnonymousUser`."""
        return self.username

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """False."""
        return False


@functools.cache
def _anonymous_class() -> type[AnonymousUser | NoUser]:
    try:
        from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415 - needs loaded apps
    except RuntimeError:  # pragma: no cover - It is not in INSTALLED_APPS: that site is a process of its own.
        return NoUser
    return AnonymousUser


def anonymous_user() -> AnonymousUser | NoUser:
    """Django's `AnonymousUser`; on a site without `django.contrib.auth` a `NoUser`."""
    return _anonymous_class()()


def known_user(request: HttpRequest) -> User | None:
    """The user of any request if no I/O is needed to tell, else None. Without a session cookie it is anonymous."""
    own = vars(request)
    if isinstance(request, ScopeRequest) and "user" not in own and not request.may_have_session_user:
        own["user"] = anonymous_user()
    user: User | None = own.get("user")
    return None if isinstance(user, LazyObject) and user._wrapped is empty else user


def load_user(request: Any) -> None:
    """Load the user of `request` now; blocks."""
    request.user.is_authenticated  # noqa: B018 - a lazy object is loaded by looking at it


async def loaded_user(request: Any) -> Any:
    """The user of `request`, loaded in a thread that suits it if need be."""
    if known_user(request) is None:
        await run_in_thread(request, partial(load_user, request))
    return request.user


def authentication_of(request: HttpRequest) -> Authenticators | None:
    """The authentication classes by which `request` is authenticated; None before they are known."""
    return vars(request).get("_wsdeny_authentication")


def is_authentication_due(request: HttpRequest) -> bool:
    """Whether authentication classes are still to be asked about `request`; with the session alone they never are."""
    found = authentication_of(request)
    return found is not None and not found.is_session_only and known_user(request) is None


def _unnamed_route() -> None:
    """The endpoint of a route that Channels resolved outside the stack, whose name is not known."""


async def run_in_thread(request: HttpRequest, function: Callable[[], T]) -> T:
    """Run `function`, which may block, in a thread that suits `request`.

    For a handshake that is a thread of the pool, for a view the thread in which Django runs it, whose database
    connections and transactions it shares.
    """
    if isinstance(request, ScopeRequest):
        return await run_in_threadpool(function)
    return await run_in_django_thread(function)
