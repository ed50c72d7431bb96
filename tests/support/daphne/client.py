"""A client of raw sockets: it sends a handshake and reads what comes, to the end of the connection."""

import socket
from dataclasses import dataclass
from urllib.parse import quote
from uuid import uuid4

from tests.support.clients import GUARD

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}


def unique():
    """A path that no other test uses, to find it in the logs."""
    return f"/{uuid4().hex}"


@dataclass
class Reply:
    raw: bytes

    @property
    def head(self):
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def status_line(self):
        return self.head[0]

    @property
    def status(self):
        version, status, _ = self.status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        return int(status)

    @property
    def body(self):
        return self.raw.partition(b"\r\n\r\n")[2]

    def all(self, name):
        pairs = [line.split(": ", 1) for line in self.head[1:]]
        return [value for given, value in pairs if given.lower() == name.lower()]

    def is_bare(self, status):
        """Whether it is a well-formed response of `status` without content."""
        found = (self.status, self.all("content-length"), self.all("connection"), self.body)
        return found == (status, ["0"], ["close"], b"")


def request(path, steps=(), *headers, method="GET"):
    """The bytes of a handshake that asks `scripted` for `steps`."""
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


def connect(server, tls=None):
    connection = socket.create_connection(("127.0.0.1", server.port), GUARD)
    return tls.wrap_socket(connection, server_hostname="localhost") if tls else connection


def read(connection):
    """Everything up to the end. A reset is an error."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return Reply(data)


def read_head(connection):
    """Everything up to the end of the headers, with whatever came in the same packet."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        assert chunk, data
        data += chunk
    return Reply(data)


def ask(server, steps, *headers, path=None, tls=None):
    """A handshake that is not accepted: its whole reply."""
    with connect(server, tls) as connection:
        connection.sendall(request(path or unique(), steps, *headers))
        return read(connection)
