"""Clients that leave in the middle: nothing of theirs is left, and the server goes on."""

from __future__ import annotations

import time

import pytest

from .raw import GUARD


def ask(server, path):
    with server.connect() as connection:
        connection.request(path)
        return connection.answer()


def wait_until_gone(server, token):
    """Wait until the application runs for no connection with `token` in its address."""
    deadline = time.monotonic() + GUARD
    while left := [address for address in server.report()["running"] if token in address]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.fixture(params=["close", "reset"])
def leave(request):
    """A function that ends a connection from the client's side."""
    if request.param == "close":
        return lambda connection: connection.socket.close()
    return lambda connection: connection.reset()


@pytest.mark.parametrize("then", ["allow", "deny"])
def test_a_client_may_leave_while_its_policy_runs(server, leave, token, then):
    with server.connect() as connection:
        connection.request(f"/hold/{token}/{then}/")
        server.wait_for(f"holding {token}")
        leave(connection)
    ask(server, f"/release/{token}/")
    server.wait_for(f"released {token}")
    wait_until_gone(server, token)


def test_a_client_may_leave_with_its_denial_half_read(server, leave, token):
    with server.connect() as connection:
        connection.request(f"/body/1048576/?{token}")
        assert connection.socket.recv(100)
        leave(connection)
    wait_until_gone(server, token)


def test_a_client_may_leave_with_its_handshake_half_sent(server, leave):
    with server.connect() as connection:
        connection.socket.sendall(b"GET /ws/allow-any/ HTTP/1.1\r\nHost: loc")
        leave(connection)
    assert ask(server, "/ws/anonymous/").status == (401 if server.can("denial") else 403)


def test_a_client_may_leave_an_open_socket(server, leave, token):
    with server.connect() as connection:
        connection.request(f"/ws/allow-any/?{token}")
        assert connection.answer().status == connection.accepted
        leave(connection)
    wait_until_gone(server, token)


@pytest.mark.parametrize(
    "path", ["/ws/anonymous/", "/closes/", "/raises-in-connect/", "/accepts-without-asking/", "/nowhere/"]
)
def test_nothing_runs_for_a_denied_client(server, path, token):
    ask(server, f"{path}?{token}")
    wait_until_gone(server, token)
