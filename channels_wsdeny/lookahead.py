"""The look-ahead: where a scope would be routed to, told without running anything.

It sees through Channels' routers and wrappers and this package's own layers. What it cannot see through is
*opaque*: there the handshake is decided when the application first asks for an event.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.core.handlers.asgi import ASGIHandler
from django.urls import ResolverMatch
from django.urls.exceptions import Resolver404

from .conf import conf
from .guards import NO_GUARDS, Guards, guards_of
from .types import Scope

if TYPE_CHECKING:
    from .hooks import Hooks
    from .policies import Policy
    from .types import ASGIApp


L = TypeVar("L", bound="Layer")


class Layer:
    """An app of this package around another: the look-ahead sees through it.

    `guards` stand before anything further in; `default_policy` is for endpoints without policies; `hooks`
    are those of a stack, around the guards' own.
    """

    inner: ASGIApp
    guards: Guards = NO_GUARDS
    default_policy: Policy | None = None
    hooks: tuple[Hooks, ...] = ()

    @property
    def _path_routing(self) -> bool:
        """Whether `inner` is a router, which `URLRouter` wants to know of what it routes to."""
        return getattr(self.inner, "_path_routing", False)


_LAYER_CALLS: set[Any] = set()


def seen_through(layer: type[L]) -> type[L]:
    """Declare that `layer`, as it is called here, does nothing that the look-ahead would not know."""
    _LAYER_CALLS.add(layer.__call__)
    return layer


class Unseen(enum.Enum):
    """Why there is no route to tell."""

    #: No route matches: whatever runs, there is nothing at this address.
    UNROUTED = "unrouted"
    #: A wrapper that the look-ahead does not know decides.
    OPAQUE = "opaque"


#: Wrappers of Channels that neither route nor change what policies look at, and their inner app's name.
_KNOWN_WRAPPERS = {
    CookieMiddleware: "inner",
    SessionMiddleware: "inner",
    AuthMiddleware: "inner",
    OriginValidator: "application",
}
#: What wrappers call the app that they wrap.
_INNER = ("inner", "application", "app")
#: How to tell what `as_asgi` returns from a function that only carries its attributes.
_AS_ASGI_CODE = AsyncConsumer.as_asgi().__code__


@dataclass(slots=True)
class Route:
    """The endpoint of a scope, found without running anything.

    `app` is the endpoint within the wrappers on its way; `guards` are all that stand before it; `hooks` are
    those of the stacks on its way; `url` is what the routers would add to the scope.
    """

    app: ASGIApp
    guards: Guards = NO_GUARDS
    hooks: tuple[Hooks, ...] = ()
    url: dict[str, Any] = field(default_factory=dict)
    endpoint: Any = None
    #: The routes on its way, from the outside in.
    routes: tuple[Any, ...] = ()
    #: Whether it is Django's own handler, which routes to views by itself.
    is_django: bool = False
    #: What the nearest stack says of such views without a policy.
    default_policy: Policy | None = None

    def resolver_match(self, url_route: dict[str, Any] | None = None) -> ResolverMatch:
        """As Django's own resolver tells it. `url_route` is that of the scope, where routers came before."""
        url_route = self.url.get("url_route") or url_route or _NO_URL
        return ResolverMatch(
            self.endpoint, url_route["args"], url_route["kwargs"], url_name=self.name, route=self.pattern
        )

    @property
    def name(self) -> str | None:
        """The name of the innermost route that has one."""
        return next((route.name for route in reversed(self.routes) if route.name), None)

    @property
    def pattern(self) -> str:
        """The path as it was written in the routes."""
        return "".join(str(route.pattern) for route in self.routes)


Found: TypeAlias = Route | Literal[Unseen.UNROUTED, Unseen.OPAQUE]


#: Tells where a scope goes: from the scope, and from the path that is left and the route that led here,
#: if there were routers before.
_Sight: TypeAlias = Callable[[Scope, str | None, dict[str, Any]], Found]


def look_ahead(app: Any, scope: Scope) -> Found:
    """Where `app` would route `scope`.

    What can be told of a layer without a scope is told once, when it is first asked.
    """
    sight = _sight_of(app)
    return sight(scope, scope.get("path_remaining"), scope.get("url_route", _NO_URL))


_NO_URL: dict[str, Any] = {"args": (), "kwargs": {}}


def _sight_of(app: Any) -> _Sight:
    if not isinstance(app, Layer):
        return _sight(app)
    kept = vars(app).get("_sight")
    if kept is None or kept[0] is not app or kept[1] is not app.inner:  # a copy, or another app within
        kept = vars(app)["_sight"] = (app, app.inner, _sight(app))
    sight: _Sight = kept[2]
    return sight


