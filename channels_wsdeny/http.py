"""The HTTP door: which way a request over ``http`` takes.

`AsyncHttpConsumer` and mounted ASGI apps get an exchange of their own; for Django's handler, hooks and
policies are left to `channels_wsdeny.middleware`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.urls.exceptions import Resolver404

from .conf import conf, is_mirrored
from .exchange import Exchange
from .lookahead import Route, Unseen, is_nested, leads_to_django, look_ahead
from .passage import Handover, Passage
from .upgrade import lost_socket, socket_route

if TYPE_CHECKING:
    from .guards import Guards
    from .lookahead import Found, Layer
    from .types import ASGIApp, Receive, Scope, Send


async def enter_layer(layer: Layer, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `layer`, a stack, for an HTTP scope.

    Raises `Resolver404` if nothing in it matches, for a router around it that may know another route.
    """
    try:
        found: Found | Exception = look_ahead(layer, scope)
    except Exception as error:  # noqa: BLE001 - a converter of the site's may raise anything
        found = error
    if found is Unseen.UNROUTED and is_nested(scope):
        raise Resolver404({"path": scope["path_remaining"]})
    exchange = _exchange_of(scope)
    if exchange is not None:
        await exchange.enter_layer(layer, found, scope, receive, send)
        return
    route = found if isinstance(found, Route) else None
    socket = (
        socket_route(layer, scope) if _may_lack_a_page(layer, found) else lost_socket(layer, scope, found)
    )
    if socket is not None:
        exchange = Exchange(scope, receive, send)
        await exchange.run(exchange.refuse_socket(socket))
        return
    if route is not None and route.is_django and not route.guards.policies:
        hooks = (*route.hooks, *route.guards.hooks)
        if is_mirrored():
            scope = {**scope, **route.url, "wsdeny": Handover(hooks, route.default_policy)}
            await route.app(scope, receive, send)
            return
        if not (hooks or conf.HOOKS):
            await route.app({**scope, **route.url}, receive, send)
            return
    exchange = Exchange(scope, receive, send)
    await exchange.run(exchange.enter_layer(layer, found, scope, exchange.receive, exchange.send))


async def enter_endpoint(app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards) -> None:
    """Run `app` for an HTTP scope once `guards` let it; what did before is not asked again."""
    exchange = _exchange_of(scope)
    if exchange is None:
        exchange = Exchange(scope, receive, send)
        await exchange.run(exchange.enter_endpoint(app, scope, exchange.receive, exchange.send, guards))
    else:
        await exchange.enter_endpoint(app, scope, receive, send, guards)


def _may_lack_a_page(layer: Layer, found: Found | Exception) -> bool:
    """Whether nobody but Django, whose URLconf can be asked, may have something at the path of a socket."""
    if isinstance(found, Route):
        return found.is_django
    return found is Unseen.UNROUTED or (found is Unseen.OPAQUE and leads_to_django(layer.inner))


def _exchange_of(scope: Scope) -> Exchange | None:
    passage = scope.get("wsdeny")
    exchange = passage.door if isinstance(passage, Passage) else None
    return exchange if isinstance(exchange, Exchange) else None
