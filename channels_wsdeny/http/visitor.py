"""The visitor: the session and user that the cookies of an ASGI scope name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import parse_cookie
from django.utils.functional import LazyObject, SimpleLazyObject, cached_property, empty

from .. import concurrency as pool
from . import session as sessions

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest

    User = AbstractBaseUser | AnonymousUser


class VisitorRequest(ASGIRequest):
    """A request made from an ASGI scope that knows who sent it.

    `session` and `user` are loaded when they are first looked at, which may block; `auser()` is for
    coroutines. A ``session`` or ``user`` that wrappers put into the scope is used instead.
    """

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]  # noqa: N802 - Django's name
        values = [value for name, value in self.scope.get("headers", []) if name == b"cookie"]
        return parse_cookie(b"; ".join(values).decode("latin1")) if values else {}

    @cached_property
    def session(self) -> SessionBase:  # type: ignore[override]
        return sessions.open_session(self.COOKIES.get(settings.SESSION_COOKIE_NAME))

    @cached_property
    def user(self) -> User:  # type: ignore[override]
        user = self.known_user
        return SimpleLazyObject(lambda: sessions.load_user(self.session)) if user is None else user  # type: ignore[return-value]

    async def auser(self) -> User:  # type: ignore[override]
        """The user, loaded in a thread of the pool if need be."""
        if self.known_user is None:
            await pool.hop(self.load_user)
        return self.user

    def load_user(self) -> None:
        """Load the user now; blocks."""
        self.user.is_authenticated  # noqa: B018 - a lazy object is loaded by looking at it

    @property
    def known_user(self) -> User | None:
        """The user if it can be told without I/O, else None.

        A visitor without a session cookie is anonymous; that much needs no session.
        """
        own = vars(self)
        if "user" not in own and self.scope.get("session") is None and not self._has_session_cookie:
            own["user"] = anonymous()
        return _loaded(own.get("user"))

    @cached_property
    def _has_session_cookie(self) -> bool:
        name = settings.SESSION_COOKIE_NAME.encode()
        for key, value in self.scope.get("headers", []):
            if key == b"cookie" and name in value:
                return settings.SESSION_COOKIE_NAME in self.COOKIES
        return False


def anonymous() -> AnonymousUser:
    """A visitor who is nobody."""
    from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415 - needs loaded apps

    return AnonymousUser()


def known_user(request: HttpRequest) -> User | None:
    """The user of any request if it can be told without I/O, else None."""
    if isinstance(request, VisitorRequest):
        return request.known_user
    return _loaded(vars(request).get("user"))


def _loaded(user: User | None) -> User | None:
    """`user`, unless it is lazy and nobody has looked at it yet."""
    if isinstance(user, LazyObject) and user._wrapped is empty:
        return None
    return user
