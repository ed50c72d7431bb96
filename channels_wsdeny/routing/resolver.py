"""The resolver: where an application would route a scope, found without running anything.

It knows Channels' routers and wrappers and the middleware of this package. What it does not know is
*unresolvable*: there the default policy is asked when the application first calls ``receive``, or accepts.
"""

from __future__ import annotations

import copy
import enum
from contextlib import suppress
from functools import lru_cache
from types import FunctionType, MappingProxyType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlparse

from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.core.handlers.asgi import ASGIHandler
from django.urls import ResolverMatch
from django.urls.exceptions import Resolver404

from ..http.origins import origin_denial
from .guards import NO_GUARDS, NO_OPTIONS, ASGIMiddleware, Guards, StackOptions, guards_of, transparent_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..exceptions import Deny
    from ..hooks import Hooks
    from ..policies import Policy
    from ..types import ASGIApp, Receive, Scope, Send


class Unmatched(enum.Enum):
    """Why a scope has no match."""

    #: No route matches.
    NOT_FOUND = "not found"
    #: An application that is not known decides where the scope goes.
    UNRESOLVABLE = "unresolvable"


NOT_FOUND: Literal[Unmatched.NOT_FOUND] = Unmatched.NOT_FOUND
UNRESOLVABLE: Literal[Unmatched.UNRESOLVABLE] = Unmatched.UNRESOLVABLE


class EndpointMatch:
    """The endpoint of a scope, found without running anything, and all that comes before it.

    `app` is the endpoint within the wrappers around it; `guards` are all that are asked before it; `hooks` are
    those of the stacks around it; `url` is what the routers add to the scope.
    """

    hooks: tuple[Hooks, ...] = ()
    url: Mapping[str, Any] = MappingProxyType({})
    #: The path without the slashes that a router within another one leaves out; None where there are none.
    plain_path: str | None = None
    #: The routes that lead to it, the outermost first.
    routes: tuple[Any, ...] = ()
    #: Whether one of the layers around it makes it owe the default policy, if it has no policy.
    owes_default = False
    #: The default policy of the nearest stack around the endpoint that has one; None if guards inside that are asked.
    default_policy: Policy | None = None
    #: The same whatever guards there are: it is asked about a user or route that they were not asked about.
    stack_default: Policy | None = None
    #: Whether a stack is around it; and whether the outermost one has no guards inside, and none has a default policy:
    #: that of the site is asked then, as if it were that of the outermost stack.
    is_in_stack = owes_site_default = False
    #: The options of the stacks around: each is that of the nearest one that has it.
    options: StackOptions = NO_OPTIONS

    def __init__(
        self,
        app: ASGIApp,
        guards: Guards = NO_GUARDS,
        *,
        endpoint: Any = None,
        consumer: Any = None,
        keeps_route: bool = False,
        is_django: bool = False,
        is_late: bool = False,
        error: Exception | None = None,
    ) -> None:
        self.app, self.guards = app, guards
        #: None if it is not known.
        self.endpoint = endpoint
        #: The consumer (its class, while it is not made), if the endpoint is one.
        self.consumer = consumer
        #: Whether a route that the request has already stays.
        self.keeps_route = keeps_route
        #: Whether it is Django's own handler, which routes to views by itself.
        self.is_django = is_django
        #: Whether what is behind `endpoint` is not known yet, or at all. Route hooks wait until it is.
        self.is_late = is_late
        #: What is raised in place of running the application.
        self.error = error

    @property
    def are_guards(self) -> bool:
        """Whether the policies guard the application for the nearest stack with a default policy: they are in it."""
        return bool(self.guards.policies) and self.default_policy is None

    @property
    def is_unresolvable(self) -> bool:
        """Whether an application that is not known decides where the scope goes."""
        return self.endpoint is None and self.error is None

    def within(self, middleware: ASGIMiddleware) -> EndpointMatch:
        """The match, with what `middleware` around it adds."""
        default = middleware.default_policy
        if default is not None:
            if self.default_policy is None and not self.guards.policies:
                self.default_policy = default
            if self.stack_default is None:
                self.stack_default = default
        if middleware.owes_default:
            self.owes_default = True
        if middleware.is_stack:
            self.is_in_stack = True
            self.owes_site_default = self.stack_default is None and not self.guards.policies
        if middleware.options is not NO_OPTIONS:
            self.options = self.options.within(middleware.options)
        if middleware.guards is not NO_GUARDS:
            self.guards = middleware.guards.around(self.guards)
        if middleware.hooks:
            self.hooks = middleware.hooks + self.hooks
        return self

    def resolver_match(self, url_route: dict[str, Any] | None = None) -> ResolverMatch:
        """The match as Django's resolver makes it. `url_route` is that of the scope, if a router came before."""
        url_route = self.url.get("url_route") or url_route or {"args": (), "kwargs": {}}
        return ResolverMatch(
            self.endpoint,
            url_route["args"],
            url_route["kwargs"],
            url_name=next((route.name for route in reversed(self.routes) if route.name), None),
            route="".join(str(route.pattern) for route in self.routes) if self.routes else None,
        )


