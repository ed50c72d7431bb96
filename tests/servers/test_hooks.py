"""Hooks and signals over the wire: what they add to each answer, and clients that leave meanwhile."""

import pytest

from tests.support.connections import BINARY, PLAIN, TEXT

from .table import DIFFERENCES, HTTP1, SERVERS

HOOKS = "tests.servers.hooks.hooks"
WORD = {"X-Word": "hello"}
COOKIES = ["one=1; Path=/", "two=2; HttpOnly; Path=/two"]
#: Servers that send the headers of hooks, and those of them that speak HTTP/1.1.
MARKING = [name for name in SERVERS if name not in DIFFERENCES["accept-headers"]]
PLAINLY = pytest.mark.parametrize("server", [name for name in MARKING if name in HTTP1], indirect=True)


@pytest.fixture(params=MARKING)
def server(request, fleet):
    return fleet.get(request.param, HOOKS=[HOOKS])


@pytest.fixture
def ask(server):
    """A function from a path (and headers) to the answer of a request that is not accepted."""
    return server.ask


def marks_of(answer):
    """What the hooks have put on an answer: a word of the request, its status, a name; and cookies."""
    return [answer.header(name) for name in ("x-word", "x-status", "x-around")], answer.all("set-cookie")


def test_headers_and_cookies_of_hooks_are_on_the_101_after_those_of_the_consumer(opened):
    connection, answer = opened("/accepts-with-headers/", WORD)
    assert answer.header("x-own") == "yes"
    assert marks_of(answer) == (["hello", "101", "1"], ["one=1", "two=2; Path=/", *COOKIES])
    for kind in (TEXT, BINARY):
        connection.say(kind, b"a")
        assert connection.hear() == (kind, b"a")
    connection.close()


def test_headers_and_cookies_of_hooks_are_on_every_denial(ask):
    for path, status in {"/ws/anonymous/": 401, "/nowhere/": 404, "/closes-4404/": 404}.items():
        answer = ask(path, WORD)
        assert (answer.status, answer.problem["status"]) == (status, status)
        assert marks_of(answer) == (["hello", str(status), "1"], COOKIES)


@PLAINLY
def test_a_plain_get_on_a_socket_is_answered_with_the_headers_of_hooks(ask):
    answer = ask("/ws/allow-any/", PLAIN)
    assert (answer.status, answer.header("upgrade"), answer.header("x-status")) == (426, "websocket", "426")
    assert answer.all("set-cookie") == COOKIES
    denied, handshake = ask("/ws/anonymous/", PLAIN), ask("/ws/anonymous/")
    assert (denied.status, denied.body, denied.all("set-cookie")) == (401, handshake.body, COOKIES)


@pytest.mark.parametrize("where", ["request", "response"])
@pytest.mark.parametrize("path", ["/ws/allow-any/", "/ws/deny-all/"])
def test_a_client_may_leave_while_a_hook_runs(path, where, server, ask, token):
    for reset in (False, True):
        with server.connect() as connection:
            connection.request(f"{path}?do=hold-in-{where}&token={token}{reset}")
            server.wait_for(f"{where} holds {token}{reset}")
            connection.leave(reset=reset)
        ask(f"/ws/deny-all/?do=release&token={token}{reset}")
    server.wait_until_gone(token)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_receivers_hear_of_each_handshake(server, token):
    for then, heard in {"accept": "handshake_accepted {}: 101", "close": "handshake_denied {}: 403"}.items():
        path = f"/session/{token}/{then}/"
        with server.connect() as connection:
            connection.request(path)
            connection.answer()
            server.wait_for(heard.format(path))
