"""The question: the request that somebody wants to have explained, and who would send it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.contrib import auth
from django.utils.encoding import iri_to_uri

from ..http.messages import EXTENSION, is_sendable
from ..http.session import load_user, open_session
from .rehearsal import LOGIN_KEY

if TYPE_CHECKING:
    from ..types import Protocol, RawHeaders, Scope

#: What a session key has none of: it would end the cookie.
_NOT_IN_COOKIES = frozenset(' ",;\\')


class NoQuestion(Exception):  # noqa: N818 - what it is
    """The question cannot be asked like this; says why."""


@dataclass(frozen=True)
class Question:
    """A GET of `path`, which may have a query string.

    `user` is the name of who is logged in, `session` the key of a session instead; by default it is nobody.
    `headers` are ``Name: value``; one without a value takes away a header that is sent otherwise.

    The methods raise `NoQuestion` for what cannot be used.
    """

    path: str
    protocol: Protocol = "websocket"
    user: str | None = None
    session: str | None = None
    headers: tuple[str, ...] = ()

    def scope(self) -> Scope:
        """The ASGI scope of the request, as of a browser on this machine."""
        if not self.path.startswith("/"):
            raise NoQuestion(f"The path must begin with a slash, found {self.path!r}. Try '/{self.path}'.")
        url = urlsplit(iri_to_uri(f"//host{self.path}"))
        secure = settings.SECURE_SSL_REDIRECT or settings.SESSION_COOKIE_SECURE
        scheme = ("wss" if secure else "ws") if self.protocol == "websocket" else "http" + "s" * secure
        scope = {
            "type": self.protocol,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": scheme,
            "path": unquote(url.path),
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "headers": self._headers("https" if secure else "http"),
            "client": ["127.0.0.1", 50000],
            "server": ["127.0.0.1", 443 if secure else 80],
        }
        if self.protocol == "websocket":
            return {**scope, "subprotocols": [], "extensions": {EXTENSION: {}}}
        return {**scope, "method": "GET"}

    def login(self) -> dict[str, Any] | None:
        """What a session of `user` would hold; None without one. Blocks."""
        if self.user is None:
            return None
        if self.session is not None:
            raise NoQuestion("Give a user or a session, not both.")
        model = auth.get_user_model()
        try:
            user: Any = model._default_manager.get_by_natural_key(self.user)
        except model.DoesNotExist as error:
            raise NoQuestion(f"There is no user {self.user!r}.") from error
        login = {
            auth.SESSION_KEY: model._meta.pk.value_to_string(user),
            auth.BACKEND_SESSION_KEY: _backend(),
        }
        if hasattr(user, "get_session_auth_hash"):
            login[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
        return login

    def visitor(self) -> str:
        """Who asks, in words. Blocks."""
        if self.user is not None:
            return self.user
        if self.session is None:
            return "nobody"
        try:
            user = load_user(open_session(self.session))
        except Exception as error:  # noqa: BLE001 - the request itself will say the same
            return f"whoever the session is of, which raises {error!r}"
        if user.is_authenticated:
            return f"{user.get_username()}, by the session"
        return "nobody: the session does not exist, has expired, or nobody is logged in by it"

    def _headers(self, scheme: str) -> RawHeaders:
        host = next((host.lstrip(".") for host in settings.ALLOWED_HOSTS if "*" not in host), "localhost")
        headers = {b"host": [host.encode()]}
        if self.protocol == "websocket":
            headers[b"origin"] = [f"{scheme}://{host}".encode()]
            headers[b"connection"], headers[b"upgrade"] = [b"Upgrade"], [b"websocket"]
        given: dict[bytes, list[bytes]] = {}
        for line in self.headers:
            name, value = _header(line)
            given.setdefault(name, [])
            if value:
                given[name].append(value)
        headers |= given
        cookie = self._cookie()
        if cookie is not None:
            headers[b"cookie"] = [*headers.get(b"cookie", ()), cookie]
        return [(name, value) for name, values in headers.items() for value in values]

    def _cookie(self) -> bytes | None:
        key = self.session if self.user is None else LOGIN_KEY
        if key is None:
            return None
        if not key.isascii() or not key.isprintable() or not _NOT_IN_COOKIES.isdisjoint(key):
            raise NoQuestion("The session key has characters that no cookie has.")
        return f"{settings.SESSION_COOKIE_NAME}={key}".encode()


def _header(line: str) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(":")
    raw = name.strip().lower().encode(), value.strip().encode()
    if not colon or not is_sendable(*raw):
        raise NoQuestion(f"A header is 'Name: value' in one line, found {line!r}.")
    return raw


def _backend() -> str:
    """The path of the backend that a log-in is remembered with; as Django's test client does."""
    for path in settings.AUTHENTICATION_BACKENDS:
        if hasattr(auth.load_backend(path), "get_user"):
            return path
    raise NoQuestion("No backend of AUTHENTICATION_BACKENDS knows users.")
