"""The look-ahead: where a scope would be routed to, told without running anything.

It sees through Channels' routers and wrappers and this package's own layers. What it cannot see through is
*opaque*: there the handshake is decided when the application first asks for an event.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeAlias

from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.core.handlers.asgi import ASGIHandler
from django.urls.exceptions import Resolver404

from ..conf import conf
from ..types import Scope
from .guards import NO_GUARDS, guards_of
from .match import NO_URL, Found, Route, Unseen
from .middleware import Layer, is_seen_through

if TYPE_CHECKING:
    from ..types import ASGIApp


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


#: Tells where a scope goes: from the scope, and from the path that is left and the route that led here,
#: if there were routers before.
_Sight: TypeAlias = Callable[[Scope, str | None, dict[str, Any]], Found]


def look_ahead(app: Any, scope: Scope) -> Found:
    """Where `app` would route `scope`.

    What can be told of a layer without a scope is told once, when it is first asked.
    """
    sight = _sight_of(app)
    return sight(scope, scope.get("path_remaining"), scope.get("url_route", NO_URL))


def look_through(layer: Layer, scope: Scope) -> Found | Exception:
    """As `look_ahead`; or what a converter of the site's raised meanwhile, which may be anything.

    Raises `Resolver404` if nothing in `layer` matches, for a router around it that may know another route.
    """
    try:
        found = look_ahead(layer, scope)
    except Exception as error:  # noqa: BLE001 - as above
        return error
    if found is Unseen.UNROUTED and is_nested(scope):
        raise Resolver404({"path": scope["path_remaining"]})
    return found


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
    if is_seen_through(app):
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


def is_known(app: Any) -> bool:
    """Whether the look-ahead knows what `app`, which is no endpoint, does with a scope."""
    kind = type(app)
    call = getattr(kind, "__call__", None)  # noqa: B004 - as above
    is_router = call in {ProtocolTypeRouter.__call__, URLRouter.__call__}
    return is_seen_through(app) or kind in _KNOWN_WRAPPERS or is_router


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
    if guards is NO_GUARDS and not hooks and default_policy is None:
        return inner

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
            if outer is NO_URL and not route.default_args:
                url_route = {"args": args, "kwargs": kwargs}
            else:
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
