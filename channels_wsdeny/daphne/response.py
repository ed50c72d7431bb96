"""The HTTP/1.1 response that ends a WebSocket handshake without a socket."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import RawHeaders

_CLASSES = {2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}
#: Statuses that end with their headers (RFC 9110 sections 6.4.1 and 8.6).
_BODILESS = frozenset({204, 304})
#: Headers of the connection and its framing, the server's to say (RFC 9112 sections 6 and 9).
_CONNECTION = frozenset({b"connection", b"content-length", b"keep-alive", b"transfer-encoding"})


@dataclass
class Response:
    """What a client gets instead of a socket. It always ends the connection.

    `headers` are the application's; `encode` adds and corrects those that the server answers for.
    `phrase` is by default the one registered for `status`, a number from 200 to 599.
    """

    status: int
    headers: RawHeaders = field(default_factory=list)
    body: bytes = b""
    phrase: str = ""

    def __post_init__(self) -> None:
        if self.status in _BODILESS:
            self.body = b""
        # Autobahn quotes the client's request in some reasons.
        self.phrase = re.sub(r"[^ -~]", "?", self.phrase or reason_phrase(self.status))

    def encode(self, server_name: str) -> bytes:
        """The bytes on the wire (RFC 9112). `server_name` is Daphne's ``--server-name``."""
        given = {name.lower() for name, _ in self.headers}
        headers = [header for header in self.headers if header[0].lower() not in _CONNECTION]
        if b"date" not in given:
            headers.insert(0, (b"date", formatdate(usegmt=True).encode()))
        if server_name and b"server" not in given:
            headers.insert(0, (b"server", server_name.encode()))
        if self.status not in _BODILESS:
            headers.append((b"content-length", str(len(self.body)).encode()))
        # A 426 must name its Upgrade header here (RFC 9110 section 7.8).
        headers.append((b"connection", b"upgrade, close" if b"upgrade" in given else b"close"))
        lines = [f"HTTP/1.1 {self.status} {self.phrase}".encode("ascii")]
        lines += [name + b": " + value for name, value in headers]
        return b"\r\n".join([*lines, b"", self.body])


def reason_phrase(status: int) -> str:
    """The registered phrase of `status`, or the name of its class (RFC 9110 section 15)."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return _CLASSES[status // 100]
