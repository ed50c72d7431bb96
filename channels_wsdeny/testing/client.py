"""`WebsocketClient`: Django's `AsyncClient` for sites with WebSockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.http import HttpHeaders
from django.test import AsyncClient

from .communicator import TIMEOUT, ClientSocket
from .database import SharedTransaction
from .responses import Denied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from ..types import ASGIApp
    from .responses import HandshakeResponse

    #: None removes a header that the client sends by default.
    Headers = Mapping[str, str | None]


class WebsocketClient(AsyncClient):
    """Django's `AsyncClient`, which opens WebSockets as well.

    `connect` and `handshake` go to `application` (``ASGI_APPLICATION`` if None), ``await client.get(…)`` and
    the like to Django's own handler. They share cookies and session: log in by
    ``await client.aforce_login(user)``. All of them see what the test has written in its transaction.

    `headers` are sent with every request and handshake. `extensions` are those that the server offers: by
    default it can send denials; ``{}`` is a server that cannot, such as stock Daphne. `timeout` is the time
    in seconds that the application has for each response and each message.
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
        # Django's `headers` argument would put WSGI's "HTTP_" before the names in an ASGI scope.
        defaults = HttpHeaders.to_asgi_names(headers or {})
        super().__init__(enforce_csrf_checks, raise_request_exception, **defaults)
        self.application = application
        self.timeout = timeout
        self._extensions = extensions
        self._headers = dict(headers or {})

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
        """Open a socket: ``async with client.connect("/ws/chat/") as socket``. The block's end closes it.

        `headers` replace those of a browser, such as `Origin`, or remove them (None). `secure` makes it
        ``wss``. Other keyword arguments go into the scope (``client=("10.0.0.7", 5000)``).

        Raises `Denied`, what the application raises, and `TimeoutError`.
        """
        if query_params:
            path += ("&" if "?" in path else "?") + urlencode(query_params, doseq=True)
        subprotocols = list(subprotocols)
        headers = {name.lower(): value for name, value in {**self._headers, **(headers or {})}.items()}
        host = headers.get("host") or "testserver"
        cookies = sorted(f"{morsel.key}={morsel.coded_value}" for morsel in self.cookies.values())
        sent = {
            "host": host,
            "origin": f"{'https' if secure else 'http'}://{host}",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-protocol": ", ".join(subprotocols) or None,
            "cookie": "; ".join(cookies) or None,
            **headers,
        }
        pairs = [(name.encode(), value.encode("latin1")) for name, value in sent.items() if value is not None]
        socket = ClientSocket(self.application, path, pairs, subprotocols, extensions=self._extensions)
        socket.scope.update(scheme="wss" if secure else "ws", server=("testserver", 443 if secure else 80))
        socket.scope.update(scope)
        socket.timeout = self.timeout
        try:
            await socket.connect(self.timeout)
            self.cookies.update(socket.response.cookies)
            if socket.denial is None:
                yield socket
                await socket.close()
        except BaseException:
            await socket.cancel()
            raise
        if socket.denial is not None:
            raise Denied(socket.denial)

    async def handshake(self, path: str, **options: Any) -> HandshakeResponse:
        """Return the response to a handshake, and close the socket at once if it was accepted.

        The arguments are those of `connect`. Raises what the application raises, and `TimeoutError`.
        """
        try:
            async with self.connect(path, **options) as socket:
                pass
        except Denied as denied:
            return denied.response
        return socket.response

    async def request(self, **request: Any) -> Any:
        """See `AsyncClient.request`."""
        async with SharedTransaction():
            return await super().request(**request)

    async def alogin(self, **credentials: Any) -> bool:
        """Log in with the credentials of an authentication backend; return whether it knows them."""
        async with SharedTransaction():
            return await super().alogin(**credentials)

    async def aforce_login(self, user: Any, backend: str | None = None) -> None:
        """Log in as `user` without credentials."""
        async with SharedTransaction():
            await super().aforce_login(user, backend)

    async def alogout(self) -> None:
        """Log out: delete the session and all cookies."""
        async with SharedTransaction():
            await super().alogout()
