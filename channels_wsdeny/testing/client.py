"""The client: Django's `AsyncClient` that opens WebSockets as well."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode, urlsplit

from django.http import HttpHeaders
from django.test import AsyncClient

from .apprunner import TIMEOUT
from .clientsocket import ClientSocket
from .communicator import WebsocketCommunicator
from .database import Loan
from .responses import Denied, HandshakeResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from http.cookies import Morsel

    from ..types import ASGIApp, RawHeaders

    #: None takes away a header that would be sent by default.
    Headers = Mapping[str, str | None]


class WebsocketClient(AsyncClient):
    """The twin of `django.test.Client` for sockets, in asynchronous tests.

    It is an `AsyncClient`: ``await client.get(…)`` and the like go through Django's own handler, as there.
    They share cookies and session with `connect` and `handshake`, which go to `application` (None:
    ``ASGI_APPLICATION``). Log in by ``await client.aforce_login(user)``.

    `headers` go with every request and handshake; `extensions` are what the server offers to handshakes
    (denials, or ``{}`` for a server such as stock Daphne); `timeout` is the time in seconds that the
    application has for each answer and each message.
    """

    def __init__(
        self,
        application: ASGIApp | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT,
        enforce_csrf_checks: bool = False,
        raise_request_exception: bool = True,
    ) -> None:
        # AsyncClient's own `headers` puts "HTTP_" before the names.
        defaults = HttpHeaders.to_asgi_names(headers or {})
        super().__init__(enforce_csrf_checks, raise_request_exception, **defaults)
        self.application = application
        self.timeout = timeout
        self._extensions = extensions
        self._every_headers = dict(headers or {})

    @asynccontextmanager
    async def connect(
        self,
        path: str,
        *,
        subprotocols: Iterable[str] = (),
        headers: Headers | None = None,
        query_params: Mapping[str, Any] | None = None,
        secure: bool = False,
        **scope: Any,
    ) -> AsyncIterator[ClientSocket]:
        """Open a socket: ``async with client.connect("/ws/chat/") as socket``. It is closed at the end.

        `headers` replace those that a browser would send (`Origin`, say), or take them away (None);
        `secure` is for ``wss``; anything else goes into the scope (``client=("10.0.0.7", 5000)``).

        Raises `Denied`, what the application raises, and `TimeoutError`.
        """
        communicator = self._communicator(path, subprotocols, headers, query_params, secure, scope)
        response = await self._shake_hands(communicator)
        if response.status_code != 101:
            raise Denied(response)
        socket = ClientSocket(communicator, response, self.timeout)
        try:
            yield socket
        except BaseException:
            await socket.abandon()
            raise
        await socket.close()

    async def handshake(
        self,
        path: str,
        *,
        subprotocols: Iterable[str] = (),
        headers: Headers | None = None,
        query_params: Mapping[str, Any] | None = None,
        secure: bool = False,
        **scope: Any,
    ) -> HandshakeResponse:
        """The answer to a handshake, be it an accept (which is left at once) or a denial; see `connect`.

        Raises what the application raises, and `TimeoutError`.
        """
        communicator = self._communicator(path, subprotocols, headers, query_params, secure, scope)
        response = await self._shake_hands(communicator)
        if response.status_code == 101:
            await communicator.disconnect(1000, self.timeout)
            closed = communicator.unread_close()
            if closed is not None:
                response.note_close(closed)
        return response

    async def request(self, **request: Any) -> Any:
        """See `AsyncClient.request`."""
        async with Loan():
            return await super().request(**request)

    async def alogin(self, **credentials: Any) -> bool:
        """Log in with a password, or whatever the backends ask for; False if they do not know it."""
        async with Loan():
            return await super().alogin(**credentials)

    async def aforce_login(self, user: Any, backend: str | None = None) -> None:
        """Log in as `user`, without a password."""
        async with Loan():
            await super().aforce_login(user, backend)

    async def alogout(self) -> None:
        """Log out: the session and all cookies are gone."""
        async with Loan():
            await super().alogout()

    async def _shake_hands(self, communicator: WebsocketCommunicator) -> HandshakeResponse:
        try:
            await communicator.connect(self.timeout)
        except BaseException:
            await communicator.abandon()
            raise
        response = cast("HandshakeResponse", communicator.response)
        self.cookies.update(response.cookies)
        return response

    def _communicator(  # noqa: PLR0917 - what `connect` and `handshake` take
        self,
        path: str,
        subprotocols: Iterable[str],
        headers: Headers | None,
        query_params: Mapping[str, Any] | None,
        secure: bool,
        scope: Mapping[str, Any],
    ) -> WebsocketCommunicator:
        """A communicator with the scope that a server makes of a browser's handshake."""
        if query_params:
            path += ("&" if "?" in path else "?") + urlencode(query_params, doseq=True)
        subprotocols = list(subprotocols)
        sent = {name.lower(): value for name, value in {**self._every_headers, **(headers or {})}.items()}
        host = sent.get("host") or "testserver"
        by_default = {
            "host": host,
            "origin": f"{'https' if secure else 'http'}://{host}",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-protocol": ", ".join(subprotocols) or None,
            "cookie": self._cookie_header(urlsplit(path).path) or None,
        }
        communicator = WebsocketCommunicator(
            self.application,
            path,
            raw_headers({**by_default, **sent}),
            subprotocols,
            extensions=self._extensions,
        )
        communicator.scope.update(
            scheme="wss" if secure else "ws", server=("testserver", 443 if secure else 80)
        )
        communicator.scope.update(scope)
        return communicator

    def _cookie_header(self, path: str) -> str:
        """The cookies for `path` that have not expired: a browser's, but for `Secure` and `Domain`."""
        sent = [morsel for morsel in self.cookies.values() if is_for(morsel, path)]
        return "; ".join(sorted(f"{morsel.key}={morsel.coded_value}" for morsel in sent))


def raw_headers(headers: Headers) -> RawHeaders:
    """`headers` as ASGI has them, without those that are None."""
    return [
        (name.encode("ascii"), value.encode("latin1")) for name, value in headers.items() if value is not None
    ]


def is_for(morsel: Morsel[str], path: str) -> bool:
    """Whether a cookie has not expired and belongs to `path` (RFC 6265 section 5.1.4)."""
    prefix = morsel["path"] or "/"
    belongs = path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
    return belongs and not _has_expired(morsel)


def _has_expired(morsel: Morsel[str]) -> bool:
    try:
        if morsel["max-age"] not in {"", None}:
            return int(morsel["max-age"]) <= 0
        expires = morsel["expires"]
        return bool(expires) and parsedate_to_datetime(expires) <= datetime.now(UTC)
    except (TypeError, ValueError):
        return False  # Browsers pass over what they cannot parse.