Match: TypeAlias = EndpointMatch | Literal[Unmatched.NOT_FOUND, Unmatched.UNRESOLVABLE]

#: Wrappers of Channels that neither route nor change what policies look at.
_KNOWN_WRAPPERS = {CookieMiddleware, SessionMiddleware, AuthMiddleware}
#: The attributes in which wrappers keep the application that they wrap.
_INNER = ("inner", "application", "app")
#: Distinguishes what `as_asgi` returns from a function with the same attributes, as of `functools.wraps`.
_AS_ASGI_CODE = AsyncConsumer.as_asgi().__code__

#: Makes an application that resolves what it wraps anew, for what is inside middleware of the site.
Guard: TypeAlias = "Callable[[ASGIApp], ASGIApp]"


def resolve(app: Any, scope: Scope, guard: Guard | None = None) -> Match:
    """Where `app` would route `scope`. Without `guard`, middleware of the site is unresolvable."""
    return _Resolver(scope, guard).resolve(app, scope.get("path_remaining"), scope.get("url_route"))


def resolve_within(middleware: ASGIMiddleware, scope: Scope) -> EndpointMatch:
    """Where `middleware` would route `scope`. Without an endpoint there is an `error`, or it is not known.

    Raises `Resolver404` if nothing in `middleware` matches, for a router around it that may know another route.
    """
    try:
        match = resolve(middleware, scope, middleware.guard)
    except Exception as error:  # a converter of the site's may raise anything
        return EndpointMatch(middleware.inner, is_late=True, error=error).within(middleware)
    if isinstance(match, EndpointMatch):
        return match
    if match is NOT_FOUND and is_nested(scope):
        raise Resolver404({"path": scope["path_remaining"]})
    not_found = Resolver404({"path": scope["path"]}) if match is NOT_FOUND else None
    return EndpointMatch(middleware.inner, is_late=True, error=not_found).within(middleware)


