"""A client of raw sockets: it reads what a server really sends, and sends what no library would."""

import os
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

from .clients import GUARD, Answer

#: Headers by name; a list is a header that comes several times, None one that is left out.
Headers = Mapping[str, str | list[str] | None]
#: Kinds of frames (RFC 6455 section 5.2).
TEXT, BINARY, CLOSE = 1, 2, 8
HANDSHAKE: Headers = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
#: Headers that make a plain GET of a handshake.
PLAIN: Headers = dict.fromkeys(HANDSHAKE)


class EndedError(Exception):
    """The server ended the connection, in order but too early."""


def lines_of(headers: Headers) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        for line in value if isinstance(value, list) else [value]:
            if line is not None:
                yield name, line


def answer_of_head(head: bytes) -> Answer:
    """The answer with this status line and these headers."""
    status_line, *lines = head.decode("latin1").split("\r\n")
    version, status, *_ = status_line.split(" ", 2)
    assert version == "HTTP/1.1", status_line
    pairs = (line.split(":", 1) for line in lines)
    return Answer(int(status), [(name.lower(), value.strip()) for name, value in pairs])


class Connection:
    """One connection to a server, for one handshake, over HTTP/1.1."""

    #: What an accepted handshake is answered with.
    accepted = 101

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, name: str = "localhost") -> None:
        """Connect to a port, perhaps over TLS with the server of this name."""
        self.host = f"127.0.0.1:{port}" if tls is None else name
        self.socket = self._connect(port)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.socket.close()

    # The handshake.

    def request(self, path: str, headers: Headers | None = None, method: str = "GET") -> None:
        """Ask for a websocket; each character is a byte. `headers` add to the usual ones, or replace them."""
        usual = {"Host": self.host, **HANDSHAKE}
        lines = [f"{name}: {value}" for name, value in lines_of({**usual, **(headers or {})})]
        self._write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin1"))

    def answer(self, *, content: bool = True) -> Answer:
        """The head of the response, and its body by its length, or up to the end where it says none.

        Without `content` no body is expected, as after a HEAD.
        """
        answer = answer_of_head(self._read_until(b"\r\n\r\n"))
        if answer.status != self.accepted and content:
            length = answer.header("content-length")
            answer.body = self.rest() if length is None else self._read(int(length))
        return answer

    def end(self) -> None:
        """Wait for the server to close the connection. More bytes are an error, and so is a reset."""
        assert self.rest() == b""

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
        """The code and reason of the server's close."""
        kind, payload = self.hear()
        assert kind == CLOSE, (kind, payload)
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def close(self) -> None:
        """Close as a client should, and wait for the server's answer."""
        self.say(CLOSE, struct.pack("!H", 1000))
        assert self.hear_close()[0] == 1000

    def leave(self, *, reset: bool) -> None:
        """End the connection without a word; the server sees it closed, or reset."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def rest(self) -> bytes:
        """All that comes before the server ends the connection."""
        while more := self._pull():
            self._buffer += more
        found, self._buffer = self._buffer, b""
        return found

    # Bytes.

    def _connect(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), GUARD)

    def _write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _pull(self) -> bytes:
        """Some more bytes; none at the end."""
        return self.socket.recv(65536)

    def _fill(self) -> None:
        more = self._pull()
        if not more:
            raise EndedError(f"the connection ended after {self._buffer!r}")
        self._buffer += more

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _read_until(self, separator: bytes) -> bytes:
        while separator not in self._buffer:
            self._fill()
        found, _, self._buffer = self._buffer.partition(separator)
        return found


class Http2Connection(Connection):
    """The same over HTTP/2 without TLS: a websocket is an extended CONNECT, (RFC 8441)."""

    accepted = 200
    stream = 1

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        config = H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = H2Connection(config)
        self.h2.initiate_connection()
        self._flush()
        self._head: list[tuple[str, str]] | None = None
        self._data = b""
        self._ended = self._settled = False
        while not self._settled:
            self._handle_more()
        assert self.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1

    def request(self, path: str, headers: Headers | None = None, method: str = "GET") -> None:
        given = {name.lower(): value for name, value in (headers or {}).items()}
        fields: dict[str, Any] = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "http",
            ":path": path,
            ":authority": given.get("host", self.host),
            "sec-websocket-version": "13",
        }
        # What HTTP/2 has pseudo-headers for, or nothing (RFC 8441 section 5).
        without = {"host", "connection", "upgrade", "sec-websocket-key"}
        fields.update({name: value for name, value in given.items() if name not in without})
        encoded = [(name.encode(), value.encode("latin1")) for name, value in lines_of(fields)]
        self.h2.send_headers(self.stream, encoded)
        self._flush()

    def answer(self, *, content: bool = True) -> Answer:
        answer = self.head()
        if answer.status != self.accepted:
            answer.body = self.rest()
        return answer

    def take_no_data(self) -> None:
        """Let the server send headers alone, of requests from now on (RFC 9113 section 6.9.2)."""
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        self._flush()

    def head(self) -> Answer:
        """The head of the response."""
        while self._head is None:
            self._handle_more()
        (_, status), *headers = self._head
        return Answer(int(status), headers)

    def _write(self, data: bytes) -> None:
        self.h2.send_data(self.stream, data)
        self._flush()

    def _pull(self) -> bytes:
        while not self._data and not self._ended:
            self._handle_more()
        data, self._data = self._data, b""
        return data

    def _handle_more(self) -> None:
        received = self.socket.recv(65536)
        if not received:
            raise EndedError("the connection ended before the stream")
        for event in self.h2.receive_data(received):
            if isinstance(event, RemoteSettingsChanged):
                self._settled = True
            elif isinstance(event, ResponseReceived):
                self._head = [(name.decode(), value.decode("latin1")) for name, value in event.headers]
            elif isinstance(event, DataReceived):
                self._data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, self.stream)
            elif isinstance(event, StreamEnded):
                self._ended = True
            elif isinstance(event, StreamReset) and not self._ended:  # else our half was still open
                raise ConnectionResetError(f"the server reset the stream: {event.error_code!r}")
        self._flush()

    def _flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())
