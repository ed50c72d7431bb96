"""Malformed handshakes: a clean answer or a clean end on every server, never an accept, and it goes on."""

import socket

import pytest

from tests.support.connections import TEXT, EndedError

from .table import HTTP1

#: Behind it a policy reads all that a client sends, and denies.
READS = "/looks-at-everything/"

#: Name: path, headers, and the status that the package answers with where a handshake gets that far.
INPUTS = {
    "header-bytes": (READS, {"X-Name": "\xff\xfe\x80"}, 403),
    "cookie-bytes": (READS, {"Cookie": "sessionid=\xff\xfe; \xff=\xff"}, 403),
    "cookie-odd": (READS, {"Cookie": ';;=;sessionid;=x;a=b=c;"\\'}, 403),
    "cookie-64-kib": (READS, {"Cookie": "a=" + "x" * 65536}, 403),
    "language-bytes": (READS, {"Accept-Language": "\xff;q=x,,," + "x" * 600}, 403),
    "accept-odd": (READS, {"Accept": ";;;" + "a/b," * 1500}, 403),
    "path-not-utf8": ("/ws/%ff%fe/", {}, 404),
    "path-bytes": ("/ws/\xff\xfe/", {}, 404),
    "path-nul": ("/ws/%00/", {}, 404),
    "path-bad-percent": ("/ws/%zz%/", {}, 404),
    "path-star": ("*", {}, 404),
    "path-without-slash": ("nowhere", {}, 404),
    "query-not-utf8": (f"{READS}?a=%ff", {}, 403),
    "query-bytes": (f"{READS}?a=\xff", {}, 400),
    "query-bytes-of-a-public-endpoint": ("/ws/allow-any/?a=\xff", {}, 400),
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
#: HTTP/2 has neither other methods (a websocket is always a CONNECT) nor an Upgrade header to lose.
OVER_HTTP1 = pytest.mark.parametrize("server", HTTP1, indirect=True)


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
        if method == "GET" and answer.header("content-type") == "application/problem+json":
            connection.end()
        return answer


def is_clean(answer, expected, fault):
    if answer is None:
        return True
    if answer.header("content-type") == "application/problem+json":
        return (answer.status, answer.problem["status"]) == (expected, expected)
    return 400 <= answer.status <= (500 if fault == FAILS else 499)


def test_a_malformed_handshake_gets_a_clean_answer_or_a_clean_end_and_the_server_goes_on(server):
    wrong, alive = {}, 401 if server.can("denial") else 403
    for name, (path, headers, expected) in INPUTS.items():
        fault = OWN_FAULTS.get((server.name, name))
        answer = knock(server, path, headers, leave=fault == SILENT)
        if not is_clean(answer, expected, fault) or knock(server, "/ws/anonymous/").status != alive:
            wrong[name] = answer
    assert wrong == {}


@OVER_HTTP1
def test_a_handshake_by_another_method_is_no_handshake(server):
    # granian hands it to the application, which cannot know the method: denied as any other.
    for method in ("HEAD", "POST", "OPTIONS"):
        assert 400 <= knock(server, "/ws/deny-all/", method=method).status < 500, method


@OVER_HTTP1
def test_a_handshake_that_a_proxy_took_the_upgrade_from_is_answered_by_its_policy(server):
    taken = {"Upgrade": None, "Connection": "close"}
    answer = knock(server, "/ws/allow-any/", taken)
    assert (answer.status, answer.header("upgrade")) == (426, "websocket")
    assert knock(server, "/ws/deny-all/", taken).status == 403


@pytest.mark.parametrize("server", ["hypercorn-h2"], indirect=True)
def test_an_http2_client_that_leaves_without_taking_the_body_of_its_denial_or_the_close_of_its_socket_keeps_nothing(
    server,
):
    for path in ("/ws/anonymous/", "/ws/deny-all/", "/body/1000/", "/closes/", "/closes-after-accept/"):
        with server.connect() as connection:
            connection.take_no_data()
            connection.request(f"{path}?untaken")
            if path != "/closes-after-accept/":
                assert connection.head().status >= 400
            else:
                assert connection.head().status == connection.accepted
                connection.say(TEXT, b"close")
    server.wait_until_gone("untaken")


@pytest.mark.parametrize("server", ["hypercorn", "hypercorn-h2"], indirect=True)
def test_a_client_that_the_server_refuses_since_it_sends_before_its_answer_keeps_no_socket(server):
    with server.connect() as connection:
        connection.request("/hold/early/allow/")
        server.wait_for("holding early")
        connection.say(TEXT, b"hello")
        assert connection.answer().status == 400  # hypercorn's own
    server.ask("/release/early/")
    server.wait_for("released early")
    server.wait_until_gone("early")
