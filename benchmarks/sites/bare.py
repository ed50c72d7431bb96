"""A bare ASGI application: what nobody can be faster than."""

from __future__ import annotations

from typing import Any

from . import COOKIE

_NAME = f"{COOKIE}=".encode()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Look for the cookie, and answer."""
    await receive()
    if has_cookie(scope):
        await echo(receive, send)
    else:
        await deny(send, 401)


async def _closed(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await deny(send, 403)


def site() -> Any:
    """The site."""
    return application


def hooked() -> Any:
    """The site that denies at once."""
    return _closed


def has_cookie(scope: Any) -> bool:
    """Whether the visitor sends a session cookie."""
    return any(name == b"cookie" and _NAME in value for name, value in scope["headers"])


async def deny(send: Any, status: int) -> None:
    """Deny with a response."""
    body = b"denied\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def echo(receive: Any, send: Any) -> None:
    """Accept, and send back what comes."""
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})
