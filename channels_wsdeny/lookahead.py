"""The look-ahead: where a scope would be routed to, told without running anything.

It sees through Channels' routers and wrappers and this package's own layers. What it cannot see through is
*opaque*: there the handshake is decided when the application first asks for an event.
"""

from __future__ import annotations

import copy
import enum
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.urls import ResolverMatch

from .guards import policies_of

if TYPE_CHECKING:
    from .policies import Policy
    from .types import ASGIApp, Scope


class Layer:
    """An app of this package around another: the look-ahead sees through it.

    `policies` must pass before anything further in; `default_policy` is for endpoints without any.
    """

    inner: ASGIApp
    policies: tuple[Policy, ...] = ()
    default_policy: Policy | None = None


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
#: How to tell what `as_asgi` returns from a function that only carries its attributes.
_AS_ASGI_CODE = AsyncConsumer.as_asgi().__code__


@dataclass(slots=True)
class Route:
    """The endpoint of a scope, found without running anything.

    `app` is the endpoint within the wrappers on its way; `policies` are all that must pass, from the
    outside in, empty if nobody named any; `url` is what the routers would add to the scope.
    """

    app: ASGIApp
    policies: tuple[Policy, ...] = ()
    default_policy: Policy | None = None
    url: dict[str, Any] = field(default_factory=dict)
    match: partial[ResolverMatch] | None = None


Found: TypeAlias = Route | Literal[Unseen.UNROUTED, Unseen.OPAQUE]


def look_ahead(app: ASGIApp | Layer, scope: Scope) -> Found:
    """Where `app` would route `scope`."""
    if isinstance(app, Layer):
        return _through_layer(app, scope)
    kind = type(app)
    if kind in _KNOWN_WRAPPERS:
        return _through_wrapper(app, _KNOWN_WRAPPERS[kind], scope)
    call = getattr(kind, "__call__", None)  # noqa: B004 - a subclass that overrides it is opaque
    if call is ProtocolTypeRouter.__call__:
        inner = app.application_mapping.get(scope["type"])  # type: ignore[attr-defined]
        return Unseen.UNROUTED if inner is None else look_ahead(inner, scope)
    if call is URLRouter.__call__:
        return _through_urls(app, scope)
    consumer_class = consumer_class_of(app)
    if consumer_class is not None:
        return Route(app, policies_of(consumer_class))
    return Unseen.OPAQUE


def consumer_class_of(app: ASGIApp) -> type | None:
    """The consumer class behind `app`: what `as_asgi` returned, or a consumer itself; else None."""
    if getattr(app, "__code__", None) is _AS_ASGI_CODE:
        consumer_class: type = app.consumer_class  # type: ignore[attr-defined]
        return consumer_class
    return type(app) if isinstance(app, AsyncConsumer) else None


def _through_layer(layer: Layer, scope: Scope) -> Found:
    found = look_ahead(layer.inner, scope)
    if found is Unseen.OPAQUE and layer.policies:
        found = Route(layer.inner)
    if isinstance(found, Route):
        found.policies = layer.policies + found.policies
        found.default_policy = found.default_policy or layer.default_policy
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
        matched = route.pattern.match(path)
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
            if found.match is None:
                found.match = partial(_resolver_match, route, url_route)
        return found
    return Unseen.UNROUTED


def _resolver_match(route: Any, url_route: dict[str, Any]) -> ResolverMatch:
    return ResolverMatch(
        route.callback,
        url_route["args"],
        url_route["kwargs"],
        url_name=route.name,
        route=str(route.pattern),
    )
