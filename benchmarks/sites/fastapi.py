"""The site by FastAPI: a dependency that raises, of the address or of the whole application."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Cookie, Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect

from . import GUARDED


async def session(sessionid: Annotated[str | None, Cookie()] = None) -> str:
    """The session cookie; who sends none is denied."""
    if sessionid is None:
        raise HTTPException(401)
    return sessionid


async def nobody() -> None:
    """Denies everybody."""
    raise HTTPException(403)


async def guarded(websocket: WebSocket, session: Annotated[str, Depends(session)]) -> None:
    """Accept, and echo."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


def site(*dependencies: Any) -> FastAPI:
    """The site, with such dependencies of every address."""
    app = FastAPI(dependencies=dependencies)
    app.add_api_websocket_route(GUARDED, guarded)
    return app


def hooked() -> FastAPI:
    """The site that denies everybody."""
    return site(Depends(nobody))


application = site()
