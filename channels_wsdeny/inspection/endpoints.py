"""Every endpoint of a site: those of ``ASGI_APPLICATION``, and the views of ``ROOT_URLCONF``.

They are read from how applications are put together; nothing is run.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.urls import URLResolver, get_resolver
from django.utils.module_loading import import_string

from ..routing.guards import NO_GUARDS, ASGIMiddleware, guards_of, uncalled
from ..routing.resolver import EndpointMatch, consumer_class_of, inner_name, is_known, kept_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..types import Protocol

#: The types of scopes of ASGI, and that of Channels' workers.
SCOPE_TYPES = ("http", "websocket", "lifespan", "channel")


@dataclass(frozen=True, slots=True)
class AsgiEndpoint:
    """The applications that a scope passes, from the outermost to the endpoint, which is the last one."""

    protocol: Protocol
    apps: tuple[Any, ...] = ()
    #: The path as it is written in the routes, and the name of the innermost route that has one.
    path: str = "/"
    name: str | None = None

    @property
    def app(self) -> Any:
        """The endpoint: a consumer, Django's handler, or an application that cannot be resolved."""
        return self.apps[-1]

    @property
    def consumer_class(self) -> type | None:
        """The class of the consumer; None if the endpoint is none."""
        return consumer_class_of(self.app)

    @property
    def is_served(self) -> bool:
        """Whether the endpoint may handle scopes of this protocol; a `URLRouter` routes others to it, too."""
        own, other = "websocket_connect", "http_request"
        if self.protocol == "http":
            own, other = other, own
        cls = self.app if isinstance(self.app, type) else self.consumer_class
        return hasattr(cls, own) or not hasattr(cls, other)

    @property
    def is_django(self) -> bool:
        """Whether it is Django's handler, which routes to views by itself."""
        return isinstance(self.app, ASGIHandler)

    @property
    def is_opaque(self) -> bool:
        """Whether it may lead to other endpoints that are unknown."""
        return not self.is_django and self.consumer_class is None

    @property
    def layers(self) -> tuple[ASGIMiddleware, ...]:
        """The stacks and decorated applications that the scope passes."""
        return tuple(app for app in self.apps if isinstance(app, ASGIMiddleware))

    @property
    def stack_index(self) -> int | None:
        """The place of the outermost `DenyMiddlewareStack` among the `apps`; None without one."""
        return next((i for i, app in enumerate(self.apps) if isinstance(app, ASGIMiddleware) and app.is_stack), None)

    @property
    def match(self) -> EndpointMatch:
        """What the resolver finds for a scope that comes here: the guards, hooks and default policies on the way."""
        guards = NO_GUARDS if self.consumer_class is None else guards_of(self.consumer_class)
        return reduce(EndpointMatch.within, reversed(self.layers), EndpointMatch(self.app, guards))


def site_application() -> Any:
    """``ASGI_APPLICATION``; None if it is not set.

    Raises what importing it raises, and `ImproperlyConfigured` for what is no application.
    """
    path = getattr(settings, "ASGI_APPLICATION", None)
    application = import_string(path) if path else None
    if path and not callable(application):
        raise ImproperlyConfigured(f"ASGI_APPLICATION is {application!r}, which is no ASGI application.")
    return application


def site_endpoints(protocol: Protocol) -> list[AsgiEndpoint]:
    """The endpoints of ``ASGI_APPLICATION``; none if it is not set. Raises what `site_application` does."""
    application = site_application()
    return [] if application is None else list(asgi_endpoints(application, AsgiEndpoint(protocol)))


def unknown_types() -> list[Any]:
    """The keys of the outermost `ProtocolTypeRouter` of ``ASGI_APPLICATION`` that are in no scope of ASGI or Channels.

    Raises what `site_application` does.
    """
    app, seen = site_application(), list[Any]()
    while not isinstance(app, ProtocolTypeRouter):
        name = inner_name(app)
        if name is None or any(app is each for each in seen):
            return []
        seen.append(app)
        app = getattr(app, name)
    return [name for name in app.application_mapping if name not in SCOPE_TYPES]


