"""Channels by hand: `AuthMiddlewareStack`, and a consumer that asks in ``connect()``."""

from __future__ import annotations

from typing import Any

import django

django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.db import database_sync_to_async  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from . import GUARDED, PERMISSION  # noqa: E402


class Guarded(AsyncWebsocketConsumer):
    """Accepts who has the permission, and echoes."""

    async def connect(self) -> None:
        user = self.scope["user"]
        if user.is_authenticated and await database_sync_to_async(user.has_perm)(PERMISSION):
            await self.accept()
        else:
            await self.close()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class ClosesEarly:
    """What people write for an early answer: a middleware, which can only close."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self.inner(scope, receive, send)


def site(routes: int = 1) -> Any:
    """The site with the guarded address behind so many others."""
    others = [path(f"other-{number}/", Guarded.as_asgi()) for number in range(1, routes)]
    urls = URLRouter([*others, path(GUARDED.lstrip("/"), Guarded.as_asgi())])
    return ProtocolTypeRouter({"websocket": AuthMiddlewareStack(urls)})


def hooked() -> Any:
    """The site that closes early."""
    return ClosesEarly(site())


application = site()
