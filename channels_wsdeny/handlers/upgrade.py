"""The upgrade that a plain GET lacks when it reaches a WebSocket route (RFC 9110 section 15.5.22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.urls import Resolver404, resolve
from django.utils.translation import gettext_lazy as _

from ..exceptions import Deny
from ..routing.match import Route
from ..routing.resolver import consumer_class_of, look_ahead

if TYPE_CHECKING:
    from ..routing.match import Found
    from ..routing.middleware import Layer
    from ..types import Scope

#: A path that nobody means: a route that matches it is there for all paths.
_NOWHERE = "/\0"


def socket_route(app: Layer, scope: Scope) -> Route | None:
    """The WebSocket route of `app` that a plain GET has reached; None if HTTP has something at its path."""
    if scope.get("method") not in {"GET", "HEAD"}:
        return None
    handshake = {**scope, "type": "websocket"}
    found = _route(app, handshake)
    if found is None or "url_route" not in found.url or _is_routed_by_django(scope):
        return None
    nowhere = {**handshake, "path": scope.get("root_path", "") + _NOWHERE}
    return None if _route(app, nowhere) is not None else found


def lost_socket(app: Layer, scope: Scope, found: Found | Exception) -> Route | None:
    """The WebSocket route of a consumer that was reached over HTTP and does not speak it; else None."""
    if not isinstance(found, Route):
        return None
    consumer_class = consumer_class_of(found.endpoint)
    if consumer_class is None or hasattr(consumer_class, "http_request"):
        return None
    return _route(app, {**scope, "type": "websocket"})


def upgrade_required(scope: Scope) -> Deny:
    """The denial of a plain request for a socket that its policies would open."""
    # HTTP/2 knows no upgrade, and forbids the header (RFC 9113 section 8.2.2).
    is_http1 = scope.get("http_version", "1.1") in {"1.0", "1.1"}
    headers = {"Upgrade": "websocket", "Connection": "upgrade"} if is_http1 else {}
    return Deny(426, _("This address is a WebSocket."), headers=headers)


def _route(app: Layer, scope: Scope) -> Route | None:
    try:
        found = look_ahead(app, scope)
    except Exception:  # noqa: BLE001 - a converter of the site's may raise anything; then it is no route
        return None
    return found if isinstance(found, Route) else None


def _is_routed_by_django(scope: Scope) -> bool:
    path_info: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if not getattr(settings, "ROOT_URLCONF", None):
        return False
    try:
        resolve(path_info)
    except Resolver404:
        return False
    except Exception:  # noqa: BLE001 - a URLconf that is broken: Django says so itself
        return True
    return True