def asgi_endpoints(app: Any, outer: AsgiEndpoint) -> Iterator[AsgiEndpoint]:
    """The endpoints of `app`, in the order that its routers try them.

    `outer` has the protocol, and the applications that lead to `app` if there are any.
    """
    here = replace(outer, apps=(*outer.apps, app))
    is_within_itself = any(app is each for each in outer.apps)  # It may well refer to the application around it.
    if here.is_django or here.consumer_class is not None or isinstance(app, type) or is_within_itself:
        yield here
    else:
        for place, inner in _inside(app, here):
            yield from asgi_endpoints(inner, place)
        # A subclass of a router that overrides `__call__` may call what is no route of its.
        is_router = isinstance(app, (ProtocolTypeRouter, URLRouter))
        if not is_known(app) and (is_router or (inner_name(app) is None and not enclosed(app))):
            yield here


def _inside(app: Any, here: AsgiEndpoint) -> Iterator[tuple[AsgiEndpoint, Any]]:
    """The applications that a router or wrapper leads to, each with its place."""
    name = inner_name(app)
    if isinstance(app, ProtocolTypeRouter):
        if here.protocol in app.application_mapping:
            yield here, app.application_mapping[here.protocol]
    elif isinstance(app, URLRouter):
        for route in app.routes:
            place = replace(here, path=_join(here.path, route.pattern), name=route.name or here.name)
            yield place, route.callback
    elif name is not None:
        yield here, getattr(app, name)
    else:
        yield from ((here, value) for value in enclosed(app))
    # What is not known may also call other applications that it keeps.
    for key, value in () if is_known(app) else kept_by(app).items():
        if key != name and _leads_on(value):
            yield here, value


def enclosed(app: Any) -> list[Any]:
    """The applications that a function or a partial is made with, as a middleware that is written as a function is."""
    return [value for value in _made_with(app) if _leads_on(value)]


def _made_with(app: Any) -> Iterator[Any]:
    if isinstance(app, partial):
        yield from (app.func, *app.args, *app.keywords.values())
    for cell in getattr(app, "__closure__", None) or ():
        with suppress(ValueError):  # It is empty.
            yield cell.cell_contents


def _leads_on(app: Any, depth: int = 5) -> bool:
    """Whether `app` is an endpoint, a router or a layer, or what is made with one."""
    if not callable(app):  # Nothing else is looked at: a lazy object would be evaluated by that.
        return False
    if isinstance(app, ASGIHandler) or consumer_class_of(app) is not None or is_known(app):
        return True
    name = inner_name(app)
    inner = [*_made_with(app), *([getattr(app, name)] if name is not None else [])] if depth else []
    return any(_leads_on(each, depth - 1) for each in inner)


class View(NamedTuple):
    """A view at its place in the URLconf."""

    path: str
    name: str | None
    callback: Callable[..., Any]
    #: The path of the Django admin whose URLs it is among, if any.
    admin_path: str | None = None

    @property
    def asgi_app(self) -> Any:
        """The class of the consumer, or another ASGI application, that is in place of a view; None for a view."""
        app: Any = self.callback
        while isinstance(app, ASGIMiddleware):
            app = app.inner
        app = app.__self__ if uncalled(app) else app
        cls = app if isinstance(app, type) else consumer_class_of(app)
        if cls is not None and issubclass(cls, AsyncConsumer):
            return cls
        return app if is_known(self.callback) else None


def views(
    resolver: URLResolver | None = None,
    path: str = "",
    namespaces: tuple[str, ...] = (),
    admin_path: str | None = None,
) -> Iterator[View]:
    """The views of ``ROOT_URLCONF``, or of an inner resolver, in the order that Django tries them.

    Raises what importing a URLconf of the site raises.
    """
    resolver = resolver or get_resolver()
    path = _join(path, resolver.pattern)
    if resolver.namespace:
        namespaces = (*namespaces, resolver.namespace)
    if resolver.app_name == "admin":  # as `AdminSite.urls` names it
        admin_path = path
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from views(entry, path, namespaces, admin_path)
        else:
            name = ":".join((*namespaces, entry.name)) if entry.name else None
            yield View(_join(path, entry.pattern), name, entry.callback, admin_path)


def _join(path: str, pattern: object) -> str:
    """`path` and the pattern of an inner route, joined as Django joins them."""
    return path + str(pattern).removeprefix("^")