class _Resolver:
    """Follows one scope through an application.

    `path` is what is left of the path, and `outer` the ``url_route`` of Channels, if there were routers before.
    """

    __slots__ = ("_guard", "_scope")

    def __init__(self, scope: Scope, guard: Guard | None) -> None:
        self._scope, self._guard = scope, guard

    def resolve(self, app: Any, path: str | None, outer: dict[str, Any] | None) -> Match:
        """Where `app` would route the scope."""
        kind = type(app)
        call = getattr(kind, "__call__", None)  # noqa: B004 - an overridden one is not known
        if kind is not FunctionType:  # as that of a consumer
            if call in transparent_calls:
                return self._in_middleware(app, path, outer)
            in_router = _ROUTERS.get(call)
            if in_router is not None:
                return in_router(self, app, path, outer)
            if call is OriginValidator.__call__:  # A subclass may say otherwise which origins are valid.
                return self._in_wrapper(app, "application", path, outer)
            if kind in _KNOWN_WRAPPERS:
                return self._in_wrapper(app, "inner", path, outer)
        consumer_class = consumer_class_of(app)
        if consumer_class is not None:
            return EndpointMatch(app, guards_of(consumer_class), endpoint=app, consumer=consumer_class)
        if call is ASGIHandler.__call__ and self._scope["type"] == "http":
            return EndpointMatch(app, endpoint=app, is_django=True)
        if isinstance(app, BaseMiddleware) and self._guard is not None:
            # Of the site: it may change user and route, so what it wraps is resolved when it is called.
            return EndpointMatch(_twin_of(app, self._guard(app.inner)), endpoint=app, is_late=True)
        return UNRESOLVABLE

    def _in_middleware(self, middleware: ASGIMiddleware, path: str | None, outer: dict[str, Any] | None) -> Match:
        match = self.resolve(middleware.inner, path, outer)
        if match is UNRESOLVABLE and middleware.guards.policies:
            match = EndpointMatch(middleware.inner, endpoint=middleware.inner)
        return match.within(middleware) if isinstance(match, EndpointMatch) else match

    def _in_wrapper(self, wrapper: Any, attribute: str, path: str | None, outer: dict[str, Any] | None) -> Match:
        match = self.resolve(getattr(wrapper, attribute), path, outer)
        checks_origin = isinstance(wrapper, OriginValidator) and self._scope["type"] == "websocket"
        if isinstance(match, EndpointMatch):
            # A copy of the wrapper around the endpoint alone: the routers in between have done their work.
            twin: Any = _OriginCheck(wrapper, match.app) if checks_origin else copy.copy(wrapper)
            setattr(twin, attribute, match.app)
            match.app = twin
        elif match is UNRESOLVABLE and checks_origin and self._guard is not None:
            return EndpointMatch(_OriginCheck(wrapper, wrapper.application), endpoint=wrapper, is_late=True)
        return match

    def _in_protocols(self, router: ProtocolTypeRouter, path: str | None, outer: dict[str, Any] | None) -> Match:
        inner = router.application_mapping.get(self._scope["type"])
        return NOT_FOUND if inner is None else self.resolve(inner, path, outer)

    def _in_urls(self, router: URLRouter, path: str | None, outer: dict[str, Any] | None) -> Match:
        """As `URLRouter.__call__`."""
        whole = self._scope["path"]
        if path is None:
            root_path = self._scope.get("root_path", "")
            if root_path and not whole.startswith(root_path):
                return NOT_FOUND
            return self._in_routes(router, whole[len(root_path) :].lstrip("/"), outer)
        plain = path.lstrip("/")
        match = self._in_routes(router, plain, outer)
        if isinstance(match, EndpointMatch) and plain != path and whole.endswith(path):
            above = whole.removesuffix(path)
            slash = "" if above.endswith("/") else "/"
            match.plain_path = above + slash + (match.plain_path or whole)[len(whole) - len(plain) :]
        return match

    def _in_routes(self, router: URLRouter, path: str, outer: dict[str, Any] | None) -> Match:
        """The first route of `router` that matches: it goes on to the next one when an inner router has no match."""
        for index, route in enumerate(router.routes):
            matched = _matched(route, path)
            if matched is None:
                continue
            remaining, args, kwargs = matched
            # ``url_route`` of Channels, made anew for each scope: route hooks write into it.
            kwargs = {**kwargs, **route.default_args}
            if outer:
                args, kwargs = outer.get("args", ()) + args, {**outer.get("kwargs", {}), **kwargs}
            url_route = {"args": args, "kwargs": kwargs}
            match = self.resolve(route.callback, remaining, url_route)
            if match is NOT_FOUND:
                continue
            if match is UNRESOLVABLE or match.is_late:
                later = [each for each in router.routes[index + 1 :] if _matched(each, path) is not None]
                if later:  # The application may leave the scope to one of those.
                    return self._in_order(router, [route, *later])
                if match is UNRESOLVABLE:
                    match = EndpointMatch(route.callback, endpoint=route.callback, is_late=True)
            if not match.url:  # else it is that of an inner router
                match.url = {"path_remaining": remaining, "url_route": url_route}
            match.routes = (route, *match.routes)
            return match
        return NOT_FOUND

    def _in_order(self, router: URLRouter, routes: list[Any]) -> Match:
        """A router whose `routes` are tried when it is called: each application is resolved when its turn comes."""
        if self._guard is None:
            return UNRESOLVABLE
        twin = copy.copy(router)
        twin.routes = [copy.copy(route) for route in routes]
        for route in twin.routes:
            route.callback = self._guard(route.callback)
        return EndpointMatch(twin, endpoint=router, is_late=True)


#: Channels' routers, by what their classes are called with. One that overrides it is not known.
_ROUTERS: dict[Any, Callable[..., Match]] = {
    ProtocolTypeRouter.__call__: _Resolver._in_protocols,
    URLRouter.__call__: _Resolver._in_urls,
}


def _twin_of(wrapper: BaseMiddleware, inner: ASGIApp) -> ASGIApp:
    """`wrapper` around another application. All that it keeps is shared, such as what it has counted or loaded."""
    cls: Any = type(wrapper)
    state: Any = object.__getstate__(wrapper)
    twin: Any = object.__new__(_twin_class(cls))
    twin.__dict__ = vars(wrapper)
    for name, value in state[1].items() if isinstance(state, tuple) else ():  # of slots: these are copied
        object.__setattr__(twin, name, value)
    object.__setattr__(twin, "inner", inner)
    app: ASGIApp = twin
    return app


