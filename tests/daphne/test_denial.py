"""``websocket.http.response``: what arrives on the wire."""

from __future__ import annotations

import socket
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest

from .client import ask, body, connect, read, request, start, unique

if TYPE_CHECKING:
    from .servers import Server


def test_a_denial_arrives_with_status_phrase_headers_and_body(server: Server) -> None:
    reply = ask(server, [start(401, [(b"www-authenticate", b"Session")]), body(b"who are you?")])
    assert reply.status_line == "HTTP/1.1 401 Unauthorized"
    assert reply.all("www-authenticate") == ["Session"]
    assert reply.body == b"who are you?"


def test_headers_keep_their_order_and_spelling(server: Server) -> None:
    reply = ask(server, [start(403, [(b"X-Two", b"2"), (b"x-one", b"1"), (b"X-Two", b"3")]), body()])
    assert [line for line in reply.head if line.lower().startswith("x-")] == [
        "X-Two: 2",
        "x-one: 1",
        "X-Two: 3",
    ]


def test_every_cookie_arrives(server: Server) -> None:
    reply = ask(server, [start(403, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]), body()])
    assert reply.all("set-cookie") == ["a=1", "b=2"]


def test_bytes_of_a_header_arrive_as_they_are(server: Server) -> None:
    reply = ask(server, [start(403, [(b"x-name", b"caf\xc3\xa9 \xe9")]), body()])
    assert b"x-name: caf\xc3\xa9 \xe9\r\n" in reply.raw


def test_the_headers_may_be_missing(server: Server) -> None:
    assert ask(server, [{"type": "websocket.http.response.start", "status": 404}, body()]).status == 404


def test_the_body_may_be_missing(server: Server) -> None:
    reply = ask(server, [start(404), {"type": "websocket.http.response.body"}])
    assert (reply.status, reply.body) == (404, b"")


def test_a_body_in_parts_arrives_as_one(server: Server) -> None:
    reply = ask(server, [start(), body(b"one ", more=True), ("sleep", 0.1), body(b"two", more=True), body()])
    assert reply.body == b"one two"
    assert reply.all("content-length") == ["7"]


def test_a_missing_content_length_is_added(server: Server) -> None:
    assert ask(server, [start(), body(b"12345")]).all("content-length") == ["5"]


def test_an_empty_body_has_a_content_length_of_0(server: Server) -> None:
    assert ask(server, [start(), body()]).all("content-length") == ["0"]


@pytest.mark.parametrize("wrong", [b"3", b"99", b"nonsense"])
def test_a_wrong_content_length_is_replaced(server: Server, wrong: bytes) -> None:
    reply = ask(server, [start(403, [(b"Content-Length", wrong)]), body(b"12345")])
    assert reply.all("content-length") == ["5"]
    assert reply.body == b"12345"


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_has_neither_body_nor_length(server: Server, status: int) -> None:
    reply = ask(server, [start(status, [(b"content-length", b"5")]), body(b"12345")])
    assert (reply.status, reply.body, reply.all("content-length")) == (status, b"", [])


def test_a_transfer_encoding_is_dropped(server: Server) -> None:
    reply = ask(server, [start(403, [(b"Transfer-Encoding", b"chunked")]), body(b"12345")])
    assert (reply.all("transfer-encoding"), reply.body) == ([], b"12345")


def test_the_connection_closes_and_says_so(server: Server) -> None:
    reply = ask(server, [start(403, [(b"connection", b"keep-alive"), (b"keep-alive", b"max=5")]), body()])
    assert (reply.all("connection"), reply.all("keep-alive")) == (["close"], [])


def test_a_426_names_its_upgrade_header_beside_the_close(server: Server) -> None:
    headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    reply = ask(server, [start(426, headers), body()])
    assert (reply.all("upgrade"), reply.all("connection")) == (["websocket"], ["upgrade, close"])


def test_the_date_is_added(server: Server) -> None:
    [date] = ask(server, [start(), body()]).all("date")
    assert parsedate_to_datetime(date).tzinfo is not None


def test_the_server_is_named_as_on_http(server: Server) -> None:
    assert ask(server, [start(), body()]).all("server") == ["daphne"]


def test_the_applications_own_server_and_date_win(server: Server) -> None:
    reply = ask(server, [start(403, [(b"Server", b"mine"), (b"Date", b"today")]), body()])
    assert (reply.all("server"), reply.all("date")) == (["mine"], ["today"])


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (302, "HTTP/1.1 302 Found"),
        (429, "HTTP/1.1 429 Too Many Requests"),
        (499, "HTTP/1.1 499 Client Error"),
        (599, "HTTP/1.1 599 Server Error"),
        (299, "HTTP/1.1 299 Success"),
        (399, "HTTP/1.1 399 Redirection"),
    ],
)
def test_every_status_has_a_phrase(server: Server, status: int, line: str) -> None:
    assert ask(server, [start(status), body()]).status_line == line


