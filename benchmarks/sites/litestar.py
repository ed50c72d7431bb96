"""The site by Litestar: a guard, of the address or of the whole application; it closes without a response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import Litestar, WebSocket, websocket
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException, WebSocketDisconnect

from . import COOKIE, GUARDED

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler


async def has_cookie(connection: ASGIConnection, handler: BaseRouteHandler) -> None:
    """Deny who sends no session cookie."""
    if COOKIE not in connection.cookies:
        raise NotAuthorizedException


async def nobody(connection: ASGIConnection, handler: BaseRouteHandler) -> None:
    """Deny everybody."""
    raise PermissionDeniedException


@websocket(GUARDED, guards=[has_cookie])
async def guarded(socket: WebSocket) -> None:
    """Accept, and echo."""
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


def site() -> Litestar:
    """The site."""
    return Litestar([guarded])


def hooked() -> Litestar:
    """The site that denies everybody."""
    return Litestar([guarded], guards=[nobody])


application = site()
