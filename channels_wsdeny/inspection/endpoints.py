"""Ways: from an ASGI application to each of its endpoints, read from how it is put together.

The look-ahead follows one scope; this follows every route, without a scope and without running anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channels.routing import ProtocolTypeRouter, URLRouter, get_default_application
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler

from ..routing.guards import NO_GUARDS, Guards, guards_of
from ..routing.middleware import Layer
from ..routing.resolver import consumer_class_of, inner_name, is_known
from ..stack import DenyMiddlewareStack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..policies.builtin import Policy
    from ..types import Protocol


@dataclass(frozen=True, slots=True)
class Way:
    """The apps that a scope goes through, from the outside in; the last one is the endpoint."""

    protocol: Protocol
    apps: tuple[Any, ...]
    #: The path as it is written in the routes, and the name of the innermost route that has one.
    path: str = "/"
    name: str | None = None

    @property
    def endpoint(self) -> Any:
        """What the way leads to: a consumer, Django's handler, or something that cannot be seen into."""
        return self.apps[-1]

    @property
    def consumer_class(self) -> type | None:
        """The class of the consumer at the end; None if it is none."""
        return consumer_class_of(self.endpoint)

    @property
    def is_served(self) -> bool:
        """Whether the endpoint knows what to do with a scope of this protocol, for all that is known."""
        own, other = ("websocket_connect", "http_request")[:: 1 if self.protocol == "websocket" else -1]
        cls = self.endpoint if isinstance(self.endpoint, type) else self.consumer_class
        return hasattr(cls, own) or not hasattr(cls, other)

    @property
    def is_django(self) -> bool:
        """Whether it leads to Django's handler, which routes to views by itself."""
        return isinstance(self.endpoint, ASGIHandler)

    @property
    def is_opaque(self) -> bool:
        """Whether there may be more behind the endpoint, which cannot be seen."""
        return not self.is_django and self.consumer_class is None

    @property
    def is_circle(self) -> bool:
        """Whether the endpoint is one of the apps that lead to it."""
        return any(app is self.endpoint for app in self.apps[:-1])

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The stacks and decorated apps on the way."""
        return tuple(app for app in self.apps if isinstance(app, Layer))

    @property
    def has_stack(self) -> bool:
        """Whether there is a `DenyMiddlewareStack` on the way."""
        return any(isinstance(layer, DenyMiddlewareStack) for layer in self.layers)

    @property
    def unknown(self) -> tuple[Any, ...]:
        """The wrappers on the way that may change the scope, or route elsewhere, for all that is known."""
        return tuple(app for app in self.apps[:-1] if not is_known(app))

    @property
    def guards(self) -> Guards:
        """The guards of decorators on the way, those of the consumer among them."""
        guards = NO_GUARDS
        for layer in self.layers:
            guards = guards.around(layer.guards)
        return guards if self.consumer_class is None else guards.around(guards_of(self.consumer_class))

    @property
    def default_policy(self) -> Policy | None:
        """The policy that the nearest stack names for what carries none; None if there is no need for one."""
        is_guarded = self.consumer_class is not None and bool(guards_of(self.consumer_class).policies)
        for layer in reversed(self.layers):
            if is_guarded:
                return None
            if layer.default_policy is not None:
                return layer.default_policy
            is_guarded = bool(layer.guards.policies)
        return None


def application_of_site() -> Any:
    """``ASGI_APPLICATION``; None if it is not set.

    Raises what importing it does, and `ImproperlyConfigured` for what is no application. So it does for an
    `ImportError`, which it names.
    """
    if not getattr(settings, "ASGI_APPLICATION", None):
        return None
    try:
        application = get_default_application()
    except ImproperlyConfigured as error:
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, ImportError):
            raise
        # Channels says which module it was, but not what is wrong with it.
        raise ImproperlyConfigured(f"{error}: {type(cause).__name__}: {cause}") from cause
    if not callable(application):
        raise ImproperlyConfigured(f"ASGI_APPLICATION is {application!r}, which is no ASGI application.")
    return application


def ways_of_site(protocol: Protocol) -> list[Way]:
    """All ways of ``ASGI_APPLICATION``; none if it is not set. Raises what `application_of_site` does."""
    application = application_of_site()
    return [] if application is None else list(ways(application, protocol))


def ways(app: Any, protocol: Protocol) -> Iterator[Way]:
    """All ways of `protocol` through `app`, in the order that its routers try them."""
    yield from _ways(app, Way(protocol, ()))


def _ways(app: Any, outer: Way) -> Iterator[Way]:
    way = Way(outer.protocol, (*outer.apps, app), outer.path, outer.name)
    if way.is_circle or isinstance(app, ASGIHandler):
        yield way
    elif isinstance(app, Layer):  # which has the attributes of what it guards
        yield from _ways(app.inner, way)
    elif consumer_class_of(app) is not None:
        yield way
    elif isinstance(app, ProtocolTypeRouter):
        inner = app.application_mapping.get(outer.protocol)
        if inner is not None:
            yield from _ways(inner, way)
    elif isinstance(app, URLRouter):
        for route in app.routes:
            path = join(way.path, route.pattern)
            yield from _ways(route.callback, Way(way.protocol, way.apps, path, route.name or way.name))
    else:
        name = inner_name(app)
        if name is None:
            yield way
        else:
            yield from _ways(getattr(app, name), way)


def join(path: str, pattern: object) -> str:
    """`path` and a pattern further in, as Django joins them."""
    return path + str(pattern).removeprefix("^")
