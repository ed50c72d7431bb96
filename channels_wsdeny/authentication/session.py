"""Authentication by the session's cookie, which is what Django does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Authentication, session_user

if TYPE_CHECKING:
    from django.http import HttpRequest


class SessionAuthentication(Authentication):
    """The user of the session, verified by Django's backends; for views, the one of `AuthenticationMiddleware`.

    It reads the session's cookie alone, and browsers send that with the handshake of any page: see ``ORIGINS``.
    """

    def authenticate(self, request: HttpRequest) -> Any:
        """The user; None for an anonymous one."""
        user = session_user(request)
        return user if user.is_authenticated else None
