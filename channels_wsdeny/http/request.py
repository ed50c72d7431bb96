"""The handshake as a Django request; and its sibling for ASGI apps that speak HTTP."""

from __future__ import annotations

import copy
from functools import partial
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.handlers.asgi import get_script_prefix
from django.http import HttpRequest, QueryDict, UnreadablePostError
from django.urls import ResolverMatch, set_script_prefix
from django.utils.datastructures import MultiValueDict
from django.utils.functional import cached_property

from .visitor import VisitorRequest, anonymous

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..types import Scope


class ScopeRequest(VisitorRequest):
    """A Django request made from an ASGI scope, with the session and user that its cookies name.

    Django's own ``__init__`` runs when something first asks for what it sets: most denials need
    neither ``META`` nor cookies.
    """

    def __init__(self, scope: Scope, stream: Any) -> None:
        self.scope = scope
        self._unread_stream = stream
        self._url_route: Any = None
        if scope.get("session") is not None:
            self.session = scope["session"]
        if "user" in scope:
            # None is how token middleware says "nobody"; the cookie's user is not asked then.
            self.user = anonymous() if scope["user"] is None else scope["user"]

    def __getattr__(self, name: str) -> Any:
        own = vars(self)
        if hasattr(type(self), name):  # A property of ours raised this: let its own error out.
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
        """What Django's handler does before each request: the script prefix is set for `reverse()`.

        Raises `BadRequest` for a query string that is not UTF-8.
        """
        if self.scope.get("root_path") or settings.FORCE_SCRIPT_NAME:
            set_script_prefix(get_script_prefix(self.scope))
        try:
            self.scope.get("query_string", b"").decode()
        except UnicodeDecodeError as error:
            raise BadRequest("The query string is not UTF-8.") from error

    def describes(self, scope: Scope, *, adopting: bool) -> bool:
        """Whether this is the request of `scope`: the same path, route, session and user.

        With `adopting` it takes over a route that `scope` has and it has not.
        """
        own = vars(self)
        if scope.get("session") is not None and scope["session"] is not own.get("session"):
            return False
        if "user" in scope and scope["user"] is not own.get("user") and not self._both_nobody(scope):
            return False
        if scope["path"] != self.scope["path"]:
            return False
        route = scope.get("url_route")
        if route is None or route == self._url_route:
            return True
        if adopting and self._url_route is None:
            self._route_by(scope)
            return True
        return False

    def _both_nobody(self, scope: Scope) -> bool:
        return scope["user"] is None and "user" in self.scope and self.scope["user"] is None

    def sibling(self, scope: Scope) -> Self:
        """The request of `scope`, which wrappers made of this one's; `ctx` is shared."""
        own = vars(self)
        another_session = scope.get("session") is not None and scope["session"] is not own.get("session")
        if another_session and scope.get("user") is own.get("user"):
            scope = {name: value for name, value in scope.items() if name != "user"}  # it has its own
        make: Callable[[Scope], Self] = type(self)
        sibling = make(scope)
        sibling.ctx = self.ctx
        if scope.get("url_route") is not None:
            sibling._route_by(scope)
        return sibling

    def _route_by(self, scope: Scope) -> None:
        route = scope["url_route"]
        match = partial(ResolverMatch, _unnamed_route, route.get("args", ()), route.get("kwargs", {}))
        self.route_to(match, route)

    def route_to(self, match: ResolverMatch | Callable[[], ResolverMatch] | None, url_route: Any) -> None:
        """Note the route: `resolver_match` (or what makes it when somebody asks), and Channels' own dict."""
        self.resolver_match = match
        self._url_route = url_route

    def keep_route(self) -> None:
        """Have Channels' own dict of the route say what `resolver_match` says, for hooks may change it."""
        match = self.resolver_match
        if match is not None and isinstance(self._url_route, dict):
            self._url_route.update(args=match.args, kwargs=match.kwargs)

    def reportable(self) -> HttpRequest:
        """What error reports may print: the request itself."""
        return self

    def offer(self) -> dict[str, Any]:
        """What an application finds in its scope, as under Channels' `AuthMiddlewareStack`."""
        return {
            "cookies": self.scope.get("cookies", self.COOKIES),
            "session": self.session,
            "user": self.user,
        }

    @property
    def resolver_match(self) -> ResolverMatch | None:
        """Where the request was routed to, as on any Django request; None until it is known."""
        match = vars(self).get("_resolver_match")
        if match is not None and not isinstance(match, ResolverMatch):
            match = vars(self)["_resolver_match"] = match()
        return match

    @resolver_match.setter
    def resolver_match(self, match: ResolverMatch | Callable[[], ResolverMatch] | None) -> None:
        if match is not None:  # Django's own __init__ clears it, and may run late.
            vars(self)["_resolver_match"] = match

    def _django_scope(self) -> dict[str, Any]:
        """The scope as Django's request wants it: cookie headers that HTTP/2 split are one again.

        RFC 9113 section 8.2.3; Django before 6.1 joins them by a comma.
        """
        headers = self.scope.get("headers", [])
        cookies = [value for name, value in headers if name == b"cookie"]
        if len(cookies) > 1:
            headers = [pair for pair in headers if pair[0] != b"cookie"]
            headers.append((b"cookie", b"; ".join(cookies)))
        return {**self.scope, "headers": headers}

    def header(self, name: bytes) -> bytes | None:
        """The raw value of the first header of this lower-case name, without building ``META``."""
        for key, value in self.scope.get("headers", []):
            if key == name:
                raw: bytes = value
                return raw
        return None

    @cached_property
    def ctx(self) -> SimpleNamespace:
        """A namespace for the site, which lives as long as the request (for a socket: the connection)."""
        return SimpleNamespace()


def _unnamed_route() -> None:
    """Stands for the endpoint of a route that Channels resolved without telling its name."""


class HandshakeRequest(ScopeRequest):
    """A WebSocket handshake as what it is in HTTP: a GET with an empty body (RFC 6455 section 4.1).

    Everything in Django's ecosystem that takes a ``request`` works on it. ``scheme`` is http or https,
    so that `is_secure()` and absolute URLs are right.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, BytesIO())

    def _django_scope(self) -> dict[str, Any]:
        scope = super()._django_scope()
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]  # the body is empty
        return {**scope, "method": "GET", "headers": headers}

    def _get_scheme(self) -> str:
        return "https" if self.scope.get("scheme") in {"wss", "https"} else "http"


class _BodyOfTheApp:
    """Stands for the body of a request that an ASGI app will read from its own ``receive``."""

    def read(self, *args: Any) -> bytes:
        raise UnreadablePostError(
            "The body of this request is read by the ASGI application, so its policies cannot read it."
        )

    readline = read

    def seekable(self) -> bool:
        return False

    def close(self) -> None: ...


class AppRequest(ScopeRequest):
    """An HTTP request to an ASGI app that is not Django's handler, such as an `AsyncHttpConsumer`."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, _BodyOfTheApp())

    def reportable(self) -> HttpRequest:
        """What error reports may print: the request with an empty form, for its own cannot be read."""
        self.META  # noqa: B018 - has Django's own __init__ run, which would clear the form
        report = copy.copy(self)
        vars(report).update(_post=QueryDict(), _files=MultiValueDict())
        return report
