"""Malformed handshakes: a clean answer or a clean end on every server, never an accept, and it goes on."""

from __future__ import annotations

import socket

import pytest

from .raw import EndedError
from .servers import SERVERS, able

#: Behind it a policy reads all that a client sends, and says no.
READS = "/looks-at-everything/"
LONG = 65536

#: Name: path, headers, and the status that the package answers with where a handshake gets that far.
INPUTS = {
    "header-bytes": (READS, {"X-Name": "\xff\xfe\x80"}, 403),
    "cookie-bytes": (READS, {"Cookie": "sessionid=\xff\xfe; \xff=\xff"}, 403),
    "cookie-odd": (READS, {"Cookie": ';;=;sessionid;=x;a=b=c;"\\'}, 403),
    "cookie-64-kib": (READS, {"Cookie": "a=" + "x" * LONG}, 403),
    "language-bytes": (READS, {"Accept-Language": "\xff;q=x,,," + "x" * 600}, 403),
    "path-not-utf8": ("/ws/%ff%fe/", {}, 404),
    "path-bytes": ("/ws/\xff\xfe/", {}, 404),
    "path-nul": ("/ws/%00/", {}, 404),
    "path-bad-percent": ("/ws/%zz%/", {}, 404),
    "path-star": ("*", {}, 404),
    "path-without-slash": ("nowhere", {}, 404),
    "query-not-utf8": (f"{READS}?a=%ff", {}, 403),
    "query-bytes": (f"{READS}?a=\xff", {}, 400),
    "query-too-many": (f"{READS}?{'a=1&' * 1500}", {}, 400),
    "host-empty": (READS, {"Host": ""}, 400),
    "host-missing": (READS, {"Host": None}, 400),
    "host-twice": (READS, {"Host": ["127.0.0.1", "127.0.0.1"]}, 400),
    "host-malformed": (READS, {"Host": "a b/c"}, 400),
    "host-not-allowed": (READS, {"Host": "elsewhere.example"}, 400),
    "origin-malformed": (READS, {"Origin": "http://[bad"}, 403),
    "version-missing": (READS, {"Sec-WebSocket-Version": None}, 403),
    "version-8": (READS, {"Sec-WebSocket-Version": "8"}, 403),
    "key-missing": (READS, {"Sec-WebSocket-Key": None}, 403),
    "subprotocol-bytes": (READS, {"Sec-WebSocket-Protocol": "\xff, b"}, 403),
}
#: Servers that fail by themselves, before the application is asked.
FAILS = "a 500 of the server's own, with a traceback in its log"
SILENT = "no answer; the connection stays open until the client leaves"
OWN_FAULTS = {
    ("uvicorn-websockets", "header-bytes"): FAILS,
    ("uvicorn-websockets", "cookie-bytes"): FAILS,
    ("uvicorn-websockets", "language-bytes"): FAILS,
    ("uvicorn-websockets", "subprotocol-bytes"): FAILS,
    ("uvicorn-sansio", "cookie-64-kib"): SILENT,
    ("daphne", "subprotocol-bytes"): FAILS,
    ("stock-daphne", "subprotocol-bytes"): FAILS,
}


def knock(server, path, headers=None, method="GET", *, leave=False):
    """The answer; None where the connection ended without one. With `leave` the client waits for neither."""
    with server.connect() as connection:
        try:
            connection.request(path, headers, method)
            if leave:
                connection.socket.shutdown(socket.SHUT_WR)
            answer = connection.answer(content=method != "HEAD")
        except (EndedError, BrokenPipeError, ConnectionResetError):
            # A reset comes from servers that end the connection while a large request is on its way.
            return None
        if answer.header("content-type") == "application/problem+json":
            connection.end()
        return answer


@pytest.fixture(autouse=True)
def still_answers(server):
    """Whatever a test did, the server goes on."""
    yield
    assert knock(server, "/ws/anonymous/").status == (401 if server.can("denial") else 403)


@pytest.mark.parametrize("name", INPUTS)
def test_a_malformed_handshake_gets_a_clean_answer_or_a_clean_end(server, name):
    path, headers, expected = INPUTS[name]
    fault = OWN_FAULTS.get((server.name, name))
    answer = knock(server, path, headers, leave=fault == SILENT)
    if answer is None:
        return
    if answer.header("content-type") == "application/problem+json":
        assert (answer.status, answer.problem["status"]) == (expected, expected)
    else:
        assert 400 <= answer.status <= (500 if fault == FAILS else 499)


def test_a_query_of_bytes_opens_no_public_door(server):
    answer = knock(server, "/ws/allow-any/?a=\xff")
    assert answer is None or 400 <= answer.status < 500


@pytest.mark.parametrize("path", ["/ws/%0d%0aX-Injected:%20yes/", "/nowhere/?%0d%0aX-Injected:%20yes"])
def test_line_breaks_in_an_address_break_no_line(server, path):
    log = server.log_from_here()
    answer = knock(server, path)
    assert answer.status == (404 if server.can("denial") else 403)
    assert answer.header("x-injected") is None
    assert b"x-injected" not in answer.body.lower()
    assert "\nX-Injected" not in log()


# HTTP/2 has neither other methods (a websocket is always a CONNECT) nor an Upgrade header to lose.
OVER_HTTP1 = pytest.mark.parametrize(
    "server", [name for name in SERVERS if name != "hypercorn-h2"], indirect=True
)


@OVER_HTTP1
@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
def test_a_handshake_by_another_method_is_no_handshake(server, method):
    answer = knock(server, "/ws/deny-all/", method=method)
    # granian hands it to the application, which cannot know the method: denied as any other.
    assert 400 <= answer.status < 500


@OVER_HTTP1
def test_a_handshake_that_a_proxy_took_the_upgrade_from_is_told_to_upgrade(server):
    answer = knock(server, "/ws/allow-any/", {"Upgrade": None, "Connection": "close"})
    assert (answer.status, answer.header("upgrade")) == (426, "websocket")


@OVER_HTTP1
def test_a_handshake_that_a_proxy_took_the_upgrade_from_is_denied_as_it_would_have_been(server):
    answer = knock(server, "/ws/deny-all/", {"Upgrade": None, "Connection": "close"})
    assert answer.status == 403


@pytest.mark.parametrize("server", able("denial"), indirect=True)
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("*/*;q=abc", "application/problem+json"),
        (";;;", "application/problem+json"),
        ("a/b," * 1500, "application/problem+json"),
        ("text/html;q=0.1, application/json", "application/problem+json"),
        ("image/png", "application/problem+json"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "text/html; charset=utf-8"),
    ],
    ids=["empty", "any", "bad-q", "odd", "long", "json", "other", "html", "plain", "browser"],
)
def test_the_body_is_of_the_type_that_the_client_prefers(server, accept, expected):
    answer = knock(server, "/ws/anonymous/", {"Accept": accept})
    assert answer.status == 401
    assert answer.header("content-type") == expected
    assert answer.header("content-length") == str(len(answer.body))
