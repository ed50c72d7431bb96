"""Authentication by tickets: what a page asks for by a request, and gives in the address of one handshake.

A ticket stands in a query string, which servers and proxies log, so it is good for a single use, a few seconds, one
user and one path, and holds nothing but a random number.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from django.contrib import auth
from django.core import signing
from django.db.models import Model
from django.utils.crypto import constant_time_compare

from ..db import get_cache, is_unreachable
from ..exceptions import Deny
from ..http import session as sessions
from ..http.trace import is_dry_run
from .base import Authentication

if TYPE_CHECKING:
    from django.http import HttpRequest

#: Seconds that a ticket is good for.
TICKET_AGE = 30
_SALT = "channels_wsdeny.ticket"
_KEY = "channels_wsdeny.ticket:"


class Ticket(NamedTuple):
    """What was noted when a ticket was issued; ``request.auth`` of the handshake that has used it."""

    user_pk: str
    path: str
    #: Of the session that asked for it; None where that was another credential.
    session_key: str | None
    password_hash: str

    def load_user(self) -> Any:
        """The user, if the session and the password are still what they were; else None. Blocks."""
        if self.session_key is not None:
            user: Any = sessions.load_user(sessions.open_session(self.session_key))
            return user if user.is_authenticated and str(user.pk) == self.user_pk else None
        model = auth.get_user_model()
        user = model._default_manager.filter(pk=self.user_pk).first()
        if user is None or not user.is_active:
            return None
        return user if constant_time_compare(self.password_hash, _hash_of(user)) else None


class TicketAuthentication(Authentication):
    """A ticket of `issue_ticket` in the query string: ``?ticket=``. `cache` is the alias of the cache it is kept in."""

    ambient = False
    _arguments = frozenset({"cache"})

    def __init__(self, *, cache: str = "default") -> None:
        self.cache = cache

    def authenticate(self, request: HttpRequest) -> Any:
        """The user of the ticket, and the `Ticket`; None without one. A second use of a ticket is refused."""
        given = request.GET.get("ticket")
        if given is None:
            return None
        denial = Deny(401, code="invalid_credentials")
        try:
            key = _KEY + signing.TimestampSigner(salt=_SALT).unsign(given, max_age=TICKET_AGE)
        except signing.BadSignature:
            raise denial from None
        cache = get_cache(self.cache)
        noted = cache.get(key)
        if noted is None:
            raise denial
        ticket = Ticket(*noted)
        # A ticket for another path is not used up: its own page may still come.
        if not constant_time_compare(ticket.path, request.path) or not (is_dry_run() or cache.delete(key)):
            raise denial
        user = ticket.load_user()
        if user is None:
            raise denial
        return user, ticket

    def authenticate_header(self, request: HttpRequest) -> str | None:
        """``Ticket``."""
        return "Ticket"


def issue_ticket(request: HttpRequest, path: str, *, cache: str = "default") -> str:
    """A ticket for one handshake of the user of `request` at `path`, within 30 seconds. Blocks.

    `path` is that of the WebSocket's address, or the whole address. `cache` is the alias of the cache that keeps it,
    which all processes of the site have to share.

    Raises `Deny`: a 401 for an anonymous user, a 400 for a path that no handshake has, a 503 if the cache cannot be
    reached, or does not keep it.
    """
    user: Any = request.user
    if not user.is_authenticated:
        raise Deny(401)
    try:
        where = unquote(urlsplit(path).path)
    except ValueError:  # such as an address with half an IPv6 address
        where = ""
    if not where.startswith("/"):
        raise Deny(400, "The path of a ticket begins with a slash.")
    number = secrets.token_urlsafe(16)
    session = getattr(request, "session", None)
    is_of_session = session is not None and session.get(auth.SESSION_KEY) == _stored_key(user)
    key = session.session_key if session is not None and is_of_session else None
    ticket = Ticket(str(user.pk), where, key, _hash_of(user))
    try:
        is_kept = get_cache(cache).add(_KEY + number, tuple(ticket), TICKET_AGE)
    except Exception as error:
        if not is_unreachable(error):
            raise  # pragma: no cover - a fault of the cache, and no outage
        raise Deny(503) from error  # else it would be a 500 of the view
    if not is_kept:
        raise Deny(503)
    return signing.TimestampSigner(salt=_SALT).sign(number)


def _stored_key(user: Any) -> str:
    """The primary key of `user` as Django's `login()` writes it into a session."""
    key: str = user._meta.pk.value_to_string(user) if isinstance(user, Model) else str(user.pk)
    return key


def _hash_of(user: Any) -> str:
    make = getattr(user, "get_session_auth_hash", None)
    return "" if make is None else make()
