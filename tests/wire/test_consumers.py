"""What only a socket can do: consumers and ASGI apps, from the handshake to the close, on every server."""

from __future__ import annotations

import pytest

from .raw import CLOSE, TEXT
from .servers import SERVERS, able, unable

MEGABYTE = 1024 * 1024
DENYING = pytest.mark.parametrize("server", able("denial"), indirect=True)


@pytest.fixture
def ask(server):
    """A function from a path (and headers) to the answer of a denied handshake."""

    def ask(path, headers=None):
        with server.connect() as connection:
            connection.request(path, headers)
            answer = connection.answer()
            assert answer.status != connection.accepted
            connection.end()
        return answer

    return ask


@DENYING
@pytest.mark.parametrize("path", ["/closes/", "/closes-sync/", "/raises-deny-connection/"])
def test_a_consumer_that_refuses_in_connect_is_a_403(ask, path):
    answer = ask(path)
    assert (answer.status, answer.problem["code"]) == (403, "permission_denied")


@DENYING
def test_a_consumer_that_closes_with_4404_is_a_404_with_its_reason(ask):
    answer = ask("/closes-4404/")
    assert (answer.status, answer.problem["code"]) == (404, "not_found")
    assert answer.problem["detail"] == "no"


@DENYING
def test_a_deny_out_of_connect_is_answered_as_given(ask):
    answer = ask("/raises-deny-in-connect/")
    assert (answer.status, answer.problem["code"], answer.problem["detail"]) == (402, "pay", "Pay first.")


@DENYING
def test_a_consumer_that_raises_in_connect_is_a_500_that_tells_nothing(ask):
    answer = ask("/raises-in-connect/")
    assert (answer.status, answer.problem["code"]) == (500, "server_error")
    assert b"secret" not in answer.body
    assert b"ZeroDivisionError" not in answer.body


def test_a_consumer_that_raises_in_connect_is_in_the_log_with_its_traceback(ask, server):
    log = server.log_from_here()
    ask("/raises-in-connect/")
    assert "ERROR django.request: Internal Server Error: /raises-in-connect/\nTraceback" in log()
    assert "ZeroDivisionError: secret" in log()


@DENYING
def test_an_app_that_ends_without_an_answer_is_a_500(ask, server):
    log = server.log_from_here()
    assert ask("/ends-without-answering/").problem["code"] == "server_error"
    assert "It must accept or close." in log()


@DENYING
def test_an_unrouted_path_is_a_404(ask):
    answer = ask("/nowhere/")
    assert (answer.status, answer.problem["code"]) == (404, "not_found")


def test_an_unrouted_path_leaves_one_line_in_the_log_and_no_traceback(ask, server):
    log = server.log_from_here()
    ask("/nowhere/at/all/")
    assert log().count("WARNING channels_wsdeny: Denied /nowhere/at/all/: 404 not_found\n") == 1
    assert "Traceback" not in log()


@DENYING
def test_an_undecorated_consumer_is_a_401_for_anonymous_visitors(ask):
    assert ask("/undecorated/").problem["code"] == "not_authenticated"


def test_an_undecorated_consumer_never_connects_for_anonymous_visitors(ask, server):
    log = server.log_from_here()
    ask("/undecorated/")
    assert "connect() ran" not in log()


def test_an_undecorated_consumer_connects_for_a_user(server, cookie_of):
    with server.connect() as connection:
        connection.request("/undecorated/", cookie_of("alice"))
        assert connection.answer().status == connection.accepted
        connection.close()


@DENYING
def test_an_app_that_accepts_without_asking_is_stopped(ask):
    answer = ask("/accepts-without-asking/")
    assert answer.problem["code"] == "not_authenticated"
    assert b"secret" not in answer.body


@pytest.mark.parametrize("server", unable("denial"), indirect=True)
@pytest.mark.parametrize(
    "path",
    [
        "/closes/",
        "/closes-4404/",
        "/raises-deny-connection/",
        "/raises-in-connect/",
        "/ends-without-answering/",
        "/nowhere/",
        "/undecorated/",
        "/accepts-without-asking/",
    ],
)
def test_a_server_without_denials_answers_a_bare_403(ask, path):
    answer = ask(path)
    assert (answer.status, answer.body) == (403, b"")


