"""``websocket.accept``: headers and subprotocol of the 101."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from websockets.sync.client import connect as websocket

from .client import ask, connect, read_head, request, unique

if TYPE_CHECKING:
    from .servers import Server

ECHO = {"type": "websocket.send", "text": "hello"}


def accept(**values: object) -> dict[str, object]:
    return {"type": "websocket.accept", **values}


def url(server: Server, *steps: object) -> str:
    return f"ws://127.0.0.1:{server.port}{unique()}?{quote(repr(list(steps)))}"


def test_an_accepted_socket_speaks(server: Server) -> None:
    with websocket(url(server, accept(), ECHO)) as client:
        assert client.recv() == "hello"


def test_headers_of_the_accept_are_on_the_101(server: Server) -> None:
    with websocket(url(server, accept(headers=[(b"x-key", b"bar")]), "hang")) as client:
        assert client.response is not None
        assert client.response.headers["x-key"] == "bar"


def test_every_cookie_of_the_accept_is_on_the_101(server: Server) -> None:
    headers = [(b"set-cookie", b"a=1"), (b"x-a", b"1"), (b"set-cookie", b"b=2")]
    with websocket(url(server, accept(headers=headers), "hang")) as client:
        assert client.response is not None
        assert client.response.headers.get_all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("value", "wire"),
    [(b"caf\xc3\xa9", b"caf\xc3\xa9"), (b"caf\xe9", b"caf\xc3\xa9")],
    ids=["utf-8", "latin-1"],
)
def test_a_value_beyond_ascii_is_utf8_on_the_wire(server: Server, value: bytes, wire: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(request(unique(), [accept(headers=[(b"x-name", value)]), "hang"]))
        assert b"x-name: " + wire + b"\r\n" in read_head(connection).raw


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding"])
def test_a_101_frames_no_body(server: Server, name: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(request(unique(), [accept(headers=[(name, b"0")]), "hang"]))
        reply = read_head(connection)
    assert (reply.status, reply.all(name.decode())) == (101, [])


def test_a_subprotocol_that_was_offered_is_agreed(server: Server) -> None:
    with websocket(url(server, accept(subprotocol="b"), "hang"), subprotocols=["a", "b"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "b"


def test_a_subprotocol_is_agreed_as_the_scope_spells_it(server: Server) -> None:
    with connect(server) as connection:
        steps = [accept(subprotocol="a/b"), "hang"]
        connection.sendall(request(unique(), steps, "Sec-WebSocket-Protocol: a%2Fb"))
        assert read_head(connection).all("sec-websocket-protocol") == ["a%2Fb"]


@pytest.mark.parametrize("chosen", ["c", "", b"a", 1])
def test_a_subprotocol_that_was_not_offered_is_an_error_and_a_500(server: Server, chosen: object) -> None:
    path = unique()
    reply = ask(server, [accept(subprotocol=chosen)], "Sec-WebSocket-Protocol: a, b", path=path)
    assert reply.status == 500
    line = server.wait_for(f"{path} got")
    assert f"got ValueError: websocket.accept got the subprotocol {chosen!r}" in line
    assert "['a', 'b']" in line


@pytest.mark.parametrize(
    "name",
    [
        b"Sec-WebSocket-Accept",
        b"sec-websocket-extensions",
        b"sec-websocket-version",
        b"upgrade",
        b"Connection",
    ],
)
def test_a_header_that_is_the_servers_is_an_error_and_a_500(server: Server, name: bytes) -> None:
    path = unique()
    assert ask(server, [accept(headers=[(name, b"x")])], path=path).status == 500
    line = server.wait_for(f"{path} got")
    assert f"got ValueError: websocket.accept got the header {name!r}: leave it out" in line


def test_a_subprotocol_given_as_header_is_an_error_that_says_where_it_belongs(server: Server) -> None:
    path = unique()
    steps = [accept(headers=[(b"sec-websocket-protocol", b"a")])]
    assert ask(server, steps, "Sec-WebSocket-Protocol: a", path=path).status == 500
    assert "give it as 'subprotocol'" in server.wait_for(f"{path} got")


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ((b"x-a", b"1\r\nset-cookie: evil=1"), "ValueError"),
        ((b"x-a", b"\0"), "ValueError"),
        ((b"x-a\r\nset-cookie", b"evil=1"), "ValueError"),
        (("x-a", b"1"), "TypeError"),
        ((b"x-a", "1"), "TypeError"),
    ],
)
def test_a_malformed_header_is_an_error_and_a_500(server: Server, header: object, error: str) -> None:
    path = unique()
    reply = ask(server, [accept(headers=[header])], path=path)
    assert (reply.status, reply.all("set-cookie")) == (500, [])
    assert f"got {error}: websocket.accept got" in server.wait_for(f"{path} got")


def test_a_second_accept_is_an_error(server: Server) -> None:
    path = unique()
    with connect(server) as connection:
        connection.sendall(request(path, [accept(), ("dare", accept())]))
        assert read_head(connection).status == 101
        assert "ValueError: websocket.accept came after websocket.accept" in server.wait_for(f"{path} got")


def test_a_denial_after_the_accept_is_an_error(server: Server) -> None:
    path = unique()
    steps = [accept(), ("dare", {"type": "websocket.http.response.start", "status": 403})]
    with connect(server) as connection:
        connection.sendall(request(path, steps))
        assert read_head(connection).status == 101
        line = server.wait_for(f"{path} got")
    assert "ValueError: websocket.http.response.start came after websocket.accept" in line


def test_frames_that_came_before_the_accept_are_delivered(server: Server) -> None:
    path = unique()
    with connect(server) as connection:
        connection.sendall(request(path, ["hear", ("sleep", 0.3), accept(), "hear"]))
        server.wait_for(f"{path} heard {{'type': 'websocket.connect'}}")
        # A masked text frame, "hi", with a mask of zeros.
        connection.sendall(b"\x81\x82\0\0\0\0hi")
        server.wait_for(f"{path} heard {{'type': 'websocket.receive', 'text': 'hi'}}")