@pytest.mark.parametrize("status", [100, 101, 199, 600, 0, -1, True, None, "403", 403.5])
def test_a_status_that_cannot_deny_is_an_error_and_a_500(server: Server, status: object) -> None:
    path = unique()
    reply = ask(server, [start(status, [(b"x-secret", b"1")]), body(b"secret")], path=path)
    assert (reply.status, reply.body, reply.all("x-secret")) == (500, b"", [])
    assert f"got ValueError: websocket.http.response.start got the status {status!r}" in server.wait_for(
        f"{path} got"
    )


@pytest.mark.parametrize(
    "header",
    [
        (b"x-a", b"1\r\nset-cookie: evil=1"),
        (b"x-a", b"1\nset-cookie: evil=1"),
        (b"x-a", b"1\rset-cookie: evil=1"),
        (b"x-a", b"1\0"),
        (b"x-a: 1\r\nset-cookie", b"evil=1"),
        (b"x-a\0", b"1"),
        (b"x a", b"1"),
        (b"x-a:", b"1"),
        (b"", b"1"),
    ],
)
def test_a_header_that_would_break_its_line_is_an_error_and_a_500(
    server: Server, header: tuple[bytes, bytes]
) -> None:
    path = unique()
    reply = ask(server, [start(403, [header]), body(b"secret")], path=path)
    assert (reply.status, reply.body, reply.all("set-cookie")) == (500, b"", [])
    assert "got ValueError: websocket.http.response.start got" in server.wait_for(f"{path} got")


@pytest.mark.parametrize("header", [("x-a", b"1"), (b"x-a", "1"), (b"x-a", 1), (None, b"1")])
def test_a_header_that_is_not_bytes_is_an_error_and_a_500(server: Server, header: object) -> None:
    path = unique()
    assert ask(server, [start(403, [header]), body()], path=path).status == 500
    assert "got TypeError: websocket.http.response.start got the header" in server.wait_for(f"{path} got")


@pytest.mark.parametrize("headers", [[b"x-a"], [(b"x-a",)], [(b"a", b"b", b"c")], 5])
def test_headers_that_are_not_pairs_are_an_error_and_a_500(server: Server, headers: object) -> None:
    path = unique()
    assert ask(server, [start(403, headers), body()], path=path).status == 500
    assert "got ValueError: websocket.http.response.start got headers" in server.wait_for(f"{path} got")


def test_the_value_of_a_bad_header_stays_out_of_the_error(server: Server) -> None:
    path = unique()
    ask(server, [start(403, [(b"set-cookie", b"sessionid=hidden\r\n")]), body()], path=path)
    assert "hidden" not in server.wait_for(f"{path} got")


@pytest.mark.parametrize("content", ["text", None, 5])
def test_a_body_that_is_not_bytes_is_an_error_and_a_500(server: Server, content: object) -> None:
    path = unique()
    assert ask(server, [start(403), body(content)], path=path).status == 500
    assert "got TypeError: websocket.http.response.body got a body of" in server.wait_for(f"{path} got")


def test_a_body_before_its_start_is_an_error_and_a_500(server: Server) -> None:
    path = unique()
    assert ask(server, [body(b"early")], path=path).status == 500
    assert "got ValueError: websocket.http.response.body came before" in server.wait_for(f"{path} got")


@pytest.mark.parametrize(
    "message",
    [start(402), {"type": "websocket.accept"}, {"type": "websocket.close"}],
    ids=repr,
)
def test_another_answer_after_the_start_is_an_error_and_a_500(
    server: Server, message: dict[str, object]
) -> None:
    path = unique()
    assert ask(server, [start(401), message, body(b"secret")], path=path).raw.startswith(b"HTTP/1.1 500 ")
    line = server.wait_for(f"{path} got")
    assert f"got ValueError: {message['type']} came after websocket.http.response.start" in line


def test_a_body_of_a_mebibyte_arrives_whole(server: Server) -> None:
    reply = ask(server, [start(), ("body", 1024 * 1024)])
    assert len(reply.body) == 1024 * 1024


def test_a_slow_reader_gets_all_of_a_large_body(server: Server) -> None:
    size = 4 * 1024 * 1024
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request(unique(), [start(), ("body", size)]))
        # Past the server's poll, which forgets connections that are done.
        time.sleep(2.5)
        assert len(read(connection).body) == size


def test_a_close_before_the_accept_is_a_well_formed_403(server: Server) -> None:
    reply = ask(server, [{"type": "websocket.close"}])
    assert reply.status_line == "HTTP/1.1 403 Access denied"
    assert (reply.all("content-length"), reply.all("connection"), reply.body) == (["0"], ["close"], b"")


def test_a_close_before_the_accept_is_a_403_whatever_its_code(server: Server) -> None:
    assert ask(server, [{"type": "websocket.close", "code": 4999, "reason": "r"}]).status == 403


def test_what_a_client_sends_too_early_is_no_second_request(server: Server) -> None:
    path = unique()
    steps = ["hear", ("sleep", 0.5), start(401), body(b"once")]
    with connect(server) as connection:
        connection.sendall(request(path, steps))
        server.wait_for(f"{path} heard")
        connection.sendall(request("/second", [start(402), body(b"twice")]))
        reply = read(connection)
    assert (reply.status, reply.body) == (401, b"once")
    assert "/second" not in server.access_log.read_text()
