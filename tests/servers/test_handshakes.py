"""What only a socket can do, from the handshake to the close, on every server; and clients that leave in the middle."""

import pytest

from tests.support.connections import TEXT

from .table import DIFFERENCES, SERVERS

MEGABYTE = 1024 * 1024
ABLE = pytest.mark.parametrize("server", [name for name in SERVERS if name not in DIFFERENCES["denial"]], indirect=True)

#: What an application does before it accepts, and the denial: status, code, and the detail if it is its own.
DENIALS = {
    "/closes/": (403, "permission_denied", None),
    "/closes-sync/": (403, "permission_denied", None),
    "/closes-4404/": (404, "not_found", "no"),
    "/raises-deny-connection/": (403, "permission_denied", None),
    "/raises-deny/": (402, "pay", "Pay first."),
    "/raises/": (500, "server_error", None),
    "/ends-without-answering/": (500, "server_error", None),
    "/nowhere/": (404, "not_found", None),
    "/undecorated/": (401, "not_authenticated", None),
    "/accepts-without-asking/": (401, "not_authenticated", None),
    f"/body/{MEGABYTE + 1}/": (500, "server_error", None),
}


def test_what_an_application_does_before_it_accepts_is_a_denial(server, ask):
    found = {}
    for path, (*_, detail) in DENIALS.items():
        answer = ask(path)
        assert b"secret" not in answer.body
        assert b"ZeroDivisionError" not in answer.body
        if server.can("denial"):
            problem = answer.problem
            found[path] = (answer.status, problem["code"], problem["detail"] if detail else None)
        else:
            found[path] = (answer.status, answer.body)
    assert found == (DENIALS if server.can("denial") else dict.fromkeys(DENIALS, (403, b"")))


def test_a_server_that_closes_after_a_denial_says_so(server, ask):
    """A proxy would send the next request to a connection that is closed."""
    answer = ask("/closes/")
    if server.name in {"hypercorn", "uvicorn-wsproto", "granian"}:
        assert "close" in answer.header("connection")
    elif server.name == "hypercorn-h2":
        assert answer.all("connection") == []


def test_headers_and_cookies_of_an_accept_arrive_or_are_left_out(server, opened):
    for _ in range(2):
        connection, answer = opened("/accepts-with-headers/")
        connection.close()
        found = answer.header("x-own"), answer.all("set-cookie")
        assert found == (("yes", ["one=1", "two=2; Path=/"]) if server.can("accept-headers") else (None, []))
    if server.name == "granian":
        assert server.log.count("granian drops the headers and cookies of an accepted handshake") == 1


def test_a_subprotocol_is_negotiated(opened):
    connection, answer = opened("/subprotocol/", {"Sec-WebSocket-Protocol": "chat.v1, chat.v2"})
    assert answer.header("sec-websocket-protocol") == "chat.v2"
    connection.close()


@pytest.mark.parametrize("server", ["hypercorn-h2"], indirect=True)
def test_a_session_cookie_among_cookie_headers_that_http2_has_split_is_found(opened, session_keys):
    """RFC 9113 section 8.2.3."""
    opened("/logged-in/", {"Cookie": ["a=1", f"sessionid={session_keys['alice']}", "b=2"]})


def test_a_close_after_the_accept_arrives_with_its_code_and_reason(server, opened):
    connection, _ = opened("/closes-after-accept/")
    connection.say(TEXT, b"enough?")
    reason = "Enough, \u00e9t\u00e9." if server.can("close-reason") else ""
    assert connection.hear_close() == (4001, reason)


def test_an_exception_after_the_accept_is_the_servers_to_log(server, opened):
    log = server.log_from_here()
    connection, _ = opened("/raises-after-accept/")
    connection.say(TEXT, b"well?")
    server.wait_for("ZeroDivisionError: secret", log)


@ABLE
def test_a_body_of_1_mib_arrives_whole(ask):
    answer = ask(f"/body/{MEGABYTE}/")
    assert answer.header("content-length") == str(MEGABYTE)
    assert answer.body == (bytes(range(251)) * (MEGABYTE // 251 + 1))[:MEGABYTE]


LATE = {"/sleeps/": 503, "/sleeps-on/": 503, "/never-answers/": 500}
#: Servers that give up before: after 5 seconds, and after 10.
HASTY = {
    ("stock-daphne", "/sleeps-on/"),
    ("stock-daphne", "/never-answers/"),
    ("uvicorn-websockets", "/never-answers/"),
}


@pytest.fixture(scope="module")
def slow_handshakes(fleet):
    """Handshakes on each server, all at once, that last longer than they may, by server and path."""
    connections = {(name, path): fleet.get(name).connect() for name in SERVERS for path in LATE}
    for (_, path), connection in connections.items():
        connection.request(path)
    yield connections
    for connection in connections.values():
        connection.socket.close()


@pytest.mark.parametrize("path", LATE)
def test_a_handshake_past_its_timeout_is_answered_before_the_server_gives_up(server, path, slow_handshakes):
    if (server.name, path) in HASTY:
        pytest.skip("The server gives up before.")
    connection = slow_handshakes[server.name, path]
    answer = connection.answer()
    connection.end()
    if server.can("denial"):
        assert answer.status == LATE[path]
        if answer.status == 503:
            assert answer.problem["code"] == "unavailable"
            assert 3 <= int(answer.header("retry-after")) <= 8
    else:
        assert (answer.status, answer.body) == (403, b"")


def test_our_daphne_waits_for_a_policy_timeout_longer_than_its_own(fleet):
    server = fleet.get("daphne", POLICY_TIMEOUT=6)
    answer = server.ask("/sleeps/")
    assert (answer.status, answer.problem["code"]) == (503, "unavailable")
    assert "ran past POLICY_TIMEOUT (6 s)" in server.log


@pytest.fixture(params=[False, True], ids=["close", "reset"])
def reset(request):
    return request.param


@pytest.mark.parametrize("then", ["allow", "deny"])
def test_a_client_may_leave_while_its_policy_runs(server, reset, token, then):
    with server.connect() as connection:
        connection.request(f"/hold/{token}/{then}/")
        server.wait_for(f"holding {token}")
        connection.leave(reset=reset)
    server.ask(f"/release/{token}/")
    server.wait_for(f"released {token}")
    server.wait_until_gone(token)


def test_a_client_may_leave_with_its_denial_half_read(server, reset, token):
    with server.connect() as connection:
        connection.request(f"/body/1048576/?{token}")
        assert connection.socket.recv(100)
        connection.leave(reset=reset)
    server.wait_until_gone(token)


def test_a_client_may_leave_with_its_handshake_half_sent(server, reset):
    with server.connect() as connection:
        connection.socket.sendall(b"GET /ws/allow-any/ HTTP/1.1\r\nHost: loc")
        connection.leave(reset=reset)
    assert server.ask("/ws/anonymous/").status == (401 if server.can("denial") else 403)


def test_a_client_may_leave_an_open_socket(server, reset, token, opened):
    connection, _ = opened(f"/ws/allow-any/?{token}")
    connection.leave(reset=reset)
    server.wait_until_gone(token)
