"""A client of raw sockets: it reads what a server really sends, and sends what no library would."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

from tests.clients import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .servers import Server

    #: Headers by name; a list is a header that comes several times, None one that is left out.
    Headers = Mapping[str, str | list[str] | None]

#: Seconds after which something that should happen is taken not to. No test measures time.
GUARD = 30

#: Kinds of frames (RFC 6455 section 5.2).
TEXT, BINARY, CLOSE = 1, 2, 8


class EndedError(Exception):
    """The server ended the connection, in order but too early."""


def lines_of(headers: Headers) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        for line in value if isinstance(value, list) else [value]:
            if line is not None:
                yield name, line


class Connection:
    """One connection to a server, for one handshake, over HTTP/1.1."""

    #: What an accepted handshake is answered with.
    accepted = 101

    def __init__(self, server: Server) -> None:
        self.server = server
        self.socket = socket.create_connection(("127.0.0.1", server.port), GUARD)
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *args: object) -> None:
        self.socket.close()

    # The handshake.

    def request(self, path: str, headers: Headers | None = None, method: str = "GET") -> None:
        """Ask for a websocket; each character is a byte. `headers` add to the usual ones, or replace them."""
        usual = {
            "Host": f"127.0.0.1:{self.server.port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in lines_of({**usual, **(headers or {})})]
        self._write("\r\n".join([*lines, "", ""]).encode("latin1"))

    def answer(self, *, content: bool = True) -> Answer:
        """The head of the response, and its body by its length, or up to the end where it says none.

        Without `content` no body is expected, as after a HEAD.
        """
        status_line, *lines = self._read_until(b"\r\n\r\n").decode("latin1").split("\r\n")
        version, status, *_ = status_line.split(" ", 2)
        assert version == "HTTP/1.1", status_line
        pairs = (line.split(":", 1) for line in lines)
        answer = Answer(int(status), [(name.lower(), value.strip()) for name, value in pairs])
        if answer.status != self.accepted and content:
            length = answer.header("content-length")
            answer.body = self._read_to_end() if length is None else self._read(int(length))
        return answer

    def end(self) -> None:
        """Wait for the server to close the connection. More bytes are an error, and so is a reset."""
        assert self._read_to_end() == b""

    # The socket.

    def say(self, kind: int, payload: bytes) -> None:
        """Send a message of one frame, masked as a client must."""
        mask = os.urandom(4)
        size = len(payload)
        length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._write(bytes([0x80 | kind]) + length + mask + masked)

    def hear(self) -> tuple[int, bytes]:
        """The kind and payload of the next message, which must be one frame."""
        first, length = self._read(2)
        assert first & 0x80, "a fragmented message"
        if length == 126:
            (length,) = struct.unpack("!H", self._read(2))
        return first & 0x0F, self._read(length)

    def hear_close(self) -> tuple[int, str]:
        """The code and reason of the server's close, answered as a client should, and the end after it."""
        kind, payload = self.hear()
        assert kind == CLOSE, (kind, payload)
        try:
            self.say(CLOSE, payload[:2])
            self.end()
        except (BrokenPipeError, ConnectionResetError):
            assert not self.server.can("orderly-end-of-own-close")
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def close(self, code: int = 1000) -> None:
        """Close as a client should, and wait for the server's answer and the end."""
        self.say(CLOSE, struct.pack("!H", code))
        kind, payload = self.hear()
        assert (kind, payload[:2]) == (CLOSE, struct.pack("!H", code))
        if self.server.can("end-after-close"):
            self.end()

    def reset(self) -> None:
        """Leave without a word: the server sees the connection reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def rest(self) -> bytes:
        """Whatever comes before the server ends the connection."""
        return self._read_to_end()

    # Bytes.

    def _write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _pull(self) -> bytes:
        """Some more bytes; none at the end."""
        return self.socket.recv(65536)

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            more = self._pull()
            if not more:
                raise EndedError(f"the connection ended after {self._buffer!r}, {size} bytes were to come")
            self._buffer += more
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _read_until(self, separator: bytes) -> bytes:
        while separator not in self._buffer:
            more = self._pull()
            if not more:
                raise EndedError(f"the connection ended after {self._buffer!r}")
            self._buffer += more
        found, _, self._buffer = self._buffer.partition(separator)
        return found

    def _read_to_end(self) -> bytes:
        while more := self._pull():
            self._buffer += more
        found, self._buffer = self._buffer, b""
        return found
