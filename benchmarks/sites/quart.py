"""The site by Quart: ``abort()``, in the handler or in a hook before it."""

from __future__ import annotations

from quart import Quart, abort, websocket

from . import COOKIE, GUARDED


async def guarded() -> None:
    """Accept who sends a session cookie, and echo."""
    if COOKIE not in websocket.cookies:
        abort(401)
    await websocket.accept()
    while True:
        await websocket.send(await websocket.receive())


async def nobody() -> None:
    """Deny everybody."""
    abort(403)


def site() -> Quart:
    """The site."""
    app = Quart(__name__)
    app.add_websocket(GUARDED, view_func=guarded)
    return app


def hooked() -> Quart:
    """The site that denies everybody."""
    app = site()
    app.before_websocket(nobody)
    return app


application = site()