def test_a_server_without_denials_warns_once_and_names_the_remedy(fleet):
    for name in unable("denial"):
        server = fleet.get(name)
        with server.connect() as connection:
            connection.request("/closes/")
            connection.answer()
        assert server.log.count("The server cannot send a denial response") == 1
        assert "python -m channels_wsdeny.daphne" in server.log


# The accept.


@pytest.mark.parametrize("server", able("accept-headers"), indirect=True)
def test_headers_and_cookies_of_an_accept_arrive(server):
    with server.connect() as connection:
        connection.request("/accepts-with-headers/")
        answer = connection.answer()
        assert answer.status == connection.accepted
        assert answer.header("x-wire") == "yes"
        cookies = [value for name, value in answer.headers if name == "set-cookie"]
        assert cookies == ["one=1", "two=2; Path=/"]
        connection.close()


@pytest.mark.parametrize("server", unable("accept-headers"), indirect=True)
def test_a_server_that_drops_headers_of_an_accept_accepts_without_them(server):
    with server.connect() as connection:
        connection.request("/accepts-with-headers/")
        answer = connection.answer()
        assert answer.status == connection.accepted
        assert answer.header("x-wire") is None
        assert answer.header("set-cookie") is None
        connection.close()


def test_granian_warns_once_that_headers_of_an_accept_are_left_out(fleet):
    server = fleet.get("granian")
    for _ in range(2):
        with server.connect() as connection:
            connection.request("/accepts-with-headers/")
            connection.answer()
            connection.close()
    assert server.log.count("granian drops the headers and cookies of an accepted handshake") == 1


def test_a_subprotocol_is_negotiated(server):
    with server.connect() as connection:
        connection.request("/subprotocol/", {"Sec-WebSocket-Protocol": "chat.v1, chat.v2"})
        answer = connection.answer()
        assert answer.status == connection.accepted
        assert answer.header("sec-websocket-protocol") == "chat.v2"
        connection.close()


# After the accept.


def test_a_sync_consumer_echoes(server):
    with server.connect() as connection:
        connection.request("/sync-echo/")
        assert connection.answer().status == connection.accepted
        connection.say(TEXT, b"hello")
        assert connection.hear() == (TEXT, b"hello")
        connection.close()


def test_a_close_after_the_accept_arrives_with_its_code_and_reason(server):
    with server.connect() as connection:
        connection.request("/closes-after-accept/")
        assert connection.answer().status == connection.accepted
        connection.say(TEXT, b"enough?")
        code, reason = connection.hear_close()
    assert code == 4001
    assert reason == ("Enough, \u00e9t\u00e9." if server.can("close-reason") else "")


def test_an_exception_after_the_accept_ends_the_socket_and_is_the_servers_to_log(server):
    log = server.log_from_here()
    with server.connect() as connection:
        connection.request("/raises-after-accept/")
        assert connection.answer().status == connection.accepted
        connection.say(TEXT, b"well?")
        if server.can("close-after-exception"):
            assert connection.hear() == (CLOSE, (1011).to_bytes(2, "big"))
        else:
            assert b"secret" not in connection.rest()
    server.wait_for("ZeroDivisionError: secret", log)


# Sessions.


@pytest.mark.parametrize("server", able("accept-headers"), indirect=True)
def test_a_session_begun_in_connect_has_its_cookie_on_the_accept(server, stored_session, token):
    with server.connect() as connection:
        connection.request(f"/session/{token}/accept/")
        answer = connection.answer()
        assert answer.status == connection.accepted
        connection.close()
    key = session_key_of(answer)
    assert stored_session(key)["token"] == token


@DENYING
def test_a_session_begun_in_connect_has_its_cookie_on_a_denial(ask, stored_session, token):
    answer = ask(f"/session/{token}/close/")
    assert answer.status == 403
    assert stored_session(session_key_of(answer))["token"] == token


def test_a_change_of_a_users_session_is_stored_on_an_accept(
    server, session_keys, cookie_of, stored_session, token
):
    with server.connect() as connection:
        connection.request(f"/session/{token}/accept/", cookie_of("bob"))
        assert connection.answer().status == connection.accepted
        connection.close()
    assert stored_session(session_keys["bob"])["token"] == token