@lru_cache(maxsize=256)
def _twin_class(cls: type) -> type:
    """A subclass of `cls` whose instances have an ``inner`` of their own: a slot comes before what ``__dict__`` has."""
    names = {"__slots__": ("inner",), "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    # Neither the metaclass of the site nor its `__init_subclass__` is told: they may want arguments, or keep a list.
    made: type = type.__new__(type(cls), cls.__name__, (_Twin, cls), names)
    return made


class _Twin:
    """Comes before the class of the site, whose `__init_subclass__` is not called then."""

    __slots__ = ()

    def __init_subclass__(cls) -> None: ...


class _OriginCheck:
    """Channels' `OriginValidator` around an endpoint, on WebSockets: its denial is no close, which says nothing."""

    def __init__(self, validator: Any, application: ASGIApp) -> None:
        self._validator, self.application = validator, application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        denial = denial_by_validator(self._validator, scope)
        if denial is not None:
            raise denial
        await self.application(scope, receive, send)


def denial_by_validator(validator: Any, scope: Scope) -> Deny | None:
    """The denial that stands for the one of Channels' `OriginValidator`, logged; None if it allows the handshake."""
    given = {name: value.decode("latin1") for name, value in scope.get("headers", ())}
    origin = given.get(b"origin")
    with suppress(ValueError):  # One cannot be parsed, such as http://[bad
        if validator.valid_origin(None if origin is None else urlparse(origin)):
            return None
    allowed = getattr(validator, "allowed_origins", ())  # A subclass may have none.
    return origin_denial(
        f"The origin {origin!r} is not one of {allowed!r} (the host is {given.get(b'host')!r}).",
        "Name it in ALLOWED_HOSTS, or to OriginValidator().",
    )


def _matched(route: Any, path: str) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    try:
        matched: tuple[str, tuple[Any, ...], dict[str, Any]] | None = route.pattern.match(path)
    except Resolver404:  # out of a converter
        return None
    return matched


def is_nested(scope: Scope) -> bool:
    """Whether an outer `URLRouter` has routed `scope` already, and may know another route."""
    return "path_remaining" in scope


def consumer_class_of(app: Any) -> type | None:
    """The consumer class behind `app`: what `as_asgi` returned, or a consumer itself; else None."""
    # A wrapper may pass on the attributes of what it wraps, and functools.wraps() overwrites them.
    if type(app) is FunctionType and app.__code__ is _AS_ASGI_CODE:
        named: type | None = getattr(app, "consumer_class", None)
        for cell in app.__closure__ or ():
            kept: object = cell.cell_contents
            if kept is named:
                return named
        return None
    return type(app) if issubclass(type(app), AsyncConsumer) else None


def leads_to_django(app: Any) -> bool:
    """Whether `app` is Django's handler, behind wrappers whose inner app is found by its name."""
    seen: list[Any] = []
    while app is not None and not isinstance(app, ASGIHandler) and app not in seen:
        seen.append(app)
        if isinstance(app, ProtocolTypeRouter):
            app = app.application_mapping.get("http")
        else:
            name = inner_name(app)
            app = None if name is None else getattr(app, name)
    return isinstance(app, ASGIHandler)


def inner_name(app: Any) -> str | None:
    """The attribute in which a wrapper, known or not, keeps its inner application; None if that is unknown."""
    own = {} if isinstance(app, type) else kept_by(app)
    for name in _INNER:
        is_kept = name in own or isinstance(getattr(type(app), name, None), MemberDescriptorType)
        if is_kept and callable(getattr(app, name, None)):
            return name
    return None


def kept_by(app: Any) -> dict[str, Any]:
    """The attributes of `app` itself, without those that `functools.wraps` has copied to a function."""
    own: dict[str, Any] = getattr(app, "__dict__", {})
    return {} if isinstance(app, FunctionType) and "__wrapped__" in own else own


def is_known(app: Any) -> bool:
    """Whether the resolver knows what the router or wrapper `app` does with a scope."""
    kind = type(app)
    call = getattr(kind, "__call__", None)  # noqa: B004 - an overridden one is not known
    is_wrapper = kind in _KNOWN_WRAPPERS or call is OriginValidator.__call__
    return call in transparent_calls or is_wrapper or call in _ROUTERS