def _sight(app: Any) -> _Sight:
    kind = type(app)
    call = getattr(kind, "__call__", None)  # noqa: B004 - whoever overrides it is not seen through
    if isinstance(app, Layer) and call in _LAYER_CALLS:
        return _through_layer(app)
    if kind in _KNOWN_WRAPPERS:
        return _through_wrapper(app, _KNOWN_WRAPPERS[kind])
    if call is ProtocolTypeRouter.__call__:
        return _through_protocols(app)
    if call is URLRouter.__call__:
        return _through_urls(app)
    consumer_class = consumer_class_of(app)
    if consumer_class is not None:
        return lambda scope, path, outer: Route(app, guards_of(consumer_class), endpoint=app)
    if call is ASGIHandler.__call__:
        return lambda scope, path, outer: (
            Route(app, endpoint=app, is_django=True) if scope["type"] == "http" else Unseen.OPAQUE
        )
    return lambda scope, path, outer: Unseen.OPAQUE


def leads_to_django(app: Any) -> bool:
    """Whether `app` is Django's handler, behind wrappers whose inner app can be told."""
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
    """What a wrapper, known or not, calls the app that it wraps; None if that cannot be told."""
    own = {} if isinstance(app, type) else getattr(app, "__dict__", {})
    for name in _INNER:
        is_kept = name in own or isinstance(getattr(type(app), name, None), MemberDescriptorType)
        if is_kept and callable(getattr(app, name, None)):
            return name
    return None


def is_seen_through(app: Any) -> bool:
    """Whether the look-ahead knows what `app`, which is no endpoint, does with a scope."""
    kind = type(app)
    call = getattr(kind, "__call__", None)  # noqa: B004 - as above
    return (
        (isinstance(app, Layer) and call in _LAYER_CALLS)
        or kind in _KNOWN_WRAPPERS
        or call in {ProtocolTypeRouter.__call__, URLRouter.__call__}
    )


def is_nested(scope: Scope) -> bool:
    """Whether a `URLRouter` further out has routed `scope` already, and may know another route."""
    return "path_remaining" in scope


def consumer_class_of(app: ASGIApp) -> type | None:
    """The consumer class behind `app`: what `as_asgi` returned, or a consumer itself; else None."""
    if getattr(app, "__code__", None) is _AS_ASGI_CODE:
        consumer_class: type = app.consumer_class  # type: ignore[attr-defined]
        return consumer_class
    return type(app) if isinstance(app, AsyncConsumer) else None


def _through_layer(layer: Layer) -> _Sight:
    inner, guards, hooks, default_policy = (
        _sight(layer.inner),
        layer.guards,
        layer.hooks,
        layer.default_policy,
    )

    def see(scope: Scope, path: str | None, outer: dict[str, Any]) -> Found:
        found = inner(scope, path, outer)
        if found is Unseen.OPAQUE and guards.policies:
            found = Route(layer.inner, endpoint=layer.inner)
        if isinstance(found, Route):
            if default_policy is not None and not found.guards.policies:
                if found.is_django:
                    found.default_policy = (
                        default_policy if found.default_policy is None else found.default_policy
                    )
                elif scope["type"] != "http" or conf.MIRROR_DEFAULT_POLICY:
                    found.guards = found.guards._replace(policies=(default_policy,))
            if guards is not NO_GUARDS:
                found.guards = guards.around(found.guards)
            if hooks:
                found.hooks = hooks + found.hooks
        return found

    return see


def _through_wrapper(wrapper: ASGIApp, attribute: str) -> _Sight:
    inner = _sight(getattr(wrapper, attribute))

    def see(scope: Scope, path: str | None, outer: dict[str, Any]) -> Found:
        found = inner(scope, path, outer)
        if isinstance(found, Route):
            # The wrapper's twin, around the endpoint alone: the routers in between have done their work.
            twin = copy.copy(wrapper)
            setattr(twin, attribute, found.app)
            found.app = twin
        return found

    return see


def _through_protocols(router: ProtocolTypeRouter) -> _Sight:
    sights = {protocol: _sight(inner) for protocol, inner in router.application_mapping.items()}

    def see(scope: Scope, path: str | None, outer: dict[str, Any]) -> Found:
        inner = sights.get(scope["type"])
        return Unseen.UNROUTED if inner is None else inner(scope, path, outer)

    return see


def _through_urls(router: URLRouter) -> _Sight:
    """As `URLRouter.__call__` does, including its way on to the next route when an inner router has none."""
    routes = [(route, route.pattern.match, _sight(route.callback)) for route in router.routes]

    def see(scope: Scope, path: str | None, outer: dict[str, Any]) -> Found:
        if path is None:
            path = scope["path"]
            root_path = scope.get("root_path", "")
            if root_path and not path.startswith(root_path):
                return Unseen.UNROUTED
            path = path[len(root_path) :]
        path = path.lstrip("/")
        for route, match, inner in routes:
            try:
                matched = match(path)
            except Resolver404:  # out of a converter
                continue
            if not matched:
                continue
            remaining, args, kwargs = matched
            url_route = {
                "args": outer.get("args", ()) + args,
                "kwargs": {**outer.get("kwargs", {}), **kwargs, **route.default_args},
            }
            found = inner(scope, remaining, url_route)
            if found is Unseen.UNROUTED:
                continue
            if isinstance(found, Route):
                if not found.url:  # else it is that of a router further in
                    found.url = {"path_remaining": remaining, "url_route": url_route}
                found.routes = (route, *found.routes)
            return found
        return Unseen.UNROUTED

    return see
