"""System checks of how ``ASGI_APPLICATION`` is put together: what stands around the consumers, and where."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names

from ..decorators import is_bound
from ..inspection.endpoints import application_of_site, ways_of_site
from ..names import name_of
from ..routing.guards import guards_of
from ..routing.middleware import Layer
from ..testing.origins import imported_application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..hooks.registry import Hook
    from ..inspection.endpoints import Way
    from ..types import Protocol


def is_left_alone() -> bool:
    """Whether ``ASGI_APPLICATION`` must not be imported for the checks.

    ``manage.py test`` runs them before any test has overridden what ``asgi.py`` reads as it is imported.
    """
    return sys.argv[1:2] == ["test"] and imported_application() is None


def seen_ways(protocol: Protocol) -> list[Way]:
    """All ways of ``ASGI_APPLICATION``; none if it cannot be imported, which `check_application` says."""
    if is_left_alone():
        return []
    try:
        return ways_of_site(protocol)
    except Exception:  # noqa: BLE001 - importing a site's module can raise anything
        return []


def check_application(**kwargs: Any) -> list[CheckMessage]:
    """W003: ``ASGI_APPLICATION`` can be imported."""
    if is_left_alone():
        return []
    try:
        application_of_site()
    except Exception as error:  # noqa: BLE001 - importing a site's module can raise anything
        return [
            Warning(
                f"ASGI_APPLICATION = {settings.ASGI_APPLICATION!r} cannot be imported: {error!r}",
                hint="Correct the dotted path, or the error in that module.",
                id="channels_wsdeny.W003",
            )
        ]
    return []


def check_stack(**kwargs: Any) -> list[CheckMessage]:
    """W002: a `DenyMiddlewareStack` is around every consumer."""
    found = [way for way in seen_ways("websocket") if _is_routed(way)]
    outside = [way for way in found if not way.has_stack]
    if not outside or _is_around_http_alone(found):
        return []
    if len(outside) == len(found):
        what = "The websocket side of ASGI_APPLICATION is"
    else:
        what = f"These routes of ASGI_APPLICATION are: {', '.join(way.path for way in outside)};"
    return [
        Warning(
            f"{what} not inside a DenyMiddlewareStack, so consumers without a decorator are open to "
            "everybody.",
            hint="In asgi.py: application = DenyMiddlewareStack(ProtocolTypeRouter({...})).",
            id="channels_wsdeny.W002",
        )
    ]


def check_protocol_of_stack(**kwargs: Any) -> list[CheckMessage]:
    """W005: the stack is around sockets, not around views alone."""
    if not _is_around_http_alone([way for way in seen_ways("websocket") if _is_routed(way)]):
        return []
    return [
        Warning(
            "A DenyMiddlewareStack is around the 'http' of ASGI_APPLICATION, but none is around its "
            "'websocket', so consumers without a decorator are open to everybody.",
            hint="Put it around both: application = DenyMiddlewareStack(ProtocolTypeRouter({...})).",
            id="channels_wsdeny.W005",
        )
    ]


def check_routed_classes(**kwargs: Any) -> list[CheckMessage]:
    """E006: routes lead to what ``as_asgi()`` returns, not to classes."""
    found = [*seen_ways("websocket"), *seen_ways("http")]
    classes = {(way.path, way.endpoint) for way in found if isinstance(way.endpoint, type)}
    return [
        Error(
            f"The route {path!r} leads to the class {name_of(cls)} itself, which cannot answer.",
            hint=f"Write {cls.__name__}.as_asgi() in the route.",
            id="channels_wsdeny.E006",
        )
        for path, cls in sorted(classes, key=lambda found: found[0])
        if issubclass(cls, AsyncConsumer)
    ]


def check_bindings(**kwargs: Any) -> list[CheckMessage]:
    """E007: consumers ask the policies that a base of theirs was decorated with, also without a stack."""
    found = [*seen_ways("websocket"), *seen_ways("http")]
    classes = dict.fromkeys(way.consumer_class for way in found if way.consumer_class is not None)
    return [
        Error(
            f"{name_of(cls)} inherits {guards_of(cls)}, but its __call__ and __new__ pass it by.",
            hint="Decorate the class itself, or have the __init_subclass__ of its mixins call super().",
            id="channels_wsdeny.E007",
        )
        for cls in classes
        if guards_of(cls).policies and not is_bound(cls)
    ]


def check_needless_auth(**kwargs: Any) -> list[CheckMessage]:
    """W007: Channels' own `AuthMiddleware` is not needed."""
    found = (way for way in seen_ways("websocket") if way.has_stack)
    path = next((way.path for way in found if any(type(app) is AuthMiddleware for app in way.apps)), None)
    if path is None:
        return []
    return [
        Warning(
            f"The route {path!r} goes through Channels' AuthMiddleware as well as a DenyMiddlewareStack, "
            "which loads the user itself. AuthMiddleware loads it again, and logs out whose session was "
            "signed with a key that is in SECRET_KEY_FALLBACKS now.",
            hint="Leave AuthMiddlewareStack (or AuthMiddleware) out of asgi.py.",
            id="channels_wsdeny.W007",
        )
    ]


def check_users_of_wrappers(**kwargs: Any) -> list[CheckMessage]:
    """W008: what may put a user into the scope is around the stack, whose default policy then asks of it."""
    met: dict[int, CheckMessage] = {}
    for way in seen_ways("websocket"):
        if way.guards.policies:
            continue
        for wrapper in _wrappers_inside(way):
            message = Warning(
                f"{name_of(wrapper)} is inside the DenyMiddlewareStack. If it puts a user into the scope, "
                f"the default policy, which {way.path!r} relies on, asks about the session's user instead.",
                hint="Put it around DenyMiddlewareStack, or decorate the consumers behind it. If it sets no "
                "user, silence this.",
                id="channels_wsdeny.W008",
            )
            met.setdefault(id(wrapper), message)
    return list(met.values())


def hooks_that_views_miss() -> list[Hook]:
    """The hooks of stacks around Django's handler that only `MirrorMiddleware` runs."""
    around = [layer for way in seen_ways("http") if way.is_django for layer in way.layers]
    registered = (hook for layer in around for registry in layer.hooks for hook in registry)
    return [hook for hook in registered if hook.kind in {"route", "exception"} and "http" in hook.protocols]


def _is_routed(way: Way) -> bool:
    """Whether something in Channels' terms leads there: else the application may have no sockets at all."""
    routers = (ProtocolTypeRouter, URLRouter)
    return way.consumer_class is not None or any(isinstance(app, routers) for app in way.apps)


def _is_around_http_alone(sockets: list[Way]) -> bool:
    return (
        bool(sockets)
        and not any(way.has_stack for way in sockets)
        and any(way.has_stack for way in seen_ways("http"))
    )


def _wrappers_inside(way: Way) -> Iterator[Any]:
    """The wrappers inside the outermost stack of `way` that are not known."""
    outer = next((number for number, app in enumerate(way.apps) if isinstance(app, Layer)), len(way.apps))
    unknown = {id(app) for app in way.unknown}
    yield from (app for app in way.apps[outer:] if id(app) in unknown and not isinstance(app, Layer))