def test_a_change_of_a_users_session_is_stored_on_a_denial(
    ask, session_keys, cookie_of, stored_session, token
):
    assert ask(f"/session/{token}/close/", cookie_of("bob")).status == 403
    assert stored_session(session_keys["bob"])["token"] == token


def session_key_of(answer):
    name, _, rest = answer.header("set-cookie").partition("=")
    assert name == "sessionid"
    assert "HttpOnly" in rest
    return rest.partition(";")[0]


# Cookies as HTTP/2 may split them (RFC 9113 section 8.2.3).


@pytest.mark.parametrize("server", ["hypercorn-h2"], indirect=True)
def test_a_session_cookie_among_split_cookie_headers_is_found(server, session_keys):
    with server.connect() as connection:
        cookies = ["a=1", f"sessionid={session_keys['alice']}", "b=2"]
        connection.request("/logged-in/", {"Cookie": cookies})
        assert connection.answer().status == connection.accepted
        connection.close()


# Large bodies.


@DENYING
def test_a_body_of_1_mib_arrives_whole(ask):
    answer = ask(f"/body/{MEGABYTE}/")
    assert answer.status == 403
    assert answer.header("content-length") == str(MEGABYTE)
    assert answer.body == (bytes(range(251)) * (MEGABYTE // 251 + 1))[:MEGABYTE]


@DENYING
def test_a_body_past_the_limit_is_a_500_and_the_log_says_why(ask, server):
    log = server.log_from_here()
    assert ask(f"/body/{MEGABYTE + 1}/").problem["code"] == "server_error"
    assert "raise CHANNELS_WSDENY['MAX_DENIAL_BODY']" in log()


# Policies that take too long.


@pytest.fixture(scope="module")
def slow_handshakes(fleet):
    """A handshake on each server, all at once, that its policy keeps past POLICY_TIMEOUT."""
    connections = {name: fleet.get(name).connect() for name in SERVERS}
    for connection in connections.values():
        connection.request("/sleeps/")
    yield connections
    for connection in connections.values():
        connection.socket.close()


def test_a_policy_past_its_timeout_is_a_503_before_the_server_gives_up(server, slow_handshakes):
    connection = slow_handshakes[server.name]
    answer = connection.answer()
    connection.end()
    if server.can("denial"):
        assert answer.status == 503
        assert answer.problem["code"] == "unavailable"
        assert answer.header("retry-after") == "5"
    else:
        assert (answer.status, answer.body) == (403, b"")


def test_our_daphne_waits_for_a_policy_timeout_longer_than_its_own(fleet):
    server = fleet.get("daphne", POLICY_TIMEOUT=6)
    with server.connect() as connection:
        connection.request("/sleeps/")
        answer = connection.answer()
        connection.end()
    assert (answer.status, answer.problem["code"]) == (503, "unavailable")
    assert "ran past POLICY_TIMEOUT (6 s)" in server.log


# DENY_WITH = "close", per stack.


@pytest.fixture
def ask_for_close(server):
    """A function from a path to the accept, and to the code and reason of the close after it."""

    def ask(path, headers=None):
        with server.connect() as connection:
            connection.request(f"/deny-with-close{path}", headers)
            answer = connection.answer()
            assert answer.status == connection.accepted
            return answer, *connection.hear_close()

    return ask


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/ws/deny-all/", 4403, "permission_denied"),
        ("/ws/anonymous/", 4401, "not_authenticated"),
        ("/ws/raises-deny/", 4402, "pay"),
        ("/nowhere/", 4404, "not_found"),
        ("/raises-in-connect/", 4500, "server_error"),
    ],
)
def test_a_stack_that_denies_with_close_accepts_and_closes_with_the_status(
    ask_for_close, server, path, code, reason
):
    _, found_code, found_reason = ask_for_close(path)
    assert found_code == code
    assert found_reason == (reason if server.can("close-reason") else "")


def test_a_stack_that_denies_with_close_chooses_the_first_subprotocol(ask_for_close):
    answer, code, _ = ask_for_close("/ws/deny-all/", {"Sec-WebSocket-Protocol": "chat.v1, chat.v2"})
    assert answer.header("sec-websocket-protocol") == "chat.v1"
    assert code == 4403
