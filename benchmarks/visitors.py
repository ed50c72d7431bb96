"""Visitors: who knocks, told by the cookie that is sent."""

from __future__ import annotations

from .sites import COOKIE

#: Sends no cookie.
NOBODY = "nobody"
#: Sends a session cookie, which sites without Django take for a log-in.
SOMEBODY = "somebody"
#: Is logged in, and has not got the permission.
GUEST = "guest"
#: Is logged in, and has the permission.
MEMBER = "member"


def cookie_of(visitor: str) -> str | None:
    """The ``Cookie`` header of this visitor; None without one. A guest or member is logged in for it."""
    if visitor == NOBODY:
        return None
    if visitor == SOMEBODY:
        return f"{COOKIE}=somebody"
    from . import database  # noqa: PLC0415 - Django is there for those contenders only that use it

    return f"{COOKIE}={database.log_in(visitor)}"
