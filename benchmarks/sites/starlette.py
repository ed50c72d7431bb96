"""The site by Starlette: an `HTTPException` before the accept."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import COOKIE, GUARDED


async def guarded(websocket: WebSocket) -> None:
    """Accept who sends a session cookie, and echo."""
    if COOKIE not in websocket.cookies:
        raise HTTPException(401)
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


class AnswersEarly:
    """A middleware that answers everybody."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await PlainTextResponse("denied\n", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def site(*middleware: Middleware) -> Starlette:
    """The site, behind such middleware."""
    return Starlette(routes=[WebSocketRoute(GUARDED, guarded)], middleware=middleware)


def hooked() -> Starlette:
    """The site that answers early."""
    return site(Middleware(AnswersEarly))


application = site()
