"""The look-ahead: where a scope would be routed to, told without running anything.

It sees through Channels' routers and wrappers and this package's own layers. What it cannot see through is
*opaque*: there the handshake is decided when the application first asks for an event.
"""

from __future__ import annotations

import copy
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.core.handlers.asgi import ASGIHandler
from django.urls import ResolverMatch
from django.urls.exceptions import Resolver404

from .guards import NO_GUARDS, Guards, guards_of

if TYPE_CHECKING:
    from .hooks import Hooks
    from .policies import Policy
    from .types import ASGIApp, Scope


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
    name: str | None = None
    pattern: str = ""
    #: Whether it is Django's own handler, which routes to views by itself.
    is_django: bool = False

    def resolver_match(self) -> ResolverMatch:
        """As Django's own resolver tells it."""
        url_route = self.url.get("url_route") or {"args": (), "kwargs": {}}
        return ResolverMatch(
            self.endpoint, url_route["args"], url_route["kwargs"], url_name=self.name, route=self.pattern
        )


Found: TypeAlias = Route | Literal[Unseen.UNROUTED, Unseen.OPAQUE]


def look_ahead(app: Any, scope: Scope) -> Found:
    """Where `app` would route `scope`."""
    kind = type(app)
    call = getattr(kind, "__call__", None)  # noqa: B004 - whoever overrides it is not seen through
    if isinstance(app, Layer) and call in _LAYER_CALLS:
        return _through_layer(app, scope)
    if kind in _KNOWN_WRAPPERS:
        return _through_wrapper(app, _KNOWN_WRAPPERS[kind], scope)
    if call is ProtocolTypeRouter.__call__:
        inner = app.application_mapping.get(scope["type"])
        return Unseen.UNROUTED if inner is None else look_ahead(inner, scope)
    if call is URLRouter.__call__:
        return _through_urls(app, scope)
    consumer_class = consumer_class_of(app)
    if consumer_class is not None:
        return Route(app, guards_of(consumer_class), endpoint=app)
    if call is ASGIHandler.__call__ and scope["type"] == "http":
        return Route(app, endpoint=app, is_django=True)
    return Unseen.OPAQUE


def leads_to_django(app: Any) -> bool:
    """Whether `app` is Django's handler, behind wrappers whose inner app can be told."""
    seen: list[Any] = []
    while app is not None and not isinstance(app, ASGIHandler) and app not in seen:
        seen.append(app)
        if isinstance(app, ProtocolTypeRouter):
            app = app.application_mapping.get("http")
        else:
            app = next((vars(app)[name] for name in _INNER if callable(_own(app).get(name))), None)
    return isinstance(app, ASGIHandler)


def _own(app: Any) -> dict[str, Any]:
    return getattr(app, "__dict__", {})


def is_nested(scope: Scope) -> bool:
    """Whether a `URLRouter` further out has routed `scope` already, and may know another route."""
    return "path_remaining" in scope


def consumer_class_of(app: ASGIApp) -> type | None:
    """The consumer class behind `app`: what `as_asgi` returned, or a consumer itself; else None."""
    if getattr(app, "__code__", None) is _AS_ASGI_CODE:
        consumer_class: type = app.consumer_class  # type: ignore[attr-defined]
        return consumer_class
    return type(app) if isinstance(app, AsyncConsumer) else None


def _through_layer(layer: Layer, scope: Scope) -> Found:
    found = look_ahead(layer.inner, scope)
    if found is Unseen.OPAQUE and layer.guards.policies:
        found = Route(layer.inner, endpoint=layer.inner)
    if isinstance(found, Route):
        if layer.default_policy is not None and not found.guards.policies:
            found.guards = found.guards._replace(policies=(layer.default_policy,))
        found.guards = layer.guards.around(found.guards)
        found.hooks = layer.hooks + found.hooks
    return found


def _through_wrapper(wrapper: ASGIApp, attribute: str, scope: Scope) -> Found:
    found = look_ahead(getattr(wrapper, attribute), scope)
    if isinstance(found, Route):
        # The wrapper's twin, around the endpoint alone: the routers in between have done their work.
        twin = copy.copy(wrapper)
        setattr(twin, attribute, found.app)
        found.app = twin
    return found


def _through_urls(router: Any, scope: Scope) -> Found:
    """As `URLRouter.__call__` does, including its way on to the next route when an inner router has none."""
    path: str = scope.get("path_remaining", scope["path"])
    if "path_remaining" not in scope:
        root_path = scope.get("root_path", "")
        if root_path and not path.startswith(root_path):
            return Unseen.UNROUTED
        path = path[len(root_path) :]
    path = path.lstrip("/")
    outer = scope.get("url_route", {})
    for route in router.routes:
        try:
            matched = route.pattern.match(path)
        except Resolver404:  # out of a converter
            continue
        if not matched:
            continue
        remaining, args, kwargs = matched
        url_route = {
            "args": outer.get("args", ()) + args,
            "kwargs": {**outer.get("kwargs", {}), **kwargs, **route.default_args},
        }
        url = {"path_remaining": remaining, "url_route": url_route}
        found = look_ahead(route.callback, {**scope, **url})
        if found is Unseen.UNROUTED:
            continue
        if isinstance(found, Route):
            found.url = {**url, **found.url}
            found.pattern = f"{route.pattern}{found.pattern}"
            found.name = found.name or route.name
        return found
    return Unseen.UNROUTED
