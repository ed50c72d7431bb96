"""A client of raw sockets: it sends a handshake and reads what comes, to the end of the connection."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

from .servers import GUARD

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from .servers import Server

START = "websocket.http.response.start"
BODY = "websocket.http.response.body"


def start(status: object = 401, headers: object = ()) -> dict[str, object]:
    return {"type": START, "status": status, "headers": headers}


def body(content: object = b"", more: bool = False) -> dict[str, object]:
    return {"type": BODY, "body": content, "more_body": more}


def unique() -> str:
    """A path that no other test uses, to find it in the logs."""
    return f"/{uuid4().hex}"


@dataclass
class Reply:
    raw: bytes

    @property
    def head(self) -> list[str]:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def status_line(self) -> str:
        return self.head[0]

    @property
    def status(self) -> int:
        version, status, _ = self.status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        return int(status)

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    def all(self, name: str) -> list[str]:
        pairs = [line.split(": ", 1) for line in self.head[1:]]
        return [value for given, value in pairs if given.lower() == name.lower()]


def request(path: str, steps: Iterable[object] = (), *headers: str, method: str = "GET") -> bytes:
    """The bytes of a handshake that asks `tests.daphne.apps.scripted` for `steps`."""
    lines = [
        f"{method} {path}?{quote(repr(list(steps)))} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def connect(server: Server, tls: ssl.SSLContext | None = None) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), GUARD)
    return tls.wrap_socket(connection, server_hostname="localhost") if tls else connection


def read(connection: socket.socket) -> Reply:
    """Everything up to the end. A reset is an error."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return Reply(data)


def read_head(connection: socket.socket) -> Reply:
    """Everything up to the end of the headers, with whatever came in the same packet."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        assert chunk, data
        data += chunk
    return Reply(data)


def ask(
    server: Server,
    steps: Iterable[object],
    *headers: str,
    path: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """A handshake that is not accepted: its whole reply."""
    with connect(server, tls) as connection:
        connection.sendall(request(path or unique(), steps, *headers))
        return read(connection)
