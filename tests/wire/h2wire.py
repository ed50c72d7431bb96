"""The same client over HTTP/2: a websocket is an extended CONNECT, a stream of its own (RFC 8441)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

from tests.clients import Answer

from .raw import Connection, EndedError, lines_of

if TYPE_CHECKING:
    from h2.events import Event

    from .raw import Headers
    from .servers import Server

STREAM = 1
#: Headers of the handshake that HTTP/2 has pseudo-headers for, or none (RFC 8441 section 5).
_HTTP1_ONLY = {"host", "connection", "upgrade", "sec-websocket-key"}


class Http2Connection(Connection):
    """One connection to a server, for one handshake, over HTTP/2 without TLS (prior knowledge)."""

    accepted = 200

    def __init__(self, server: Server) -> None:
        super().__init__(server)
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
            ":authority": given.get("host", f"127.0.0.1:{self.server.port}"),
            "sec-websocket-version": "13",
        }
        fields.update({name: value for name, value in given.items() if name not in _HTTP1_ONLY})
        encoded = [(name.encode(), value.encode("latin1")) for name, value in lines_of(fields)]
        self.h2.send_headers(STREAM, encoded)
        self._flush()

    def answer(self, *, content: bool = True) -> Answer:
        while self._head is None:
            self._handle_more()
        (_, status), *headers = self._head
        answer = Answer(int(status), headers)
        if answer.status != self.accepted:
            answer.body = self._read_to_end()
        return answer

    def _write(self, data: bytes) -> None:
        self.h2.send_data(STREAM, data)
        self._flush()

    def _pull(self) -> bytes:
        """Some more bytes of the stream; none at its end."""
        data, self._data = self._data, b""
        while not data and not self._ended:
            self._handle_more()
            data, self._data = self._data, b""
        return data

    def _handle_more(self) -> None:
        received = self.socket.recv(65536)
        if not received:
            raise EndedError("the connection ended before the stream")
        for event in self.h2.receive_data(received):
            self._handle(event)
        self._flush()

    def _handle(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._settled = True
        elif isinstance(event, ResponseReceived):
            self._head = [(name.decode(), value.decode("latin1")) for name, value in event.headers]
        elif isinstance(event, DataReceived):
            self._data += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, STREAM)
        elif isinstance(event, StreamEnded):
            self._ended = True
        elif isinstance(event, StreamReset):
            raise ConnectionResetError(f"the server reset the stream: {event.error_code!r}")

    def _flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())
