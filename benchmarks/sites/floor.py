"""Django's own floor: one hop to a thread that loads session and user and asks for the permission."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import django
from channels.db import database_sync_to_async
from django.contrib import auth
from django.http import parse_cookie

from . import COOKIE, PERMISSION
from .bare import deny, echo

django.setup()

from django.contrib.sessions.backends.db import SessionStore  # noqa: E402 - it is a model


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Ask in a thread, and answer."""
    await receive()
    cookie = next(value.decode("latin1") for name, value in scope["headers"] if name == b"cookie")
    if await _is_allowed(parse_cookie(cookie)[COOKIE]):
        await echo(receive, send)
    else:
        await deny(send, 403)


@database_sync_to_async
def _is_allowed(session_key: str) -> bool:
    request: Any = SimpleNamespace(session=SessionStore(session_key))
    return bool(auth.get_user(request).has_perm(PERMISSION))


def site() -> Any:
    """The site."""
    return application
